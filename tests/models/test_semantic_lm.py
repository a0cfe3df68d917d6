import math

import pytest
import torch

from melody_diffusers.models.semantic_lm import Sampling, SemanticLM, SemanticLMConfig, uniform_draws

SIZES = {
    "num_mulan_codebooks": 3,
    "mulan_codebook_size": 8,
    "semantic_codebook_size": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 80,
    "initializer_range": 0.3,  # far from uniform logits
}


@pytest.fixture(scope="module")
def lm() -> SemanticLM:
    torch.manual_seed(0)
    return SemanticLM(SemanticLMConfig(**SIZES)).eval()


def mulan_tokens(batch: int) -> torch.Tensor:
    return torch.randint(0, 8, (batch, 3), generator=torch.Generator().manual_seed(3))


def generators(batch: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(batch)]


def test_default_is_the_papers_size():
    with torch.device("meta"):
        lm = SemanticLM(SemanticLMConfig())
    assert abs(sum(parameter.numel() for parameter in lm.parameters()) / 429.5e6 - 1) < 0.01
    assert lm.config.vocab_size == 12 * 1024 + 1024 and not lm.config.tie_word_embeddings


def test_every_codebook_has_its_own_ids(lm):
    every_code = torch.arange(8)[:, None].expand(8, 3)
    ids = lm.build_input_ids(every_code, torch.arange(24).expand(8, 24))
    assert sorted(ids[:, :3].flatten().tolist()) == list(range(24, 24 + 3 * 8)) and lm.config.vocab_size == 48
    assert ids[0].tolist() == [24, 32, 40, *range(24)]
    with pytest.raises(ValueError, match="mulan_tokens"):
        lm.build_input_ids(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="vocab_size"):
        SemanticLMConfig(**SIZES, vocab_size=100)


def test_semantic_logits_predict_each_token_from_those_before(lm):
    mulan, tokens = mulan_tokens(2), torch.randint(0, 24, (2, 10), generator=torch.Generator().manual_seed(0))
    logits = lm.semantic_logits(mulan, tokens)
    assert logits.shape == (2, 10, 24)
    whole = lm(lm.build_input_ids(mulan, tokens)).logits
    assert torch.allclose(logits, whole[:, 2:-1, :24], atol=1e-5)


def test_greedy_loop_equals_forward_without_a_cache(lm):
    mulan, prefix = mulan_tokens(2), torch.randint(0, 24, (2, 7), generator=torch.Generator().manual_seed(0))
    ids = lm.build_input_ids(mulan, prefix)
    for _ in range(20):
        ids = torch.cat([ids, lm(ids).logits[:, -1, :24].argmax(-1, keepdim=True)], dim=1)
    tokens = lm.generate_semantic_tokens(mulan, 20, prefix_tokens=prefix, sampling=Sampling(temperature=0))
    assert torch.equal(tokens, ids[:, -20:])


@pytest.mark.parametrize("sampling", [{}, {"top_k": 5}, {"top_p": 0.8, "temperature": 0.7}])
def test_a_batch_of_64_equals_its_samples_alone_and_in_fours(lm, sampling):
    mulan = mulan_tokens(64)
    together = lm.generate_semantic_tokens(mulan, 24, generator=generators(64), sampling=Sampling(**sampling))
    for size in (1, 4):
        parts = [
            lm.generate_semantic_tokens(
                mulan[start : start + size],
                24,
                generator=generators(64)[start : start + size],
                sampling=Sampling(**sampling),
            )
            for start in range(0, 64, size)
        ]
        assert torch.equal(torch.cat(parts), together)
    assert len(together.unique()) > 5


def test_same_generator_same_tokens(lm):
    first, again = (lm.generate_semantic_tokens(mulan_tokens(2), 8, generator=generators(1)[0]) for _ in range(2))
    other = lm.generate_semantic_tokens(mulan_tokens(2), 8, generator=generators(2)[1])
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_draws_follow_the_models_probabilities(lm):
    mulan = mulan_tokens(1).expand(4000, 3)
    logits = lm(lm.build_input_ids(mulan[:1])).logits[0, -1, :24]
    draws = lm.generate_semantic_tokens(mulan, 1, sampling=Sampling(temperature=1.5), generator=generators(1)[0])[:, 0]
    frequencies = torch.bincount(draws, minlength=24) / 4000
    # five standard errors of a share
    expected = (logits / 1.5).softmax(-1)
    assert ((frequencies - expected).abs() <= 5 * (expected * (1 - expected) / 4000).sqrt() + 1e-3).all()


