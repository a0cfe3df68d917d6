"""The inverse-STFT head: everything learnt happens at the frame rate (Vocos, Siuzdak 2023).

The encoder reads a short-time spectrum. The decoder writes one, magnitude and phase, which an inverse STFT turns into
sound. This is an order of magnitude cheaper than convolutions at audio rate. A linear path runs beside it, from
windowed samples to latents and back: without it a model at 50 frames a second learns no phase for many thousand steps;
with it the bass is a waveform from the first hundred on.

Shapes: B batch, T samples, L latent frames, D latent width, C channels, F frequency bins.
"""

import torch
from torch import nn

from ...spectra import inverse_stft_frames, stft_frames
from .convnext import ConvNeXtOptions, ConvNeXtTrunk


class ISTFTEncoder(ConvNeXtTrunk):
    """Waveform (B, 1, T) -> compressed spectrum -> ConvNeXt blocks at frame rate -> means and log-variances (B, L, 2D).

    A linear map of the spectrum is added to the means.
    """

    compression = 0.3  # magnitudes are raised to this power: partials 60 dB apart come to lie 18 dB apart

    def __init__(self, options: ConvNeXtOptions, latent_dim: int):
        super().__init__(3 * options.num_bins, options.istft_encoder_layers, options)
        self.n_fft, self.hop = options.istft_n_fft, options.istft_hop
        self.last = nn.Linear(options.istft_width, 2 * latent_dim)
        self.linear = nn.Linear(2 * options.num_bins, latent_dim, bias=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        spectrum = torch.view_as_real(stft_frames(waveform[:, 0], self.n_fft, self.hop))  # (B, L, F, 2)
        magnitude = (spectrum.square().sum(-1, keepdim=True) + 1e-10).sqrt()  # (B, L, F, 1)
        compressed = magnitude.pow(self.compression)
        features = torch.cat([compressed, spectrum / magnitude * compressed], dim=-1)  # (B, L, F, 3)
        mean, logvar = self.last(self.trunk(features.flatten(2))).chunk(2, dim=-1)  # (B, L, D) each
        mean = mean + self.linear(spectrum.flatten(2).to(self.linear.weight.dtype))
        return torch.cat([mean, logvar], dim=-1)  # (B, L, 2D)


class ISTFTDecoder(ConvNeXtTrunk):
    """Latents (B, L, D) -> ConvNeXt blocks -> magnitude and phase -> inverse STFT -> waveform (B, 1, L * hop).

    A linear map of the latents is added to the spectrum.
    """

    max_magnitude = 1e2  # as in Vocos: keeps exp() finite early in training

    def __init__(self, options: ConvNeXtOptions, latent_dim: int):
        super().__init__(latent_dim, options.istft_decoder_layers, options)
        self.hop = options.istft_hop
        self.magnitude = nn.Linear(options.istft_width, options.num_bins)
        self.magnitude.init_bias = -4.0  # a start near the level of music, so that no step is lost to loudness
        self.phase = nn.Linear(options.istft_width, 2 * options.num_bins)
        self.linear = nn.Linear(latent_dim, 2 * options.num_bins, bias=False)
        self.linear.init_gain = 0.1  # a start below the level of music

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.trunk(latents)  # (B, L, C)
        magnitude = self.magnitude(x).float().exp().clamp(max=self.max_magnitude)  # (B, L, F)
        direction = self.phase(x).float().unflatten(-1, (2, -1))  # (B, L, 2, F), towards (cos, sin) of the phase
        direction = direction / (1 + direction.square().sum(2, keepdim=True)).sqrt()  # shorter than 1 where in doubt
        cosine, sine = direction.unbind(2)  # (B, L, F) each
        linear = self.linear(latents).float().unflatten(-1, (-1, 2))  # (B, L, F, 2)
        spectrum = torch.complex(magnitude * cosine, magnitude * sine) + torch.view_as_complex(linear)
        return inverse_stft_frames(spectrum, self.hop).unsqueeze(1)  # (B, 1, L * hop)
