import inspect

import pytest
import torch
from tiny import make_quiet, make_tiny_components

from melody_diffusers import MeLoDyInputError, MeLoDyPipeline
from melody_diffusers.pipelines.plan import draw_plan, plan_of, render_plan
from melody_diffusers.pipelines.progressive import play
from melody_diffusers.pipelines.request import GenerationRequest

QUICK = {"prompt": "a happy waltz", "num_inference_steps": 4, "output_type": "pt"}


@pytest.fixture(scope="module")
def pipe():
    pipe = MeLoDyPipeline(**make_quiet(make_tiny_components()))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def asked(pipe, seed=3, **arguments):
    parameters = inspect.signature(MeLoDyPipeline.__call__).parameters
    defaults = {name: each.default for name, each in parameters.items() if name != "self"}
    generator = torch.Generator().manual_seed(seed)
    return GenerationRequest.check(pipe, **(defaults | QUICK | {"generator": generator} | arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {"audio_duration": 1.0},
        {"audio_duration": 10.0, "ending": None},
        {"audio_duration": 23.7},
        {"audio_duration": 13.3, "continuation": "windows", "temperature": 0.0},
    ],
    ids=str,
)
def test_what_is_played_is_what_the_pipeline_makes(pipe, arguments):
    parts = list(play(pipe, asked(pipe, **arguments)))
    whole = pipe(**(QUICK | arguments), generator=torch.Generator().manual_seed(3))
    assert len(parts) == 1 if arguments["audio_duration"] <= 10 else len(parts) > 1
    assert float(whole.gains) == 1.0
    assert torch.cat(parts, dim=1).allclose(whole.audios[0], atol=1e-4)


def test_a_part_is_heard_before_the_plan_is_whole(pipe):
    planned = []
    request = asked(pipe, audio_duration=40.0, callback_on_token_end=lambda *_: planned.append(1))
    part = next(play(pipe, request))
    assert part.shape[1] > 24000 and len(planned) < 500


def test_where_the_limiter_acts_nothing_exceeds_its_ceiling(pipe, monkeypatch):
    decode_next, unlimited = pipe.vae.decode_next, pipe.decode_unlimited
    monkeypatch.setattr(pipe.vae, "decode_next", lambda *a: (lambda s, m: (20 * s, m))(*decode_next(*a)))
    monkeypatch.setattr(pipe, "decode_unlimited", lambda *a: 20 * unlimited(*a))
    sound = torch.cat(list(play(pipe, asked(pipe, audio_duration=20.0))), dim=1)
    assert 0.9 < sound.abs().max() <= 0.977 + 1e-6
    (short,) = play(pipe, asked(pipe, audio_duration=2.0))  # of which all is known at once
    whole = pipe(**QUICK, audio_duration=2.0, generator=torch.Generator().manual_seed(3))
    assert float(whole.gains) < 1 and short.allclose(whole.audios[0], atol=1e-4)


@pytest.mark.parametrize(
    "arguments, argument",
    [
        ({"loop": True}, "loop"),
        ({"prompt": ["a", "b"], "generator": None}, "prompt"),
        ({"generator": None}, "generator"),
        ({"prompt": None, "semantic_tokens": [[1] * 250]}, "semantic_tokens"),
    ],
    ids=str,
)
def test_what_cannot_be_played_is_refused(pipe, arguments, argument):
    with pytest.raises(MeLoDyInputError) as caught:
        next(play(pipe, asked(pipe, audio_duration=10.0, **arguments)))
    assert caught.value.argument == argument


@pytest.mark.parametrize("arguments", [{"audio_duration": 3.0}, {"loop": True, "bars": 1, "bpm": 120}], ids=str)
def test_a_plan_that_was_drawn_alone_gives_the_sound_of_the_piece(pipe, arguments):
    plan = draw_plan(pipe, asked(pipe, **arguments))
    whole = pipe(**(QUICK | arguments), generator=torch.Generator().manual_seed(3))
    assert plan == plan_of(pipe, whole)
    assert torch.equal(render_plan(pipe, plan, output_type="pt").audios, whole.audios)
    with pytest.raises(ValueError, match="one piece"):
        draw_plan(pipe, asked(pipe, prompt=["a", "b"], generator=None))
