"""Adapts a pipeline to a folder of recordings by LoRA. No captions are needed: a window's own sound is its condition.

The recordings are cut into windows and encoded by the pipeline itself; each step then trains an adapter of the
diffusion model (paper, eq. 7) and one of the language model, while their own weights stay as they are. So that prompts
for other music still work, the pipeline first writes some of it, on which the adapted models learn to say what the base
says (learning without forgetting, Li and Hoiem 2016). The output loads with `pipe.load_lora_weights("my_lora")`. The
same call again goes on where the last one stopped.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from .. import MELODY_TINY, MeLoDyPipeline
from ..audio import save_audio
from ..data.decoding import DecodeLimits
from ..data.encode import ClipEncoder
from ..data.recordings import Accepted, read_folder
from ..evaluation.velocity import velocity_figures
from ..hf.lora import base_digest
from ..losses import token_nll, velocity_loss
from ..schedulers.angle import AngleScheduler
from ..training_utils import Config, OptimConfig, RunConfig, TrainingRun, load_config
from ..training_utils.velocity import chunk_angles, load_teacher
from .windows import Windows, choose_sides, read_prompts, write_other_music

CONFIG = Path(__file__).with_name("default.yaml")
PROMPTS = Path(__file__).with_name("prompts.yaml")
LEAST_SECONDS = 2.0  # of a recording; up to a window's length it is repeated
NOTES = "recordings.json"  # what an adapter was trained on


@dataclass(kw_only=True)
class DataConfig:
    """Recordings, the pipeline to adapt, and how the one is shown to the other.

    Args:
        folder: audio files, also in subfolders, with captions and tags as `melody data build` reads them; or a data set
            folder that it wrote.
        model: folder or repository of the pipeline; null is melody-tiny.
        clip_seconds: recordings are cut into clips of at most this length, within which windows lie.
        stride_seconds: how far apart the windows of a clip begin.
        heldout_share: of the recordings; if that is none of them, of one recording.
        text_share: share of the windows with a caption that are conditioned on it rather than on their sound.
        drop_condition: share of examples without condition, for guidance.
        prompts: YAML file with prompts for all sorts of music, a list or lists by name: what must not be forgotten.
            null is the package's own.
    """

    folder: str
    prompts: str | None = None
    model: str | None = None
    clip_seconds: float = 30.0
    stride_seconds: float = 2.5
    heldout_share: float = 0.1
    text_share: float = 0.5
    drop_condition: float = 0.1


@dataclass(kw_only=True)
class AdapterConfig(OptimConfig):
    """The adapter of one model and its optimiser. `target_modules` are the ends of the names of linear layers."""

    rank: int
    alpha: int
    target_modules: list[str]


@contextmanager
def base_of(model: nn.Module) -> Iterator[None]:
    """Within the context the model is as it was, and nothing is learnt."""
    model.disable_adapters()
    try:
        with torch.no_grad():
            yield
    finally:
        model.enable_adapters()


@torch.no_grad()
def exchange_weights(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gives a model these weights, under its adapter, and returns those that it had."""
    parameters = {name.replace(".base_layer.", "."): p for name, p in model.named_parameters()}
    before = {name: parameters[name].detach().clone() for name in weights}
    for name, tensor in weights.items():
        parameters[name].copy_(tensor)
    return before


@torch.no_grad()
def heldout_losses(pipe: MeLoDyPipeline, windows: list[dict[str, Tensor]], num_angles: int = 4) -> dict[str, float]:
    """Velocity MSE, averaged over angles with fixed noise, and nats per token."""
    batches = [
        {name: tensor.to(pipe.device) for name, tensor in batch.items()} for batch in DataLoader(windows, batch_size=8)
    ]
    nats = 0.0
    for batch in batches:
        tokens = batch["semantic_tokens"]
        logits = pipe.semantic_lm.semantic_logits(batch["mulan_tokens"], tokens)
        nats += float(token_nll(logits, tokens)) * len(tokens) / len(windows)
    return {"velocity": velocity_figures(pipe.dual_path, batches, num_angles)["velocity_mse"], "nll": nats}


