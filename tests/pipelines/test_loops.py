"""Loops: their end runs into their beginning, they last as long as asked, and a plan gives them again. And endings."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import make_attentive

from melody_diffusers import AngleScheduler, MeLoDyInputError, MeLoDyPipeline
from melody_diffusers.pipelines.loops import circular_passes, close_plan, with_tempo
from melody_diffusers.pipelines.plan import plan_of, render_plan
from melody_diffusers.pipelines.request import ending_seconds
from melody_diffusers.plans import MusicPlan

QUICK = {"num_inference_steps": 2, "output_type": "pt"}
RATE = 24000


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


@pytest.mark.parametrize("num_frames", [2, 50, 376, 500, 1302])
def test_every_frame_of_a_circle_goes_from_noise_to_music_amid_others(num_frames):
    scheduler = AngleScheduler()
    scheduler.set_timesteps(4)
    timeline = torch.full((num_frames,), math.pi / 2)
    passes = circular_passes(num_frames, 500, 125, scheduler, 2)
    for start, before, after in passes:
        frames = torch.arange(start, start + 500) % num_frames
        assert start % 2 == 0 and len(before) == len(after) == 500
        torch.testing.assert_close(before, timeline[frames])
        moved = (before > after).nonzero()[:, 0]
        assert (
            len(moved) == moved[-1] - moved[0] + 1 == len(set(frames[moved].tolist()))
        )  # one stretch, of no frame twice
        assert moved[0] >= 62 - 2 and 500 - moved[-1] > 62 - 2
        timeline[frames[moved]] = after[moved]
    assert not timeline.any() and len(passes) == 4 * -(-num_frames // 375)


def test_the_seam_of_a_loop_is_as_any_other_place(pipe):
    """Differences of neighbouring samples within 20 ms around it, over fifty seeds, beside those of all such windows.

    Cut straight, as pieces are, the same music has a seam.
    """
    generators = [seeded(seed) for seed in range(50)]
    call = {"num_waveforms_per_prompt": 50, "fade_seconds": 0, "ending": None, "output_type": "pt"}
    call |= {"audio_duration": 1.02, "num_inference_steps": 1}

    def seam_and_interior(audios: torch.Tensor) -> tuple[float, float]:
        energy = (audios[:, 0].double().roll(-1, -1) - audios[:, 0].double()).square()  # of the repeated loop
        windows = energy.roll(241, -1).unflatten(-1, (-1, 480)).mean(-1)  # the first is around the seam
        return float(windows[:, 0].mean()), float(windows[:, 1:].mean())

    seam, interior = seam_and_interior(pipe("a waltz", loop=True, generator=generators, **call).audios)
    assert 0.8 * interior < seam <= 1.05 * interior
    seam, interior = seam_and_interior(pipe("a waltz", generator=generators, **call).audios)
    assert seam > 1.1 * interior or seam < 0.8 * interior


@pytest.mark.parametrize(
    ("length", "num_samples", "num_tokens"),
    [
        ({"bars": 2, "bpm": 120}, 4 * RATE, 100),
        ({"bars": 2, "bpm": 124}, 92903, 97),  # of 92,903.2 samples; 97 tokens have 93,120
        ({"bars": 1, "bpm": 90, "beats_per_bar": 3}, 2 * RATE, 50),
        ({"audio_duration": 1.0}, RATE, 25),
        ({"audio_duration": 9.51}, 228240, 238),
        ({"audio_duration": 21.0}, 21 * RATE, 525),
        ({}, 10 * RATE, 250),
    ],
)
def test_a_loop_lasts_as_long_as_asked_to_the_sample(pipe, length, num_samples, num_tokens):
    output = pipe("a waltz", loop=True, generator=seeded(), **length, **QUICK)
    assert output.audios.shape == (1, 1, num_samples) and output.semantic_tokens.shape == (1, num_tokens)
    assert output.audios.isfinite().all() and 0 < output.audios.abs().max() <= 1


def test_a_loop_that_was_cut_open_elsewhere_is_the_same_circle(pipe):
    """One step of a window that hears the loop several times: all is turned, but for where in the window it stands."""
    plan = torch.randint(32, (1, 50), generator=seeded())
    noise = torch.randn(1, 100, 8, generator=seeded())
    call = {"loop": True, "num_inference_steps": 1, "output_type": "latent"}
    made = pipe(semantic_tokens=plan, latents=noise, **call).audios
    turned = pipe(semantic_tokens=plan.roll(20, 1), latents=noise.roll(40, 1), **call).audios.roll(-40, 1)
    other = pipe(semantic_tokens=plan, latents=noise.flip(0), loop=False, num_inference_steps=1, output_type="latent")
    assert (turned - made).norm() < 0.2 * (other.audios - made).norm() + 0.1 * made.norm()


def test_a_prompt_is_told_the_tempo_it_does_not_name(pipe):
    assert with_tempo("techno with synth.", 128.0) == "techno with synth, 128 bpm"
    assert with_tempo({"techno": 2, "a waltz at 90 BPM": 1}, 127.5) == {"techno, 127.5 bpm": 2, "a waltz at 90 BPM": 1}
    for named in ("90bpm rock", "rock, 90 beats per minute"):
        assert with_tempo(named, 120) == named
    assert with_tempo("a" * 1995, 120) == "a" * 1995
    made = pipe("a waltz", loop=True, bars=1, bpm=180, generator=seeded(), **QUICK)
    assert plan_of(pipe, made).prompt == "a waltz, 180 bpm"


def test_a_plan_begins_where_its_beginning_is_likeliest_to_follow_its_end(tiny_components):
    lm = make_attentive(tiny_components)["semantic_lm"]
    mulan_tokens, plans = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.randint(32, (2, 60), generator=seeded())
    closed = close_plan(lm, mulan_tokens, plans, 40, window=100)

    def likelihood(mulan: torch.Tensor, loop: torch.Tensor) -> float:
        scores = lm.semantic_logits(mulan[None], torch.cat([loop, loop[:5]])[None])[0, -5:].log_softmax(-1)
        return float(scores.gather(-1, loop[:5, None]).detach().sum())

    for mulan, plan, loop in zip(mulan_tokens, plans, closed):
        all_of_them = [plan[start : start + 40] for start in range(21)]
        assert loop.tolist() in [each.tolist() for each in all_of_them]
        best = max(likelihood(mulan, each) for each in all_of_them)
        assert likelihood(mulan, loop) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("length", [{"bars": 2, "bpm": 124}, {"audio_duration": 12.0, "temperature": 0}])
def test_a_plan_renders_the_same_loop(pipe, length):
    output = pipe("a waltz", loop=True, generator=seeded(), **length, **QUICK)
    plan = MusicPlan.from_text(plan_of(pipe, output).to_text())
    assert plan.rendering["loop"] is True and plan.seed == 3
    assert torch.equal(render_plan(pipe, plan, output_type="pt").audios, output.audios)
    shorter = render_plan(pipe, plan.keep(0, 2), output_type="pt").audios
    assert shorter.shape == (1, 1, 2 * RATE) and shorter[..., -1] != 0


def test_a_batch_of_loops_equals_its_single_loops(pipe):
    prompts, call = ["a waltz", "rock"], {"loop": True, "audio_duration": 1.5, **QUICK}
    batch = pipe(prompts, generator=[seeded(1), seeded(2)], **call)
    for number, prompt in enumerate(prompts):
        single = pipe(prompt, generator=[seeded(number + 1)], **call)
        assert torch.equal(single.semantic_tokens[0], batch.semantic_tokens[number])
        torch.testing.assert_close(single.audios[0], batch.audios[number], rtol=0, atol=1e-4)


def test_callbacks_change_and_interrupt_a_loop(pipe):
    call = {"loop": True, "audio_duration": 20.0, "num_inference_steps": 2, "generator": seeded()}
    silent = pipe(
        "a waltz", callback_on_step_end=lambda *a: {"latents": 0 * a[3]["latents"]}, output_type="latent", **call
    )
    assert silent.audios.shape == (1, 1000, 8) and not silent.audios.any()
    angles = []

    def stop(view, step, angle, tensors):
        angles.append(float(angle))
        view._interrupt = step == 3
        return {}

    assert pipe("a waltz", callback_on_step_end=stop, output_type="pt", **call).audios.shape == (1, 1, 20 * RATE)
    assert len(angles) == 4 and angles[0] == angles[2] > angles[3] > 0


MISTAKES = [
    ({"bars": 4, "bpm": 120}, "bars", "be left out unless `loop` is True; got 4"),
    ({"loop": True, "bars": 4}, "bpm", "be given with `bars`"),
    ({"loop": True, "bpm": 120}, "bars", "be given with `bpm`"),
    (
        {"loop": True, "bars": 4, "bpm": 120, "audio_duration": 3},
        "audio_duration",
        "be left out where `bars` and `bpm`",
    ),
    ({"loop": True, "bars": 1, "bpm": 400}, "bars", "last 1 to 300 s; got 4 beats at 400 bpm, 0.6 s"),
    ({"loop": True, "bars": 1.5, "bpm": 120}, "bars", "be a whole number from 1 to 1000"),
    ({"loop": True, "bars": 1, "bpm": 1}, "bpm", "be a number from 20 to 400"),
    ({"loop": True, "bars": 1, "bpm": 60, "beats_per_bar": 0}, "beats_per_bar", "from 1 to 32"),
    ({"loop": True, "audio_duration": 0.5}, "audio_duration", "be a number from 1 to 300"),
    ({"loop": "yes"}, "loop", "be True or False; got 'yes'"),
    ({"ending": "close"}, "ending", "be one of 'fade'; got 'close'"),
    (
        {"loop": True, "audio_duration": 2.0, "semantic_tokens": [[1] * 60]},
        "semantic_tokens",
        "2 s has 50 tokens; got 60",
    ),
]


@pytest.mark.parametrize(("arguments", "name", "said"), MISTAKES)
def test_what_does_not_go_together_is_refused(pipe, arguments, name, said):
    with pytest.raises(MeLoDyInputError) as caught:
        pipe("a waltz", **arguments)
    assert caught.value.argument == name and said in str(caught.value)


def test_a_codec_that_cannot_decode_loops_is_named(tiny_components):
    class Codec(torch.nn.Module):
        sample_rate, hop_samples, latent_dim, dtype = RATE, 480, 8, torch.float32

    pipe = MeLoDyPipeline(**tiny_components)
    pipe.vae = Codec()
    with pytest.raises(MeLoDyInputError, match="cannot decode loops, by `decode_loop`.*Codec"):
        pipe("a waltz", loop=True)


# --- endings


def test_a_piece_fades_out_and_is_the_same_before(pipe):
    call = {"audio_duration": 12.0, "generator": seeded(), **QUICK}
    faded = pipe("a waltz", **call)
    cut = pipe("a waltz", ending=None, **call | {"generator": seeded()}).audios
    assert torch.equal(faded.audios[..., : -2 * RATE], cut[..., : -2 * RATE])
    last = [part.square().mean().sqrt() for part in faded.audios[0, 0, -2 * RATE :].split(RATE // 4)]
    assert last[0] > 0.9 * cut.square().mean().sqrt() and all(b < a for a, b in zip(last[2:], last[3:]))
    assert last[-1] < 0.05 * last[0] and faded.audios[..., -1] == 0
    assert (cut[0, 0, -RATE : -RATE // 40]).square().mean().sqrt() > 0.8 * cut.square().mean().sqrt()
    plan = plan_of(pipe, faded)
    assert plan.rendering["ending"] == "fade"
    assert torch.equal(render_plan(pipe, plan, output_type="pt").audios, faded.audios)
    earlier = replace(plan, rendering={k: v for k, v in plan.rendering.items() if k not in ("ending", "loop")})
    assert torch.equal(render_plan(pipe, earlier, output_type="pt").audios, cut)  # by a version without endings


@pytest.mark.parametrize(("duration", "seconds"), [(1, 0.25), (8, 2), (10, 2), (20, 2), (60, 6), (600, 10)])
def test_a_longer_piece_fades_longer(duration, seconds):
    assert ending_seconds(duration) == seconds
