"""How much of recordings survives an audio VAE, beside what Griffin-Lim makes of their magnitudes.

    python training/evaluate_vae.py --vae src/melody_diffusers/checkpoints/melody-tiny/vae --data data/real

Prints a table, Markdown, with a row for each way to reconstruct and a column for each figure; docs/evaluation.md says
what they mean. Of all windows of the data, `--clips` at even distances are measured.
"""

import argparse
import json
from pathlib import Path

import torch

from melody_diffusers.audio import load_audio
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.data.recordings import audio_paths
from melody_diffusers.devices import default_device
from melody_diffusers.evaluation.reconstruction import reconstruction_figures, reconstructions
from melody_diffusers.models.audio_vae import AudioVAEGAN


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, help="folder of the VAE, or of a pipeline that has one")
    parser.add_argument("--data", type=Path, required=True, help="folder of recordings, or a data set folder")
    parser.add_argument("--split", default="validation", help="of a data set (default: validation)")
    parser.add_argument("--clips", type=int, default=40, help="at most so many (default: 40)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a clip (default: 10)")
    parser.add_argument("--device", help="(default: cuda where there is one, else cpu)")
    parser.add_argument("--out", type=Path, help="JSON file of the table")
    return parser.parse_args()


def read_windows(data: Path, split: str, seconds: float, sample_rate: int) -> list[torch.Tensor]:
    """All whole windows of the recordings, (1, T) each."""
    paths = audio_paths(data)
    if paths:
        clips = [load_audio(path, sample_rate) for path in paths]
    else:
        dataset = AudioClips(data, split, None, sample_rate)
        clips = [dataset.clip(i) for i in range(len(dataset))]
    length = round(seconds * sample_rate)
    return [part for clip in clips for part in clip.split(length, dim=-1) if part.shape[-1] == length]


def main() -> None:
    args = parse_arguments()
    folder = args.vae / "vae" if (args.vae / "vae").is_dir() else args.vae
    vae = AudioVAEGAN.from_pretrained(folder).eval().to(args.device or default_device())
    windows = read_windows(args.data, args.split, args.seconds, vae.sample_rate)
    if not windows:
        raise ValueError(f"{args.data} holds no recording of {args.seconds:g} s.")
    chosen = (
        [windows[i * len(windows) // args.clips] for i in range(args.clips)] if len(windows) > args.clips else windows
    )
    rows: dict[str, list[torch.Tensor]] = {}
    for waveform in chosen:
        for name, estimate in reconstructions(vae, waveform[None]).items():
            rows.setdefault(name, []).append(estimate[0])
    table = {name: reconstruction_figures(estimates, chosen, vae.sample_rate) for name, estimates in rows.items()}
    names = list(next(iter(table.values())))
    print(f"{len(chosen)} clips of {args.seconds:g} s from {args.data}\n")
    print(f"| | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for row, figures in table.items():
        print(f"| {row} | {' | '.join(f'{figures[name]:.3f}' for name in names)} |")
    if args.out:
        args.out.write_text(json.dumps({"clips": len(chosen), "rows": table}, indent=1))


if __name__ == "__main__":
    main()
