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


@pytest.mark.parametrize(
    ("dtype", "rows", "large", "compiled"),
    [
        ("float32", 16, False, True),
        ("float32", 17, False, False),
        ("float32", 2, True, True),
        ("float32", 3, True, False),
        ("bfloat16", 2, False, True),
        ("bfloat16", 17, False, False),
        ("float16", 2, False, False),
        ("float64", 2, False, False),
        ("int8", 17, True, True),  # which operations of PyTorch could not
    ],
)
def test_a_batch_too_large_for_the_compiled_step_and_other_dtypes_go_by_operations(
    monkeypatch, dtype, rows, large, compiled
):
    monkeypatch.setattr(decoding_step, "FUSED_NUMBERS", 0 if large else 1 << 24)
    lm = int8() if dtype == "int8" else make().to(getattr(torch, dtype))
    layers = [semantic_lm._PreallocatedLayer(8) for _ in range(2)]
    for layer in layers:
        layer.update(*[torch.zeros(rows, 4, 1, 8, dtype=lm.dtype)] * 2)
    assert (DecodingStep(lm, layers, 8, 24)._kernels is not None) == compiled


def int8(dtype: torch.dtype = torch.float32) -> SemanticLM:
    """With torchao's weights; what they are worth is checked against its own products in float32."""
    quantization = pytest.importorskip("torchao.quantization", exc_type=ImportError)
    lm = make().to(dtype)
    quantization.quantize_(lm, quantization.Int8WeightOnlyConfig(version=2))
    return lm


def scores_of(lm: SemanticLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (2, 13, 24) by steps, which are compiled ones, and those by the model's forward."""
    ids = lm.build_input_ids(torch.zeros(2, 3, dtype=torch.long), torch.arange(40).remainder(24).repeat(2, 1))
    ids[1, 5:] = ids[1, 5:].flip(0)
    layers = [semantic_lm._PreallocatedLayer(60) for _ in range(2)]
    with torch.inference_mode():
        lm(ids[:, :30], past_key_values=semantic_lm.Cache(layers=layers), use_cache=True)
        step = DecodingStep(lm, layers, 60, 24)
        assert step._kernels is not None
        scores = torch.stack([step(ids[:, place : place + 1], place) for place in range(30, 43)], dim=1)
        return scores, lm(ids).logits[:, 30:, :24].float()


def test_int8_weights_are_used_as_they_are(by_forward, steps):
    """By the same numbers as torchao's own products, which make each weight anew for each token."""
    lm = int8()
    assert is_plain(lm)
    scores, expected = scores_of(lm)
    assert torch.allclose(scores, expected, atol=1e-4)
    steps.clear()
    assert torch.equal(tokens_of(lm, guidance_scale=3.0), by_forward(lm, guidance_scale=3.0)) and len(steps) == 99


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_half_the_bits_give_the_scores_of_the_forward_within_their_rounding(kind):
    """Nearer to float32 than the forward itself, which rounds after each operation."""
    exact = make().to(torch.bfloat16).float() if kind == "bfloat16" else int8()
    low = make().to(torch.bfloat16) if kind == "bfloat16" else int8(torch.bfloat16)
    scores, by_forward = scores_of(low)
    truth = scores_of(exact)[1]
    error, allowed = (scores - truth).norm() / truth.norm(), (by_forward - truth).norm() / truth.norm()
    assert error < allowed < 0.05


def test_threads_share_the_rows_of_a_large_model(monkeypatch, by_forward):
    from melody_diffusers import compiled

    lm = make(num_key_value_heads=2)
    expected = by_forward(lm)
    monkeypatch.setattr(decoding_step, "FUSED_NUMBERS", 0)
    monkeypatch.setattr(compiled, "SPLIT", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(tokens_of(lm), expected)
    finally:
        torch.set_num_threads(threads)


def test_without_numba_large_and_bfloat16_models_go_by_operations_and_int8_by_its_forward(monkeypatch, steps):
    monkeypatch.setattr(decoding_step, "has_numba", lambda: False)
    assert is_plain(make()) and not is_plain(int8())
    tokens_of(make().to(torch.bfloat16), count=5)
    assert len(steps) == 4


def test_int8_that_rounds_what_it_multiplies_goes_by_its_forward():
    quantization = pytest.importorskip("torchao.quantization", exc_type=ImportError)
    lm = make()
    quantization.quantize_(lm, quantization.Int8DynamicActivationInt8WeightConfig(version=2))
    assert not is_plain(lm)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 5), (7, 33), (64, 48)])
def test_products_of_any_shape(rows, shape):
    kernels = pytest.importorskip("melody_diffusers.models.decoding_step_cpu", exc_type=ImportError)
    weight, x = torch.randn(shape).bfloat16(), torch.randn(rows, shape[1])
    y = torch.empty(rows, shape[0])
    kernels.products(*kernels.matrix(weight), x.numpy(), y.numpy())
    assert torch.allclose(y, x @ weight.float().T, atol=1e-5)


def test_bits_of_bfloat16_are_pytorchs():
    compiled = pytest.importorskip("melody_diffusers.compiled", exc_type=ImportError)

    @compiled.compiled
    def rounded(x, y):
        for i in range(len(x)):
            y[i] = compiled.narrow(x[i], y)

    x = torch.randn(1 << 16).exp() * torch.tensor([1.0, -1e30]).repeat(1 << 15)
    x[:6] = torch.tensor([torch.inf, -torch.inf, torch.nan, 1 + 2**-8, 1 + 3 * 2**-8, -0.0])
    y = torch.empty(1 << 16, dtype=torch.bfloat16)
    rounded(x.numpy(), compiled.bits(y))
    assert torch.equal(y.nan_to_num(7), x.bfloat16().nan_to_num(7))


@pytest.mark.slow
def test_a_thousand_plans_of_the_shipped_model_are_those_of_its_forward(by_forward, way):
    lm = SemanticLM.from_pretrained(MELODY_TINY, subfolder="semantic_lm")
    for first in range(0, 1000, 125):
        arguments = {"batch": 125, "count": 25, "first": first, "guidance_scale": 5.0}
        assert torch.equal(tokens_of(lm, **arguments), by_forward(lm, **arguments))
