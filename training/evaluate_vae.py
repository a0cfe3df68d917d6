"""How much of recordings survives an audio VAE, beside what Griffin-Lim makes of their magnitudes.

    python training/evaluate_vae.py --vae src/melody_diffusers/checkpoints/melody-tiny/vae --data data/real

Prints a table, Markdown, with a row for each way to reconstruct and a column for each figure; docs/evaluation.md says
what they mean. Of all windows of the data, `--clips` at even distances are measured. Where the data set was made by
synthetic/build.py, its pieces are composed again, to know their notes; where the composer has changed since, that
figure is left out. `--quick` asks no trained listener.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from melody_diffusers.audio import load_audio
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.data.recordings import audio_paths
from melody_diffusers.devices import default_device
from melody_diffusers.evaluation.embeddings import load_embedding
from melody_diffusers.evaluation.frechet import frechet_distance
from melody_diffusers.evaluation.listeners import missing_listeners
from melody_diffusers.evaluation.reconstruction import figures_table, reconstruction_figures, reconstructions
from melody_diffusers.models.audio_vae import AudioVAEGAN

ORIGINAL = "the original itself"


class Window(NamedTuple):
    """A clip (1, T), and the notes (N, 3) that its composer wrote, if those are known."""

    waveform: torch.Tensor
    written: np.ndarray | None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, help="folder of the VAE, or of a pipeline that has one")
    parser.add_argument("--data", type=Path, required=True, help="folder of recordings, or a data set folder")
    parser.add_argument("--split", default="validation", help="of a data set (default: validation)")
    parser.add_argument("--clips", type=int, default=40, help="at most so many (default: 40)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a clip (default: 10)")
    parser.add_argument("--device", help="(default: cuda where there is one, else cpu)")
    parser.add_argument("--embedding", help="for a Frechet distance to the originals, as of `melody evaluate`")
    parser.add_argument("--quick", action="store_true", help="only figures that need no trained listener")
    parser.add_argument("--out", type=Path, help="JSON file of the table")
    return parser.parse_args()


def read_windows(data: Path, split: str, seconds: float, sample_rate: int) -> list[Window]:
    """All whole windows of the recordings."""
    sys.path.insert(0, str(Path(__file__).parent / "synthetic"))
    from score import written_notes

    paths = audio_paths(data)
    clips: list[Window] = []
    if paths:
        clips = [Window(load_audio(path, sample_rate), None) for path in paths]
    else:
        dataset = AudioClips(data, split, None, sample_rate)
        tunes_file = data / "tunes.json" if (data / "tunes.json").is_file() else None
        for i, row in enumerate(dataset.rows):
            clip = dataset.clip(i)
            is_composed = {"style", "seed", "piece_id"} <= row.keys()
            notes = written_notes(row, clip.shape[-1] / sample_rate, tunes_file) if is_composed else None
            clips.append(Window(clip, notes))
    windows, length = [], round(seconds * sample_rate)
    for waveform, notes in clips:
        for i in range(waveform.shape[-1] // length):
            inside = None
            if notes is not None:
                starts = notes[:, 0] - i * seconds
                inside = (notes - [i * seconds, i * seconds, 0])[(starts >= 0) & (starts < seconds)]
            windows.append(Window(waveform[:, i * length : (i + 1) * length], inside))
    return windows


def main() -> None:
    args = parse_arguments()
    folder = args.vae / "vae" if (args.vae / "vae").is_dir() else args.vae
    vae = AudioVAEGAN.from_pretrained(folder).eval().to(args.device or default_device())
    windows = read_windows(args.data, args.split, args.seconds, vae.sample_rate)
    if not windows:
        raise ValueError(f"{args.data} holds no recording of {args.seconds:g} s.")
    if len(windows) > args.clips:
        windows = [windows[i * len(windows) // args.clips] for i in range(args.clips)]
    originals = [window.waveform for window in windows]
    rows: dict[str, list[torch.Tensor]] = {}
    for waveform in originals:
        for name, estimate in reconstructions(vae, waveform[None]).items():
            rows.setdefault(name, []).append(estimate[0])
    if not args.quick:
        rows[ORIGINAL] = originals
    written = [window.written for window in windows if window.written is not None]
    embed = load_embedding(args.embedding) if args.embedding is not None else None
    reference = None if embed is None else [embed(clip[None], vae.sample_rate) for clip in originals]
    table: dict[str, dict[str, float]] = {}
    for name, estimates in rows.items():
        same = [done for done in table if all(map(torch.equal, estimates, rows[done]))]
        if same:
            table[name] = table[same[0]]
            continue
        table[name] = reconstruction_figures(
            estimates,
            originals,
            vae.sample_rate,
            written=written if len(written) == len(windows) else None,
            trained=not args.quick,
        )
        if embed is not None and reference is not None and len(windows) > 3:
            # of the originals, those of every other clip against the rest: what a difference of pieces alone makes
            halves = (reference[::2], reference[1::2])
            embedded = [embed(clip[None], vae.sample_rate) for clip in estimates] if name != ORIGINAL else []
            sets = (embedded, reference) if embedded else halves
            table[name]["frechet"] = frechet_distance(*(torch.cat(vectors) for vectors in sets))
    print(f"{len(windows)} clips of {args.seconds:g} s from {args.data}\n")
    print("\n".join(figures_table(table)))
    if not args.quick:
        print("\n".join(["", *missing_listeners()]))
    if args.out:
        args.out.write_text(json.dumps({"clips": len(windows), "rows": table}, indent=1))


if __name__ == "__main__":
    main()
