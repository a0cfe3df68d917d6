"""The training loop of a network that predicts velocities (paper, section 4.1, eq. 7).

Shapes: B batch, L latent frames, D latent width, S semantic tokens, M chunks.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..losses import velocity_loss
from ..schedulers.angle import AngleScheduler
from ..timebase import chunk_boundaries
from .run import TrainingRun


def chunk_angles(draws: Tensor, num_frames: int) -> Tensor:
    """One angle for each chunk, d ~ Uniform[0, pi/2], from uniform draws (B, M), repeated over its frames: (B, L)."""
    ends = chunk_boundaries(num_frames, draws.shape[1])
    lengths = torch.tensor(ends, device=draws.device).diff()
    return (draws * (math.pi / 2)).repeat_interleave(lengths, dim=1)


def train_velocity(
    run: TrainingRun, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, drop_tokens: float
) -> None:
    """Trains `model` until the run ends.

    Args:
        model: called like DualPathDiffusionModel; `model.config.num_chunks` is how many angles a window has.
        loader: batches of `latents` (B, L, D) and `semantic_tokens` (B, S).
        drop_tokens: probability that a sample hears no token, for classifier-free guidance.
    """
    scheduler = AngleScheduler()
    for batch in run.steps(loader):
        z, tokens = batch["latents"].float(), batch["semantic_tokens"]  # (B, L, D), (B, S)
        drops = run.rand("drop", len(z)) < drop_tokens
        order = drops.int().argsort(stable=True)  # samples without tokens come last
        angle = chunk_angles(run.rand("angle", len(z), model.config.num_chunks), z.shape[1])[order]
        z, tokens, noise = z[order], tokens[order], run.randn("noise", *z.shape)[order]
        num_conditional = len(z) - int(drops.sum())
        with run.autocast():
            noisy = scheduler.add_noise(z, noise, angle)
            if num_conditional or not run.run.fsdp:
                velocity = model(noisy, angle, tokens[:num_conditional]).sample
            else:  # the processes of a split model have to use the same weights: another sample, that counts nothing
                velocity = model(torch.cat([noisy[:1], noisy]), torch.cat([angle[:1], angle]), tokens[:1]).sample
                velocity = velocity[1:] + 0.0 * velocity[:1]
            loss = velocity_loss(velocity.float(), scheduler.get_velocity(z, noise, angle))
        run.backward(loss, optimizer)
        run.finish_step(velocity=loss)
