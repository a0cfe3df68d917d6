"""Velocity MSE and SI-SNR improvement of networks whose errors are known."""

import math
from types import SimpleNamespace

import pytest
import torch

from melody_diffusers import DualPathDiffusionModel
from melody_diffusers.evaluation.reconstruction import si_sdr
from melody_diffusers.evaluation.velocity import velocity_figures

NUM_FRAMES, WIDTH = 64, 4


def orthogonal_latents() -> tuple[torch.Tensor, torch.Tensor]:
    """Two (1, L, D) of mean 0 and mean square 1, at right angles: sines of whole periods."""
    phase = 2 * math.pi * torch.arange(NUM_FRAMES * WIDTH, dtype=torch.float64) / (NUM_FRAMES * WIDTH)
    return tuple((2**0.5 * torch.sin(k * phase)).reshape(1, NUM_FRAMES, WIDTH) for k in (3, 5))


def test_an_error_at_right_angles_to_the_latents_has_a_closed_form() -> None:
    z, other = orthogonal_latents()
    error = 0.1

    def model(noisy: torch.Tensor, angle: torch.Tensor, tokens: torch.Tensor) -> SimpleNamespace:
        d = float(angle[0, 0])
        noise = (noisy - math.cos(d) * z) / math.sin(d)
        return SimpleNamespace(sample=math.cos(d) * noise - math.sin(d) * z + error * other)

    figures = velocity_figures(model, [{"latents": z, "semantic_tokens": torch.zeros(1, 10)}], num_angles=4)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).double()
    gains = []
    for i in range(4):
        d = (i + 0.5) * math.pi / 8
        noisy = (math.cos(d) * z + math.sin(d) * noise).flatten(1)
        # the estimate of z is z - sin(d) times the error of the velocity
        gains.append(-20 * math.log10(error * math.sin(d)) - si_sdr(noisy, z.flatten(1)).item())
        assert figures[f"si_snr_improvement/angle_{d:.2f}"] == pytest.approx(gains[-1], abs=1e-3)
        assert figures[f"velocity_mse/angle_{d:.2f}"] == pytest.approx(error**2, rel=1e-4)
    assert figures["velocity_mse"] == pytest.approx(error**2, rel=1e-4)
    assert figures["si_snr_improvement"] == pytest.approx(sum(gains) / 4, abs=1e-3)


def test_no_velocity_is_no_improvement_and_windows_weigh_the_same() -> None:
    generator = torch.Generator().manual_seed(100)  # not the seed of a batch's noise
    batches = [
        {"latents": torch.randn(count, 200, 8, generator=generator), "semantic_tokens": torch.zeros(count, 100)}
        for count in (4, 1)
    ]
    figures = velocity_figures(lambda noisy, angle, tokens: SimpleNamespace(sample=torch.zeros_like(noisy)), batches)
    assert figures["si_snr_improvement"] == pytest.approx(0, abs=1e-4)
    assert figures["velocity_mse"] == pytest.approx(1, rel=0.05)  # of Gaussian latents of variance 1
    assert len(figures) == 2 * (8 + 1)


def test_only_what_is_not_known_is_judged() -> None:
    """Errors in the first half do not count, and the first half is heard as it is."""
    z = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(100))

    def model(noisy: torch.Tensor, angle: torch.Tensor, tokens: torch.Tensor) -> SimpleNamespace:
        assert torch.equal(noisy[:, :25], z[:, :25]) and not angle[:, :25].any()
        d = angle[:, 25:, None]
        noise = (noisy[:, 25:] - d.cos() * z[:, 25:]) / d.sin()
        right = d.cos() * noise - d.sin() * z[:, 25:]
        return SimpleNamespace(sample=torch.cat([torch.full_like(z[:, :25], 9.0), right + 0.5], dim=1))

    batch = {"latents": z, "semantic_tokens": torch.zeros(3, 10)}
    figures = velocity_figures(model, [batch], num_angles=2, known_share=0.5)
    assert figures["velocity_mse"] == pytest.approx(0.25, rel=1e-4)


def test_runs_on_the_real_network(tiny_components: dict) -> None:
    model: DualPathDiffusionModel = tiny_components["dual_path"]
    batch = {"latents": torch.randn(2, 100, 8), "semantic_tokens": torch.randint(32, (2, 50))}
    figures = velocity_figures(model, [batch], num_angles=2)
    assert figures == velocity_figures(model, [batch], num_angles=2)
    assert figures["velocity_mse"] > 0 and math.isfinite(figures["si_snr_improvement"])
