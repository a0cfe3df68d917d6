"""How many operations melody-tiny launches on a GPU, each of which takes the host about 5 microseconds."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from melody_diffusers import MELODY_TINY, DualPathDiffusionModel, SemanticLM
from melody_diffusers.models import semantic_lm, sru
from melody_diffusers.models.semantic_lm import Sampling


@pytest.mark.parametrize("sampling", [Sampling(guidance_scale=5.0), Sampling(temperature=0.0)], ids=["drawn", "greedy"])
def test_a_token_is_sixty_launches(device, monkeypatch, sampling):
    monkeypatch.setattr(semantic_lm, "is_plain", lambda lm: True)  # its weights are no plain tensors here
    lm = SemanticLM.from_pretrained(MELODY_TINY, subfolder="semantic_lm").to("fake")
    condition, counts = torch.zeros(1, 8, dtype=torch.long, device="fake"), []
    for num_tokens in (4, 14):
        device.launches.clear()
        lm.generate_semantic_tokens(condition, num_tokens, sampling=sampling)
        counts.append(Counter(device.launches))
    each = counts[1] - counts[0]
    assert each.total() <= 10 * 60, each
    assert each["scaled_dot_product_attention"] == 10 * 4  # of four layers


@torch.library.custom_op("tests::sru", mutates_args=())
def scan_in_one(projected: Tensor, x: Tensor, cell_weight: Tensor, gate_bias: Tensor) -> Tensor:
    """What the kernel of sru_triton.py computes, by the loop that defines it."""

    def in_time(tensor: Tensor) -> Tensor:
        return torch.stack([tensor[:, :, 0], tensor[:, :, 1].flip(1)], dim=2).transpose(0, 1)

    u, skip = in_time(projected), in_time(x.unflatten(-1, (2, -1)))
    h = sru.sru_scan_reference(u[..., 0, :], u[..., 1:, :] + gate_bias, skip, cell_weight).transpose(0, 1)
    return torch.cat([h[:, :, 0], h[:, :, 1].flip(1)], dim=-1)


@torch.no_grad()
def test_a_guided_pass_of_the_renderer_is_five_hundred(device, monkeypatch):
    monkeypatch.setattr(sru, "fused_scan", lambda projected: scan_in_one)
    model = DualPathDiffusionModel.from_pretrained(MELODY_TINY, subfolder="dual_path")
    frames, width = model.config.num_frames, model.config.latent_dim
    prompt = torch.arange(model.config.num_mulan_codebooks)[None]
    inputs = torch.randn(2, frames, width), torch.rand(1, frames), torch.arange(250)[None], prompt
    expected = model(*inputs).sample
    model, inputs = model.to("fake"), [each.to("fake") for each in inputs]
    device.launches.clear()
    velocity = model(*inputs).sample
    assert device.launches["sru"] == 8 and device.launches.total() <= 500, device.launches
    torch.testing.assert_close(velocity.cpu(), expected, rtol=1e-4, atol=1e-4)
