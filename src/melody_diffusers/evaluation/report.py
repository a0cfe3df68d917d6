"""`melody evaluate`: one command that measures a pipeline and says which of its stages holds it back.

Everything is measured on four rows of clips, each one stage further from a real recording:

    real            held-out test clips: what the judges can recognise at best
    reconstructed   the same clips through the audio VAE-GAN and back: what the decoder costs
    from_tokens     the same clips' semantic tokens, rendered by the diffusion model: what rendering costs
    generated       music from prompts alone: what the language model and MuLan cost

and on two rows that no judge may like: silence and noise. `clips.py` makes them; this file judges and writes.

Shapes: B clips in a batch, N clips in a row, T samples, W windows in a clip, E embedding width.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import DiffusionPipeline
from tqdm import tqdm

import melody_diffusers
from melody_diffusers.audio import resample
from melody_diffusers.evaluation.clips import (
    CLIP_SECONDS,
    QUESTIONS,
    Clip,
    Settings,
    in_batches,
    make_clips,
    read_clips,
    read_manifest,
)
from melody_diffusers.evaluation.cycle_consistency import mulan_cycle_consistency
from melody_diffusers.evaluation.embeddings import log_mel_statistics
from melody_diffusers.evaluation.frechet import frechet_distance
from melody_diffusers.evaluation.judges import OCTAVE_RATIOS, TRIPLE_RATIOS, ClipJudge, estimate_bpm, tempo_matches
from melody_diffusers.evaluation.reconstruction import log_mel_distance, plot_spectrogram_pair, si_sdr
from melody_diffusers.evaluation.speed import measure_load_seconds, measure_speed
from melody_diffusers.losses import multi_resolution_stft_loss
from melody_diffusers.publishing import model_card

ROWS = ("real", "reconstructed", "from_tokens", "generated", "silence", "noise")


@torch.no_grad()
def judge_row(
    clips: list[Clip], waveforms: Iterator[torch.Tensor], judge: ClipJudge, pipe: DiffusionPipeline
) -> dict[str, Any]:
    """What the judges hear in one row, and the embeddings its Frechet distances are made of.

    Args:
        waveforms: batches (B, 1, T) at the pipeline's rate, in the order of `clips`.

    Returns:
        `heard`: question -> one answer per clip; `bpm`: one estimate per clip that names a tempo, else None;
        `mulan` (N, E) and `mulan_text` (N, E); `log_mel` (N, W, E'), one row of windows per clip.
    """
    sample_rate = pipe.sample_rate
    heard: dict[str, list[str]] = {question: [] for question in judge.config.labels}
    bpm: list[float | None] = []
    mulan, log_mel = [], []
    for batch in waveforms:
        for question, answers in judge.judge(resample(batch, sample_rate, judge.config.sample_rate)).items():
            heard[question] += answers
        for waveform in batch:
            named = clips[len(bpm)].bpm
            bpm.append(None if named is None else estimate_bpm(waveform, sample_rate=sample_rate))
        mulan.append(pipe.mulan.get_audio_features(batch.to(pipe.device, pipe.mulan.dtype)).float().cpu())
        log_mel.append(log_mel_statistics(batch, sample_rate=sample_rate).unflatten(0, (len(batch), -1)))
    texts = pipe.tokenizer(
        [clip.text for clip in clips],
        padding=True,
        truncation=True,
        max_length=min(pipe.tokenizer.model_max_length, pipe.mulan.config.text_config.max_position_embeddings),
        return_tensors="pt",
    ).to(pipe.device)
    return {
        "heard": heard,
        "bpm": bpm,
        "mulan": torch.cat(mulan),
        "mulan_text": pipe.mulan.get_text_features(texts["input_ids"], texts["attention_mask"]).float().cpu(),
        "log_mel": torch.cat(log_mel),
    }


def recognised(clips: list[Clip], heard: list[str], question: str) -> dict[str, Any]:
    """The share of clips in which a judge hears what was asked: of all, of each class, of each source of prompts."""
    asked = [
        (clip.expected[question], clip.source, answer)
        for clip, answer in zip(clips, heard, strict=True)
        if question in clip.expected
    ]

    def share(pairs: list[tuple[str, str, str]]) -> float:
        return sum(expected == answer for expected, _, answer in pairs) / len(pairs)

    return {
        "share": share(asked),
        "clips": len(asked),
        "by_source": {s: share([a for a in asked if a[1] == s]) for s in sorted({source for _, source, _ in asked})},
        "by_class": {c: share([a for a in asked if a[0] == c]) for c in sorted({expected for expected, _, _ in asked})},
        "confusion": [[expected, answer] for expected, _, answer in asked],
    }


def tempo_hits(clips: list[Clip], estimates: list[float | None]) -> dict[str, float]:
    """Shares of clips whose estimated tempo is within 8 % of the named one: `exact`; at a metrical level, `share`;
    and `shuffled`: the same as `share` for every clip with every other clip's tempo."""
    pairs = [(clip, bpm) for clip, bpm in zip(clips, estimates, strict=True) if bpm is not None]

    def matches(estimate: float, clip: Clip) -> bool:
        return clip.bpm is not None and tempo_matches(
            estimate, clip.bpm, ratios=TRIPLE_RATIOS if clip.triple else OCTAVE_RATIOS
        )

    wrong = [matches(bpm, other) for i, (_, bpm) in enumerate(pairs) for j, (other, _) in enumerate(pairs) if i != j]
    exact = [clip.bpm is not None and tempo_matches(bpm, clip.bpm) for clip, bpm in pairs]
    count = len(pairs)
    return {
        "share": sum(matches(bpm, clip) for clip, bpm in pairs) / count if count else float("nan"),
        "exact": sum(exact) / count if count else float("nan"),
        "shuffled": sum(wrong) / len(wrong) if wrong else float("nan"),
        "clips": count,
    }


@torch.no_grad()
def measure_reconstruction(
    folder: Path, real: list[Clip], reconstructed: list[Clip], sample_rate: int
) -> dict[str, float]:
    """Means over all pairs of the three reconstruction figures, and the median SI-SDR."""
    ratios, stft, mel = [], [], []
    for reference, estimate in zip(
        in_batches(folder, real, sample_rate), in_batches(folder, reconstructed, sample_rate), strict=True
    ):
        ratios.append(si_sdr(estimate, reference).flatten())
        mel.append(log_mel_distance(estimate, reference, sample_rate=sample_rate))
        stft += [multi_resolution_stft_loss(estimate[[i]], reference[[i]]) for i in range(len(reference))]
    all_ratios = torch.cat(ratios)
    return {
        "si_sdr_db": all_ratios.mean().item(),
        "si_sdr_db_median": all_ratios.median().item(),
        "multi_resolution_stft": torch.stack(stft).mean().item(),
        "log_mel_db": torch.cat(mel).mean().item(),
        "clips": len(real),
    }


def evaluate_clips(folder: Path, manifest: dict[str, list[Clip]], judge: ClipJudge, pipe: DiffusionPipeline) -> dict:
    """All figures of all rows, from the files alone."""
    sample_rate = pipe.sample_rate
    judged = {
        name: judge_row(clips, in_batches(folder, clips, sample_rate), judge, pipe)
        for name, clips in tqdm(manifest.items(), desc="judging")
    }

    def styled(name: str, key: str) -> torch.Tensor:
        """The embeddings of the clips that stand for a style: equally many of each, in every row."""
        keep = [i for i, clip in enumerate(manifest[name]) if "style" in clip.expected]
        return judged[name][key][keep]

    rows = {}
    for name in ROWS:
        clips, heard = manifest[name], judged[name]
        matched, shuffled = mulan_cycle_consistency(heard["mulan"], heard["mulan_text"])
        rows[name] = {
            **{question: recognised(clips, heard["heard"][question], question) for question in QUESTIONS},
            "tempo": tempo_hits(clips, heard["bpm"]),
            "mcc": {"matched": matched, "shuffled": shuffled, "margin": matched - shuffled},
            "frechet": {
                "log_mel": frechet_distance(
                    styled(name, "log_mel").flatten(0, 1), styled("reference", "log_mel").flatten(0, 1)
                ),
                "mulan": frechet_distance(styled(name, "mulan"), styled("reference", "mulan")),
            },
        }
    return rows


def plot_confusion(path: Path, pairs: list[list[str]], title: str) -> None:
    """A PNG of which class (row) was heard as which (column), each row summing to 1."""
    from matplotlib.figure import Figure

    names = sorted({name for pair in pairs for name in pair})
    counts = torch.zeros(len(names), len(names))
    for expected, answer in pairs:
        counts[names.index(expected), names.index(answer)] += 1
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    size = 2 + 0.35 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    ax = figure.subplots()
    ax.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("heard")
    ax.set_ylabel("asked for")
    ax.set_title(title)
    figure.savefig(path, dpi=80)


def plot_rows(path: Path, rows: dict) -> None:
    """A PNG of the three hit rates, one group of bars for each row of clips."""
    from matplotlib.figure import Figure

    names = [name for name in ROWS if name in rows]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    ax = figure.subplots()
    for offset, key in enumerate(("style", "family", "tempo")):
        positions = [i + 0.25 * (offset - 1) for i in range(len(names))]
        ax.bar(positions, [rows[name][key]["share"] for name in names], width=0.23, label=key)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylim(0, 1)
    ax.set_ylabel("share recognised")
    ax.legend()
    figure.savefig(path, dpi=80)


def draw(out: Path, rows: dict, folder: Path, manifest: dict[str, list[Clip]], sample_rate: int) -> None:
    """All pictures of a report: hit rates, confusions, and three reconstructions spread over the styles."""
    plot_rows(out / "rows.png", rows)
    for name in ("real", "generated"):
        for question in QUESTIONS:
            plot_confusion(out / f"{name}_{question}.png", rows[name][question]["confusion"], f"{name}: {question}")
    styled = [i for i, clip in enumerate(manifest["real"]) if "style" in clip.expected]
    for number, i in enumerate(styled[:: max(len(styled) // 3, 1)][:3]):
        reference, estimate = (read_clips(folder, [manifest[n][i]], sample_rate)[0] for n in ("real", "reconstructed"))
        title = manifest["real"][i].expected["style"]
        path = out / f"reconstruction_{number}.png"
        plot_spectrogram_pair(path, reference, estimate, title=title, sample_rate=sample_rate)


def as_markdown(report: dict) -> str:
    """The report as a page: the rows, the reconstruction, the speed, then every class."""
    settings, rows, reconstruction, speed = (report[k] for k in ("settings", "rows", "reconstruction", "speed"))
    lines = [
        "# Evaluation",
        "",
        f"Model `{Path(settings['model']).name}`, data `{Path(settings['data']).name}`, seed {settings['seed']}, "
        f"{settings['clips_per_class']} clips a class, pipeline arguments {settings['call_arguments'] or 'default'}.",
        "How to read it: docs/evaluation.md.",
        "",
        "| clips | style | family | tempo (exact; shuffled) | MCC - shuffled = margin | Frechet, log-mel | MuLan |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        tempo, mcc = row["tempo"], row["mcc"]
        lines.append(
            f"| {name.replace('_', ' ')} | {row['style']['share']:.0%} of {row['style']['clips']} "
            f"| {row['family']['share']:.0%} of {row['family']['clips']} "
            f"| {tempo['share']:.0%} of {tempo['clips']} ({tempo['exact']:.0%}; {tempo['shuffled']:.0%}) "
            f"| {mcc['matched']:.3f} - {mcc['shuffled']:.3f} = {mcc['margin']:.3f} "
            f"| {row['frechet']['log_mel']:.2f} | {row['frechet']['mulan']:.4f} |"
        )
    by_source = {
        question: ", ".join(f"{s} {share:.0%}" for s, share in rows["generated"][question]["by_source"].items())
        for question in QUESTIONS
    }
    lines += [
        "",
        f"Chance: style {report['chance']['style']:.0%}, family {report['chance']['family']:.0%}. Generated clips by "
        f"the source of their prompts: style {by_source['style']}; family {by_source['family']}.",
        "",
        "## Reconstruction by the VAE-GAN",
        "",
        f"{reconstruction['clips']} test clips: SI-SDR {reconstruction['si_sdr_db']:.2f} dB (median "
        f"{reconstruction['si_sdr_db_median']:.2f}), multi-resolution STFT distance "
        f"{reconstruction['multi_resolution_stft']:.3f}, log-mel distance {reconstruction['log_mel_db']:.2f} dB.",
        "",
        "## Speed",
        "",
        f"{CLIP_SECONDS:.0f} s of audio in {speed['seconds']:.2f} s: {speed['real_time_factor']:.2f} times faster than "
        f"real time (median of warm runs, one clip at a time, {speed['num_threads']} threads). Language model "
        f"{speed['seconds_generate_semantic_tokens']:.2f} s, diffusion {speed['seconds_denoise_latents']:.2f} s "
        f"({speed['model_evaluations']} model evaluations), decoding {speed['seconds_decode_latents']:.2f} s, prompt "
        f"{speed['seconds_encode_prompt']:.2f} s. A fresh process is ready in {speed['load_seconds']:.1f} s.",
    ]
    for question in QUESTIONS:
        shown = [name for name in ROWS[:4] if name in rows]
        lines += ["", f"## Recognised by {question}", "", f"| {question} | {' | '.join(shown)} |"]
        lines.append("|---" * (len(shown) + 1) + "|")
        for answer in rows["generated"][question]["by_class"]:
            shares = [rows[name][question]["by_class"].get(answer) for name in shown]
            lines.append(f"| {answer} | " + " | ".join("-" if s is None else f"{s:.0%}" for s in shares) + " |")
    return "\n".join(lines) + "\n"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="melody evaluate", description="Measure a pipeline on held-out clips.")
    parser.add_argument("--model", default=melody_diffusers.MELODY_TINY, help="pipeline folder or Hub name")
    parser.add_argument("--data", default="data/synthetic", help="dataset folder with test and validation splits")
    parser.add_argument("--judges", default="outputs/judges", help="folder written by training/train_judges.py")
    parser.add_argument("--out", default="outputs/evaluation", type=Path, help="folder for report, plots and clips")
    parser.add_argument("--prompts", type=Path, help="YAML of hand-written prompts (default: the package's)")
    parser.add_argument("--clips_per_class", type=int, default=10)
    parser.add_argument("--num_inference_steps", type=int, help="default: the pipeline's")
    parser.add_argument("--guidance_scale", type=float, help="default: the pipeline's")
    parser.add_argument("--temperature", type=float, help="of the language model; default: the pipeline's")
    parser.add_argument("--top_k", type=int, help="of the language model; default: the pipeline's")
    parser.add_argument("--top_p", type=float, help="of the language model; default: the pipeline's")
    parser.add_argument("--lm_guidance_scale", type=float, help="of the language model; default: the pipeline's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--num_threads", type=int, default=2, help="CPU threads while speed is measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--reuse", action="store_true", help="judge the clips of an earlier run in --out again")
    parser.add_argument("--quick", action="store_true", help="two clips a class and two timed runs: a smoke test")
    parser.add_argument("--card", type=Path, help="Markdown about the model: with the report it becomes its README.md")
    arguments = parser.parse_args(argv)
    if arguments.card and not (arguments.card.is_file() and Path(arguments.model).is_dir()):
        parser.error("--card is a Markdown file, and needs a folder as --model, to write its README.md")
    if min(arguments.clips_per_class, arguments.batch_size, arguments.num_threads) < 1:
        parser.error("--clips_per_class, --batch_size and --num_threads are at least 1")
    if not (Path(arguments.judges) / "config.json").is_file():
        parser.error(
            f"no judges in {arguments.judges}: train them with "
            "`python training/train_judges.py --config training/configs/judges/tiny.yaml`"
        )
    return arguments


def main(argv: list[str] | None = None) -> int:
    """The command `melody evaluate`: makes the clips, judges them, writes report.json, report.md and plots."""
    arguments = parse_arguments(argv)
    started = time.perf_counter()
    prompts = arguments.prompts or files("melody_diffusers.evaluation").joinpath("prompts.yaml")
    hand_written = yaml.safe_load(prompts.read_text())
    judge = ClipJudge.from_pretrained(arguments.judges).eval()
    pipe = melody_diffusers.MeLoDyPipeline.from_pretrained(arguments.model).to(arguments.device)
    pipe.set_progress_bar_config(disable=True)
    if pipe.semantic_tokenizer is None:
        raise ValueError(f"{arguments.model} has no semantic_tokenizer, which the row from_tokens needs.")
    names = ("num_inference_steps", "guidance_scale", "temperature", "top_k", "top_p", "lm_guidance_scale")
    settings = Settings(
        model=str(arguments.model),
        data=str(arguments.data),
        clips_per_class=2 if arguments.quick else arguments.clips_per_class,
        seed=arguments.seed,
        call_arguments={n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None},
    )
    folder = arguments.out / "clips"
    if arguments.reuse:
        settings, manifest = read_manifest(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            manifest = make_clips(pipe, settings, hand_written, folder, batch_size=arguments.batch_size)

    earlier = arguments.out / "report.json"
    if arguments.reuse and earlier.is_file():
        speed = json.loads(earlier.read_text())["speed"]
    else:
        speed = measure_speed(
            pipe,
            num_runs=2 if arguments.quick else 5,
            num_threads=arguments.num_threads,
            **settings.call_arguments,
        )
        speed["load_seconds"] = measure_load_seconds(arguments.model)
    sample_rate = pipe.sample_rate
    report = {
        "settings": asdict(settings),
        "chance": {question: 1 / len(judge.config.labels[question]) for question in QUESTIONS},
        "rows": evaluate_clips(folder, manifest, judge, pipe),
        "reconstruction": measure_reconstruction(folder, manifest["real"], manifest["reconstructed"], sample_rate),
        "speed": speed,
        "versions": {"torch": torch.__version__, "melody_diffusers": melody_diffusers.__version__},
    }
    report["seconds"] = time.perf_counter() - started
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1))
    (arguments.out / "report.md").write_text(as_markdown(report))
    if arguments.card:
        page = arguments.card.read_text() + as_markdown(report).replace("# Evaluation", "## Evaluation", 1)
        card = model_card(pipe, Path(arguments.model).resolve().name, text=page, report=report)
        card.save(Path(arguments.model) / "README.md")

    draw(arguments.out, report["rows"], folder, manifest, sample_rate)
    print((arguments.out / "report.md").read_text())
    print(f"Written to {arguments.out} in {report['seconds']:.0f} s.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
