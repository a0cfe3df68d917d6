"""Angle-parameterised diffusion (paper, section 4.1): noise is a rotation, and a reverse step rotates back.

    z_d = cos(d) z + sin(d) noise,  d in [0, pi/2]                      (eq. 1)
    v = dz_d / dd = cos(d) noise - sin(d) z                             (velocity, what the network predicts)
    z_{d - omega} = cos(omega) z_d - sin(omega) v                       (eq. 9, deterministic DDIM)

Angles are in radians and broadcast against latents (B, L, D): a scalar, one for each sample (B,), or one for each
frame (B, L).
"""

import math
from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from ..hf.bases import DiffusersScheduler

Schedule = Literal["linear", "uniform"]


def angle_steps(num_inference_steps: int, schedule: Schedule = "linear") -> torch.Tensor:
    """Steps omega_T .. omega_1 in the order in which they are taken, (T,) float64; they sum to pi/2.

    `uniform`: omega_t = pi / (2T). `linear`: omega_t = pi / (6T) + 2 pi t / (3 T (T + 1)) (eq. 4), large steps first.
    """
    total = num_inference_steps
    if schedule == "uniform":
        return torch.full((total,), math.pi / (2 * total), dtype=torch.float64)
    t = torch.arange(total, 0, -1, dtype=torch.float64)
    return math.pi / (6 * total) + 2 * math.pi * t / (3 * total * (total + 1))


def _rotate(x: torch.Tensor, y: torch.Tensor, angle: torch.Tensor | float) -> torch.Tensor:
    """cos(angle) x + sin(angle) y, with sine and cosine taken in at least float32."""
    angle = torch.as_tensor(angle, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
    angle = angle.reshape(angle.shape + (1,) * (x.ndim - angle.ndim))
    return (angle.cos() * x + angle.sin() * y).to(x.dtype)


class AngleScheduler(DiffusersScheduler):
    """The paper's sampler, in the shape of a diffusers scheduler whose `timesteps` are angles in radians.

    `step` keeps no state: the angle it is given tells which step to take.

    Args:
        schedule: how the angle falls from pi/2 to 0: `linear` (the paper's, eq. 4) or `uniform`.
    """

    order = 1
    init_noise_sigma = 1.0
    has_compatibles = False

    @register_to_config
    def __init__(self, schedule: Schedule = "linear"):
        if schedule not in ("linear", "uniform"):
            raise ValueError(f'schedule must be "linear" or "uniform"; got {schedule!r}.')
        self.num_inference_steps: int | None = None
        self.timesteps = torch.empty(0)
        self.omegas = torch.empty(0)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Fill `timesteps`, the angles d_T = pi/2 .. d_1 at which the network is asked, and their steps `omegas`.

        Raises:
            ValueError: for fewer than one step.
        """
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1; got {num_inference_steps}.")
        omegas = angle_steps(num_inference_steps, self.config.schedule)
        self.num_inference_steps = num_inference_steps
        self.omegas = omegas.float().to(device)
        self.timesteps = omegas.flip(0).cumsum(0).flip(0).float().to(device)  # d_t: the steps still to take

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor | float | None = None) -> torch.Tensor:
        """Latents need no scaling: their variance is the same at every angle."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor | float,
        sample: torch.Tensor,
        return_dict: bool = True,
        next_timestep: torch.Tensor | float | None = None,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """One reverse step (eq. 9): rotate the latents by the omega that belongs to this angle.

        Args:
            model_output: predicted velocity, (B, L, D).
            timestep: the current angle, one of `timesteps`; any angle where `next_timestep` is given.
            sample: current latents, (B, L, D).
            return_dict: return a `SchedulerOutput` rather than a tuple.
            next_timestep: the angle to go to, so that omega = timestep - next_timestep; frames for which the two are
                equal stay as they are. By default the angle that follows in `timesteps`.
        """
        if next_timestep is not None:
            omega = torch.as_tensor(timestep - next_timestep)
        elif self.num_inference_steps is None:
            raise ValueError("AngleScheduler has no steps yet: call set_timesteps(num_inference_steps) first.")
        else:
            omega = self.omegas.take((self.timesteps - timestep).abs().argmin())  # as an index it would be waited for
        prev_sample = _rotate(sample, model_output, -omega)
        return SchedulerOutput(prev_sample=prev_sample) if return_dict else (prev_sample,)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor | float
    ) -> torch.Tensor:
        """z_d = cos(d) z + sin(d) noise (eq. 1), for angles that broadcast as the module says."""
        return _rotate(original_samples, noise, timesteps)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor | float) -> torch.Tensor:
        """v = cos(d) noise - sin(d) z, the training target."""
        return _rotate(noise, -sample, timesteps)
