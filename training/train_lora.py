"""Adapts a pipeline to a folder of recordings by LoRA. No captions are needed: a window's own sound is its condition.

    python training/train_lora.py --data my_recordings/ --output my_lora

The recordings are cut into windows and encoded by the pipeline itself; each step then trains an adapter of the
diffusion model (paper, eq. 7) and one of the language model, while their own weights stay as they are. So that prompts
for other music still work, the pipeline first writes some of it, on which the adapted models learn to say what the base
says (learning without forgetting, Li and Hoiem 2016). The output loads with `pipe.load_lora_weights("my_lora")`. The
same command again goes on where the last one stopped.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from melody_diffusers import MELODY_TINY, MeLoDyPipeline
from melody_diffusers.audio import save_audio
from melody_diffusers.data.encode import ClipEncoder
from melody_diffusers.data.recordings import read_recordings
from melody_diffusers.evaluation.velocity import velocity_figures
from melody_diffusers.hf.lora import base_digest
from melody_diffusers.losses import token_nll, velocity_loss
from melody_diffusers.schedulers.angle import AngleScheduler
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config
from melody_diffusers.training_utils.velocity import chunk_angles

CONFIG = Path(__file__).parent / "configs" / "lora" / "tiny.yaml"


@dataclass(kw_only=True)
class DataConfig:
    """Recordings, the pipeline to adapt, and how the one is shown to the other.

    Args:
        folder: WAV, FLAC, MP3 and Ogg files, also in subfolders; `name.txt` beside `name.wav` may hold a caption.
        model: folder or repository of the pipeline; null is melody-tiny.
        clip_seconds: recordings are cut into clips of at most this length, of which some are held out whole.
        stride_seconds: how far apart the windows of a clip begin.
        heldout_share: share of the clips that are held out, one at least.
        text_share: share of the windows with a caption that are conditioned on it rather than on their sound.
        drop_condition: share of examples without condition, for guidance.
        prompts: YAML file with prompts for all sorts of music, a list or lists by name: what must not be forgotten.
    """

    folder: str
    prompts: str
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


def encode_windows(
    encoder: ClipEncoder, clips: list[tuple[Tensor, str]], window: int, stride: int
) -> list[dict[str, Tensor]]:
    """Every window of `window` samples: `latents` (L, D), `semantic_tokens` (S,), `mulan_tokens` (N,) of its sound, and
    `text_tokens` (N,) of its caption, or of its sound where it has none."""
    windows = []
    for clip, caption in clips:
        text_tokens = encoder.encode_texts([caption])[0] if caption else None
        for waveforms in clip.unfold(-1, window, stride).transpose(0, 1).split(8):  # (B, 1, T)
            encoded = encoder.encode_audio(waveforms.contiguous())
            for i in range(len(waveforms)):
                mulan_tokens = encoded["mulan_tokens_audio"][i, 0]
                windows.append(
                    {
                        "latents": encoded["latents"][i],
                        "semantic_tokens": encoded["semantic_tokens"][i],
                        "mulan_tokens": mulan_tokens,
                        "text_tokens": mulan_tokens if text_tokens is None else text_tokens,
                    }
                )
    return windows


@torch.no_grad()
def write_other_music(pipe: MeLoDyPipeline, prompts: str, seed: int) -> dict[str, Tensor]:
    """Windows that the base makes of the prompts in a file, in the form of `encode_windows` but stacked."""
    content = yaml.safe_load(Path(prompts).read_text(encoding="utf-8"))
    texts = content if isinstance(content, list) else [text for texts in content.values() for text in texts]
    parts = []
    for start in range(0, len(texts), 8):
        batch = texts[start : start + 8]
        made = pipe(
            batch,
            audio_duration=pipe.timebase.frames_to_seconds(pipe.dual_path.config.num_frames),
            guidance_scale=1.0,  # what the models themselves say
            lm_guidance_scale=1.0,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))],
            output_type="latent",
        )
        parts.append({"latents": made.audios, "semantic_tokens": made.semantic_tokens})
        parts[-1]["mulan_tokens"] = pipe.encode_prompt(batch)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


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


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of recordings")
    parser.add_argument("--output", required=True, help="folder for the adapter, two samples and the checkpoints")
    parser.add_argument("--config", default=CONFIG, help="YAML file (default: training/configs/lora/tiny.yaml)")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override single values"
    )
    return parser.parse_args()


def main() -> None:
    args, started = parse_arguments(), time.monotonic()
    sections = {"data": DataConfig, "dual_path": AdapterConfig, "semantic_lm": AdapterConfig, "run": RunConfig}
    places = [f"data.folder={json.dumps(args.data)}", f"run.output_dir={json.dumps(args.output)}"]
    config = load_config(args.config, sections, [*places, *args.set])
    data = config.data
    pipe = MeLoDyPipeline.from_pretrained(MELODY_TINY if data.model is None else data.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if pipe.semantic_tokenizer is None:
        raise ValueError(f"{data.model} has no semantic_tokenizer, without which recordings cannot be encoded.")

    torch.manual_seed(config.run.seed)
    models, parameters = {}, {}
    for part in ("dual_path", "semantic_lm"):
        model, settings = getattr(pipe, part), getattr(config, part)
        key = f"{part}.{base_digest(model)}"  # so that a run never goes on with another base
        model.add_adapter(
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                target_modules=settings.target_modules,
            )
        )
        trained = {name.replace(".", "_"): p for name, p in model.named_parameters() if p.requires_grad}
        models[key] = parameters[part] = nn.ParameterDict(trained)  # checkpoints hold the adapters alone
    run = TrainingRun(config.run, models, config)
    pipe.to(run.device)
    optimizers = {part: run.optimizer(parameters[part].parameters(), getattr(config, part)) for part in parameters}

    window = pipe.dual_path.config.num_frames * pipe.vae.hop_samples
    clips = read_recordings(data.folder, pipe.sample_rate, data.clip_seconds, window / pipe.sample_rate)
    if len(clips) < 2:
        raise ValueError(f"{data.folder} must hold at least two clips, one of them to be held out; got {len(clips)}.")
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(config.run.seed)).tolist()
    num_heldout = max(1, round(data.heldout_share * len(clips)))
    names = ("vae", "mulan", "mulan_quantizer", "semantic_tokenizer", "tokenizer")
    encoder = ClipEncoder(**{name: getattr(pipe, name) for name in names})
    stride = round(data.stride_seconds * pipe.sample_rate)
    train = encode_windows(encoder, [clips[i] for i in order[num_heldout:]], window, stride)
    heldout = encode_windows(encoder, [clips[i] for i in order[:num_heldout]], window, window)
    seconds = sum(clip.shape[-1] for clip, _ in clips) / pipe.sample_rate
    print(f"{seconds / 60:.1f} minutes of recordings: {len(train)} windows to train on, {len(heldout)} held out")

    other = write_other_music(pipe, data.prompts, config.run.seed)

    scheduler, dual_path, lm = AngleScheduler(), pipe.dual_path, pipe.semantic_lm
    for batch in run.steps(DataLoader(train, config.run.batch_size, shuffle=True)):
        count = len(batch["latents"])
        drawn = (run.rand("other", count) * len(other["latents"])).long()
        others = {name: tensor[drawn] for name, tensor in other.items()}
        draws = torch.cat([run.rand(f"{which} condition", count, 1, device="cpu") for which in ("own", "other")])

        order = (draws[:, 0] < data.drop_condition).sort(stable=True).indices  # those without condition come last
        num_conditional = int((draws >= data.drop_condition).sum())
        other_rows = (order >= count).nonzero()[:, 0]
        num_other = int((other_rows < num_conditional).sum())  # of these hear tokens, and come first
        order, other_rows = (places.to(run.device, non_blocking=True) for places in (order, other_rows))
        z = torch.cat([batch["latents"].float(), others["latents"]])[order]  # (2 B, L, D)
        tokens = torch.cat([batch["semantic_tokens"], others["semantic_tokens"]])[order][:num_conditional]
        num_chunks = dual_path.config.num_chunks
        draws = torch.cat([run.rand(f"{which} angle", count, num_chunks) for which in ("own", "other")])[order]
        angle = chunk_angles(draws, z.shape[1])  # (2 B, L)
        noise = torch.cat([run.randn(f"{which} noise", count, *z.shape[1:]) for which in ("own", "other")])[order]
        with run.autocast():
            noisy, target = scheduler.add_noise(z, noise, angle), scheduler.get_velocity(z, noise, angle)
            with base_of(dual_path):
                other_tokens = tokens[other_rows[:num_other]]
                target[other_rows] = dual_path(noisy[other_rows], angle[other_rows], other_tokens).sample.float()
            velocity_error = velocity_loss(dual_path(noisy, angle, tokens).sample.float(), target)
        run.backward(velocity_error, optimizers["dual_path"])

        from_text = run.rand("text", count, 1) < data.text_share
        mulan_tokens = torch.where(from_text, batch["text_tokens"], batch["mulan_tokens"])  # (B, N)
        other_mulan, tokens = others["mulan_tokens"], others["semantic_tokens"]
        if lm.config.null_condition:
            other_mulan = other_mulan.masked_fill(run.rand("null", count, 1) < data.drop_condition, -1)
        with run.autocast():
            own_tokens = batch["semantic_tokens"]
            nats = token_nll(lm.semantic_logits(mulan_tokens, own_tokens), own_tokens)
            with base_of(lm):
                base = lm.semantic_logits(other_mulan, tokens).float().log_softmax(-1).flatten(0, 1)
            adapted = lm.semantic_logits(other_mulan, tokens).float().log_softmax(-1).flatten(0, 1)
            forgotten = F.kl_div(adapted, base, log_target=True, reduction="batchmean")
        run.backward(nats + forgotten, optimizers["semantic_lm"])
        run.finish_step(velocity=velocity_error, nll=nats, forgotten=forgotten)

    losses, prompt = {}, default_collate(heldout[:1])["mulan_tokens"]
    if not run.accelerator.is_main_process:
        return
    with run.averaged_weights():
        pipe.save_lora_weights(args.output)
        for name, switch in {"before": pipe.disable_lora, "after": pipe.enable_lora}.items():
            switch()
            losses[name] = heldout_losses(pipe, heldout)
            audio = pipe(mulan_tokens=prompt, generator=torch.Generator().manual_seed(0), output_type="pt").audios[0]
            save_audio(run.output_dir / f"{name}.wav", audio, pipe.sample_rate)
            run.log_audio(name, audio, pipe.sample_rate)
    run.log(**{f"heldout_{name}": value for name, value in losses["after"].items()})
    shown = ", ".join(f"{name} {losses['before'][name]:.3f} -> {value:.3f}" for name, value in losses["after"].items())
    print(
        f"lora: {run.step} steps, {(time.monotonic() - started) / 60:.1f} minutes in all; held-out {shown}. "
        f"The adapter is in {args.output}; compare before.wav and after.wav there."
    )


if __name__ == "__main__":
    main()
