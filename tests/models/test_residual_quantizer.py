import pytest
import torch

from melody_diffusers.models.clustering import k_means
from melody_diffusers.models.residual_quantizer import ResidualQuantizer


def random_points(count: int, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_default_is_the_papers_size():
    quantizer = ResidualQuantizer()
    assert quantizer.codebooks.shape == (12, 1024, 128)
    assert sum(p.numel() for p in quantizer.parameters()) == 0


def test_codebooks_that_contain_the_points_reproduce_them():
    quantizer = ResidualQuantizer(num_codebooks=3, codebook_size=16, dim=8)
    points = random_points(16)
    quantizer.codebooks[0] = points
    tokens = quantizer.encode(points)
    assert torch.equal(tokens[:, 0], torch.arange(16))
    assert torch.equal(tokens[:, 1:], torch.zeros(16, 2, dtype=torch.long))  # nothing left; the first of equals
    assert torch.equal(quantizer.decode(tokens), points)


def test_fit_to_fewer_points_than_entries_is_exact():
    quantizer = ResidualQuantizer(num_codebooks=2, codebook_size=32, dim=8)
    points = random_points(20)
    errors = quantizer.fit(points, torch.Generator().manual_seed(0))
    assert errors.max() == 0
    assert torch.equal(quantizer.decode(quantizer.encode(points)), points)


def test_sums_of_two_grids_are_found():
    # every point is a coarse grid point plus a small offset: two codebooks suffice, and tokens agree where points do
    coarse = 10 * torch.eye(4)
    fine = torch.tensor([[0.1, 0.1, 0, 0], [-0.1, -0.1, 0, 0]])
    points = (coarse[:, None] + fine[None]).reshape(-1, 4)
    quantizer = ResidualQuantizer(num_codebooks=2, codebook_size=4, dim=4)
    quantizer.fit(points, torch.Generator().manual_seed(0))
    tokens = quantizer.encode(points).reshape(4, 2, 2)
    assert (tokens[:, 0, 0] == tokens[:, 1, 0]).all() and tokens[:, 0, 0].unique().numel() == 4
    torch.testing.assert_close(quantizer.decode(quantizer.encode(points)), points)


def test_error_never_grows_with_codebooks():
    quantizer = ResidualQuantizer(num_codebooks=6, codebook_size=16, dim=8)
    points = random_points(500)
    errors = quantizer.fit(points, torch.Generator().manual_seed(0))
    tokens = quantizer.encode(points)
    measured = torch.stack([(points - quantizer.decode(tokens[:, : q + 1])).square().sum(-1).mean() for q in range(6)])
    torch.testing.assert_close(measured, errors)
    assert (errors.diff() < 0).all() and errors[0] < points.square().sum(-1).mean()


def test_fit_is_deterministic_with_a_generator():
    points = random_points(300)
    first, second, other = (ResidualQuantizer(num_codebooks=2, codebook_size=16, dim=8) for _ in range(3))
    first.fit(points, torch.Generator().manual_seed(3))
    second.fit(points, torch.Generator().manual_seed(3))
    other.fit(points, torch.Generator().manual_seed(4))
    assert torch.equal(first.codebooks, second.codebooks)
    assert not torch.equal(first.codebooks, other.codebooks)


def test_refined_codebooks_keep_what_their_tokens_mean():
    points = random_points(400)
    quantizer = ResidualQuantizer(num_codebooks=2, codebook_size=16, dim=8)
    before = quantizer.fit(points, torch.Generator().manual_seed(3))
    tokens = quantizer.encode(points)
    moved = points + 0.01
    after = quantizer.fit(moved, torch.Generator().manual_seed(4), refine=True)
    assert (quantizer.encode(moved) == tokens).float().mean() > 0.9 and after[1] < 1.01 * before[1]
    assert (quantizer.fit(moved, torch.Generator().manual_seed(4)) > 0).all()  # begins anew: other tokens
    assert (quantizer.encode(moved) == tokens).float().mean() < 0.3


def test_no_code_dies_while_points_remain():
    # 30 tight clusters, half of the points in one of them: seeding alone leaves centres without points
    centres = 5 * random_points(30, seed=1)
    points = centres.repeat_interleave(20, dim=0) + 0.01 * random_points(600)
    points = torch.cat([points, centres[:1].expand(600, -1) + 0.01 * random_points(600, seed=2)])
    quantizer = ResidualQuantizer(num_codebooks=1, codebook_size=64, dim=8)
    quantizer.fit(points, torch.Generator().manual_seed(0))
    assert quantizer.encode(points).unique().numel() == 64


def test_k_means_of_two_clusters_is_their_means():
    points = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 1.0], [11.0, 1.0]])
    centres = k_means(points, 2, torch.Generator().manual_seed(0), num_iterations=10)
    torch.testing.assert_close(centres[centres[:, 0].argsort()], torch.tensor([[0.0, 1.0], [10.0, 1.0]]))


def test_batch_equals_single_samples():
    quantizer = ResidualQuantizer(num_codebooks=4, codebook_size=16, dim=8)
    points = random_points(50)
    quantizer.fit(points, torch.Generator().manual_seed(0))
    assert torch.equal(quantizer.encode(points), torch.cat([quantizer.encode(p[None]) for p in points]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_save_and_load_round_trip_is_bit_equal(tmp_path, dtype):
    quantizer = ResidualQuantizer(num_codebooks=3, codebook_size=16, dim=8).to(dtype)
    points = random_points(200)
    quantizer.fit(points, torch.Generator().manual_seed(0))
    quantizer.save_pretrained(tmp_path)
    loaded = ResidualQuantizer.from_pretrained(tmp_path, torch_dtype=dtype)
    assert torch.equal(loaded.codebooks, quantizer.codebooks) and loaded.codebooks.dtype == dtype
    assert torch.equal(loaded.encode(points), quantizer.encode(points))
    assert loaded.decode(loaded.encode(points)).dtype == torch.float32


def test_wrong_shapes_are_refused():
    quantizer = ResidualQuantizer(num_codebooks=3, codebook_size=16, dim=8)
    with pytest.raises(ValueError, match=r"\(B, 8\)"):
        quantizer.encode(torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r"\(B, 1 to 3\)"):
        quantizer.decode(torch.zeros(2, 4, dtype=torch.long))
