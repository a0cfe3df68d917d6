"""The semantic language model: MuLan tokens to semantic tokens (paper, section 3 and Algorithm 1).

A LLaMA decoder over one sequence, `[c_1 .. c_N, u_1 .. u_S]`. Each MuLan codebook has its own range of token ids, since
index 7 of the first codebook has nothing to do with index 7 of the second:

    ids 0 .. C-1                    semantic tokens
    ids C + q V .. C + (q+1) V - 1  MuLan tokens of codebook q
    id  C + N V                     no token (only with `null_condition`); in place of every MuLan token, no condition

Shapes: B batch, N MuLan tokens, S semantic tokens, V and C the sizes of a MuLan codebook and the semantic codebook.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from .. import graphs
from ..hf.bases import TransformersConfig, TransformersModel
from .decoding_step import DecodingStep, is_plain


class SemanticLMConfig(TransformersConfig, LlamaConfig):
    """Configuration of `SemanticLM`: LLaMA's, with the token layout instead of `vocab_size`.

    The defaults make 430.0 M parameters (paper: 429.5 M): vocabulary 12 x 1024 + 1024, untied embeddings. Positions
    allow for the prefix and 1,012 semantic tokens, 40 s.

    `null_condition` adds one more id, that of an absent condition. A model that was trained with some of its conditions
    left out can be steered by classifier-free guidance (Ho and Salimans 2022), which the paper uses for the diffusion
    alone.
    """

    model_type = "semantic_lm"

    num_mulan_codebooks: int = 12
    mulan_codebook_size: int = 1024
    semantic_codebook_size: int = 1024
    null_condition: bool = False
    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 1024
    vocab_size: int = 0  # set from the layout below
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def __post_init__(self, **kwargs):
        vocab_size = self.num_mulan_codebooks * self.mulan_codebook_size + self.semantic_codebook_size
        vocab_size += int(self.null_condition)
        if self.vocab_size not in (0, vocab_size):
            raise ValueError(
                f"vocab_size follows from the token layout: {self.num_mulan_codebooks} x {self.mulan_codebook_size} + "
                f"{self.semantic_codebook_size}{' + 1' if self.null_condition else ''} = {vocab_size}, "
                f"got {self.vocab_size}. Leave it out."
            )
        self.vocab_size = vocab_size
        super().__post_init__(**kwargs)


@dataclass(frozen=True)
class Sampling:
    """How a semantic token is drawn from the language model's scores.

    Args:
        temperature: 0 takes the likeliest token each time.
        top_k: draw among the k likeliest tokens only; None or 0 for all.
        top_p: draw among the fewest likeliest tokens whose probabilities reach this sum.
        guidance_scale: how far the scores go from those without condition towards, and past, those with it; 1 leaves
            them as they are, any other value needs `null_condition` and a second row for each sample.

    Raises:
        ValueError: names the argument, what came and what is allowed.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be a finite number >= 0, got {self.temperature}.")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"top_k must be None or at least 0, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}.")
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale must be a finite number, got {self.guidance_scale}.")

    def draw(self, logits: torch.Tensor, gumbel: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens (B, 1) from scores (B, C), with guidance (2 B, C), those without condition last.

        The argmax of logits / temperature + Gumbel noise (B, C) is a draw from their softmax. Without noise it is the
        likeliest token.
        """
        logits = logits.float()
        if self.guidance_scale != 1:
            given, absent = logits.chunk(2)
            logits = torch.lerp(absent, given, self.guidance_scale)
        if gumbel is not None:
            if self.temperature != 1:
                logits = logits / self.temperature
            logits = self._keep_likely(logits) + gumbel
        return logits.argmax(dim=-1, keepdim=True)

    def _keep_likely(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) with -inf outside the k likeliest tokens and outside the nucleus of probability `top_p`."""
        if self.top_k is not None and 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        if self.top_p < 1:
            ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
            # a token stays if the likelier ones before it do not yet reach top_p: at least one always does
            dropped = ordered.cumsum(dim=-1) - ordered >= self.top_p
            logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
        return logits


def uniform_draws(
    generator: torch.Generator | Sequence[torch.Generator] | None,
    shape: tuple[int, int, int],
    device: torch.device,
) -> torch.Tensor:
    """Uniform numbers (num_tokens, B, C) on `device`, drawn at once and copied once.

    Each sample's come from its own generator, on that generator's device, in the order of the tokens, so that a batch
    equals its single samples. A generator that serves the whole batch gives each token's numbers sample by sample.
    """
    num_tokens, batch_size, vocabulary = shape
    generators = list(generator) if isinstance(generator, Sequence) else [generator] * batch_size
    samples: list[torch.Tensor] = [torch.empty(0)] * batch_size
    for each in dict.fromkeys(generators):
        mine = [i for i, other in enumerate(generators) if other is each]
        source = "cpu" if each is None else each.device
        numbers = torch.rand(num_tokens, len(mine), vocabulary, generator=each, device=source).to(device)
        for i, drawn in zip(mine, numbers.unbind(1)):
            samples[i] = drawn
    return torch.stack(samples, dim=1)


class _PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in one buffer of fixed length; `update` copies one step and returns views.

    `DynamicLayer` copies the whole past at each token. `StaticLayer` doesn't, but attends to the empty rest of its
    buffer behind a mask that is rebuilt at each token.
    """

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        self.filled = 0
        self.is_initialized = False

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            shape = (*key_states.shape[:2], self.length, key_states.shape[-1])
            self.both = key_states.new_zeros(2, *shape)  # behind a mask any number will do, but NaN
            self.keys, self.values = self.both
            self.is_initialized = True
        end = self.filled + key_states.shape[-2]
        self.keys[:, :, self.filled : end] = key_states
        self.values[:, :, self.filled : end] = value_states
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.filled


def _advance(step: DecodingStep, sampling: Sampling, tokens: torch.Tensor, position, *gumbel) -> torch.Tensor:
    return sampling.draw(step(tokens, position), *gumbel)


class SemanticLM(TransformersModel, LlamaForCausalLM):
    """LLaMA over MuLan and semantic tokens, with its own sampling loop."""

    config_class = SemanticLMConfig

    def build_input_ids(self, mulan_tokens: torch.Tensor, semantic_tokens: torch.Tensor | None = None) -> torch.Tensor:
        """The model's token ids (B, N + S) for MuLan tokens (B, N) and, where given, semantic tokens (B, S).

        A row of -1 instead of MuLan tokens is a row without condition, and a semantic token of -1 one that is not
        known (training leaves some out); the model must have `null_condition`.
        """
        config = self.config
        if mulan_tokens.ndim != 2 or mulan_tokens.shape[1] != config.num_mulan_codebooks:
            raise ValueError(
                f"mulan_tokens must have shape (batch, {config.num_mulan_codebooks}), got {tuple(mulan_tokens.shape)}."
            )
        codebook = torch.arange(config.num_mulan_codebooks, device=mulan_tokens.device)
        prefix = mulan_tokens + config.semantic_codebook_size + codebook * config.mulan_codebook_size  # (B, N)
        if config.null_condition:
            prefix = prefix.masked_fill(mulan_tokens < 0, config.vocab_size - 1)
        if semantic_tokens is None:
            return prefix
        if config.null_condition:
            semantic_tokens = semantic_tokens.masked_fill(semantic_tokens < 0, config.vocab_size - 1)
        return torch.cat([prefix, semantic_tokens], dim=1)  # (B, N + S)

    def semantic_logits(self, mulan_tokens: torch.Tensor, semantic_tokens: torch.Tensor) -> torch.Tensor:
        """Scores (B, S, C) of each semantic token given the MuLan tokens and the semantic tokens before it.

        The cross-entropy of these with `semantic_tokens` is the training loss.
        """
        input_ids = self.build_input_ids(mulan_tokens, semantic_tokens[:, :-1])  # (B, N + S - 1)
        logits = self(input_ids, use_cache=False, logits_to_keep=semantic_tokens.shape[1]).logits
        return logits[..., : self.config.semantic_codebook_size]

    @torch.no_grad()
    def generate_semantic_tokens(
        self,
        mulan_tokens: torch.Tensor,
        num_tokens: int,
        prefix_tokens: torch.Tensor | None = None,
        sampling: Sampling = Sampling(),
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback: Callable[[int, int], bool | None] | None = None,
        negative_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Samples semantic tokens (B, num_tokens) after the MuLan tokens (Algorithm 1) and the prefix (Algorithm 2).

        Args:
            mulan_tokens: (B, N).
            num_tokens: how many to draw.
            prefix_tokens: (B, P) semantic tokens to continue.
            sampling: how each is drawn.
            generator: one for all samples, which then draw from it in turn, or a list with one per sample.
            callback: called as callback(step, num_tokens) after each token, step from 1. Where it returns true, the
                tokens so far, (B, step), are the result.
            negative_tokens: (B, N), MuLan tokens that guidance leads away from, in place of the absent condition.
        """
        self._check_lengths(mulan_tokens, num_tokens, prefix_tokens, sampling, generator, negative_tokens)
        if negative_tokens is None:
            negative_tokens = torch.full_like(mulan_tokens, -1)
        with torch.inference_mode():
            tokens = self._generate(
                mulan_tokens, num_tokens, prefix_tokens, sampling, generator, callback, negative_tokens
            )
        return tokens.clone()  # out here, so that it may be embedded in a training

    def _generate(
        self, mulan_tokens, num_tokens, prefix_tokens, sampling, generator, callback, negative_tokens
    ) -> torch.Tensor:
        batch, vocabulary = mulan_tokens.shape[0], self.config.semantic_codebook_size
        input_ids = self.build_input_ids(mulan_tokens, prefix_tokens)
        guided = sampling.guidance_scale != 1
        if guided:
            absent = self.build_input_ids(negative_tokens, prefix_tokens)
            input_ids = torch.cat([input_ids, absent])  # (2 B, N + P)
        length, device = input_ids.shape[1] + num_tokens, input_ids.device
        positions = torch.arange(length, device=device)[None]  # (1, length)
        cache = Cache(layers=[_PreallocatedLayer(length) for _ in range(self.config.num_hidden_layers)])
        tokens: list[torch.Tensor] = []
        gumbel: torch.Tensor | list = []  # without temperature there is none
        if sampling.temperature > 0:
            uniform = uniform_draws(generator, (num_tokens, batch, vocabulary), device)
            gumbel = uniform.clamp_(min=1e-20).log_().neg_().log_().neg_()  # a uniform number may be 0
        plain, on_gpu = is_plain(self), device.type in graphs.DEVICES
        advance: Callable[..., torch.Tensor] | None = None
        start = 0
        for step in range(num_tokens):  # nothing in here waits for the device
            noise = gumbel[step : step + 1]
            if advance is None:
                end = start + input_ids.shape[1]
                output = self(
                    input_ids,
                    position_ids=positions[:, start:end],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                drawn = sampling.draw(output.logits[:, -1, :vocabulary], *noise)
                if plain:
                    one_step = DecodingStep(self, cache.layers, length, vocabulary)
                    advance = partial(_advance, one_step, sampling)
                    advance = graphs.Recording(advance, num_tokens) if on_gpu else advance
            else:
                end = start + 1
                drawn = advance(input_ids, positions[0, start:end] if on_gpu else start, *noise)
            start = end
            tokens.append(drawn)
            input_ids = drawn.repeat(2, 1) if guided else drawn
            if callback is not None and callback(step + 1, num_tokens):
                break
        return torch.cat(tokens, dim=1)

    def _check_lengths(self, mulan_tokens, num_tokens, prefix_tokens, sampling, generator, negative_tokens) -> None:
        """Raises a ValueError that names the argument, what came and what is allowed."""
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be at least 1, got {num_tokens}.")
        batch = mulan_tokens.shape[0]
        if prefix_tokens is not None and (prefix_tokens.ndim != 2 or prefix_tokens.shape[0] != batch):
            raise ValueError(f"prefix_tokens must have shape ({batch}, P), got {tuple(prefix_tokens.shape)}.")
        prefix_length = 0 if prefix_tokens is None else prefix_tokens.shape[1]
        longest = self.config.max_position_embeddings - self.config.num_mulan_codebooks
        if prefix_length + num_tokens > longest:
            raise ValueError(
                f"prefix_tokens and num_tokens must add up to at most {longest} semantic tokens "
                f"(max_position_embeddings {self.config.max_position_embeddings} less "
                f"{self.config.num_mulan_codebooks} MuLan tokens), got {prefix_length} + {num_tokens}. "
                f"Continue in shorter steps with a shorter prefix."
            )
        if sampling.guidance_scale != 1 and negative_tokens is None and not self.config.null_condition:
            raise ValueError(
                f"guidance_scale must be 1 for this model, got {sampling.guidance_scale}: it was built without "
                "null_condition and has never seen music without its condition."
            )
        if negative_tokens is not None and negative_tokens.shape != mulan_tokens.shape:
            raise ValueError(
                f"negative_tokens must have shape {tuple(mulan_tokens.shape)}, got {tuple(negative_tokens.shape)}."
            )
        if isinstance(generator, Sequence) and len(generator) != batch:
            raise ValueError(f"generator must be one generator or a list of {batch}, got a list of {len(generator)}.")
