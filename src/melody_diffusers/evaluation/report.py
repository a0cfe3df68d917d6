"""`melody evaluate`: one command that measures a pipeline and says which of its stages holds it back.

Everything is measured on four rows of clips, each one stage further from a real recording:

    real            held-out test clips: what the judges can recognise at best
    reconstructed   the same clips through the audio VAE-GAN and back: what the decoder costs
    from_tokens     the same clips' semantic tokens, rendered by the diffusion model: what rendering costs
    generated       music from prompts alone: what the language model and MuLan cost

and on two rows that no judge may like: silence and noise. `clips.py` makes them, `rows.py` judges them, this file
writes. Beside the rows stand the grid (`grid.py`) and long pieces (`long_pieces.py`).
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import DiffusionPipeline

import melody_diffusers
from melody_diffusers.evaluation.clips import (
    CLIP_SECONDS,
    QUESTIONS,
    Clip,
    Settings,
    in_batches,
    make_clips,
    read_manifest,
)
from melody_diffusers.evaluation.embeddings import Embedding, load_embedding, log_mel_statistics, mulan_embedding
from melody_diffusers.evaluation.grid import (
    GRID_SPLITS,
    SEEDS_EXPECTED,
    SEEDS_PROMPT,
    SEEDS_ROW,
    choose_grid,
    grid_figures,
    grid_table,
    seeds_of_one_prompt,
)
from melody_diffusers.evaluation.judges import ClipJudge
from melody_diffusers.evaluation.key import KeyJudge
from melody_diffusers.evaluation.listeners import missing_listeners
from melody_diffusers.evaluation.long_pieces import (
    LONG_ROW,
    LONG_SECONDS,
    REAL_LONG_ROW,
    WHOLE_CLIP_SECONDS,
    choose_long_prompts,
    choose_long_windows,
    long_figures,
    long_table,
)
from melody_diffusers.evaluation.plots import draw
from melody_diffusers.evaluation.reconstruction import figures_table
from melody_diffusers.evaluation.rows import (
    ROWS,
    embed_clips,
    evaluate_clips,
    judge_row,
    measure_reconstruction,
    measure_velocity,
)
from melody_diffusers.evaluation.sampling import compare_sampling
from melody_diffusers.evaluation.speed import measure_load_seconds, measure_speed
from melody_diffusers.hf.publishing import model_card


def as_markdown(report: dict) -> str:
    """The report as a page: the rows and their distances, the stages, the speed, the sampling, then every class."""
    settings, rows, reconstruction, speed = (report[k] for k in ("settings", "rows", "reconstruction", "speed"))
    velocity = report["velocity"]
    angles = [name.partition("/")[2] for name in velocity if name.startswith("velocity_mse/")]
    lines = [
        "# Evaluation",
        "",
        f"Model `{Path(settings['model']).name}`, data `{Path(settings['data']).name}`, seed {settings['seed']}, "
        f"{settings['clips_per_class']} clips a class, pipeline arguments {settings['call_arguments'] or 'default'}.",
        "How to read it: docs/evaluation.md.",
        "",
        "| clips | style | family | tempo (exact; shuffled) | key or relative (exact; shuffled) "
        "| MCC - shuffled = margin |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        answers = [f"{row[question]['share']:.0%} of {row[question]['clips']}" for question in QUESTIONS]
        for hits in (row["tempo"], row["key"]):
            text = f"{hits['share']:.0%} of {hits['clips']} ({hits['exact']:.0%}; {hits['shuffled']:.0%})"
            answers.append(text if hits["clips"] else "-")
        mcc = row["mcc"]
        answers.append(f"{mcc['matched']:.3f} - {mcc['shuffled']:.3f} = {mcc['margin']:.3f}")
        lines.append(f"| {' | '.join([name.replace('_', ' '), *answers])} |")
    by_source = {
        question: ", ".join(f"{s} {share:.0%}" for s, share in rows["generated"][question]["by_source"].items())
        for question in QUESTIONS
    }
    lines += [
        "",
        f"Chance: style {report['chance']['style']:.0%}, family {report['chance']['family']:.0%}. Generated clips by "
        f"the source of their prompts: style {by_source['style']}; family {by_source['family']}.",
        "",
        "## Distances to real music",
        "",
        *distance_table(rows | {"real_against_real": report["real_against_real"]}),
        "",
        "## Reconstruction by the VAE-GAN",
        "",
        f"{reconstruction['clips']} test clips: SI-SDR {reconstruction['si_sdr_db']:.2f} dB (median "
        f"{reconstruction['si_sdr_db_median']:.2f}), multi-resolution STFT distance "
        f"{reconstruction['multi_resolution_stft']:.3f}, log-mel distance {reconstruction['log_mel_db']:.2f} dB.",
        "",
        f"Of {reconstruction['row_clips']} of these clips:",
        "",
        *figures_table(reconstruction["rows"]),
        "",
        "## Velocities of the diffusion model",
        "",
        f"{velocity['clips']} encoded test clips, by angle: from almost clean latents, 0, to almost noise, pi/2.",
        "",
        "| | mean | " + " | ".join(angle.removeprefix("angle_") for angle in angles) + " |",
        "|---" * (len(angles) + 2) + "|",
    ]
    for figure, label in (("velocity_mse", "velocity MSE"), ("si_snr_improvement", "SI-SNR improvement, dB")):
        means = [velocity[figure], *(velocity[f"{figure}/{angle}"] for angle in angles)]
        lines.append(f"| {label} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    lines += [
        "",
        "## Speed",
        "",
        f"{CLIP_SECONDS:.0f} s of audio in {speed['seconds']:.2f} s: {speed['real_time_factor']:.2f} times faster than "
        f"real time (median of warm runs, one clip at a time, {speed['num_threads']} threads). Language model "
        f"{speed['seconds_generate_semantic_tokens']:.2f} s ({speed['language_model_evaluations']} model evaluations), "
        f"diffusion {speed['seconds_denoise_latents']:.2f} s ({speed['model_evaluations']} model evaluations), "
        f"decoding {speed['seconds_decode_latents']:.2f} s, prompt {speed['seconds_encode_prompt']:.2f} s. A fresh "
        f"process is ready in {speed['load_seconds']:.1f} s.",
    ]
    if report["sampling"]:
        lines += ["", "## Steps and schedules", "", *sampling_table(report["sampling"], rows["real"])]
    if report.get("grid"):
        lines += ["", "## Any style with any lead", "", "Prompts in words that training captions never use.", ""]
        lines += grid_table(report["grid"])
    if report.get("seeds"):
        counts = {name: f"{s['share'] * s['clips']:.0f}" for name, s in report["seeds"].items() if s["clips"]}
        lines += ["", "## One prompt, many seeds", ""]
        lines.append(
            f"*{SEEDS_PROMPT}*, {report['seeds']['style']['clips']} seeds: heard as style {SEEDS_EXPECTED['style']} "
            f"{counts['style']} times, as family {SEEDS_EXPECTED['family']} {counts['family']} times, as both "
            f"{counts['both']} times."
        )
    if report.get("long_pieces"):
        pieces = report["long_pieces"]
        lines += ["", "## Long pieces", "", f"Of {next(iter(pieces.values()))['seconds']:.0f} s each.", ""]
        lines += long_table(pieces)
        if REAL_LONG_ROW not in pieces:
            lines += ["", "The data set has no clips of that length to set beside them."]
    for question in QUESTIONS:
        shown = [name for name in ROWS[:4] if name in rows]
        lines += ["", f"## Recognised by {question}", "", f"| {question} | {' | '.join(shown)} |"]
        lines.append("|---" * (len(shown) + 1) + "|")
        for answer in rows["generated"][question]["by_class"]:
            shares = [rows[name][question]["by_class"].get(answer) for name in shown]
            lines.append(f"| {answer} | " + " | ".join("-" if s is None else f"{s:.0%}" for s in shares) + " |")
    return "\n".join(lines) + "\n"


def distance_columns(row: dict) -> dict[str, float]:
    """All distances of a row: "Frechet, log_mel" and so on."""
    return {
        f"{measure.capitalize()}, {name}": value
        for measure in ("frechet", "kernel")
        for name, value in row[measure].items()
    }


def distance_table(rows: dict[str, dict]) -> list[str]:
    """Frechet and kernel distances: one line for each row, one column for each embedding."""
    names = ["clips", *distance_columns(rows["real"])]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, row in rows.items():
        values = [name.replace("_", " "), *(f"{value:.4g}" for value in distance_columns(row).values())]
        lines.append(f"| {' | '.join(values)} |")
    return lines


def sampling_table(sampling: list[dict], real: dict) -> list[str]:
    """The paper's Tables 2 and 4 in one: speed, MCC and distances by schedule and number of steps."""
    names = ["schedule", "steps", "model evaluations", "times faster than real time", "MCC", *distance_columns(real)]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in sampling:
        evaluations = f"{row['language_model_evaluations']} + {row['model_evaluations']}"
        values = [row["schedule"], str(row["num_inference_steps"]), evaluations, f"{row['real_time_factor']:.2f}"]
        values += [f"{row['mcc']:.3f}", *(f"{value:.4g}" for value in distance_columns(row).values())]
        lines.append(f"| {' | '.join(values)} |")
    values = ["real clips", "", "", "", f"{real['mcc']['matched']:.3f}"]
    values += [f"{value:.4g}" for value in distance_columns(real).values()]
    return [*lines, f"| {' | '.join(values)} |"]


