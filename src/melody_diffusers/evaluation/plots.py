"""The pictures of a report."""

from pathlib import Path
from typing import Any

import torch

from melody_diffusers.evaluation.clips import QUESTIONS, Clip, read_clips
from melody_diffusers.evaluation.reconstruction import plot_spectrogram_pair
from melody_diffusers.evaluation.rows import ROWS


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
    """A PNG of the four hit rates, one group of bars for each row of clips."""
    from matplotlib.figure import Figure

    names = [name for name in ROWS if name in rows]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    ax = figure.subplots()
    for offset, key in enumerate(("style", "family", "tempo", "key")):
        positions = [i + 0.2 * (offset - 1.5) for i in range(len(names))]
        ax.bar(positions, [rows[name][key]["share"] for name in names], width=0.18, label=key)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylim(0, 1)
    ax.set_ylabel("share recognised")
    ax.legend()
    figure.savefig(path, dpi=80)


def plot_sampling(path: Path, table: list[dict[str, Any]]) -> None:
    """A PNG of MCC, Frechet distances and speed over the number of steps, one line for each schedule."""
    from matplotlib.figure import Figure

    curves = {"MCC": [row["mcc"] for row in table]}
    curves["times faster than real time"] = [row["real_time_factor"] for row in table]
    for name in table[0]["frechet"]:
        curves[f"Frechet, {name}"] = [row["frechet"][name] for row in table]
    figure = Figure(figsize=(3.2 * len(curves), 3), layout="constrained")
    for ax, (title, values) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for schedule in dict.fromkeys(row["schedule"] for row in table):
            points = [
                (row["num_inference_steps"], value)
                for row, value in zip(table, values, strict=True)
                if row["schedule"] == schedule
            ]
            ax.plot(*zip(*sorted(points), strict=True), marker="o", label=schedule)
        ax.set_title(title)
        ax.set_xlabel("steps")
    ax.legend()
    figure.savefig(path, dpi=80)


def plot_velocity(path: Path, velocity: dict[str, float]) -> None:
    """A PNG of velocity MSE and SI-SNR improvement over the angle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2), ("velocity_mse", "si_snr_improvement"), strict=True):
        curve = {float(k.rpartition("_")[2]): v for k, v in velocity.items() if k.startswith(f"{name}/")}
        ax.plot(list(curve), list(curve.values()), marker="o")
        ax.set_title({"velocity_mse": "velocity MSE", "si_snr_improvement": "SI-SNR improvement, dB"}[name])
        ax.set_xlabel("angle, from music to noise")
    figure.savefig(path, dpi=80)


def draw(out: Path, report: dict, folder: Path, manifest: dict[str, list[Clip]], sample_rate: int) -> None:
    """All pictures of a report: hit rates, confusions, velocity, sampling where it was compared, and three
    reconstructions spread over the styles."""
    rows = report["rows"]
    plot_rows(out / "rows.png", rows)
    plot_velocity(out / "velocity.png", report["velocity"])
    if report["sampling"]:
        plot_sampling(out / "sampling.png", report["sampling"])
    for name in ("real", "generated"):
        for question in QUESTIONS:
            plot_confusion(out / f"{name}_{question}.png", rows[name][question]["confusion"], f"{name}: {question}")
    styled = [i for i, clip in enumerate(manifest["real"]) if "style" in clip.expected]
    for number, i in enumerate(styled[:: max(len(styled) // 3, 1)][:3]):
        reference, estimate = (read_clips(folder, [manifest[n][i]], sample_rate)[0] for n in ("real", "reconstructed"))
        title = manifest["real"][i].expected["style"]
        path = out / f"reconstruction_{number}.png"
        plot_spectrogram_pair(path, reference, estimate, title=title, sample_rate=sample_rate)
