"""The `melody` command: generate, inpaint, data, lora, benchmark, evaluate.

Heavy imports stay inside the handlers, so that help and a mistyped argument answer at once. What a user can get wrong
ends in one line on stderr and exit code 2.
"""

import argparse
import importlib.util
import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import MELODY_TINY, __version__
from .lora_training.command import add_commands as add_lora_commands

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        # some options had underscores once
        args = _parser().parse_args([re.sub("^--[a-z_]+", lambda name: name[0].replace("_", "-"), a) for a in argv])
        return args.handler(args)
    except SystemExit as error:  # argparse: 0 after help, 2 after an error it has reported
        return error.code if isinstance(error.code, int) else 2
    except KeyboardInterrupt:
        print("melody: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"melody: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def generate(args: argparse.Namespace) -> int:
    """`melody generate`: a prompt, or a clip as prompt, to a file of music."""
    _check_output(args.output)
    pipe, load_seconds = _load("MeLoDyPipeline", args)
    started = time.perf_counter()
    output = pipe(
        prompt=args.prompt,
        audio_prompt=args.audio_prompt,
        audio_duration=args.duration,
        **_sampling(args),
    )
    _finish(args, output, pipe.sample_rate, time.perf_counter() - started, load_seconds)
    return 0


def inpaint(args: argparse.Namespace) -> int:
    """`melody inpaint`: fill a region of a recording, or continue it."""
    if (args.start is None) != (args.end is None):
        raise ValueError("--start and --end belong together: they name the region to fill.")
    _check_output(args.output)
    pipe, load_seconds = _load("MeLoDyInpaintPipeline", args)
    started = time.perf_counter()
    output = pipe(
        audio=args.input,
        regions=[] if args.start is None else [(args.start, args.end)],
        extend_seconds=args.extend,
        prompt=args.prompt,
        **_sampling(args),
    )
    _finish(args, output, pipe.sample_rate, time.perf_counter() - started, load_seconds)
    return 0


def benchmark(args: argparse.Namespace) -> int:
    """`melody benchmark`: the median time of one generation, in all and by stage."""
    import torch

    from .evaluation.speed import measure_speed

    pipe, load_seconds = _load("MeLoDyPipeline", args)
    pipe.set_progress_bar_config(disable=True)
    threads = torch.get_num_threads()
    speed = measure_speed(
        pipe,
        audio_duration=args.duration,
        num_runs=args.runs,
        num_threads=threads,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance,
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
    pipe, _ = _load("MeLoDyPipeline", args)
    if pipe.semantic_tokenizer is None:
        raise ValueError(f"--model {args.model!r} has no semantic_tokenizer, which the row from_tokens needs.")
    from .data.datasets import AudioClips
    from .evaluation.report import write_report

    def read_windows(split: str, seconds: float) -> list[dict[str, Any]]:
        return AudioClips(args.data, split, None, pipe.sample_rate).windows(seconds)

    write_report(args, pipe, read_windows)
    return 0


def build_data(args: argparse.Namespace) -> int:
    """`melody data build`: recordings of any kind to a data set folder."""
    from .data.build import MANIFEST, build_dataset
    from .data.decoding import DecodeLimits

    limits = DecodeLimits(
        clip_seconds=args.clip_seconds,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
        min_level_db=args.min_level,
        timeout_seconds=args.timeout,
    )
    summary = build_dataset(
        args.source,
        args.out,
        limits=limits,
        validation_share=args.validation_share,
        test_share=args.test_share,
        split=args.split,
        streaming=args.streaming,
        max_recordings=args.max_recordings,
        workers=args.workers,
    )
    print(f"{summary}\nwrote {args.out}; {args.out / MANIFEST} has a line for each recording")
    return 0


def encode_data(args: argparse.Namespace) -> int:
    """`melody data encode`: a data set folder to latents and tokens, by the components of a pipeline."""
    from .data.encode import ClipEncoder, encode_dataset, process_state

    if not args.data.is_dir():
        raise ValueError(f"--data {str(args.data)!r} is no folder; `melody data build` makes one.")
    args.device = str(process_state().device) if args.device is None else args.device
    pipe, _ = _load("MeLoDyPipeline", args)
    if pipe.semantic_tokenizer is None:
        raise ValueError(f"--model {args.model!r} has no semantic_tokenizer, without which nothing can be encoded.")
    encoder = ClipEncoder(
        pipe.vae,
        pipe.mulan,
        pipe.mulan_quantizer,
        pipe.semantic_tokenizer,
        pipe.tokenizer,
        window_seconds=args.window_seconds,
        window_stride_seconds=args.window_stride_seconds,
        tag_lists=args.tag_lists,
        mixed_precision=args.mixed_precision,
    )
    encode_dataset(args.data, encoder, args.out, args.splits, args.batch_size, args.rows_per_part)
    return 0


def write_spectrogram(path: Path, waveform: "torch.Tensor", sample_rate: int) -> None:
    """A PNG of the waveform (1, T), its bands three pixels high."""
    from PIL import Image

    from .spectra import spectrogram_image

    image = Image.fromarray(spectrogram_image(waveform, sample_rate))
    image.resize((image.width, 3 * image.height), Image.Resampling.BILINEAR).save(path, format="PNG")


def _load(class_name: str, args: argparse.Namespace) -> tuple["DiffusionPipeline", float]:
    """The pipeline on its device, in its dtype, and the seconds that took."""
    is_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", args.model) and not args.model.startswith(".")
    if not os.path.isfile(os.path.join(args.model, "model_index.json")) and (
        os.path.exists(args.model) or not is_hub_name
    ):
        raise ValueError(f"--model {args.model!r} is neither a folder with a model_index.json nor a name on the Hub.")
    started = time.perf_counter()
    import torch
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils.logging import disable_progress_bar as disable_transformers_progress_bar

    import melody_diffusers

    from .devices import default_device, use_tensor_cores

    disable_progress_bar()
    disable_transformers_progress_bar()
    device = default_device() if args.device is None else args.device
    try:
        use_tensor_cores(torch.empty(0, device=device).device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device!r} is not available: {error}") from error
    pipe = getattr(melody_diffusers, class_name).from_pretrained(args.model, dtype=getattr(torch, args.dtype))
    return pipe.to(device), time.perf_counter() - started


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that generate and inpaint have in common, by the pipelines' names."""
    return {
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "lm_guidance_scale": args.lm_guidance,
        "generator": _generator(args),
        "output_type": "pt",
    }


def _generator(args: argparse.Namespace) -> "torch.Generator":
    import torch

    if args.seed is None:
        args.seed = secrets.randbelow(2**31)
    return torch.Generator().manual_seed(args.seed)


def _check_output(path: Path) -> None:
    """Complain before minutes of work, not after."""
    if path.suffix.lower() not in (".wav", ".flac"):
        raise ValueError(f"-o must end in .wav or .flac; got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"-o {str(path)!r}: there is no folder {str(path.parent)!r}.")


def _finish(args: argparse.Namespace, output: Any, sample_rate: int, seconds: float, load_seconds: float) -> None:
    """Write the files and say what was made."""
    from .audio import save_audio

    waveform = output.audios[0].cpu()  # (1, T)
    save_audio(args.output, waveform, sample_rate)
    if args.spectrogram is not None:
        write_spectrogram(args.spectrogram, waveform, sample_rate)
    duration = waveform.shape[-1] / sample_rate
    gain = float(output.gains[0])
    print(f"wrote {args.output}" + (f" and {args.spectrogram}" if args.spectrogram else ""))
    print(f"  audio             {duration:.2f} s, {sample_rate} Hz, mono")
    print(f"  seconds taken     {seconds:.2f} (and {load_seconds:.2f} to load the model)")
    print(f"  real-time factor  {duration / seconds:.2f}")
    print(f"  seed              {args.seed}")
    print(f"  limiter gain      {gain:.3f}" + (" (the peak was within full scale)" if gain == 1 else ""))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 10^18; got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 999999; got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="melody", description="Music from a text, from a clip of music, or around one.")
    parser.add_argument("--version", action="version", version=f"melody-diffusers {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    place = _Parser(add_help=False)
    place.add_argument(
        "--model", default=MELODY_TINY, help="pipeline folder or name on the Hub (default: the shipped one)"
    )
    place.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one, else cpu)")

    model = _Parser(add_help=False, parents=[place])
    model.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the weights")
    model.add_argument("--steps", type=int, help="reverse steps of the diffusion (default: the model's own)")
    model.add_argument("--guidance", type=float, help="classifier-free guidance; 1 is off (default: the model's own)")

    sampling = _Parser(add_help=False)
    sampling.add_argument("--temperature", type=float, help="of the language model; 0 is greedy (default: the model's)")
    sampling.add_argument("--top-k", type=int, help="sample among the k likeliest tokens (default: the model's)")
    sampling.add_argument("--top-p", type=float, help="sample within this probability mass (default: the model's)")
    sampling.add_argument("--lm-guidance", type=float, help="guidance of the language model (default: the model's)")
    sampling.add_argument("--seed", type=_seed, help="the same seed gives the same audio (default: random, printed)")
    sampling.add_argument("--spectrogram", type=Path, metavar="PNG", help="draw a mel spectrogram of the result, too")
    sampling.add_argument("-o", "--output", type=Path, required=True, help="file to write, .wav or .flac")

    command = commands.add_parser("generate", parents=[model, sampling], help="music from a text or a clip")
    command.add_argument("prompt", nargs="?", help='what to play, such as "a cheerful solo piano waltz"')
    command.add_argument("--audio-prompt", metavar="FILE", help="instead of a text: a clip it should sound like")
    command.add_argument("--duration", type=float, default=10.0, help="seconds of music (default: 10)")
    command.set_defaults(handler=generate)

    command = commands.add_parser("inpaint", parents=[model, sampling], help="fill or continue a recording")
    command.add_argument("input", help="the recording")
    command.add_argument("--start", type=float, help="where the region to fill starts, in seconds")
    command.add_argument("--end", type=float, help="where it ends")
    command.add_argument("--extend", type=float, default=0.0, metavar="SECONDS", help="music to add after the end")
    command.add_argument("--prompt", help="what the new part should be (default: like the recording)")
    command.set_defaults(handler=inpaint)

    command = commands.add_parser("benchmark", parents=[model], help="how fast this machine is, by stage")
    command.add_argument("--duration", type=float, default=10.0, help="seconds of music (default: 10)")
    command.add_argument("--runs", type=_count, default=5, help="runs to take the median of (default: 5)")
    command.set_defaults(handler=benchmark)

    data = commands.add_parser("data", help="recordings to training data").add_subparsers(
        metavar="command", required=True
    )
    command = data.add_parser("build", help="recordings of any kind to a data set folder")
    command.add_argument("source", help="folder of recordings, or a Hugging Face data set: a folder or a name")
    command.add_argument("--out", type=Path, required=True, help="folder to write")
    command.add_argument("--clip-seconds", type=float, default=20.0, help="recordings are cut into these (default: 20)")
    command.add_argument("--min-seconds", type=float, default=10.0, help="shorter ones are left out (default: 10)")
    command.add_argument("--max-seconds", type=float, default=3600.0, help="longer recordings, too (default: 3600)")
    command.add_argument("--min-level", type=float, default=-60.0, help="and quieter ones, dB RMS (default: -60)")
    command.add_argument("--timeout", type=float, default=120.0, help="seconds to decode a recording (default: 120)")
    command.add_argument("--validation-share", type=float, default=0.05, help="of the recordings (default: 0.05)")
    command.add_argument("--test-share", type=float, default=0.05, help="of the recordings (default: 0.05)")
    command.add_argument("--split", default="train", help="of a Hugging Face data set (default: train)")
    command.add_argument("--streaming", action="store_true", help="do not download the whole of it first")
    command.add_argument("--max-recordings", type=_count, help="stop after so many (default: all)")
    command.add_argument("--workers", type=_count, default=os.cpu_count() or 1, help="processes (default: one a core)")
    command.set_defaults(handler=build_data)

    command = data.add_parser("encode", parents=[place], help="a data set folder to latents and tokens")
    command.add_argument("--data", type=Path, required=True, help="data set folder, such as `melody data build` writes")
    command.add_argument("--out", type=Path, required=True, help="folder to write; a stopped run goes on there")
    command.add_argument("--splits", nargs="+", metavar="SPLIT", help="(default: all)")
    command.add_argument("--mixed-precision", choices=["no", "bf16"], default="no", help="(default: no)")
    command.add_argument("--batch-size", type=_count, default=8, help="clips at a time (default: 8)")
    command.add_argument(
        "--rows-per-part", type=_count, default=256, help="clips lost by a stop, at most (default: 256)"
    )
    command.add_argument("--window-seconds", type=float, default=10.0, help="that MuLan hears at a time (default: 10)")
    command.add_argument("--window-stride-seconds", type=float, default=2.5, help="between them (default: 2.5)")
    command.add_argument("--tag-lists", type=int, default=0, help="of a clip's tags, beside captions (default: 0)")
    command.set_defaults(handler=encode_data, dtype="float32")

    add_lora_commands(commands)
    command = commands.add_parser("evaluate", parents=[place], help="measure a model on held-out clips")
    command.add_argument(
        "--data",
        type=Path,
        default="data/synthetic",
        help="data set with test and validation splits (default: data/synthetic)",
    )
    command.add_argument("--judges", type=Path, default="outputs/judges", help="by training/train_judges.py")
    command.add_argument("--out", type=Path, default="outputs/evaluation", help="folder for report, plots and clips")
    command.add_argument("--prompts", type=Path, help="YAML of hand-written prompts (default: the package's)")
    which = "of distances, besides log_mel and mulan: clap:FOLDER_OR_REPO, or module:function; may be repeated"
    command.add_argument("--embedding", action="append", default=[], metavar="NAME", help=which)
    which = "compare these numbers of steps under the linear and the uniform schedule, such as 5 10 20"
    command.add_argument("--compare-steps", type=_count, nargs="+", default=[], metavar="STEPS", help=which)
    command.add_argument("--clips-per-class", type=_count, default=10, help="(default: 10)")
    for name in ("--num-inference-steps", "--top-k"):
        command.add_argument(name, type=int, help="(default: the model's own)")
    for name in ("--guidance-scale", "--temperature", "--top-p", "--lm-guidance-scale"):
        command.add_argument(name, type=float, help="(default: the model's own)")
    command.add_argument("--seed", type=_seed, default=0, help="of prompts and music (default: 0)")
    command.add_argument("--batch-size", type=_count, default=8, help="clips at a time (default: 8)")
    command.add_argument("--num-threads", type=_count, default=2, help="of the CPU when speed is measured (default: 2)")
    command.add_argument("--reuse", action="store_true", help="judge the clips of an earlier run in --out again")
    command.add_argument("--quick", action="store_true", help="two clips a class and two timed runs: a smoke test")
    command.add_argument("--card", type=Path, help="Markdown about the model: with the report it becomes its README.md")
    command.set_defaults(handler=evaluate, dtype="float32")
    return parser


if __name__ == "__main__":
    sys.exit(main())
