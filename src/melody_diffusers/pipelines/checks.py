"""Single arguments are checked here, before any tensor exists: what came, what is allowed, what to do."""

import math
import numbers
import os
from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

import numpy as np
import torch

from ..audio import load_audio, resample, to_mono

MAX_PROMPT_CHARACTERS = 2000
MAX_PROMPTS = 64

AudioInput: TypeAlias = str | os.PathLike | np.ndarray | torch.Tensor


class MeLoDyInputError(ValueError):
    """An argument of a request that cannot be served, found before any tensor was made.

    Attributes:
        argument: its name.
        value: what came.
        allowed: what may come, in words.
    """

    def __init__(self, argument: str, value: object, allowed: str, got: str | None = None, advice: str = ""):
        self.argument, self.value, self.allowed = argument, value, allowed
        super().__init__(f"`{argument}` must {allowed}; got {_show(value) if got is None else got}.{advice}")


def check_number(
    name: str, value: object, low: float, high: float, *, integer: bool = False, exclusive_low: bool = False
) -> float:
    """The number; an error unless it is finite and in [low, high] ((low, high] with `exclusive_low`)."""
    kind = numbers.Integral if integer else numbers.Real
    allowed = (
        f"be a {'whole number' if integer else 'number'} {'above' if exclusive_low else 'from'} {low:g} to {high:g}"
    )
    if isinstance(value, bool) or not isinstance(value, kind):
        raise MeLoDyInputError(name, value, allowed)
    number = float(value)
    if not math.isfinite(number) or number > high or number < low or (exclusive_low and number == low):
        raise MeLoDyInputError(name, value, allowed)
    return number


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """An error unless `value` is one of the strings allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise MeLoDyInputError(name, value, f"be one of {', '.join(map(repr, allowed))}")


def check_prompt(prompt: object) -> list[str]:
    """A text prompt or a non-empty list of them, as a list."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    allowed = f"be a text of 1 to {MAX_PROMPT_CHARACTERS} characters, or a list of 1 to {MAX_PROMPTS} such texts"
    if not isinstance(prompts, (list, tuple)) or not 0 < len(prompts) <= MAX_PROMPTS:
        raise MeLoDyInputError("prompt", prompt, allowed, f"a list of {len(prompts)}" if is_list(prompts) else None)
    for i, text in enumerate(prompts):
        name = "prompt" if isinstance(prompt, str) else f"prompt[{i}]"
        if not isinstance(text, str):
            raise MeLoDyInputError(name, text, "be a text")
        if not text.strip():
            raise MeLoDyInputError(name, text, "not be empty", advice=" Describe the music: 'a calm piano waltz'.")
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise MeLoDyInputError(name, text, f"have at most {MAX_PROMPT_CHARACTERS} characters", str(len(text)))
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise MeLoDyInputError(name, text, "be valid Unicode", "a lone surrogate") from None
    return list(prompts)


