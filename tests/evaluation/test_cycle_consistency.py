"""MuLan cycle consistency on embeddings whose cosines are known."""

import pytest
import torch

from melody_diffusers.evaluation.cycle_consistency import mulan_cycle_consistency


def test_orthogonal_pairs() -> None:
    audio = torch.eye(4) * torch.tensor([[1.0], [2.0], [3.0], [4.0]])  # lengths must not matter
    assert mulan_cycle_consistency(audio, torch.eye(4)) == pytest.approx((1, 0))
    assert mulan_cycle_consistency(audio, torch.eye(4).roll(1, dims=0)) == pytest.approx((0, 1 / 3))


def test_shuffled_is_the_mean_over_all_shuffles_without_fixed_points() -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    rolls = [mulan_cycle_consistency(audio, text.roll(k, dims=0))[0] for k in range(1, 5)]
    assert mulan_cycle_consistency(audio, text)[1] == pytest.approx(sum(rolls) / 4)


@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((2, 3), (3, 3))])
def test_refuses_what_cannot_be_paired(shapes: tuple) -> None:
    with pytest.raises(ValueError, match="B >= 2"):
        mulan_cycle_consistency(*(torch.ones(shape) for shape in shapes))
