"""A stream is a piece without an end: the same latents, the same sound; its state is all there is to it."""

import itertools
import math
from dataclasses import fields, replace

import pytest
import torch
from tiny import make_attentive, make_hearing, make_tiny_components

from melody_diffusers import (
    MeLoDyInputError,
    MeLoDyPipeline,
    MeLoDyStreamPipeline,
    StreamState,
)
from melody_diffusers.pipelines import stream
from melody_diffusers.pipelines.conditions import mix

WINDOW, CHUNK, ABREAST = 64, 16, 3
QUICK = {"num_inference_steps": 6, "output_type": "pt"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_pipe() -> MeLoDyStreamPipeline:
    """Windows of 1.28 s, chunks of 0.32 s; a new set of components each time."""
    torch.manual_seed(0)
    components = make_tiny_components()
    small = make_hearing(components["dual_path"], num_frames=WINDOW, segment_length=16)
    return MeLoDyStreamPipeline(**(make_attentive(components) | {"dual_path": small.eval()}))


@pytest.fixture(scope="module")
def pipe() -> MeLoDyStreamPipeline:
    return make_pipe()


def take(chunks, count):
    return list(itertools.islice(chunks, count))


def sounds(chunks):
    return [chunk.audio for chunk in chunks]


def equal(ones, others):
    return len(ones) == len(others) and all(torch.equal(*pair) for pair in zip(ones, others))


def bytes_of(state: StreamState) -> int:
    tensors = [getattr(state, field.name) for field in fields(state)]
    tensors = [t for t in tensors if isinstance(t, torch.Tensor)] + list(state.decoder.values())
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)  # nothing hangs on to more
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("steps", [6, 12])
def test_a_stream_equals_a_piece_rendered_at_once_from_the_same_noise(pipe, steps, monkeypatch):
    monkeypatch.setattr(stream, "CEILING", 1e9)  # of one piece the limiter knows the loudest place beforehand
    drawn, count = [], 9

    class Recorded(MeLoDyStreamPipeline):
        def prepare_latents(self, *arguments):
            drawn.append(super().prepare_latents(*arguments))
            return drawn[-1]

    recorded = Recorded(**pipe.components)
    chunks = take(recorded("a waltz", generator=seeded(), num_inference_steps=steps, output_type="pt"), count)
    plan, noise = torch.cat([chunk.semantic_tokens for chunk in chunks], 1), torch.cat(drawn, 1)
    assert noise.shape[1] == 2 * plan.shape[1] == (count - 1) * CHUNK - (WINDOW - ABREAST * CHUNK) + WINDOW
    offline = MeLoDyPipeline(**pipe.components)
    offline.set_progress_bar_config(disable=True)
    quick = {"num_inference_steps": steps, "fade_seconds": 0, "output_type": "latent"}
    latents = offline("a waltz", semantic_tokens=plan, latents=noise, **quick).audios
    done = [chunk.state.latents[:, : CHUNK if i == 0 else 2 * CHUNK][:, -CHUNK:] for i, chunk in enumerate(chunks)]
    streamed, alike = torch.cat(done, 1), (count - ABREAST) * CHUNK  # the end of a piece has nothing after it
    assert torch.equal(streamed[:, :alike], latents[:, :alike])
    sound, whole = torch.cat(sounds(chunks), 1), pipe.vae.decode(streamed).sample[0]
    assert whole.shape[1] - 0.2 * 24000 < sound.shape[1] < whole.shape[1]
    torch.testing.assert_close(sound, whole[:, : sound.shape[1]], rtol=0, atol=1e-4)


def test_the_plan_begins_as_that_of_a_piece(pipe):
    (chunk,) = take(pipe("a waltz", generator=seeded(), **QUICK), 1)
    offline = pipe.generate_semantic_tokens(
        pipe.encode_prompt("a waltz"), WINDOW // 2, generator=[seeded(chunk.state.seed)]
    )
    assert torch.equal(chunk.semantic_tokens, offline)


