"""`melody stream`."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .music import TO_PIPE, announce_seed, check_outputs, close_stdout, generators, load, prompts_of, sampling_of, tell

if TYPE_CHECKING:
    import torch

Add = Callable[["torch.Tensor"], None]
STATE_SUFFIX = ".safetensors"


def stream(args: argparse.Namespace) -> int:
    """`melody stream`: music to a file or a pipe until it is long enough, or stopped; what was made by then is kept.

    Between what is stopped with --save-state and what goes on with --state nothing fades and nothing is lost.
    """
    goes_on = args.state is not None
    prompts = [] if goes_on and not args.prompt else prompts_of(args)
    if args.then and not prompts and not goes_on:
        raise ValueError("--then needs a prompt before it, to begin with.")
    timeline = [(0.0, text) for text in prompts] + [(_time(args, when), text) for when, text in args.then]
    if args.raw and args.output != TO_PIPE:
        raise ValueError("--raw is for -o -; a file says what it holds.")
    check_outputs(args, [args.output], [args.audio_prompt])
    _check_states(args)
    args.count = 1
    seed = None if goes_on else announce_seed(args)
    pipe, load_seconds = load("MeLoDyStreamPipeline", args)
    import torch

    from .. import StreamState
    from ..audio import fade_

    arguments = sampling_of(args)
    del arguments["continuation"], arguments["fade_seconds"]
    chunks = pipe(
        prompt=timeline or None,
        audio_prompt=args.audio_prompt,
        audio_prompt_weight=args.audio_weight,
        state=StreamState.load(args.state) if goes_on else None,
        crossfade_seconds=args.crossfade,
        generator=None if seed is None else generators([seed])[0],
        **arguments,
    )
    rate, fade = pipe.sample_rate, pipe.timebase.seconds_to_samples(args.fade)
    fade_in, fade_out = 0 if goes_on else fade, 0 if args.save_state else fade
    most = None if args.duration is None else max(1, pipe.timebase.seconds_to_samples(args.duration))
    comment = f"seed {seed}" if seed is not None else f"from {args.state.name}"
    if prompts or args.audio_prompt:
        comment += f": {prompts[0] if prompts else f'like {args.audio_prompt}'}"
    to_pipe = args.output == TO_PIPE
    open_output = _pipe(args, rate, None if args.save_state else most) if to_pipe else _file(args, rate, comment)
    started, made, held, stopped, state = time.perf_counter(), 0, torch.zeros(1, 0), False, None
    try:
        with open_output as add:
            try:
                for chunk in chunks:
                    # a pipe may be full for long; the chunk that it did not take whole comes again after the state
                    with contextlib.nullcontext() if to_pipe else _undisturbed():
                        sound = chunk.audio.cpu()
                        if most is not None and not args.save_state:
                            sound = sound[:, : most - made]
                        if made == 0:
                            fade_(sound, fade_in, 0)
                        made += sound.shape[1]
                        sound = torch.cat([held, sound], dim=1)
                        whole = max(0, sound.shape[1] - fade_out)  # the rest waits: it may be the end, which fades out
                        add(sound[:, :whole])
                        held, state = sound[:, whole:].clone(), chunk.state
                    if most is not None and made >= most:
                        break
            except KeyboardInterrupt:
                stopped = True
            if made == 0:
                raise KeyboardInterrupt
            add(fade_(held, 0, fade_out))
    except BrokenPipeError:  # whoever listened has left
        close_stdout()
    finally:
        if state is not None and args.save_state:
            state.save(args.save_state)
    seconds = time.perf_counter() - started
    written = f"{args.output} and {args.save_state}" if args.save_state and state is not None else str(args.output)
    tell(args, f"wrote {written}" + (", stopped" if stopped else ""))
    lines = {
        "audio": f"{made / rate:.2f} s, {rate} Hz, mono",
        "seconds taken": f"{seconds:.2f} (and {load_seconds:.2f} to load the model)",
        "real-time factor": f"{made / rate / seconds:.2f}",
    }
    if seed is not None:
        lines["seed"] = str(seed)
    for name, value in lines.items():
        tell(args, f"  {name:<18}{value}")
    return 130 if stopped and most is not None else 0


def _check_states(args: argparse.Namespace) -> None:
    """Complain before the work of a state that is not there, and of one that must not be written."""
    if args.state is not None:
        if args.seed is not None:
            raise ValueError("--seed must be left out with --state, which has a seed of its own.")
        if not args.state.is_file():
            raise ValueError(
                f"--state {str(args.state)!r}: there is no such file; `melody stream --save-state` writes it."
            )
    path = args.save_state
    if path is None:
        return
    if path.suffix != STATE_SUFFIX:
        raise ValueError(f"--save-state must end in {STATE_SUFFIX}; got {str(path)!r}.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"--save-state {str(path)!r}: there is no folder {str(path.parent)!r} that can be written.")
    if path.is_dir():
        raise ValueError(f"--save-state {str(path)!r} is a folder; name a file in it.")
    if path.exists() and not args.overwrite:
        raise ValueError(f"--save-state {str(path)!r} is there already; choose another name, or --overwrite.")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until this is over, so that the sound in a file and the state belong together."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears of it
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def _time(args: argparse.Namespace, text: str) -> float:
    try:
        return args.seconds(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--then {error}") from None


def _file(args: argparse.Namespace, rate: int, comment: str) -> contextlib.AbstractContextManager[Add]:
    from ..audio import growing_audio

    return growing_audio(args.output, rate, comment)


@contextlib.contextmanager
def _pipe(args: argparse.Namespace, rate: int, num_samples: int | None) -> Iterator[Add]:
    """16-bit samples to the standard output, as they come, after the header of a WAV unless they are to be raw."""
    from ..audio import pcm16, wav_header

    file = sys.stdout.buffer
    if not args.raw:
        file.write(wav_header(rate, num_samples))

    def add(waveform: "torch.Tensor") -> None:
        file.write(pcm16(waveform).tobytes())
        file.flush()

    yield add
