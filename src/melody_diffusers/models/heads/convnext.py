"""The backbone of the heads that work at the frame rate: ConvNeXt blocks.

Shapes: B batch, L latent frames, C channels.
"""

import math

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
