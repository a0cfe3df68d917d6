"""What people pass to a pipeline, and what they expect it to do, as it is written and as other pipelines do it."""

import json
import logging
import re
import threading
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from melody_diffusers import MELODY_TINY, MeLoDyInpaintPipeline
from melody_diffusers.audio import save_audio

RATE = 24000
QUICK = {"num_inference_steps": 2, "audio_duration": 1.0}
CLIP = (0.3 * np.sin(np.arange(2 * RATE) * 0.05)).astype(np.float32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


@pytest.fixture(scope="module")
def inpaint(pipe):
    return MeLoDyInpaintPipeline(**pipe.components)


@pytest.fixture
def warnings_of(caplog):
    """The text of what is logged by the package as a warning."""
    logger = logging.getLogger("diffusers")  # whose handler ours has
    logger.addHandler(caplog.handler)
    ours = logging.getLogger("melody_diffusers")
    ours.addHandler(caplog.handler)
    yield lambda: caplog.text
    logger.removeHandler(caplog.handler)
    ours.removeHandler(caplog.handler)


# --- what the pipeline hands out, it takes back


@pytest.mark.parametrize("output_type", ["np", "pt"])
def test_the_music_that_comes_out_is_written_and_is_a_prompt_and_a_recording(pipe, inpaint, tmp_path, output_type):
    output = pipe("a waltz", **QUICK, generator=seeded(), output_type=output_type)
    save_audio(tmp_path / "a.wav", output.audios[0], 24000)
    from_file = pipe(audio_prompt=tmp_path / "a.wav", **QUICK, generator=seeded(1)).semantic_tokens
    for prompt in (output, output.audios, [(RATE, output.audios[0])], (RATE, output.audios[0, 0])):
        again = pipe(audio_prompt=prompt, **QUICK, generator=seeded(1))
        assert torch.equal(again.semantic_tokens, from_file)
    filled = inpaint(output.audios, regions=[(0.2, 0.4)], num_inference_steps=1)
    assert filled.audios.shape == (1, 1, RATE)


def test_a_batch_of_music_is_a_batch_of_prompts(pipe):
    output = pipe(["a waltz", "a march"], **QUICK, generator=[seeded(0), seeded(1)])
    assert len(pipe(audio_prompt=output.audios, **QUICK).audios) == 2


@pytest.mark.parametrize("convert", [np.asarray, lambda x: x.tolist(), lambda x: x.int(), lambda x: x.to(torch.int16)])
def test_the_plan_comes_back_from_json_and_numpy(pipe, convert):
    plan = pipe("a waltz", **QUICK, generator=seeded()).semantic_tokens
    given = json.loads(json.dumps(convert(plan))) if isinstance(convert(plan), list) else convert(plan)
    made = [pipe(semantic_tokens=tokens, **QUICK, generator=seeded(3)).audios for tokens in (plan, given)]
    assert np.array_equal(*made)


def test_latents_in_numpy_and_double_precision_are_the_same_noise(pipe):
    plan = torch.zeros(1, 250, dtype=torch.long)
    config = pipe.dual_path.config
    noise = torch.randn(1, config.num_frames, config.latent_dim, generator=seeded())
    made = [
        pipe(semantic_tokens=plan, latents=x, num_inference_steps=2, audio_duration=10.0).audios
        for x in (noise, noise.double(), noise.numpy())
    ]
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])


# --- a checked value is the value used


@pytest.mark.parametrize("one", [np.float32(1), np.int64(1), Fraction(1), Decimal(1), torch.tensor(1.0), np.array([1])])
def test_any_real_number_is_a_duration_and_a_guidance(pipe, inpaint, one):
    expected = pipe("a waltz", num_inference_steps=1, audio_duration=1, guidance_scale=1, generator=seeded()).audios
    made = pipe("a waltz", num_inference_steps=one, audio_duration=one, guidance_scale=one, generator=seeded()).audios
    assert np.array_equal(made, expected)
    assert inpaint((RATE, CLIP), extend_seconds=one, num_inference_steps=1).audios.shape[-1] == 3 * RATE


