"""Trains the dual-path diffusion model on cached latents and semantic tokens (paper, section 4.1, eq. 7).

Each window is cut into M chunks, each chunk has an angle of its own in [0, pi/2], and the network predicts the
velocities of all chunks at once. Some windows may have what generation has: one angle for all chunks of a single
window, angles that rise from chunk to chunk where a long piece goes on. With probability `drop_tokens` a sample hears
no token (classifier-free guidance).
"""

from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from melody_diffusers.data.datasets import EncodedClips
from melody_diffusers.evaluation.velocity import velocity_figures
from melody_diffusers.models.dual_path import DualPathDiffusionModel
from melody_diffusers.models.residual_quantizer import ResidualQuantizer
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args
from melody_diffusers.training_utils.velocity import chunk_angles, load_teacher, multi_chunk_loss


@dataclass(kw_only=True)
class DataConfig:
    """`folder`: output of encode_dataset.py. `start`: folder or name of a model of these sizes to go on from.
    `num_tokens`: semantic tokens of a training window. `drop_tokens`: share of samples that hear nothing.
    For a model with `num_mulan_codebooks`: `mulan_quantizer`: folder or name of the ResidualQuantizer that the MuLan
    tokens come from, `drop_prompt`: share that hears the plan alone, `text_share`: share of the others whose MuLan
    tokens are those of a text. `equal_angles`, `rising_angles`: shares of windows with such.
    """

    folder: str
    start: str | None = None
    mulan_quantizer: str | None = None
    num_tokens: int = 250
    drop_tokens: float = 0.1
    drop_prompt: float = 0.1
    text_share: float = 0.5
    equal_angles: float = 0.0
    rising_angles: float = 0.0
    validation_windows: int = 128


def begin(model: DualPathDiffusionModel, start: str | None, mulan_quantizer: str | None) -> None:
    """Takes over all weights of another model, which alone may hear the prompt, or not, and the quantizer's codebooks.

    Of a distilled model these are its teacher's, if they lie beside it.

    Raises:
        ValueError: that model has other weights, or lacks some; nothing tells this one what MuLan tokens stand for.
    """
    if start is not None:
        begun = (load_teacher(start) or DualPathDiffusionModel.from_pretrained(start)).state_dict()
        strange = {name for name in begun.keys() ^ model.state_dict().keys() if not name.startswith("mulan_embedding.")}
        if strange:
            raise ValueError(
                f"data.start: {start} is of other sizes than model; they do not share {sorted(strange)[0]}."
            )
        model.load_state_dict(begun, strict=False)
    if not model.config.num_mulan_codebooks:
        return
    if mulan_quantizer is not None:
        model.mulan_embedding.codebooks.copy_(ResidualQuantizer.from_pretrained(mulan_quantizer).codebooks)
    if not model.mulan_embedding.codebooks.any():
        raise ValueError("data.mulan_quantizer: a model with model.num_mulan_codebooks needs one, got null.")


def held_out_windows(data: DataConfig, device: torch.device) -> list[dict[str, torch.Tensor]]:
    """Validation windows by eights: `latents` (B, L, D), `semantic_tokens` (B, S) and `mulan_tokens` (B, N)."""
    clips = EncodedClips(data.folder, "validation", num_tokens=data.num_tokens)
    windows = [clips[i] for i in range(min(data.validation_windows, len(clips)))]
    keys = ("latents", "semantic_tokens", "mulan_tokens")
    return [
        {key: torch.stack([w[key] for w in windows[i : i + 8]]).to(device) for key in keys}
        for i in range(0, len(windows), 8)
    ]


def main() -> None:
    args = parse_args(__doc__)
    sections = {"model": DualPathDiffusionModel, "data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    config = load_config(args.config, sections, args.set)
    torch.manual_seed(config.run.seed)
    model = DualPathDiffusionModel(**config.model)
    begin(model, config.data.start, config.data.mulan_quantizer)
    run = TrainingRun(config.run, models={"dual_path": model}, config=config)
    optimizer = run.optimizer(model.parameters(), config.optim)
    clips = EncodedClips(config.data.folder, "train", config.data.num_tokens, text_share=config.data.text_share)
    loader = DataLoader(clips, batch_size=config.run.batch_size, shuffle=True, num_workers=config.run.num_workers)

    for batch in run.steps(loader):
        z, tokens = batch["latents"].float(), batch["semantic_tokens"]  # (B, L, D), (B, S)
        drops = run.rand("drop", len(z), device="cpu") < config.data.drop_tokens
        draws, kind = run.rand("angle", len(z), model.config.num_chunks), run.rand("kind of angles", len(z), 1)
        draws = torch.where(kind < config.data.equal_angles, draws[:, :1], draws)
        draws = torch.where(kind > 1 - config.data.rising_angles, draws.sort(dim=1).values, draws)
        angle = chunk_angles(draws, z.shape[1])  # (B, L)
        noise = run.randn("noise", *z.shape)
        unheard = run.rand("prompt", len(z), 1) < config.data.drop_prompt
        prompt = batch["mulan_tokens"].masked_fill(unheard, -1)
        with run.autocast():
            loss = multi_chunk_loss(model, z, tokens, noise, angle, drops, prompt, is_split=config.run.fsdp)
        run.backward(loss, optimizer)
        run.finish_step(velocity=loss)

    run.save()
    batches = held_out_windows(config.data, run.device)
    with run.averaged_weights():
        figures = velocity_figures(model.eval(), batches)
    run.log(**figures)
    per_angle = ", ".join(f"{value:.3f}" for key, value in figures.items() if key.startswith("velocity_mse/"))
    print(
        f"dual_path: held-out velocity MSE {figures['velocity_mse']:.4f} (by rising angle: {per_angle}), "
        f"SI-SNRi {figures['si_snr_improvement']:.2f} dB on {sum(len(batch['latents']) for batch in batches)} windows "
        f"after {run.step} steps."
    )


if __name__ == "__main__":
    main()