def test_top_k_and_top_p_draw_among_the_likeliest(lm):
    mulan = mulan_tokens(1).expand(500, 3)
    probabilities, order = lm(lm.build_input_ids(mulan[:1])).logits[0, -1, :24].softmax(-1).sort(descending=True)
    kept = lm.generate_semantic_tokens(
        mulan, 1, sampling=Sampling(temperature=5.0, top_k=3), generator=generators(1)[0]
    )
    # a temperature of 5 flattens the three, not what lies outside
    assert set(kept.flatten().tolist()) == set(order[:3].tolist())
    nucleus = int((probabilities.cumsum(0) < 0.6).sum()) + 1
    kept = lm.generate_semantic_tokens(mulan, 1, sampling=Sampling(top_p=0.6), generator=generators(1)[0])
    assert set(kept.flatten().tolist()) <= set(order[:nucleus].tolist())
    always = lm.generate_semantic_tokens(mulan, 1, sampling=Sampling(top_p=1e-9), generator=generators(1)[0])
    assert (always == order[0]).all()


def test_guidance_extrapolates_from_the_scores_without_condition():
    torch.manual_seed(0)
    lm = SemanticLM(SemanticLMConfig(**SIZES, null_condition=True)).eval()
    assert lm.config.vocab_size == 3 * 8 + 24 + 1
    mulan = mulan_tokens(2)
    assert (lm.build_input_ids(torch.full_like(mulan, -1)) == lm.config.vocab_size - 1).all()
    unknown = torch.tensor([[5, -1, 7]])
    assert lm.build_input_ids(mulan[:1], unknown)[0, -3:].tolist() == [5, lm.config.vocab_size - 1, 7]
    tokens = lm.generate_semantic_tokens(mulan, 12, sampling=Sampling(temperature=0, guidance_scale=3.0))
    with torch.inference_mode():
        given, absent = lm.semantic_logits(mulan, tokens), lm.semantic_logits(torch.full_like(mulan, -1), tokens)
    assert torch.equal(tokens, (absent + 3.0 * (given - absent)).argmax(-1))
    assert not torch.equal(tokens, lm.generate_semantic_tokens(mulan, 12, sampling=Sampling(temperature=0)))
    absent_only = lm.generate_semantic_tokens(mulan, 12, sampling=Sampling(temperature=0, guidance_scale=0.0))
    assert torch.equal(absent_only[0], absent_only[1])


def test_callback_counts_tokens(lm):
    seen = []
    lm.generate_semantic_tokens(mulan_tokens(1), 3, callback=lambda step, total: seen.append((step, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_saving_and_loading_keeps_logits_to_the_bit(lm, tmp_path):
    ids = lm.build_input_ids(mulan_tokens(2), torch.randint(0, 24, (2, 60)))
    lm.save_pretrained(tmp_path)
    loaded = SemanticLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, lm(ids).logits)
    assert loaded.config.vocab_size == 48 and loaded.config.num_mulan_codebooks == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_tokens": 0}, "num_tokens"),
        ({"num_tokens": 78}, "at most 77 semantic tokens"),
        ({"num_tokens": 70, "prefix_tokens": torch.zeros(1, 8, dtype=torch.long)}, "at most 77 semantic tokens"),
        ({"num_tokens": 5, "prefix_tokens": torch.zeros(2, 8, dtype=torch.long)}, "prefix_tokens"),
        ({"num_tokens": 5, "sampling": Sampling(guidance_scale=2.0)}, "null_condition"),
        ({"num_tokens": 5, "generator": generators(2)}, "generator"),
    ],
)
def test_bad_sampling_arguments_are_refused(lm, arguments, message):
    with pytest.raises(ValueError, match=message):
        lm.generate_semantic_tokens(mulan_tokens(1), **arguments)
    assert lm.generate_semantic_tokens(mulan_tokens(1), 77).shape == (1, 77)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
    ],
)
def test_a_sampling_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**arguments)


def test_all_draws_at_once_are_those_of_one_token_after_another():
    shared, own = generators(2)
    first = uniform_draws([shared, own, shared], (5, 3, 7), torch.device("cpu"))
    shared, own = generators(2)
    for step in range(5):
        for sample, generator in enumerate((shared, own, shared)):
            assert torch.equal(first[step, sample], torch.rand(7, generator=generator))


def test_drawn_tokens_may_be_embedded_in_a_training(lm):
    mulan = mulan_tokens(1)
    tokens = lm.generate_semantic_tokens(mulan, 5)
    assert not tokens.is_inference()
    lm.semantic_logits(mulan, tokens).sum().backward()
    assert lm.get_input_embeddings().weight.grad is not None
    lm.zero_grad()
