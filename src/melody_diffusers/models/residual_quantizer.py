"""Residual vector quantizer: a MuLan embedding as a few tokens (section 3.1 of the paper; Zeghidour et al. 2021).

The first codebook holds the centres of the embeddings, every further one the centres of what its predecessors left.

Shapes: B batch (points), Q codebooks, V entries of each, E embedding width.
"""

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from ..hf.bases import DiffusersModel
from .clustering import k_means, nearest


class ResidualQuantizer(DiffusersModel):
    """Embeddings (B, E) to tokens (B, Q) and back; the codebooks are fitted by k-means, not by gradients.

    Args:
        num_codebooks: tokens per embedding.
        codebook_size: entries of each codebook.
        dim: width of the embeddings.
    """

    @register_to_config
    def __init__(self, num_codebooks: int = 12, codebook_size: int = 1024, dim: int = 128) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(num_codebooks, codebook_size, dim))  # (Q, V, E)

    def encode(self, embeddings: Tensor) -> Tensor:
        """Tokens (B, Q) int64: in each codebook the entry nearest to what the earlier entries left."""
        self._check(embeddings)
        residual = embeddings.to(self.codebooks.device, torch.float32)
        tokens = []
        for codebook in self.codebooks.float():
            chosen = nearest(residual, codebook)  # (B,)
            residual = residual - codebook[chosen]
            tokens.append(chosen)
        return torch.stack(tokens, dim=1)  # (B, Q)

    def decode(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, E): the sum of the chosen entries. Fewer than Q tokens give the coarser approximation."""
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.config.num_codebooks:
            raise ValueError(
                f"tokens must have shape (B, 1 to {self.config.num_codebooks}), got {tuple(tokens.shape)}."
            )
        codebooks = self.codebooks.float()
        return torch.stack([codebooks[q][tokens[:, q]] for q in range(tokens.shape[1])]).sum(dim=0)

    @torch.no_grad()
    def fit(
        self,
        embeddings: Tensor,
        generator: torch.Generator | None = None,
        num_iterations: int = 30,
        refine: bool = False,
    ) -> Tensor:
        """Fits all codebooks to embeddings (B, E), one after the other.

        Args:
            refine: begin with the codebooks that it has, so that tokens keep about the meaning they have.

        Returns:
            the mean squared distance that is left after each codebook (Q,); it never grows.
        """
        self._check(embeddings)
        residual = embeddings.to(self.codebooks.device, torch.float32)
        errors = []
        for q in range(self.config.num_codebooks):
            start = self.codebooks[q].float() if refine else None
            codebook = k_means(residual, self.config.codebook_size, generator, num_iterations, start)
            self.codebooks[q] = codebook
            codebook = self.codebooks[q].float()  # as rounded by the buffer's dtype, so that the next one repairs it
            residual = residual - codebook[nearest(residual, codebook)]
            errors.append(residual.square().sum(dim=-1).mean())
        return torch.stack(errors)

    def _check(self, embeddings: Tensor) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.config.dim:
            raise ValueError(f"embeddings must have shape (B, {self.config.dim}), got {tuple(embeddings.shape)}.")
