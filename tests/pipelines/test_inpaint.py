import numpy as np
import pytest
import torch

from melody_diffusers import MeLoDyInpaintPipeline
from melody_diffusers.pipelines.inpaint import fit

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


def test_without_a_semantic_tokenizer_it_says_what_is_missing(pipe, recording):
    bare = MeLoDyInpaintPipeline(**pipe.components | {"semantic_tokenizer": None})
    with pytest.raises(ValueError, match="needs the component `semantic_tokenizer`"):
        bare(recording, extend_seconds=1.0, **QUICK)
