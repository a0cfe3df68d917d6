"""One token of a LLaMA at a time, without the general framework around it.

The arithmetic of a small model's step takes a hundredth of the time that a framework for all models spends on it: on
masks, positions, dispatch. This does the same arithmetic on the same weights and the same cache, and nothing besides. A
model that is not plain (adapters, offloaded weights, hooks) goes through its own `forward`; so does a quantized one,
unless its weights are torchao's int8 with a scale for each row, on a CPU: they are used as they are.

Shapes: B batch, H width, A heads, K heads of keys and values, D their width, L length of the cache.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from ..devices import has_numba

FUSED_NUMBERS = 1 << 24  # of a model whose projections are laid side by side; of a larger one that would take time
COMPILED_ROWS = 16  # of a batch; the products of a larger one go faster through PyTorch's own
COMPILED_ROWS_OF_LARGE = 2  # the same where weights come from memory, once for each two rows


class DecodingStep:
    """The scores of the next token, from the last one and a cache that holds what came before.

    Args:
        lm: a model for which `is_plain` holds.
        layers: of the cache, each with `both`, keys and values (2, B, K, L, D).
        length: L.
        num_scores: how many of the vocabulary's first tokens are scored.
    """

    def __init__(self, lm: LlamaForCausalLM, layers: Sequence[Any], length: int, num_scores: int) -> None:
        self.config, self.layers = lm.config, layers
        self.embeddings, self.last_norm = lm.model.embed_tokens.weight, lm.model.norm.weight
        small = sum(parameter.numel() for parameter in lm.parameters()) <= FUSED_NUMBERS
        self._kernels = _kernels() if _is_int8(lm) or self._has_few_rows(small) else None
        fuse = small and self._kernels is None
        self.head = None if _is_int8_weight(lm.lm_head.weight) else lm.lm_head.weight[:num_scores]
        self.weights = [_Weights(layer, fuse) for layer in lm.model.layers[: lm.config.num_hidden_layers]]
        heads, groups, width = self.config.num_attention_heads, self.config.num_key_value_heads, self.config.head_dim
        positions = torch.arange(length, device=self.embeddings.device)[None]
        cos, sin = lm.model.rotary_emb(self.embeddings[:1, None], positions)  # (1, L, D) each
        if self._kernels is None:
            # Of queries and keys each pair of numbers is turned. Values are not: a cosine of 1, a sine of 0.
            self.turns = cos.new_zeros(length, 2, heads + 2 * groups, width)
            self.turns[:, 0] = 1
            self.turns[:, 0, : heads + groups] = cos[0, :, None]
            self.turns[:, 1, : heads + groups] = sin[0, :, None]
            self.turns[:, 1, :, : width // 2] *= -1
            self.places, self.open = positions, torch.zeros_like(cos[:, :, 0])  # (1, L) each
        else:
            bits, vector, matrix = self._kernels.bits, self._kernels.vector, self._kernels.matrix
            in_parts = not small and torch.get_num_threads() > 1
            self._layer_step = self._kernels.layer_step_in_parts if in_parts else self._kernels.layer_step
            halves = [vector(each[0, :, : width // 2]) for each in (cos, sin)]
            self._arrays = [
                (tuple(map(vector, each.norms)), *map(matrix, each.matrices), *halves, *map(bits, layer.both))
                for each, layer in zip(self.weights, layers)
            ]
            self._last_norm = vector(self.last_norm)
            self._head = tuple(array[:num_scores] for array in matrix(lm.lm_head.weight))

    def _has_few_rows(self, small: bool) -> bool:
        keys = self.layers[0].keys
        rows = COMPILED_ROWS if small else COMPILED_ROWS_OF_LARGE
        return keys.device.type == "cpu" and keys.dtype in (torch.float32, torch.bfloat16) and len(keys) <= rows

    def __call__(self, tokens: Tensor, position: int | Tensor) -> Tensor:
        """Scores (B, `num_scores`) after the tokens (B, 1), which stand at `position`.

        A position on a GPU, (1,), makes the work the same at each, so that it can be recorded: the whole cache is
        attended to, behind a mask.
        """
        x = F.embedding(tokens[:, 0], self.embeddings)  # (B, H)
        return self._by_operations(x, position) if self._kernels is None else self._by_kernels(x, position)

    def _by_kernels(self, hidden: Tensor, position: int | Tensor) -> Tensor:
        x, eps = hidden.float().numpy(), np.float32(self.config.rms_norm_eps)
        for arrays in self._arrays:
            self._layer_step(x, position, *arrays, eps)
        scores = np.empty((len(x), len(self._head[0])), np.float32)
        self._kernels.products(*self._head, self._kernels.rms_norm(x, self._last_norm, eps), scores)
        return torch.from_numpy(scores)

    def _by_operations(self, x: Tensor, position: int | Tensor) -> Tensor:
        config = self.config
        heads, groups, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        if isinstance(position, int):
            (cos, sin), filled, mask = self.turns[position], position + 1, None  # (A + 2 K, D) each
        else:
            (cos, sin), filled = self.turns.index_select(0, position)[0], None
            mask = self.open.masked_fill(self.places > position, -math.inf)  # (1, L)
        for weights, layer in zip(self.weights, self.layers):
            norm = F.rms_norm(x, x.shape[-1:], weights.input_norm, config.rms_norm_eps)
            projected = weights.attention(norm).view(len(x), heads + 2 * groups, width)
            turned = torch.addcmul(projected * cos, projected.roll(width // 2, dims=-1), sin)
            made = turned[:, heads:].unflatten(1, (2, groups)).transpose(0, 1)  # (2, B, K, D)
            if isinstance(position, int):
                layer.both[:, :, :, position] = made
            else:
                layer.both.index_copy_(3, position, made.unsqueeze(3))
            keys, values = layer.both[:, :, :, :filled]
            query = turned[:, :heads, None]
            heard = F.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=groups != heads)
            x.addmm_(heard.flatten(1), weights.output.t())
            norm = F.rms_norm(x, x.shape[-1:], weights.post_norm, config.rms_norm_eps)
            gate, up = weights.feed_forward(norm)
            x.addmm_(F.silu(gate) * up, weights.down.t())
        return F.linear(F.rms_norm(x, x.shape[-1:], self.last_norm, config.rms_norm_eps), self.head)


class _Weights:
    """Of one layer; projections of the same input side by side where that takes little memory."""

    def __init__(self, layer: nn.Module, fuse: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.input_norm, self.post_norm = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.output, self.down = attention.o_proj.weight, mlp.down_proj.weight
        self._inputs = [each.weight for each in (attention.q_proj, attention.k_proj, attention.v_proj)]
        self._gates = [mlp.gate_proj.weight, mlp.up_proj.weight]
        if fuse:
            self._inputs, self._gates = [torch.cat(self._inputs)], [torch.cat(self._gates)]

    @property
    def norms(self) -> list[Tensor]:
        return [self.input_norm, self.post_norm]

    @property
    def matrices(self) -> list[Tensor]:
        """In the order of `decoding_step_cpu.layer_step`."""
        return [*self._inputs, self.output, *self._gates, self.down]

    def attention(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side."""
        parts = [F.linear(x, weight) for weight in self._inputs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def feed_forward(self, x: Tensor) -> Sequence[Tensor]:
        """Gate and what it gates."""
        parts = [F.linear(x, weight) for weight in self._gates]
        return parts[0].chunk(2, dim=-1) if len(parts) == 1 else parts


def _kernels() -> ModuleType | None:
    if not has_numba():
        return None
    from . import decoding_step_cpu

    return decoding_step_cpu


def is_plain(lm: LlamaForCausalLM) -> bool:
    """Whether the model is nothing but its weights: what `DecodingStep` computes is what its `forward` would."""
    config = lm.config
    if config.hidden_act != "silu" or config.attention_bias or config.mlp_bias or config.pretraining_tp != 1:
        return False
    layers = lm.model.layers[: config.num_hidden_layers]
    linears = [module for layer in layers for module in (*layer.self_attn.children(), *layer.mlp.children())]
    linears = [module for module in linears if list(module.parameters())]
    if any(type(module) is not nn.Linear for module in (*linears, lm.lm_head)):
        return False
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_hf_hook", "_diffusers_hook")
    if any(getattr(module, name, None) for module in lm.modules() for name in hooks):
        return False
    weights = list(lm.parameters())
    if _is_int8(lm) and _kernels() is None:
        return False
    if any(not _is_int8_weight(weight) and (type(weight.data) is not Tensor or weight.is_meta) for weight in weights):
        return False
    return len({(weight.dtype, weight.device) for weight in weights}) == 1


def _is_int8(lm: LlamaForCausalLM) -> bool:
    return any(_is_int8_weight(weight) for weight in lm.parameters())


def _is_int8_weight(weight: Tensor) -> bool:
    """Whether it is torchao's of bytes with a scale a row, on the CPU, with nothing done to what it multiplies."""
    numbers = getattr(weight, "qdata", None)
    if numbers is None or numbers.dtype != torch.int8 or numbers.device.type != "cpu" or numbers.ndim != 2:
        return False
    if getattr(weight, "act_quant_kwargs", None) is not None or getattr(weight, "act_pre_scale", None) is not None:
        return False
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    shift = getattr(weight, "zero_point", None)
    return weight.scale.numel() == len(numbers) and (shift is None or not shift.any())
