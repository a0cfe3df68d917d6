import math
from types import SimpleNamespace

import pytest
import torch
from tiny import MULAN_CODEBOOKS, MULAN_CODES, make_hearing

from melody_diffusers.models.dual_path import DualPathDiffusionModel
from melody_diffusers.pipelines.denoise import denoise, guided_velocity, plan_passes
from melody_diffusers.schedulers.angle import AngleScheduler
from melody_diffusers.timebase import Timebase

WINDOW, CHUNK = 40, 10
TIMEBASE = Timebase(sample_rate=24000, hop_samples=480, token_rate=25)  # 50 frames, 25 tokens a second


def unknown_mask(num_frames, *runs):
    mask = torch.zeros(num_frames, dtype=torch.bool)
    for start, stop in runs:
        mask[start:stop] = True
    return mask


def scheduler_of(num_steps):
    scheduler = AngleScheduler()
    scheduler.set_timesteps(num_steps)
    return scheduler


def windows(unknown, chunk=CHUNK, alignment=1, continuation="windows"):
    """Starts of the windows, each of which takes all three steps."""
    passes = plan_passes(unknown, WINDOW, chunk, scheduler_of(3), alignment, continuation)
    starts = [each.start for each in passes]
    assert starts[::3] == starts[1::3] == starts[2::3]
    return starts[::3]


def test_generation_from_nothing_is_one_window_then_chunks():
    assert windows(unknown_mask(40, (0, 40))) == [0]
    assert windows(unknown_mask(60, (0, 60))) == [0, 10, 20]
    assert windows(unknown_mask(65, (0, 65))) == [0, 10, 20, 25]
    assert windows(unknown_mask(40, (0, 40)), continuation="diagonal") == [0]


def test_a_continuation_keeps_the_known_prefix_of_algorithm_2():
    assert windows(unknown_mask(80, (40, 80))) == [10, 20, 30, 40]


@pytest.mark.parametrize("continuation", ["windows", "diagonal"])
def test_a_short_gap_is_filled_in_the_middle_of_a_window_and_near_gaps_together(continuation):
    assert windows(unknown_mask(200, (95, 105)), continuation=continuation) == [80]
    assert windows(unknown_mask(200, (95, 105), (108, 112)), continuation=continuation) == [80]
    assert windows(unknown_mask(200, (0, 10), (185, 195)), continuation=continuation) == [0, 160]


def test_windows_start_where_a_token_starts():
    """A continuation by 5 frames, of which two share a token, moves by 4 and 6 in turn; a gap's window moves by one."""
    assert windows(unknown_mask(60, (0, 60)), 5, alignment=2) == [0, 4, 8, 12, 16, 20]
    assert windows(unknown_mask(200, (95, 104)), alignment=2) == [78]
    assert windows(unknown_mask(200, (95, 104))) == [79]
    with pytest.raises(ValueError, match="multiple of 2 frames"):
        windows(unknown_mask(65, (0, 65)), alignment=2)


def test_on_the_diagonal_chunks_set_out_one_after_the_other():
    """Of twelve steps a chunk takes six, in two calls from one chunk to the next: three are on their way at a time."""
    passes = plan_passes(unknown_mask(80, (0, 80)), WINDOW, CHUNK, scheduler_of(12))
    assert len(passes) == 7 * 2 + 6
    assert [each.start for each in passes] == [0] * 8 + [10] * 2 + [20] * 2 + [30] * 2 + [40] * 6
    step = math.pi / 12
    for each in passes:
        moved = each.before - each.after
        torch.testing.assert_close(moved[moved > 0], torch.full_like(moved[moved > 0], step))
    in_the_middle = passes[10]  # chunk 2 is done, 3 has two steps before it, 4 has four, and 5 sets out with six
    assert in_the_middle.start == 20
    chunks = in_the_middle.before.unflatten(0, (4, 10))
    assert (chunks == chunks[:, :1]).all()
    assert chunks[:, 0].tolist() == pytest.approx([0, 2 * step, 4 * step, 6 * step])
    assert in_the_middle.after.unflatten(0, (4, 10))[:, 0].tolist() == pytest.approx([0, step, 3 * step, 5 * step])


