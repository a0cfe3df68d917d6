"""The inverse-STFT head: everything learnt happens at the frame rate (Vocos, Siuzdak 2023).

Shapes: B batch, T samples, L latent frames, D latent width, C channels, F frequency bins.
"""

import torch
from torch import nn

from ...spectra import inverse_stft_frames, stft_frames
from .convnext import ConvNeXtBlock


class ISTFTEncoder(nn.Module):
    """Waveform (B, 1, T) -> compressed spectrum -> ConvNeXt blocks at frame rate -> means and log-variances (B, L, 2D).

    A linear map of the spectrum is added to the means.
    """

    compression = 0.3  # magnitudes are raised to this power: partials 60 dB apart come to lie 18 dB apart

    def __init__(self, config):
        super().__init__()
        self.n_fft, self.hop = config.istft_n_fft, config.istft_hop
        width, layers = config.istft_width, config.istft_encoder_layers
        self.first = nn.Linear(3 * (self.n_fft // 2 + 1), width)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, config.istft_expansion, layers) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 2 * config.latent_dim)
        self.linear = nn.Linear(2 * (self.n_fft // 2 + 1), config.latent_dim, bias=False)
        self.context_frames = layers * (ConvNeXtBlock.kernel // 2) + self.n_fft // self.hop

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_real(stft_frames(waveform[:, 0], self.n_fft, self.hop))  # (B, L, F, 2)
        magnitude = (spectrum.square().sum(-1, keepdim=True) + 1e-10).sqrt()
        compressed = magnitude.pow(self.compression)
        features = torch.cat([compressed, spectrum / magnitude * compressed], dim=-1)  # (B, L, F, 3)
        x = self.first_norm(self.first(features.flatten(2).to(self.first.weight.dtype)))  # (B, L, C)
        for block in self.blocks:
            x = block(x)
        mean, logvar = self.last(self.last_norm(x)).chunk(2, dim=-1)
        mean = mean + self.linear(spectrum.flatten(2).to(self.linear.weight.dtype))
        return torch.cat([mean, logvar], dim=-1)  # (B, L, 2D)


class ISTFTDecoder(nn.Module):
    """Latents (B, L, D) -> ConvNeXt blocks -> magnitude and phase -> inverse STFT -> waveform (B, 1, L * hop).

    A linear map of the latents is added to the spectrum.
    """

    max_magnitude = 1e2  # as in Vocos: keeps exp() finite early in training

    def __init__(self, config):
        super().__init__()
        self.n_fft, self.hop = config.istft_n_fft, config.istft_hop
        width, layers = config.istft_width, config.istft_decoder_layers
        self.first = nn.Linear(config.latent_dim, width)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, config.istft_expansion, layers) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)
        self.magnitude = nn.Linear(width, self.n_fft // 2 + 1)
        self.magnitude.init_bias = -4.0  # a start near the level of music, so that no step is lost to loudness
        self.phase = nn.Linear(width, 2 * (self.n_fft // 2 + 1))
        self.linear = nn.Linear(config.latent_dim, 2 * (self.n_fft // 2 + 1), bias=False)
        self.linear.init_gain = 0.1  # a start below the level of music
        self.context_frames = layers * (ConvNeXtBlock.kernel // 2) + self.n_fft // self.hop

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.first_norm(self.first(latents))  # (B, L, C)
        for block in self.blocks:
            x = block(x)
        x = self.last_norm(x)
        magnitude = self.magnitude(x).float().exp().clamp(max=self.max_magnitude)  # (B, L, F)
        direction = self.phase(x).float().unflatten(-1, (2, -1))  # (B, L, 2, F), towards (cos, sin) of the phase
        direction = direction / (1 + direction.square().sum(2, keepdim=True)).sqrt()  # shorter than 1 where in doubt
        cosine, sine = direction.unbind(2)
        linear = self.linear(latents).float().unflatten(-1, (-1, 2))  # (B, L, F, 2)
        spectrum = torch.complex(magnitude * cosine, magnitude * sine) + torch.view_as_complex(linear)
        return inverse_stft_frames(spectrum, self.hop).unsqueeze(1)  # (B, 1, L * hop)
