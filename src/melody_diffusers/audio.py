"""Audio in and out, and plain operations on waveforms; knows nothing about models.

Shapes: B batch, C channels, T samples. A waveform is float32 in [-1, 1] with time last.
"""

import contextlib
import io
import math
import numbers
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from .sound_files import (
    EXACT_ENCODINGS,
    FORMATS,
    MAX_COMMENT_BYTES,
    MAX_OPUS_COMMENT_BYTES,
    SOFTWARE,
    WAV_COMMENT_BYTES,
    SoundFile,
    append_wav_comment,
    open_sound,
)

AudioInput: TypeAlias = str | os.PathLike | bytes | BinaryIO | np.ndarray | Tensor | Sequence | Mapping
"""Sound as people hold it: a file by its path, its bytes, or open; an array, tensor or list, (T,), (C, T) or (1, C, T);
with its rate, (rate, array) as gradio gives it or {"array", "sampling_rate"} as datasets does."""

DEFAULT_RATE = 24000
BLOCK_SAMPLES = 1 << 18  # that a decoder is asked for, or an encoder is given, at a time
MAX_CHANNELS = 8
MAX_PEAK = 16.0  # 24 dB above full scale, which is more than any mixing desk leaves
SILENCE_DB = -70.0
LOSSY_LEVEL = 0.2  # of libsndfile, from 0 for the best sound to 1 for the smallest files
UNKNOWN_BYTES = 0xFFFFFFFF  # in the header of a WAV whose end is not known
MAX_WAV_BYTES = 4_000_000_000  # of sound; what is longer is written as RF64
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_SCALES = {torch.uint8: 128.0, torch.int8: 128.0, torch.int16: 32768.0, torch.int32: 2147483648.0}
_SAMPLES, _RATES = ("array", "raw", "audio", "waveform", "samples"), ("sampling_rate", "sample_rate", "rate", "sr")


class AudioError(ValueError):
    """Something that was given as sound is none that can be used.

    Attributes:
        allowed: what it must be or do, in words. got: what came instead. advice: what is likely meant, or "".
    """

    def __init__(self, allowed: str, got: str, advice: str = "") -> None:
        self.allowed, self.got, self.advice = allowed, got, advice
        super().__init__(f"Audio must {allowed}; got {got}.{advice}")


