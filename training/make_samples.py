"""Makes docs/samples.md: a clip for each style, none chosen by ear, and their spectrograms.

    python training/make_samples.py

Each prompt is the first that was written by hand for its style in the evaluation's prompts; every seed is 0.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import soundfile
import torch
import yaml
from matplotlib.figure import Figure

import melody_diffusers
from melody_diffusers import MeLoDyPipeline
from melody_diffusers.spectra import spectrogram_image

PAGE = """# Samples

What `melody-tiny` makes of a sentence, as Ogg Vorbis, {seconds:g} seconds each. The prompts are the first of each style
in `melody_diffusers/evaluation/prompts.yaml`, the seed is always 0, nothing was chosen or retried, and
`python training/make_samples.py` makes all of them again.

| prompt | clip |
|---|---|
{rows}

Time to the right, mel bands upwards, 80 dB in colour:

![Spectrograms of the {count} clips](samples/spectrograms.png)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=melody_diffusers.MELODY_TINY, help="folder or name of a pipeline")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--duration", type=float, default=6.0, help="seconds")
    args = parser.parse_args()
    pipe = MeLoDyPipeline.from_pretrained(args.model)
    prompts = yaml.safe_load(files("melody_diffusers.evaluation").joinpath("prompts.yaml").read_text(encoding="utf-8"))
    folder = args.docs / "samples"
    folder.mkdir(exist_ok=True)
    rows, pictures = [], {}
    for style, about in prompts["style"].items():
        prompt, name = about["prompts"][0], style.replace(" ", "-")
        generator = torch.Generator().manual_seed(0)
        audio = pipe(prompt, audio_duration=args.duration, generator=generator, output_type="pt").audios[0]  # (1, T)
        soundfile.write(folder / f"{name}.ogg", audio[0].numpy(), pipe.sample_rate, subtype="VORBIS")
        pictures[style] = spectrogram_image(audio, pipe.sample_rate)
        rows.append(f"| {prompt} | [{name}.ogg](samples/{name}.ogg) |")
    columns = 4
    figure = Figure(figsize=(12, 2 * -(-len(pictures) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(pictures) // columns), columns, squeeze=False).flat
    for ax, (style, picture) in zip(axes, pictures.items(), strict=False):
        ax.imshow(picture, aspect="auto")
        ax.set_title(style, fontsize=9)
    for ax in figure.axes:
        ax.set_axis_off()
    figure.savefig(folder / "spectrograms.png", dpi=70)
    page = PAGE.format(seconds=args.duration, rows="\n".join(rows), count=len(rows))
    (args.docs / "samples.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
