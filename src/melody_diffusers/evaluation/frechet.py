"""Frechet audio distance: how far a set of clips lies from a reference set, judged by their embeddings.

Both sets are summarised as Gaussians in an embedding space and compared by the 2-Wasserstein distance between them:

    d^2 = |m_a - m_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2))

(Kilgour et al. 2019; the paper's FAD columns use VGGish and MuLan embeddings.) `embeddings.py` has embeddings.

Shapes: E embedding width, N and M vectors in the sets.
"""

import numpy as np
import torch


def gaussian_frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """The squared Frechet distance of two Gaussians with means (E,) and covariances (E, E).

    The trace of (C_a C_b)^(1/2) is the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2): a symmetric
    matrix, so that singular covariances (fewer clips than dimensions) need neither a ridge nor complex numbers.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.linalg.eigvalsh(root_a @ covariance_b @ root_a).clip(min=0)
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(cross).sum()
    return max(float(np.sum((mean_a - mean_b) ** 2) + spread), 0.0)


def check_sets(embeddings: torch.Tensor, reference: torch.Tensor) -> None:
    """A ValueError unless these are (N, E) and (M, E) with N and M at least 2: spread and pairs need two vectors."""
    if embeddings.ndim != 2 or reference.ndim != 2 or embeddings.shape[1] != reference.shape[1]:
        raise ValueError(
            f"embeddings and reference are (N, E) and (M, E), got {tuple(embeddings.shape)} and "
            f"{tuple(reference.shape)}"
        )
    if min(len(embeddings), len(reference)) < 2:
        raise ValueError(f"a distance needs two vectors or more, got {len(embeddings)} and {len(reference)}")


def frechet_distance(embeddings: torch.Tensor, reference: torch.Tensor) -> float:
    """The squared Frechet distance of two sets of vectors (N, E) and (M, E), each fitted by a Gaussian in float64.

    Raises:
        ValueError: a set holds fewer than two vectors, or the widths differ.
    """
    check_sets(embeddings, reference)
    a, b = (x.detach().cpu().double().numpy() for x in (embeddings, reference))
    return gaussian_frechet_distance(
        a.mean(axis=0), np.cov(a, rowvar=False, ddof=1), b.mean(axis=0), np.cov(b, rowvar=False, ddof=1)
    )
