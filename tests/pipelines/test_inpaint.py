import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyInputError
from melody_diffusers.audio import save_audio
from melody_diffusers.pipelines.inpaint import LEADS, fit, short_term_gain
from melody_diffusers.pipelines.recording import LEVEL_DB, check_recording, level_gain, windows_around

RATE = 24000
QUICK = {"num_inference_steps": 2, "output_type": "pt", "audio_sampling_rate": RATE}


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    inpaint = MeLoDyInpaintPipeline.from_pipe(tiny_pipeline)
    inpaint.set_progress_bar_config(disable=True)
    return inpaint


@pytest.fixture(scope="module")
def recording():
    time = np.arange(12 * RATE) / RATE
    return (0.4 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 2 * time)) / 2).astype(np.float32)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("semantic_source", ["lm", "audio"])
def test_samples_outside_the_regions_come_back_bit_equal(pipe, recording, semantic_source):
    regions = [(1.0, 1.5), (7.25, 9.0)]
    output = pipe(recording, regions=regions, semantic_source=semantic_source, generator=seeded(), **QUICK)
    filled = output.audios[0, 0].numpy()
    assert filled.shape == recording.shape and output.sampling_rate == RATE
    inside = np.zeros(len(recording), dtype=bool)
    for start, end in regions:
        inside[round(start * RATE) : round(end * RATE)] = True
    assert np.array_equal(filled[~inside], recording[~inside])
    assert (filled[inside] != recording[inside]).mean() > 0.9


def test_nothing_of_what_is_to_be_filled_leaks_into_the_result(pipe, recording):
    other = recording.copy()
    other[3 * RATE : 5 * RATE] = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32) * 0.1
    first, second = (pipe(x, regions=[(3.0, 5.0)], generator=seeded(), **QUICK).audios for x in (recording, other))
    assert torch.equal(first, second)


def test_a_continuation_keeps_the_recording_and_adds_the_seconds_asked(pipe, recording):
    output = pipe(recording, extend_seconds=3.0, prompt="a waltz", generator=seeded(), **QUICK)
    continued = output.audios[0, 0].numpy()
    assert len(continued) == 15 * RATE
    assert np.array_equal(continued[: 12 * RATE], recording)
    assert np.abs(continued[12 * RATE :]).max() > 0


def test_a_short_recording_and_several_variations(pipe, recording):
    output = pipe(recording[:RATE], extend_seconds=1.0, num_waveforms_per_prompt=2, generator=seeded(), **QUICK)
    assert output.audios.shape == (2, 1, 2 * RATE)
    assert not torch.equal(output.audios[0], output.audios[1])


def test_what_is_filled_leaves_no_step_at_the_borders(recording):
    original = torch.from_numpy(recording[:2400])[None]
    generated = original[None] + 0.3  # a constant apart: the step is all there is
    for start, stop in ((100, 200), (1800, 2400), (0, 700)):
        patch, gains = fit(original, generated, start, stop, RATE)
        assert patch.shape == (1, 1, stop - start) and gains == 1
        if start > 0:
            assert abs(float(patch[0, 0, 0] - original[0, start])) < 0.01
        if stop < 2400:
            assert abs(float(patch[0, 0, -1] - original[0, stop - 1])) < 0.01
    torch.testing.assert_close(fit(original, generated, 1800, 2400, RATE)[0][0, 0, -1], generated[0, 0, -1])


def test_the_models_hear_a_recording_at_the_level_they_know():
    tone = torch.sin(torch.arange(4 * RATE) * 0.05)[None]
    tone[:, RATE : 2 * RATE] = 0  # to be filled
    for size in (0.01, 0.5):
        gain = level_gain(size * tone, RATE)
        assert size * gain == pytest.approx(2**0.5 * 10 ** (LEVEL_DB / 20), rel=0.05)  # blocks lie across borders
        quiet_end = torch.cat([size * tone, 0.01 * size * tone], dim=1)  # which does not count
        assert level_gain(quiet_end, RATE) == pytest.approx(gain, rel=0.03)
    assert level_gain(0 * tone, RATE) == 1


def test_a_fill_is_as_loud_as_stretches_around_are():
    known, missing = torch.full((1, 8 * RATE), 0.1), torch.zeros(8 * RATE, dtype=torch.bool)
    known[:, 6 * RATE :] = 0.2
    missing[3 * RATE : 5 * RATE] = True
    known[:, missing] = 0
    for level, expected in {0.01: 0.1, 0.15: 0.15, 0.9: 0.2}.items():
        made = torch.full((2, 1, 2 * RATE), level)
        made[1] *= 0.5
        gains = short_term_gain(known, missing, made, 3 * RATE)
        assert gains.shape == (2, 1, 1)
        assert level * float(gains[0]) == pytest.approx(expected, rel=1e-3)
    made = torch.full((1, 1, 2 * RATE), 0.5)
    assert short_term_gain(0 * known, missing, made, 3 * RATE) == 1
    assert short_term_gain(known[:, :RATE], missing[:RATE], made, 3 * RATE) == 1  # too short to tell