def test_the_diagonal_costs_what_the_length_costs():
    calls = {
        frames: len(plan_passes(unknown_mask(frames, (0, frames)), WINDOW, CHUNK, scheduler_of(12)))
        for frames in (50, 100, 400, 1000)
    }
    assert calls == {50: 14, 100: 24, 400: 84, 1000: 204}


def test_a_long_gap_is_filled_on_the_diagonal_and_ends_where_known_frames_begin():
    unknown = unknown_mask(200, (50, 120))
    passes = plan_passes(unknown, WINDOW, CHUNK, scheduler_of(12), 2)
    assert passes[0].start == 40 and passes[0].before[:10].max() == 0 and (passes[0].after[10:20] < math.pi / 2).all()
    assert all((each.before[~unknown[each.start : each.start + WINDOW]] == 0).all() for each in passes)
    assert windows(unknown_mask(100, (75, 100)), continuation="diagonal") == [60]  # and what fits a window at once


@pytest.mark.parametrize("continuation", ["windows", "diagonal"])
@pytest.mark.parametrize("seed", range(20))
def test_every_unknown_frame_falls_to_zero_and_every_window_fits(seed, continuation):
    generator = torch.Generator().manual_seed(seed)
    unknown = torch.rand(50, generator=generator).round().bool().repeat_interleave(3 + 5 * (seed % 3))
    angles = torch.where(unknown, math.pi / 2, 0.0)
    for start, before, after in plan_passes(unknown, WINDOW, CHUNK, scheduler_of(5), 1, continuation):
        frames = slice(start, start + WINDOW)
        assert len(before) == len(after) == WINDOW and 0 <= start <= len(unknown) - WINDOW
        assert torch.equal(angles[frames], before) and (after <= before).all() and (after < before).any()
        angles[frames] = after
    assert not angles.any()


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = dict(latent_dim=4, num_frames=WINDOW, num_chunks=4, semantic_codebook_size=8, hidden_size=16)
    config |= dict(num_blocks=2, segment_length=8, num_attention_heads=2, num_coarse_layers=1, mlp_size=16)
    return DualPathDiffusionModel(**config).eval()


def run(model, num_frames, unknown, num_steps=3, guidance_scale=2.5, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, num_frames, 4, generator=generator)
    tokens = torch.randint(0, 8, (2, TIMEBASE.frames_to_tokens(num_frames)), generator=generator)
    scheduler = scheduler_of(num_steps)
    passes = plan_passes(unknown, WINDOW, CHUNK, scheduler, TIMEBASE.frame_alignment)
    with torch.no_grad():
        return latents, denoise(model, scheduler, latents, tokens, passes, TIMEBASE, guidance_scale, **options)


def test_known_frames_come_back_bit_equal_and_unknown_ones_change(model):
    unknown = unknown_mask(100, (30, 45), (90, 100))
    before, after = run(model, 100, unknown)
    assert torch.equal(after[:, ~unknown], before[:, ~unknown])
    assert ((after - before)[:, unknown].abs().amax(-1) > 0).all()


def test_one_window_is_the_plain_reverse_process(model):
    latents, rendered = run(model, WINDOW, torch.ones(WINDOW, dtype=torch.bool), guidance_scale=1.0)
    tokens = torch.randint(0, 8, (2, 20), generator=(g := torch.Generator().manual_seed(0)))
    g.manual_seed(0)
    assert torch.equal(torch.randn(2, WINDOW, 4, generator=g), latents)
    tokens = torch.randint(0, 8, (2, 20), generator=g)
    scheduler = scheduler_of(3)
    z = latents
    with torch.no_grad():
        for angle in scheduler.timesteps:
            z = scheduler.step(model(z, angle, tokens).sample, angle, z).prev_sample
    torch.testing.assert_close(rendered, z)


