"""The `melody` command: generate, loop, inpaint, continue, vary, stream, midi, plan, serve, data, lora, benchmark and
evaluate.

Heavy imports stay inside the handlers, so that help and a mistyped argument answer at once. Whatever goes wrong ends in
one line on stderr, which speaks of the command's own flags.
"""

import os
import re
import sys
from collections.abc import Sequence

from .parser import parser

FLAGS = {  # argument of a pipeline -> what says it here
    "prompt": "the prompt",
    "audio_prompt": "--audio-prompt",
    "audio_prompt_weight": "--audio-weight",
    "negative_prompt": "--negative-prompt",
    "crossfade_seconds": "--crossfade",
    "state": "--state",
    "audio_duration": "--duration",
    "num_inference_steps": "--steps",
    "guidance_scale": "--guidance",
    "prompt_guidance_scale": "--prompt-guidance",
    "temperature": "--temperature",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "lm_guidance_scale": "--lm-guidance",
    "continuation": "--continuation",
    "bars": "--bars",
    "bpm": "--bpm",
    "beats_per_bar": "--beats-per-bar",
    "ending": "--ending",
    "fade_seconds": "--fade",
    "semantic_tokens": "the plan",
    "mulan_tokens": "what the plan keeps of its prompt",
    "audio": "the recording",
    "regions": "--start and --end",
    "regions[0][0]": "--start",
    "regions[0][1]": "--end",
    "extend_seconds": "--after",
    "prepend_seconds": "--before",
    "strength": "--strength",
    "plan_strength": "--plan-strength",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code is 0, 2 for a user's mistake, 1 for other failures, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        # some options had underscores once
        args = parser().parse_args([re.sub("^--[a-z_]+", lambda name: name[0].replace("_", "-"), a) for a in argv])
        return args.handler(args)
    except SystemExit as error:  # argparse: 0 after help, 2 after an error it has reported
        return error.code if isinstance(error.code, int) else 2
    except KeyboardInterrupt:
        print("melody: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("MELODY_TRACEBACK"):
            raise
        code, message = _explain(error)
        print(f"melody: error: {' '.join(message.split())}", file=sys.stderr)
        return code


def _flag(argument: str) -> str:
    """What the command's user knows an argument by."""
    if numbered := re.fullmatch(r"prompt\[(\d+)\]", argument):
        return f"prompt {int(numbered[1]) + 1}"
    if argument.startswith("state."):
        return f"{argument.removeprefix('state.')} of --state"
    return FLAGS.get(argument, f"`{argument}`")


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code, and what to say."""
    text = str(error)
    if hasattr(error, "argument"):  # a pipeline's complaint about one of its arguments
        text = re.sub("`([^`]+)`", lambda name: _flag(name[1]), text)
        text = re.sub(r"(; got .*) \((?:int|float|str)\)", r"\1", text).replace("got None (NoneType)", "got none")
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in text:
        return 1, f"out of memory; shorter music, fewer pieces or --dtype bfloat16 need less. {text}"
    if isinstance(error, (ValueError, OSError, ImportError)):
        return 2, text
    if not isinstance(error, FloatingPointError):  # which a model that gives NaN ends in
        text = f"{type(error).__name__}: {text} (this should not happen; MELODY_TRACEBACK=1 shows where it did)"
    return 1, text
