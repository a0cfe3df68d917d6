"""Components that are small enough to be emulated."""

from typing import Any

import torch
from tiny import CENTROIDS, LATENT_DIM, make_tiny_components

from melody_diffusers import DualPathDiffusionModel, MeLoDyPipeline


def make_small_components() -> dict[str, Any]:
    """Windows of 0.8 s, 20 tokens: every operation of the emulation costs a tenth of a millisecond."""
    torch.manual_seed(0)
    dual_path = DualPathDiffusionModel(
        latent_dim=LATENT_DIM,
        num_frames=40,
        semantic_codebook_size=CENTROIDS,
        hidden_size=16,
        num_blocks=2,
        segment_length=8,
        num_attention_heads=2,
        num_coarse_layers=1,
        mlp_size=16,
        angle_embedding_size=8,
    )
    return make_tiny_components() | {"dual_path": dual_path.eval()}


def make_pipe() -> MeLoDyPipeline:
    pipe = MeLoDyPipeline(**make_small_components())
    pipe.set_progress_bar_config(disable=True)
    return pipe
