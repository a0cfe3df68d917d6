"""Kernel audio distance: a Frechet distance that asks for no Gaussians and does not shrink with the number of clips.

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),    k(a, b) = exp(-|a - b|^2 / (2 s^2))

with the two first means over pairs of different vectors, so that its expectation is the same for few vectors as for
many (Chung et al. 2025, "KAD: No More FAD!", who print 100 times this figure). It is zero on average for two sets of
one kind, so small values may be negative.

The bandwidth s is the median distance between vectors of the *reference*. Where it depends on the set that is judged,
figures of two systems cannot be compared.
"""

import torch

from melody_diffusers.evaluation.frechet import check_sets


def median_pairwise_distance(vectors: torch.Tensor) -> float:
    """The median Euclidean distance between two different vectors of (N, E): the lower one of an even number."""
    return torch.pdist(vectors.detach().cpu().double()).median().item()


def kernel_audio_distance(embeddings: torch.Tensor, reference: torch.Tensor, bandwidth: float | None = None) -> float:
    """100 times the unbiased squared maximum mean discrepancy of two sets of vectors, in float64.

    Args:
        embeddings: (N, E), the set to judge.
        reference: (M, E).
        bandwidth: s above; by default the median distance within the reference.

    Raises:
        ValueError: a set holds fewer than two vectors, the widths differ, or the bandwidth is 0: more than half of all
            pairs of the reference are copies of each other.
    """
    check_sets(embeddings, reference)
    if bandwidth is None:
        bandwidth = median_pairwise_distance(reference)
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth}")
    x, y = (vectors.detach().cpu().double() for vectors in (embeddings, reference))

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        squares = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
        return torch.exp(-squares / (2 * bandwidth**2))

    def mean_of_pairs(a: torch.Tensor) -> torch.Tensor:
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))  # k(a, a) = 1

    return 100 * (mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean()).item()
