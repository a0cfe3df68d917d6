"""What the heads share that work at the frame rate: their options, and a trunk of ConvNeXt blocks.

Shapes: B batch, L latent frames, C channels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over 7 frames, LayerNorm and a GELU layer, added to the input: (B, L, C) -> (B, L, C)."""

    kernel = 7

    def __init__(self, width: int, expansion: int, num_layers: int):
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, self.kernel, padding=self.kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.narrow.init_gain = 1 / math.sqrt(num_layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)  # (B, L, C)
        return x + self.narrow(F.gelu(self.widen(self.norm(y))))


@dataclass(frozen=True, kw_only=True)
class ConvNeXtOptions:
    """Options of a head that works at the frame rate.

    Args:
        istft_hop: samples per latent frame.
        istft_n_fft: length of its Fourier transforms, a multiple of the hop, at least twice as long.
        istft_width, istft_expansion: channels of its ConvNeXt blocks, and how many times wider their middle is.
        istft_encoder_layers, istft_decoder_layers: number of blocks.
    """

    istft_hop: int = 480
    istft_n_fft: int = 1920
    istft_width: int = 256
    istft_expansion: int = 3
    istft_encoder_layers: int = 4
    istft_decoder_layers: int = 6

    def __post_init__(self) -> None:
        hop, n_fft = self.istft_hop, self.istft_n_fft
        if n_fft % hop or n_fft < 2 * hop:
            raise ValueError(f"istft_n_fft is {n_fft}; it has to be 2, 3, 4, ... times istft_hop ({hop})")

    @property
    def hop_samples(self) -> int:
        return self.istft_hop

    @property
    def num_bins(self) -> int:
        """F, frequency bins of a spectrum."""
        return self.istft_n_fft // 2 + 1


class ConvNeXtTrunk(nn.Module):
    """Base of these heads' encoders and decoders: a linear layer and ConvNeXt blocks at the frame rate."""

    def __init__(self, num_inputs: int, num_layers: int, options: ConvNeXtOptions):
        super().__init__()
        width = options.istft_width
        self.first = nn.Linear(num_inputs, width)
        self.first_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, options.istft_expansion, num_layers) for _ in range(num_layers)
        )
        self.last_norm = nn.LayerNorm(width)
        self.context_frames = num_layers * (ConvNeXtBlock.kernel // 2) + -(-options.istft_n_fft // options.istft_hop)

    def trunk(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, L, num_inputs) -> (B, L, C)."""
        x = self.first_norm(self.first(features.to(self.first.weight.dtype)))
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)
