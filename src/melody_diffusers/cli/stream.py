"""`melody stream`."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .music import TO_PIPE, announce_seed, check_outputs, close_stdout, generators, load, prompts_of, sampling_of, tell

if TYPE_CHECKING:
    import torch

Add = Callable[["torch.Tensor"], None]
UNKNOWN_BYTES = 0xFFFFFFFF  # in the header of a WAV whose end is not known


def stream(args: argparse.Namespace) -> int:
    """`melody stream`: music to a file or a pipe until it is long enough, or stopped; what was made by then is kept."""
    prompts = prompts_of(args)
    if args.then and not prompts:
        raise ValueError("--then needs a prompt before it, to begin with.")
    timeline = [(0.0, *prompts), *((_time(args, when), text) for when, text in args.then)] if prompts else None
    if args.raw and args.output != TO_PIPE:
        raise ValueError("--raw is for -o -; a file says what it holds.")
    check_outputs(args, [args.output], [args.audio_prompt])
    args.count = 1
    seed = announce_seed(args)
    pipe, load_seconds = load("MeLoDyStreamPipeline", args)
    import torch

    from ..audio import fade_

    arguments = sampling_of(args)
    del arguments["continuation"], arguments["fade_seconds"]
    chunks = pipe(
        prompt=timeline,
        audio_prompt=args.audio_prompt,
        audio_prompt_weight=args.audio_weight,
        crossfade_seconds=args.crossfade,
        generator=generators([seed])[0],
        **arguments,
    )
    rate, fade = pipe.sample_rate, pipe.timebase.seconds_to_samples(args.fade)
    most = None if args.duration is None else max(1, pipe.timebase.seconds_to_samples(args.duration))
    open_output = _pipe(args, rate, most) if args.output == TO_PIPE else _file(args, rate, seed, prompts)
    started, made, held, stopped = time.perf_counter(), 0, torch.zeros(1, 0), False
    try:
        with open_output as add:
            try:
                for chunk in chunks:
                    sound = chunk.audio.cpu()[:, : None if most is None else most - made]
                    if made == 0:
                        fade_(sound, fade, 0)
                    made += sound.shape[1]
                    sound = torch.cat([held, sound], dim=1)
                    whole = max(0, sound.shape[1] - fade)  # the rest waits: it may be the end, which fades out
                    add(sound[:, :whole])
                    held = sound[:, whole:].clone()
                    if made == most:
                        break
            except KeyboardInterrupt:
                stopped = True
            if made == 0:
                raise KeyboardInterrupt
            add(fade_(held, 0, fade))
    except BrokenPipeError:  # whoever listened has left
        close_stdout()
    seconds = time.perf_counter() - started
    tell(args, f"wrote {args.output}" + (", stopped" if stopped else ""))
    lines = {
        "audio": f"{made / rate:.2f} s, {rate} Hz, mono",
        "seconds taken": f"{seconds:.2f} (and {load_seconds:.2f} to load the model)",
        "real-time factor": f"{made / rate / seconds:.2f}",
        "seed": str(seed),
    }
    for name, value in lines.items():
        tell(args, f"  {name:<18}{value}")
    return 130 if stopped and most is not None else 0


def _time(args: argparse.Namespace, text: str) -> float:
    try:
        return args.seconds(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--then {error}") from None


def _file(args: argparse.Namespace, rate: int, seed: int, prompts: list[str]) -> contextlib.AbstractContextManager[Add]:
    from ..audio import growing_audio

    prompt = prompts[0] if prompts else f"like {args.audio_prompt}"
    return growing_audio(args.output, rate, f"seed {seed}: {prompt}")


@contextlib.contextmanager
def _pipe(args: argparse.Namespace, rate: int, num_samples: int | None) -> Iterator[Add]:
    """16-bit samples to the standard output, as they come, after the header of a WAV unless they are to be raw."""
    from ..audio import pcm16

    file = sys.stdout.buffer
    if not args.raw:
        size = UNKNOWN_BYTES if num_samples is None else min(2 * num_samples, UNKNOWN_BYTES - 36)
        file.write(b"RIFF" + min(size + 36, UNKNOWN_BYTES).to_bytes(4, "little") + b"WAVEfmt ")
        for number, width in ((16, 4), (1, 2), (1, 2), (rate, 4), (2 * rate, 4), (2, 2), (16, 2)):
            file.write(number.to_bytes(width, "little"))
        file.write(b"data" + size.to_bytes(4, "little"))

    def add(waveform: "torch.Tensor") -> None:
        file.write(pcm16(waveform).tobytes())
        file.flush()

    yield add