def test_a_quiet_recording_gets_a_quiet_fill(pipe, recording):
    def fill(size):
        output = pipe(size * recording, regions=[(3.0, 5.0)], generator=seeded(), **QUICK)
        assert np.array_equal(output.audios[0, 0, : 3 * RATE], (size * torch.from_numpy(recording[: 3 * RATE])).numpy())
        return output.audios[0, 0, 3 * RATE : 5 * RATE]

    torch.testing.assert_close(fill(0.125), 0.125 * fill(1.0), atol=1e-4, rtol=1e-2)


def test_without_a_semantic_tokenizer_it_says_what_is_missing(pipe, recording):
    bare = MeLoDyInpaintPipeline(**pipe.components | {"semantic_tokenizer": None})
    with pytest.raises(ValueError, match="needs the component `semantic_tokenizer`"):
        bare(recording, extend_seconds=1.0, **QUICK)


# --- the recording stays what it is -----------------------------------------------------------------------------------


def stereo(seconds, rate, left=0.4, right=0.1):
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([left * np.sin(2 * np.pi * 220 * time), right * np.sin(2 * np.pi * 220 * time)])


@pytest.mark.parametrize("rate", [44100, 48000, 22050, 24000, 11025])
def test_a_recording_keeps_its_rate_its_channels_and_every_bit_outside(pipe, rate):
    samples = np.round(stereo(3, rate) * 32767).astype(np.int16)
    output = pipe((rate, samples), regions=[(1.0, 1.3)], num_inference_steps=2, generator=seeded())
    assert output.sampling_rate == rate and output.audios.shape == (1, *samples.shape)
    inside = np.zeros(samples.shape[1], dtype=bool)
    inside[round(1.0 * rate) : round(1.3 * rate)] = True
    assert np.array_equal(output.audios[0] * 32768, np.where(inside, output.audios[0] * 32768, samples))
    assert (output.audios[0] * 32768 != samples)[:, inside].mean() > 0.9
    again = pipe(output, regions=[(1.0, 1.3)], num_inference_steps=2)  # what comes out says its rate itself
    assert again.sampling_rate == rate and again.audios.shape == output.audios.shape
    as_tuple = pipe((rate, samples), regions=[(1.0, 1.3)], num_inference_steps=2, return_dict=False)
    assert len(as_tuple) == 5 and as_tuple[-1] == rate


def test_a_fill_that_would_clip_is_limited_and_nothing_else_is(pipe, recording, monkeypatch):
    decode = pipe.decode_unlimited
    monkeypatch.setattr(pipe, "decode_unlimited", lambda *arguments: 50 * decode(*arguments))
    loud = recording / np.abs(recording).max()  # up to full scale itself
    output = pipe(loud, regions=[(3.0, 4.0)], generator=seeded(), **QUICK)
    filled = output.audios[0, 0].numpy()
    assert float(output.gains) < 0.5 and 0.5 < np.abs(filled[3 * RATE : 4 * RATE]).max() <= 1
    assert np.array_equal(filled[: 3 * RATE], loud[: 3 * RATE])
    assert np.array_equal(filled[4 * RATE :], loud[4 * RATE :])


def test_the_fill_is_spread_over_the_channels_as_its_surroundings_are():
    original = torch.from_numpy(stereo(3, RATE)).float()
    generated = 0.1 * torch.randn(2, 1, 3 * RATE, generator=seeded())
    patch, _ = fit(original, generated, RATE, 2 * RATE, RATE)
    levels = patch[..., 1000:-1000].square().mean(-1).sqrt()
    torch.testing.assert_close(levels[:, 0] / levels[:, 1], torch.full((2,), 4.0), rtol=1e-3, atol=0)
    one_sided, _ = fit(original * torch.tensor([[1.0], [0.0]]), generated, RATE, 2 * RATE, RATE)
    assert not one_sided[:, 1].any()
    silent, _ = fit(torch.zeros(2, 3 * RATE), generated, RATE, 2 * RATE, RATE)
    assert torch.equal(silent[:, 0], silent[:, 1]) and silent.any()


