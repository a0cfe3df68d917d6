"""The dual-path network against diffusers' UNets, and several chunks against one: the same data, size and steps.

    python training/compare_networks.py --config training/configs/ablations/networks.yaml

Each network is trained as train_dual_path.py does it, and goes on where it was stopped. It is judged on held-out
windows twice: with one angle all over, as in a first window, and with the first half of the window known, as when a
piece goes on. Writes comparison.md and comparison.png.
"""

import dataclasses
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
import torch.nn.functional as F
from diffusers import UNet1DModel, UNet2DModel
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader

from melody_diffusers.data.datasets import EncodedClips
from melody_diffusers.devices import synchronize
from melody_diffusers.evaluation.velocity import velocity_figures
from melody_diffusers.models.dual_path import DualPathDiffusionModel
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args
from melody_diffusers.training_utils.velocity import chunk_angles, multi_chunk_loss


@dataclasses.dataclass(kw_only=True)
class DataConfig:
    """`folder`: output of encode_dataset.py. `num_tokens`: semantic tokens of a window."""

    folder: str
    num_tokens: int
    drop_tokens: float = 0.1
    validation_windows: int = 128


SECTIONS = {
    "dual_path": DualPathDiffusionModel,
    "unet_1d": UNet1DModel,
    "unet_2d": UNet2DModel,
    "data": DataConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}
ANGLES = [(i + 0.5) / 8 * math.pi / 2 for i in range(8)]


class UNet(nn.Module):
    """A UNet of diffusers that hears each frame's token and angle as channels, and is called as DualPathDiffusionModel.

    UNet1DModel has the latent channels as channels; UNet2DModel has one, an image of frames by latent channels.
    """

    def __init__(self, kind: type[UNet1DModel | UNet2DModel], arguments: dict[str, Any], like: dict[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_chunks=like["num_chunks"])
        self.width, self.is_image = like["latent_dim"], kind is UNet2DModel
        self.token_embedding = nn.Embedding(like["semantic_codebook_size"], self.width)
        if self.is_image:
            self.unet = kind(in_channels=4, out_channels=1, **arguments)
        else:
            channels = {"in_channels": 2 * self.width + 2, "extra_in_channels": 0, "out_channels": self.width}
            self.unet = kind(**channels, **arguments)
        self.multiple = 2 ** len(arguments["block_out_channels"])

    def forward(self, latents: Tensor, angle: Tensor, semantic_tokens: Tensor | None = None) -> SimpleNamespace:
        batch, frames, _ = latents.shape
        angle = torch.broadcast_to(angle, (batch, frames))
        tokens = latents.new_zeros(batch, frames, self.width)
        if semantic_tokens is not None and len(semantic_tokens):
            of_frame = torch.arange(frames, device=latents.device) * semantic_tokens.shape[1] // frames
            known = self.token_embedding(semantic_tokens[:, of_frame])
            tokens = F.pad(known, (0, 0, 0, 0, 0, batch - len(known)))
        angles = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (B, L, 2)
        if self.is_image:
            maps = [latents, tokens, *(a[..., None].expand_as(latents) for a in angles.unbind(-1))]
            x = torch.stack(maps, dim=1)  # (B, 4, L, D)
            x = F.pad(x, (0, 0, 0, -frames % self.multiple))
        else:
            x = torch.cat([latents, tokens, angles], dim=-1).transpose(1, 2)  # (B, 2 D + 2, L)
            x = F.pad(x, (0, -frames % self.multiple))
        velocity = self.unet(x, torch.zeros(batch, device=x.device)).sample
        velocity = velocity[:, 0] if self.is_image else velocity.transpose(1, 2)
        return SimpleNamespace(sample=velocity[:, :frames])


def draw(path: Path, curves: dict[str, tuple[list[float], list[float]]]) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    titles = ("one angle all over", "first half of the window known")
    for place, (ax, title) in enumerate(zip(figure.subplots(1, 2, sharey=True), titles, strict=True)):
        for name, both in curves.items():
            ax.plot(ANGLES, both[place], marker="o", label=name)
        ax.set_title(title)
        ax.set_xlabel("angle, from music to noise")
    ax.legend()
    figure.axes[0].set_ylabel("velocity MSE")
    figure.savefig(path, dpi=80)


def main() -> None:
    args = parse_args(__doc__)
    config = load_config(args.config, SECTIONS, args.set)
    like, output_dir = config.dual_path, Path(config.run.output_dir)
    networks = {
        f"dual path, {like['num_chunks']} chunks": lambda: DualPathDiffusionModel(**like),
        "dual path, 1 chunk": lambda: DualPathDiffusionModel(**like | {"num_chunks": 1}),
        "UNet1DModel": lambda: UNet(UNet1DModel, config.unet_1d, like),
        "UNet2DModel": lambda: UNet(UNet2DModel, config.unet_2d, like),
    }
    lines = ["| network | parameters | velocity MSE | SI-SNRi, dB | MSE after a known half | ms a forward pass |"]
    lines.append("|---" * 6 + "|")
    curves = {}
    train, held_out = (EncodedClips(config.data.folder, s, config.data.num_tokens) for s in ("train", "validation"))
    loader = DataLoader(train, config.run.batch_size, shuffle=True, num_workers=config.run.num_workers)
    windows = torch.utils.data.Subset(held_out, range(min(config.data.validation_windows, len(held_out))))
    for name, build in networks.items():
        torch.manual_seed(config.run.seed)
        model = build()
        folder = str(output_dir / name.replace(", ", "_").replace(" ", "_"))
        run = TrainingRun(dataclasses.replace(config.run, output_dir=folder), {"network": model}, config)
        optimizer = run.optimizer(model.parameters(), config.optim)
        for batch in run.steps(loader):  # as train_dual_path.py does
            z, tokens = batch["latents"].float(), batch["semantic_tokens"]  # (B, L, D), (B, S)
            drops = run.rand("drop", len(z), device="cpu") < config.data.drop_tokens
            angle = chunk_angles(run.rand("angle", len(z), model.config.num_chunks), z.shape[1])  # (B, L)
            with run.autocast():
                loss = multi_chunk_loss(model, z, tokens, run.randn("noise", *z.shape), angle, drops)
            run.backward(loss, optimizer)
            run.finish_step(velocity=loss)
        batches = [
            {key: batch[key].to(run.device) for key in ("latents", "semantic_tokens")}
            for batch in DataLoader(windows, batch_size=8)
        ]
        with run.averaged_weights():
            figures = velocity_figures(model.eval(), batches)
            goes_on = velocity_figures(model, batches, known_share=0.5)
        whole, known = (
            [judged[f"velocity_mse/angle_{angle:.2f}"] for angle in ANGLES] for judged in (figures, goes_on)
        )
        angle = torch.full((), 0.5, device=run.device)
        synchronize(run.device)
        began = time.perf_counter()
        with torch.no_grad():
            for batch in batches:
                model(batch["latents"], angle, batch["semantic_tokens"])
        synchronize(run.device)
        milliseconds = 1000 * (time.perf_counter() - began) / sum(len(batch["latents"]) for batch in batches)
        curves[name] = (whole, known)
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        lines.append(
            f"| {name} | {millions:.2f} M | {figures['velocity_mse']:.3f} | {figures['si_snr_improvement']:.2f} "
            f"| {sum(known) / len(known):.3f} | {milliseconds:.0f} |"
        )
        print(lines[-1], flush=True)
    (output_dir / "comparison.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(output_dir / "comparison.png", curves)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
