"""Spectra of waveforms: mel, semitones, short-time Fourier transforms and their inverses; knows nothing about models.

Shapes: B batch, T samples, N frames, F frequency bins.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

SPECTROGRAM_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # quiet to loud
SPECTROGRAM_RANGE_DB = 80.0

Memory: TypeAlias = dict[str, Tensor]
"""What a computation that takes its input in parts needs of those before; empty at the beginning."""


@lru_cache(maxsize=64)
def _made(make: Callable[..., Tensor], device: str, fake_mode: object, *arguments) -> Tensor:
    # a tensor made in inference mode can never take part in training
    with torch.inference_mode(False), torch.device("cpu"):
        return make(*arguments).to(device)


@torch.compiler.assume_constant_result  # torch.compile would look into the cache, and through it
def _kept(*key) -> Tensor:
    return _made(*key)


def _constant(make: Callable[..., Tensor], like: Tensor, *arguments) -> Tensor:
    """`make(*arguments)` on the device of `like`, copied there once: to copy it in each call would stall a GPU."""
    return _kept(make, str(like.device), getattr(like, "fake_mode", None), *arguments)


def mel_filterbank(sample_rate: int, n_fft: int, num_mels: int) -> Tensor:
    """Triangular mel filters (n_fft // 2 + 1, num_mels) on Slaney's scale, each of unit area in Hz.

    Magnitudes (..., n_fft // 2 + 1) @ filterbank give (..., num_mels).
    """
    weights = mel_filter_bank(
        n_fft // 2 + 1, num_mels, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney"
    )
    return torch.tensor(weights, dtype=torch.float32)


def bin_weights(num_bins: int, sample_rate: int, corner_hz: float) -> Tensor:
    """How much each Fourier bin counts, (F,), 1 on average: as 1 / (frequency + corner_hz).

    Bins are evenly spaced in Hz, and hearing is not: above the corner each octave then counts the same.
    """
    weights = 1 / (torch.arange(num_bins) * (0.5 * sample_rate / (num_bins - 1)) + corner_hz)
    return weights / weights.mean()


def frame_spectra(signal: Tensor, window: Tensor, hop_length: int, n_fft: int | None = None) -> Tensor:
    """Spectra of the windowed frames of a signal: (..., T) to complex (..., N, F).

    Frame i is samples i * hop_length and on, as many as the window has; there are as many frames as fit in. The
    gradient of `torch.stft` adds in an order that changes from run to run on a GPU; that of these operations does not.

    Args:
        n_fft: length of the Fourier transform, that of the window by default; frames end in zeros up to there.
    """
    return torch.fft.rfft(signal.unfold(-1, len(window), hop_length) * window, n=n_fft)


def _squared(spectrum: Tensor) -> Tensor:
    """|z|^2 of complex numbers; unlike `abs().square()` it has a gradient at 0."""
    return torch.view_as_real(spectrum).square().sum(-1)


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
        flat = waveform.float().reshape(-1, waveform.shape[-1])  # (B, T)
        padded = F.pad(flat, (n_fft // 2, n_fft // 2))
        spectrum = frame_spectra(padded, _constant(torch.hann_window, flat, n_fft), hop_length)
        magnitude = spectrum.abs()[:, : waveform.shape[-1] // hop_length]  # (B, N, n_fft // 2 + 1)
        mel = magnitude @ _constant(mel_filterbank, flat, sample_rate, n_fft, num_mels)
        return mel.clamp(min=floor).log().reshape(*waveform.shape[:-1], -1, num_mels)


def spectrogram_image(waveform: Tensor, sample_rate: int = 24000) -> np.ndarray:
    """A picture of the waveform (1, T), as (128, columns, 3) uint8: time to the right, mel bands upwards, the loudest
    80 dB in colour."""
    hop = max(sample_rate // 100, waveform.shape[-1] // 4000)  # 100 columns a second, at most about 4000 in all
    mel = log_mel_spectrogram(waveform[0], sample_rate=sample_rate, n_fft=2048, hop_length=hop, num_mels=128)
    decibels = (20 / math.log(10) * mel).T.flip(0).numpy()
    loudness = np.clip(1 + (decibels - decibels.max()) / SPECTROGRAM_RANGE_DB, 0, 1)
    stops = np.linspace(0, 1, len(SPECTROGRAM_COLOURS))
    channels = [np.interp(loudness, stops, colour) for colour in zip(*SPECTROGRAM_COLOURS)]
    return np.stack(channels, -1).astype(np.uint8)


def _semitone_weights(sample_rate: int, fft_size: int, num_semitones: int, lowest_hz: float) -> Tensor:
    """Share of each Fourier bin but the first in each semitone, (F - 1, num_semitones); columns sum to 1."""
    hertz = torch.arange(1, fft_size // 2 + 1) * (sample_rate / fft_size)
    distance = 12 * torch.log2(hertz / lowest_hz)[:, None] - torch.arange(num_semitones)
    weight = torch.exp(-0.5 * (distance * 3).square())
    return weight / weight.sum(0)


def semitone_spectrogram(
    waveform: Tensor,
    sample_rate: int = 24000,
    hop_size: int = 960,
    num_semitones: int = 72,
    lowest_hz: float = 65.4,
) -> Tensor:
    """Natural-log magnitudes of the semitones from C2 up: waveform (B, 1, T) to (B, ceil(T / hop_size), num_semitones).

    Frame i covers samples i * hop_size to (i + 1) * hop_size, its centre under the centre of a Hann window of 170 ms
    (4096 samples at 24 kHz), the shortest that parts semitones from about A2 up. A semitone's magnitude is the root of
    the energy under a Gaussian of a third of a semitone around it.
    """
    fft_size = 2 ** round(math.log2(0.17 * sample_rate))
    num_frames = -(-waveform.shape[-1] // hop_size)
    left = (fft_size - hop_size) // 2
    right = num_frames * hop_size - waveform.shape[-1] + fft_size - hop_size - left
    padded = F.pad(waveform[:, 0].float(), (left, right))
    window = _constant(torch.hann_window, padded, fft_size)
    energy = _squared(frame_spectra(padded, window, hop_size)) / window.square().sum()  # (B, N, F)
    weights = _constant(_semitone_weights, padded, sample_rate, fft_size, num_semitones, lowest_hz)
    return 0.5 * (energy[..., 1:] @ weights + 1e-8).log()


SPECTRAL_MEL, SPECTRAL_SEMITONES, SPECTRAL_ONSET = slice(0, 128), slice(128, 200), 200
"""Where in a spectral frame the log-mel bands, the semitones and the onset are."""
SPECTRAL_FRAME_SIZE = 201


def spectral_frames(waveform: Tensor, sample_rate: int = 24000, hop_size: int = 960) -> Tensor:
    """What sounds during each span of `hop_size` samples, as logarithms: (B, 1, T) to (B, ceil(T / hop_size), 201).

    Two log-mel frames of 64 bands (the first and second half of the span: timbre, and what changes within it), 72
    semitones (pitch), and the increase of the log-mel spectrum since the half-span before, averaged over the bands
    (onsets).
    """
    num_frames = -(-waveform.shape[-1] // hop_size)
    padded = F.pad(waveform, (0, num_frames * hop_size - waveform.shape[-1]))  # (B, 1, hop_size N)
    half = hop_size // 2
    centred = F.pad(padded[:, 0, half // 2 :], (0, half // 2))  # frame i of the mel spectrogram is centred on i * half
    mel = log_mel_spectrogram(
        centred, sample_rate=sample_rate, n_fft=1024, hop_length=half, num_mels=64, floor=1e-4
    )  # (B, 2 N, 64)
    rise = F.pad(mel.diff(dim=1), (0, 0, 1, 0)).clamp_min(0).mean(-1)  # (B, 2 N)
    semitones = semitone_spectrogram(padded, sample_rate, hop_size)  # (B, N, 72)
    return torch.cat([mel.unflatten(1, (-1, 2)).flatten(2), semitones, rise.unflatten(1, (-1, 2)).amax(-1, True)], -1)


def reflected(signal: Tensor, left: int, right: int) -> Tensor:
    """The signal (..., T) with its mirror images at both ends, (..., left + T + right); both are less than T.

    The gradient of `F.pad(mode="reflect")` adds in an order that changes from run to run on a GPU; this one does not.
    """
    return torch.cat([signal[..., 1 : left + 1].flip(-1), signal, signal[..., -right - 1 : -1].flip(-1)], dim=-1)


def stft(waveform: Tensor, fft_size: int, window_size: int, hop_size: int) -> Tensor:
    """Short-time spectrum with a Hann window, reflected at both ends: (..., T) -> real and imaginary (..., N, F, 2).

    It is divided by the window's norm, `sqrt(sum w^2)`, so that white noise of deviation s has magnitudes of order s at
    every resolution and no FFT size dominates a sum over sizes.
    """
    signal, half = waveform.float(), window_size // 2
    signal = reflected(signal, half, half) if half < signal.shape[-1] else F.pad(signal, (half, half))
    window = _constant(torch.hann_window, signal, window_size)
    return torch.view_as_real(frame_spectra(signal, window / window.norm(), hop_size, fft_size))


def stft_magnitude(waveform: Tensor, fft_size: int, window_size: int, hop_size: int, eps: float = 1e-7) -> Tensor:
    """Magnitudes of `stft`, (..., T) -> (..., N, F). `eps` keeps the root differentiable at 0."""
    power = stft(waveform, fft_size, window_size, hop_size).square().sum(-1)  # (..., N, F)
    return (power + eps**2).sqrt()


def stft_frames(waveform: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Short-time spectrum (B, T) -> complex (B, T / hop_length, F), Hann window of norm 1; T a multiple of the hop.

    Frame i is centred on the middle of its own hop, and zeros surround the waveform.
    """
    margin = n_fft - hop_length
    padded = F.pad(waveform.float(), (margin // 2, margin - margin // 2))
    window = _constant(torch.hann_window, padded, n_fft)
    return frame_spectra(padded, window / window.norm(), hop_length)


def inverse_stft_frames(spectrum: Tensor, hop_length: int) -> Tensor:
    """Waveform (B, N * hop_length) of frames (B, N, F): inverts `stft_frames`, by least squares where none fits."""
    return _overlap_frames(spectrum, hop_length) / _overlap_weights(spectrum, hop_length)


def _overlap_frames(spectrum: Tensor, hop_length: int) -> Tensor:
    n_fft = 2 * (spectrum.shape[-1] - 1)
    window = _constant(torch.hann_window, spectrum, n_fft)
    return _overlap_add(torch.fft.irfft(spectrum, n=n_fft) * (window * window.norm()), hop_length)


def _overlap_weights(spectrum: Tensor, hop_length: int) -> Tensor:
    """How much of the squared windows lies over each sample, (1, N * hop_length)."""
    window = _constant(torch.hann_window, spectrum, 2 * (spectrum.shape[-1] - 1))
    return _overlap_add(window.square().expand(1, spectrum.shape[1], -1), hop_length)


def _overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """Sum (B, N * hop_length) of frames (B, N, T), each centred on the middle of its own hop."""
    num_frames, parts = frames.shape[1], frames.unflatten(-1, (-1, hop_length)).unbind(2)  # T / hop of (B, N, hop)
    total = frames.new_zeros(len(frames), num_frames + len(parts) - 1, hop_length)
    for i, part in enumerate(parts):
        total[:, i : i + num_frames] += part
    start = (frames.shape[-1] - hop_length) // 2
    return total.flatten(1)[:, start : start + num_frames * hop_length]


def _phase_of_partials(magnitude: Tensor, hop_length: int, turns_before: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Phases (B, N, F) at which the spectral peaks run on from frame to frame (single-pass inversion, Beauregard 2015).

    Each bin belongs to its nearest peak, turns at the peak's interpolated frequency, and within a Hann window's main
    lobe neighbouring bins have opposite signs. The second result, (B, 1, F), is `turns_before` of what comes next.
    """
    num_bins = magnitude.shape[-1]
    log = magnitude.clamp_min(1e-7).log()
    low, mid, high = log[..., :-2], log[..., 1:-1], log[..., 2:]
    is_peak = F.pad((mid > low) & (mid >= high), (1, 1))
    curvature = low - 2 * mid + high
    offset = torch.where(curvature < -1e-6, 0.5 * (low - high) / curvature.clamp(max=-1e-6), 0.0)
    bins = torch.arange(num_bins, device=magnitude.device, dtype=magnitude.dtype)
    frequency = bins + F.pad(offset.clamp(-0.5, 0.5), (1, 1))
    below = torch.where(is_peak, bins, -num_bins).cummax(-1).values
    above = torch.where(is_peak, bins, 2.0 * num_bins).flip(-1).cummin(-1).values.flip(-1)
    peak = torch.where(bins - below <= above - bins, below, above)
    peak = torch.where((peak >= 0) & (peak < num_bins), peak, bins)  # a frame without peaks: each bin for itself
    turns = frequency.gather(-1, peak.long()) * (hop_length / (2 * (num_bins - 1)))
    many = torch.float64 if turns.device.type in ("cpu", "cuda") else torch.float32  # a long piece makes many turns
    turns = (turns_before + (turns % 1).cumsum(1, dtype=many)) % 1
    return 2 * math.pi * turns.float() + math.pi * (bins - peak), turns[:, -1:]


def griffin_lim(
    magnitude: Tensor,
    hop_length: int,
    num_iterations: int = 16,
    momentum: float = 0.99,
    tile_frames: int | None = None,
) -> Tensor:
    """A waveform (B, N * hop_length) whose short-time magnitudes come near (B, N, F).

    The fast Griffin-Lim algorithm (Perraudin et al. 2013), from phases in which partials run on; deterministic. With
    real magnitudes of music and a hop of a quarter window, 16 iterations leave 1 % of the energy wrong.

    Args:
        tile_frames: work on so many frames at a time, which takes less memory and gives the same waveform.
    """
    tiles = magnitude.split(tile_frames or magnitude.shape[1], dim=1)
    return torch.cat(list(griffin_lim_tiles(tiles, hop_length, num_iterations, momentum)), dim=1)


def griffin_lim_tiles(
    tiles: Iterable[Tensor], hop_length: int, num_iterations: int = 16, momentum: float = 0.99
) -> Iterator[Tensor]:
    """`griffin_lim` of magnitudes that come one tile after the other, (B, n, F) each: the waveform in pieces.

    Partials run on from tile to tile, and what is given has been worked on with as many frames around it as the
    iterations reach; so each piece ends as many frames before its tile.
    """
    memory: Memory = {}
    for tile, is_last in with_last(tiles):
        piece, memory = griffin_lim_next(tile, memory, is_last, hop_length, num_iterations, momentum)
        if piece.shape[-1]:
            yield piece


def griffin_lim_next(
    tile: Tensor, memory: Memory, is_last: bool, hop_length: int, num_iterations: int = 16, momentum: float = 0.99
) -> tuple[Tensor, Memory]:
    """One step of `griffin_lim_tiles`: the piece that a tile (B, n, F) lets be known, and what the next one needs."""
    magnitude = tile.float()
    phase, turns = _phase_of_partials(magnitude, hop_length, memory.get("turns", 0.0))
    reach = (num_iterations + 1) * (2 * (tile.shape[-1] - 1) // hop_length)
    given = 0  # frames of `magnitude` whose waveform is out
    if memory:
        given = max(0, memory["magnitude"].shape[1] - reach)
        magnitude = torch.cat([memory["magnitude"], magnitude], dim=1)
        phase = torch.cat([memory["phase"], phase], dim=1)
    end = magnitude.shape[1] - (0 if is_last else reach)
    if end <= given:
        return magnitude.new_empty(len(magnitude), 0), {"magnitude": magnitude, "phase": phase, "turns": turns}
    waveform = _griffin_lim(magnitude, phase, hop_length, num_iterations, momentum)
    first = max(0, end - reach)
    memory = {"magnitude": magnitude[:, first:], "phase": phase[:, first:], "turns": turns}
    return waveform[:, given * hop_length : end * hop_length], memory


def griffin_lim_loop(
    magnitude: Tensor, hop_length: int, phase: Tensor | None = None, num_iterations: int = 16, momentum: float = 0.99
) -> Tensor:
    """`griffin_lim` of a loop: after the last of its frames (B, N, F) the first comes again, in magnitude and phase.

    Args:
        phase: to begin with, (B, N, F) in radians; by default one in which partials run on. Where it does not come
            around, as at the seam, the iterations even it out.
    """
    if phase is None:
        phase, _ = _phase_of_partials(magnitude, hop_length)
    num_frames, reach = magnitude.shape[1], (num_iterations + 1) * (2 * (magnitude.shape[-1] - 1) // hop_length)
    around = torch.arange(-reach, num_frames + reach, device=magnitude.device) % num_frames
    waveform = _griffin_lim(magnitude[:, around], phase[:, around], hop_length, num_iterations, momentum)
    return waveform[:, reach * hop_length : (reach + num_frames) * hop_length]


def with_last(items: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """Each item, and whether it is the last."""
    iterator = iter(items)
    item = next(iterator, None)
    while item is not None:
        following = next(iterator, None)
        yield item, following is None
        item = following


def _griffin_lim(magnitude: Tensor, phase: Tensor, hop_length: int, num_iterations: int, momentum: float) -> Tensor:
    spectrum = torch.polar(magnitude, phase)
    weights = _overlap_weights(spectrum, hop_length)
    n_fft, previous = 2 * (magnitude.shape[-1] - 1), None
    for _ in range(num_iterations):
        consistent = stft_frames(_overlap_frames(spectrum, hop_length) / weights, n_fft, hop_length)
        ahead = consistent if previous is None else torch.lerp(previous, consistent, 1 + momentum)
        previous = consistent
        real, imaginary = torch.view_as_real(ahead).unbind(-1)  # the magnitude of complex numbers is slow on a CPU
        power = torch.addcmul(real * real, imaginary, imaginary)
        spectrum = magnitude * power.clamp_min(1e-16).rsqrt() * ahead
    return _overlap_frames(spectrum, hop_length) / weights
