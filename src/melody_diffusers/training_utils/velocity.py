"""A network that predicts velocities, as it is trained: the loss of all chunks of a window (paper, section 4.1, eq. 7),
and which weights learn where it was distilled.

Shapes: B batch, L latent frames, D latent width, S semantic tokens, M chunks.
"""

import math
import os
from typing import Any

import torch
from torch import Tensor, nn

from ..losses import velocity_loss
from ..models.dual_path import DualPathDiffusionModel
from ..schedulers.angle import AngleScheduler
from ..timebase import chunk_boundaries


def load_teacher(model: str | os.PathLike, **options: Any) -> DualPathDiffusionModel | None:
    """The diffusion model that one was distilled from, in float32: its variant `teacher`; None where there is none.

    Args:
        model: folder or repository of the distilled one. options: for `from_pretrained`, `subfolder` say.

    Raises:
        OSError: it is there and damaged.
    """
    try:
        return DualPathDiffusionModel.from_pretrained(model, variant="teacher", dtype=torch.float32, **options)
    except FileNotFoundError:
        return None


def chunk_angles(draws: Tensor, num_frames: int) -> Tensor:
    """One angle for each chunk, d ~ Uniform[0, pi/2], from uniform draws (B, M), repeated over its frames: (B, L)."""
    borders = chunk_boundaries(num_frames, draws.shape[1])
    columns = (draws * (math.pi / 2)).split(1, dim=1)
    return torch.cat([d.expand(-1, stop - start) for d, start, stop in zip(columns, borders, borders[1:])], dim=1)


def multi_chunk_loss(
    model: nn.Module,
    z: Tensor,
    tokens: Tensor,
    noise: Tensor,
    angle: Tensor,
    drops: Tensor,
    mulan_tokens: Tensor | None = None,
    is_split: bool = False,
) -> Tensor:
    """Mean squared error of the velocities that `model` predicts of a batch.

    Args:
        model: called like DualPathDiffusionModel, which wants the samples that hear tokens first.
        z, noise: (B, L, D).
        tokens: (B, S).
        angle: (B, L).
        drops: (B,) bool on the CPU: samples that hear no token, for classifier-free guidance.
        mulan_tokens: (B, N), for a model that hears the prompt.
        is_split: the model's weights lie on several processes, all of which then have to use the same of them.
    """
    scheduler = AngleScheduler()
    order = drops.int().argsort(stable=True).to(z.device, non_blocking=z.device.type != "mps")
    num_conditional = len(z) - int(drops.sum())
    z, noise, angle, tokens = z[order], noise[order], angle[order], tokens[order[:num_conditional]]
    prompt = () if mulan_tokens is None else (mulan_tokens[order[:num_conditional]],)
    noisy = scheduler.add_noise(z, noise, angle)
    if num_conditional or not is_split:
        velocity = model(noisy, angle, tokens, *prompt).sample
    else:  # a sample more, with any token, that counts nothing
        any_tokens = [each.new_zeros(1, each.shape[1]) for each in (tokens, *prompt)]
        velocity = model(torch.cat([noisy[:1], noisy]), torch.cat([angle[:1], angle]), *any_tokens).sample
        velocity = velocity[1:] + 0.0 * velocity[:1]
    return velocity_loss(velocity.float(), scheduler.get_velocity(z, noise, angle))