def test_patches_are_what_the_whole_holds(pipe, recording):
    call = {"regions": [(2.0, 2.5), (9.0, 9.5)], "prepend_seconds": 1.0, "extend_seconds": 0.5}
    whole = pipe(recording, generator=seeded(), **call, **QUICK).audios
    patches = pipe(recording, generator=seeded(), **call, **QUICK | {"output_type": "patches"}).audios
    places = [(start, start + waveform.shape[-1]) for start, waveform in patches]
    assert [(start / RATE, stop / RATE) for start, stop in places] == [(-1, 0), (2, 2.5), (9, 9.5), (12, 12.5)]
    for start, waveform in patches:
        assert torch.equal(waveform, whole[..., start + RATE : start + RATE + waveform.shape[-1]])


# --- the cost of a gap ------------------------------------------------------------------------------------------------


def seen_by_the_models(pipe, monkeypatch, *arguments, **call):
    """What each model is given, in order: its name, and samples, frames or tokens."""
    seen = []

    def spy(component, method, size):
        real = getattr(component, method)

        def spied(*given, **options):
            seen.append((type(component).__name__, method, size(*given, **options)))
            return real(*given, **options)

        patch.setattr(component, method, spied)

    with monkeypatch.context() as patch:
        for component, method in ((pipe.vae, "encode"), (pipe.semantic_tokenizer, "encode")):
            spy(component, method, lambda waveform, **_: waveform.shape[-1])
        spy(pipe.vae, "decode", lambda latents, **_: latents.shape[1])
        spy(pipe.mulan, "get_audio_features", lambda waveform: waveform.shape[-1])
        spy(pipe.dual_path, "forward", lambda latents, *_, **__: latents.shape[1])
        spy(pipe.semantic_lm, "generate_semantic_tokens", lambda _, count, prefix_tokens, **__: (
            count + (0 if prefix_tokens is None else prefix_tokens.shape[1])
        ))  # fmt: skip
        pipe(*arguments, generator=seeded(), num_inference_steps=2, **call)
    return seen


def test_a_gap_costs_as_much_in_ten_minutes_as_in_one(pipe, monkeypatch, tmp_path):
    minute = np.round(stereo(60, 44100) * 32767).astype(np.int16)
    seen = {}
    for minutes in (1, 10):
        with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", 44100, 2, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute.T)
        start = 60 * minutes - 30
        seen[minutes] = seen_by_the_models(
            pipe, monkeypatch, tmp_path / f"{minutes}.wav", regions=[(start, start + 2)], output_type="patches"
        )
    assert seen[1] == seen[10] and len(seen[1]) > 6
    seconds = {"vae": RATE, "tokens": 25, "frames": RATE / pipe.vae.hop_samples}
    for name, method, size in seen[1]:
        if method == "generate_semantic_tokens":
            assert size <= 10 * seconds["tokens"]
        elif name == "DualPathDiffusionModel":
            assert size <= 10 * seconds["frames"]
        else:
            assert size <= 22.1 * (seconds["frames"] if method == "decode" else RATE)


def test_no_model_sees_all_of_what_is_long(pipe, monkeypatch, recording):
    gaps = [(start, start + 1) for start in range(5, 115, 10)]  # whose surroundings overlap: all is one window
    seen = seen_by_the_models(pipe, monkeypatch, (RATE, np.tile(recording, 10)), regions=gaps)
    assert max(size for name, _, size in seen if name == "SemanticTokenizer") <= 40 * RATE
    assert max(size for name, _, size in seen if name == "DualPathDiffusionModel") <= pipe.dual_path.config.num_frames


@pytest.mark.parametrize(("format", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")])
def test_a_part_of_a_file_is_read_in_the_memory_of_a_part(format, subtype, tmp_path):
    second = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2))
    with soundfile.SoundFile(tmp_path / "long", "w", RATE, 2, subtype, format=format) as file:
        for _ in range(120):
            file.write(second)
    whole = soundfile.read(tmp_path / "long", dtype="float32")[0].T
    recording = check_recording(tmp_path / "long", None, RATE, 3600)
    assert (recording.rate, recording.channels, recording.num_samples) == (RATE, *whole.shape)
    tracemalloc.start()
    first, second = recording.read([(50 * RATE, 52 * RATE), (100 * RATE + 7, 101 * RATE)])
    assert tracemalloc.get_traced_memory()[1] < 8e6 < whole.nbytes / 2
    tracemalloc.stop()
    assert np.array_equal(first, whole[:, 50 * RATE : 52 * RATE])
    assert np.array_equal(second, whole[:, 100 * RATE + 7 : 101 * RATE])


def test_windows_hold_the_context_of_each_gap_and_merge_where_they_overlap(pipe):
    rate, context = 44100, pipe.timebase.samples_to_frames(10 * RATE)
    runs = [(0, rate), (100 * rate, 102 * rate), (115 * rate, 116 * rate), (200 * rate, 201 * rate)]
    windows = windows_around(runs, 205 * rate, rate, pipe.timebase, context)
    assert [(each.start / rate, each.stop / rate) for each in windows] == [(0, 11), (90, 126), (190, 205)]
    assert [each.runs for each in windows] == [
        [(0, rate)],
        [(10 * rate, 12 * rate), (25 * rate, 26 * rate)],
        [(10 * rate, 11 * rate)],
    ]


