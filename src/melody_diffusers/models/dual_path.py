"""Dual-path diffusion (paper, section 4.2): the velocity of noisy latents, given angles and semantic tokens.

A block looks at the latents twice. The coarse path runs between segments (a rotary transformer that also attends to
the semantic tokens), the fine path within a segment (a bidirectional SRU). Both see sequences of O(sqrt(L)) frames.

Shapes: B batch, L latent frames, D latent channels, S semantic tokens, N segments, K segment length, W width of the
coarse path in columns, H hidden channels.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed
from diffusers.utils import BaseOutput, apply_lora_scale
from einops import rearrange
from torch import nn

from ..devices import has_numba
from ..hf.bases import DiffusersModel
from .segmentation import merge_segments, num_segments, overlap_add, repeat_segments, segment
from .sru import SRU

Rotary = tuple[torch.Tensor, torch.Tensor]


def _kernels(x: torch.Tensor) -> ModuleType | None:
    """The compiled operations for such a tensor, if there are any."""
    if x.dtype != torch.bfloat16 or torch.compiler.is_compiling() or not has_numba():
        return None
    from . import dual_path_cpu

    return dual_path_cpu if dual_path_cpu.serves(x) else None


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm in the dtype of its weight. Under autocast that keeps PyTorch's fused kernel: a mixture of
    bfloat16 input and float32 weight falls back to a chain of operations, a fifth of a training step."""

    def __init__(self, size: int):
        super().__init__(size, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.weight.dtype)
        if (kernels := _kernels(x)) is not None:
            return kernels.rms_norm(x, self.weight, self.eps)
        return super().forward(x)