def is_encoded(source: Any) -> bool:
    """Whether it is a file: a path, bytes, or open for reading."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read")


def file_within(source: Any) -> Any:
    """The file in {"bytes", "path"}, as datasets gives it when it does not decode; anything else as it is."""
    if isinstance(source, Mapping) and not any(source.get(key) is not None for key in _SAMPLES):
        for key in ("bytes", "path"):
            if source.get(key) is not None:
                return source[key]
    return source


def to_waveform(source: AudioInput) -> tuple[Tensor, int | None]:
    """What is no file as a waveform (C, T) on the CPU, and its sampling rate where it says one.

    Integers are taken by the scale of their type. Of an array with its rate, as gradio, scipy and soundfile give it,
    channels may come last; anywhere else they come first.

    Raises:
        AudioError: it is no sound, or its scale or its axes cannot be known.
    """
    samples, rate, channels_last = source, None, False
    if hasattr(samples, "get_all_samples"):  # a decoder of torchcodec, which datasets gives
        decoded = samples.get_all_samples()
        samples, rate = decoded.data, decoded.sample_rate
    elif isinstance(samples, Mapping):
        keys = [[key for key in names if samples.get(key) is not None] for names in (_SAMPLES, _RATES)]
        if not keys[0]:
            raise AudioError(
                'hold "array" and "sampling_rate"', f"a dict of {', '.join(map(str, samples)) or 'nothing'}"
            )
        samples, rate = samples[keys[0][0]], samples[keys[1][0]] if keys[1] else None
    elif isinstance(samples, (tuple, list)) and len(samples) == 2:
        is_rate = [isinstance(item, numbers.Real) and not isinstance(item, bool) for item in samples]
        if is_rate[0] != is_rate[1]:
            rate, samples = samples if is_rate[0] else samples[::-1]
            channels_last = True
    if rate is not None and (not isinstance(rate, numbers.Real) or float(rate) % 1 or rate < 1):
        raise AudioError("come with its sampling rate as a whole number", repr(rate)[:40])
    waveform = _plain(samples)
    if waveform.ndim == 3 and len(waveform) == 1:
        waveform = waveform[0]
    if waveform.ndim == 2 and len(waveform) > MAX_CHANNELS >= waveform.shape[1] > 0 and channels_last:
        waveform = waveform.T
    shape = f"have shape (samples,) or (channels, samples) with 1 to {MAX_CHANNELS} channels"
    if (
        waveform.ndim not in (1, 2)
        or waveform.shape[-1] < 1
        or (waveform.ndim == 2 and not 0 < len(waveform) <= MAX_CHANNELS)
    ):
        advice = ""
        if waveform.ndim == 2 and len(waveform) > MAX_CHANNELS >= waveform.shape[1] > 0:
            advice = " Did you mean `.T`? Channels come first."
        elif waveform.ndim == 3:
            advice = f" Did you mean one of these {len(waveform)}, `[0]`?"
        raise AudioError(shape, str(tuple(waveform.shape)), advice)
    scale = _SCALES.get(waveform.dtype)
    if scale is not None:
        waveform = (waveform.double() - (128.0 if waveform.dtype == torch.uint8 else 0.0)).div(scale).float()
    elif not waveform.is_floating_point():
        advice = " Its scale cannot be known: make it float in [-1, 1], or int16."
        raise AudioError("hold floating-point samples in [-1, 1]", str(waveform.dtype), advice)
    if not torch.isfinite(waveform).all():
        raise AudioError("hold finite samples", "NaN or infinity")
    peak = float(waveform.abs().max())
    if peak > MAX_PEAK:
        advice = " Did you mean `/ 32768`?" if peak <= 32768 else ""
        raise AudioError("lie near [-1, 1]", f"a peak of {peak:g}", advice)
    return torch.atleast_2d(waveform.float()), None if rate is None else int(float(rate))


def _plain(samples: Any) -> Tensor:
    """An array, a tensor or lists of numbers as a tensor on the CPU, in its own precision where PyTorch has that."""
    if not isinstance(samples, Tensor):
        if not isinstance(samples, (np.ndarray, list, tuple)) and not hasattr(samples, "__array__"):
            raise AudioError("be a path, a file, an array or a tensor", f"{samples!r:.40} ({type(samples).__name__})")
        try:
            samples = np.asarray(samples)
        except ValueError:
            raise AudioError("have channels of one length", "lists of different lengths") from None
        if samples.dtype.kind not in "fiu":
            raise AudioError("hold floating-point samples in [-1, 1]", str(samples.dtype))
        # of any layout and precision: PyTorch knows neither negative strides nor long doubles
        samples = torch.from_numpy(np.ascontiguousarray(samples, np.float32 if samples.dtype.kind == "f" else None))
    return samples.detach().cpu()


def load_audio(
    source: AudioInput,
    sample_rate: int = DEFAULT_RATE,
    mono: bool = True,
    max_seconds: float | None = None,
    source_rate: int | None = None,
) -> Tensor:
    """Sound of any kind as (1, T) float32 at `sample_rate` ((C, T) unless `mono`).

    Args:
        source: a file, or an array with its rate; see `AudioInput`.
        max_seconds: longer audio is refused: by its header, or as soon as so much of it has been read.
        source_rate: samples a second of an array that comes without its rate.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the audio cannot be decoded, ends early, is empty, too long or holds NaN or infinity; names file and
            cause.
    """
    source = file_within(source)
    if not is_encoded(source):
        waveform, stated = to_waveform(source)
        file_rate = stated or source_rate or 0
        if file_rate == 0:
            advice = " Pass (rate, array), or `source_rate`."
            raise AudioError("come with its sampling rate", "an array without", advice)
        if max_seconds is not None and waveform.shape[1] > max_seconds * file_rate:
            raise AudioError(f"last at most {max_seconds:g} s", f"{waveform.shape[1] / file_rate:.1f} s")
        return resample(to_mono(waveform) if mono else waveform, file_rate, sample_rate)
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "the given bytes")
    if isinstance(source, (str, os.PathLike)) and not Path(source).is_file():
        raise FileNotFoundError(f"There is no audio file at {name}.")
    num_read, blocks = 0, list[np.ndarray]()
    try:
        with open_sound(source) as file:
            file_rate, expected, spare = file.rate, file.frames or 0, file.spare
            most = math.inf if max_seconds is None else max_seconds * file_rate
            mean = np.full((file.channels, 1), 1 / file.channels, np.float32)
            for block in file.blocks(BLOCK_SAMPLES) if expected <= most else ():
                blocks.append(block @ mean if mono else block)  # (T, C)
                num_read += len(block)
                if num_read > most:
                    break
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"Cannot decode {name}: {getattr(error, 'error_string', error)}") from error
    if max(num_read, expected) > most:
        least = "" if expected else "at least "
        length = f"it lasts {least}{max(num_read, expected) / file_rate:.1f} s; at most {max_seconds:g} s"
        raise ValueError(f"Cannot use {name}: {length}.")
    if num_read == 0:
        raise ValueError(f"Cannot use {name}: it holds no samples.")
    if num_read < expected - spare:
        raise ValueError(f"Cannot use {name}: it ends after {num_read} of {expected} samples.")
    samples = np.concatenate(blocks).T
    if not np.isfinite(samples).all():
        raise ValueError(f"Cannot use {name}: it holds NaN or infinite samples.")
    return resample(torch.from_numpy(np.ascontiguousarray(samples)), file_rate, sample_rate)


def save_audio(
    path: str | os.PathLike | BinaryIO,
    waveform: AudioInput,
    sample_rate: int | None = None,
    *,
    format: str | None = None,
    comment: str | None = None,
) -> None:
    """Writes sound as a file, all or nothing: 16-bit in .wav and .flac; .ogg, .opus and .mp3 lose a little.

    Args:
        path: of the file, or one that is open for writing.
        waveform: (T,) or (C, T); or sound in any other form, see `AudioInput`.
        sample_rate: of an array that comes without its rate; 24000 by default.
        format: "wav" and so on; by default the path's suffix says it.
        comment: goes into the file's tags, beside the name of this software. Where it is long, a WAV has its first line
            in the header, which every program reads, and all of it behind the sound.

    Raises:
        ValueError: no such format, a comment that does not fit into it, or no sound that can be written; nothing has
            been written then.
    """
    name, suffix = _name_and_suffix(path, format)
    note = _note(suffix, comment)
    waveform = file_within(waveform)
    if is_encoded(waveform):
        waveform = load_audio(waveform, sample_rate or DEFAULT_RATE, mono=False)
    try:
        samples, rate = to_waveform(waveform)
    except AudioError as error:
        raise AudioError(error.allowed, error.got, f"{error.advice} {name} was not written.") from None
    rate = rate or sample_rate or DEFAULT_RATE
    with _all_or_nothing(path) as target, _opened(target, rate, len(samples), suffix, note) as write:
        write(samples)


def save_patched(
    path: str | os.PathLike | BinaryIO,
    source: str | os.PathLike | bytes | BinaryIO,
    patches: Sequence[tuple[int, Tensor]],
    *,
    format: str | None = None,
    comment: str | None = None,
) -> int:
    """Writes a sound file that is another one but for some stretches; all or nothing, and never the whole in memory.

    The new file has the rate and the channels of the other one. A .wav or .flac also has its precision, where its
    format allows that, and then every sample outside the patches is the same, bit for bit.

    Args:
        path: of the file to write, or one that is open for writing.
        source: the other file, by its path, its bytes, or open for reading.
        patches: (start, waveform): from this sample of the source on, a waveform (C, T) in [-1, 1] of its rate and
            channels. What begins below 0 comes before the source, what goes past its end after it, without a gap.
        format, comment: as for `save_audio`.

    Returns:
        How many samples were written.

    Raises:
        ValueError: a format that cannot hold the source's rate and channels, a comment that does not fit into it, a
            patch that does not fit to the source, or a source that ends early.
        RuntimeError: the source cannot be decoded.
    """
    _, suffix = _name_and_suffix(path, format)
    note, made = _note(suffix, comment), 0
    with open_sound(source) as file:
        container, encoding = patched_format(file, suffix)
        is_whole = encoding.startswith("PCM") and " PCM" in file.format and file.is_exact
        for start, waveform in patches:
            if len(waveform) != file.channels or start + waveform.shape[1] < 0:
                got = f"{tuple(waveform.shape)} from sample {start} on"
                raise ValueError(f"A patch must have {file.channels} channels and reach the source; got {got}.")
        parts = [(start, _samples(waveform, encoding)) for start, waveform in sorted(patches, key=itemgetter(0))]
        with (
            _all_or_nothing(path) as target,
            _opened(target, file.rate, file.channels, suffix, note, (container, encoding)) as write,
        ):
            for start, samples in parts:
                before = samples[: max(0, -start)]
                write(before)
                made += len(before)
            position = 0
            for block in file.blocks(BLOCK_SAMPLES, dtype="int32" if is_whole else "float64"):
                block = block if is_whole else _samples(torch.from_numpy(block.T), encoding)
                for start, samples in parts:
                    first, stop = max(start, position), min(start + len(samples), position + len(block))
                    if first < stop:
                        block[first - position : stop - position] = samples[first - start : stop - start]
                write(block)
                position += len(block)
            if file.is_exact and position < (file.frames or 0):
                raise ValueError(f"The recording ends after {position} of {file.frames} samples.")
            for start, samples in parts:
                if start > position:
                    raise ValueError(f"A patch must reach the source of {position} samples; got one from {start} on.")
                rest = samples[max(0, position - start) :]
                write(rest)
                made += len(rest)
    return made + position


def patched_format(file: SoundFile, suffix: str) -> tuple[str, str]:
    """libsndfile's names of the container and the encoding in which `save_patched` writes a file like this one.

    Raises:
        ValueError: none of this suffix holds its rate and channels.
    """
    container, encoding = FORMATS[suffix]
    kind, _, subtype = file.format.partition(" ")
    if encoding == "PCM_16" and subtype in EXACT_ENCODINGS:
        if soundfile.check_format(container, subtype):
            encoding = subtype
        elif not subtype.endswith("8"):  # FLAC has no floats
            encoding = "PCM_24"
        container = kind if suffix == ".wav" and kind in ("WAVEX", "RF64") else container
        num_bytes = (file.frames or 0) * file.channels * _BITS[encoding] // 8
        container = "RF64" if suffix == ".wav" and num_bytes > MAX_WAV_BYTES else container
    try:
        soundfile.SoundFile(io.BytesIO(), "w", file.rate, file.channels, encoding, format=container).close()
    except (soundfile.SoundFileError, ValueError):
        raise ValueError(
            f"{suffix} does not hold {file.rate} Hz and {file.channels} channels; write .wav or .flac."
        ) from None
    return container, encoding


def _name_and_suffix(path: str | os.PathLike | BinaryIO, format: str | None) -> tuple[str, str]:
    """What to call a file that is to be written, and its kind, a key of `FORMATS`; an error if there is no such."""
    name = str(os.fspath(path) if isinstance(path, (str, os.PathLike)) else getattr(path, "name", "the given file"))
    suffix = Path(name).suffix.lower() if format is None else f".{format.lower().lstrip('.')}"
    if suffix not in FORMATS:
        raise ValueError(
            f"Audio is written as {', '.join(FORMATS)}; got {Path(name).name if not format else format!r}."
        )
    return name, suffix


@contextlib.contextmanager
def _all_or_nothing(path: str | os.PathLike | BinaryIO) -> Iterator[Path | BinaryIO]:
    """What to write to: the file itself if it is open, else one beside it that takes its place at the end."""
    if not isinstance(path, (str, os.PathLike)):
        yield path
        return
    place = Path(path)
    aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)


def _note(suffix: str, comment: str | None) -> str:
    """The comment of a file of this kind, which begins with the name of this software; an error if it is too long."""
    most = MAX_OPUS_COMMENT_BYTES if suffix == ".opus" else MAX_COMMENT_BYTES
    note = f"{SOFTWARE} {comment or ''}".strip()
    if len(note.encode()) > most:
        raise ValueError(f"A comment in {suffix} has at most {most} bytes; got {len(note.encode())}. Shorten it.")
    return note


@contextlib.contextmanager
def _opened(
    target: Path | BinaryIO, rate: int, channels: int, suffix: str, note: str, kind: tuple[str, str] | None = None
) -> Iterator[Callable[[Tensor | np.ndarray], None]]:
    """A file that takes waveforms (C, T), or samples (T, C) as `_samples` makes them, one after the other, and gets its
    comment however that ends. Its kind, container and encoding, is that of its suffix unless it is given."""
    is_long = suffix == ".wav" and len(note.encode()) > WAV_COMMENT_BYTES
    container, encoding = kind or FORMATS[suffix]
    options = {} if encoding in EXACT_ENCODINGS else {"compression_level": LOSSY_LEVEL}
    with soundfile.SoundFile(target, "w", rate, channels, encoding, format=container, **options) as file:
        first_line = note.partition("\n")[0].encode()[:WAV_COMMENT_BYTES].decode(errors="ignore")
        file.comment = first_line if is_long else note

        def write(sound: Tensor | np.ndarray) -> None:
            if isinstance(sound, Tensor):
                for block in sound.split(BLOCK_SAMPLES, dim=1):  # Vorbis overflows on more
                    file.write(_samples(block, encoding))
            else:
                file.write(sound)

        try:
            yield write
        finally:
            if is_long:
                file.close()
                with open(target, "r+b") if isinstance(target, Path) else contextlib.nullcontext(target) as written:
                    append_wav_comment(written, note)


@contextlib.contextmanager
def growing_audio(
    path: str | os.PathLike, sample_rate: int, comment: str | None = None
) -> Iterator[Callable[[Tensor], None]]:
    """A function that adds (1, T) to a file of sound, which takes its place at the end, however that comes.

    Unlike `save_audio` it keeps what there is when something fails in between. Without any sound there is no file.
    """
    place = Path(path)
    note = _note(place.suffix.lower(), comment)
    aside, made = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}"), 0
    try:
        with _opened(aside, sample_rate, 1, place.suffix.lower(), note) as write:

            def add(waveform: Tensor) -> None:
                nonlocal made
                write(waveform)
                made += waveform.shape[1]

            yield add
    finally:
        if made:
            os.replace(aside, place)
        aside.unlink(missing_ok=True)


def _samples(waveform: Tensor, encoding: str) -> np.ndarray:
    """(C, T) as samples (T, C) for an encoding: whole numbers in the upper bits of int32 where it has such, which
    libsndfile takes as they are, else floats. The inverse of reading."""
    samples = np.ascontiguousarray(waveform.detach().cpu().numpy().T)
    if not encoding.startswith("PCM"):
        return samples
    scale, spare = 2.0 ** (_BITS[encoding] - 1), 32 - _BITS[encoding]
    return np.clip(np.round(samples.astype(np.float64) * scale), -scale, scale - 1).astype(np.int32) << np.int32(spare)


def pcm16(waveform: Tensor) -> np.ndarray:
    """(C, T) as 16-bit samples (T, C), little-endian: the inverse of reading."""
    samples = np.round(waveform.numpy().T * 32768.0)
    return np.ascontiguousarray(np.clip(samples, -32768, 32767).astype("<i2"))


def wav_header(sample_rate: int, num_samples: int | None = None) -> bytes:
    """The header of a mono WAV of 16-bit samples that follow; it leaves the end open without their number."""
    size = UNKNOWN_BYTES if num_samples is None else min(2 * num_samples, UNKNOWN_BYTES - 36)
    header = b"RIFF" + min(size + 36, UNKNOWN_BYTES).to_bytes(4, "little") + b"WAVEfmt "
    numbers_and_widths = ((16, 4), (1, 2), (1, 2), (sample_rate, 4), (2 * sample_rate, 4), (2, 2), (16, 2))
    header += b"".join(number.to_bytes(width, "little") for number, width in numbers_and_widths)
    return header + b"data" + size.to_bytes(4, "little")


def to_mono(waveform: Tensor) -> Tensor:
    """Mean over channels: (..., C, T) to (..., 1, T)."""
    return waveform.mean(dim=-2, keepdim=True)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """The waveform (..., T) at another rate, with round(T * to_rate / from_rate) samples."""
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"Sample rates must be at least 1, got {from_rate} and {to_rate}.")
    if from_rate == to_rate:
        return waveform
    flat = waveform.reshape(-1, waveform.shape[-1]).float().cpu().numpy()
    out = torch.from_numpy(np.ascontiguousarray(soxr.resample(flat.T, from_rate, to_rate, quality="HQ").T))
    out = crop_or_pad(out, round(waveform.shape[-1] * to_rate / from_rate))
    return out.reshape(*waveform.shape[:-1], -1).to(waveform.device)


def crop_or_pad(waveform: Tensor, num_samples: int, start: int = 0) -> Tensor:
    """Exactly `num_samples` samples from `start` on; zeros after the end."""
    if num_samples < 0 or start < 0:
        raise ValueError(f"num_samples and start must be at least 0, got {num_samples} and {start}.")
    cropped = waveform[..., start : start + num_samples]
    return F.pad(cropped, (0, num_samples - cropped.shape[-1]))


def fade_(waveform: Tensor, rise: int, fall: int) -> Tensor:
    """In place, (..., T): the first `rise` samples faded in and the last `fall` faded out, along a cosine."""
    length = waveform.shape[-1]
    rise, fall = min(rise, length), min(fall, length)
    waveform[..., :rise] *= torch.hann_window(2 * rise, device=waveform.device)[:rise]
    waveform[..., length - fall :] *= torch.hann_window(2 * fall, device=waveform.device)[:fall].flip(0)
    return waveform


def repeat_to(waveform: Tensor, num_samples: int) -> Tensor:
    """(..., T), repeated until it has `num_samples` at least: a loop goes on, where padding would be silent."""
    times = -(-num_samples // max(waveform.shape[-1], 1))
    return waveform if times <= 1 else waveform.repeat(*[1] * (waveform.ndim - 1), times)[..., :num_samples]


def fit_loop(waveform: Tensor, num_samples: int) -> Tensor:
    """A loop (..., T) at a length of `num_samples`, faster or slower, and higher or lower, by as much.

    Its Fourier series is read at other places, so that its end runs into its beginning as before.
    """
    length = waveform.shape[-1]
    if num_samples == length:
        return waveform
    return torch.fft.irfft(torch.fft.rfft(waveform), n=num_samples) * (num_samples / length)


def rms_db(waveform: Tensor) -> Tensor:
    """Level of (..., T) over time in dB relative to a full-scale constant (a full-scale sine is -3.01); floor -120."""
    power = torch.linalg.vector_norm(waveform.float(), dim=-1).square() / waveform.shape[-1]
    return 10.0 * power.clamp(min=1e-12).log10()


def limit_peak(waveform: Tensor, ceiling: float = 0.977) -> tuple[Tensor, Tensor]:
    """Each sample of the batch (B, C, T) scaled down so that its peak is at most `ceiling`; bit-equal where it was.

    Returns:
        the waveform, and the gain (B,) that was applied (1 where nothing changed).
    """
    if not 0.0 < ceiling <= 1.0:
        raise ValueError(f"ceiling must lie in (0, 1], got {ceiling}.")
    peak = torch.maximum(waveform.amax((-2, -1)), -waveform.amin((-2, -1)))
    gain = torch.where(peak > ceiling, ceiling / peak, torch.ones_like(peak))
    if not (gain < 1).any():
        return waveform, gain
    bound = torch.where(gain < 1, ceiling, math.inf)[:, None, None]  # a product may round to just above
    return (waveform * gain[:, None, None]).clamp_(-bound, bound), gain
