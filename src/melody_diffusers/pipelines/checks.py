"""Single arguments are checked here, before any tensor exists: what came, what is allowed, what to do."""

import difflib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import torch

from ..audio import (
    MAX_PEAK,
    AudioError,
    AudioInput,
    file_within,
    is_encoded,
    load_audio,
    resample,
    to_mono,
    to_waveform,
)

MAX_PROMPT_CHARACTERS = 2000
MAX_PROMPTS = 64
OTHERS_NAMES = {  # our argument -> what other pipelines and libraries call it
    "audio_duration": "audio_length_in_s audio_end_in_s audio_length duration seconds length max_duration",
    "num_inference_steps": "steps num_steps diffusion_steps infer_step",
    "guidance_scale": "cfg cfg_scale cfg_coef guidance",
    "num_waveforms_per_prompt": "num_images_per_prompt num_return_sequences num_outputs num_samples batch_size",
    "generator": "seed manual_seed manual_seeds",
    "prompt": "text texts prompts description descriptions text_inputs inputs tags",
    "audio_prompt": "audio reference_audio melody melody_wavs initial_audio_waveforms",
    "audio_prompt_sampling_rate": "sampling_rate sample_rate initial_audio_sampling_rate melody_sample_rate",
    "extend_seconds": "audio_duration extend_duration extension",
    "regions": "mask mask_region repaint_start repaint_end",
    "callback_on_step_end": "callback callback_on_step",
}


