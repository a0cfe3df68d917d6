import numpy as np
import pytest
import torch

from melody_diffusers import MeLoDyInputError, MeLoDyVariationPipeline
from melody_diffusers.pipelines.recording import level_gain

RATE = 24000
QUICK = {"num_inference_steps": 3, "output_type": "latent", "audio_sampling_rate": RATE}


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    pipe = MeLoDyVariationPipeline.from_pipe(tiny_pipeline)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def recording():
    time = np.arange(11 * RATE) / RATE
    return (0.4 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 2 * time)) / 2).astype(np.float32)


def seeded():
    return torch.Generator().manual_seed(0)


@torch.no_grad()
@pytest.mark.parametrize("seconds", [1.3, 11.0])
def test_a_larger_strength_is_farther_away_and_none_is_the_piece_as_the_vae_hears_it(pipe, recording, seconds):
    piece, distances = recording[: round(seconds * RATE)], []
    frames = pipe.timebase.whole_token_frames(pipe.timebase.samples_to_frames(len(piece)))
    padded = torch.zeros(1, 1, pipe.timebase.frames_to_samples(frames))
    padded[0, 0, : len(piece)] = torch.from_numpy(piece)
    latents = pipe.vae.encode(padded * level_gain(padded[0, :, : len(piece)], RATE)).latent_dist.mode()
    for strength in (0.0, 0.3, 1.0):
        varied = pipe(piece, strength=strength, prompt="a waltz", generator=seeded(), **QUICK).audios
        distances.append(float((varied - latents).square().mean()))
    assert distances[0] == 0 and distances == sorted(distances) and len(set(distances)) == 3


@torch.no_grad()
def test_a_loud_and_a_quiet_recording_come_back_alike_each_at_its_level(pipe, recording):
    call = {"strength": 0.5, "prompt": "a waltz", **QUICK, "output_type": "pt"}
    loud, quiet = (
        pipe(
            size * recording[: 2 * RATE], generator=seeded(), semantic_tokens=torch.arange(50)[None] % 32, **call
        ).audios
        for size in (0.5, 0.01)
    )
    torch.testing.assert_close(50 * quiet, loud, atol=1e-3, rtol=1e-3)
    assert loud.abs().max() > 0.05


def test_a_strength_of_one_renders_the_plan_from_noise(pipe, tiny_pipeline, recording):
    varied = pipe(recording[: 3 * RATE], strength=1.0, generator=seeded(), **QUICK)
    plan = {"semantic_tokens": varied.semantic_tokens, "mulan_tokens": varied.mulan_tokens}
    rendered = tiny_pipeline(**plan, num_inference_steps=3, output_type="latent", generator=seeded())
    torch.testing.assert_close(varied.audios, rendered.audios)


def test_a_part_of_the_plan_is_written_anew_and_more_of_it_holds_less_of_it(pipe, recording):
    plan = torch.randint(0, 32, (1, 275), generator=seeded())
    before, unchanged = set(), None
    for share, spans in ((0.0, 0), (0.25, 3), (1.0, 11)):
        given = {"semantic_tokens": plan, "plan_strength": share, "strength": 0.0}
        output = pipe(recording, **given, prompt="a waltz", generator=seeded(), **QUICK)
        changed = {index // 25 for index in (output.semantic_tokens != plan)[0].nonzero()[:, 0].tolist()}
        assert len(changed) == spans and changed >= before
        before = changed
        frames = torch.tensor([index // 50 in changed for index in range(output.audios.shape[1])])
        unchanged = output.audios if unchanged is None else unchanged
        assert torch.equal(output.audios[:, ~frames], unchanged[:, ~frames])  # what is kept keeps its sound as well
        assert not frames.any() or not torch.equal(output.audios[:, frames], unchanged[:, frames])


def test_it_has_the_length_of_the_piece_and_as_many_variations_as_asked(pipe, recording):
    options = QUICK | {"output_type": "pt"}
    output = pipe(recording[:31234], num_waveforms_per_prompt=2, generator=seeded(), **options)
    assert output.audios.shape == (2, 1, 31234) and not torch.equal(*output.audios)


def test_stopped_early_it_ends_where_the_rendering_did(pipe, recording):
    def stop(view, step, angle, tensors):
        view._interrupt = True

    made = pipe(recording, strength=0.5, callback_on_step_end=stop, **QUICK).audios
    assert made.shape[1] < 11 * 50


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"strength": 1.5}, "`strength` must be a number from 0 to 1; got 1.5"),
        ({"plan_strength": -1}, "`plan_strength` must be a number from 0 to 1; got -1"),
        ({"semantic_tokens": [[1] * 10]}, "`semantic_tokens` must cover the piece, which takes 275 tokens; got 10"),
        ({"prompt": ["a", "b"]}, "`prompt` must be one for the piece; got 2"),
    ],
)
def test_what_cannot_be_is_said(pipe, recording, arguments, message):
    with pytest.raises(MeLoDyInputError) as error:
        pipe(recording, audio_sampling_rate=RATE, **arguments)
    assert message in str(error.value)


def test_without_a_tokenizer_the_plan_must_be_given(pipe, recording, monkeypatch):
    monkeypatch.setattr(pipe, "semantic_tokenizer", None)
    with pytest.raises(MeLoDyInputError, match="`semantic_tokens` must be given, for the component"):
        pipe(recording, audio_sampling_rate=RATE)
    assert pipe(recording[:RATE], semantic_tokens=[[3] * 25], **QUICK).audios.shape[1] == 50
