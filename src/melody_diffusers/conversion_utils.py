"""What the scripts in conversion/ share: which component a folder holds, and how far two versions of one are apart."""

import json
import math
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import AudioVAEGAN, MuLanModel, ResidualQuantizer, SemanticLM, SemanticTokenizer
from .hf.registry import CLASSES, PACKAGE

COMPONENTS: tuple[Any, ...] = tuple(
    getattr(import_module(PACKAGE), name) for name, entry in CLASSES.items() if entry.slot not in (None, "scheduler")
)


def component_class(folder: str | os.PathLike) -> Any:
    """The class of the component whose config.json lies in `folder`.

    Raises:
        ValueError: there is no config.json, or it names none of our components.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder} must hold the config.json of a component; there is none.")
    config = json.loads(file.read_text(encoding="utf-8"))
    named = config.get("_class_name") or (config.get("architectures") or [None])[0]
    by_name = {each.__name__: each for each in COMPONENTS}
    if named not in by_name:
        raise ValueError(f"{file} must name one of {', '.join(by_name)}; it names {named}.")
    return by_name[named]


@torch.no_grad()
def trial_outputs(component: Any, seed: int = 0) -> list[Tensor]:
    """What a component makes of one fixed random input: every output in which its weights take part, in its dtype.

    Of an `AudioVAEGAN` whose latents hold no phase these are the magnitudes: phases are found by iteration and tell
    nothing of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    device, dtype = component.device, component.dtype

    def noise(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).to(device, dtype)

    def tokens(size: int, *shape: int) -> Tensor:
        return torch.randint(size, shape, generator=generator).to(device)

    config = component.config
    if isinstance(component, AudioVAEGAN):
        waveform = noise(1, 1, component.sample_rate, scale=0.1)
        latents = component.encode(waveform).latent_dist.mode()
        other = noise(*latents.shape)
        if component.estimates_phase:
            made = component.reconstruct(waveform, other)
            return [latents, made.magnitude, made.onward]
        if not component.has_phase:
            return [latents, component.magnitude_pair(waveform, other)[0]]
        return [latents, component.decode(other).sample]
    if isinstance(component, MuLanModel):
        ids = tokens(config.text_config.vocab_size, 2, min(16, config.text_config.max_position_embeddings))
        waveform = noise(1, 1, component.window_samples, scale=0.1)
        return [component.get_audio_features(waveform), component.get_text_features(ids)]
    if isinstance(component, ResidualQuantizer):
        return [component.decode(tokens(config.codebook_size, 64, config.num_codebooks))]
    if isinstance(component, SemanticTokenizer):
        output = component(noise(1, 1, 2 * config.sample_rate, scale=0.1))
        return [*output.layers, output.last_hidden_state]
    if isinstance(component, SemanticLM):
        prompt = tokens(config.mulan_codebook_size, 2, config.num_mulan_codebooks)
        return [component.semantic_logits(prompt, tokens(config.semantic_codebook_size, 2, 64))]
    latents = noise(1, config.num_frames, config.latent_dim)
    angle = torch.rand(1, config.num_frames, generator=generator).to(device) * math.pi / 2
    plan = tokens(config.semantic_codebook_size, 1, config.num_frames // 2)
    return [component(latents, angle, plan).sample, component(latents, angle).sample]


def difference(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> tuple[float, float]:
    """The largest absolute difference, and the largest relative one, |a - b| / |b| in the norms of whole tensors.

    Both are NaN where an output is not finite.
    """
    pairs = [(a.float(), b.float()) for a, b in zip(outputs, reference, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        raise ValueError(
            f"Outputs of shapes {[tuple(a.shape) for a, _ in pairs]} cannot be compared with "
            f"{[tuple(b.shape) for _, b in pairs]}."
        )
    if not all(a.isfinite().all() and b.isfinite().all() for a, b in pairs):
        return math.nan, math.nan
    largest = max((a - b).abs().max().item() for a, b in pairs)
    return largest, max(((a - b).norm() / b.norm().clamp_min(1e-12)).item() for a, b in pairs)


def compare(name: str, outputs: Sequence[Tensor], reference: Sequence[Tensor], tolerance: float) -> None:
    """Prints the difference and, where the relative one is above `tolerance` or not a number, ends the script."""
    largest, relative = difference(outputs, reference)
    print(f"{name}: largest difference {largest:.2e}, relative {relative:.2e} (tolerance {tolerance:g})")
    if not relative <= tolerance:
        raise SystemExit(
            f"{name}: differs from its source by more than --tolerance {tolerance:g}. Do not use what was written."
        )
