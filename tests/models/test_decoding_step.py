"""The short way through a decoding step gives the tokens of the model's own forward."""

import pytest
import torch
from peft import LoraConfig
from torch import nn

from melody_diffusers import MELODY_TINY, SemanticLM, SemanticLMConfig
from melody_diffusers.models import decoding_step, semantic_lm
from melody_diffusers.models.decoding_step import DecodingStep, is_plain
from melody_diffusers.models.semantic_lm import Sampling

SIZES = {
    "num_mulan_codebooks": 3,
    "mulan_codebook_size": 8,
    "semantic_codebook_size": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 200,
    "initializer_range": 0.3,
    "null_condition": True,
}


def make(**sizes) -> SemanticLM:
    torch.manual_seed(0)
    return SemanticLM(SemanticLMConfig(**SIZES | sizes)).eval()


def tokens_of(lm: SemanticLM, batch: int = 2, count: int = 100, first: int = 0, **sampling) -> torch.Tensor:
    generator = torch.Generator().manual_seed(first)
    codes = torch.randint(lm.config.mulan_codebook_size, (batch, lm.config.num_mulan_codebooks), generator=generator)
    generators = [torch.Generator().manual_seed(first + i) for i in range(batch)]
    return lm.generate_semantic_tokens(codes, count, sampling=Sampling(**sampling), generator=generators)


@pytest.fixture
def by_forward(monkeypatch):
    """The same tokens, each by the model's own forward."""

    def compute(*arguments, **options) -> torch.Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(semantic_lm, "is_plain", lambda lm: False)
            return tokens_of(*arguments, **options)

    return compute


@pytest.fixture
def steps(monkeypatch):
    """How often the short way was taken."""
    taken, step = [], DecodingStep.__call__

    def counted(self, *arguments):
        taken.append(1)
        return step(self, *arguments)

    monkeypatch.setattr(DecodingStep, "__call__", counted)
    return taken


@pytest.fixture(params=["compiled", "operations"])
def way(request, monkeypatch):
    """The step as compiled loops, and as operations of PyTorch."""
    monkeypatch.setattr(decoding_step, "COMPILED_ROWS", 1000 if request.param == "compiled" else 0)
    return request.param


@pytest.mark.parametrize("sizes", [{}, {"num_key_value_heads": 2}, {"tie_word_embeddings": True}, {"head_dim": 16}])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.0}, {"guidance_scale": 3.0, "top_k": 5}])
def test_its_tokens_are_those_of_the_models_forward(by_forward, steps, way, sizes, sampling):
    lm = make(**sizes)
    assert torch.equal(tokens_of(lm, **sampling), by_forward(lm, **sampling))
    assert len(steps) == 99  # the first token comes from the prefix


def test_its_scores_are_those_of_the_models_forward(way):
    lm = make()
    ids = lm.build_input_ids(torch.zeros(2, 3, dtype=torch.long), torch.arange(40).remainder(24).repeat(2, 1))
    layers = [semantic_lm._PreallocatedLayer(60) for _ in range(2)]
    with torch.no_grad():
        lm(ids[:, :30], past_key_values=semantic_lm.Cache(layers=layers), use_cache=True)
        step = DecodingStep(lm, layers, 60, 24)
        assert (step._kernels is not None) == (way == "compiled")
        scores = torch.stack([step(ids[:, place : place + 1], place) for place in range(30, 43)], dim=1)
        assert torch.allclose(scores, lm(ids).logits[:, 30:, :24], atol=1e-5)


@pytest.mark.parametrize("where", ["applied", "merged"])
def test_adapters_are_heard(by_forward, steps, where):
    plain = make()
    lm = make()
    torch.manual_seed(1)
    lm.add_adapter(LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    if where == "merged":
        for module in lm.modules():
            if hasattr(module, "merge"):
                module.merge()
    tokens = tokens_of(lm, temperature=0.0)
    assert torch.equal(tokens, by_forward(lm, temperature=0.0)) and not steps
    assert not torch.equal(tokens, tokens_of(plain, temperature=0.0))


def test_a_model_that_is_not_plain_goes_by_its_own_forward():
    assert is_plain(make())
    for change in (
        lambda lm: setattr(lm.model.layers[1].mlp, "up_proj", nn.Sequential(lm.model.layers[1].mlp.up_proj)),
        lambda lm: lm.model.layers[0].register_forward_hook(lambda *_: None),
        lambda lm: lm.lm_head.to(torch.bfloat16),
    ):
        lm = make()
        change(lm)
        assert not is_plain(lm)
    assert not is_plain(make(hidden_act="gelu")) and not is_plain(make(attention_bias=True))


def test_projections_of_a_large_model_are_not_copied(monkeypatch, by_forward):
    lm = make()
    expected = by_forward(lm)
    monkeypatch.setattr(decoding_step, "FUSED_NUMBERS", 0)
    assert torch.equal(tokens_of(lm), expected)


def test_a_batch_too_large_for_the_compiled_step_and_other_dtypes_go_by_operations():
    layers = [semantic_lm._PreallocatedLayer(8) for _ in range(2)]
    for lm, rows, compiled in ((make(), 2, True), (make(), 100, False), (make().to(torch.bfloat16), 2, False)):
        for layer in layers:
            layer.is_initialized = False
            layer.update(*[torch.zeros(rows, 4, 1, 8, dtype=lm.dtype)] * 2)
        assert (DecodingStep(lm, layers, 8, 24)._kernels is not None) == compiled


@pytest.mark.slow
def test_a_thousand_plans_of_the_shipped_model_are_those_of_its_forward(by_forward, way):
    lm = SemanticLM.from_pretrained(MELODY_TINY, subfolder="semantic_lm")
    for first in range(0, 1000, 125):
        arguments = {"batch": 125, "count": 25, "first": first, "guidance_scale": 5.0}
        assert torch.equal(tokens_of(lm, **arguments), by_forward(lm, **arguments))
