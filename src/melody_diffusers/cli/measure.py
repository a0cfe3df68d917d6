"""`melody benchmark` and `melody evaluate`."""

import argparse
import importlib.util
import os
import sys
from typing import Any

from .pipeline import load_pipeline


def benchmark(args: argparse.Namespace) -> int:
    """`melody benchmark`: the median time of one generation, in all and by stage."""
    import torch

    from ..evaluation.speed import measure_speed

    pipe, load_seconds = load_pipeline("MeLoDyPipeline", args)
    pipe.set_progress_bar_config(disable=True)
    threads = torch.get_num_threads()
    speed = measure_speed(
        pipe,
        audio_duration=args.duration,
        num_runs=args.runs,
        num_threads=threads,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
        prompt_guidance_scale=args.prompt_guidance,
    )
    where = f"{pipe.device}, {threads} threads, {args.dtype}"
    print(f"{args.duration:g} s of audio, median of {args.runs} warm runs on {where}")
    print(f"  {'real-time factor':<26}{speed['real_time_factor']:8.2f}")
    print(f"  {'seconds':<26}{speed['seconds']:8.2f}")
    for name, seconds in speed.items():
        if name.startswith("seconds_"):
            print(f"    {name.removeprefix('seconds_'):<24}{seconds:8.2f}")
    print(f"  {'language model calls':<26}{speed['language_model_evaluations']:8d}")
    print(f"  {'diffusion model calls':<26}{speed['model_evaluations']:8d}")
    print(f"  {'seconds to load, once':<26}{load_seconds:8.2f}")
    models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = sum(tensor.numel() * tensor.element_size() for part in models for tensor in part.state_dict().values())
    print(f"  {'megabytes of weights':<26}{weights / 1e6:8.1f}")
    if pipe.device.type == "cuda":
        print(f"  {'megabytes at most':<26}{torch.cuda.max_memory_allocated(pipe.device) / 1e6:8.1f}")
    elif importlib.util.find_spec("resource") is not None:  # on Linux and macOS
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        print(f"  {'megabytes at most':<26}{peak / 1e6:8.1f}  of the whole process")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """`melody evaluate`: a report on a pipeline, with plots and the clips it was made from."""
    if args.card and not (args.card.is_file() and os.path.isdir(args.model)):
        raise ValueError("--card is a Markdown file, and needs a folder as --model, to write its README.md.")
    if not all((args.judges / name / "config.json").is_file() for name in ("clip", "key")):
        train = "python training/train_judges.py --config training/configs/judges/tiny.yaml"
        raise ValueError(f"--judges {str(args.judges)!r} holds no judges: train them with `{train}`.")
    pipe, _ = load_pipeline("MeLoDyPipeline", args)
    if pipe.semantic_tokenizer is None:
        raise ValueError(f"--model {args.model!r} has no semantic_tokenizer, which the row from_tokens needs.")
    from ..data.datasets import AudioClips, split_names
    from ..evaluation.report import write_report

    def read_windows(split: str, seconds: float) -> list[dict[str, Any]]:
        if split == "unseen_pairs" and split not in split_names(args.data):
            return []
        return AudioClips(args.data, split, None, pipe.sample_rate).windows(seconds)

    write_report(args, pipe, read_windows)
    return 0
