"""Compares a pipeline with and without an adapter: is it nearer to the style, and does it still do everything else?

    python training/evaluate_lora.py --lora my_lora --data recordings_of_that_style/

The recordings must be others than those of the training. Each of their windows prompts one clip, made twice from the
same seed; the Frechet distances of both sets to the recordings say how near they come to the style. Prompts for other
music, twice as well, say by MuLan cycle consistency whether the pipeline still follows them.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm.auto import tqdm

from melody_diffusers import MELODY_TINY, MeLoDyPipeline
from melody_diffusers.audio import save_audio
from melody_diffusers.data.decoding import DecodeLimits
from melody_diffusers.data.recordings import read_folder
from melody_diffusers.devices import default_device
from melody_diffusers.evaluation.cycle_consistency import mulan_cycle_consistency
from melody_diffusers.evaluation.embeddings import log_mel_statistics
from melody_diffusers.evaluation.frechet import frechet_distance

SECONDS = 10.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MELODY_TINY, help="folder or repository of the pipeline (melody-tiny)")
    parser.add_argument("--lora", required=True, help="folder, file or repository of the adapter")
    parser.add_argument("--data", required=True, help="folder of recordings of the style that training has not seen")
    parser.add_argument("--out", type=Path, default=Path("outputs/lora"), help="folder for the report and all clips")
    parser.add_argument(
        "--prompt", help="a text that asks for the style, to be judged beside the recordings as prompts"
    )
    parser.add_argument("--clips", type=int, default=24, help="clips of the style, at most")
    parser.add_argument("--prompts_per_class", type=int, default=2, help="prompts for each other style and family")
    parser.add_argument("--num_inference_steps", type=int, help="default: the pipeline's")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="(default: cuda where there is one, else cpu)")
    arguments = parser.parse_args()
    if arguments.clips < 2 or min(arguments.prompts_per_class, arguments.batch_size) < 1:
        parser.error("--clips is at least 2, --prompts_per_class and --batch_size at least 1")
    return arguments


def batches(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@torch.no_grad()
def main() -> None:
    args = parse_arguments()
    pipe = MeLoDyPipeline.from_pretrained(args.model).to(args.device or default_device())
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(args.lora)
    limits = DecodeLimits(sample_rate=pipe.sample_rate, clip_seconds=SECONDS, min_seconds=SECONDS)
    with tempfile.TemporaryDirectory() as spools:
        reading = read_folder(args.data, limits, Path(spools), os.cpu_count() or 1)
        print(reading)
        clips = (clip for recording in reading.accepted for clip in recording.waveforms(pipe.sample_rate))
        windows = [part for clip in clips for part in clip.split(round(SECONDS * pipe.sample_rate), dim=-1)]
    windows = [window for window in windows if window.shape[-1] == round(SECONDS * pipe.sample_rate)]
    windows = windows[:: -(-len(windows) // args.clips)]
    if len(windows) < 2:
        raise ValueError(f"{args.data} must hold at least 2 x {SECONDS:g} s; got {len(windows)} windows.")
    classes = yaml.safe_load(files("melody_diffusers.evaluation").joinpath("prompts.yaml").read_text())
    texts = [
        text
        for question in ("style", "family")
        for about in classes[question].values()
        for text in about.get("prompts", [])[: args.prompts_per_class]
    ]

    def make(folder: str, name: str, prompts: list[Any], argument: str) -> torch.Tensor:
        """One clip for each prompt, (B, 1, T), from the seeds that every other call takes."""
        audios = []
        for numbers in batches(list(range(len(prompts))), args.batch_size):
            audios += pipe(
                **{argument: [prompts[i] for i in numbers]},
                audio_prompt_sampling_rate=pipe.sample_rate if argument == "audio_prompt" else None,
                audio_duration=SECONDS,
                ending=None,
                num_inference_steps=args.num_inference_steps,
                generator=[torch.Generator().manual_seed(args.seed + i) for i in numbers],
                output_type="pt",
            ).audios.cpu()
        (args.out / folder).mkdir(parents=True, exist_ok=True)
        for i, audio in enumerate(audios):
            save_audio(args.out / folder / f"{name}-{i:02d}.flac", audio, pipe.sample_rate)
        return torch.stack(audios)

    def embeddings(waveforms: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = [pipe.mulan.get_audio_features(w.to(pipe.device)).float().cpu() for w in waveforms.split(8)]
        return {"log_mel": log_mel_statistics(waveforms, sample_rate=pipe.sample_rate), "mulan": torch.cat(parts)}

    recordings = embeddings(torch.stack(windows))
    text_embeds = pipe.mulan.embed_texts(pipe.tokenizer, texts).float().cpu()
    report: dict[str, dict[str, float]] = {}
    with tqdm(total=2, desc="evaluate") as bar:
        for folder, switch in {"base": pipe.disable_lora, "adapter": pipe.enable_lora}.items():
            switch()
            figures = report[folder] = {}
            sets = {"recordings": make(folder, "style", windows, "audio_prompt")}
            if args.prompt is not None:
                sets["text"] = make(folder, "text", [args.prompt] * len(windows), "prompt")
            for source, waveforms in sets.items():
                for name, values in embeddings(waveforms).items():
                    figures[f"Frechet distance from {source}, {name}"] = frechet_distance(values, recordings[name])
            other = embeddings(make(folder, "other", texts, "prompt"))["mulan"]
            matched, shuffled = mulan_cycle_consistency(other, text_embeds)
            figures |= {"MCC of other prompts": matched, "MCC of other prompts, shuffled": shuffled}
            bar.update()
    (args.out / "report.json").write_text(json.dumps({"arguments": vars(args), **report}, indent=1, default=str))
    print(f"{len(windows)} clips of the style, {len(texts)} prompts for other music; all clips are in {args.out}")
    for name, before in report["base"].items():
        after = report["adapter"][name]
        print(f"{name:40s} base {before:8.3f}   adapter {after:8.3f}   {100 * (after / before - 1):+6.1f} %")


if __name__ == "__main__":
    main()
