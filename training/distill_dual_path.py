"""Distils a diffusion model and its guidance into one that needs half the steps, each at half the work.

Progressive distillation (Salimans and Ho 2022) in angles: from an angle d the guided teacher takes two steps of omega,
the student learns the one velocity that goes as far,

    v = (cos(2 omega) z_d - z_{d - 2 omega}) / sin(2 omega),    2 omega = pi / (2 T)        (eq. 9, solved for v)

frame by frame, each chunk of a window at an angle of its own. The student takes T equal steps without guidance, and on
the diagonal of a longer piece as many as its chunks take there. With `data.teacher` a student, `data.guidance_scale=1`
and half of T, it can be halved again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from melody_diffusers.data.datasets import EncodedClips
from melody_diffusers.losses import velocity_loss
from melody_diffusers.models.dual_path import DualPathDiffusionModel
from melody_diffusers.pipelines.denoise import Diagonal, guided_velocity, window_and_chunk
from melody_diffusers.schedulers.angle import AngleScheduler
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args
from melody_diffusers.training_utils.velocity import chunk_angles


@dataclass(kw_only=True)
class DataConfig:
    """What is learnt from.

    Args:
        folder: output of encode_dataset.py.
        teacher: folder of the model to distil.
        start: folder of a student to go on from, of an earlier teacher say; by default it begins as its teacher.
        num_steps: T, of the student, all equal; the teacher takes twice as many.
        guidance_scale, prompt_guidance_scale, guidance_interval: of the teacher, as in the pipeline; 1 is no guidance.
        guidance_rescale: how far the level that guidance raises is brought back, 0 to 1 (`guided_velocity`).
        known_share: of the chunks, which stand at angle 0, as the past of a continuation does.
        diagonal_share: of the batches, whose windows stand as they do on the diagonal of a longer piece
            (pipelines/denoise.py), with its steps.
        text_share: share of windows that hear the MuLan tokens of a text, the others those of their sound.
        num_tokens: semantic tokens of a training window.
    """

    folder: str
    teacher: str
    start: str | None = None
    num_steps: int = 3
    guidance_scale: float = 2.5
    prompt_guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 0.85)
    guidance_rescale: float = 0.7
    known_share: float = 0.25
    diagonal_share: float = 0.0
    text_share: float = 0.5
    num_tokens: int = 250
    validation_windows: int = 64


def step_angles(draws: Tensor, num_frames: int, num_steps: int, known_share: float) -> Tensor:
    """Angles (B, L) at which a sampler of equal steps asks, one for each chunk, from uniform draws (B, M); 0 in
    `known_share` of the chunks."""
    unknown = ((draws - known_share) / (1 - known_share)).clamp(max=1 - 1e-6)  # [0, 1) where it is not negative
    steps = torch.where(unknown < 0, 0.0, (unknown * num_steps).floor() + 1)
    return chunk_angles(steps / num_steps, num_frames)


def diagonal_angles(draws: Tensor, diagonal: Diagonal) -> Tensor:
    """Angles (B, L) of windows of the diagonal before one of its calls, that of uniform draws (B,), from its first to
    that which finds a window full of known chunks but for those on their way."""
    last = diagonal.calls * (diagonal.window // diagonal.chunk)
    calls = (draws * (last + 1)).long().tolist()
    starts = [max(0, diagonal.start(max(0, (call - diagonal.total) // diagonal.calls + 1))) for call in calls]
    angles = [diagonal.angles(call, start, diagonal.window) for call, start in zip(calls, starts, strict=True)]
    return torch.stack(angles).to(draws)


def two_steps(velocity: Callable[[Tensor, Tensor], Tensor], z: Tensor, angle: Tensor, omega: float) -> Tensor:
    """The velocity (B, L, D) that takes latents z at angles (B, L) in one step of 2 omega where `velocity` of latents
    and angles takes them in two; 0 in frames whose angle is 0."""
    scheduler, there = AngleScheduler(), z
    for step in (0, 1):
        before, after = ((angle - turn * omega).clamp(min=0) for turn in (step, step + 1))
        there = scheduler.step(velocity(there, before).float(), before, there, next_timestep=after).prev_sample
    return (math.cos(2 * omega) * z - there) / math.sin(2 * omega) * (angle > 0).unsqueeze(-1)


def teacher_velocity(
    teacher: torch.nn.Module, condition: tuple[Tensor, ...], data: DataConfig
) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided velocity of latents (B, L, D) and angles (B, L), after semantic tokens and MuLan tokens."""
    lowest, highest = (share * math.pi / 2 for share in data.guidance_interval)

    def velocity(z: Tensor, angle: Tensor) -> Tensor:
        within = ((angle > lowest - 1e-4) & (angle < highest + 1e-4)).unsqueeze(-1)  # (B, L, 1)
        scales = (data.guidance_scale, data.prompt_guidance_scale)
        each = [scale if scale == 1 else torch.where(within, scale, 1.0) for scale in scales]
        return guided_velocity(
            lambda *inputs: teacher(*inputs).sample, z, angle, condition, *each, rescale=data.guidance_rescale
        )

    return velocity


