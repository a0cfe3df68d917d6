"""The paper's head (section 4.3): HiFi-GAN's convolutions at audio rate, strided down and transposed up.

The paper gives rates, channels, kernels and the two parameter counts, and leaves the residual stacks open. Ours:
HiFi-GAN's second kind (one convolution per dilation) with its kernels 3, 7 and 11; dilations 1, 3, 5, 7, 9 in the
encoder and 1, 3, 5 in the decoder; `encoder_channels` are the widths before each strided convolution, which doubles
them, so the last stage is 512 wide; and one further convolution at the narrow end of each side. That makes
40.0 M + 59.7 M parameters.

Shapes: B batch, T samples, L latent frames, D latent width, C channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_SLOPE = 0.1  # of every leaky rectifier
_RECTIFIER_GAIN = math.sqrt(2 / (1 + _SLOPE**2))  # undoes the rectifier's loss of variance


class ResidualStack(nn.Module):
    """HiFi-GAN's multi-receptive-field fusion: the mean of one residual branch per kernel, (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernels: Sequence[int], dilations: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(
                nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)
                for dilation in dilations
            )
            for kernel in kernels
        )
        for conv in (conv for branch in self.branches for conv in branch):
            conv.init_gain = 1 / math.sqrt(len(dilations))  # a branch at most doubles the variance, whatever its depth
        self.context_samples = (max(kernels) - 1) * sum(dilations) // 2  # seen on each side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = 0
        for branch in self.branches:
            y = x
            for conv in branch:
                y = y + conv(F.leaky_relu(y, _SLOPE))
            total = total + y
        return total / len(self.branches)


