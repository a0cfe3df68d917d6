"""Audio in and out, and plain operations on waveforms; knows nothing about models.

Shapes: B batch, C channels, T samples. A waveform is float32 in [-1, 1] with time last.
"""

import contextlib
import io
import math
import os
import uuid
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

AudioSource = str | os.PathLike | bytes | BinaryIO


def load_audio(source: AudioSource, sample_rate: int = 24000, mono: bool = True) -> Tensor:
    """Audio of a file, a file object or encoded bytes as (1, T) float32 at `sample_rate` ((C, T) unless `mono`).

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the audio cannot be decoded, ends early, is empty or holds NaN or infinity; names file and cause.
    """
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "the given bytes")
    if isinstance(source, (str, os.PathLike)) and not Path(source).is_file():
        raise FileNotFoundError(f"There is no audio file at {name}.")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            file_rate, expected = file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise ValueError(f"Cannot decode {name}: {getattr(error, 'error_string', error)}") from error
    if len(samples) == 0:
        raise ValueError(f"Cannot use {name}: it holds no samples.")
    if len(samples) < expected:
        raise ValueError(f"Cannot use {name}: it ends after {len(samples)} of {expected} samples.")
    if not np.isfinite(samples).all():
        raise ValueError(f"Cannot use {name}: it holds NaN or infinite samples.")
    waveform = torch.from_numpy(np.ascontiguousarray(samples.T))  # (C, T)
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
    return torch.nn.functional.pad(cropped, (0, num_samples - cropped.shape[-1]))


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


@lru_cache(maxsize=32)
def _mel_weights(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> np.ndarray:
    # numpy, not torch: a tensor first built under inference_mode could never again take part in training
    def hz_to_mel(hz: np.ndarray) -> np.ndarray:  # Slaney: linear up to 1 kHz, 27 mels per factor 6.4 above
        linear = hz * 3.0 / 200.0
        return np.where(hz < 1000.0, linear, 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / math.log(6.4))

    def mel_to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((np.maximum(mel, 15.0) - 15.0) / 27.0))

    lowest, highest = hz_to_mel(np.array([f_min, f_max]))
    corners = mel_to_hz(np.linspace(lowest, highest, num_mels + 2))  # lower corner, peaks, upper corner
    frequencies = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising = (frequencies - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - frequencies) / (corners[2:] - corners[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (corners[2:] - corners[:-2])  # equal areas
    return weights.astype(np.float32)


def mel_filterbank(
    sample_rate: int, n_fft: int, num_mels: int, f_min: float = 0.0, f_max: float | None = None
) -> Tensor:
    """Triangular mel filters (n_fft // 2 + 1, num_mels) on Slaney's scale, each of unit area in Hz.

    `f_max` defaults to half the sample rate. Magnitudes (..., n_fft // 2 + 1) @ filterbank give (..., num_mels).
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if not 0.0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(f"Need 0 <= f_min < f_max <= {sample_rate / 2}, got {f_min} and {f_max}.")
    return torch.tensor(_mel_weights(sample_rate, n_fft, num_mels, float(f_min), float(f_max)))


def log_mel_spectrogram(
    waveform: Tensor,
    *,
    sample_rate: int = 24000,
    n_fft: int = 1024,
    hop_length: int = 240,
    num_mels: int = 64,
    floor: float = 1e-5,
) -> Tensor:
    """Natural logarithm of mel magnitudes, (..., T) to (..., T // hop_length, num_mels); differentiable.

    Frame i is centred on sample i * hop_length (Hann window of n_fft samples, zeros outside the waveform). Computed in
    float32 also under autocast, since bf16 has too few digits for a spectrum.
    """
    with torch.autocast(waveform.device.type, enabled=False):
        flat = waveform.float().reshape(-1, waveform.shape[-1])
        spectrum = torch.stft(
            flat,
            n_fft,
            hop_length,
            window=torch.hann_window(n_fft, device=flat.device),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )  # (B, n_fft // 2 + 1, T // hop_length + 1)
        magnitude = spectrum.abs()[..., : waveform.shape[-1] // hop_length].transpose(-1, -2)
        mel = magnitude @ mel_filterbank(sample_rate, n_fft, num_mels).to(flat.device)
        return mel.clamp(min=floor).log().reshape(*waveform.shape[:-1], -1, num_mels)
