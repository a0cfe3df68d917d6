"""The encoders and decoders of `AudioVAEGAN`. Each head is one file and one line of `HEADS`.

A head is a dataclass whose fields are its options. They have defaults and names that no other head uses for something
else: they stand among the arguments of `AudioVAEGANConfig` and in config.json. It has

- `hop_samples`, samples per latent frame;
- `block`, the module of which neither encoder nor decoder may be split over devices;
- `encoder(latent_dim)`, a module that takes a waveform (B, 1, T), T a multiple of the hop, to the means and
  log-variances of latents (B, L, 2D);
- `decoder(latent_dim)`, a module that takes latents (B, L, D) to the waveform (B, 1, T).

Both modules say in `context_frames` how many latent frames to either side a frame depends on: tiles overlap by these.
A head may leave phases out of the latents. Its decoder then makes magnitudes (B, F, N), N a multiple of L, and has a
method `waveform(magnitude, tile_frames)` that finds the phases, for the whole at once; its encoder has a method
`magnitude`, a waveform (B, 1, T) to the magnitudes (B, N, F) that the decoder is trained to make.
"""

from typing import Any

from .hifigan import HiFiGAN
from .istft import ISTFT
from .magnitude import Magnitude

HEADS: dict[str, Any] = {"hifigan": HiFiGAN, "istft": ISTFT, "magnitude": Magnitude}
"""Value of `AudioVAEGANConfig.head` -> the head."""
