"""Trains the dual-path diffusion model on cached latents and semantic tokens (paper, section 4.1, eq. 7).

Each window is cut into M chunks, each chunk has an angle of its own in [0, pi/2], and the network predicts the
velocities of all chunks at once. With probability `drop_tokens` a sample hears no token (classifier-free guidance).
"""

import math
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from melody_diffusers.data.datasets import EncodedClips
from melody_diffusers.evaluation.velocity import velocity_figures
from melody_diffusers.losses import velocity_loss
from melody_diffusers.models.dual_path import DualPathDiffusionModel
from melody_diffusers.schedulers.angle import AngleScheduler
from melody_diffusers.timebase import Timebase
from melody_diffusers.training_utils import Config, OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """`folder`: output of encode_dataset.py. `start`: folder or name of a model of these sizes to go on from.
    `num_tokens`: semantic tokens of a training window.
    """

    folder: str
    start: str | None = None
    num_tokens: int = 250
    drop_tokens: float = 0.1
    validation_windows: int = 128


def chunk_angles(draws: torch.Tensor, num_frames: int) -> torch.Tensor:
    """One angle for each chunk, d ~ Uniform[0, pi/2], from uniform draws (B, M), repeated over its frames: (B, L)."""
    ends = Timebase().chunk_boundaries(num_frames, draws.shape[1])
    lengths = torch.tensor(ends, device=draws.device).diff()
    return (draws * (math.pi / 2)).repeat_interleave(lengths, dim=1)


def train(model: DualPathDiffusionModel, config: Config) -> TrainingRun:
    """Trains the model as the configuration's `data`, `optim` and `run` say."""
    run = TrainingRun(config.run, models={"dual_path": model}, config=config)
    optimizer = run.optimizer(model.parameters(), config.optim)
    clips = EncodedClips(config.data.folder, "train", num_tokens=config.data.num_tokens)
    loader = DataLoader(clips, batch_size=config.run.batch_size, shuffle=True, num_workers=config.run.num_workers)
    scheduler = AngleScheduler()

    for batch in run.steps(loader):
        z, tokens = batch["latents"].float(), batch["semantic_tokens"]  # (B, L, D), (B, S)
        drops = run.rand("drop", len(z)) < config.data.drop_tokens
        order = drops.int().argsort(stable=True)  # samples without tokens come last
        angle = chunk_angles(run.rand("angle", len(z), model.config.num_chunks), z.shape[1])[order]
        z, tokens, noise = z[order], tokens[order], run.randn("noise", *z.shape)[order]
        num_conditional = len(z) - int(drops.sum())
        with run.autocast():
            noisy = scheduler.add_noise(z, noise, angle)
            velocity = model(noisy, angle, tokens[:num_conditional]).sample
            loss = velocity_loss(velocity.float(), scheduler.get_velocity(z, noise, angle))
        run.backward(loss, optimizer)
        run.finish_step(velocity=loss)
    return run


def held_out_windows(data: DataConfig, device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Validation windows by eights: `latents` (B, L, D) and `semantic_tokens` (B, S)."""
    clips = EncodedClips(data.folder, "validation", num_tokens=data.num_tokens)
    windows = [clips[i] for i in range(min(data.validation_windows, len(clips)))]
    return [
        {key: torch.stack([w[key] for w in windows[i : i + 8]]).to(device) for key in ("latents", "semantic_tokens")}
        for i in range(0, len(windows), 8)
    ]


def main() -> None:
    args = parse_args(__doc__)
    sections = {"model": DualPathDiffusionModel, "data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    config = load_config(args.config, sections, args.set)
    torch.manual_seed(config.run.seed)
    model = DualPathDiffusionModel(**config.model)
    if config.data.start is not None:
        model.load_state_dict(DualPathDiffusionModel.from_pretrained(config.data.start).state_dict())
    run = train(model, config)
    batches = held_out_windows(config.data, run.device)
    with run.averaged_weights():
        figures = velocity_figures(model.eval(), batches)
    run.log(**figures)
    run.save()
    per_angle = ", ".join(f"{value:.3f}" for key, value in figures.items() if key.startswith("velocity_mse/"))
    print(
        f"dual_path: held-out velocity MSE {figures['velocity_mse']:.4f} (by rising angle: {per_angle}), "
        f"SI-SNRi {figures['si_snr_improvement']:.2f} dB on {sum(len(batch['latents']) for batch in batches)} windows "
        f"after {run.step} steps."
    )


if __name__ == "__main__":
    main()
