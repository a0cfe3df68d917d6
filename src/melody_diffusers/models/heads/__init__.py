"""The encoders and decoders of `AudioVAEGAN`. Each head is one file and one line of `HEADS`: three classes.

- Options: a dataclass with defaults. Its fields are arguments of `AudioVAEGANConfig` and keys of config.json, so heads
  that share a name mean the same by it. It has `hop_samples`, samples per latent frame.
- Encoder: a module, made of (options, latent_dim), from a waveform (B, 1, T), T a multiple of the hop, to means and
  log-variances (B, L, 2D).
- Decoder: a module, made of the same, from latents (B, L, D) to the waveform (B, 1, T).

Both modules say in `context_frames` how many latent frames to either side a frame depends on: tiles overlap by these.
A head may leave phases out of the latents. Its decoder then makes magnitudes and what else it knows, (B, C, N), N a
multiple of L. A method `split` parts them, magnitudes (B, N, F) first, and a method `waveform(tiles)` finds the phases,
one tile after the other. Its encoder has a method `magnitude`, from a waveform (B, 1, T) to the magnitudes (B, N, F)
that the decoder is trained to make.
"""

from typing import Any

from .convnext import ConvNeXtOptions
from .hifigan import HiFiGANDecoder, HiFiGANEncoder, HiFiGANOptions
from .istft import ISTFTDecoder, ISTFTEncoder
from .magnitude import MagnitudeDecoder, MagnitudeEncoder, MagnitudeOptions
from .phase_gradient import PhaseGradientDecoder, PhaseGradientEncoder, PhaseGradientOptions

HEADS: dict[str, tuple[Any, Any, Any]] = {
    "hifigan": (HiFiGANOptions, HiFiGANEncoder, HiFiGANDecoder),
    "istft": (ConvNeXtOptions, ISTFTEncoder, ISTFTDecoder),
    "magnitude": (MagnitudeOptions, MagnitudeEncoder, MagnitudeDecoder),
    "phase_gradient": (PhaseGradientOptions, PhaseGradientEncoder, PhaseGradientDecoder),
}
"""Value of `AudioVAEGANConfig.head` -> options, encoder, decoder."""
