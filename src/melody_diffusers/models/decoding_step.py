"""One token of a LLaMA at a time, without the general framework around it.

The arithmetic of a small model's step takes a hundredth of the time that a framework for all models spends on it: on
masks, positions, dispatch. This does the same arithmetic on the same weights and the same cache, and nothing besides. A
model that is not plain (adapters, quantized or offloaded weights, hooks) goes through its own `forward`.

Shapes: B batch, H width, A heads, K heads of keys and values, D their width, L length of the cache.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM

FUSED_NUMBERS = 1 << 24  # of a model whose projections are laid side by side; of a larger one that would take time


class DecodingStep:
    """The scores of the next token, from the last one and a cache that holds what came before.

    Args:
        lm: a model for which `is_plain` holds.
        layers: of the cache, each with `keys` and `values` (B, K, L, D).
        length: L.
        num_scores: how many of the vocabulary's first tokens are scored.
    """

    def __init__(self, lm: LlamaForCausalLM, layers: Sequence[Any], length: int, num_scores: int) -> None:
        self.config, self.layers = lm.config, layers
        self.embeddings, self.head = lm.model.embed_tokens.weight, lm.lm_head.weight[:num_scores]
        self.last_norm = lm.model.norm.weight
        fuse = sum(parameter.numel() for parameter in lm.parameters()) <= FUSED_NUMBERS
        self.weights = [_Weights(layer, fuse) for layer in lm.model.layers[: lm.config.num_hidden_layers]]
        positions = torch.arange(length, device=self.embeddings.device)[None]
        cos, sin = lm.model.rotary_emb(self.embeddings[:1, None], positions)  # (1, L, D) each
        half = cos.shape[-1] // 2
        self.cos, self.sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)

    def __call__(self, tokens: Tensor, position: int) -> Tensor:
        """Scores (B, `num_scores`) after the tokens (B, 1), which stand at `position`."""
        config = self.config
        heads, groups, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        x = F.embedding(tokens[:, 0], self.embeddings)  # (B, H)
        cos, sin = self.cos[position], self.sin[position]  # (D,)
        for weights, layer in zip(self.weights, self.layers):
            norm = F.rms_norm(x, x.shape[-1:], weights.input_norm, config.rms_norm_eps)
            projected = weights.attention(norm).view(len(x), heads + 2 * groups, width)
            turned = projected[:, : heads + groups]
            turned = turned * cos + turned.roll(width // 2, dims=-1) * sin  # a rotation of each pair of numbers
            layer.keys[:, :, position] = turned[:, heads:]
            layer.values[:, :, position] = projected[:, heads + groups :]
            heard = F.scaled_dot_product_attention(
                turned[:, :heads, None],
                layer.keys[:, :, : position + 1],
                layer.values[:, :, : position + 1],
                enable_gqa=groups != heads,
            )
            x = x + F.linear(heard.flatten(1), weights.output)
            norm = F.rms_norm(x, x.shape[-1:], weights.post_norm, config.rms_norm_eps)
            gate, up = weights.feed_forward(norm)
            x = x + F.linear(F.silu(gate) * up, weights.down)
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

    def attention(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side."""
        parts = [F.linear(x, weight) for weight in self._inputs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def feed_forward(self, x: Tensor) -> Sequence[Tensor]:
        """Gate and what it gates."""
        parts = [F.linear(x, weight) for weight in self._gates]
        return parts[0].chunk(2, dim=-1) if len(parts) == 1 else parts


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
    return all(type(weight.data) is Tensor and not weight.is_meta for weight in weights) and (
        len({(weight.dtype, weight.device) for weight in weights}) == 1
    )