@pytest.mark.parametrize(("crossfade_seconds", "calls"), [(0, 1), (0.64, 2)])
def test_a_window_is_planned_in_one_call_unless_the_prompt_goes_over(pipe, crossfade_seconds, calls, monkeypatch):
    plan, made = type(pipe.semantic_lm).generate_semantic_tokens, []

    def counted(*arguments, **named):
        made.append(plan(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(type(pipe.semantic_lm), "generate_semantic_tokens", counted)
    timeline = [(0, "a waltz"), (0, "rock")]
    (chunk,) = take(pipe(timeline, crossfade_seconds=crossfade_seconds, generator=seeded(), **QUICK), 1)
    new = [each[:, -count:] for each, count in zip(made, [32] if calls == 1 else [8, 24])]
    assert len(made) == calls and torch.equal(torch.cat(new, 1), chunk.semantic_tokens)


def test_the_same_seed_streams_the_same_and_another_another(pipe):
    first, again, other = (sounds(take(pipe("a waltz", generator=seeded(s), **QUICK), 2)) for s in (1, 1, 2))
    assert equal(first, again) and not torch.equal(first[0], other[0])


def test_a_resumed_stream_is_bit_equal(pipe, tmp_path):
    chunks = take(pipe([(0, "a waltz"), (3, "rock")], generator=seeded(), top_k=20, **QUICK), 14)
    for at in (0, 4, 9):  # before, near and in the crossfade
        chunks[at].state.save(tmp_path / "stream.safetensors")
        state = StreamState.load(tmp_path / "stream.safetensors")
        resumed = take(make_pipe()(state=state, output_type="pt"), 13 - at)
        assert equal(sounds(resumed), sounds(chunks[at + 1 :]))
        assert [chunk.start_seconds for chunk in resumed] == [chunk.start_seconds for chunk in chunks[at + 1 :]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stream.safetensors"]


def test_interleaved_streams_do_not_affect_each_other(pipe):
    alone = [sounds(take(pipe(prompt, generator=seeded(), **QUICK), 4)) for prompt in ("a waltz", "rock")]
    both = [pipe(prompt, generator=seeded(), **QUICK) for prompt in ("a waltz", "rock")]
    together = [[next(each).audio for each in both] for _ in range(4)]
    assert equal([a for a, _ in together], alone[0]) and equal([b for _, b in together], alone[1])


def test_the_state_stays_as_large_as_it_is(pipe, tmp_path):
    chunks, sizes, shapes = pipe("a waltz", generator=seeded(), **QUICK), [], set()
    for chunk in take(chunks, 60)[2:]:
        chunk.state.save(tmp_path / "stream.safetensors")
        sizes.append((bytes_of(chunk.state), (tmp_path / "stream.safetensors").stat().st_size))
        shapes.add(chunk.audio.shape)
        assert chunk.audio.abs().max() <= 1
    assert len(set(sizes)) == 1 and shapes == {(1, CHUNK * 480)}
    assert chunk.state.chunk == 60 and chunk.start_seconds == pytest.approx(59 * 0.32, abs=0.2)


@pytest.mark.parametrize("where", ["callback's", "pipeline's"])
def test_a_stream_is_cancelled_within_one_pass_and_goes_on_from_its_state(pipe, where):
    expected = take(pipe("a waltz", generator=seeded(), **QUICK | {"num_inference_steps": 24}), 3)
    passes = []

    def cancel(each, step, angle, tensors):
        passes.append(step)
        if len(passes) == 15:  # of the twelve of the first chunk and the four of each that follows
            (each if where == "callback's" else pipe)._interrupt = True
        return {}

    chunks = pipe("a waltz", generator=seeded(), callback_on_step_end=cancel, **QUICK | {"num_inference_steps": 24})
    (chunk,) = list(chunks)
    assert len(passes) == 15
    assert equal(sounds(take(pipe(state=chunk.state, output_type="pt"), 2)), sounds(expected[1:]))


def test_a_stream_is_cancelled_within_one_token(pipe):
    seen = []

    def cancel(each, step, num_tokens):
        seen.append(step)
        each._interrupt = len(seen) == 5

    assert list(pipe("a waltz", callback_on_token_end=cancel, **QUICK)) == [] and len(seen) == 5
    assert len(take(pipe("a waltz", **QUICK), 1)) == 1


def test_an_interrupt_from_the_keyboard_keeps_what_was_made(pipe):
    expected = sounds(take(pipe("a waltz", generator=seeded(), **QUICK), 4))
    made, passes = [], itertools.count()

    def interrupt(*_):
        if next(passes) == 4:  # the third chunk's first
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        for chunk in pipe("a waltz", generator=seeded(), callback_on_step_end=interrupt, **QUICK):
            made.append(chunk)
    assert len(made) == 2
    rest = take(pipe(state=made[-1].state, output_type="pt"), 2)
    assert equal(sounds(made + rest), expected)


def test_a_prompt_that_changes_is_heard_in_the_chunk_that_comes_next(pipe):
    chunks = take(pipe("a waltz", generator=seeded(), **QUICK), 8)
    call = {"state": chunks[3].state, "crossfade_seconds": 0, "output_type": "pt"}
    changed = take(pipe("rock", **call), 4)
    begins = 4 * CHUNK / 50
    state = changed[0].state
    assert state.times.tolist() == [0, begins, begins]
    waltz, rock = pipe.embed_prompt(["a waltz", "rock"])
    torch.testing.assert_close(state.embedding_at(begins - 0.01), waltz)
    torch.testing.assert_close(state.embedding_at(begins), rock)
    assert torch.equal(changed[0].semantic_tokens, state.semantic_tokens)  # a window of it, all anew
    second = changed[1].state.semantic_tokens[:, CHUNK // 2 : CHUNK]
    assert torch.equal(second, state.semantic_tokens[:, CHUNK // 2 : CHUNK])  # which the second chunk has as well
    assert not torch.equal(second, chunks[5].state.semantic_tokens[:, CHUNK // 2 : CHUNK])  # in place of the old one
    assert not any(torch.equal(*pair) for pair in zip(sounds(changed), sounds(chunks[4:])))


def test_a_prompt_that_goes_over_slowly_follows_what_was_done(pipe):
    chunks = take(pipe("a waltz", generator=seeded(), **QUICK), 5)
    (changed,) = take(pipe("rock", state=chunks[3].state, crossfade_seconds=1.0, output_type="pt"), 1)
    plan, kept = changed.semantic_tokens, (WINDOW - ABREAST * CHUNK) // 2  # three chunks anew
    assert plan.shape == (1, ABREAST * CHUNK // 2) and torch.equal(plan, changed.state.semantic_tokens[:, kept:])
    assert torch.equal(changed.state.semantic_tokens[:, :kept], chunks[4].state.semantic_tokens[:, :kept])
    assert torch.equal(changed.state.latents[:, : 2 * kept], chunks[4].state.latents[:, : 2 * kept])


def test_what_comes_after_a_change_is_the_plan_of_a_piece(pipe):
    """As if the stream began there: nothing of the old plan is read, and the new one is that of the new prompt."""
    chunks = take(pipe("a waltz", generator=seeded(), **QUICK), 3)
    changed = take(pipe("rock", state=chunks[-1].state, crossfade_seconds=0, output_type="pt"), 4)
    seed = chunks[-1].state.seed + 3
    piece = take(pipe("rock", generator=seeded(), **QUICK), 1)[0].state
    piece = replace(piece, chunk=0, num_samples=0, seed=seed, gain=1.0, decoder={})
    anew = take(pipe(state=piece, output_type="pt"), 4)
    for one, other in zip(changed, anew):
        assert torch.equal(one.semantic_tokens, other.semantic_tokens)
        assert torch.equal(one.state.latents, other.state.latents)


def test_the_same_prompt_again_changes_nothing(pipe):
    chunks = take(pipe("a waltz", generator=seeded(), **QUICK), 6)
    again = take(pipe("a waltz", state=chunks[2].state, output_type="pt"), 3)
    assert equal(sounds(again), sounds(chunks[3:])) and len(again[0].state.times) == 1


@pytest.mark.parametrize("crossfade_seconds", [0, 1.0])
def test_a_timeline_equals_changes_that_are_given_by_hand(pipe, crossfade_seconds):
    timeline = [(0, "a waltz"), (1.5, "rock"), (3.0, "techno"), (40, "a waltz")]  # 40 is never reached
    call = {"crossfade_seconds": crossfade_seconds, "output_type": "pt"}
    planned = take(pipe(timeline, generator=seeded(), num_inference_steps=6, **call), 13)
    by_hand = take(pipe("a waltz", generator=seeded(), num_inference_steps=6, **call), 5)  # 1.5 s are nearly five
    by_hand += take(pipe("rock", state=by_hand[-1].state, **call), 4)
    by_hand += take(pipe("techno", state=by_hand[-1].state, **call), 4)
    assert equal(sounds(planned), sounds(by_hand))


@pytest.mark.parametrize("crossfade_seconds", [0, 1.0])
def test_a_stream_resumes_to_the_bit_in_the_middle_of_a_change(pipe, tmp_path, crossfade_seconds):
    start = take(pipe("a waltz", generator=seeded(), **QUICK), 3)[-1].state
    changed = take(pipe("rock", state=start, crossfade_seconds=crossfade_seconds, output_type="pt"), 6)
    for at in range(4):
        changed[at].state.save(tmp_path / "stream.safetensors")
        resumed = take(make_pipe()(state=StreamState.load(tmp_path / "stream.safetensors"), output_type="pt"), 5 - at)
        assert equal(sounds(resumed), sounds(changed[at + 1 :]))


def test_a_state_that_is_changed_again_and_again_does_not_grow(pipe):
    state = take(pipe("a waltz", generator=seeded(), **QUICK), 1)[0].state
    for prompt in ["rock", "a waltz"] * 6:
        state = take(pipe(prompt, state=state, crossfade_seconds=1.0, output_type="pt"), 1)[0].state
        assert bytes_of(state) and len(state.times) <= 1 + 2 * 7  # of a window of four chunks and a crossfade of three
    (last,) = take(pipe(state=state, output_type="pt"), 12)[-1:]
    assert len(last.state.times) == 1  # what is past is forgotten


def test_a_plan_continues_what_was_planned_for_nearly_the_same_prompt(pipe, monkeypatch):
    monkeypatch.setattr(stream, "ALIKE", 1 - 1e-4)  # prompts of a model that has learned nothing are near each other
    plan, read = type(pipe.semantic_lm).generate_semantic_tokens, []

    def counted(lm, mulan_tokens, num_tokens, prefix_tokens=None, **named):
        read.append(0 if prefix_tokens is None else prefix_tokens.shape[1])
        return plan(lm, mulan_tokens, num_tokens, prefix_tokens, **named)

    chunks = take(pipe("a waltz", generator=seeded(), **QUICK), 4)
    monkeypatch.setattr(type(pipe.semantic_lm), "generate_semantic_tokens", counted)
    for prompt, expected in {"a waltz": [24] * 5, "rock": [0, 24, 24, 24]}.items():
        read.clear()
        take(pipe(prompt, state=chunks[-1].state, crossfade_seconds=0, output_type="pt"), 5)
        assert read == expected
    read.clear()
    take(pipe("rock", state=chunks[-1].state, crossfade_seconds=30, output_type="pt"), 5)
    assert min(read) > 0  # what goes over slowly goes on


def test_a_timeline_goes_over_in_the_condition_along_the_great_circle(pipe):
    timeline = [(0, "a waltz"), (9.92, "rock"), (30.08, "techno")]  # where the 31st and the 94th chunk begin
    (chunk,) = take(pipe(timeline, crossfade_seconds=4, **QUICK), 1)
    waltz, rock, techno = pipe.embed_prompt(["a waltz", "rock", "techno"])
    at = chunk.state.embedding_at
    for seconds, expected in {0: waltz, 9.92: waltz, 13.92: rock, 30.08: rock, 34.08: techno, 1000: techno}.items():
        torch.testing.assert_close(at(seconds), expected)
    torch.testing.assert_close(at(11.92), (waltz + rock) / (waltz + rock).norm())
    torch.testing.assert_close(at(33.08), mix(torch.stack([rock, techno]), [0.25, 0.75]))


def test_a_clip_and_a_text_mix_in_a_stream(pipe):
    clip = torch.sin(torch.arange(24000) * 0.05)[None] * 0.5
    of_clip, of_text = pipe.embed_prompt(audio_prompt=[clip])[0], pipe.embed_prompt("rock")[0]
    call = {"audio_prompt": clip, "audio_prompt_sampling_rate": 24000, **QUICK}
    (alone,) = take(pipe(**call), 1)
    assert torch.equal(alone.state.embeddings[0], of_clip)
    (both,) = take(pipe("rock", audio_prompt_weight=0.25, **call), 1)
    torch.testing.assert_close(both.state.embeddings[0], mix(torch.stack([of_text, of_clip]), [0.75, 0.25]))


def test_a_negative_prompt_leads_a_stream_elsewhere_and_is_kept(pipe):
    call = {"lm_guidance_scale": 3.0, "generator": seeded(), **QUICK}
    first = take(pipe("a waltz", negative_prompt={"rock": 1, "techno": 2}, **call), 3)
    assert first[0].state.settings["negative_prompt"] == {"rock": 1, "techno": 2}
    assert equal(sounds(take(pipe(state=first[0].state, output_type="pt"), 2)), sounds(first[1:]))
    other = take(pipe("a waltz", negative_prompt="happy violin", **call | {"generator": seeded()}), 1)
    assert not torch.equal(other[0].semantic_tokens, first[0].semantic_tokens)


def test_the_limiter_falls_at_once_and_comes_back_slowly():
    quiet, loud = torch.full((1, 4800), 0.5), torch.full((1, 4800), 2.0)
    same, gain = stream.limit_chunk(quiet, 1.0, 480)
    assert gain == 1.0 and torch.equal(same, quiet)
    lowered, gain = stream.limit_chunk(loud, gain, 480)
    assert gain == pytest.approx(stream.CEILING / 2) and lowered.max() <= stream.CEILING
    torch.testing.assert_close(lowered[:, 480:], torch.full((1, 4320), stream.CEILING))
    back, later = stream.limit_chunk(quiet, gain, 480)
    assert later == gain * stream.RECOVERY and back[0, 0] == pytest.approx(0.5 * gain)
    assert (back.diff() >= 0).all()
    assert math.ceil(math.log(1 / gain, stream.RECOVERY)) < 15


BAD_CALLS = [
    ({}, "prompt", "none of them"),
    ({"prompt": []}, "prompt", "an empty list"),
    ({"prompt": ["a", "b"]}, "prompt[0]", "in a timeline; got 'a'. A stream plays one piece"),
    ({"prompt": [(3, "a"), (1, "b")]}, "prompt[1][0]", "from 3 to"),
    ({"prompt": [(0, "")]}, "prompt[0][1]", "not be empty"),
    ({"prompt": "a", "crossfade_seconds": -1}, "crossfade_seconds", "got -1"),
    ({"prompt": "a", "output_type": "latent"}, "output_type", "got 'latent'"),
    ({"prompt": "a", "audio_prompt_weight": 0.5}, "audio_prompt_weight", "be left out unless a text"),
    ({"prompt": "a", "state": 7}, "state", "got 7"),
    ({"prompt": "a", "generator": 7}, "generator", "got 7"),
    ({"prompt": "a", "negative_prompt": "b"}, "negative_prompt", "`lm_guidance_scale` is 1"),
    ({"prompt": "a", "callback_on_step_end": 3}, "callback_on_step_end", "got 3"),
]


@pytest.mark.parametrize(("arguments", "name", "said"), BAD_CALLS)
def test_a_bad_call_is_refused_at_once_by_name(pipe, arguments, name, said):
    with pytest.raises(MeLoDyInputError) as caught:
        pipe(**arguments)
    assert caught.value.argument == name and said in str(caught.value)


def test_a_state_goes_on_as_it_was_or_is_refused(pipe, tmp_path):
    (chunk,) = take(pipe("a waltz", **QUICK), 1)
    with pytest.raises(MeLoDyInputError, match="be left out, or 6, since chunks"):
        pipe(state=chunk.state, num_inference_steps=7)
    with pytest.raises(MeLoDyInputError, match="`generator` must be left out with a `state`"):
        pipe(state=chunk.state, generator=seeded())
    other = MeLoDyStreamPipeline(**make_tiny_components())
    with pytest.raises(MeLoDyInputError, match=r"`state.latents` must have shape \(1, 500, 8\); got \(1, 64, 8\)"):
        other(state=chunk.state)
    path = tmp_path / "stream.safetensors"
    with pytest.raises(FileNotFoundError):
        StreamState.load(path)
    for content in (b"", b"no stream", (8).to_bytes(8, "little") + b"{}      "):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no stream that `StreamState.save` wrote"):
            StreamState.load(path)
