"""Nearest centres and k-means, of which both vocabularies are made: MuLan tokens and semantic tokens.

Shapes: B points, V centres, E their width.
"""

import torch
from torch import Tensor


def k_means(
    points: Tensor,
    num_centres: int,
    generator: torch.Generator | None,
    num_iterations: int,
    centres: Tensor | None = None,
) -> Tensor:
    """Centres (V, E) of points (B, E): k-means++ seeding, or `centres` (V, E) to begin with, then Lloyd's iterations.

    A centre without points moves to the point that is worst off (the second such centre to the second worst, and so
    on). With fewer distinct points than centres, every point gets a centre of its own and the rest repeat some.
    """
    if centres is None:
        centres = _seed_centres(points, num_centres, generator)
    for _ in range(num_iterations):
        chosen = nearest(points, centres)
        count = torch.bincount(chosen, minlength=num_centres)  # (V,)
        total = torch.zeros_like(centres).index_add_(0, chosen, points)
        updated = torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None], centres)
        dead = (count == 0).nonzero().flatten()
        if len(dead) > 0:
            error = (points - updated[chosen]).square().sum(dim=-1)
            worst = error.argsort(descending=True, stable=True)[: len(dead)]
            worst = worst[error[worst] > 0]
            updated[dead[: len(worst)]] = points[worst]
        if torch.equal(updated, centres):
            break
        centres = updated
    return centres


def _seed_centres(points: Tensor, num_centres: int, generator: torch.Generator | None) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre is a point drawn by its squared distance so far."""

    def draw(weight: Tensor) -> Tensor:
        # by inversion of the cumulative sum, on the CPU, which knows float64; multinomial caps its categories
        cumulative = weight.cpu().double().cumsum(0)
        device = torch.device("cpu") if generator is None else generator.device
        kind = torch.float64 if device.type in ("cpu", "cuda") else torch.float32  # not all devices have both
        threshold = torch.rand((), generator=generator, device=device, dtype=kind).cpu() * cumulative[-1]
        return torch.searchsorted(cumulative, threshold, right=True).clamp(max=len(weight) - 1)

    chosen = [points[draw(torch.ones(len(points)))]]
    distance = (points - chosen[0]).square().sum(dim=-1)
    for _ in range(num_centres - 1):
        weight = distance if distance.max() > 0 else torch.ones_like(distance)
        chosen.append(points[draw(weight)])
        distance = torch.minimum(distance, (points - chosen[-1]).square().sum(dim=-1))
    return torch.stack(chosen)


def nearest(points: Tensor, centres: Tensor, chunk_size: int = 16384) -> Tensor:
    """Index of the centre nearest to each point, (..., E) to (...); the lower index wins a tie."""
    half_norm = 0.5 * centres.square().sum(dim=-1)  # |p - c|^2 = |p|^2 - 2 p.c + |c|^2, and |p|^2 is the same for all
    chunks = points.flatten(0, -2).split(chunk_size)
    return torch.cat([(half_norm - chunk @ centres.T).argmin(dim=-1) for chunk in chunks]).view(points.shape[:-1])
