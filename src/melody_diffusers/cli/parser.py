"""What the `melody` command understands."""

import argparse
import os
import re
from pathlib import Path
from typing import NoReturn

from .. import MELODY_TINY, __version__
from .data import build_data, encode_data
from .lora import train_adapter
from .measure import benchmark, evaluate
from .midi import midi
from .music import generate, inpaint
from .plan import audit, edit, render, show
from .serve import serve
from .stream import stream
from .vary import vary

EPILOG = """melody-tiny, the model that comes with the package, plays short instrumental pieces in sixteen styles: lo-fi
hip hop, house, techno, ambient, rock, jazz swing, bossa nova, waltz, march, folk, baroque chorale, string quartet, solo
piano, music box, chiptune, synthwave. Name one of them, and instruments that are at home in it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _seed(text: str) -> int | None:
    if text == "-1":  # at random, as elsewhere
        return None
    if not re.fullmatch(r"\d{1,20}", text) or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^64 - 1, or -1 for any; got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    """30, 30s, 500ms, 2m, 1m30s, 0:30, 1:02:03.5"""
    number = r"(\d+(?:\.\d*)?|\.\d+)"
    if match := re.fullmatch(rf"(?:(?:(\d+):)?(\d+):)?{number}", text):
        parts = [float(part or 0) for part in match.groups()]
        return 3600 * parts[0] + 60 * parts[1] + parts[2]
    units = rf"(?:{number}\s*h)?\s*(?:{number}\s*m(?:in)?)?\s*(?:{number}\s*s(?:ec)?)?\s*(?:{number}\s*ms)?"
    match = re.fullmatch(units, text.strip())
    if not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"must be a time, as 30, 30s, 1:30 or 2m; got {text!r}")
    return sum(float(part or 0) * scale for part, scale in zip(match.groups(), (3600, 60, 1, 0.001)))


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 999999; got {text!r}")
    return int(text)


class _Edit(argparse.Action):
    """Keeps edits of different kinds in the order in which they were given."""

    def __call__(self, parser, namespace, values, option_string=None):
        name = self.option_strings[0].lstrip("-")
        try:
            if name == "splice":
                edit: tuple[object, ...] = (name, _seconds(values[0]), Path(values[1]))
            else:
                edit = (name, *map(_seconds, values[:2]), *map(_count, values[2:]))
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument {option_string}: {error}")
        namespace.edits = [*namespace.edits, edit]


def _count_or_none(text: str) -> int:
    if not re.fullmatch(r"0|[1-9]\d{0,5}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 999999; got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="melody", description="Music from a text, from a clip of music, or around one.")
    top.add_argument("--version", action="version", version=f"melody-diffusers {__version__}")
    commands = top.add_subparsers(metavar="command", required=True)

    place = _Parser(add_help=False)
    place.add_argument(
        "--model", default=MELODY_TINY, help="pipeline folder or name on the Hub (default: the shipped one)"
    )
    place.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one, else cpu)")

    model = _Parser(add_help=False, parents=[place])
    dtypes = ["float32", "bfloat16", "float16", "auto"]
    how = "of the weights; auto takes bfloat16 for the renderer where it is faster here (default: float32)"
    model.add_argument("--dtype", choices=dtypes, default="float32", help=how)
    model.add_argument("--steps", type=int, help="reverse steps of the diffusion (default: the model's own)")
    model.add_argument("--guidance", type=float, help="classifier-free guidance; 1 is off (default: the model's own)")
    what = "how much the prompt decides beside the plan; 1 is off (default: the model's own)"
    model.add_argument("--prompt-guidance", type=float, help=what)

    drawing = _Parser(add_help=False)
    drawing.add_argument("--temperature", type=float, help="of the language model; 0 is greedy (default: the model's)")
    drawing.add_argument("--top-k", type=int, help="sample among the k likeliest tokens (default: the model's)")
    drawing.add_argument("--top-p", type=float, help="sample within this probability mass (default: the model's)")
    drawing.add_argument("--lm-guidance", type=float, help="guidance of the language model (default: the model's)")
    what = "what the music should not be; needs guidance of the language model"
    drawing.add_argument("--negative-prompt", metavar="TEXT", help=what)
    drawing.add_argument(
        "--seed", type=_seed, help="the same seed gives the same audio (default, and -1: any, printed)"
    )
    where = "file to write: .wav, .flac, .ogg, .opus or .mp3; - writes WAV to a pipe"
    drawing.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=where)
    drawing.add_argument("--overwrite", action="store_true", help="replace files that are not this command's own")
    what = "LoRA adapter to play with, of which :0.5 takes half; may be repeated"
    drawing.add_argument("--lora", action="append", default=[], metavar="FOLDER[:SCALE]", help=what)

    fading = _Parser(add_help=False)
    fading.add_argument("--fade", type=_seconds, default=0.02, metavar="TIME", help="at the ends (default: 0.02)")

    sampling = _Parser(add_help=False, parents=[drawing, fading])
    ways = ["diagonal", "windows"]
    sampling.add_argument("--continuation", choices=ways, help="of what exceeds a window (default: the model's)")
    picture = "draw a mel spectrogram of the result, too"
    sampling.add_argument("--spectrogram", type=Path, metavar="PNG", help=picture)

    asking = _Parser(add_help=False)
    what = 'what to play, such as "a slow solo piano piece", or @FILE, which holds it'
    asking.add_argument("prompt", nargs="*", help=what)
    asking.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt a line: makes one piece of each")
    asking.add_argument("--count", type=_count, default=1, help="pieces of each prompt, with seeds one after another")
    clip = "instead of a text, or mixed with it: a clip it should sound like"
    asking.add_argument("--audio-prompt", metavar="FILE", help=clip)
    share = "how much the clip counts beside a text, 0 to 1 (default: 0.5)"
    asking.add_argument("--audio-weight", type=float, help=share)
    without = "do not write into the file what `melody plan render` needs to make it again"
    asking.add_argument("--no-plan", action="store_true", help=without)
    heard = "write the notes that are heard in the result, too; needs the extra midi"
    asking.add_argument("--midi", type=Path, metavar="MID", help=heard)

    command = commands.add_parser(
        "generate", parents=[model, sampling, asking], help="music from a text or a clip", epilog=EPILOG
    )
    command.add_argument(
        "--duration", metavar="TIME", type=_seconds, default=10.0, help="of music, as 30, 30s or 1:30 (default: 10)"
    )
    ways_to_end = "fade out at the end, or leave it cut off (default: fade)"
    command.add_argument("--ending", choices=["fade", "none"], default="fade", help=ways_to_end)
    command.set_defaults(handler=generate, loop=False, bpm=None, beats_per_bar=4)

    command = commands.add_parser(
        "loop", parents=[model, drawing, asking], help="music whose end runs into its beginning", epilog=EPILOG
    )
    command.add_argument("--bars", type=_count, help="how long it is, with --bpm")
    command.add_argument("--bpm", type=float, help="beats a minute, of which a prompt without a tempo is told")
    command.add_argument("--beats-per-bar", type=_count, default=4, help="(default: 4)")
    command.add_argument("--duration", metavar="TIME", type=_seconds, help="instead of --bars: 1s to 5m (default: 10)")
    command.add_argument("--spectrogram", type=Path, metavar="PNG", help=picture)
    command.set_defaults(handler=generate, loop=True, continuation=None, fade=0.0)

    command = commands.add_parser(
        "stream", parents=[model, drawing, fading], help="music that goes on until it is stopped", epilog=EPILOG
    )
    command.add_argument("prompt", nargs="*", help=what)
    what = "from this time on something else; may be repeated"
    command.add_argument("--then", nargs=2, action="append", default=[], metavar=("TIME", "PROMPT"), help=what)
    what = "in which one prompt goes over into the next (default: 5)"
    command.add_argument("--crossfade", type=_seconds, default=5.0, metavar="TIME", help=what)
    command.add_argument("--audio-prompt", metavar="FILE", help=clip)
    command.add_argument("--audio-weight", type=float, help=share)
    command.add_argument("--duration", metavar="TIME", type=_seconds, help="of music (default: until it is stopped)")
    command.add_argument("--raw", action="store_true", help="with -o -: samples alone, 16-bit, without a WAV header")
    what = "go on after what --save-state kept, to the bit; without a prompt, as it was"
    command.add_argument("--state", type=Path, metavar="FILE", help=what)
    what = "keep here, as .safetensors, from where it goes on; the last chunk is then whole, and nothing fades out"
    command.add_argument("--save-state", type=Path, metavar="FILE", help=what)
    command.set_defaults(handler=stream, spectrogram=None, prompts=None, continuation=None, seconds=_seconds)

    kept = "What lies outside stays as it is, to the bit, at its own rate and with its own channels (.wav and .flac)."
    command = commands.add_parser(
        "inpaint", parents=[model, sampling], help="fill a region of a recording", epilog=kept
    )
    command.add_argument("input", help="the recording")
    command.add_argument(
        "--start", metavar="TIME", type=_seconds, help="where the region to fill starts, as 12.5 or 1:05"
    )
    command.add_argument("--end", metavar="TIME", type=_seconds, help="where it ends")
    command.add_argument(
        "--after", "--extend", dest="after", type=_seconds, default=0.0, metavar="TIME", help="music to add at the end"
    )
    before = "music to add at the beginning, which leads into the recording"
    command.add_argument("--before", type=_seconds, default=0.0, metavar="TIME", help=before)
    new = "what the new part should be (default: like the recording)"
    command.add_argument("--prompt", help=new)
    command.set_defaults(handler=inpaint)

    command = commands.add_parser(
        "continue", parents=[model, sampling], help="go on after a recording, or lead into it", epilog=kept
    )
    command.add_argument("input", help="the recording")
    what = "music to add at the end (default: 10 seconds, none with --before)"
    command.add_argument("--after", type=_seconds, metavar="TIME", help=what)
    command.add_argument("--before", type=_seconds, default=0.0, metavar="TIME", help=before)
    command.add_argument("--prompt", help=new)
    command.set_defaults(handler=inpaint, start=None, end=None)

    command = commands.add_parser("vary", parents=[model, sampling], help="a piece, slightly or entirely otherwise")
    command.add_argument("input", help="the piece, a recording or what melody wrote")
    what = "where between the piece, 0, and noise, 1, it sets out (default: 0.5)"
    command.add_argument("--strength", type=float, default=0.5, help=what)
    what = "share of its plan to write anew, 0 to 1 (default: 0)"
    command.add_argument("--plan-strength", type=float, default=0.0, help=what)
    command.add_argument("--prompt", help="what it should become (default: like itself)")
    command.set_defaults(handler=vary)

    command = commands.add_parser("midi", help="the notes that are heard in a sound file, as a MIDI file")
    command.add_argument("input", help="a sound file of any kind")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".mid file to write")
    what = "beats a minute, 20 to 400 (default: what the prompt in the file names, if it is heard; else what is heard)"
    command.add_argument("--bpm", type=float, help=what)
    command.add_argument("--beats-per-bar", type=_count, default=4, help="(default: 4)")
    command.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    command.set_defaults(handler=midi)

    _add_plan(commands, place)

    command = commands.add_parser("benchmark", parents=[model], help="how fast this machine is, by stage")
    command.add_argument(
        "--duration", metavar="TIME", type=_seconds, default=10.0, help="of music, as 30, 30s or 1:30 (default: 10)"
    )
    command.add_argument("--runs", type=_count, default=5, help="runs to take the median of (default: 5)")
    command.set_defaults(handler=benchmark)

    data = commands.add_parser("data", help="recordings to training data").add_subparsers(
        metavar="command", required=True
    )
    command = data.add_parser("build", help="recordings of any kind to a data set folder")
    command.add_argument("source", help="folder of recordings, or a Hugging Face data set: a folder or a name")
    command.add_argument("--out", type=Path, required=True, help="folder to write")
    command.add_argument("--clip-seconds", type=float, default=20.0, help="recordings are cut into these (default: 20)")
    command.add_argument("--min-seconds", type=float, default=10.0, help="shorter remains are left out (default: 10)")
    what = "a shorter recording is one clip, a loop, from this length on (default: 2)"
    command.add_argument("--loop-seconds", type=float, default=2.0, help=what)
    command.add_argument("--max-seconds", type=float, default=3600.0, help="longer recordings, too (default: 3600)")
    command.add_argument("--min-level", type=float, default=-60.0, help="and quieter ones, dB RMS (default: -60)")
    command.add_argument("--timeout", type=float, default=120.0, help="seconds to decode a recording (default: 120)")
    command.add_argument("--validation-share", type=float, default=0.05, help="of the recordings (default: 0.05)")
    command.add_argument("--test-share", type=float, default=0.05, help="of the recordings (default: 0.05)")
    command.add_argument("--split", default="train", help="of a Hugging Face data set (default: train)")
    command.add_argument("--streaming", action="store_true", help="do not download the whole of it first")
    command.add_argument("--max-recordings", type=_count, help="stop after so many (default: all)")
    command.add_argument("--workers", type=_count, default=os.cpu_count() or 1, help="processes (default: one a core)")
    command.add_argument("--replace", action="store_true", help="build the data set in --out anew, its splits kept")
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

    command = commands.add_parser("serve", parents=[place], help="a page and an API for others to make music with")
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; others than this machine's own need MELODY_TOKEN"
    )
    command.add_argument("--port", type=_count, default=8024, help="(default: 8024)")
    command.add_argument("--dtype", choices=dtypes, default="float32", help=how)
    what = "LoRA adapter to play with, of which :0.5 takes half; may be repeated"
    command.add_argument("--lora", action="append", default=[], metavar="FOLDER[:SCALE]", help=what)
    command.set_defaults(handler=serve)

    lora = commands.add_parser("lora", help="train an adapter").add_subparsers(metavar="command", required=True)
    command = lora.add_parser("train", help="a folder of recordings to an adapter; the same command again goes on")
    command.add_argument("recordings", type=Path, help="folder of recordings, or one that `melody data build` wrote")
    command.add_argument("--output", type=Path, required=True, help="folder for the adapter, samples and checkpoints")
    command.add_argument("--config", type=Path, help="YAML file (default: the package's, for melody-tiny)")
    what = "override single values, such as run.budget_minutes=30"
    command.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help=what)
    command.set_defaults(handler=train_adapter)

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
    which = "of distances, besides log_mel and mulan: clap:FOLDER_OR_REPO or module:function; may be repeated"
    command.add_argument("--embedding", action="append", default=[], metavar="NAME", help=which)
    which = "compare these numbers of steps under the linear and the uniform schedule, such as 5 10 20"
    command.add_argument("--compare-steps", type=_count, nargs="+", default=[], metavar="STEPS", help=which)
    command.add_argument("--clips-per-class", type=_count, default=10, help="(default: 10)")
    which = "of any style with any lead, for seen and for unseen pairs each, where the data set has them (default: 96)"
    command.add_argument("--grid-clips", type=_count, default=96, help=which)
    which = "of a minute, asked for sections, an ending and drift; 0 leaves them out (default: 8)"
    command.add_argument("--long-pieces", type=_count_or_none, default=8, metavar="COUNT", help=which)
    which = "with which one prompt is asked, a cheerful solo piano waltz; 0 leaves it out (default: 12)"
    command.add_argument("--seeds-prompt", type=_count_or_none, default=12, metavar="SEEDS", help=which)
    for name in ("--num-inference-steps", "--top-k"):
        command.add_argument(name, type=int, help="(default: the model's own)")
    for name in ("--guidance-scale", "--prompt-guidance-scale", "--temperature", "--top-p", "--lm-guidance-scale"):
        command.add_argument(name, type=float, help="(default: the model's own)")
    command.add_argument("--seed", type=_seed, default=0, help="of prompts and music (default: 0)")
    command.add_argument("--batch-size", type=_count, default=8, help="clips at a time (default: 8)")
    command.add_argument("--num-threads", type=_count, default=2, help="of the CPU when speed is measured (default: 2)")
    command.add_argument("--reuse", action="store_true", help="judge the clips of an earlier run in --out again")
    command.add_argument("--quick", action="store_true", help="two clips a class, two timed runs: a smoke test")
    command.add_argument("--card", type=Path, help="Markdown about the model: with the report it becomes its README.md")
    command.set_defaults(handler=evaluate, dtype="float32")
    return top


def _add_plan(commands: argparse._SubParsersAction, place: argparse.ArgumentParser) -> None:
    plan = commands.add_parser("plan", help="show, edit and render the plan that a sound file holds")
    kinds = plan.add_subparsers(metavar="command", required=True)
    source = _Parser(add_help=False)
    source.add_argument("input", type=Path, metavar="FILE", help="a sound file of `melody generate`, or a .melody file")

    command = kinds.add_parser("show", parents=[source], help="what is in a plan")
    command.add_argument("--tokens", action="store_true", help="and its tokens, a second a line")
    command.set_defaults(handler=show)

    when = "Times are seconds, or as 0:30, to the nearest token, 40 ms. Each edit is made on what those before it left."
    command = kinds.add_parser(
        "edit", parents=[source], help="cut, keep, repeat and splice to another plan", epilog=when
    )
    command.add_argument("--cut", nargs=2, action=_Edit, dest="edits", metavar=("START", "END"), help="leave this out")
    command.add_argument("--keep", nargs=2, action=_Edit, dest="edits", metavar=("START", "END"), help="only this")
    names, what = ("START", "END", "TIMES"), "let this be heard so often"
    command.add_argument("--repeat", nargs=3, action=_Edit, dest="edits", metavar=names, help=what)
    what = "put in another file's plan, of the same model"
    command.add_argument("--splice", nargs=2, action=_Edit, dest="edits", metavar=("AT", "FILE"), help=what)
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=".melody file to write")
    command.add_argument("--overwrite", action="store_true", help="replace it if it is there")
    command.set_defaults(handler=edit, edits=[])

    command = kinds.add_parser("render", parents=[source, place], help="a plan to sound")
    dtypes = ["float32", "bfloat16", "float16"]
    command.add_argument("--dtype", choices=dtypes, help="of the weights (default: the plan's)")
    command.add_argument("--steps", type=int, help="reverse steps of the diffusion (default: the plan's)")
    command.add_argument("--guidance", type=float, help="classifier-free guidance (default: the plan's)")
    command.add_argument("--seed", type=_seed, help="for other noise (default: the plan's)")
    what = "LoRA adapter to play with, of which :0.5 takes half; may be repeated"
    command.add_argument("--lora", action="append", default=[], metavar="FOLDER[:SCALE]", help=what)
    command.add_argument("--spectrogram", type=Path, metavar="PNG", help="draw a mel spectrogram of the result, too")
    where = "file to write: .wav, .flac, .ogg, .opus or .mp3; - writes WAV to a pipe"
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=where)
    command.add_argument("--overwrite", action="store_true", help="replace files that are not this command's own")
    command.set_defaults(handler=render)

    command = kinds.add_parser("audit", parents=[source], help="the longest run of a plan that stands in training data")
    command.add_argument("--data", type=Path, required=True, help="folder that `melody data encode` wrote")
    command.add_argument("--split", default="train", help="(default: train)")
    command.set_defaults(handler=audit)
