"""MuLan: music and text in one embedding space (section 3.1 of the paper; Huang et al. 2022).

An audio spectrogram transformer and a BERT encoder, each followed by a projection without bias to 128 numbers of unit
length. The cosine between a clip and a text says how well they fit; the residual quantizer turns the embedding into the
tokens that prompt the semantic language model.

Shapes: B batch, T samples, W windows, F mel frames, M mel bands, P tokens of a tower, E embedding width.
"""

import math
import threading
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.utils.accelerate_utils import apply_forward_hook
from einops import rearrange
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTModel,
    BertConfig,
    BertModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import initialization as init

from ..audio import crop_or_pad
from ..hf.bases import TransformersConfig, TransformersModel
from ..spectra import log_mel_spectrogram

_TOKENIZER_LOCK = threading.Lock()  # a fast tokenizer keeps padding and truncation as state and refuses a second caller


LETTERS_PER_PIECE = 2.5  # a word of three pieces or more with fewer is but spelled out


class LostWords(NamedTuple):
    """What of a text is lost on the text tower.

    Args:
        unknown: words that the tokenizer has no tokens for.
        strange: these, and words that it has but letters and syllables for, as for a language it was not made for.
        num_words: the different words of letters in the text.
        unread: the end that is cut off.
    """

    unknown: list[str]
    strange: list[str]
    num_words: int
    unread: str

    @property
    def mostly_strange(self) -> bool:
        """Whether more than half of the words are strange."""
        return 2 * len(self.strange) > self.num_words


class MuLanConfig(TransformersConfig, PretrainedConfig):
    """Sizes of the two towers and the audio front end; the defaults are the paper's (AST base, BERT base uncased).

    Args:
        audio_config: an ASTConfig or its fields. Its `num_mel_bins` bands and `max_length` frames are the window that
            the audio tower sees; with `hop_length` 240 at 24 kHz a frame lasts 10 ms and the window 10.24 s.
        text_config: a BertConfig or its fields.
        projection_dim: width of the shared space.
        sample_rate, n_fft, hop_length: the log-mel spectrogram.
        mel_mean, mel_std: the log-mel values are shifted and scaled by these before the audio tower.
        initial_temperature: what the learnt temperature of the contrastive loss starts from.
    """

    model_type = "melody_mulan"
    sub_configs = {"audio_config": ASTConfig, "text_config": BertConfig}

    def __init__(
        self,
        audio_config: ASTConfig | dict | None = None,
        text_config: BertConfig | dict | None = None,
        projection_dim: int = 128,
        sample_rate: int = 24000,
        n_fft: int = 1024,
        hop_length: int = 240,
        mel_mean: float = -4.0,
        mel_std: float = 2.0,
        initial_temperature: float = 0.07,
        **kwargs,
    ) -> None:
        self.audio_config = _sub_config(audio_config, ASTConfig)
        self.text_config = _sub_config(text_config, BertConfig)
        self.projection_dim = projection_dim
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.mel_mean = mel_mean
        self.mel_std = mel_std
        self.initial_temperature = initial_temperature
        super().__init__(**kwargs)


def _sub_config(config: PretrainedConfig | dict | None, config_class: type[PretrainedConfig]) -> PretrainedConfig:
    if isinstance(config, config_class):
        return config
    return config_class(**({} if config is None else config))