class Column(Sequence):  # as pandas' and polars' columns are: neither a list nor a tuple
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_any_sequence_of_prompts_is_a_list_of_prompts(pipe):
    def make(prompts):
        return pipe(prompts, **QUICK, generator=[seeded(0), seeded(1)]).audios

    expected = make(["a waltz", "a march"])
    for prompts in (("a waltz", "a march"), np.array(["a waltz", "a march"]), Column("a waltz", "a march")):
        assert np.array_equal(make(prompts), expected)


def test_regions_may_be_an_array(inpaint):
    expected = inpaint((RATE, CLIP), regions=[(0.5, 0.7), (1.0, 1.2)], num_inference_steps=1, generator=seeded()).audios
    regions = np.array([[0.5, 0.7], [1.0, 1.2]])
    made = inpaint((RATE, CLIP), regions=regions, num_inference_steps=1, generator=seeded()).audios
    assert np.array_equal(made, expected)


# --- words


@pytest.fixture(scope="module")
def shipped():
    return MeLoDyInpaintPipeline.from_pretrained(MELODY_TINY)


def test_words_in_another_script_are_named_in_a_warning(shipped, warnings_of):
    shipped.encode_prompt(["a waltz", "a merry waltz βαλς ვალსი"])
    assert "'a merry waltz βαλς ვალსი'" in warnings_of() and "knows no part of 'βαλς', 'ვალსი'," in warnings_of()
    assert "'a waltz'" not in warnings_of()


@pytest.mark.parametrize(
    "prompt", ["χαρούμενο βαλς για πιάνο", "ואלס שמח לפסנתר", "asdkjh qwoeiu zxcvv", "ვალსი пстрнгх"]
)
def test_a_prompt_of_mostly_unknown_words_is_warned_of_once_with_advice(shipped, warnings_of, prompt):
    shipped.encode_prompt(["a waltz", prompt])
    assert f"not know most words of the prompt {prompt!r}: {prompt.split()[0]!r}" in warnings_of()
    assert "style, instrument, mood or tempo" in warnings_of()
    assert len(set(warnings_of().splitlines())) == 1  # and nothing of "a waltz"


def test_prompts_as_people_write_them_are_not_warned_of(shipped):
    root = Path(__file__).parents[2]
    styles = yaml.safe_load((root / "training" / "configs" / "mulan" / "prompts.yaml").read_text())
    prompts = [prompt for prompts in styles.values() for prompt in prompts]
    prompts += re.findall(r"\*([a-z][^*]+)\*", (root / "README.md").read_text())  # in italics
    assert len(prompts) > 70
    lost = shipped.mulan.lost_words(shipped.tokenizer, prompts)
    assert not [prompt for prompt, words in zip(prompts, lost) if words.mostly_strange]


def test_a_prompt_that_is_cut_says_where(pipe, warnings_of):
    room = pipe.mulan._max_tokens(pipe.tokenizer) - pipe.tokenizer.num_special_tokens_to_add()
    pipe(" ".join(["waltz"] * room), **QUICK)
    assert "too long" not in warnings_of()  # the very last word is read
    pipe(["a march", " ".join(["waltz"] * room) + " with drums"], **QUICK)
    assert "does not read its end, 'with drums'" in warnings_of()


# --- as others do it


def test_zero_switches_top_k_and_top_p_off(pipe):
    expected = pipe("a waltz", **QUICK, top_k=None, top_p=1.0, generator=seeded()).semantic_tokens
    assert torch.equal(pipe("a waltz", **QUICK, top_k=0, top_p=0.0, generator=seeded()).semantic_tokens, expected)


def test_steps_may_be_a_float_that_is_whole(pipe):
    assert pipe("a waltz", num_inference_steps=2.0, audio_duration=1.0).audios.shape == (1, 1, RATE)