def test_a_file_that_ends_early_is_refused_by_name(pipe, tmp_path):
    save_audio(tmp_path / "a.flac", 0.1 * torch.randn(1, 40 * RATE, generator=seeded()), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(MeLoDyInputError, match="`audio` must be an audio file") as caught:
        pipe(tmp_path / "a.flac", regions=[(30.0, 31.0)])
    assert caught.value.argument == "audio"


# --- before the recording ---------------------------------------------------------------------------------------------


def test_music_leads_into_a_recording_which_follows_bit_for_bit(pipe):
    clip = np.round(stereo(2, 44100) * 32767).astype(np.int16)
    output = pipe((44100, clip), prepend_seconds=1.5, num_inference_steps=2, generator=seeded())
    lead, kept = np.split(output.audios[0], [round(1.5 * 44100)], axis=1)
    assert np.array_equal(kept * 32768, clip)
    step = np.abs(kept[:, 0] - lead[:, -1])  # no more than what it was
    assert (step <= np.abs(np.diff(lead[:, -2000:], axis=1)).max(axis=1)).all()
    assert np.abs(lead[:, :40]).max() < 0.05 * np.abs(lead).max()  # it fades in


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.1])
def test_next_to_nothing_is_continued_both_ways(pipe, seconds):
    clip = stereo(seconds, 44100)
    call = {"prepend_seconds": 0.3, "extend_seconds": 0.3, "num_inference_steps": 1, "generator": seeded()}
    audios = pipe((44100, clip), **call).audios[0]
    assert audios.shape[1] == clip.shape[1] + 2 * 13230
    assert np.array_equal(audios[:, 13230:-13230], clip.astype(np.float32))


def test_of_several_leads_the_one_is_taken_after_which_the_recording_is_likeliest(pipe, recording, monkeypatch):
    drawn, real = [], pipe.semantic_lm.generate_semantic_tokens

    def spied(*given, **options):
        made = real(*given, **options)
        drawn.append((given[0], options["prefix_tokens"], made))
        return made

    monkeypatch.setattr(pipe.semantic_lm, "generate_semantic_tokens", spied)
    tokens = pipe(recording, prepend_seconds=2.0, generator=seeded(), **QUICK).semantic_tokens
    ((mulan_tokens, prefix, leads),) = drawn
    assert leads.shape == (LEADS, 50) and len({tuple(lead.tolist()) for lead in leads}) > 1
    assert torch.equal(prefix[0], tokens[0, 50 : 50 + prefix.shape[1]])  # it continues the recording itself
    losses = []
    for lead in leads:
        whole = torch.cat([lead, tokens[0, 50:100]])[None]
        with torch.no_grad():
            scores = pipe.semantic_lm.semantic_logits(mulan_tokens[:1], whole)
        losses.append(float(F.cross_entropy(scores[0, 50:], whole[0, 50:])))
    assert torch.equal(tokens[0, :50], leads[int(np.argmin(losses))])


def test_several_leads_at_once_are_those_of_their_seeds_alone(pipe, recording):
    call = {"prepend_seconds": 1.0, "num_waveforms_per_prompt": 2, **QUICK}
    both = pipe(recording, generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)], **call)
    alone = pipe(recording, generator=torch.Generator().manual_seed(4), **call | {"num_waveforms_per_prompt": 1})
    assert torch.equal(both.semantic_tokens[1], alone.semantic_tokens[0])
    assert not torch.equal(both.semantic_tokens[0], both.semantic_tokens[1])
    torch.testing.assert_close(both.audios[1], alone.audios[0], atol=1e-4, rtol=1e-3)


def test_an_interrupted_call_ends_where_the_rendering_did(pipe, recording):
    calls = []

    def stop(view, *_):
        calls.append(view)
        view._interrupt = len(calls) == 3  # in the second of two windows, after two steps for the first
        return {}

    long = np.tile(recording, 4)
    call = {"regions": [(2.0, 3.0), (40.0, 41.0)], "callback_on_step_end": stop, **QUICK}
    ended = pipe(long, generator=seeded(), **call).audios[0, 0].numpy()
    assert 40 * RATE < len(ended) < len(long) and len(calls) == 3
    outside = np.r_[0 : 2 * RATE, 3 * RATE : 40 * RATE]
    assert np.array_equal(ended[outside], long[outside])
    assert not np.array_equal(ended[2 * RATE : 3 * RATE], long[2 * RATE : 3 * RATE])
