"""One graph for a whole forward pass, in training too: nothing in it waits for a value or leaves the compiler."""

import pytest
import torch

from melody_diffusers import AngleScheduler, DualPathDiffusionModel

SIZES = dict(latent_dim=4, num_frames=16, semantic_codebook_size=8, hidden_size=8, num_blocks=1, segment_length=2)
SIZES |= dict(num_attention_heads=2, num_coarse_layers=1, mlp_size=8, angle_embedding_size=4)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def whole(function):
    return torch.compile(function, backend="aot_eager", fullgraph=True)  # an error where the graph would break


@pytest.fixture
def dual_path():
    torch.manual_seed(0)
    return DualPathDiffusionModel(**SIZES)


INPUTS = (
    torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0)),
    torch.full((2, 16), 0.7),
    torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0]]),
)


@torch.no_grad()
def test_dual_path_at_inference(dual_path):
    torch.testing.assert_close(whole(dual_path)(*INPUTS).sample, dual_path(*INPUTS).sample)


def test_dual_path_in_training_forwards_and_backwards(dual_path):
    gradients = []
    for model in (dual_path, whole(dual_path)):
        model(*INPUTS).sample.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in dual_path.named_parameters() if p.grad is not None})
        dual_path.zero_grad()
    assert len(gradients[0]) > 30
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_a_step_of_the_language_model(make_components):
    lm = make_components()["semantic_lm"]
    ids = lm.build_input_ids(torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5]]))
    torch.testing.assert_close(whole(lambda x: lm(x, use_cache=False).logits)(ids), lm(ids, use_cache=False).logits)


def test_a_step_of_the_scheduler():
    scheduler = AngleScheduler()
    scheduler.set_timesteps(4)
    z, velocity = INPUTS[0], torch.ones(2, 16, 4)
    expected = scheduler.step(velocity, scheduler.timesteps[1], z, return_dict=False)[0]
    step = whole(lambda v, angle, z: scheduler.step(v, angle, z, return_dict=False)[0])
    torch.testing.assert_close(step(velocity, scheduler.timesteps[1], z), expected)
