import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from tiny import make_hearing

from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyPipeline

QUICK = {"num_inference_steps": 2, "output_type": "pt"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


@pytest.mark.parametrize("seconds", [0.01, 1.0, 2.5, 12.3])
def test_the_waveform_lasts_exactly_as_long_as_asked(pipe, seconds):
    output = pipe("a waltz", audio_duration=seconds, generator=seeded(), **QUICK)
    assert output.audios.shape == (1, 1, round(seconds * pipe.sample_rate))
    assert output.audios.dtype == torch.float32
    assert output.audios.abs().max() <= 1


def test_the_same_seed_gives_the_same_audio_and_another_seed_another(pipe):
    first, again, other = (pipe("a waltz", generator=seeded(s), **QUICK).audios for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_save_and_load_round_trip_is_bit_equal(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = MeLoDyPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    expected = pipe("a waltz", audio_duration=3.0, generator=seeded(), **QUICK).audios
    assert torch.equal(loaded("a waltz", audio_duration=3.0, generator=seeded(), **QUICK).audios, expected)


def test_a_batch_equals_its_single_samples(pipe):
    prompts = ["a waltz", "slow techno with a long and winding description of many instruments"]
    batch = pipe(prompts, generator=[seeded(1), seeded(2)], **QUICK)
    for i, prompt in enumerate(prompts):
        single = pipe(prompt, generator=[seeded(i + 1)], **QUICK)
        assert torch.equal(single.semantic_tokens[0], batch.semantic_tokens[i])
        torch.testing.assert_close(single.audios[0], batch.audios[i], rtol=0, atol=1e-4)


def test_variations_of_one_prompt_differ(pipe):
    output = pipe(["a waltz", "rock"], num_waveforms_per_prompt=2, generator=seeded(), **QUICK)
    assert output.audios.shape[0] == 4
    assert len(torch.unique(output.semantic_tokens, dim=0)) == 4


def test_a_plan_given_back_renders_the_same_piece(pipe):
    output = pipe("a waltz", generator=seeded(), **QUICK)
    noise = pipe.prepare_latents(1, pipe.dual_path.config.num_frames, [seeded(7)])
    again = [pipe(semantic_tokens=output.semantic_tokens, latents=noise, **QUICK).audios for _ in range(2)]
    assert torch.equal(*again)
    mulan_tokens = pipe.encode_prompt("a waltz")
    from_tokens = pipe(mulan_tokens=mulan_tokens, generator=seeded(), **QUICK)
    assert torch.equal(from_tokens.audios, output.audios)


def test_a_diffusion_model_that_hears_the_prompt_is_told_it(make_components):
    components = make_components()
    old = components["dual_path"]
    components["dual_path"] = make_hearing(old)
    components["dual_path"].load_state_dict(old.state_dict(), strict=False)
    pipe = MeLoDyPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    noise = pipe.prepare_latents(2, pipe.dual_path.config.num_frames, [seeded(7), seeded(8)])
    quick = QUICK | {"output_type": "latent", "latents": noise}
    prompts = torch.tensor([[0, 1, 2], [3, 4, 5]])
    made = pipe(mulan_tokens=prompts, generator=seeded(), **quick)
    plan = made.semantic_tokens
    again = pipe(semantic_tokens=plan, mulan_tokens=made.mulan_tokens, **quick)
    assert torch.equal(again.audios, made.audios) and torch.equal(again.mulan_tokens, prompts)
    of_one = pipe(semantic_tokens=plan, mulan_tokens=prompts[:1], **quick).audios
    torch.testing.assert_close(of_one[0], made.audios[0])
    alone = pipe(semantic_tokens=plan, **quick)
    assert alone.mulan_tokens is None
    assert not torch.allclose(alone.audios, made.audios) and not torch.allclose(of_one[1], made.audios[1])
    by_text = pipe("a waltz", semantic_tokens=plan, **quick)
    assert torch.equal(by_text.mulan_tokens, pipe.encode_prompt("a waltz").repeat(2, 1))
    with pytest.raises(ValueError, match="one plan for each of the 3 prompts"):
        pipe(["a", "b", "c"], semantic_tokens=plan, **QUICK)
    components["dual_path"] = make_hearing(old, num_mulan_codebooks=2)
    with pytest.raises(ValueError, match="dual_path.num_mulan_codebooks is 2 but mulan_quantizer.num_codebooks"):
        MeLoDyPipeline(**components)


def test_a_long_piece_begins_as_a_short_one(pipe):
    """Algorithm 2 prolongs: the plan's first window does not depend on how long the piece becomes."""
    window = pipe.timebase.frames_to_tokens(pipe.dual_path.config.num_frames)
    short = pipe("a waltz", audio_duration=10.0, generator=seeded(), **QUICK).semantic_tokens
    long = pipe("a waltz", audio_duration=16.0, generator=seeded(), **QUICK).semantic_tokens
    assert torch.equal(long[:, :window], short)
    assert long.shape[1] == 400


def test_music_prompts_by_array_and_by_path(pipe, tmp_path):
    from melody_diffusers.audio import save_audio

    clip = torch.sin(torch.arange(24000) * 0.05)[None] * 0.5
    save_audio(tmp_path / "clip.flac", clip)
    by_path = pipe(audio_prompt=tmp_path / "clip.flac", generator=seeded(), **QUICK)
    array = clip.numpy()[0]
    by_array = pipe(audio_prompt=array, audio_prompt_sampling_rate=24000, generator=seeded(), **QUICK)
    assert torch.equal(by_path.semantic_tokens, by_array.semantic_tokens)
    stereo = np.stack([array, array])
    twice = pipe(audio_prompt=[stereo, array], audio_prompt_sampling_rate=24000, generator=seeded(), **QUICK)
    assert len(twice.audios) == 2


def test_callback_sees_falling_angles_and_may_change_the_latents(pipe):
    seen = []

    def watch(pipeline, step, angle, tensors):
        assert isinstance(pipeline, MeLoDyPipeline) and pipeline.components == pipe.components
        seen.append((step, float(angle)))
        return {"latents": tensors["latents"] * 0}

    output = pipe(
        "a waltz",
        num_inference_steps=3,
        generator=seeded(),
        callback_on_step_end=watch,
        output_type="latent",
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert seen[0][1] > seen[1][1] > seen[2][1] > 0
    assert not output.audios.any() and output.gains is None


def test_a_callback_may_call_the_pipeline_and_its_own_call_goes_on_unchanged(pipe):
    call = {"num_inference_steps": 3, "output_type": "latent", "guidance_scale": 4.0}
    expected = pipe("a waltz", generator=seeded(), **call).audios

    def interrupt(pipeline, step, angle, tensors):
        assert (pipeline.guidance_scale, pipeline.num_timesteps) == (4.0, 3)
        pipe("rock", guidance_scale=1.0, num_inference_steps=1, output_type="latent")
        assert (pipeline.guidance_scale, pipeline.num_timesteps) == (4.0, 3)
        return {}

    assert torch.equal(pipe("a waltz", generator=seeded(), callback_on_step_end=interrupt, **call).audios, expected)
    assert (pipe.guidance_scale, pipe.num_timesteps) == (4.0, 3)  # of the call that ended last


def test_a_callback_may_change_the_guidance_of_the_next_step(pipe):
    def switch_off(pipe, step, angle, tensors):
        assert pipe.num_timesteps == 3 and pipe.guidance_scale == (4.0 if step == 0 else 1.0)
        pipe._guidance_scale = 1.0
        return {}

    call = {"num_inference_steps": 3, "generator": seeded(), "output_type": "latent"}
    changed = pipe("a waltz", guidance_scale=4.0, callback_on_step_end=switch_off, **call).audios
    call["generator"] = seeded()
    assert not torch.equal(pipe("a waltz", guidance_scale=4.0, **call).audios, changed)


def test_a_pipeline_of_the_text_side_alone_encodes_prompts(pipe):
    names = ("mulan", "tokenizer", "mulan_quantizer")
    part = MeLoDyPipeline(**{name: part if name in names else None for name, part in pipe.components.items()})
    assert torch.equal(part.encode_prompt("a waltz"), pipe.encode_prompt("a waltz"))


def test_output_types_and_tuple(pipe):
    as_numpy = pipe("a waltz", audio_duration=1.0, num_inference_steps=1, generator=seeded()).audios
    assert isinstance(as_numpy, np.ndarray) and as_numpy.shape == (1, 1, 24000)
    audios, gains, tokens, mulan_tokens = pipe("a waltz", generator=seeded(), return_dict=False, **QUICK)
    assert gains.shape == (1,) and tokens.shape[0] == 1
    assert torch.equal(mulan_tokens, pipe.encode_prompt("a waltz"))


def test_calls_do_not_change_the_components(pipe):
    before = pipe.scheduler.num_inference_steps
    pipe("a waltz", audio_duration=1.0, generator=seeded(), **QUICK)
    assert pipe.scheduler.num_inference_steps == before


def test_foreign_schedulers_are_refused_with_a_reason(pipe):
    components = pipe.components | {"scheduler": DDIMScheduler()}
    with pytest.raises(ValueError, match="AngleScheduler; got DDIMScheduler. The network predicts the velocity"):
        MeLoDyPipeline(**components)


def test_nan_from_a_model_is_an_error_that_names_the_stage(pipe):
    weight = pipe.dual_path.proj_out.weight
    saved = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="diffusion"):
            pipe("a waltz", generator=seeded(), **QUICK)
    finally:
        with torch.no_grad():
            weight.copy_(saved)
    assert torch.isfinite(pipe("a waltz", generator=seeded(), **QUICK).audios).all()


def test_the_call_after_a_bad_one_is_as_if_nothing_had_happened(pipe):
    before = pipe("a waltz", generator=seeded(), **QUICK).audios
    with pytest.raises(ValueError):
        pipe("a waltz", guidance_scale=float("nan"))
    assert torch.equal(pipe("a waltz", generator=seeded(), **QUICK).audios, before)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
@pytest.mark.parametrize(
    "component", ["vae", "mulan", "mulan_quantizer", "semantic_tokenizer", "semantic_lm", "dual_path"]
)
def test_a_missing_or_truncated_weight_file_is_an_error_that_names_it(pipe, tmp_path, component, damage):
    pipe.save_pretrained(tmp_path)
    (file,) = (tmp_path / component).glob("*.safetensors")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises((OSError, ValueError), match=component):
        MeLoDyPipeline.from_pretrained(tmp_path)


def test_from_pipe_shares_the_components(pipe):
    other = MeLoDyInpaintPipeline.from_pipe(pipe)
    assert other.dual_path is pipe.dual_path and other.config.token_rate == pipe.config.token_rate
