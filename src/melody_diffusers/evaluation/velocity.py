"""How well a diffusion model predicts the velocity of latents it has not seen: the paper's Table 5, angle by angle.

Shapes: B samples, L latent frames, D latent width, S semantic tokens.
"""

import math
from collections.abc import Iterable, Mapping

import torch

from melody_diffusers.evaluation.reconstruction import si_sdr
from melody_diffusers.models.dual_path import DualPathDiffusionModel
from melody_diffusers.schedulers.angle import AngleScheduler


@torch.no_grad()
def velocity_figures(
    model: DualPathDiffusionModel,
    batches: Iterable[Mapping[str, torch.Tensor]],
    num_angles: int = 8,
    known_share: float = 0.0,
) -> dict[str, float]:
    """Velocity MSE and SI-SNR improvement at angles in the middle of `num_angles` equal bins of [0, pi/2].

    A velocity of zeros has, for latents of unit variance, an MSE of 1 and an improvement of 0 dB. The improvement is
    the SI-SNR of the clean latents that follow from the predicted velocity, less that of the noisy latents.

    Args:
        model: in evaluation mode.
        batches: each `latents` (B, L, D), `semantic_tokens` (B, S) and perhaps `mulan_tokens` (B, N); the noise of
            batch n comes from seed n.
        known_share: share of each window, from its start, that is clean (angle 0) and not judged, as when a piece goes
            on.

    Returns:
        `velocity_mse` and `si_snr_improvement` in decibels, means over all angles, and each of them for every angle,
        `velocity_mse/angle_0.10`, ...
    """
    scheduler = AngleScheduler()
    angles = [(i + 0.5) / num_angles * math.pi / 2 for i in range(num_angles)]
    errors: list[list[torch.Tensor]] = [[] for _ in angles]
    gains: list[list[torch.Tensor]] = [[] for _ in angles]
    for n, batch in enumerate(batches):
        z, conditions = batch["latents"], [name for name in ("semantic_tokens", "mulan_tokens") if name in batch]
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(n)).to(z)
        known = int(known_share * z.shape[1])
        for i, value in enumerate(angles):
            dtype = torch.promote_types(z.dtype, torch.float32)
            angle = torch.full((1, z.shape[1]), value, device=z.device, dtype=dtype)
            angle[:, :known] = 0.0
            noisy, target = scheduler.add_noise(z, noise, angle), scheduler.get_velocity(z, noise, angle)
            velocity = model(noisy, angle, *(batch[name] for name in conditions)).sample
            estimate = scheduler.add_noise(noisy, -velocity, angle)  # cos(d) z_d - sin(d) v
            errors[i].append((velocity - target)[:, known:].float().square().mean(dim=(1, 2)))  # (B,)
            clean, *others = (x[:, known:].flatten(1).cpu() for x in (z, estimate, noisy))
            after, before = (si_sdr(x, clean) for x in others)
            gains[i].append(after - before)
    figures: dict[str, float] = {}
    for name, values in (("velocity_mse", errors), ("si_snr_improvement", gains)):
        means = [torch.cat(of_angle).mean().item() for of_angle in values]
        figures |= {f"{name}/angle_{angle:.2f}": mean for angle, mean in zip(angles, means, strict=True)}
        figures[name] = sum(means) / num_angles
    return figures
