"""Recorded work gives the values of the function itself, whatever changes between calls."""

from types import SimpleNamespace

import pytest
import torch
from fake_graphs import recorded  # noqa: F401
from peft import LoraConfig
from tiny import make_tiny_components
from torch import nn

from melody_diffusers import AngleScheduler, DualPathDiffusionModel, SemanticLM, SemanticLMConfig, graphs
from melody_diffusers.graphs import LEAST_CALLS, Recording, state_of
from melody_diffusers.models.semantic_lm import Sampling
from melody_diffusers.pipelines.denoise import denoise, plan_passes
from melody_diffusers.timebase import Timebase

pytestmark = pytest.mark.usefixtures("recorded")


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def calls_of(function, **options) -> tuple[Recording, list]:
    """A recording of the function, and a list that grows when the function itself is called."""
    calls = []
    return Recording(lambda *x: calls.append(1) or function(*x), LEAST_CALLS, **options), calls


def test_it_is_called_then_recorded_then_replayed(recorded):  # noqa: F811
    recording, calls = calls_of(lambda x, y: (x * y).cumsum(-1) + 1)
    inputs = [(torch.randn(2, 3), torch.randn(3)) for _ in range(5)]
    values = [recording(*each) for each in inputs]  # all kept: a later call leaves them as they are
    for value, (x, y) in zip(values, inputs):
        assert torch.equal(value, (x * y).cumsum(-1) + 1)
    assert len(calls) == 2 and len(recorded) == 1 and recorded[0].replays == 4


def test_inputs_stay_as_they_are():
    recording, _ = calls_of(lambda x: x.mul_(2))  # writes to its input, which is then the recording's own
    recording(torch.ones(3))
    for _ in range(3):
        x = torch.ones(3)
        assert torch.equal(recording(x), torch.full((3,), 2.0)) and torch.equal(x, torch.ones(3))


def test_other_shapes_are_recorded_anew(recorded):  # noqa: F811
    recording, calls = calls_of(lambda x: x + 1)
    for x in (torch.zeros(2), torch.zeros(2), torch.zeros(3), torch.ones(3), torch.ones(2), torch.zeros(3).double()):
        assert torch.equal(recording(x), x + 1)
    assert [each.replays for each in recorded] == [1, 1] and len(calls) == 6


def test_weights_are_read_where_they_lie_and_followed_where_they_go(recorded):  # noqa: F811
    model = nn.Linear(3, 2).eval()
    recording, _ = calls_of(lambda x: model(x), state=lambda: state_of(model))
    x = torch.randn(1, 3)

    def holds() -> bool:
        return all(torch.equal(recording(x), model(x)) for _ in range(3))

    assert holds()
    model.weight += 1
    assert holds() and len(recorded) == 1
    model.weight = nn.Parameter(torch.randn(2, 3))
    assert holds() and len(recorded) == 2
    model.register_forward_hook(lambda *_: None)
    assert holds() and len(recorded) == 2


def test_what_cannot_be_recorded_is_called_each_time():
    recording, calls = calls_of(lambda x: x * x.sum().item())
    for i in range(4):
        assert torch.equal(recording(torch.full((2,), float(i))), torch.full((2,), 2.0 * i * i))
    assert len(calls) == 5  # one of them failed


@pytest.mark.parametrize("change", ["few calls", "gradients", "device", "state"])
def test_nothing_is_recorded(recorded, monkeypatch, change):  # noqa: F811
    num_calls = LEAST_CALLS - 1 if change == "few calls" else LEAST_CALLS
    recording = Recording(lambda x: x + 1, num_calls, lambda: None if change == "state" else ())
    if change == "device":
        monkeypatch.setattr(graphs, "DEVICES", ("cuda",))
    with torch.set_grad_enabled(change == "gradients"):
        assert all(recording(torch.ones(1)) == 2 for _ in range(4)) and not recorded


