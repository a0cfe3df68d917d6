"""The magnitude head: latents hold no phase, and Griffin-Lim finds one.

Shapes: B batch, T samples, L latent frames, D latent width, C channels, F frequency bins.
"""

import torch
from torch import nn

from ...spectra import stft_frames
from .convnext import ConvNeXtBlock


class MagnitudeEncoder(nn.Module):
    """Waveform (B, 1, T) -> log magnitudes, four to a window -> ConvNeXt blocks -> (B, L, 2D). Hears no phase."""

    floor = 1e-4

    def __init__(self, config):
        super().__init__()
        self.n_fft, self.hop = config.istft_n_fft, config.istft_n_fft // 4
        self.frames_per_latent = config.istft_hop // self.hop
        width, layers = config.istft_width, config.istft_encoder_layers
        self.first = nn.Linear(self.frames_per_latent * (self.n_fft // 2 + 1), width)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, config.istft_expansion, layers) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 2 * config.latent_dim)
        self.context_frames = layers * (ConvNeXtBlock.kernel // 2) + -(-self.n_fft // config.istft_hop)

    def magnitude(self, waveform: torch.Tensor) -> torch.Tensor:
        """(B, 1, T) -> (B, N, F), N = T / (n_fft / 4)."""
        return stft_frames(waveform[:, 0], self.n_fft, self.hop).abs()

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        log = self.magnitude(waveform).clamp_min(self.floor).log() / 3 + 2  # about zero mean, unit deviation
        features = log.unflatten(1, (-1, self.frames_per_latent)).flatten(2)  # (B, L, frames_per_latent F)
        x = self.first_norm(self.first(features.to(self.first.weight.dtype)))
        for block in self.blocks:
            x = block(x)
        return self.last(self.last_norm(x))  # (B, L, 2D)


class MagnitudeDecoder(nn.Module):
    """Latents (B, L, D) -> ConvNeXt blocks -> magnitudes, to which Griffin-Lim finds phases -> (B, 1, L * hop).

    A deterministic network at 50 frames a second can only tell phase if the latents carry it, and then most of a latent
    is phase, which no semantic token foretells. Without it, latents follow from the plan far more closely.
    """

    def __init__(self, config):
        super().__init__()
        self.n_fft, self.hop = config.istft_n_fft, config.istft_n_fft // 4
        self.frames_per_latent = config.istft_hop // self.hop
        self.num_iterations = config.griffin_lim_iterations
        width, layers = config.istft_width, config.istft_decoder_layers
        self.first = nn.Linear(config.latent_dim, width)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, config.istft_expansion, layers) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, self.frames_per_latent * (self.n_fft // 2 + 1))
        self.last.init_bias = -4.0
        self.context_frames = layers * (ConvNeXtBlock.kernel // 2) + -(-self.n_fft // config.istft_hop)

    def magnitude(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, L, D) -> (B, N, F), what the training compares with `MagnitudeEncoder.magnitude`."""
        x = self.first_norm(self.first(latents))
        for block in self.blocks:
            x = block(x)
        log = self.last(self.last_norm(x)).float().clamp(max=5.0)
        return log.unflatten(-1, (self.frames_per_latent, -1)).flatten(1, 2).exp()
