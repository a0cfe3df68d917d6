"""Audio in and out, and plain operations on waveforms; knows nothing about models.

Shapes: B batch, C channels, T samples. A waveform is float32 in [-1, 1] with time last.
"""

import contextlib
import io
import os
import uuid
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

AudioSource = str | os.PathLike | bytes | BinaryIO
BLOCK_SAMPLES = 1 << 18  # that a decoder is asked for at a time
UNKNOWN_LENGTH = 1 << 62  # and more is what a FLAC's header says that was written to a pipe


def load_audio(
    source: AudioSource, sample_rate: int = 24000, mono: bool = True, max_seconds: float | None = None
) -> Tensor:
    """Audio of a file, a file object or encoded bytes as (1, T) float32 at `sample_rate` ((C, T) unless `mono`).

    Args:
        max_seconds: longer audio is refused: by its header, or as soon as so much of it has been read.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the audio cannot be decoded, ends early, is empty, too long or holds NaN or infinity; names file and
            cause.
    """
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "the given bytes")
    if isinstance(source, (str, os.PathLike)) and not Path(source).is_file():
        raise FileNotFoundError(f"There is no audio file at {name}.")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            file_rate, expected = file.samplerate, file.frames
            if expected >= UNKNOWN_LENGTH:
                expected = 0
            file.seekable = lambda: False  # else soundfile seeks after each block, and an MP3 comes out wrong there
            blocks, num_read = [np.empty((0, file.channels), np.float32)], 0
            while max_seconds is None or max(num_read, expected) <= max_seconds * file_rate:
                blocks.append(file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True))  # (T, C)
                num_read += len(blocks[-1])
                if len(blocks[-1]) == 0:
                    break
            else:
                least = "" if expected else "at least "
                length = f"it lasts {least}{max(num_read, expected) / file_rate:.1f} s; at most {max_seconds:g} s"
                raise ValueError(f"Cannot use {name}: {length}.")
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise ValueError(f"Cannot decode {name}: {getattr(error, 'error_string', error)}") from error
    if num_read == 0:
        raise ValueError(f"Cannot use {name}: it holds no samples.")
    if num_read < expected:
        raise ValueError(f"Cannot use {name}: it ends after {num_read} of {expected} samples.")
    samples = np.concatenate([block.T for block in blocks], axis=1)
    if not np.isfinite(samples).all():
        raise ValueError(f"Cannot use {name}: it holds NaN or infinite samples.")
    waveform = torch.from_numpy(samples)  # (C, T)
    return resample(to_mono(waveform) if mono else waveform, file_rate, sample_rate)


def save_audio(path: str | os.PathLike, waveform: Tensor, sample_rate: int = 24000) -> None:
    """Writes a (T,) or (C, T) waveform as 16-bit audio in the format of the suffix (.wav, .flac); all or nothing."""
    path = Path(path)
    formats = {".wav": "WAV", ".flac": "FLAC"}
    if path.suffix.lower() not in formats:
        raise ValueError(f"Audio is written as {' or '.join(formats)}, got {path.name!r}.")
    if waveform.ndim not in (1, 2) or waveform.shape[-1] == 0:
        raise ValueError(f"waveform must be (T,) or (C, T) with T > 0, got {tuple(waveform.shape)}.")
    samples = waveform.detach().float().cpu().numpy()
    if not np.isfinite(samples).all():
        raise ValueError(f"Refusing to write {path.name}: the waveform holds NaN or infinite samples.")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        pcm = np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)  # the inverse of reading
        soundfile.write(aside, pcm.T, sample_rate, subtype="PCM_16", format=formats[path.suffix.lower()])
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


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


def rms_db(waveform: Tensor) -> Tensor:
    """Level of (..., T) over time in dB relative to a full-scale constant (a full-scale sine is -3.01); floor -120."""
    return 10.0 * waveform.float().square().mean(dim=-1).clamp(min=1e-12).log10()


def limit_peak(waveform: Tensor, ceiling: float = 0.977) -> tuple[Tensor, Tensor]:
    """Each sample of the batch (B, C, T) scaled down so that its peak is at most `ceiling`; bit-equal where it was.

    Returns:
        the waveform, and the gain (B,) that was applied (1 where nothing changed).
    """
    if not 0.0 < ceiling <= 1.0:
        raise ValueError(f"ceiling must lie in (0, 1], got {ceiling}.")
    peak = waveform.abs().amax(dim=(-2, -1))
    gain = torch.where(peak > ceiling, ceiling / peak, torch.ones_like(peak))
    limited = (waveform * gain[:, None, None]).clamp(-ceiling, ceiling)
    return torch.where(gain[:, None, None] < 1.0, limited, waveform), gain