class StridedConv(nn.Conv1d):
    """Convolution from T samples to exactly T / rate (T a multiple of rate): padded by kernel - rate in all."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int):
        super().__init__(inputs, outputs, kernel, stride=rate)
        self.pad = ((kernel - rate) // 2, (kernel - rate + 1) // 2)
        self.init_gain = _RECTIFIER_GAIN

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, self.pad))  # (B, C', T / rate)


class UpsampleConv(nn.ConvTranspose1d):
    """Transposed convolution from T samples to exactly T * rate: the kernel - rate samples too many are cut off."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int):
        super().__init__(inputs, outputs, kernel, stride=rate)
        self.surplus = (kernel - rate) // 2
        self.init_gain = _RECTIFIER_GAIN

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = x.dtype != torch.bfloat16 or x.device.type != "cpu"
        y = super().forward(x) if plain else self._by_convolution(x)
        return y[..., self.surplus : self.surplus + x.shape[-1] * self.stride[0]]  # (B, C', T * rate)

    def _by_convolution(self, x: torch.Tensor) -> torch.Tensor:
        """The same as a convolution with one output for each channel and phase, which the CPU has in bfloat16."""
        rate = self.stride[0]
        taps = -(-self.kernel_size[0] // rate)
        weight = F.pad(self.weight, (0, taps * rate - self.kernel_size[0])).unflatten(2, (taps, rate)).flip(2)
        weight = weight.permute(3, 1, 0, 2).flatten(0, 1)  # (rate C', C, taps)
        y = F.conv1d(x, weight, self.bias.repeat(rate), padding=taps - 1)  # (B, rate C', T + taps - 1)
        return y.unflatten(1, (rate, -1)).permute(0, 2, 3, 1).flatten(2)  # (B, C', rate (T + taps - 1))


@dataclass(frozen=True, kw_only=True)
class HiFiGANOptions:
    """The paper's head; the defaults are the paper's numbers.

    Args:
        encoder_rates, encoder_channels, encoder_kernels: strided convolutions of the encoder.
        decoder_rates, decoder_channels, decoder_kernels: transposed convolutions of the decoder.
        residual_kernels, encoder_dilations, decoder_dilations: residual stacks.
        encoder_bottleneck_kernel, decoder_bottleneck_kernel: convolutions next to the latents.
    """

    encoder_rates: Sequence[int] = (2, 3, 4, 4)
    encoder_channels: Sequence[int] = (32, 64, 128, 256)
    encoder_kernels: Sequence[int] = (5, 7, 9, 9)
    decoder_rates: Sequence[int] = (4, 4, 3, 2)
    decoder_channels: Sequence[int] = (768, 384, 192, 96)
    decoder_kernels: Sequence[int] = (9, 9, 5, 7)
    residual_kernels: Sequence[int] = (3, 7, 11)
    encoder_dilations: Sequence[int] = (1, 3, 5, 7, 9)
    decoder_dilations: Sequence[int] = (1, 3, 5)
    encoder_bottleneck_kernel: int = 7
    decoder_bottleneck_kernel: int = 3

    def __post_init__(self) -> None:
        down, up = self.encoder_rates, self.decoder_rates
        if math.prod(down) != math.prod(up):
            raise ValueError(f"encoder_rates {down} and decoder_rates {up} have different products")

    @property
    def hop_samples(self) -> int:
        return math.prod(self.encoder_rates)


class HiFiGANEncoder(nn.Module):
    """Waveform (B, 1, T) -> means and log-variances (B, L, 2D)."""

    def __init__(self, options: HiFiGANOptions, latent_dim: int):
        super().__init__()
        widths = [*options.encoder_channels, 2 * options.encoder_channels[-1]]
        self.first = nn.Conv1d(1, widths[0], 7, padding=3)
        self.downsamplers, self.stacks = nn.ModuleList(), nn.ModuleList()
        context, samples_per_step = 3, 1
        for index, (rate, kernel) in enumerate(zip(options.encoder_rates, options.encoder_kernels, strict=True)):
            self.downsamplers.append(StridedConv(widths[index], widths[index + 1], kernel, rate))
            self.stacks.append(ResidualStack(widths[index + 1], options.residual_kernels, options.encoder_dilations))
            context += kernel * samples_per_step
            samples_per_step *= rate
            context += self.stacks[-1].context_samples * samples_per_step
        kernel = options.encoder_bottleneck_kernel
        self.bottleneck = nn.Conv1d(widths[-1], widths[-1], kernel, padding=kernel // 2)
        self.last = nn.Conv1d(widths[-1], 2 * latent_dim, 1)
        self.context_frames = -(-context // samples_per_step) + kernel // 2

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        x = self.first(waveform)  # (B, C, T)
        for downsample, stack in zip(self.downsamplers, self.stacks, strict=True):
            x = stack(downsample(F.leaky_relu(x, _SLOPE)))  # (B, C', T / rate)
        x = self.bottleneck(F.leaky_relu(x, _SLOPE))
        return self.last(F.leaky_relu(x, _SLOPE)).transpose(1, 2)  # (B, L, 2D)


class HiFiGANDecoder(nn.Module):
    """Latents (B, L, D) -> waveform (B, 1, L * hop), within [-1, 1]."""

    def __init__(self, options: HiFiGANOptions, latent_dim: int):
        super().__init__()
        widths = [options.decoder_channels[0], *options.decoder_channels]
        kernel = options.decoder_bottleneck_kernel
        self.first = nn.Conv1d(latent_dim, widths[0], 7, padding=3)
        self.bottleneck = nn.Conv1d(widths[0], widths[0], kernel, padding=kernel // 2)
        self.upsamplers, self.stacks = nn.ModuleList(), nn.ModuleList()
        context, frames_per_step = 3.0 + kernel // 2, 1.0
        for index, (rate, kernel) in enumerate(zip(options.decoder_rates, options.decoder_kernels, strict=True)):
            self.upsamplers.append(UpsampleConv(widths[index], widths[index + 1], kernel, rate))
            self.stacks.append(ResidualStack(widths[index + 1], options.residual_kernels, options.decoder_dilations))
            context += -(-kernel // rate) * frames_per_step
            frames_per_step /= rate
            context += self.stacks[-1].context_samples * frames_per_step
        self.last = nn.Conv1d(widths[-1], 1, 7, padding=3)
        self.context_frames = math.ceil(context + 3 * frames_per_step)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.bottleneck(F.leaky_relu(self.first(latents.transpose(1, 2)), _SLOPE))  # (B, C, L)
        for upsample, stack in zip(self.upsamplers, self.stacks, strict=True):
            x = stack(upsample(F.leaky_relu(x, _SLOPE)))  # (B, C', rate * T')
        return torch.tanh(self.last(F.leaky_relu(x, _SLOPE)))  # (B, 1, L * hop)
