"""The semantic tokenizer: waveform to 25 tokens a second (paper, section 3 and appendix).

A Wav2Vec2-Conformer, trained on music without labels, hears the waveform; the output of one of its middle layers is
standardised, and the index of the nearest of 1024 k-means centroids is the token.

Shapes: B batch, T samples, S semantic tokens (S = ceil(T / 960)), H width of the encoder, C centroids.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..hf.bases import TransformersConfig, TransformersModel
from ..hf.upstream import forget_rotary_table
from ..spectra import SPECTRAL_FRAME_SIZE, spectral_frames
from .clustering import nearest

# 199.5 M parameters at 25 Hz. The paper gives the count and the rate; width, depth and strides are our choice.
PAPER_ENCODER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 14,
    "num_attention_heads": 12,
    "position_embeddings_type": "rotary",
    # The product of the strides is 960 samples, one token. "layer" normalises each frame by itself: "group" would
    # divide by statistics of the whole clip, and the token of a frame would change with the length of the recording.
    "conv_dim": [512, 512, 512, 512, 512, 512, 512],
    "conv_stride": [6, 5, 2, 2, 2, 2, 2],
    "conv_kernel": [12, 5, 3, 3, 3, 2, 2],
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "mask_time_prob": 0.5,
    "mask_time_length": 10,
}


class SemanticTokenizerConfig(TransformersConfig, PretrainedConfig):
    """Configuration of `SemanticTokenizer`; the defaults are the paper's sizes.

    Args:
        encoder_config: arguments of `Wav2Vec2ConformerConfig`; None is the paper's encoder.
        feature_layer: the layer whose output is clustered, counted from 1.
        num_centroids: size of the vocabulary.
        sample_rate: in Hz; one token covers as many samples as the product of the encoder's strides.
        spectrum_hop: None lets the encoder hear the waveform itself, as the paper's does. A number of samples lets it
            read one `spectral_frames` vector for each such span, a token, which a small encoder learns from far sooner;
            its convolutions then have to reduce those 201 numbers to one step.
        weigh_features: whether centroids are sought in the standardised features as they are, or after a linear map of
            them, `feature_map`, which weighs what the tokens are to tell.
    """

    model_type = "semantic_tokenizer"
    sub_configs = {"encoder_config": Wav2Vec2ConformerConfig}

    def __init__(
        self,
        encoder_config: dict | Wav2Vec2ConformerConfig | None = None,
        feature_layer: int = 7,
        num_centroids: int = 1024,
        sample_rate: int = 24000,
        spectrum_hop: int | None = None,
        weigh_features: bool = False,
        **kwargs,
    ):
        if not isinstance(encoder_config, Wav2Vec2ConformerConfig):
            encoder_config = Wav2Vec2ConformerConfig(**(PAPER_ENCODER if encoder_config is None else encoder_config))
        if any(kernel < stride for kernel, stride in zip(encoder_config.conv_kernel, encoder_config.conv_stride)):
            raise ValueError(
                f"Every conv_kernel must be at least its conv_stride, or samples are skipped; got kernels "
                f"{list(encoder_config.conv_kernel)} and strides {list(encoder_config.conv_stride)}."
            )
        if not 1 <= feature_layer <= encoder_config.num_hidden_layers:
            raise ValueError(
                f"feature_layer must lie in 1..{encoder_config.num_hidden_layers} (the encoder's layers), "
                f"got {feature_layer}."
            )
        if spectrum_hop is not None and math.prod(encoder_config.conv_stride) != SPECTRAL_FRAME_SIZE:
            raise ValueError(
                f"With spectrum_hop the product of conv_stride must be {SPECTRAL_FRAME_SIZE}, the numbers of a "
                f"spectral frame; got {list(encoder_config.conv_stride)}."
            )
        self.encoder_config = encoder_config
        self.spectrum_hop = spectrum_hop
        self.weigh_features = weigh_features
        self.feature_layer = feature_layer
        self.num_centroids = num_centroids
        self.sample_rate = sample_rate
        super().__init__(**kwargs)

    @property
    def samples_per_token(self) -> int:
        return self.spectrum_hop or math.prod(self.encoder_config.conv_stride)


@dataclass
class SemanticTokenizerOutput(ModelOutput):
    """`last_hidden_state` (B, S, H), normalised, and `layers`, the output (B, S, H) of each conformer layer."""

    last_hidden_state: torch.Tensor | None = None
    layers: tuple[torch.Tensor, ...] | None = None


class SemanticTokenizer(TransformersModel, PreTrainedModel):
    """Waveform (B, 1, T) to semantic tokens (B, S) in 0..C-1, 25 a second.

    Buffers: `centroids` (C, H) in the standardised space, `feature_mean` and `feature_std` (H,); and, with
    `config.weigh_features`, `feature_map` (H, H).
    """

    config_class = SemanticTokenizerConfig
    base_model_prefix = "semantic_tokenizer"
    main_input_name = "waveform"
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: SemanticTokenizerConfig):
        super().__init__(config)
        width = config.encoder_config.hidden_size
        self.encoder = Wav2Vec2ConformerModel(config.encoder_config)
        # Not persistent, so that _init_weights of the encoder rebuilds the table exactly: a table stored in a float16
        # checkpoint would come back rounded, and turn late positions by several hundredths of a radian.
        for module in self.encoder.modules():
            if hasattr(module, "inv_freq"):
                module.register_buffer("inv_freq", module.inv_freq, persistent=False)
        self.register_buffer("centroids", torch.zeros(config.num_centroids, width))
        self.register_buffer("feature_mean", torch.zeros(width))
        self.register_buffer("feature_std", torch.ones(width))
        if config.weigh_features:
            self.register_buffer("feature_map", torch.eye(width))
        if config.spectrum_hop is not None:
            self.register_buffer("spectrum_mean", torch.zeros(SPECTRAL_FRAME_SIZE))
            self.register_buffer("spectrum_std", torch.ones(SPECTRAL_FRAME_SIZE))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Ours is only this module's buffers; transformers initialises the encoder by its own rules."""
        if module is self:
            init.normal_(self.centroids)
            init.zeros_(self.feature_mean)
            init.ones_(self.feature_std)
            if self.config.weigh_features:
                init.copy_(self.feature_map, torch.eye(len(self.feature_map)))
            if self.config.spectrum_hop is not None:
                init.zeros_(self.spectrum_mean)
                init.ones_(self.spectrum_std)

    def __reduce__(self):
        # PyTorch cannot pickle the encoder's convolution with weight norm, but its weights
        grads = {name: parameter.requires_grad for name, parameter in self.named_parameters()}
        buffers = dict(self.named_buffers())  # those, too, that are not stored
        return _unpickle, (type(self), self.config, self.state_dict(), grads, buffers, self.training)

    def get_input_embeddings(self) -> None:
        """None: no input is a token id. transformers asks, for example before it quantizes a layer."""

    @property
    def samples_per_token(self) -> int:
        return self.config.samples_per_token

    @property
    def token_rate(self) -> float:
        """Tokens per second."""
        return self.config.sample_rate / self.samples_per_token

    def forward(self, waveform: torch.Tensor, mask: torch.Tensor | None = None) -> SemanticTokenizerOutput:
        """What the encoder makes of the waveform (B, 1, T), padded so that exactly S = ceil(T / 960) frames come out.

        Args:
            waveform: (B, 1, T) in [-1, 1].
            mask: (B, S) bool, True where the encoder's input is replaced by its mask vector; the encoder's
                config has to have `mask_time_prob` > 0 and `apply_spec_augment`.
        """
        if waveform.ndim != 3 or waveform.shape[1] != 1 or waveform.shape[2] == 0:
            raise ValueError(f"waveform must have shape (batch, 1, samples > 0), got {tuple(waveform.shape)}.")
        if self.config.encoder_config.position_embeddings_type == "rotary":
            forget_rotary_table(self.encoder)
        dtype = self.encoder.feature_projection.projection.weight.dtype
        signal = self._signal(waveform).to(dtype)
        outputs = self.encoder(signal, mask_time_indices=mask, output_hidden_states=True)
        # hidden_states starts with the input of the first layer
        return SemanticTokenizerOutput(outputs.last_hidden_state, tuple(outputs.hidden_states[1:]))  # (B, S, H) each

    def _signal(self, waveform: torch.Tensor) -> torch.Tensor:
        """What the encoder's convolutions run over: the padded samples of (B, 1, T), or spectral frames end to end."""
        if self.config.spectrum_hop is not None:
            frames = spectral_frames(waveform, self.config.sample_rate, self.config.spectrum_hop)  # (B, S, 201)
            return ((frames - self.spectrum_mean.float()) / self.spectrum_std.float()).flatten(1)
        num_tokens = -(-waveform.shape[-1] // self.samples_per_token)
        # Without padding each convolution shortens its input by kernel - stride; in samples that adds up to:
        kernels, strides = self.config.encoder_config.conv_kernel, self.config.encoder_config.conv_stride
        overhang = sum((kernels[i] - strides[i]) * math.prod(strides[:i]) for i in range(len(strides)))
        missing = num_tokens * self.samples_per_token - waveform.shape[-1]
        return nn.functional.pad(waveform[:, 0], (overhang // 2, overhang - overhang // 2 + missing))

    def features(self, waveform: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Output of `feature_layer` for a waveform (B, 1, T): (B, S, H), S = ceil(T / 960), not standardised."""
        return self(waveform, mask).layers[self.config.feature_layer - 1]

    @torch.no_grad()
    def encode(self, waveform: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Semantic tokens (B, S) int64 of a waveform (B, 1, T): the nearest centroid, S = ceil(T / 960).

        With a `mask`, bool (B, S), the tokens where it is True are estimated from what remains around them, as the
        encoder learnt to do in its training.
        """
        return self.quantize(self.features(waveform, mask))

    def quantize(self, features: torch.Tensor) -> torch.Tensor:
        """Index of the centroid nearest to each standardised feature: (B, S, H) to (B, S) int64."""
        standardised = (features.float() - self.feature_mean.float()) / self.feature_std.float()
        if self.config.weigh_features:
            standardised = standardised @ self.feature_map.float()
        return nearest(standardised, self.centroids.float())


def _unpickle(
    cls: type[SemanticTokenizer],
    config: SemanticTokenizerConfig,
    weights: dict[str, torch.Tensor],
    grads: dict[str, bool],
    buffers: dict[str, torch.Tensor],
    training: bool,
) -> SemanticTokenizer:
    with torch.device("meta"):
        model = cls(config)
    model.load_state_dict(weights, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(grads[name])
    for name, buffer in buffers.items():
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, buffer)
    return model.train(training)