def test_known_frames_are_shown_at_angle_zero(model):
    seen = []
    forward = model.forward
    model.forward = lambda latents, angle, *args, **kwargs: (
        seen.append(angle) or forward(latents, angle, *args, **kwargs)
    )
    unknown = unknown_mask(WINDOW, (20, 40))
    run(model, WINDOW, unknown, num_steps=2)
    assert len(seen) == 2
    assert all((angle[0, :20] == 0).all() for angle in seen)
    assert seen[0][0, 20:].tolist() == pytest.approx([math.pi / 2] * 20)


def test_a_frame_is_conditioned_on_the_token_that_covers_it():
    """Chunks of 125 frames are 62.5 tokens: a window that began in the middle of one would hear all of them early."""
    heard = []

    class Model:
        config = SimpleNamespace(num_frames=500, num_chunks=4)
        modules = list

        def __call__(self, latents, angle, semantic_tokens, attention_kwargs):
            token_of_frame = torch.arange(latents.shape[1]) * semantic_tokens.shape[1] // latents.shape[1]
            heard.append((latents[0, :, 0].int(), semantic_tokens[0, token_of_frame]))
            return SimpleNamespace(sample=torch.zeros_like(latents))

    frames = torch.arange(1000.0)[None, :, None]  # each tells its own number
    scheduler = scheduler_of(3)
    passes = plan_passes(torch.ones(1000, dtype=torch.bool), 500, 125, scheduler, TIMEBASE.frame_alignment)
    scheduler.step = lambda velocity, angle, z, next_timestep: SimpleNamespace(prev_sample=z)
    denoise(Model(), scheduler, frames, torch.arange(500)[None], passes, TIMEBASE, 1.0)
    assert len(heard) == 11
    for numbers, tokens in heard:
        assert torch.equal(tokens, numbers // 2)


def calls_of(model):
    """How many samples each call of the model was given."""
    sizes, forward = [], model.forward
    model.forward = lambda latents, *args, **kwargs: sizes.append(len(latents)) or forward(latents, *args, **kwargs)
    return sizes


def test_guidance_holds_within_its_interval_and_costs_nothing_outside(model):
    unknown = torch.ones(WINDOW, dtype=torch.bool)
    _, everywhere = run(model, WINDOW, unknown, 6)
    sizes = calls_of(model)
    _, rendered = run(model, WINDOW, unknown, 6, guidance_interval=(0.0, 0.7))
    assert sizes == [2, 2, 4, 4, 4, 4]  # two samples, and two more where they are guided
    assert not torch.allclose(rendered, everywhere)
    nowhere = run(model, WINDOW, unknown, 6, guidance_interval=(0.0, 0.05))[1]
    torch.testing.assert_close(nowhere, run(model, WINDOW, unknown, 6, guidance_scale=1.0)[1])
    torch.testing.assert_close(run(model, WINDOW, unknown, 6, guidance_interval=(0.01, 1.0))[1], everywhere)


def test_halves_of_a_batch_side_by_side_give_the_same_and_threads_are_put_back(model):
    unknown = torch.ones(80, dtype=torch.bool)
    for options in ({}, {"guidance_scale": 1.0}, {"guidance_interval": (0.0, 0.7)}):
        torch.set_num_threads(1)
        expected = run(model, 80, unknown, 4, **options)[1]
        torch.set_num_threads(3)
        try:
            torch.testing.assert_close(run(model, 80, unknown, 4, **options)[1], expected)
            with pytest.raises(KeyError, match="stop"):
                run(model, 80, unknown, 4, **options, on_step=lambda angle, z: {}["stop"])
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(1)


def test_autocast_holds_for_both_halves_of_a_batch(model):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            autocast = run(model, WINDOW, torch.ones(WINDOW, dtype=torch.bool))[1]
        torch.set_num_threads(1)
        with torch.autocast("cpu", torch.bfloat16):
            expected = run(model, WINDOW, torch.ones(WINDOW, dtype=torch.bool))[1]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(autocast, expected)


def test_on_the_diagonal_each_frame_is_guided_by_its_own_angle(model):
    scales = []
    unknown = torch.ones(80, dtype=torch.bool)

    def network(network_, latents, angle, tokens, scale, prompt_scale):
        scales.append((angle[0, ::CHUNK] / (math.pi / 2), scale))
        return torch.zeros_like(latents)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melody_diffusers.pipelines.denoise.guided_velocity", network)
        run(model, 80, unknown, 12, guidance_interval=(0.0, 0.7))
    assert scales[0][1] == scales[1][1] == 1.0  # the first chunk alone, still in noise
    for shares, scale in scales[2:]:
        guided = scale[0, ::CHUNK, 0] if isinstance(scale, torch.Tensor) else torch.full((4,), scale)
        assert (guided[(shares > 0.7)] == 1).all() and (guided[(shares > 0) & (shares < 0.7)] == 2.5).all()


@torch.no_grad()
def test_guidance_is_the_extrapolation_from_the_unconditional_velocity(model):
    latents, angle, tokens = torch.randn(2, WINDOW, 4), torch.tensor(0.8), torch.randint(0, 8, (2, 20))
    conditional, unconditional = model(latents, angle, tokens).sample, model(latents, angle).sample
    for scale in (0.0, 1.0, 2.5):
        expected = unconditional + scale * (conditional - unconditional)
        torch.testing.assert_close(
            guided_velocity(lambda *inputs: model(*inputs).sample, latents, angle, (tokens,), scale),
            expected,
            rtol=1e-4,
            atol=1e-5,
        )


@torch.no_grad()
@pytest.mark.parametrize("angle", [torch.tensor(0.8), torch.tensor([[0.3] * (WINDOW // 2) + [1.2] * (WINDOW // 2)])])
def test_what_guidance_points_to_has_the_level_it_has_without_it(model, angle):
    latents, tokens = torch.randn(2, WINDOW, 4), torch.randint(0, 8, (2, 20))

    def music(scale: float, rescale: float) -> torch.Tensor:
        velocity = guided_velocity(
            lambda *inputs: model(*inputs).sample, latents, angle, (tokens,), scale, rescale=rescale
        )
        return torch.cos(angle)[..., None] * latents - torch.sin(angle)[..., None] * velocity

    plain, guided, half, whole = music(1.0, 1.0), music(8.0, 0.0), music(8.0, 0.5), music(8.0, 1.0)
    halves = [slice(WINDOW // 2), slice(WINDOW // 2, None)] if angle.ndim else [slice(None)]  # the frames of each angle
    ratio = torch.ones(2, WINDOW, 1)
    for frames in halves:
        powers = [each[:, frames].square().mean((1, 2), keepdim=True) for each in (plain, guided)]
        ratio[:, frames] = (powers[0] / powers[1]).sqrt()
    assert ((ratio - 1).abs() > 0.01).all()
    torch.testing.assert_close(whole, ratio * guided, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half, (guided + whole) / 2, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_guidance_by_the_prompt_leads_away_from_the_plan_alone(model):
    hearing = make_hearing(model)
    latents, angle, tokens = torch.randn(2, WINDOW, 4), torch.full((2, WINDOW), 0.8), torch.randint(0, 8, (2, 20))
    prompt = torch.randint(0, MULAN_CODES, (2, MULAN_CODEBOOKS))
    both, plan = hearing(latents, angle, tokens, prompt).sample, hearing(latents, angle, tokens).sample
    nothing = hearing(latents, angle).sample
    sizes = calls_of(hearing)
    for scale, prompt_scale in ((1.0, 4.0), (2.5, 1.0), (2.5, 4.0), (torch.full((1, WINDOW, 1), 2.0), 0.5)):
        velocity = guided_velocity(
            lambda *inputs: hearing(*inputs).sample, latents, angle, (tokens, prompt), scale, prompt_scale
        )
        expected = nothing + scale * (both - nothing) + (prompt_scale - 1) * (both - plan)
        torch.testing.assert_close(velocity, expected, rtol=1e-4, atol=1e-5)
    assert sizes == [4, 4, 6, 6]
    del sizes[:]
    unknown = torch.ones(WINDOW, dtype=torch.bool)
    scales = {"guidance_scale": 1.0, "prompt_guidance_scale": 4.0}
    run(hearing, WINDOW, unknown, 6, mulan_tokens=prompt, **scales, guidance_interval=(0.0, 0.7))
    assert sizes == [2, 2, 4, 4, 4, 4]
