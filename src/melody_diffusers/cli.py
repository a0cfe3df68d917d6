"""The `melody` command: generate, inpaint, benchmark, evaluate.

Heavy imports stay inside the handlers, so that help and a mistyped argument answer at once. What a user can get wrong
ends in one line on stderr and exit code 2.
"""

import argparse
import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import MELODY_TINY, __version__

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

SPECTROGRAM_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # quiet to loud
SPECTROGRAM_RANGE_DB = 80.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["evaluate"]:  # has a parser of its own
            from .evaluation.report import main as evaluate

            return evaluate(argv[1:]) or 0
        args = _parser().parse_args(argv)
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
    return 0


def write_spectrogram(path: Path, waveform: "torch.Tensor", sample_rate: int) -> None:
    """A PNG of the waveform (1, T): time to the right, 128 mel bands upwards, the loudest 80 dB in colour."""
    import numpy as np
    from PIL import Image

    from .audio import log_mel_spectrogram

    hop = max(sample_rate // 100, waveform.shape[-1] // 4000)  # 100 columns a second, at most about 4000 in all
    mel = log_mel_spectrogram(waveform[0], sample_rate=sample_rate, n_fft=2048, hop_length=hop, num_mels=128)
    decibels = (20 / np.log(10) * mel).T.flip(0).numpy()
    loudness = np.clip(1 + (decibels - decibels.max()) / SPECTROGRAM_RANGE_DB, 0, 1)
    stops = np.linspace(0, 1, len(SPECTROGRAM_COLOURS))
    channels = [np.interp(loudness, stops, colour) for colour in zip(*SPECTROGRAM_COLOURS)]
    image = Image.fromarray(np.stack(channels, -1).astype(np.uint8))
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

    disable_progress_bar()
    disable_transformers_progress_bar()
    device = args.device if args.device is not None else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
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

    model = _Parser(add_help=False)
    model.add_argument(
        "--model", default=MELODY_TINY, help="pipeline folder or name on the Hub (default: the shipped one)"
    )
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one, else cpu)")
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

    commands.add_parser("evaluate", add_help=False, help="measure a model on held-out clips (melody evaluate --help)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
