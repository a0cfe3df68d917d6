"""What a pipeline made, from its plan again: the same numbers."""

import hashlib
from dataclasses import replace

import pytest
import torch
from tiny import make_attentive, make_hearing

from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyInputError, MeLoDyPipeline
from melody_diffusers.pipelines.plan import differences, model_digest, plan_of, render_plan
from melody_diffusers.plans import MusicPlan, PlanError

QUICK = {"num_inference_steps": 2}


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digest(audios) -> str:
    return hashlib.sha256(audios.tobytes()).hexdigest()


@pytest.mark.parametrize("duration", [0.7, 2.5, 3.37, 12.0])
def test_a_plan_renders_the_same_sound(tiny_pipeline, duration):
    output = tiny_pipeline("a waltz", audio_duration=duration, generator=seeded(), fade_seconds=0.1, **QUICK)
    plan = plan_of(tiny_pipeline, output)
    assert (plan.prompt, plan.seed, plan.seconds) == ("a waltz", 3, duration)
    assert plan.rendering["num_inference_steps"] == 2 and plan.rendering["fade_seconds"] == 0.1
    again = render_plan(tiny_pipeline, MusicPlan.from_text(plan.to_text()))
    assert digest(again.audios) == digest(output.audios)
    assert differences(tiny_pipeline, plan) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 0},
        {"guidance_interval": (0.2, 0.8), "guidance_scale": 3.0, "top_k": 5, "top_p": 0.9, "temperature": 0.8},
        {"audio_duration": 12.0, "continuation": "windows"},
        {"output_type": "pt"},
        {"negative_prompt": "rock", "lm_guidance_scale": 3.0, "temperature": 1.0},
    ],
)
def test_every_argument_is_kept(tiny_pipeline, arguments):
    arguments = {"audio_duration": 1.0, "generator": seeded(), **QUICK} | arguments
    output = tiny_pipeline("a waltz", **arguments)
    plan = MusicPlan.from_text(plan_of(tiny_pipeline, output).to_text())
    again = render_plan(tiny_pipeline, plan, output_type="pt").audios
    assert torch.equal(again, torch.as_tensor(output.audios))
    for name in set(arguments) & {"temperature", "top_k", "top_p"}:
        assert plan.sampling[name] == arguments[name]


def test_what_a_diffusion_model_heard_of_the_prompt_is_kept(tiny_components, tmp_path):
    hearing = make_hearing(tiny_components["dual_path"])
    pipe = MeLoDyPipeline(**make_attentive(tiny_components | {"dual_path": hearing}))
    prompts, generators = ["slow piano", {"a waltz": 2, "techno": 1}], [seeded(1), seeded(2)]
    output = pipe(prompts, audio_duration=1.0, generator=generators, output_type="pt", **QUICK)
    second = plan_of(pipe, output, 1)
    assert second.prompt == '"a waltz" x 2 + "techno" x 1'
    assert [*second.mulan_tokens] == output.mulan_tokens[1].tolist() != output.mulan_tokens[0].tolist()

    output = pipe("slow piano", audio_duration=1.0, generator=seeded(), **QUICK)
    plan_of(pipe, output).save(tmp_path / "a.melody")
    plan = MusicPlan.load(tmp_path / "a.melody")
    assert digest(render_plan(pipe, plan).audios) == digest(output.audios)
    unheard = render_plan(pipe, replace(plan, mulan_tokens=None))
    assert unheard.mulan_tokens is None and digest(unheard.audios) != digest(output.audios)
    assert digest(render_plan(pipe, plan, prompt="fast techno").audios) != digest(output.audios)
    again = pipe("slow piano", semantic_tokens=output.semantic_tokens.repeat(2, 1), **QUICK)
    assert plan_of(pipe, again, 1).prompt == "slow piano"  # which served both plans
    assert plan_of(pipe, pipe(semantic_tokens=output.semantic_tokens, **QUICK)).mulan_tokens is None
    with pytest.raises(MeLoDyInputError, match="`mulan_tokens` must have shape"):
        render_plan(pipe, replace(plan, mulan_tokens=(1,) * 50))