class GELU(nn.GELU):
    """PyTorch's, or its equal in one pass over bfloat16 on a CPU, which writes over its input: a product's result."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernels = _kernels(x)
        return super().forward(x) if kernels is None else kernels.gelu(x)


class MLP(nn.Module):
    """MLP(x) = RMSNorm(W2 GELU(x W1 + b1) + b2), the block of all embeddings and of FiLM (paper, section 4.2)."""

    def __init__(self, in_size: int, inner_size: int, out_size: int):
        super().__init__()
        self.linear_1 = nn.Linear(in_size, inner_size)
        self.linear_2 = nn.Linear(inner_size, out_size)
        self.norm = RMSNorm(out_size)
        self.gelu = GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear_2(self.gelu(self.linear_1(x))))


class AngleEmbedding(nn.Module):
    """E = MLP(cos(d) * e_start + sin(d) * e_end), a Slerp between two learnt vectors (paper, section 4.2).

    Angles (B, L) in radians -> (B, L, H).

    Sine and cosine are taken in float32 whatever the weights' dtype, so that small angles stay apart.
    """

    def __init__(self, embedding_size: int, inner_size: int, out_size: int):
        super().__init__()
        self.start = nn.Parameter(torch.randn(embedding_size))
        self.end = nn.Parameter(torch.randn(embedding_size))
        self.mlp = MLP(embedding_size, inner_size, out_size)

    def forward(self, angle: torch.Tensor) -> torch.Tensor:
        angle = angle.float().unsqueeze(-1)
        embedding = angle.cos() * self.start.float() + angle.sin() * self.end.float()
        return self.mlp(embedding.to(self.start.dtype))


class MuLanEmbedding(nn.Module):
    """MLP of the vector that MuLan tokens stand for, (B, N) -> (B, H); 0 for a row of -1.

    It keeps the codebooks of their quantizer, of which nothing is trained: tokens of a sound and of its caption are
    mostly other ones, but what they stand for is alike. It begins at 0, so that a trained model may be given one.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, dim: int, inner_size: int, hidden_size: int):
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(num_codebooks, codebook_size, dim))
        self.mlp = MLP(dim, inner_size, hidden_size)
        nn.init.zeros_(self.mlp.norm.weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        codebook = torch.arange(tokens.shape[1], device=tokens.device)
        decoded = self.codebooks[codebook, tokens.clamp_min(0)].sum(1)  # (B, E), of length 1
        heard = (tokens >= 0).all(1, keepdim=True)
        return self.mlp(decoded * decoded.shape[1] ** 0.5) * heard


def rotate(x: torch.Tensor, rotary: Rotary | None) -> torch.Tensor:
    """(B, N, A, D), turned by the angles of the N positions."""
    if rotary is not None and (kernels := _kernels(x)) is not None:
        return kernels.rotate(x, *rotary)
    return apply_rotary_emb(x, rotary, use_real_unbind_dim=-2, sequence_dim=1)


class DualPathAttnProcessor:
    """Scaled dot-product attention with rotary positions, through diffusers' attention backends."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: "DualPathAttention",
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        query_rotary: Rotary | None = None,
        key_rotary: Rotary | None = None,
    ) -> torch.Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        key = attn.to_k(source).unflatten(-1, (attn.heads, -1))
        value = attn.to_v(source).unflatten(-1, (attn.heads, -1))
        query, key = rotate(query, query_rotary), rotate(key, key_rotary or query_rotary)
        attended = dispatch_attention_fn(
            query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config
        )
        return attn.to_out[0](attended.flatten(2))


class DualPathAttention(nn.Module, AttentionModuleMixin):
    """Multi-head attention of (B, N, H) on itself or on (B, S, H)."""

    _default_processor_cls = DualPathAttnProcessor
    _available_processors = [DualPathAttnProcessor]
    _supports_qkv_fusion = False

    def __init__(self, hidden_size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(hidden_size, hidden_size, bias=False)
        self.to_k = nn.Linear(hidden_size, hidden_size, bias=False)
        self.to_v = nn.Linear(hidden_size, hidden_size, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(hidden_size, hidden_size, bias=False)])
        self.set_processor(DualPathAttnProcessor())

    def forward(self, hidden_states: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        return self.processor(self, hidden_states, *args, **kwargs)


@dataclass
class Condition:
    """What every block hears: embeddings and the positions that tie segments and tokens to one clock.

    `tokens` holds the embedded semantic tokens of the conditional samples, which come first in the batch, and with each
    of them what their prompts say; the other samples hear none. `film` is the paper's m, one vector for each segment.
    """

    tokens: torch.Tensor | None  # (conditional samples, S, H)
    film: torch.Tensor  # (B, N, 1, H)
    segment_rotary: Rotary  # of segment numbers 0..N-1
    time_rotary: dict[int, Rotary]  # of the columns' times in tokens, by coarse width; flattened (W N)
    token_rotary: Rotary | None  # of the tokens' times


class RoFormerLayer(nn.Module):
    """Rotary self-attention between segments, cross-attention to the semantic tokens, feed-forward; pre-norm."""

    def __init__(self, hidden_size: int, heads: int):
        super().__init__()
        self.self_norm = RMSNorm(hidden_size)
        self.self_attention = DualPathAttention(hidden_size, heads)
        self.cross_norm = RMSNorm(hidden_size)
        self.cross_attention = DualPathAttention(hidden_size, heads)
        self.feed_forward_norm = RMSNorm(hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), GELU(), nn.Linear(4 * hidden_size, hidden_size)
        )

    def forward(self, x: torch.Tensor, condition: Condition) -> torch.Tensor:
        """(B, W, N, H) -> (B, W, N, H). Each column is a sequence over the segments."""
        width = x.shape[1]

        def attend_self(attention: DualPathAttention, x: torch.Tensor) -> torch.Tensor:
            y = attention(x.flatten(0, 1), query_rotary=condition.segment_rotary)  # (B W, N, H)
            return y.unflatten(0, (-1, width))

        x = x + attend_self(self.self_attention, self.self_norm(x))
        normed = self.cross_norm(x)
        num_conditional = 0 if condition.tokens is None else len(condition.tokens)
        crossed = []
        if condition.tokens is not None:  # all columns query the same tokens: one long sequence of queries
            y = self.cross_attention(
                normed[:num_conditional].flatten(1, 2),
                condition.tokens,
                query_rotary=condition.time_rotary[width],
                key_rotary=condition.token_rotary,
            )
            crossed.append(y.unflatten(1, (width, -1)))
        if num_conditional < len(x):  # classifier-free guidance: without tokens it attends to its own sequence
            crossed.append(attend_self(self.cross_attention, normed[num_conditional:]))
        x = x + torch.cat(crossed)
        return x + self.feed_forward(self.feed_forward_norm(x))


class DualPathBlock(nn.Module):
    """Coarse path between segments, then fine path within a segment: (B, N, K, H) -> (B, N, K, H)."""

    def __init__(self, hidden_size: int, heads: int, mlp_size: int, num_coarse_layers: int, coarse_width: int):
        super().__init__()
        self.coarse_width = coarse_width
        self.coarse_layers = nn.ModuleList(RoFormerLayer(hidden_size, heads) for _ in range(num_coarse_layers))
        self.fine_norm = RMSNorm(hidden_size)
        self.sru = SRU(hidden_size, hidden_size // 2, num_layers=2)
        self.film_scale = MLP(hidden_size, mlp_size, hidden_size)
        self.film_shift = MLP(hidden_size, mlp_size, hidden_size)
        self.film_out = MLP(hidden_size, mlp_size, hidden_size)
        self.out_norm = RMSNorm(hidden_size)

    def forward(self, x: torch.Tensor, condition: Condition) -> torch.Tensor:
        segment_length = x.shape[2]
        coarse = rearrange(merge_segments(x, self.coarse_width), "b n w h -> b w n h")
        for layer in self.coarse_layers:
            coarse = layer(coarse, condition)
        coarse = repeat_segments(rearrange(coarse, "b w n h -> b n w h"), segment_length)
        x = self.fine_norm(x + coarse)

        fine = self.sru(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # along K
        # FiLM(x, m) = MLP3(x * MLP1(m) + MLP2(m)) with m the angle and the mean of the tokens (paper, section 4.2)
        fine = self.film_out(fine * self.film_scale(condition.film) + self.film_shift(condition.film))
        return self.out_norm(x + fine)


@dataclass
class DualPathDiffusionOutput(BaseOutput):
    """`sample`: predicted velocity, (B, L, D)."""

    sample: torch.Tensor


class DualPathDiffusionModel(DiffusersModel):
    """Velocity of noisy latents (paper, eq. 5 and section 4.2). The defaults have 296.6 M parameters within 0.1 %.

    The paper gives the hidden width, the blocks and K; it leaves open the depth of the coarse transformer, the SRU's
    width and the MLPs' inner width. We take two rotary layers, H/2 channels for each direction of the SRU (so that
    its input is its own highway) and the inner width that meets the paper's count.

    Args:
        latent_dim: channels D of the latents.
        num_frames: frames L of the window the model is trained on (10 seconds).
        num_chunks: chunks M of a window that carry their own angle in training; generation continues by one chunk.
        semantic_codebook_size: number of semantic tokens.
        hidden_size: hidden channels H.
        num_blocks: dual-path blocks.
        segment_length: K, even, and divisible by the largest reduction 2^((num_blocks - 1) // 2).
        num_attention_heads: heads of every attention.
        num_coarse_layers: rotary transformer layers in a coarse path.
        mlp_size: inner width of the MLPs of embeddings and FiLM.
        angle_embedding_size: length of the two learnt angle vectors.
        frame_conditioning: add each frame's own semantic embedding to the input. The paper conditions by
            cross-attention and FiLM alone; a small model learns the alignment much sooner with it.
        num_mulan_codebooks: MuLan tokens N of the prompt that it hears besides the plan. With 0, as in the paper, it
            hears none; a plan of ten bits a token tells a small model too little of who plays.
        mulan_codebook_size: number of MuLan tokens of a codebook.
        mulan_dim: width E of the MuLan embeddings that these tokens stand for.
        split_frames: frames of the network for each frame of the latents, r. Latents of few wide frames are rendered
            with as much care as those of more and narrower ones.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["DualPathBlock"]
    _repeated_blocks = ["DualPathBlock"]
    _skip_layerwise_casting_patterns = ["angle_embedding", "norm"]

    @register_to_config
    def __init__(
        self,
        latent_dim: int = 16,
        num_frames: int = 2500,
        num_chunks: int = 4,
        semantic_codebook_size: int = 1024,
        hidden_size: int = 768,
        num_blocks: int = 8,
        segment_length: int = 64,
        num_attention_heads: int = 12,
        num_coarse_layers: int = 2,
        mlp_size: int = 2944,
        angle_embedding_size: int = 256,
        frame_conditioning: bool = False,
        num_mulan_codebooks: int = 0,
        mulan_codebook_size: int = 0,
        mulan_dim: int = 0,
        split_frames: int = 1,
    ):
        super().__init__()
        widths = coarse_widths(num_blocks, segment_length)
        if hidden_size % (2 * num_attention_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 * num_attention_heads = {2 * num_attention_heads}; "
                f"got {hidden_size}."
            )
        self.angle_embedding = AngleEmbedding(angle_embedding_size, mlp_size, hidden_size)
        self.token_embedding = nn.Embedding(semantic_codebook_size, hidden_size)
        self.token_mlp = MLP(hidden_size, mlp_size, hidden_size)
        if num_mulan_codebooks:
            self.mulan_embedding = MuLanEmbedding(
                num_mulan_codebooks, mulan_codebook_size, mulan_dim, mlp_size, hidden_size
            )
        self.proj_in = nn.Linear(latent_dim, split_frames * hidden_size)
        self.in_norm = RMSNorm(hidden_size)
        self.blocks = nn.ModuleList(
            DualPathBlock(hidden_size, num_attention_heads, mlp_size, num_coarse_layers, width) for width in widths
        )
        self.norm_out = RMSNorm(hidden_size)
        self.proj_out = nn.Linear(split_frames * hidden_size, latent_dim)
        self.gradient_checkpointing = False

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        latents: torch.Tensor,
        angle: torch.Tensor | float,
        semantic_tokens: torch.Tensor | None = None,
        mulan_tokens: torch.Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> DualPathDiffusionOutput | tuple[torch.Tensor]:
        """Predict the velocity v = cos(d) noise - sin(d) z.

        Args:
            latents: noisy latents z_d, (B, L, D).
            angle: d in [0, pi/2] for each frame, in radians: (B, L), or anything that broadcasts to it, on any device.
            semantic_tokens: (B_c, S) with B_c <= B, spread evenly over the L frames. The first B_c samples are
                conditional; the rest, all of them when it is None, hear no token: their cross-attention attends to
                their own sequence and their FiLM drops the tokens' mean.
            mulan_tokens: (B_c, N), of the conditional samples' prompts, -1 where a sample has none; for a model with
                `num_mulan_codebooks`. By default none of them has one.
            attention_kwargs: `{"scale": s}` scales LoRA adapters.
            return_dict: return a `DualPathDiffusionOutput` rather than a tuple.

        Returns:
            The velocity, (B, L, D).
        """
        split, batch_size = self.config.split_frames, len(latents)
        num_frames = latents.shape[1] * split
        dtype = self.dtype  # the compute dtype, also where layerwise casting stores weights in another
        angle = torch.as_tensor(angle, dtype=torch.float32, device=latents.device)
        angles = self.angle_embedding(torch.atleast_1d(angle))  # as few as there are
        angles = angles.expand(batch_size, latents.shape[1], -1).repeat_interleave(split, dim=1)
        x = self.proj_in(latents.to(dtype)).unflatten(-1, (split, -1)).flatten(1, 2) + angles  # (B, r L, H)
        tokens = None
        film = angles[:, self._segment_starts(num_frames, latents.device)]  # (B, N, H)
        if semantic_tokens is not None and len(semantic_tokens):
            tokens = self.token_mlp(self.token_embedding(semantic_tokens))  # (B_c, S, H)
            if mulan_tokens is not None and self.config.num_mulan_codebooks:
                tokens = tokens + self.mulan_embedding(mulan_tokens).unsqueeze(1)
            unconditional = (0, 0, 0, 0, 0, batch_size - len(tokens))
            film = film + F.pad(tokens.mean(1, keepdim=True), unconditional)
            if self.config.frame_conditioning:
                token_of_frame = torch.arange(num_frames, device=x.device) * tokens.shape[1] // num_frames
                x = x + F.pad(tokens[:, token_of_frame], unconditional)
        condition = self._condition(tokens, film, num_frames)

        # Contiguous as each block's output is: a compiled block would need one more graph for the strides of a view.
        x = segment(self.in_norm(x), self.config.segment_length).contiguous()  # (B, N, K, H)
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, x, condition)
            else:
                x = block(x, condition)
        velocity = self.proj_out(self.norm_out(overlap_add(x, num_frames)).unflatten(1, (-1, split)).flatten(2))
        return DualPathDiffusionOutput(sample=velocity) if return_dict else (velocity,)

    def _segment_starts(self, num_frames: int, device: torch.device) -> torch.Tensor:
        """Frame floor(s L / N) whose angle stands for segment s in FiLM."""
        segments = num_segments(num_frames, self.config.segment_length)
        return torch.arange(segments, device=device) * num_frames // segments

    def _condition(self, tokens: torch.Tensor | None, film: torch.Tensor, num_frames: int) -> Condition:
        config, device, dtype = self.config, film.device, film.dtype
        segments = torch.arange(film.shape[1], device=device, dtype=torch.float32)

        def rotary(positions: torch.Tensor) -> Rotary:
            head_dim = config.hidden_size // config.num_attention_heads
            cos, sin = get_1d_rotary_pos_embed(head_dim, positions, use_real=True, repeat_interleave_real=False)
            return cos.to(dtype), sin.to(dtype)

        time_rotary: dict[int, Rotary] = {}
        token_rotary = None
        if tokens is not None:
            tokens_per_frame = tokens.shape[1] / num_frames
            token_rotary = rotary(torch.arange(tokens.shape[1], device=device, dtype=torch.float32) + 0.5)
            for width in {block.coarse_width for block in self.blocks}:
                column_frames = config.segment_length / width
                columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * column_frames
                starts = (segments - 1) * (config.segment_length // 2)
                times = (columns[:, None] + starts[None, :]) * tokens_per_frame  # (W, N), centre of each column
                time_rotary[width] = rotary(times.flatten())
        return Condition(tokens, film.unsqueeze(2), rotary(segments), time_rotary, token_rotary)


def coarse_widths(num_blocks: int, segment_length: int) -> list[int]:
    """K_MS(i) = K / 2^min(i - 1, N - i): 64, 32, 16, 8, 8, 16, 32, 64 for the paper's 8 blocks and K = 64."""
    reductions = [2 ** min(i, num_blocks - 1 - i) for i in range(num_blocks)]
    if segment_length % 2 or segment_length % max(reductions):
        raise ValueError(
            f"segment_length must be even and divisible by {max(reductions)} for {num_blocks} blocks; "
            f"got {segment_length}."
        )
    return [segment_length // reduction for reduction in reductions]