class MuLanModel(TransformersModel, PreTrainedModel):
    """Embeds music and text into one space, in which those that belong together are close."""

    config_class = MuLanConfig
    base_model_prefix = "mulan"
    main_input_name = "waveform"
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["ASTLayer", "BertLayer"]

    def __init__(self, config: MuLanConfig) -> None:
        super().__init__(config)
        self.audio_tower = ASTModel(config.audio_config)
        self.text_tower = BertModel(config.text_config, add_pooling_layer=False)
        self.audio_projection = nn.Linear(config.audio_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.empty(()))  # logarithm of the inverse temperature
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Ours for the projections and the temperature; transformers calls the towers' own for what is in them."""
        if module is self:
            init.constant_(self.logit_scale, -math.log(self.config.initial_temperature))
        elif module is self.audio_projection or module is self.text_projection:
            init.normal_(module.weight, std=module.in_features**-0.5)

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def window_samples(self) -> int:
        """Samples that the audio tower sees at once."""
        return self.config.audio_config.max_length * self.config.hop_length

    def get_input_embeddings(self) -> nn.Module:
        return self.text_tower.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_tower.set_input_embeddings(value)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Normalised log-mel windows (B, W, F, M) of a waveform (B, 1, T).

        Audio shorter than the window is followed by silence; longer audio is covered by evenly spaced windows, the
        first at its start and the last at its end.
        """
        if waveform.ndim != 3 or waveform.shape[1] != 1 or waveform.shape[-1] == 0:
            raise ValueError(f"waveform must have shape (B, 1, T) with T > 0, got {tuple(waveform.shape)}.")
        window = self.window_samples
        num_samples = max(waveform.shape[-1], window)
        waveform = crop_or_pad(waveform, num_samples)
        num_windows = math.ceil(num_samples / window)
        starts = [round(i * (num_samples - window) / max(num_windows - 1, 1)) for i in range(num_windows)]
        windows = torch.cat([waveform[..., start : start + window] for start in starts], dim=1)  # (B, W, T)
        return self.whole_log_mel(windows)  # (B, W, F, M)

    def whole_log_mel(self, waveform: Tensor) -> Tensor:
        """Normalised log-mel spectrogram (..., F, M) of waveforms (..., T), uncut."""
        config = self.config
        mel = log_mel_spectrogram(
            waveform,
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            num_mels=config.audio_config.num_mel_bins,
        )
        return (mel - config.mel_mean) / config.mel_std

    def embed_log_mel(self, log_mel: Tensor) -> Tensor:
        """Unit-length embeddings (B, E) of normalised log-mel windows (B, W, F, M): their mean, renormalised."""
        batch_size = log_mel.shape[0]
        frames = rearrange(log_mel, "b w f m -> (b w) f m").to(self.dtype)
        hidden = self.audio_tower(frames).last_hidden_state.mean(dim=1)  # (B W, P, H) -> (B W, H)
        embeds = F.normalize(self.audio_projection(hidden).float(), dim=-1)
        return F.normalize(rearrange(embeds, "(b w) e -> b w e", b=batch_size).mean(dim=1), dim=-1)  # (B, E)

    @apply_forward_hook
    def get_audio_features(self, waveform: Tensor) -> Tensor:
        """Unit-length float32 embeddings (B, E) of waveforms (B, 1, T) at `sample_rate`, of any length."""
        return self.embed_log_mel(self.log_mel(waveform))

    def _max_tokens(self, tokenizer: PreTrainedTokenizerBase) -> int:
        return min(tokenizer.model_max_length, self.config.text_config.max_position_embeddings)

    def tokenize(self, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, (B, P) each, on the model's device.

        All are padded to one length and cut there, so that a text's embedding does not depend on its neighbours.
        """
        with _TOKENIZER_LOCK:
            tokens = tokenizer(
                texts,
                padding="max_length",
                truncation=True,
                max_length=self._max_tokens(tokenizer),
                return_tensors="pt",
            )
        device = "cpu" if self.device.type == "meta" else self.device  # offloaded layer by layer
        return {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}

    def lost_words(self, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[LostWords]:
        """What of each text the text tower cannot make sense of or does not read; mostly nothing."""
        if not tokenizer.is_fast:  # which alone say where in a text a token lies
            return [LostWords([], [], 0, "")] * len(texts)
        with _TOKENIZER_LOCK:
            tokens = tokenizer(texts, padding=False, truncation=False, return_offsets_mapping=True)
        lost, read = [], self._max_tokens(tokenizer) - tokenizer.num_special_tokens_to_add()
        for i, (text, ids, places) in enumerate(zip(texts, tokens["input_ids"], tokens["offset_mapping"])):
            within = [(token, place) for token, place in zip(ids, places) if place[1] > place[0]]
            unknown = [text[slice(*place)] for token, place in within if token == tokenizer.unk_token_id]
            unread = text[within[read][1][0] :] if len(within) > read else ""
            pieces: dict[int, list[int]] = {}  # the tokens of each word, by their places
            for at, word in enumerate(tokens.word_ids(i)):
                if word is not None and places[at][1] > places[at][0]:
                    pieces.setdefault(word, []).append(at)
            words = {text[places[found[0]][0] : places[found[-1]][1]]: found for found in pieces.values()}
            words = {word: found for word, found in words.items() if any(map(str.isalpha, word))}
            strange = [
                word
                for word, found in words.items()
                if any(ids[at] == tokenizer.unk_token_id for at in found)
                or (len(found) > 2 and len(word) < LETTERS_PER_PIECE * len(found))
            ]
            lost.append(LostWords(list(dict.fromkeys(unknown)), strange, len(words), unread))
        return lost

    @torch.no_grad()
    def embed_texts(self, tokenizer: PreTrainedTokenizerBase, texts: list[str], batch_size: int = 256) -> Tensor:
        """Unit-length float32 embeddings (B, E) of any number of texts, without gradients."""
        parts = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        embeds = [self.get_text_features(**self.tokenize(tokenizer, part)) for part in parts]
        return torch.cat(embeds) if embeds else torch.zeros(0, self.config.projection_dim, device=self.device)

    @apply_forward_hook
    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Unit-length float32 embeddings (B, E) of token ids (B, P); 0 in the mask marks padding."""
        longest = self.config.text_config.max_position_embeddings
        if input_ids.ndim != 2 or not 0 < input_ids.shape[1] <= longest:
            raise ValueError(
                f"input_ids must have shape (B, P) with 1 to {longest} tokens, got {tuple(input_ids.shape)}; "
                "tokenize with truncation."
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self.text_tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, P, H)
        weight = attention_mask.to(hidden.dtype).unsqueeze(-1)
        pooled = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)  # (B, H)
        return F.normalize(self.text_projection(pooled).float(), dim=-1)  # (B, E)