def test_a_row_of_several_is_its_own_piece(tiny_pipeline):
    generators = [seeded(1), seeded(2)]
    output = tiny_pipeline(["a waltz", "rock"], audio_duration=1.0, generator=generators, **QUICK)
    plan = plan_of(tiny_pipeline, output, 1)
    assert (plan.prompt, plan.seed) == ("rock", 2)
    again = torch.from_numpy(render_plan(tiny_pipeline, plan).audios[0])
    assert torch.allclose(again, torch.from_numpy(output.audios[1]), atol=2e-4)  # products of other shapes


def test_where_the_noise_is_not_known_it_is_said(tiny_pipeline):
    used = seeded()
    torch.rand(1, generator=used)
    for given in ({"generator": used}, {}, {"generator": seeded(), "num_waveforms_per_prompt": 2}):
        plan = plan_of(tiny_pipeline, tiny_pipeline("a waltz", audio_duration=1.0, **given, **QUICK))
        assert plan.seed is None
        assert any("which noise" in line for line in differences(tiny_pipeline, plan))
        assert render_plan(tiny_pipeline, plan).audios.shape == (1, 1, 24000)


def test_other_weights_versions_and_tokens_are_told_of(tiny_components, tiny_pipeline, monkeypatch):
    lines: list[str] = []
    from melody_diffusers.pipelines import plan as module

    monkeypatch.setattr(module.logger, "warning", lines.append)
    plan = plan_of(tiny_pipeline, tiny_pipeline("a waltz", audio_duration=1.0, generator=seeded(), **QUICK))
    render_plan(tiny_pipeline, plan)
    assert lines == []
    other = MeLoDyPipeline(**tiny_components)
    assert model_digest(other) == model_digest(tiny_pipeline) == plan.digest
    with torch.no_grad():
        next(other.dual_path.parameters()).neg_()
    render_plan(other, plan)
    assert len(lines) == 1 and "which differs in weights, scheduler or adapters: it will be" in lines[0]
    lines.clear()
    render_plan(
        tiny_pipeline, replace(plan, versions={**plan.versions, "torch": "1.0"}, device="cuda", dtype="float16")
    )
    assert [line.split(" and this")[0] for line in lines] == [
        "The plan was rendered with torch 1.0",
        "The plan was rendered in float16",
        "The plan was rendered on cuda",
    ]
    with pytest.raises(PlanError, match="must have 25 tokens a second below 32; got 25 below 64"):
        render_plan(tiny_pipeline, replace(plan, codebook_size=64))


def test_adapters_are_part_of_the_digest(tiny_components):
    peft = pytest.importorskip("peft")
    pipe = MeLoDyPipeline(**tiny_components)
    digests = [model_digest(pipe)]
    pipe.dual_path.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "one")
    digests.append(model_digest(pipe))
    pipe.dual_path.set_adapters(["one"], [0.5])
    digests.append(model_digest(pipe))
    assert len(set(digests)) == 3
    pipe.dual_path.disable_adapters()
    assert model_digest(pipe) == digests[0]


def test_an_edited_plan_is_rendered(tiny_pipeline):
    plan = plan_of(tiny_pipeline, tiny_pipeline("a waltz", audio_duration=2.0, generator=seeded(), **QUICK))
    longer = plan.repeat(0, 2, 2)
    first, second = (render_plan(tiny_pipeline, longer).audios for _ in range(2))
    assert first.shape == (1, 1, 96000) and digest(first) == digest(second)


def test_what_a_plan_does_not_give_again_has_none(tiny_pipeline):
    output = tiny_pipeline("a waltz", audio_duration=2.0, generator=seeded(), **QUICK)
    with pytest.raises(ValueError, match="`row` must be a whole number from 0 to 0; got 1"):
        plan_of(tiny_pipeline, output, 1)
    inpaint = MeLoDyInpaintPipeline.from_pipe(tiny_pipeline)
    filled = inpaint(output, regions=[(0.5, 1.0)], generator=seeded(), **QUICK)
    with pytest.raises(ValueError, match="what was inpainted needs its recording"):
        plan_of(inpaint, filled)

    def stop(pipe, *_):
        pipe._interrupt = True
        return {}

    stopped = tiny_pipeline("a waltz", audio_duration=30.0, callback_on_step_end=stop, **QUICK)
    if stopped.audios.shape[-1] < 30 * 24000:
        with pytest.raises(ValueError, match="was interrupted"):
            plan_of(tiny_pipeline, stopped)