@pytest.mark.parametrize(
    ("others", "ours"),
    [
        ({"audio_length_in_s": 3}, "audio_duration"),
        ({"audio_end_in_s": 3}, "audio_duration"),
        ({"num_images_per_prompt": 3}, "num_waveforms_per_prompt"),
        ({"cfg_scale": 3}, "guidance_scale"),
        ({"seed": 3}, "generator"),
        ({"guidence_scale": 3}, "guidance_scale"),
    ],
)
def test_an_argument_of_another_library_is_named_with_ours(pipe, others, ours):
    (name,) = others
    with pytest.raises(TypeError, match=f"no argument `{name}`; here it is `{ours}`"):
        pipe("a waltz", **others)


def test_a_step_callback_ends_the_call_by_interrupt(pipe):
    steps = []

    def stop(view, step, angle, tensors):
        steps.append(step)
        view._interrupt = step == 3
        return tensors

    def make():
        return pipe(
            "a waltz", num_inference_steps=8, audio_duration=30.0, generator=seeded(), callback_on_step_end=stop
        )

    output = make()
    assert steps == [0, 1, 2, 3]
    under_way = 2 * pipe.timebase.frames_to_samples(pipe.dual_path.config.num_frames // 4 // 2 * 2)  # two chunks
    assert output.audios.shape == (1, 1, under_way) and output.semantic_tokens.shape[1] == 750
    steps.clear()
    assert make().audios.shape == (1, 1, under_way) and len(steps) == 4  # the next call starts afresh


def test_a_token_callback_ends_the_call_with_the_plan_so_far(pipe):
    def stop(view, step, num_tokens):
        view._interrupt = step == 20

    output = pipe("a waltz", audio_duration=10.0, generator=seeded(), callback_on_token_end=stop)
    whole = pipe("a waltz", audio_duration=10.0, num_inference_steps=1, generator=seeded())
    assert torch.equal(output.semantic_tokens, whole.semantic_tokens[:, :20]) and output.audios.shape == (1, 1, 0)


def test_a_stop_button_in_another_thread_ends_the_call(pipe):
    begun = threading.Event()
    press = threading.Thread(target=lambda: begun.wait(60) and setattr(pipe, "_interrupt", True))
    press.start()

    def wait(*_):
        begun.set()
        press.join()

    output = pipe("a waltz", audio_duration=20.0, num_inference_steps=1, callback_on_token_end=wait)
    assert output.audios.shape[-1] == 0 and output.semantic_tokens.shape[1] == 1
    assert pipe("a waltz", **QUICK).audios.shape[-1] == RATE


def test_an_interrupted_filling_ends_where_the_rendering_did(inpaint):
    def stop(view, step, angle, tensors):
        view._interrupt = True
        return tensors

    output = inpaint((RATE, CLIP), extend_seconds=20.0, num_inference_steps=4, callback_on_step_end=stop)
    assert 2 * RATE < output.audios.shape[-1] < 22 * RATE
    assert np.array_equal(output.audios[0, 0, : 2 * RATE], CLIP)


# --- starts and ends


def test_a_piece_begins_and_ends_in_silence(pipe):
    plan = torch.arange(250)[None] % pipe.semantic_lm.config.semantic_codebook_size
    call = {"semantic_tokens": plan, "num_inference_steps": 2}
    made = {fade: pipe(**call, generator=seeded(), fade_seconds=fade, ending=None).audios[0, 0] for fade in (0, 0.02)}
    faded, cut = made[0.02], made[0]
    level = 20 * np.log10(np.abs(cut).max())
    for edge in (faded[:24], faded[-24:]):  # a millisecond
        assert 20 * np.log10(np.abs(edge).max() + 1e-9) < level - 40
    assert np.array_equal(faded[480:-480], cut[480:-480])


def test_what_is_added_to_a_recording_fades_out_and_the_recording_does_not(inpaint):
    call = {"regions": [(0.5, 1.0)], "num_inference_steps": 1}
    longer = inpaint((RATE, CLIP), extend_seconds=1.0, **call).audios[0, 0]
    assert np.abs(longer[-24:]).max() < 0.01 * np.abs(longer[-RATE:-480]).max() + 1e-6
    filled = inpaint((RATE, CLIP), **call).audios[0, 0]
    assert np.array_equal(filled[RATE:], CLIP[RATE:])