def main() -> None:
    args = parse_args(__doc__)
    sections = {"data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    config = load_config(args.config, sections, args.set)
    data = config.data
    torch.manual_seed(config.run.seed)
    model = DualPathDiffusionModel.from_pretrained(data.start or data.teacher).float()
    run = TrainingRun(config.run, models={"dual_path": model}, config=config)
    teacher = DualPathDiffusionModel.from_pretrained(data.teacher).float().eval().requires_grad_(False).to(run.device)
    optimizer = run.optimizer(model.parameters(), config.optim)
    clips = EncodedClips(data.folder, "train", data.num_tokens, text_share=data.text_share)
    loader = DataLoader(clips, batch_size=config.run.batch_size, shuffle=True, num_workers=config.run.num_workers)

    def distance(
        batch: dict[str, Tensor], noise: Tensor, draws: Tensor, is_diagonal: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Student's velocity and the teacher's of two steps."""
        z, condition = batch["latents"].float(), (batch["semantic_tokens"], batch["mulan_tokens"])
        if is_diagonal:
            window, chunk = window_and_chunk(model.config, z.shape[1])
            diagonal = Diagonal.plan(window, chunk, data.num_steps, 1)
            omega, angle = math.pi / (4 * diagonal.total), diagonal_angles(draws[:, 0], diagonal)
        else:
            omega = math.pi / (4 * data.num_steps)
            angle = step_angles(draws, z.shape[1], data.num_steps, data.known_share)
        noisy = AngleScheduler().add_noise(z, noise, angle)
        with torch.no_grad(), run.autocast():
            target = two_steps(teacher_velocity(teacher, condition, data), noisy, angle, omega)
        with run.autocast():
            velocity = model(noisy, angle, *condition).sample.float()
        return velocity * (angle > 0).unsqueeze(-1), target

    for batch in run.steps(loader):
        draws = run.rand("angle", len(batch["latents"]), model.config.num_chunks)
        is_diagonal = bool(run.rand("diagonal", 1, device="cpu") < data.diagonal_share)
        noise = run.randn("noise", *batch["latents"].shape)
        loss = velocity_loss(*distance(batch, noise, draws, is_diagonal))
        run.backward(loss, optimizer)
        run.finish_step(velocity=loss)
    run.save()

    held_out = EncodedClips(data.folder, "validation", num_tokens=data.num_tokens)
    windows = [held_out[i] for i in range(min(data.validation_windows, len(held_out)))]
    generator, losses = torch.Generator().manual_seed(0), []
    with run.averaged_weights(), torch.no_grad():
        for window in windows:
            names = ("latents", "semantic_tokens", "mulan_tokens")
            batch = {name: window[name][None].to(run.device) for name in names}
            noise = torch.randn(batch["latents"].shape, generator=generator).to(run.device)
            draws = torch.rand(1, model.config.num_chunks, generator=generator).to(run.device)
            losses.append(float(velocity_loss(*distance(batch, noise, draws))))
    mean = sum(losses) / max(len(losses), 1)
    run.log(velocity_to_teacher=mean)
    print(f"dual_path, {data.num_steps} steps: {mean:.4f} from two steps of its teacher, after {run.step} steps.")


if __name__ == "__main__":
    main()