def check_audio(
    name: str, audio: AudioInput, sampling_rate: int | None, sample_rate: int, max_seconds: float
) -> torch.Tensor:
    """One clip as (1, T) float32 at `sample_rate`: a path, or an array (T,) or (C, T) with its sampling rate."""
    duration = f"last at most {max_seconds:g} s"
    if isinstance(audio, (str, os.PathLike)):
        if sampling_rate is not None:
            raise MeLoDyInputError(
                f"{name}_sampling_rate", sampling_rate, "be left out for a file, which states its own rate"
            )
        try:
            waveform = load_audio(audio, sample_rate, max_seconds=max_seconds)
        except (ValueError, OSError) as error:
            allowed = f"be an audio file that can be read and lasts at most {max_seconds:g} s"
            raise MeLoDyInputError(name, audio, allowed, str(error).rstrip(".")) from error
    elif isinstance(audio, (np.ndarray, torch.Tensor)):
        rate = int(check_number(f"{name}_sampling_rate", sampling_rate, 4000, 384000, integer=True))
        if isinstance(audio, np.ndarray):
            if audio.dtype.kind not in "fiu":
                raise MeLoDyInputError(name, audio, "hold floating-point samples in [-1, 1]", str(audio.dtype))
            # of any layout and precision: PyTorch knows neither negative strides nor long doubles
            audio = np.ascontiguousarray(audio, np.float32 if audio.dtype.kind == "f" else None)
        waveform = torch.as_tensor(audio).detach().cpu()
        if waveform.ndim not in (1, 2) or waveform.shape[-1] < 1 or (waveform.ndim == 2 and not 0 < len(waveform) <= 8):
            shape = "have shape (samples,) or (channels, samples) with 1 to 8 channels"
            raise MeLoDyInputError(name, audio, shape, str(tuple(waveform.shape)))
        if not waveform.is_floating_point():
            raise MeLoDyInputError(name, audio, "hold floating-point samples in [-1, 1]", str(waveform.dtype))
        if waveform.shape[-1] > max_seconds * rate:
            raise MeLoDyInputError(name, audio, duration, f"{waveform.shape[-1] / rate:.1f} s")
        if not torch.isfinite(waveform).all():
            raise MeLoDyInputError(name, audio, "hold finite samples", "NaN or infinity")
        waveform = resample(to_mono(torch.atleast_2d(waveform.float())), rate, sample_rate)
    else:
        raise MeLoDyInputError(name, audio, "be a path, a NumPy array or a tensor")
    if waveform.shape[-1] > max_seconds * sample_rate:
        raise MeLoDyInputError(name, audio, duration, f"{waveform.shape[-1] / sample_rate:.1f} s")
    if waveform.abs().max() > 16:
        raise MeLoDyInputError(name, audio, "lie near [-1, 1]", f"a peak of {waveform.abs().max():g}")
    return waveform


def check_generators(
    generator: torch.Generator | list[torch.Generator] | None, batch_size: int
) -> list[torch.Generator] | None:
    """One generator for each sample of the batch; a single one serves all of them in turn."""
    if generator is None:
        return None
    generators = [generator] * batch_size if isinstance(generator, torch.Generator) else generator
    if not is_list(generators) or not all(isinstance(g, torch.Generator) for g in generators):
        raise MeLoDyInputError("generator", generator, "be a torch.Generator or a list of them")
    if len(generators) != batch_size:
        allowed = f"be one, or one for each of {batch_size} waveforms"
        raise MeLoDyInputError("generator", generator, allowed, str(len(generators)))
    return list(generators)


def check_tensor(name: str, value: object, shape: tuple[int | None, ...], high: int | None = None) -> None:
    """An error unless `value` has this shape (None: any) and, for tokens, lies in [0, high)."""
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    if not isinstance(value, torch.Tensor):
        raise MeLoDyInputError(name, value, f"be a tensor of shape {wanted}")
    if value.ndim != len(shape) or any(n not in (None, got) for n, got in zip(shape, value.shape, strict=True)):
        raise MeLoDyInputError(name, value, f"have shape {wanted}", str(tuple(value.shape)))
    if 0 in value.shape:
        raise MeLoDyInputError(name, value, "not be empty", str(tuple(value.shape)))
    if high is None:
        if not value.is_floating_point():
            raise MeLoDyInputError(name, value, "hold floating-point numbers", str(value.dtype))
        if not torch.isfinite(value).all():
            raise MeLoDyInputError(name, value, "be finite", "NaN or infinity")
    elif value.dtype not in (torch.int64, torch.int32) or value.min() < 0 or value.max() >= high:
        got = str(value.dtype) if value.is_floating_point() else f"{value.min()} to {value.max()}"
        raise MeLoDyInputError(name, value, f"hold whole numbers from 0 to {high - 1}", got)


def is_list(value: object) -> TypeGuard[Sequence]:
    """True for lists and tuples, which all batches of requests are."""
    return isinstance(value, (list, tuple))


def _show(value: object) -> str:
    """The value in at most 80 characters, with its type."""
    text = repr(value) if isinstance(value, (str, numbers.Number, type(None))) else ""
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})" if text else f"a {type(value).__name__}"
