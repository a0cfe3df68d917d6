"""The Frechet distance against its closed forms."""

import numpy as np
import pytest
import torch

from melody_diffusers.evaluation.frechet import frechet_distance, gaussian_frechet_distance


def test_commuting_gaussians_have_a_closed_form() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    a, b = np.array([4.0, 1.0, 9.0, 0.0]), np.array([1.0, 1.0, 16.0, 25.0])  # a zero: a singular covariance
    mean_a, mean_b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 0.0, 3.0, 5.0])
    distance = gaussian_frechet_distance(mean_a, rotation * a @ rotation.T, mean_b, rotation * b @ rotation.T)
    assert distance == pytest.approx(5.0 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-6)


def test_agrees_with_the_matrix_square_root_of_scipy() -> None:
    sqrtm = pytest.importorskip("scipy.linalg").sqrtm
    generator = np.random.default_rng(1)
    a, b = (generator.normal(size=(50, 6)) @ generator.normal(size=(6, 6)) for _ in range(2))
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(
        covariance_a + covariance_b - 2 * np.real(sqrtm(covariance_a @ covariance_b))
    )
    assert frechet_distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-6)


def test_a_set_is_at_distance_zero_from_itself_and_a_shift_counts_squared() -> None:
    vectors = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(vectors, vectors) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(vectors + 0.5, vectors) == pytest.approx(8 * 0.25, rel=1e-6)
    assert frechet_distance(vectors[:3], vectors) > 0  # fewer vectors than dimensions is no obstacle


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_refuses_what_has_no_covariance(shapes: tuple) -> None:
    with pytest.raises(ValueError, match="got"):
        frechet_distance(*(torch.zeros(shape) for shape in shapes))
