"""What mixes: texts, a text and a clip; what is led away from. The same for every pipeline."""

import numpy as np
import pytest
import torch
from tiny import make_attentive

from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyInputError, MeLoDyPipeline, SemanticLM, SemanticLMConfig
from melody_diffusers.models.semantic_lm import Sampling
from melody_diffusers.pipelines.conditions import as_text, mix

QUICK = {"num_inference_steps": 1, "output_type": "pt", "audio_duration": 1.0}
CLIP = (0.5 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


def test_a_mixture_is_the_unit_vector_under_the_weighted_mean():
    one, other = torch.eye(3)[:2]
    torch.testing.assert_close(mix(torch.stack([one, other]), [3.0, 4.0]), torch.tensor([0.6, 0.8, 0.0]))
    torch.testing.assert_close(mix(torch.stack([one, other]), [30.0, 40.0]), torch.tensor([0.6, 0.8, 0.0]))
    odd = torch.tensor([[0.1, 0.2, 0.3]])
    assert torch.equal(mix(odd, [7.0]), odd[0])  # as it came, to the bit


def test_a_mixture_reads_as_its_parts():
    assert as_text("a waltz") == "a waltz"
    assert as_text({"a waltz": np.float32(2), "rock": torch.tensor(0.25)}) == '"a waltz" x 2 + "rock" x 0.25'
    assert len(as_text({"a" * 1500: 1, "b" * 1500: 1})) == 2000


def test_texts_mix_by_the_ratio_of_their_weights(pipe):
    waltz, rock = pipe.embed_prompt(["a waltz", "rock"])
    mixed = pipe.embed_prompt([{"a waltz": 1, "rock": 3}, {"a waltz": 2.0, "rock": 6.0}, "rock", {"rock": 5}])
    torch.testing.assert_close(mixed[0], mix(torch.stack([waltz, rock]), [0.25, 0.75]))
    torch.testing.assert_close(mixed[1], mixed[0])
    torch.testing.assert_close(mixed[2], rock)
    assert torch.equal(mixed[3], mixed[2])


def test_a_text_and_a_clip_mix_by_the_clips_weight(pipe):
    clip = torch.from_numpy(CLIP)[None]
    text, sound = pipe.embed_prompt("rock"), pipe.embed_prompt(audio_prompt=[clip])
    for weight, expected in ((0.0, text), (1.0, sound), (0.5, torch.nn.functional.normalize(text + sound))):
        torch.testing.assert_close(pipe.embed_prompt("rock", [clip], weight), expected)


def test_a_piece_of_a_mixture_is_what_its_tokens_make(pipe):
    clip = {"audio_prompt": CLIP, "audio_prompt_sampling_rate": 24000}
    for arguments, tokens in (
        ({"prompt": {"a waltz": 1, "rock": 2}}, pipe.encode_prompt({"a waltz": 1, "rock": 2})),
        ({"prompt": "rock"} | clip, pipe.encode_prompt("rock", [torch.from_numpy(CLIP)[None]])),
        (
            {"prompt": ["rock", "waltz"]} | clip,
            pipe.encode_prompt(["rock", "waltz"], [torch.from_numpy(CLIP)[None]] * 2),
        ),
    ):
        made = pipe(**arguments, generator=seeded(), **QUICK)
        assert torch.equal(made.audios, pipe(mulan_tokens=tokens, generator=seeded(), **QUICK).audios)


def with_null_condition(components):
    """The components, with a language model that knows the absence of a prompt."""
    torch.manual_seed(0)
    config = components["semantic_lm"].config.to_dict() | {"null_condition": True, "vocab_size": 0}
    return make_attentive(components | {"semantic_lm": SemanticLM(SemanticLMConfig(**config)).eval()})


@torch.no_grad()
def test_guidance_leads_from_the_negative_prompt_instead_of_none(tiny_components):
    lm = with_null_condition(tiny_components)["semantic_lm"]
    given, away = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6]])
    sampling = Sampling(temperature=0, guidance_scale=3.0)
    tokens = lm.generate_semantic_tokens(given, 12, sampling=sampling, negative_tokens=away)
    scores, others = lm.semantic_logits(given, tokens), lm.semantic_logits(away, tokens)
    assert torch.equal(tokens, torch.lerp(others, scores, 3.0).argmax(-1))
    none = lm.generate_semantic_tokens(given, 12, sampling=sampling)
    assert not torch.equal(none, tokens)
    absent = torch.full_like(given, -1)
    assert torch.equal(none, lm.generate_semantic_tokens(given, 12, sampling=sampling, negative_tokens=absent))
    with pytest.raises(ValueError, match=r"negative_tokens must have shape \(1, 3\), got \(2, 3\)"):
        lm.generate_semantic_tokens(given, 12, sampling=sampling, negative_tokens=away.repeat(2, 1))


