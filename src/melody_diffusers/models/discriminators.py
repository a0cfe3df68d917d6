"""The two families of discriminators of the audio VAE-GAN's training (section 4); none is needed afterwards.

Multi-period (HiFi-GAN, Kong et al. 2020): the waveform folded into rows of p samples, for five prime periods p, hears
periodic structure. Multi-resolution (UnivNet, Jang et al. 2021): magnitude spectrograms at several resolutions hear
texture. Constructor defaults are the widths of those papers; a run on a CPU affords much narrower ones.

Shapes: B batch, T samples, C channels, F frequency bins, N frames.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ..spectra import reflected, stft, stft_magnitude

# One entry per sub-discriminator: its logits (B, positions), and the activations of its layers.
DiscriminatorOutput = list[tuple[torch.Tensor, list[torch.Tensor]]]


def _judge(x: torch.Tensor, layers: nn.ModuleList, last: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits (B, positions) and the activations of every layer, the logits' own map included."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), 0.1)  # the slope of HiFi-GAN
        features.append(x)
    x = last(x)
    features.append(x)
    return x.flatten(1), features


class PeriodDiscriminator(nn.Module):
    """Judges a waveform folded into rows of `period` samples, with convolutions along the columns only."""

    def __init__(self, period: int, channels: Sequence[int]):
        super().__init__()
        self.period = period
        layers = []
        for index, (inputs, outputs) in enumerate(zip((1, *channels[:-1]), channels, strict=True)):
            stride = 3 if index < len(channels) - 1 else 1
            layers.append(weight_norm(nn.Conv2d(inputs, outputs, (5, 1), (stride, 1), padding=(2, 0))))
        self.layers = nn.ModuleList(layers)
        self.last = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        missing = -waveform.shape[-1] % self.period
        folded = rearrange(reflected(waveform, 0, missing), "b 1 (n p) -> b 1 n p", p=self.period)  # (B, 1, T/p, p)
        return _judge(folded, self.layers, self.last)


class MultiPeriodDiscriminator(nn.Module):
    """One `PeriodDiscriminator` per period: waveform (B, 1, T) -> a (logits, features) pair for each."""

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        channels: Sequence[int] = (32, 128, 512, 1024, 1024),
    ):
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(period, channels) for period in periods)

    def forward(self, waveform: torch.Tensor) -> DiscriminatorOutput:
        return [discriminator(waveform) for discriminator in self.discriminators]


class SpectrogramDiscriminator(nn.Module):
    """Judges one STFT, with strides along frequency only.

    It reads magnitudes (B, 1, F, N) or, if `hears_phase`, real and imaginary parts (B, 2, F, N) as in EnCodec (Defossez
    et al. 2022), with magnitudes raised to the power of 0.3.
    """

    compression = 0.3

    def __init__(
        self,
        fft_size: int,
        hop_size: int,
        window_size: int,
        channels: int,
        num_strided: int,
        hears_phase: bool = False,
    ):
        super().__init__()
        self.fft_size, self.hop_size, self.window_size = fft_size, hop_size, window_size
        self.hears_phase = hears_phase
        layers = [weight_norm(nn.Conv2d(2 if hears_phase else 1, channels, (9, 3), padding=(4, 1)))]
        for _ in range(num_strided):
            layers.append(weight_norm(nn.Conv2d(channels, channels, (9, 3), stride=(2, 1), padding=(4, 1))))
        layers.append(weight_norm(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1))))
        self.layers = nn.ModuleList(layers)
        self.last = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        if self.hears_phase:
            parts = stft(waveform[:, 0], self.fft_size, self.window_size, self.hop_size)  # (B, N, F, 2)
            power = parts.square().sum(-1, keepdim=True) + 1e-6
            parts = parts * power ** (0.5 * self.compression - 0.5)
            x = parts.permute(0, 3, 2, 1)  # (B, 2, F, N)
        else:  # padding makes exact zeros, at which the root has an infinite slope
            magnitude = stft_magnitude(waveform[:, 0], self.fft_size, self.window_size, self.hop_size, eps=3e-5)
            x = magnitude.transpose(1, 2).unsqueeze(1)  # (B, 1, F, N)
        return _judge(x.to(memory_format=torch.channels_last), self.layers, self.last)  # twice as fast on a CPU


class MultiResolutionDiscriminator(nn.Module):
    """One `SpectrogramDiscriminator` per STFT (FFT, hop, window): waveform (B, 1, T) -> (logits, features) each."""

    def __init__(
        self,
        resolutions: Sequence[Sequence[int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        channels: int = 32,
        num_strided: int = 3,
        hears_phase: bool = False,
    ):
        super().__init__()
        self.discriminators = nn.ModuleList(
            SpectrogramDiscriminator(fft_size, hop_size, window_size, channels, num_strided, hears_phase)
            for fft_size, hop_size, window_size in resolutions
        )

    def forward(self, waveform: torch.Tensor) -> DiscriminatorOutput:
        return [discriminator(waveform) for discriminator in self.discriminators]
