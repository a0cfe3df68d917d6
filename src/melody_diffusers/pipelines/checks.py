"""Requests are checked here, before any tensor exists: what came, what is allowed, what to do."""

import math
import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..audio import load_audio, resample, to_mono

MAX_PROMPT_CHARACTERS = 2000
MAX_DURATION_SECONDS = 3600.0
MAX_AUDIO_PROMPT_SECONDS = 3600.0

AudioInput: TypeAlias = str | os.PathLike | np.ndarray | torch.Tensor


def check_number(
    name: str, value: object, low: float, high: float, *, integer: bool = False, exclusive_low: bool = False
) -> float:
    """The number; ValueError unless it is finite and in [low, high] ((low, high] with `exclusive_low`)."""
    kind = numbers.Integral if integer else numbers.Real
    allowed = f"a {'whole number' if integer else 'number'} {'above' if exclusive_low else 'from'} {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"`{name}` must be {allowed}; got {_show(value)}.")
    number = float(value)
    if not math.isfinite(number) or number > high or number < low or (exclusive_low and number == low):
        raise ValueError(f"`{name}` must be {allowed}; got {_show(value)}.")
    return number


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of the strings allowed."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {_show(value)}.")


def check_prompt(prompt: object) -> list[str]:
    """A text prompt or a non-empty list of them, as a list."""
    prompts = [prompt] if isinstance(prompt, str) else prompt
    allowed = f"a text of 1 to {MAX_PROMPT_CHARACTERS} characters, or a list of such texts"
    if not isinstance(prompts, (list, tuple)) or not prompts:
        raise ValueError(f"`prompt` must be {allowed}; got {_show(prompt)}.")
    for i, text in enumerate(prompts):
        where = "`prompt`" if isinstance(prompt, str) else f"`prompt[{i}]`"
        if not isinstance(text, str):
            raise ValueError(f"{where} must be a text; got {_show(text)}.")
        if not text.strip():
            raise ValueError(f"{where} must not be empty; describe the music, for example 'a calm piano waltz'.")
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise ValueError(f"{where} must have at most {MAX_PROMPT_CHARACTERS} characters; got {len(text)}.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{where} must be valid Unicode; got a lone surrogate: {error.reason}.") from None
    return list(prompts)


def check_audio(
    name: str, audio: AudioInput, sampling_rate: int | None, sample_rate: int, max_seconds: float
) -> torch.Tensor:
    """One clip as (1, T) float32 at `sample_rate`: a path, or an array (T,) or (C, T) with its sampling rate."""
    if isinstance(audio, (str, os.PathLike)):
        if sampling_rate is not None:
            raise ValueError(
                f"`{name}_sampling_rate` is for arrays; the file {os.fspath(audio)!r} states its own rate."
            )
        waveform = load_audio(audio, sample_rate)
    elif isinstance(audio, (np.ndarray, torch.Tensor)):
        rate = int(check_number(f"{name}_sampling_rate", sampling_rate, 4000, 384000, integer=True))
        waveform = torch.as_tensor(audio).detach().cpu()
        if waveform.ndim not in (1, 2) or waveform.shape[-1] < 1 or (waveform.ndim == 2 and len(waveform) > 8):
            raise ValueError(
                f"`{name}` must have shape (samples,) or (channels, samples) with 1 to 8 channels; "
                f"got {tuple(waveform.shape)}."
            )
        if not waveform.is_floating_point():
            raise ValueError(f"`{name}` must hold floating-point samples in [-1, 1]; got {waveform.dtype}.")
        if waveform.shape[-1] > max_seconds * rate:
            raise ValueError(f"`{name}` must last at most {max_seconds:g} s; got {waveform.shape[-1]} samples.")
        if not torch.isfinite(waveform).all():
            raise ValueError(f"`{name}` must hold finite samples; got NaN or infinity.")
        waveform = resample(to_mono(torch.atleast_2d(waveform.float())), rate, sample_rate)
    else:
        raise ValueError(f"`{name}` must be a path, a NumPy array or a tensor; got {_show(audio)}.")
    if waveform.shape[-1] > max_seconds * sample_rate:
        raise ValueError(f"`{name}` must last at most {max_seconds:g} s; got {waveform.shape[-1] / sample_rate:.1f} s.")
    if waveform.abs().max() > 16:
        raise ValueError(f"`{name}` must lie near [-1, 1]; got a peak of {waveform.abs().max():g}.")
    return waveform


def check_generators(
    generator: torch.Generator | list[torch.Generator] | None, batch_size: int
) -> list[torch.Generator] | None:
    """One generator for each sample of the batch; a single one serves all of them in turn."""
    if generator is None:
        return None
    generators = [generator] * batch_size if isinstance(generator, torch.Generator) else generator
    if not isinstance(generators, (list, tuple)) or not all(isinstance(g, torch.Generator) for g in generators):
        raise ValueError(f"`generator` must be a torch.Generator or a list of them; got {_show(generator)}.")
    if len(generators) != batch_size:
        raise ValueError(f"`generator` must be one, or one for each of {batch_size} waveforms; got {len(generators)}.")
    return list(generators)


def check_tensor(name: str, value: object, shape: tuple[int | None, ...], high: int | None = None) -> None:
    """Raise ValueError unless `value` has this shape (None: any) and, for tokens, lies in [0, high)."""
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"`{name}` must be a tensor of shape {wanted}; got {_show(value)}.")
    if value.ndim != len(shape) or any(n not in (None, got) for n, got in zip(shape, value.shape, strict=True)):
        raise ValueError(f"`{name}` must have shape {wanted}; got {tuple(value.shape)}.")
    if 0 in value.shape:
        raise ValueError(f"`{name}` must not be empty; got {tuple(value.shape)}.")
    if high is None:
        if not torch.isfinite(value).all():
            raise ValueError(f"`{name}` must be finite; got NaN or infinity.")
    elif value.is_floating_point() or value.min() < 0 or value.max() >= high:
        raise ValueError(f"`{name}` must hold whole numbers from 0 to {high - 1}; got {_show(value)}.")


def check_weight_files(folder: str | os.PathLike) -> None:
    """Raise OSError, naming the file, if a weight file of a pipeline's folder is missing or cannot be read whole."""
    for config in sorted(Path(folder).glob("*/config.json")):
        files = sorted(config.parent.glob("*.safetensors"))
        if not files:
            raise OSError(
                f"{config.parent} has a config.json but no weights (*.safetensors). Download or save it again."
            )
        for file in files:
            try:
                with safe_open(file, framework="pt"):
                    pass
            except SafetensorError as error:
                raise OSError(f"{file} is damaged: {error}. Download or save it again.") from error


def _show(value: object) -> str:
    """The value in at most 80 characters, with its type."""
    text = repr(value) if isinstance(value, (str, numbers.Number, type(None))) else ""
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})" if text else f"a {type(value).__name__}"