def names_others_arguments(call: Callable) -> Callable:
    """For a pipeline's `__call__`: an argument it lacks is a TypeError that says which one of ours does it."""
    known = list(inspect.signature(call).parameters)
    ours = {name: mine for mine, names in OTHERS_NAMES.items() if mine in known for name in names.split()}

    @functools.wraps(call)
    def checked(self, *args, **kwargs):
        for name in set(kwargs) - set(known):
            near = [ours[name]] if name in ours else difflib.get_close_matches(name, known, 1)
            here = f"; here it is `{near[0]}`" if near else ""
            raise TypeError(f"{type(self).__name__} has no argument `{name}`{here}. It takes {', '.join(known[1:])}.")
        return call(self, *args, **kwargs)

    return checked


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
) -> Any:
    """The value as an int with `integer`, else as a float; an error unless it is finite and in [low, high] ((low, high]
    with `exclusive_low`). It may be any real number, or an array or tensor that holds one."""
    limits = f"above {low:.15g} and at most {high:.15g}" if exclusive_low else f"from {low:.15g} to {high:.15g}"
    allowed = f"be a {'whole number' if integer else 'number'} {limits}"
    plain = value
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) and math.prod(value.shape) == 1:
        plain = value.item()
    if isinstance(plain, bool) or not isinstance(plain, (numbers.Real, Decimal)):
        raise MeLoDyInputError(name, value, allowed)
    number = float(plain)
    if not math.isfinite(number) or number > high or number < low or (exclusive_low and number == low):
        raise MeLoDyInputError(name, value, allowed)
    if integer and number != int(number):
        raise MeLoDyInputError(name, value, allowed)
    return int(plain) if integer else number  # type: ignore[arg-type]


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """An error unless `value` is one of the strings allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise MeLoDyInputError(name, value, f"be one of {', '.join(map(repr, allowed))}")


def check_prompt(prompt: object, name: str = "prompt") -> list[str | Mapping[str, float]]:
    """A prompt, a text or a mixture {text: weight}, or any sequence of them that is not empty, as a list."""
    prompts = [prompt] if isinstance(prompt, (str, Mapping)) else as_list(prompt)
    allowed = (
        f"be a text of 1 to {MAX_PROMPT_CHARACTERS} characters, texts with weights as {{text: weight}}, or a list of 1 "
        f"to {MAX_PROMPTS} of these"
    )
    if prompts is None or not 0 < len(prompts) <= MAX_PROMPTS:
        raise MeLoDyInputError(name, prompt, allowed, None if prompts is None else f"a list of {len(prompts)}")
    for i, each in enumerate(prompts):
        place = name if prompts[0] is prompt else f"{name}[{i}]"
        if not isinstance(each, Mapping):
            _check_text(place, each)
            continue
        if not 0 < len(each) <= MAX_PROMPTS:
            raise MeLoDyInputError(place, each, f"mix 1 to {MAX_PROMPTS} texts", str(len(each)))
        for text, weight in each.items():
            _check_text(place, text)
            check_number(f"{place}[{text[:30]!r}]", weight, 0, 1000, exclusive_low=True)
    return prompts


def _check_text(name: str, text: object) -> None:
    """An error unless it is a text that says something."""
    if not isinstance(text, str):
        raise MeLoDyInputError(name, text, "be a text")
    if not text.strip():
        raise MeLoDyInputError(name, text, "not be empty", advice=" Describe the music: 'a slow solo piano piece'.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise MeLoDyInputError(name, text, f"have at most {MAX_PROMPT_CHARACTERS} characters", str(len(text)))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MeLoDyInputError(name, text, "be valid Unicode", "a lone surrogate") from None


def split_clips(audio: Any, sample_rate: int) -> list[Any]:
    """The clips in what may be one clip or several: an array (B, C, T), as pipelines give it, or a list of clips.

    An array of three axes is taken to be at `sample_rate`, the pipeline's own.
    """
    sample_rate = getattr(audio, "sampling_rate", sample_rate) if hasattr(audio, "audios") else sample_rate
    audio = getattr(audio, "audios", audio)  # a pipeline's whole output
    if isinstance(audio, (np.ndarray, torch.Tensor)) and audio.ndim == 3:
        return [(sample_rate, clip) for clip in audio]
    is_number = [isinstance(item, numbers.Real) for item in audio] if isinstance(audio, (list, tuple)) else [True]
    is_clip_with_rate = len(is_number) == 2 and is_number[0] != is_number[1]
    return [audio] if all(is_number) and is_number or is_clip_with_rate else list(audio)


def check_audio(
    name: str, audio: AudioInput, sampling_rate: int | None, sample_rate: int, max_seconds: float
) -> torch.Tensor:
    """One clip, a file or an array with its rate, as (1, T) float32 at `sample_rate`."""
    duration, audio = f"last at most {max_seconds:g} s", file_within(audio)
    if is_encoded(audio):
        if sampling_rate is not None:
            raise MeLoDyInputError(
                f"{name}_sampling_rate", sampling_rate, "be left out for a file, which states its own rate"
            )
        try:
            waveform = load_audio(audio, sample_rate, max_seconds=max_seconds)
        except (ValueError, OSError) as error:
            allowed = f"be an audio file that can be read and lasts at most {max_seconds:g} s"
            why = str(error).rstrip(".")
            raise MeLoDyInputError(name, audio, allowed, f"none: {why[:1].lower()}{why[1:]}") from error
    else:
        waveform, rate = check_array(name, audio, sampling_rate, sample_rate, max_seconds)
        waveform = resample(to_mono(waveform), rate, sample_rate)
    if waveform.shape[-1] > max_seconds * sample_rate:
        raise MeLoDyInputError(name, audio, duration, f"{waveform.shape[-1] / sample_rate:.1f} s")
    if waveform.abs().max() > MAX_PEAK:
        raise MeLoDyInputError(name, audio, "lie near [-1, 1]", f"a peak of {waveform.abs().max():g}")
    return waveform


def check_array(
    name: str, audio: Any, sampling_rate: int | None, sample_rate: int, max_seconds: float
) -> tuple[torch.Tensor, int]:
    """A clip that is no file as it is, (C, T) float32, and its rate."""
    try:
        waveform, stated = to_waveform(audio)
    except AudioError as error:
        raise MeLoDyInputError(name, audio, error.allowed, error.got, error.advice) from None
    if stated is not None and sampling_rate not in (None, stated):
        allowed = f"be left out, or {stated}, as the audio itself states"
        raise MeLoDyInputError(f"{name}_sampling_rate", sampling_rate, allowed)
    if stated is None and sampling_rate is None:
        allowed = f"be given for an array: {sample_rate} for what this pipeline made"
        raise MeLoDyInputError(f"{name}_sampling_rate", sampling_rate, allowed)
    given = sampling_rate if stated is None else stated
    rate = check_number(f"{name}_sampling_rate", given, 4000, 384000, integer=True)
    if waveform.shape[-1] > max_seconds * rate:
        raise MeLoDyInputError(name, audio, f"last at most {max_seconds:g} s", f"{waveform.shape[-1] / rate:.1f} s")
    return waveform, rate


def check_generators(
    generator: torch.Generator | list[torch.Generator] | None, batch_size: int
) -> list[torch.Generator] | None:
    """One generator for each sample of the batch; a single one serves all of them in turn."""
    if generator is None:
        return None
    generators = [generator] * batch_size if isinstance(generator, torch.Generator) else as_list(generator)
    if generators is None or not all(isinstance(g, torch.Generator) for g in generators):
        raise MeLoDyInputError("generator", generator, "be a torch.Generator or a list of them")
    if len(generators) != batch_size:
        allowed = f"be one, or one for each of {batch_size} waveforms"
        raise MeLoDyInputError("generator", generator, allowed, str(len(generators)))
    return generators


def fresh_seeds(generators: list[torch.Generator] | None, batch_size: int) -> list[int | None]:
    """The seed that makes each generator again as it is now; None where none does, since numbers were drawn from it
    before, it is on a GPU or it serves several samples."""
    if generators is None or len(set(map(id, generators))) < batch_size:
        return [None] * batch_size
    return [_fresh_seed(each) for each in generators]


def _fresh_seed(generator: torch.Generator) -> int | None:
    if generator.device.type != "cpu":
        return None
    seed = generator.initial_seed()
    return seed if torch.Generator().manual_seed(seed).get_state().equal(generator.get_state()) else None


def check_tensor(name: str, value: Any, shape: tuple[int | None, ...], high: int | None = None) -> torch.Tensor:
    """A tensor of this shape (None: any), of an array or of lists, too: int64 in [0, high) for tokens, else float."""
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    try:
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError):  # lists of different lengths, texts
        raise MeLoDyInputError(name, value, f"be a tensor of shape {wanted}") from None
    if tensor.ndim != len(shape) or any(n not in (None, got) for n, got in zip(shape, tensor.shape, strict=True)):
        raise MeLoDyInputError(name, value, f"have shape {wanted}", str(tuple(tensor.shape)))
    if 0 in tensor.shape:
        raise MeLoDyInputError(name, value, "not be empty", str(tuple(tensor.shape)))
    if high is None:
        if not tensor.is_floating_point():
            raise MeLoDyInputError(name, value, "hold floating-point numbers", str(tensor.dtype))
        if not torch.isfinite(tensor).all():
            raise MeLoDyInputError(name, value, "be finite", "NaN or infinity")
        return tensor
    is_whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if not is_whole or tensor.min() < 0 or tensor.max() >= high:
        got = f"{tensor.min()} to {tensor.max()}" if is_whole else str(tensor.dtype)
        raise MeLoDyInputError(name, value, f"hold whole numbers from 0 to {high - 1}", got)
    return tensor.long()


def as_list(value: object) -> list | None:
    """Any sequence as a list: a tuple, an array, a column of a table; None for a text, a mapping and all else."""
    if isinstance(value, (str, bytes, Mapping)):
        return None
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist() if value.ndim else None
    if isinstance(value, Sequence):
        return list(value)
    to_list = getattr(value, "tolist", None) or getattr(value, "to_list", None)  # pandas, polars, pyarrow
    found = to_list() if callable(to_list) else list(value) if isinstance(value, (set, range)) else None
    return found if isinstance(found, list) else None


def _show(value: object) -> str:
    """The value in at most 80 characters, with its type."""
    text = repr(value) if isinstance(value, (str, numbers.Number, type(None))) else ""
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})" if text else f"a {type(value).__name__}"
