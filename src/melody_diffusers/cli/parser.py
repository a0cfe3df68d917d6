"""What the `melody` command understands."""

import argparse
import os
import re
from pathlib import Path
from typing import Any, NoReturn

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

INTRODUCTION = """Make music from a sentence, or from a recording. For example:

  melody generate a slow solo piano piece -o music.wav

`melody generate --help` explains this command, and so on."""
STYLES = """melody-tiny, the model that comes along, plays short instrumental pieces. It knows
thirty-two styles: lo-fi hip hop, house, techno, ambient, rock, jazz swing,
bossa nova, waltz, march, folk, baroque chorale, string quartet, solo piano,
music box, chiptune, synthwave, blues, funk, reggae, country, disco, drum and
bass, trap, metal, tango, samba, celtic, cinematic orchestra, gospel, ragtime,
soul, latin pop. Name one of them, and an instrument to lead it."""
KEPT = """The rest of the recording stays as it is, to the bit (in .wav and .flac). It
keeps its rate and its channels."""
MODEL = "the model"  # groups of options
FINE = "fine tuning (without these, the model's own values hold)"


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        if message.endswith("required: -o/--output"):
            message += ", the file to write, such as -o music.wav"
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
    top = _Parser(prog="melody", description=INTRODUCTION)
    top.add_argument("--version", action="version", version=f"melody-diffusers {__version__}")
    commands = top.add_subparsers(title="commands", metavar="command", required=True)

    place = _Parser(add_help=False)
    group = place.add_argument_group(MODEL)
    what = "a folder, or a name on the Hugging Face Hub (default: melody-tiny, which comes along)"
    group.add_argument("--model", default=MELODY_TINY, help=what)
    what = "what computes: cpu, cuda, cuda:1, mps, ... (default: cuda where there is one, else cpu)"
    group.add_argument("--device", help=what)

    model = _Parser(add_help=False, parents=[place])
    dtypes = ["float32", "bfloat16", "float16", "auto"]
    how = "precision of the numbers; auto takes bfloat16 for the renderer if it is faster here (default: float32)"
    model.add_argument_group(MODEL).add_argument("--dtype", choices=dtypes, default="float32", help=how)
    group = model.add_argument_group(FINE)
    group.add_argument("--steps", type=int, help="steps of the renderer (default: those that the model was made for)")
    group.add_argument("--guidance", type=float, help="how closely the sound keeps to its plan; 1 is off")
    what = "how much the prompt decides beside the plan; 1 is off"
    group.add_argument("--prompt-guidance", type=float, help=what)

    drawing = _Parser(add_help=False)
    where = "the sound file to write: .wav, .flac, .ogg, .opus or .mp3; - writes WAV to a pipe"
    drawing.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=where)
    drawing.add_argument("--overwrite", action="store_true", help="replace a file, even one that melody did not write")
    what = "a number; the same one gives the same sound (default, and -1: any, which is printed)"
    drawing.add_argument("--seed", type=_seed, help=what)
    what = "what the music should not be (not together with --lm-guidance 1)"
    drawing.add_argument("--negative-prompt", metavar="TEXT", help=what)
    adapter = "an adapter (LoRA) to play with; FOLDER:0.5 takes half of it; may be repeated"
    drawing.add_argument_group(MODEL).add_argument(
        "--lora", action="append", default=[], metavar="FOLDER[:SCALE]", help=adapter
    )
    group = drawing.add_argument_group(FINE)
    group.add_argument("--lm-guidance", type=float, help="how closely the plan keeps to the prompt; 1 is off")
    what = "how daring the plan is: 0 always takes the likeliest token"
    group.add_argument("--temperature", type=float, help=what)
    group.add_argument("--top-k", type=int, help="choose among the k likeliest tokens")
    group.add_argument("--top-p", type=float, help="choose among the likeliest tokens, up to this probability")

    fading = _Parser(add_help=False)
    what = "how long the cuts at both ends fade (default: 0.02 seconds)"
    fading.add_argument_group(FINE).add_argument("--fade", type=_seconds, default=0.02, metavar="TIME", help=what)

    sampling = _Parser(add_help=False, parents=[drawing, fading])
    ways = ["diagonal", "windows"]
    what = "how music longer than ten seconds is rendered; windows takes about six times as long"
    sampling.add_argument_group(FINE).add_argument("--continuation", choices=ways, help=what)
    picture = "also draw the sound as a picture, a mel spectrogram"
    sampling.add_argument("--spectrogram", type=Path, metavar="PNG", help=picture)

    asking = _Parser(add_help=False)
    prompt = 'what to play, such as "a slow solo piano piece"; @FILE reads it from a file'
    asking.add_argument("prompt", nargs="*", help=prompt)
    what = "a text file with a prompt on each line; each becomes a piece"
    asking.add_argument("--prompts", type=Path, metavar="FILE", help=what)
    what = "how many pieces to make of each prompt (default: 1)"
    asking.add_argument("--count", type=_count, default=1, help=what)
    clip = "a recording that it should sound like, instead of a prompt or together with one"
    asking.add_argument("--audio-prompt", metavar="FILE", help=clip)
    share = "how much that recording counts beside the prompt, 0 to 1 (default: 0.5)"
    asking.add_argument("--audio-weight", type=float, help=share)
    without = "write no plan into the file, so that `melody plan render` cannot make it again"
    asking.add_argument("--no-plan", action="store_true", help=without)
    heard = "also write the notes that are heard, as a MIDI file; needs the extra midi"
    asking.add_argument("--midi", type=Path, metavar="MID", help=heard)

    command = commands.add_parser(
        "generate",
        parents=[model, sampling, asking],
        usage="melody generate PROMPT -o FILE [options]",
        help="make music from a sentence",
        description="Make a piece of music from a sentence, or from a recording that it should sound like.",
        epilog=STYLES,
    )
    what = "how long the music is, as 30, 30s or 1:30 (default: 10 seconds)"
    command.add_argument("--duration", metavar="TIME", type=_seconds, default=10.0, help=what)
    ways_to_end = "fade out at the end, or stop as if cut off (default: fade)"
    command.add_argument("--ending", choices=["fade", "none"], default="fade", help=ways_to_end)
    command.set_defaults(handler=generate, loop=False, bpm=None, beats_per_bar=4)

    command = commands.add_parser(
        "loop",
        parents=[model, drawing, asking],
        usage="melody loop PROMPT --bars 4 --bpm 120 -o FILE [options]",
        help="make music that repeats without a seam",
        description="Make music whose end runs into its beginning, to be played again and again.",
        epilog=STYLES,
    )
    command.add_argument("--bars", type=_count, help="how many bars it lasts, together with --bpm")
    command.add_argument("--bpm", type=float, help="beats a minute; a prompt that names no tempo is told this one")
    command.add_argument("--beats-per-bar", type=_count, default=4, help="(default: 4)")
    what = "how long it lasts, instead of --bars and --bpm: 1s to 5m (default: 10 seconds)"
    command.add_argument("--duration", metavar="TIME", type=_seconds, help=what)
    command.add_argument("--spectrogram", type=Path, metavar="PNG", help=picture)
    command.set_defaults(handler=generate, loop=True, continuation=None, fade=0.0)

    command = commands.add_parser(
        "stream",
        parents=[model, drawing, fading],
        usage="melody stream PROMPT -o FILE [options]",
        help="make music that goes on until you stop it",
        description="Make music without an end, until you press Ctrl-C. What was made by then is kept.",
        epilog=STYLES,
    )
    command.add_argument("prompt", nargs="*", help=prompt)
    what = "play something else from this time on; may be repeated"
    command.add_argument("--then", nargs=2, action="append", default=[], metavar=("TIME", "PROMPT"), help=what)
    what = "how long one prompt takes to turn into the next (default: 0, at once)"
    command.add_argument("--crossfade", type=_seconds, default=0.0, metavar="TIME", help=what)
    command.add_argument("--audio-prompt", metavar="FILE", help=clip)
    command.add_argument("--audio-weight", type=float, help=share)
    what = "stop by itself after so much music (default: never)"
    command.add_argument("--duration", metavar="TIME", type=_seconds, help=what)
    what = "with -o -: write the samples alone, in 16 bits, without a WAV header"
    command.add_argument("--raw", action="store_true", help=what)
    what = "go on from what --save-state wrote, to the bit; needs no prompt"
    command.add_argument("--state", type=Path, metavar="FILE", help=what)
    what = "write, as .safetensors, what --state needs to go on; nothing fades out then"
    command.add_argument("--save-state", type=Path, metavar="FILE", help=what)
    command.set_defaults(handler=stream, spectrogram=None, prompts=None, continuation=None, seconds=_seconds)

    command = commands.add_parser(
        "inpaint",
        parents=[model, sampling],
        usage="melody inpaint RECORDING --start TIME --end TIME -o FILE [options]",
        help="make a part of a recording anew",
        description="Make a part of a recording anew, so that it fits what is around it.",
        epilog=KEPT,
    )
    command.add_argument("input", metavar="RECORDING", help="a sound file")
    command.add_argument("--start", metavar="TIME", type=_seconds, help="where the new part starts, as 12.5 or 1:05")
    command.add_argument("--end", metavar="TIME", type=_seconds, help="where it ends")
    after = "how much music to add at the end"
    command.add_argument("--after", "--extend", dest="after", type=_seconds, default=0.0, metavar="TIME", help=after)
    before = "how much music to add at the beginning; it leads into the recording"
    command.add_argument("--before", type=_seconds, default=0.0, metavar="TIME", help=before)
    new = "what the new part should be (default: like the recording)"
    command.add_argument("--prompt", help=new)
    command.set_defaults(handler=inpaint)

    command = commands.add_parser(
        "continue",
        parents=[model, sampling],
        usage="melody continue RECORDING -o FILE [options]",
        help="add music after a recording, or before it",
        description="Add music after a recording, or before it.",
        epilog=KEPT,
    )
    command.add_argument("input", metavar="RECORDING", help="a sound file")
    command.add_argument(
        "--after", type=_seconds, metavar="TIME", help=f"{after} (default: 10 seconds, none with --before)"
    )
    command.add_argument("--before", type=_seconds, default=0.0, metavar="TIME", help=before)
    command.add_argument("--prompt", help=new)
    command.set_defaults(handler=inpaint, start=None, end=None)

    command = commands.add_parser(
        "vary",
        parents=[model, sampling],
        usage="melody vary RECORDING -o FILE [options]",
        help="make the same piece a little different, or very",
        description="Make the same piece again, a little different or very different.",
    )
    command.add_argument("input", metavar="RECORDING", help="a sound file, one that melody wrote or any other")
    what = "how different it sounds, from 0, the same, to 1, all new (default: 0.5)"
    command.add_argument("--strength", type=float, default=0.5, help=what)
    what = "how much of what is played is new, from 0, nothing, to 1, all (default: 0)"
    command.add_argument("--plan-strength", type=float, default=0.0, help=what)
    command.add_argument("--prompt", help="what it should become (default: like itself)")
    command.set_defaults(handler=vary)

    command = commands.add_parser(
        "midi",
        usage="melody midi RECORDING -o FILE [options]",
        help="write the notes of a recording as a MIDI file",
        description="Listen to a recording and write the notes that are heard in it, for a sequencer or a score.",
    )
    command.add_argument("input", metavar="RECORDING", help="a sound file of any kind")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .mid file to write")
    what = "beats a minute, 20 to 400 (default: what the prompt in the file names, if it is heard; else what is heard)"
    command.add_argument("--bpm", type=float, help=what)
    command.add_argument("--beats-per-bar", type=_count, default=4, help="(default: 4)")
    command.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    command.set_defaults(handler=midi)

    _add_plan(commands, place)

    command = commands.add_parser(
        "benchmark",
        parents=[model],
        usage="melody benchmark [options]",
        help="measure how fast this machine is",
        description="Measure how fast this machine makes music: the whole, and each stage of it.",
    )
    what = "how much music to make, as 30, 30s or 1:30 (default: 10 seconds)"
    command.add_argument("--duration", metavar="TIME", type=_seconds, default=10.0, help=what)
    command.add_argument("--runs", type=_count, default=5, help="how often; the median counts (default: 5)")
    command.set_defaults(handler=benchmark)

    data = commands.add_parser("data", help="prepare recordings for training").add_subparsers(
        title="commands", metavar="command", required=True
    )
    command = data.add_parser("build", help="make a data set folder of recordings of any kind")
    command.add_argument("source", help="folder of recordings, or a Hugging Face data set: a folder or a name")
    command.add_argument("--out", type=Path, required=True, help="folder to write")
    command.add_argument("--clip-seconds", type=float, default=20.0, help="recordings are cut into these (default: 20)")
    command.add_argument("--min-seconds", type=float, default=10.0, help="what is shorter is left out (default: 10)")
    what = "a whole recording may be as short as this: it counts as a loop (default: 2)"
    command.add_argument("--loop-seconds", type=float, default=2.0, help=what)
    command.add_argument(
        "--max-seconds", type=float, default=3600.0, help="longer recordings are left out (default: 3600)"
    )
    command.add_argument(
        "--min-level", type=float, default=-60.0, help="quieter ones are left out; dB RMS (default: -60)"
    )
    command.add_argument(
        "--timeout", type=float, default=120.0, help="seconds within which a recording must be decoded (default: 120)"
    )
    command.add_argument("--validation-share", type=float, default=0.05, help="share of the recordings (default: 0.05)")
    command.add_argument("--test-share", type=float, default=0.05, help="share of the recordings (default: 0.05)")
    command.add_argument("--split", default="train", help="which split of a Hugging Face data set (default: train)")
    command.add_argument("--streaming", action="store_true", help="do not download the whole of it first")
    command.add_argument("--max-recordings", type=_count, help="stop after so many (default: all)")
    command.add_argument("--workers", type=_count, default=os.cpu_count() or 1, help="processes (default: one a core)")
    command.add_argument("--replace", action="store_true", help="build the data set in --out anew, its splits kept")
    command.set_defaults(handler=build_data)

    command = data.add_parser("encode", parents=[place], help="turn a data set folder into latents and tokens")
    command.add_argument("--data", type=Path, required=True, help="data set folder, such as `melody data build` writes")
    command.add_argument(
        "--out", type=Path, required=True, help="folder to write; a run that was stopped goes on there"
    )
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

    command = commands.add_parser(
        "serve",
        parents=[place],
        usage="melody serve [options]",
        help="a page and an API to make music with",
        description="A page to make music with, in a browser, and an API for other programs.",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; others than this machine's own need MELODY_TOKEN"
    )
    command.add_argument("--port", type=_count, default=8024, help="(default: 8024)")
    command.add_argument("--dtype", choices=dtypes, default="float32", help=how)
    what = "LoRA adapter to play with, of which :0.5 takes half; may be repeated"
    command.add_argument("--lora", action="append", default=[], metavar="FOLDER[:SCALE]", help=what)
    command.set_defaults(handler=serve)

    lora = commands.add_parser("lora", help="teach the model the sound of your recordings").add_subparsers(
        title="commands", metavar="command", required=True
    )
    command = lora.add_parser("train", help="make an adapter of a folder of recordings; the same command again goes on")
    command.add_argument("recordings", type=Path, help="folder of recordings, or one that `melody data build` wrote")
    command.add_argument("--output", type=Path, required=True, help="folder for the adapter, samples and checkpoints")
    command.add_argument("--config", type=Path, help="YAML file (default: the package's, for melody-tiny)")
    what = "override single values, such as run.budget_minutes=30"
    command.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help=what)
    command.set_defaults(handler=train_adapter)

    command = commands.add_parser("evaluate", parents=[place], help="measure how good a model is")
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
    plan = commands.add_parser("plan", help="see and edit the plan in a sound file, and play it again")
    kinds = plan.add_subparsers(title="commands", metavar="command", required=True)
    source = _Parser(add_help=False)
    source.add_argument("input", type=Path, metavar="FILE", help="a sound file of `melody generate`, or a .melody file")

    command = kinds.add_parser("show", parents=[source], help="print what a plan says")
    command.add_argument("--tokens", action="store_true", help="and its tokens, a line for each second")
    command.set_defaults(handler=show)

    when = """A time is 30, 30s or 0:30, and is rounded to 40 ms. Edits are made one after the
other, each on what those before it left."""
    command = kinds.add_parser(
        "edit", parents=[source], help="cut, repeat and join what is played; writes a new plan", epilog=when
    )
    command.add_argument(
        "--cut", nargs=2, action=_Edit, dest="edits", metavar=("START", "END"), help="leave this part out"
    )
    command.add_argument(
        "--keep", nargs=2, action=_Edit, dest="edits", metavar=("START", "END"), help="keep this part alone"
    )
    names, what = ("START", "END", "TIMES"), "play this so many times"
    command.add_argument("--repeat", nargs=3, action=_Edit, dest="edits", metavar=names, help=what)
    what = "put the plan of another file in here; both must be of the same model"
    command.add_argument("--splice", nargs=2, action=_Edit, dest="edits", metavar=("AT", "FILE"), help=what)
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .melody file to write")
    command.add_argument("--overwrite", action="store_true", help="replace it if it is there")
    command.set_defaults(handler=edit, edits=[])

    command = kinds.add_parser("render", parents=[source, place], help="make the sound of a plan")
    dtypes = ["float32", "bfloat16", "float16"]
    command.add_argument("--dtype", choices=dtypes, help="precision of the numbers (default: the plan's)")
    command.add_argument("--steps", type=int, help="steps of the renderer (default: the plan's)")
    command.add_argument("--guidance", type=float, help="how closely the sound keeps to its plan (default: the plan's)")
    command.add_argument("--seed", type=_seed, help="the same piece from other noise (default: the plan's)")
    what = "an adapter (LoRA) to play with; FOLDER:0.5 takes half of it; may be repeated"
    command.add_argument("--lora", action="append", default=[], metavar="FOLDER[:SCALE]", help=what)
    command.add_argument(
        "--spectrogram", type=Path, metavar="PNG", help="also draw the sound as a picture, a mel spectrogram"
    )
    where = "the sound file to write: .wav, .flac, .ogg, .opus or .mp3; - writes WAV to a pipe"
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=where)
    command.add_argument("--overwrite", action="store_true", help="replace a file, even one that melody did not write")
    command.set_defaults(handler=render)

    command = kinds.add_parser(
        "audit", parents=[source], help="find the longest part of a plan that is in the training data"
    )
    command.add_argument("--data", type=Path, required=True, help="folder that `melody data encode` wrote")
    command.add_argument("--split", default="train", help="(default: train)")
    command.set_defaults(handler=audit)
