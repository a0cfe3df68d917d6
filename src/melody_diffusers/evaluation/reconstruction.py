"""How much of a recording survives the audio VAE-GAN: SI-SDR, log-mel distance and a picture of both.

The third figure of the table, the multi-resolution STFT distance, is the training loss of the same name
(`losses.multi_resolution_stft_loss`). SI-SDR asks for the waveform itself, phase included; the two spectral
distances ask for what is heard. Shapes: B clips, T samples.
"""

import math
from pathlib import Path

import torch

from melody_diffusers.spectra import log_mel_spectrogram


def si_sdr(estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in decibels, higher is better (Le Roux et al. 2019).

    The estimate is split into its projection on the reference and the rest: 10 log10(|projection|^2 / |rest|^2), after
    the means are removed. Scaling the estimate changes nothing; noise at right angles to the reference and as strong
    as it gives 0 dB; an exact copy gives infinity and a silent estimate minus infinity.

    Args:
        estimate, reference: (..., T).

    Returns:
        (...) float64, on the CPU: not every device has float64.
    """
    if estimate.shape != reference.shape:
        raise ValueError(f"shapes differ: estimate {tuple(estimate.shape)}, reference {tuple(reference.shape)}")
    estimate, reference = estimate.cpu().double(), reference.cpu().double()
    estimate = estimate - estimate.mean(dim=-1, keepdim=True)
    reference = reference - reference.mean(dim=-1, keepdim=True)
    energy = reference.square().sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    projection = (estimate * reference).sum(dim=-1, keepdim=True) / energy * reference
    signal = projection.square().sum(dim=-1)
    distortion = (estimate - projection).square().sum(dim=-1)
    # log10 of each power alone: a quotient of two zeros (silence for silence) would be NaN
    ratio = 10 * (torch.log10(signal) - torch.log10(distortion))
    return torch.where(signal == 0, -torch.inf, ratio)


def log_mel_distance(estimate: torch.Tensor, reference: torch.Tensor, *, sample_rate: int = 24000) -> torch.Tensor:
    """Mean absolute difference of 80-band log-mel spectrograms in decibels, lower is better.

    Both are floored at 1e-3, the level of white noise at -57 dB: what nobody hears should not count. A gain of g dB on
    audio that stays above the floor gives exactly g.

    Args:
        estimate, reference: (B, 1, T).

    Returns:
        (B,)
    """
    log_mel_estimate, log_mel_reference = (
        log_mel_spectrogram(x[:, 0], sample_rate=sample_rate, num_mels=80, floor=1e-3) for x in (estimate, reference)
    )  # (B, frames, 80)
    return 20 / math.log(10) * (log_mel_estimate - log_mel_reference).abs().mean(dim=(1, 2))


def plot_spectrogram_pair(
    path: str | Path, reference: torch.Tensor, estimate: torch.Tensor, *, title: str, sample_rate: int = 24000
) -> None:
    """A PNG of the log-mel spectrograms of two clips (1, T), original above, reconstruction below."""
    from matplotlib.figure import Figure  # not pyplot: no global state, works without a display

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for ax, name, waveform in zip(axes, ("original", "reconstruction"), (reference, estimate), strict=True):
        log_mel = log_mel_spectrogram(waveform[0], sample_rate=sample_rate, num_mels=80)  # (frames, 80)
        seconds = waveform.shape[-1] / sample_rate
        ax.imshow(log_mel.T.cpu().numpy(), origin="lower", aspect="auto", extent=(0, seconds, 0, 80), vmin=-9, vmax=3)
        ax.set_ylabel(f"{name}\nmel band")
    axes[1].set_xlabel("seconds")
    figure.suptitle(title)
    figure.savefig(path, dpi=80)
