"""AudioVAEGAN: waveform <-> latents (section 4 of the paper). The discriminators it is trained against are elsewhere.

`AudioVAEGANConfig.head` chooses the head, the encoder and decoder; each is a file in `heads`. Here is what all of them
have in common: the Gaussian of the latents, their scale and range, tiles, and initial weights.

Shapes: B batch, T samples, L latent frames, D latent width, C channels, F frequency bins, N spectra.
"""

import inspect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
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
from ..spectra import Memory, bin_weights
from .heads import HEADS


def _options(head: str) -> dict[str, Any]:
    """Names and defaults of a head's options."""
    if head not in HEADS:
        raise ValueError(f"head is {head!r}; allowed are {', '.join(map(repr, HEADS))}")
    return {field.name: _plain(field.default) for field in fields(HEADS[head][0])}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class AudioVAEGANConfig(TransformersConfig, PreTrainedConfig):
    """Configuration of `AudioVAEGAN`; the defaults are the paper's numbers.

    Args:
        sample_rate: of the waveform, in Hz.
        latent_dim: D.
        head: a key of `heads.HEADS`; the paper's by default.
        latent_clip, latent_scale: c and s in z = s clip((z_bar - latent_mean) / latent_std, -c, c). The paper's
            clip(z_bar / 3, -1, 1) by default; with a scale of 1 latents keep unit deviation.
        **kwargs: options of the head, which its file in `heads` lists. Those of other heads, which files of earlier
            versions hold, are left out.

    Raises:
        ValueError: there is no such head, or its options do not fit together.
    """

    model_type = "melody_audio_vae_gan"

    def __init__(
        self,
        sample_rate: int = 24000,
        latent_dim: int = 16,
        head: str = "hifigan",
        latent_clip: float = 3.0,
        latent_scale: float = 1 / 3,
        **kwargs,
    ):
        self.sample_rate = sample_rate
        self.latent_dim = latent_dim
        self.head = head
        self.latent_clip = latent_clip
        self.latent_scale = latent_scale
        given = {name: kwargs.pop(name) for each in HEADS for name in _options(each) if name in kwargs}
        for name, default in _options(head).items():
            setattr(self, name, _plain(given.get(name, default)))
        self.hop_samples  # noqa: B018 (refuses options that do not fit together)
        super().__init__(**kwargs)

    @property
    def head_options(self) -> Any:
        """The options of the head, as its own class in `HEADS`."""
        return HEADS[self.head][0](**{name: getattr(self, name) for name in _options(self.head)})

    @property
    def hop_samples(self) -> int:
        """Samples per latent frame."""
        return self.head_options.hop_samples

    @classmethod
    def known_options(cls, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Names and defaults of the arguments that may stand beside `values`; by default, those of every head."""
        parameters = inspect.signature(cls).parameters.values()
        known = {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}
        heads = HEADS if values is None else [values.get("head", known["head"])]
        return known | {name: default for head in heads for name, default in _options(head).items()}


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


@dataclass
class Reconstruction:
    """`sound` (B, 1, T), differentiable with respect to the decoded `magnitude` (B, N, F); how phases go on, `onward`
    (B, N, 4, F); and the `spectrum` of the real waveform, complex (B, N, F)."""

    sound: torch.Tensor
    magnitude: torch.Tensor
    onward: torch.Tensor
    spectrum: torch.Tensor


class AudioVAEGAN(TransformersAutoencoder, PreTrainedModel):
    """Variational autoencoder of audio: `encode` gives latents of `latent_dim` numbers a frame, `decode` the waveform.

    Long audio is worked through in tiles that overlap by what the convolutions can see, with the same result as in one
    piece; `disable_tiling()` takes it at once. `enable_slicing()` takes a batch one item at a time.
    """

    config_class = AudioVAEGANConfig
    base_model_prefix = "vae_gan"
    main_input_name = "waveform"
    _no_split_modules = [side.__name__ for _, *sides in HEADS.values() for side in sides]

    def __init__(self, config: AudioVAEGANConfig):
        super().__init__(config)
        _, encoder, decoder = HEADS[config.head]
        self.encoder: Any = encoder(config.head_options, config.latent_dim)
        self.decoder: Any = decoder(config.head_options, config.latent_dim)
        self.hop_samples: int = config.hop_samples
        """Samples per latent frame."""
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        self.use_slicing = False
        self.use_tiling = True
        self.tile_frames = 1024  # latent frames a tile adds; its context comes on top
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Variance-preserving weights (Kaiming), times `init_gain` where a module names one; biases 0 or `init_bias`.

        The usual deviation of 0.02 would let a signal die out over the many narrow convolutions of a vocoder.
        """
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Linear)):
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
    def has_phase(self) -> bool:
        """False if the decoder makes magnitudes, whose phases are found from one to the next."""
        return not hasattr(self.decoder, "waveform")

    @property
    def estimates_phase(self) -> bool:
        """Whether a decoder of magnitudes also learns how phases go on, so that its sound can be trained on."""
        return hasattr(self.decoder, "phases")

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

    def _whole_frames(self, waveform: torch.Tensor) -> torch.Tensor:
        return F.pad(waveform, (0, -waveform.shape[-1] % self.hop_samples))

    @apply_forward_hook
    def encode(
        self, waveform: torch.Tensor, return_dict: bool = True
    ) -> AudioVAEGANEncoderOutput | tuple[LatentGaussian]:
        """The distribution of the latents of a waveform (B, 1, T), which zeros extend to a whole number of frames."""
        if waveform.ndim != 3 or waveform.shape[1] != 1 or waveform.shape[2] == 0:
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}; wanted is (batch, 1, samples), not empty")
        waveform = self._whole_frames(waveform).to(self.dtype)
        parts = waveform.split(1) if self.use_slicing else [waveform]
        mean, logvar = torch.cat([self._encode(part) for part in parts]).chunk(2, dim=-1)  # (B, L, D) each
        latent_dist = LatentGaussian(mean, logvar, self._normalize)
        return AudioVAEGANEncoderOutput(latent_dist=latent_dist) if return_dict else (latent_dist,)

    @apply_forward_hook
    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> AudioVAEGANDecoderOutput | tuple[torch.Tensor]:
        """The waveform (B, 1, L * hop_samples) of latents (B, L, D).

        Latents outside the range of `encode`, +-latent_scale * latent_clip, are clipped to it first: the decoder has
        never seen others.
        """
        raw = self._raw(latents)
        parts = raw.split(1) if self.use_slicing else [raw]
        sample = torch.cat([self._decode(part) for part in parts])  # (B, 1, L * hop)
        return AudioVAEGANDecoderOutput(sample=sample) if return_dict else (sample,)

    @apply_forward_hook
    def decode_loop(
        self, latents: torch.Tensor, return_dict: bool = True
    ) -> AudioVAEGANDecoderOutput | tuple[torch.Tensor]:
        """`decode` of a loop: the first of its frames (B, L, D) follows the last, and so do the samples.

        The sound does not depend on where the loop was cut open, but for the phases of heads that find their own.
        """
        raw, context = self._raw(latents), self.decoder.context_frames
        around = torch.arange(-context, raw.shape[1] + context, device=raw.device) % raw.shape[1]
        sounds = []
        for part in raw.split(1) if self.use_slicing else [raw]:
            made = torch.cat(list(self._decoded_tiles(part[:, around])), dim=-1)  # (B, C, (L + 2 context) * steps)
            steps = made.shape[-1] // len(around)
            made = made[..., context * steps : (context + raw.shape[1]) * steps]
            sounds.append(made if self.has_phase else self.decoder.loop_waveform(made))
        sample = torch.cat(sounds)  # (B, 1, L * hop)
        return AudioVAEGANDecoderOutput(sample=sample) if return_dict else (sample,)

    @apply_forward_hook
    def decode_next(self, latents: torch.Tensor, memory: Memory | None = None) -> tuple[torch.Tensor, Memory]:
        """`decode` of latents that come part by part and never end.

        Args:
            latents: the next part, (B, L, D).
            memory: the second result for the part before; None at the beginning.

        Returns:
            The sound (B, 1, T) that is known by now. It ends before the part does, by what the decoder has to see
            ahead: `decoder.context_frames`, and some spectra where it makes magnitudes. And what the next call needs,
            as large after each part once two contexts have come.
        """
        memory, raw, context = dict(memory or {}), self._raw(latents), self.decoder.context_frames
        before = memory.pop("raw", raw[:, :0])
        given = max(0, before.shape[1] - context)  # frames that have been decoded
        raw = torch.cat([before, raw], dim=1)
        end = raw.shape[1] - context
        if end <= given:
            return raw.new_empty(len(raw), 1, 0), memory | {"raw": raw}
        made = self.decoder(raw).unflatten(-1, (raw.shape[1], -1))  # (B, C, L, steps)
        sound = made[:, :, given:end].flatten(2)
        if not self.has_phase:
            sound, memory = self.decoder.next_waveform(sound, memory)
        return sound, memory | {"raw": raw[:, max(0, end - context) :]}

    def _raw(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, L, D), checked and clipped, as the decoder takes them."""
        if latents.ndim != 3 or latents.shape[2] != self.latent_dim or latents.shape[1] == 0:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; wanted is (batch, frames, {self.latent_dim}), not empty"
            )
        bound = self.config.latent_scale * self.config.latent_clip
        return self._denormalize(latents.clamp(-bound, bound).to(self.dtype))

    def magnitude_pair(self, waveform: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Magnitudes (B, N, F) that latents (B, L, D) decode to and those of the waveform (B, 1, T): without phase."""
        decoded = self.decoder.split(self.decoder(self._denormalize(latents)))[0]
        return decoded, self.encoder.magnitude(self._whole_frames(waveform))

    def reconstruct(self, waveform: torch.Tensor, latents: torch.Tensor) -> Reconstruction:
        """What a head that estimates phases (`phase_gradient`) makes of latents (B, L, D), step by step, and what it
        should make: that of the waveform (B, 1, T)."""
        whole = self._whole_frames(waveform)
        made = self.decoder(self._denormalize(latents))
        magnitude, onward = self.decoder.split(made)
        (sound,) = self.decoder.waveform([made])
        return Reconstruction(sound[..., : waveform.shape[-1]], magnitude, onward, self.encoder.spectrum(whole))

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
        pieces = self._decoded_tiles(raw)
        if not self.has_phase:
            pieces = self.decoder.waveform(pieces)
        first = next(pieces)  # (B, 1, t)
        total = raw.shape[1] * self.hop_samples
        if first.shape[-1] == total:
            return first
        whole = first.new_empty(*first.shape[:-1], total)  # (B, 1, T), so that no piece is held twice
        end = 0
        for piece in itertools.chain([first], pieces):
            start, end = end, end + piece.shape[-1]
            whole[..., start:end] = piece
        return whole

    def _decoded_tiles(self, raw: torch.Tensor) -> Iterator[torch.Tensor]:
        """What the decoder makes of (B, L, D), tile by tile: (B, C, n * steps) each."""
        for start, end, first, last in self._tiles(raw.shape[1], self.decoder.context_frames):
            piece = self.decoder(raw[:, first:last])  # (B, C, (last - first) * steps)
            steps = piece.shape[-1] // (last - first)
            yield piece[..., (start - first) * steps : (end - first) * steps]

    @torch.no_grad()
    def fit_components(
        self, waveforms: Iterable[torch.Tensor], noise: float = 1.0, corner_hz: float | None = None
    ) -> None:
        """Lets the linear paths of the phase_gradient head be the first D principal components of the log magnitudes
        of waveforms, each scaled to unit deviation; the rest of the network begins at nothing.

        Args:
            waveforms: (B, 1, T) each, of any length.
            noise: variance that the latents' own noise adds, summed over the log magnitudes of a frame, in each
                component.
            corner_hz: count bins by `spectra.bin_weights` of this corner; by default all count the same.
        """
        if not self.estimates_phase:
            raise ValueError(f"the {self.config.head} head has no linear path to fit")
        width, count = self.encoder.first.in_features, 0
        total, moments = (torch.zeros(*shape, dtype=torch.float64) for shape in ((width,), (width, width)))
        weights = torch.ones(width, dtype=torch.float64)
        if corner_hz is not None:
            options = self.config.head_options
            weights = bin_weights(options.num_bins, self.sample_rate, corner_hz).double().sqrt()
            weights = weights.repeat(options.spectra_per_latent)
        for waveform in waveforms:
            features = self.encoder.features(self._whole_frames(waveform)).flatten(0, 1) * weights
            total, moments, count = total + features.sum(0), moments + features.T @ features, count + len(features)
        mean = total / count
        values, vectors = torch.linalg.eigh(moments / count - mean.outer(mean))
        values, vectors = values[-self.latent_dim :].flip(0), vectors[:, -self.latent_dim :].flip(1)  # (D,), (I, D)
        deviation = values.clamp_min(1e-9).sqrt()
        inward, outward = self.encoder.linear, self.decoder.linear
        inward.weight.copy_((weights[:, None] * vectors / deviation).T)
        inward.bias.copy_(-(mean @ vectors) / deviation)
        # a feature is a third of a log magnitude, plus 2
        outward.weight.copy_(3 * vectors * deviation / weights[:, None])
        outward.bias.copy_(3 * (mean / weights - 2))
        for last in (self.encoder.last, self.decoder.last):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.encoder.last.bias[self.latent_dim :] = (noise / 9 / values.clamp_min(1e-9)).log().clamp(max=0.0)

    @torch.no_grad()
    def fit_latent_statistics(
        self, raw_latents: torch.Tensor, deviations: torch.Tensor | None = None, min_std: float = 1e-3
    ) -> float:
        """Sets `latent_mean` and `latent_std` from raw latents (..., D), so that each channel has mean 0.

        Args:
            deviations: of the channels of the scaled latents, (D,), up to a common factor: their mean square will be 1.
                By default each is 1.

        Returns:
            The share of those numbers that `latent_clip` then cuts off.
        """
        flat = raw_latents.reshape(-1, self.latent_dim).float()
        self.latent_mean.copy_(flat.mean(0))
        std = flat.std(0).clamp_min(min_std)
        if deviations is not None:
            std = std * deviations.square().mean().sqrt() / deviations
        self.latent_std.copy_(std)
        scaled = (flat - self.latent_mean) / self.latent_std
        return (scaled.abs() > self.config.latent_clip).float().mean().item()