class Processor:
    def __call__(self, attn, x, *_, **__):
        return x


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.blocks[0].register_forward_pre_hook(lambda *_: None),
        lambda model: model.enable_layerwise_casting(torch.bfloat16, torch.float32),
        lambda model: model.enable_group_offload(torch.device("cpu"), offload_type="leaf_level"),
        lambda model: model.add_adapter(LoraConfig(r=2, target_modules=["to_q"])),
        lambda model: model.blocks[0].compile(),
        lambda model: model.blocks[0].coarse_layers[0].self_attention.set_processor(Processor()),
        lambda model: setattr(model.blocks[0], "forward", model.blocks[0].forward),
        lambda model: setattr(model.blocks[0], "sru", type("Mine", (nn.Identity,), {"__module__": "mine"})()),
    ],
)
def test_a_state_of_more_than_weights_is_none(change):
    model = make_tiny_components()["dual_path"].eval()
    assert state_of(model) == state_of(model) is not None
    change(model)
    assert state_of(model) is None


def test_a_state_changes_with_the_dtype():
    model = make_tiny_components()["dual_path"].eval()
    before = state_of(model)
    assert state_of(model.bfloat16()) != before


# --- what is recorded -------------------------------------------------------------------------------------------------

SIZES = dict(num_mulan_codebooks=3, mulan_codebook_size=8, semantic_codebook_size=24, hidden_size=32)
SIZES |= dict(intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3)


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.0}, {"guidance_scale": 3.0, "top_k": 5}, {"temperature": 0.8, "top_p": 0.9}],
    ids=str,
)
def test_a_plan_is_the_same(recorded, monkeypatch, sampling, heads):  # noqa: F811
    torch.manual_seed(0)
    lm = SemanticLM(SemanticLMConfig(**SIZES, num_key_value_heads=heads, null_condition=True)).eval()
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]])

    def plan(prefix: torch.Tensor | None = None) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        return lm.generate_semantic_tokens(codes, 40, prefix, Sampling(**sampling), generators)

    made = [plan(), plan(torch.arange(10).repeat(2, 1))]
    assert [each.replays for each in recorded] == [38, 38]  # of 40 the first comes from the prefix, the next is called
    monkeypatch.setattr(graphs, "DEVICES", ())
    assert torch.equal(made[0], plan()) and torch.equal(made[1], plan(torch.arange(10).repeat(2, 1)))
    assert len(recorded) == 2


@pytest.mark.parametrize("continuation", ["diagonal", "windows"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_a_rendering_is_the_same(recorded, monkeypatch, guidance, continuation):  # noqa: F811
    torch.manual_seed(0)
    model = DualPathDiffusionModel(
        latent_dim=4,
        num_frames=40,
        semantic_codebook_size=8,
        hidden_size=16,
        num_blocks=2,
        segment_length=8,
        num_attention_heads=2,
        mlp_size=16,
        angle_embedding_size=8,
        frame_conditioning=True,
    ).eval()
    scheduler = AngleScheduler()
    scheduler.set_timesteps(5)
    latents, tokens = torch.randn(2, 60, 4), torch.randint(8, (2, 30))
    passes = plan_passes(torch.ones(60, dtype=torch.bool), 40, 10, scheduler, 2, continuation)

    def render(change_at: int | None = None) -> torch.Tensor:
        scale = SimpleNamespace(now=guidance, step=0)

        def on_step(angle: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            scale.step += 1
            if scale.step == change_at:  # between recorded steps, as a callback may
                scale.now = 1.7
                model.proj_out.weight.mul_(1.01)
                model.blocks[0].register_forward_hook(lambda *_: None)
            return z

        timebase = Timebase(24000, 480, 25)
        return denoise(model, scheduler, latents, tokens, passes, timebase, lambda: scale.now, on_step=on_step)

    made = render()
    assert [each.replays for each in recorded] == [len(passes) - 1]  # the first one is called
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "DEVICES", ())
        assert torch.equal(made, render())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    made = render(change_at=7)
    assert [each.replays for each in recorded] == [len(passes) - 1, 6]
    model.load_state_dict(before)
    monkeypatch.setattr(graphs, "DEVICES", ())
    assert torch.equal(made, render(change_at=7))