def notes_of(config: Config, bases: dict[str, str], recordings: list[Accepted], texts: list[str]) -> dict[str, Any]:
    """What decides over the adapter but for how long it is trained: settings, weights, prompts, recordings."""
    settings = {
        f"{section}.{name}": value
        for section in ("data", "dual_path", "semantic_lm")
        for name, value in asdict(getattr(config, section)).items()
        if f"{section}.{name}" not in ("data.folder", "data.model", "data.prompts")
    }
    settings |= {"run.seed": config.run.seed, "data.prompts": hashlib.sha256("\n".join(texts).encode()).hexdigest()}
    settings |= {f"the base's {part}": digest for part, digest in bases.items()}
    named = {found.sha256: {"name": found.name, "captions": found.row["captions"]} for found in recordings}
    return json.loads(json.dumps({"settings": settings, "recordings": named}))


def changes_since(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is different from what an adapter was trained on, in words."""
    if not before:
        return ["it is not known what this adapter was trained on"]
    old, new = before["recordings"], now["recordings"]

    def count(digests: Iterable[str], source: dict[str, Any], what: str) -> list[str]:
        names = sorted(source[digest]["name"] for digest in digests)
        more = ", ..." if len(names) > 3 else ""
        plural = "1 recording is" if len(names) == 1 else f"{len(names)} recordings are"
        return [f"{plural} {what} since this adapter was trained ({', '.join(names[:3])}{more})"] if names else []

    changes = count(new.keys() - old.keys(), new, "new") + count(old.keys() - new.keys(), old, "gone")
    described = [key for key in new.keys() & old.keys() if new[key]["captions"] != old[key]["captions"]]
    changes += count(described, new, "described in other words")
    names = before["settings"].keys() | now["settings"].keys()
    others = sorted(name for name in names if before["settings"].get(name) != now["settings"].get(name))
    return changes + ([f"{', '.join(others)} changed since this adapter was trained"] if others else [])


def steps_of_finished(run: RunConfig) -> int | None:
    """The steps of an adapter that is trained to the end and written; None if it is not."""
    output = Path(run.output_dir)
    try:
        newest = max((output / "checkpoints").glob("step-*"))
        state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        by_time = run.budget_minutes is not None and state["minutes"] >= run.budget_minutes
        is_done = by_time or state["step"] >= run.max_steps
        is_written = (output / "after.wav").is_file() and (output / "pytorch_lora_weights.safetensors").is_file()
        return state["step"] if run.resume and is_done and is_written else None
    except (ValueError, OSError, KeyError):
        return None


def train_lora(
    data: str | os.PathLike,
    output: str | os.PathLike,
    config: str | os.PathLike | None = None,
    overrides: Iterable[str] = (),
) -> None:
    """Trains an adapter on a folder of recordings; prints what was used, how it goes and what was gained.

    The adapter, before.wav and after.wav go to `output`, with checkpoints and what was encoded: the same call again
    goes on where the last one stopped. If recordings or settings have changed since, it says so and starts anew.

    Args:
        data: audio files, also in subfolders, or a data set folder that `melody data build` wrote.
        config: YAML file; by default the package's, for melody-tiny.
        overrides: "section.key=value" each.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a setting is wrong, `output` lies within `data`, or there is too little to train on; says what the
            least is.
    """
    started = time.monotonic()
    if Path(output).resolve().is_relative_to(Path(data).resolve()):
        raise ValueError(f"{output} lies within {data}: its samples would become recordings. Name a folder elsewhere.")
    sections = {"data": DataConfig, "dual_path": AdapterConfig, "semantic_lm": AdapterConfig, "run": RunConfig}
    places = [f"data.folder={json.dumps(os.fspath(data))}", f"run.output_dir={json.dumps(os.fspath(output))}"]
    settings = load_config(CONFIG if config is None else config, sections, [*places, *overrides])
    with tempfile.TemporaryDirectory() as spools:
        _train(settings, Path(spools), started)


def _train(config: Config, spools: Path, started: float) -> None:
    data, output = config.data, Path(config.run.output_dir)
    pipe = MeLoDyPipeline.from_pretrained(MELODY_TINY if data.model is None else data.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if pipe.semantic_tokenizer is None:
        raise ValueError(f"{data.model} has no semantic_tokenizer, without which recordings cannot be encoded.")
    texts = read_prompts(PROMPTS if data.prompts is None else Path(data.prompts))

    window = pipe.dual_path.config.num_frames * pipe.vae.hop_samples
    window_seconds = window / pipe.sample_rate
    if data.clip_seconds < window_seconds:
        raise ValueError(
            f"data.clip_seconds must be at least {window_seconds:g} (a window), got {data.clip_seconds:g}."
        )
    limits = DecodeLimits(
        sample_rate=pipe.sample_rate,
        clip_seconds=data.clip_seconds,
        min_seconds=min(LEAST_SECONDS, window_seconds),
    )
    reading = read_folder(data.folder, limits, spools, os.cpu_count() or 1)
    print(reading)
    recordings = reading.accepted
    before = {}
    if (output / NOTES).is_file():
        before = json.loads((output / NOTES).read_text(encoding="utf-8"))
    bases = {part: base_digest(getattr(pipe, part)) for part in ("dual_path", "semantic_lm")}
    notes = notes_of(config, bases, recordings, texts)
    changes = changes_since(before, notes)
    steps = steps_of_finished(config.run)
    if steps is not None and not changes:
        print(
            f"The adapter in {output} is trained already: {steps} steps on these recordings, with these settings. More "
            "of run.max_steps and run.budget_minutes train it further; run.resume=false starts anew."
        )
        return
    sides = choose_sides(recordings, window_seconds, data.heldout_share, before.get("sides"))
    loops = sum(recording.seconds < window_seconds for recording in recordings)
    if loops:
        pieces = "1 loop" if loops == 1 else f"{loops} loops"
        was = "was" if loops == 1 else "were"
        print(f"{pieces} shorter than {window_seconds:g} s {was} repeated to fill the window")

    torch.manual_seed(config.run.seed)
    models, parameters = {}, {}
    for part, digest in bases.items():
        model, adapter = getattr(pipe, part), getattr(config, part)
        model.add_adapter(LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=adapter.target_modules))
        trained = {name.replace(".", "_"): p for name, p in model.named_parameters() if p.requires_grad}
        # checkpoints hold the adapters alone, under a name by which a run never goes on with another base
        models[f"{part}.{digest}"] = parameters[part] = nn.ParameterDict(trained)
    run = TrainingRun(config.run, models, config)
    if run.accelerator.is_main_process:
        # of checkpoints alone, from elsewhere, it is not known what they were trained on: a stopped run goes on
        if changes and (before or steps is not None) and any((output / "checkpoints").glob("step-*")):
            aside = output / "checkpoints-before"
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(output / "checkpoints", aside)
            print(f"{'; '.join(changes)}: training starts anew. The earlier checkpoints are in {aside}.")
        (output / "after.wav").unlink(missing_ok=True)  # the last to be written tells that an adapter is finished
        text = json.dumps(notes | {"sides": sides}, indent=1)
        (output / NOTES).write_text(text, encoding="utf-8")
    run.accelerator.wait_for_everyone()
    pipe.to(run.device)
    optimizers = {part: run.optimizer(parameters[part].parameters(), getattr(config, part)) for part in parameters}

    names = ("vae", "mulan", "mulan_quantizer", "semantic_tokenizer", "tokenizer")
    encoder = ClipEncoder(**{name: getattr(pipe, name) for name in names})
    stride = round(data.stride_seconds * pipe.sample_rate)
    windows = Windows(output / "encoded", encoder, window, stride, data.heldout_share)
    train, heldout = windows.encode(recordings, sides)
    seconds = sum(recording.seconds for recording in recordings)
    print(f"{seconds / 60:.1f} minutes of recordings: {len(train)} windows to train on, {len(heldout)} held out")
    configs = {**pipe.scheduler.config, **pipe.config}
    configs = {name: value for name, value in configs.items() if not name.startswith("_")}  # no paths
    key = [encoder.settings(), bases, configs, texts, config.run.seed]
    other = windows.keep(key, lambda: write_other_music(pipe, texts, config.run.seed))
    other = {name: tensor.to(run.device) for name, tensor in other.items()}
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        windows.forget_others()

    scheduler, dual_path, lm = AngleScheduler(), pipe.dual_path, pipe.semantic_lm
    teacher = load_teacher(MELODY_TINY if data.model is None else data.model, subfolder="dual_path")
    if teacher is not None:  # a distilled model says what guidance makes of music, not what music is
        own_weights = exchange_weights(dual_path, dict(teacher.named_parameters()))
    for batch in run.steps(DataLoader(train, config.run.batch_size, shuffle=True)):
        count = len(batch["latents"])
        from_text = run.rand("text", count, 1) < data.text_share
        batch["mulan_tokens"] = torch.where(from_text, batch["text_tokens"], batch["mulan_tokens"])  # (B, N)
        drawn = (run.rand("other", count) * len(other["latents"])).long()
        others = {name: tensor[drawn] for name, tensor in other.items()}
        draws = torch.cat([run.rand(f"{which} condition", count, 1, device="cpu") for which in ("own", "other")])

        order = (draws[:, 0] < data.drop_condition).sort(stable=True).indices  # those without condition come last
        num_conditional = int((draws >= data.drop_condition).sum())
        other_rows = (order >= count).nonzero()[:, 0]
        num_other = int((other_rows < num_conditional).sum())  # of these hear tokens, and come first
        order, other_rows = (places.to(run.device, non_blocking=True) for places in (order, other_rows))
        z = torch.cat([batch["latents"].float(), others["latents"]])[order]  # (2 B, L, D)
        condition = [
            torch.cat([batch[name], others[name]])[order][:num_conditional]
            for name in ("semantic_tokens", "mulan_tokens")
        ]
        num_chunks = dual_path.config.num_chunks
        draws = torch.cat([run.rand(f"{which} angle", count, num_chunks) for which in ("own", "other")])[order]
        angle = chunk_angles(draws, z.shape[1])  # (2 B, L)
        noise = torch.cat([run.randn(f"{which} noise", count, *z.shape[1:]) for which in ("own", "other")])[order]
        with run.autocast():
            noisy, target = scheduler.add_noise(z, noise, angle), scheduler.get_velocity(z, noise, angle)
            with base_of(dual_path):
                heard = [tokens[other_rows[:num_other]] for tokens in condition]
                target[other_rows] = dual_path(noisy[other_rows], angle[other_rows], *heard).sample.float()
            velocity_error = velocity_loss(dual_path(noisy, angle, *condition).sample.float(), target)
        run.backward(velocity_error, optimizers["dual_path"])

        other_mulan, tokens = others["mulan_tokens"], others["semantic_tokens"]
        if lm.config.null_condition:
            other_mulan = other_mulan.masked_fill(run.rand("null", count, 1) < data.drop_condition, -1)
        with run.autocast():
            own_tokens = batch["semantic_tokens"]
            nats = token_nll(lm.semantic_logits(batch["mulan_tokens"], own_tokens), own_tokens)
            with base_of(lm):
                base = lm.semantic_logits(other_mulan, tokens).float().log_softmax(-1).flatten(0, 1)
            adapted = lm.semantic_logits(other_mulan, tokens).float().log_softmax(-1).flatten(0, 1)
            forgotten = F.kl_div(adapted, base, log_target=True, reduction="batchmean")
        run.backward(nats + forgotten, optimizers["semantic_lm"])
        run.finish_step(velocity=velocity_error, nll=nats, forgotten=forgotten)

    losses, prompt = {}, default_collate(heldout[:1])["mulan_tokens"]
    if not run.accelerator.is_main_process:
        return
    switches = {"before": pipe.disable_lora, "after": pipe.enable_lora}
    with run.averaged_weights():
        for name, switch in switches.items():
            switch()
            losses[name] = heldout_losses(pipe, heldout)
        if teacher is not None:
            exchange_weights(dual_path, own_weights)
        pipe.save_lora_weights(output)
        for name, switch in switches.items():
            switch()
            audio = pipe(mulan_tokens=prompt, generator=torch.Generator().manual_seed(0), output_type="pt").audios[0]
            save_audio(run.output_dir / f"{name}.wav", audio, pipe.sample_rate)
            run.log_audio(name, audio, pipe.sample_rate)
    run.log(**{f"heldout_{name}": value for name, value in losses["after"].items()})
    shown = ", ".join(f"{name} {losses['before'][name]:.3f} -> {value:.3f}" for name, value in losses["after"].items())
    print(
        f"lora: {run.step} steps, {(time.monotonic() - started) / 60:.1f} minutes in all; held-out {shown}. "
        f"The adapter is in {output}; compare before.wav and after.wav there."
    )
