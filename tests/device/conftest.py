"""The fake device, and components that are small enough to be emulated on it."""

import pytest
import torch
from fake_device import FakeDevice
from tiny import CENTROIDS, LATENT_DIM, make_tiny_components

from melody_diffusers import DualPathDiffusionModel, MeLoDyPipeline


@pytest.fixture
def device():
    with FakeDevice() as device:
        yield device


def make_small_components() -> dict:
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


@pytest.fixture
def pipe(device):
    """A pipeline on the device."""
    return make_pipe().to("fake")