def more_rows(
    arguments: argparse.Namespace,
    read_windows: Callable[[str, float], list[dict[str, Any]]],
    hand_written: dict[str, dict[str, dict]],
    seed: int,
    sample_rate: int,
    judge: ClipJudge,
) -> tuple[dict[str, list[Clip]], dict[str, list[tuple[dict, Clip]]]]:
    """The rows beside those of `ROWS`, of which none is empty: what is made of prompts, and windows of the data set."""
    prompts: dict[str, list[Clip]] = {}
    windows: dict[str, list[tuple[dict, Clip]]] = {}
    count = 4 if arguments.quick else arguments.grid_clips
    for split, name in GRID_SPLITS.items():
        grid = choose_grid(read_windows(split, CLIP_SECONDS), hand_written, name, count, seed)
        prompts[name] = [clip for _, clip in grid]
        windows[f"real {name}"] = [(window, replace(clip, file=f"real {clip.file}")) for window, clip in grid]
    if all(name in judge.config.labels[question] for question, name in SEEDS_EXPECTED.items()):
        count = min(2, arguments.seeds_prompt) if arguments.quick else arguments.seeds_prompt
        prompts[SEEDS_ROW] = seeds_of_one_prompt(count, seed)
    if arguments.long_pieces:
        count, seconds = (1, 20.0) if arguments.quick else (arguments.long_pieces, LONG_SECONDS)
        clips = read_windows("test", WHOLE_CLIP_SECONDS)
        prompts[LONG_ROW] = choose_long_prompts(clips, hand_written, count, seconds, seed)
        windows[REAL_LONG_ROW] = choose_long_windows(clips, hand_written, count, seconds, sample_rate, seed)
    return {n: row for n, row in prompts.items() if row}, {n: row for n, row in windows.items() if row}


