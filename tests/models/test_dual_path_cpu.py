"""bfloat16 on a CPU: the compiled operations give PyTorch's numbers, rounded once."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed
from torch import nn

from melody_diffusers import DualPathDiffusionModel
from melody_diffusers.models import dual_path, sru
from melody_diffusers.models.dual_path import RMSNorm, rotate
from melody_diffusers.models.sru import SRULayer

kernels = pytest.importorskip("melody_diffusers.models.dual_path_cpu", exc_type=ImportError)


def is_rounded(low: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether bfloat16 values are the nearest to exact ones, or next to the nearest."""
    assert low.dtype == torch.bfloat16 and exact.dtype == torch.float32
    return torch.allclose(low.float(), exact, rtol=2**-8, atol=1e-6)


@pytest.fixture
def values() -> torch.Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(2, 5, 4, 24)).bfloat16()


@torch.no_grad()
def test_norm(values):
    norm = RMSNorm(24).bfloat16()
    nn.init.normal_(norm.weight)
    expected = F.rms_norm(values.float(), (24,), norm.weight.float(), 1e-6)
    assert is_rounded(norm(values), expected)
    assert is_rounded(norm(values.transpose(1, 2)), expected.transpose(1, 2))


@torch.no_grad()
def test_rotation(values):
    cos, sin = get_1d_rotary_pos_embed(24, torch.arange(5.0), use_real=True, repeat_interleave_real=False)
    rotary = cos.bfloat16(), sin.bfloat16()
    expected = apply_rotary_emb(
        values.float(), (rotary[0].float(), rotary[1].float()), use_real_unbind_dim=-2, sequence_dim=1
    )
    assert is_rounded(rotate(values, rotary), expected)


@torch.no_grad()
def test_gelu_writes_over_its_input():
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([torch.inf, 0.0, -0.0])]).bfloat16()
    expected = F.gelu(x.double()).float()
    y = dual_path.GELU()(x)
    assert y.data_ptr() == x.data_ptr()
    assert torch.allclose(y.float(), expected, rtol=2**-8, atol=2e-6)
    assert dual_path.GELU()(torch.full((1, 3), torch.nan).bfloat16()).isnan().all()


@torch.no_grad()
def test_scan(values):
    layer = SRULayer(24, 12)
    for weight in (layer.cell_weight, layer.gate_bias):
        nn.init.normal_(weight)
    layer = layer.bfloat16()
    x = values.flatten(0, 1)
    u = layer.projection(x).unflatten(-1, (2, 3, 12))
    weights = layer.cell_weight, layer.gate_bias
    scan = sru.fused_scan(u)
    assert is_rounded(scan(u, x, *weights), scan(u.float(), x.float(), *(weight.float() for weight in weights)))


@pytest.fixture
def model() -> DualPathDiffusionModel:
    torch.manual_seed(0)
    return DualPathDiffusionModel(
        latent_dim=4, num_frames=40, semantic_codebook_size=8, hidden_size=32, num_blocks=2, segment_length=8,
        num_attention_heads=2, mlp_size=24, angle_embedding_size=8,
    ).bfloat16()  # fmt: skip


def velocity(model: DualPathDiffusionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 40, 4, generator=generator).to(model.dtype)
    return model(latents, torch.linspace(0, 1.5, 40), torch.arange(8)[None]).sample.float()


def test_the_network_is_as_near_to_float32_as_by_pytorch(model, monkeypatch):
    with torch.no_grad():
        compiled = velocity(model)
        monkeypatch.setattr(dual_path, "has_numba", lambda: False)
        by_pytorch, exact = velocity(model), velocity(model.float())
    error, allowed = (compiled - exact).norm(), (by_pytorch - exact).norm()
    assert 0 < error < 1.2 * allowed < 0.05 * exact.norm()


def test_gradients_and_float32_go_by_pytorch(model, monkeypatch):
    for name in ("rms_norm", "rotate", "gelu"):
        monkeypatch.setattr(kernels, name, lambda *_: pytest.fail("compiled"))
    velocity(model).square().mean().backward()
    assert model.proj_in.weight.grad.abs().sum() > 0
    with torch.no_grad():
        velocity(model.float())
