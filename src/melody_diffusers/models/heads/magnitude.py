"""The magnitude head: latents hold no phase, and Griffin-Lim finds one.

A deterministic network at 50 frames a second can only tell phase if the latents carry it, and then most of a latent is
phase, which no semantic token foretells. Without it, latents follow from the plan far more closely.

Shapes: B batch, T samples, L latent frames, D latent width, C channels, F frequency bins, N spectra (a quarter window
apart).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ...spectra import Memory, griffin_lim_loop, griffin_lim_next, stft_frames, with_last
from .convnext import ConvNeXtOptions, ConvNeXtTrunk


@dataclass(frozen=True, kw_only=True)
class SpectraOptions(ConvNeXtOptions):
    """Options of a head whose latents hold no phase, those of `ConvNeXtOptions`: a latent frame holds one spectrum or
    more, a quarter window apart."""

    def __post_init__(self) -> None:
        if self.istft_n_fft % 4 or self.istft_hop % self.spectrum_hop:
            raise ValueError(
                f"istft_n_fft is {self.istft_n_fft}; a quarter of it has to go into istft_hop ({self.istft_hop}) a "
                "whole number of times, since a latent frame holds that many spectra, a quarter window apart"
            )

    @property
    def spectrum_hop(self) -> int:
        """Samples from one spectrum to the next: a quarter of the window."""
        return self.istft_n_fft // 4

    @property
    def spectra_per_latent(self) -> int:
        return self.istft_hop // self.spectrum_hop


@dataclass(frozen=True, kw_only=True)
class MagnitudeOptions(SpectraOptions):
    """The magnitude head; see `ConvNeXtOptions` for its other options.

    Args:
        griffin_lim_iterations: how often Griffin-Lim betters the phases.
    """

    griffin_lim_iterations: int = 16


class MagnitudeEncoder(ConvNeXtTrunk):
    """Waveform (B, 1, T) -> log magnitudes, four to a window -> ConvNeXt blocks -> (B, L, 2D). Hears no phase."""

    floor = 1e-4

    def __init__(self, options: SpectraOptions, latent_dim: int):
        super().__init__(options.spectra_per_latent * options.num_bins, options.istft_encoder_layers, options)
        self.n_fft, self.hop, self.spectra_per_latent = (
            options.istft_n_fft,
            options.spectrum_hop,
            options.spectra_per_latent,
        )
        self.last = nn.Linear(options.istft_width, 2 * latent_dim)

    def spectrum(self, waveform: torch.Tensor) -> torch.Tensor:
        """(B, 1, T) -> complex (B, N, F)."""
        return stft_frames(waveform[:, 0], self.n_fft, self.hop)

    def magnitude(self, waveform: torch.Tensor) -> torch.Tensor:
        """(B, 1, T) -> (B, N, F)."""
        return self.spectrum(waveform).abs()

    def features(self, waveform: torch.Tensor) -> torch.Tensor:
        """(B, 1, T) -> (B, L, N / L * F)."""
        log = self.magnitude(waveform).clamp_min(self.floor).log() / 3 + 2  # about zero mean, unit deviation
        return log.unflatten(1, (-1, self.spectra_per_latent)).flatten(2)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.last(self.trunk(self.features(waveform)))  # (B, L, 2D)


class SpectraDecoder(ConvNeXtTrunk):
    """Latents (B, L, D) -> ConvNeXt blocks -> magnitudes (B, F, N)."""

    def __init__(self, options: SpectraOptions, latent_dim: int):
        super().__init__(latent_dim, options.istft_decoder_layers, options)
        self.hop, self.spectra_per_latent = options.spectrum_hop, options.spectra_per_latent
        self.last = nn.Linear(options.istft_width, options.spectra_per_latent * options.num_bins)
        self.last.init_bias = -4.0  # a start near the level of music

    def log_magnitude(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, L, D) -> (B, L, N / L * F)."""
        return self.last(self.trunk(latents))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        log = self.log_magnitude(latents).float().clamp(max=5.0)  # (B, L, N / L * F)
        return log.unflatten(-1, (self.spectra_per_latent, -1)).flatten(1, 2).exp().transpose(1, 2)  # (B, F, N)

    def waveform(self, tiles: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Tiles of what the decoder makes, (B, C, n), in order -> pieces (B, 1, t) of the waveform."""
        memory: Memory = {}
        for tile, is_last in with_last(tiles):
            piece, memory = self.next_waveform(tile, memory, is_last)
            if piece.shape[-1]:
                yield piece

    def next_waveform(self, tile: torch.Tensor, memory: Memory, is_last: bool = False) -> tuple[torch.Tensor, Memory]:
        """The piece (B, 1, t) that one tile more lets be known, which ends some frames before it unless it is the last,
        and what the next one needs; {} before the first."""
        raise NotImplementedError

    def loop_waveform(self, made: torch.Tensor) -> torch.Tensor:
        """What the decoder makes of a loop, (B, C, N), -> the waveform (B, 1, T), whose end runs into its beginning."""
        raise NotImplementedError


class MagnitudeDecoder(SpectraDecoder):
    """`SpectraDecoder`; `waveform` finds phases by Griffin-Lim."""

    def __init__(self, options: MagnitudeOptions, latent_dim: int):
        super().__init__(options, latent_dim)
        self.num_iterations = options.griffin_lim_iterations

    def split(self, made: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Of (B, F, N), the magnitudes (B, N, F); nothing is known of phases."""
        return made.transpose(1, 2), None

    def next_waveform(self, tile: torch.Tensor, memory: Memory, is_last: bool = False) -> tuple[torch.Tensor, Memory]:
        piece, memory = griffin_lim_next(tile.transpose(1, 2), memory, is_last, self.hop, self.num_iterations)
        return piece.unsqueeze(1), memory

    def loop_waveform(self, made: torch.Tensor) -> torch.Tensor:
        magnitude = made.transpose(1, 2).float()
        return griffin_lim_loop(magnitude, self.hop, num_iterations=self.num_iterations).unsqueeze(1)
