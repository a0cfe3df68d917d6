"""Recordings of a style that is in no training set, to adapt a model to: folders of WAV files, without captions.

    python training/synthetic/held_out.py --style ska --out data/ska

writes data/ska/train for `train_lora.py` and data/ska/test for `evaluate_lora.py`, each file a piece of its own. The
same seed and package versions give the same samples.
"""

import argparse
from pathlib import Path

import soundfile
from build import CLIP_SECONDS, FONT
from compose import compose
from render import RENDER_RATE, SAMPLE_RATE, render
from soundfont import SoundFont
from styles import HELD_OUT
from tqdm.auto import tqdm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", choices=HELD_OUT, default=next(iter(HELD_OUT)))
    parser.add_argument("--out", type=Path, required=True, help="folder to write train/ and test/ into")
    parser.add_argument("--train_minutes", type=float, default=5.0)
    parser.add_argument("--test_minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts = {
        "train": round(args.train_minutes * 60 / CLIP_SECONDS),
        "test": round(args.test_minutes * 60 / CLIP_SECONDS),
    }
    if min(counts.values()) < 1 or args.seed < 0:
        parser.error(f"--train_minutes and --test_minutes are at least {CLIP_SECONDS / 60:.2f}, --seed at least 0")
    font = SoundFont(FONT, RENDER_RATE)
    seeds = iter(range(args.seed * 10_000_000, (args.seed + 1) * 10_000_000))
    for split, count in counts.items():
        (args.out / split).mkdir(parents=True, exist_ok=True)
        for index in tqdm(range(count), desc=split, unit="piece"):
            waveform = render(compose(args.style, next(seeds), CLIP_SECONDS), font, CLIP_SECONDS)
            soundfile.write(args.out / split / f"{args.style}-{index:03d}.wav", waveform, SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