def write_report(
    arguments: argparse.Namespace, pipe: DiffusionPipeline, read_windows: Callable[[str, float], list[dict[str, Any]]]
) -> None:
    """Makes the clips, judges them, and writes report.json, report.md and plots.

    Args:
        arguments: of `melody evaluate`.
        read_windows: split and seconds -> the windows of its clips, as `AudioClips.windows` gives them.
    """
    started = time.perf_counter()
    prompts = arguments.prompts or files("melody_diffusers.evaluation").joinpath("prompts.yaml")
    hand_written = yaml.safe_load(prompts.read_text())
    judge = ClipJudge.from_pretrained(arguments.judges / "clip").eval()
    key_judge = KeyJudge.from_pretrained(arguments.judges / "key").eval()
    pipe.set_progress_bar_config(disable=True)
    embeddings: dict[str, Embedding] = {"log_mel": log_mel_statistics, "mulan": mulan_embedding(pipe.mulan)}
    for name in arguments.embedding:
        kind, _, place = name.partition(":")
        label = f"{kind}:{Path(place).name}" if Path(place).is_dir() else name  # a report tells no local path
        embeddings[label] = load_embedding(name, str(pipe.device))
    names = ["num_inference_steps", "guidance_scale", "prompt_guidance_scale"]
    names += ["temperature", "top_k", "top_p", "lm_guidance_scale"]
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
        test, validation = (read_windows(split, CLIP_SECONDS) for split in ("test", "validation"))
        rows_besides = more_rows(arguments, read_windows, hand_written, settings.seed, pipe.sample_rate, judge)
        with torch.no_grad():
            manifest = make_clips(
                pipe, settings, hand_written, folder, test, validation, *rows_besides, arguments.batch_size
            )

    earlier: dict = {}
    if arguments.reuse and (arguments.out / "report.json").is_file():
        earlier = json.loads((arguments.out / "report.json").read_text())
    measured = {"num_runs": 2 if arguments.quick else 5, "num_threads": arguments.num_threads}
    speed = earlier.get("speed")
    if speed is None:
        speed = measure_speed(pipe, audio_duration=CLIP_SECONDS, **measured, **settings.call_arguments)
        speed["load_seconds"] = measure_load_seconds(arguments.model)
    sample_rate = pipe.sample_rate
    grid_rows = {
        name: grid_figures(
            manifest[name],
            judge_row(manifest[name], in_batches(folder, manifest[name], sample_rate), sample_rate, judge, key_judge),
        )
        for name in (*(f"{kind}{row}" for row in GRID_SPLITS.values() for kind in ("real ", "")), SEEDS_ROW)
        if name in manifest
    }
    rows, real_against_real = evaluate_clips(folder, manifest, judge, key_judge, pipe, embeddings)
    sampling: list[dict] = []
    if arguments.compare_steps:
        asked, reference = (
            [clip for clip in manifest[name] if "style" in clip.expected] for name in ("generated", "reference")
        )
        sampling = compare_sampling(
            pipe,
            asked,
            embed_clips(in_batches(folder, reference, sample_rate), sample_rate, embeddings),
            embeddings,
            arguments.compare_steps,
            batch_size=arguments.batch_size,
            **measured,
            **settings.call_arguments,
        )
    report = {
        "settings": asdict(settings),
        "chance": {question: 1 / len(judge.config.labels[question]) for question in QUESTIONS},
        "rows": rows,
        "real_against_real": real_against_real,
        "grid": {name: figures for name, figures in grid_rows.items() if name != SEEDS_ROW},
        "seeds": grid_rows.get(SEEDS_ROW, {}),
        "long_pieces": {
            name: long_figures(folder, manifest[name], sample_rate, judge, key_judge)
            for name in (REAL_LONG_ROW, LONG_ROW)
            if name in manifest
        },
        "reconstruction": measure_reconstruction(folder, manifest["real"], manifest["reconstructed"], pipe.vae),
        "velocity": measure_velocity(folder, manifest["real"], pipe, arguments.batch_size),
        "speed": speed,
        "sampling": sampling,
        "versions": {"torch": torch.__version__, "melody_diffusers": melody_diffusers.__version__},
    }
    report["seconds"] = time.perf_counter() - started
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1))
    (arguments.out / "report.md").write_text(as_markdown(report))
    if arguments.card:
        page = arguments.card.read_text() + as_markdown(report).replace("# Evaluation", "## Evaluation", 1)
        card = model_card(pipe, Path(arguments.model).resolve().name, text=page, report=report)
        card.save(Path(arguments.model) / "README.md")

    draw(arguments.out, report, folder, manifest, sample_rate)
    print((arguments.out / "report.md").read_text())
    print(f"Written to {arguments.out} in {report['seconds']:.0f} s.", *missing_listeners(), sep="\n")
