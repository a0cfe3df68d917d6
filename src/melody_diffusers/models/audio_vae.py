"""AudioVAEGAN: waveform <-> latents (section 4 of the paper). The discriminators it is trained against are elsewhere.

Three heads, chosen by `AudioVAEGANConfig.head`:

- `"hifigan"`, the paper's: strided convolutions and residual stacks down, transposed convolutions and residual stacks
  up, all at audio rate. 40.0 M + 60.1 M parameters, hop 96.
- `"istft"`: everything learnt happens at the frame rate. The encoder reads a short-time spectrum and the decoder writes
  one, magnitude and phase, which an inverse STFT turns into sound (Vocos, Siuzdak 2023). An order of magnitude cheaper.
  Beside it runs a linear path, from windowed samples to latents and back: without it a frame rate of 50 Hz learns no
  phase for many thousand steps, with it the bass is a waveform from the first hundred on.
- `"magnitude"`: as before, but latents hold no phase; the decoder writes magnitudes and Griffin-Lim finds phases.

Shapes: B batch, T samples, L latent frames, D latent width, C channels, F frequency bins.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from ..hf.bases import TransformersAutoencoder, TransformersConfig
from ..spectra import griffin_lim
from .heads.hifigan import HiFiGANDecoder, HiFiGANEncoder
from .heads.istft import ISTFTDecoder, ISTFTEncoder
from .heads.magnitude import MagnitudeDecoder, MagnitudeEncoder

HEADS = ("hifigan", "istft", "magnitude")


class AudioVAEGANConfig(TransformersConfig, PreTrainedConfig):
    """Configuration of `AudioVAEGAN`; the defaults are the paper's numbers.

    The paper gives rates, channels, kernels and the two parameter counts, and leaves the residual stacks open. Ours:
    HiFi-GAN's second kind (one convolution per dilation) with its kernels 3, 7 and 11; dilations 1, 3, 5, 7, 9 in the
    encoder and 1, 3, 5 in the decoder; `encoder_channels` are the widths before each strided convolution, which doubles
    them, so the last stage is 512 wide; and one further convolution at the narrow end of each side. That makes
    40.0 M + 59.7 M.

    Args:
        sample_rate: of the waveform, in Hz.
        latent_dim: D.
        head: `"hifigan"`, `"istft"` or `"magnitude"`; the last two share their arguments, and those of others are
            ignored.
        latent_clip, latent_scale: c and s in z = s clip((z_bar - latent_mean) / latent_std, -c, c). The paper's
            clip(z_bar / 3, -1, 1) by default; with a scale of 1 latents keep unit deviation.
        encoder_rates, encoder_channels, encoder_kernels: strided convolutions of the HiFi-GAN encoder.
        decoder_rates, decoder_channels, decoder_kernels: transposed convolutions of the HiFi-GAN decoder.
        residual_kernels, encoder_dilations, decoder_dilations: its residual stacks.
        encoder_bottleneck_kernel, decoder_bottleneck_kernel: its convolutions next to the latents.
        istft_hop: samples per latent frame of the inverse-STFT head.
        istft_n_fft: length of its Fourier transforms, a multiple of the hop, at least twice as long.
        istft_width, istft_expansion: channels of its ConvNeXt blocks, and how many times wider their middle is.
        istft_encoder_layers, istft_decoder_layers: number of blocks.
        griffin_lim_iterations: of the magnitude head.
    """

    model_type = "melody_audio_vae_gan"

    def __init__(
        self,
        sample_rate: int = 24000,
        latent_dim: int = 16,
        head: str = "hifigan",
        latent_clip: float = 3.0,
        latent_scale: float = 1 / 3,
        encoder_rates: Sequence[int] = (2, 3, 4, 4),
        encoder_channels: Sequence[int] = (32, 64, 128, 256),
        encoder_kernels: Sequence[int] = (5, 7, 9, 9),
        decoder_rates: Sequence[int] = (4, 4, 3, 2),
        decoder_channels: Sequence[int] = (768, 384, 192, 96),
        decoder_kernels: Sequence[int] = (9, 9, 5, 7),
        residual_kernels: Sequence[int] = (3, 7, 11),
        encoder_dilations: Sequence[int] = (1, 3, 5, 7, 9),
        decoder_dilations: Sequence[int] = (1, 3, 5),
        encoder_bottleneck_kernel: int = 7,
        decoder_bottleneck_kernel: int = 3,
        istft_hop: int = 480,
        istft_n_fft: int = 1920,
        istft_width: int = 256,
        istft_expansion: int = 3,
        istft_encoder_layers: int = 4,
        istft_decoder_layers: int = 6,
        griffin_lim_iterations: int = 16,
        **kwargs,
    ):
        if head not in HEADS:
            raise ValueError(f"head is {head!r}; allowed are {', '.join(map(repr, HEADS))}")
        if math.prod(encoder_rates) != math.prod(decoder_rates):
            raise ValueError(f"encoder_rates {encoder_rates} and decoder_rates {decoder_rates} have different products")
        if istft_n_fft % istft_hop or istft_n_fft < 2 * istft_hop:
            raise ValueError(f"istft_n_fft is {istft_n_fft}; it has to be 2, 3, 4, ... times istft_hop ({istft_hop})")
        self.sample_rate = sample_rate
        self.latent_dim = latent_dim
        self.head = head
        self.latent_clip = latent_clip
        self.latent_scale = latent_scale
        self.encoder_rates = list(encoder_rates)
        self.encoder_channels = list(encoder_channels)
        self.encoder_kernels = list(encoder_kernels)
        self.decoder_rates = list(decoder_rates)
        self.decoder_channels = list(decoder_channels)
        self.decoder_kernels = list(decoder_kernels)
        self.residual_kernels = list(residual_kernels)
        self.encoder_dilations = list(encoder_dilations)
        self.decoder_dilations = list(decoder_dilations)
        self.encoder_bottleneck_kernel = encoder_bottleneck_kernel
        self.decoder_bottleneck_kernel = decoder_bottleneck_kernel
        self.istft_hop = istft_hop
        self.istft_n_fft = istft_n_fft
        self.istft_width = istft_width
        self.istft_expansion = istft_expansion
        self.istft_encoder_layers = istft_encoder_layers
        self.istft_decoder_layers = istft_decoder_layers
        self.griffin_lim_iterations = griffin_lim_iterations
        super().__init__(**kwargs)

    @property
    def hop_samples(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.encoder_rates) if self.head == "hifigan" else self.istft_hop


class LatentGaussian:
    """The encoder's answer: a diagonal Gaussian of raw latents z_bar, and the map from those to latents z.

    Args:
        mean, logvar: of z_bar, (B, L, D).
        normalize: z = latent_scale * clip((z_bar - latent_mean) / latent_std, -latent_clip, latent_clip).
    """

    def __init__(self, mean: torch.Tensor, logvar: torch.Tensor, normalize):
        self.mean = mean
        self.logvar = logvar.clamp(-20.0, 10.0)
        self._normalize = normalize

    def raw_sample(self, generator: torch.Generator | list[torch.Generator] | None = None) -> torch.Tensor:
        """z_bar ~ N(mu, sigma), neither scaled nor clipped. Noise is drawn on the generator's device, then moved."""
        noise = randn_tensor(self.mean.shape, generator, self.mean.device, torch.float32)
        return self.mean + (0.5 * self.logvar).exp() * noise.to(self.mean)

    def sample(self, generator: torch.Generator | list[torch.Generator] | None = None) -> torch.Tensor:
        """Latents z of a draw, (B, L, D)."""
        return self._normalize(self.raw_sample(generator))

    def mode(self) -> torch.Tensor:
        """Latents z of the mean, (B, L, D)."""
        return self._normalize(self.mean)

    def kl(self) -> torch.Tensor:
        """KL(N(mu, sigma) || N(0, I)) of the raw latents, averaged over every number: a scalar."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


@dataclass
class AudioVAEGANEncoderOutput(BaseOutput):
    """`latent_dist`: a `LatentGaussian`; its `sample()` and `mode()` give latents (B, L, D)."""

    latent_dist: LatentGaussian


@dataclass
class AudioVAEGANDecoderOutput(BaseOutput):
    """`sample`: the waveform, (B, 1, L * hop_samples)."""

    sample: torch.Tensor


class AudioVAEGAN(TransformersAutoencoder, PreTrainedModel):
    """Variational autoencoder of audio: `encode` gives latents of `latent_dim` numbers a frame, `decode` the waveform.

    Long audio: `enable_tiling()` works through it in windows that overlap by what the convolutions can see, with the
    same result as in one piece; `enable_slicing()` takes a batch one item at a time.
    """

    config_class = AudioVAEGANConfig
    base_model_prefix = "vae_gan"
    main_input_name = "waveform"
    _no_split_modules = ["ResidualStack", "ConvNeXtBlock"]

    def __init__(self, config: AudioVAEGANConfig):
        super().__init__(config)
        encoders = {"hifigan": HiFiGANEncoder, "istft": ISTFTEncoder, "magnitude": MagnitudeEncoder}
        decoders = {"hifigan": HiFiGANDecoder, "istft": ISTFTDecoder, "magnitude": MagnitudeDecoder}
        self.encoder: Any = encoders[config.head](config)
        self.decoder: Any = decoders[config.head](config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        self.use_slicing = False
        self.use_tiling = False
        self.tile_frames = 1024  # latent frames a tile adds; its context comes on top
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Variance-preserving weights (Kaiming), times `init_gain` where a module names one; biases 0 or `init_bias`.

        The usual deviation of 0.02 would let a signal die out over the many narrow convolutions of a vocoder.
        """
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)):
            if isinstance(module, nn.ConvTranspose1d):  # each output sees kernel / stride taps
                fan_in = module.in_channels * module.kernel_size[0] / module.stride[0]
            else:
                fan_in = module.weight[0].numel()
            init.normal_(module.weight, 0.0, getattr(module, "init_gain", 1.0) / math.sqrt(fan_in))
            if module.bias is not None:
                init.constant_(module.bias, getattr(module, "init_bias", 0.0))
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif module is self:
            init.zeros_(self.latent_mean)
            init.ones_(self.latent_std)

    def get_input_embeddings(self) -> None:
        """None: no input is a token id. transformers asks, for example before it quantizes a layer."""

    @property
    def hop_samples(self) -> int:
        """Samples per latent frame."""
        return self.config.hop_samples

    @property
    def latent_dim(self) -> int:
        """D, numbers per latent frame."""
        return self.config.latent_dim

    @property
    def sample_rate(self) -> int:
        """Of waveforms, in Hz."""
        return self.config.sample_rate

    def _normalize(self, raw: torch.Tensor) -> torch.Tensor:
        clip = self.config.latent_clip
        return self.config.latent_scale * ((raw - self.latent_mean) / self.latent_std).clamp(-clip, clip)

    def _denormalize(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / self.config.latent_scale * self.latent_std + self.latent_mean

    @apply_forward_hook
    def encode(
        self, waveform: torch.Tensor, return_dict: bool = True
    ) -> AudioVAEGANEncoderOutput | tuple[LatentGaussian]:
        """The distribution of the latents of a waveform (B, 1, T), which zeros extend to a whole number of frames."""
        if waveform.ndim != 3 or waveform.shape[1] != 1 or waveform.shape[2] == 0:
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}; wanted is (batch, 1, samples), not empty")
        waveform = F.pad(waveform, (0, -waveform.shape[-1] % self.hop_samples)).to(self.dtype)
        parts = waveform.split(1) if self.use_slicing else [waveform]
        mean, logvar = torch.cat([self._encode(part) for part in parts]).chunk(2, dim=-1)  # (B, L, D) each
        latent_dist = LatentGaussian(mean, logvar, self._normalize)
        return AudioVAEGANEncoderOutput(latent_dist=latent_dist) if return_dict else (latent_dist,)

    @apply_forward_hook
    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> AudioVAEGANDecoderOutput | tuple[torch.Tensor]:
        """The waveform (B, 1, L * hop_samples) of latents (B, L, D)."""
        if latents.ndim != 3 or latents.shape[2] != self.latent_dim or latents.shape[1] == 0:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; wanted is (batch, frames, {self.latent_dim}), not empty"
            )
        raw = self._denormalize(latents.to(self.dtype))
        parts = raw.split(1) if self.use_slicing else [raw]
        sample = torch.cat([self._decode(part) for part in parts])  # (B, 1, L * hop)
        return AudioVAEGANDecoderOutput(sample=sample) if return_dict else (sample,)

    def magnitude_pair(self, waveform: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Magnitudes (B, N, F) that latents (B, L, D) decode to and those of the waveform; the magnitude head only."""
        return self.decoder.magnitude(self._denormalize(latents)), self.encoder.magnitude(waveform)

    def forward(
        self, waveform: torch.Tensor, sample_posterior: bool = False, generator: torch.Generator | None = None
    ) -> AudioVAEGANDecoderOutput:
        """Reconstruction of a waveform (B, 1, T), as long as the input."""
        latent_dist = self.encode(waveform).latent_dist
        latents = latent_dist.sample(generator) if sample_posterior else latent_dist.mode()
        return AudioVAEGANDecoderOutput(sample=self.decode(latents).sample[..., : waveform.shape[-1]])

    def _tiles(self, num_frames: int, context: int) -> list[tuple[int, int, int, int]]:
        """(start, end) of what each tile adds and (first, last) of what it reads, in frames."""
        if not self.use_tiling or num_frames <= self.tile_frames:
            return [(0, num_frames, 0, num_frames)]
        starts = range(0, num_frames, self.tile_frames)
        spans = [(start, min(start + self.tile_frames, num_frames)) for start in starts]
        return [(start, end, max(0, start - context), min(num_frames, end + context)) for start, end in spans]

    def _encode(self, waveform: torch.Tensor) -> torch.Tensor:
        hop = self.hop_samples
        pieces = []
        for start, end, first, last in self._tiles(waveform.shape[-1] // hop, self.encoder.context_frames):
            moments = self.encoder(waveform[..., first * hop : last * hop])  # (B, last - first, 2D)
            pieces.append(moments[:, start - first : end - first])
        return torch.cat(pieces, dim=1)

    def _decode(self, raw: torch.Tensor) -> torch.Tensor:
        if self.config.head != "magnitude":
            return self._decode_tiles(self.decoder, raw, self.hop_samples)
        # the phase is found after all magnitudes are there: in a tile alone it would be another
        steps = self.decoder.frames_per_latent
        tile = self.tile_frames * steps if self.use_tiling else None
        magnitude = self._decode_tiles(lambda part: self.decoder.magnitude(part).transpose(1, 2), raw, steps)
        return griffin_lim(
            magnitude.transpose(1, 2), self.decoder.hop, self.decoder.num_iterations, tile_frames=tile
        ).unsqueeze(1)

    def _decode_tiles(
        self, decode: Callable[[torch.Tensor], torch.Tensor], raw: torch.Tensor, scale: int
    ) -> torch.Tensor:
        """What `decode`, (B, l, D) -> (B, ..., l * scale), makes of raw latents (B, L, D), tile by tile."""
        pieces = []
        for start, end, first, last in self._tiles(raw.shape[1], self.decoder.context_frames):
            pieces.append(decode(raw[:, first:last])[..., (start - first) * scale : (end - first) * scale])
        return torch.cat(pieces, dim=-1)

    @torch.no_grad()
    def fit_latent_statistics(self, raw_latents: torch.Tensor, min_std: float = 1e-3) -> float:
        """Sets `latent_mean` and `latent_std` from raw latents (..., D), so that each channel has mean 0, deviation 1.

        Returns:
            The share of those numbers that `latent_clip` then cuts off.
        """
        flat = raw_latents.reshape(-1, self.latent_dim).double()
        self.latent_mean.copy_(flat.mean(0))
        self.latent_std.copy_(flat.std(0).clamp_min(min_std))
        deviations = (flat - self.latent_mean.double()) / self.latent_std.double()
        return (deviations.abs() > self.config.latent_clip).double().mean().item()
