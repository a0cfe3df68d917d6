"""The kernel audio distance against its closed forms and a plain loop."""

import math

import pytest
import torch

from melody_diffusers.evaluation.kernel import kernel_audio_distance, median_pairwise_distance


def test_agrees_with_a_loop_over_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 3, generator=generator), torch.randn(5, 3, generator=generator) + 0.5
    lengths = sorted((y[i] - y[j]).norm().item() for i in range(5) for j in range(i))
    bandwidth = lengths[4]  # the lower of the two in the middle of ten
    assert median_pairwise_distance(y) == pytest.approx(bandwidth, rel=1e-6)

    def mean(a: torch.Tensor, b: torch.Tensor) -> float:
        pairs = [(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if a is not b or i != j]
        return sum(math.exp(-((p - q).norm().item() ** 2) / (2 * bandwidth**2)) for p, q in pairs) / len(pairs)

    expected = 100 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert kernel_audio_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert kernel_audio_distance(x, y, bandwidth) == pytest.approx(expected, rel=1e-5)


def test_two_points_have_a_closed_form() -> None:
    """All vectors at 0 against all at 2: every pair within a set has kernel 1, every pair between sets exp(-2)."""
    zeros, twos = torch.zeros(4, 1), torch.full((3, 1), 2.0)
    assert kernel_audio_distance(zeros, twos, bandwidth=1.0) == pytest.approx(100 * (2 - 2 * math.exp(-2)))
    assert kernel_audio_distance(zeros, zeros, bandwidth=1.0) == pytest.approx(0)


def test_gaussians_have_a_closed_form_at_any_number_of_vectors() -> None:
    """E k(x, y) of N(m, I) and N(0, I) in E dimensions is (s^2 / (s^2 + 2))^(E/2) exp(-|m|^2 / (2 (s^2 + 2)))."""
    width, bandwidth, shift = 4, 2.0, 1.0
    generator = torch.Generator().manual_seed(0)
    same = (bandwidth**2 / (bandwidth**2 + 2)) ** (width / 2)
    expected = 200 * same * (1 - math.exp(-width * shift**2 / (2 * (bandwidth**2 + 2))))
    for count, repeats in ((1500, 2), (8, 1500)):  # unbiased: the mean over many small sets is that of large ones
        figures, floors = [], []
        for _ in range(repeats):
            x, y, z = torch.randn(3, count, width, generator=generator)
            figures.append(kernel_audio_distance(x + shift, y, bandwidth))
            floors.append(kernel_audio_distance(z, y, bandwidth))
        assert sum(figures) / repeats == pytest.approx(expected, rel=0.05)
        assert sum(floors) / repeats == pytest.approx(0, abs=0.02 * expected)


def test_neither_a_turn_nor_a_scale_of_both_sets_matters() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 20, 5, generator=generator)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    assert kernel_audio_distance(3 * x @ turn, 3 * y @ turn) == pytest.approx(kernel_audio_distance(x, y), rel=1e-4)


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,)), ((5, 4), (5, 4))])
def test_refuses_what_has_no_pairs_or_no_bandwidth(shapes: tuple) -> None:
    with pytest.raises(ValueError, match="got"):
        kernel_audio_distance(*(torch.zeros(shape) for shape in shapes))