def test_a_negative_prompt_changes_the_music_and_without_one_it_is_as_ever(tiny_components):
    other = MeLoDyPipeline(**with_null_condition(tiny_components))
    other.set_progress_bar_config(disable=True)
    call = {"lm_guidance_scale": 4.0, **QUICK}
    plain, none, rock, violin = (
        other("a waltz", negative_prompt=negative, generator=seeded(), **call).semantic_tokens
        for negative in (None, None, "rock", "happy violin")
    )
    mulan_tokens = other.encode_prompt("a waltz")
    absent = other.generate_semantic_tokens(
        mulan_tokens, 63, sampling=Sampling(guidance_scale=4.0), generator=[seeded()],
        negative_tokens=torch.full_like(mulan_tokens, -1),
    )  # fmt: skip
    assert torch.equal(plain, none) and torch.equal(plain[:, :63], absent[:, : plain.shape[1]])
    assert len({tuple(tokens[0].tolist()) for tokens in (plain, rock, violin)}) == 3


def test_a_model_without_an_absent_condition_is_guided_by_a_negative_prompt(pipe):
    call = {"generator": seeded(), "lm_guidance_scale": 4.0, **QUICK}
    with pytest.raises(MeLoDyInputError, match="Or give a `negative_prompt`"):
        pipe("a waltz", **call)
    batch = pipe(["a waltz", "rock"], negative_prompt="solo piano", **call | {"generator": [seeded(1), seeded(2)]})
    single = pipe("rock", negative_prompt="solo piano", **call | {"generator": [seeded(2)]})
    assert torch.equal(batch.semantic_tokens[1], single.semantic_tokens[0])


def test_inpainting_takes_the_same_conditions(tiny_components):
    inpaint = MeLoDyInpaintPipeline(**make_attentive(tiny_components))
    inpaint.set_progress_bar_config(disable=True)
    call = {"audio": CLIP, "audio_sampling_rate": 24000, "extend_seconds": 1.0, "num_inference_steps": 1}

    def plan(**arguments):
        return inpaint(**call, generator=seeded(), lm_guidance_scale=4.0, **arguments).semantic_tokens

    clip = {"audio_prompt": CLIP[:12000], "audio_prompt_sampling_rate": 24000}
    plans = [plan(prompt={"rock": 1, "happy violin": 1}, negative_prompt="piano"), plan(negative_prompt="piano")]
    plans += [plan(prompt="techno", negative_prompt="piano", audio_prompt_weight=0.1, **clip)]
    assert len({tuple(each[0].tolist()) for each in plans}) == 3
    with pytest.raises(MeLoDyInputError, match="asks no language model"):
        plan(semantic_source="audio", negative_prompt="piano")


BAD_CALLS = [
    ({"prompt": {"rock": -1}}, "prompt['rock']", "above 0 and at most 1000; got -1"),
    ({"prompt": {"rock": "much"}}, "prompt['rock']", "got 'much'"),
    ({"prompt": {"rock": float("nan")}}, "prompt['rock']", "got nan"),
    ({"prompt": {}}, "prompt", "mix 1 to 64 texts; got 0"),
    ({"prompt": {"": 1}}, "prompt", "not be empty"),
    ({"prompt": {3: 1}}, "prompt", "be a text; got 3"),
    ({"prompt": ["a", {"rock": 0}]}, "prompt[1]['rock']", "got 0"),
    ({"prompt": "rock", "audio_prompt_weight": 0.5}, "audio_prompt_weight", "unless a text, `prompt`, and a clip"),
    ({"audio_prompt": CLIP, "audio_prompt_weight": 0.5}, "audio_prompt_weight", "got 0.5"),
    ({"prompt": "rock", "audio_prompt": CLIP, "audio_prompt_weight": 2}, "audio_prompt_weight", "from 0 to 1; got 2"),
    ({"prompt": ["a"] * 3, "audio_prompt": [CLIP] * 2}, "audio_prompt", "one for each of 3 texts; got 2"),
    ({"prompt": "a", "negative_prompt": "b"}, "negative_prompt", "Give `lm_guidance_scale` a value above 1"),
    ({"prompt": "a", "negative_prompt": ""}, "negative_prompt", "not be empty"),
    ({"prompt": "a", "negative_prompt": ["b", "c"]}, "negative_prompt", "one for each of 1 prompts; got 2"),
    ({"semantic_tokens": torch.zeros(1, 250).long(), "negative_prompt": "b"}, "negative_prompt", "rendered as it is"),
    ({"prompt": "a", "audio_prompt": CLIP, "mulan_tokens": torch.zeros(1, 3).long()}, "prompt", "and mulan_tokens"),
]


@pytest.mark.parametrize(("arguments", "name", "said"), BAD_CALLS)
def test_a_bad_mixture_is_refused_by_name(pipe, arguments, name, said):
    if "audio_prompt" in arguments:
        arguments = arguments | {"audio_prompt_sampling_rate": 24000}
    with pytest.raises(MeLoDyInputError) as caught:
        pipe(**arguments)
    assert caught.value.argument == name and said in str(caught.value)
    assert len(str(caught.value)) < 300
