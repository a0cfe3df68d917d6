"""What docs/extending.md says can be added from outside works: its own code is run, and what it made is checked."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

import melody_diffusers
from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyPipeline
from melody_diffusers.hf import registry

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
QUICK = {"audio_duration": 2.0, "num_inference_steps": 2, "output_type": "pt"}
IN_A_NEW_PROCESS = """
import torch, melody_diffusers
{classes}
pipe = melody_diffusers.MeLoDyPipeline.from_pretrained("alice/extended")
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(3)
audios = pipe("a waltz", audio_duration=2.0, num_inference_steps=2, output_type="pt", generator=generator).audios
assert torch.equal(audios, torch.load(sys.argv[1]))
"""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page defines, in the folder it was run in."""
    folder = tmp_path_factory.mktemp("extending")
    namespace = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            exec(compile(block, PAGE, "exec"), namespace)
    return namespace | {"folder": folder}


@pytest.fixture(scope="module")
def extended(page):
    """A pipeline with the page's decoder and scheduler."""
    parts = {"vae": page["LinearCodec"](), "scheduler": page["PowerScheduler"](power=1.5)}
    pipe = MeLoDyPipeline.from_pretrained(melody_diffusers.MELODY_TINY, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_decoder_and_a_scheduler_are_saved_by_name_and_loaded_again(extended, page, tmp_path):
    extended.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["vae"] == ["melody_diffusers", "LinearCodec"]
    assert index["scheduler"] == ["melody_diffusers", "PowerScheduler"]
    loaded = MeLoDyPipeline.from_pretrained(tmp_path)
    assert type(loaded.vae) is page["LinearCodec"] and loaded.scheduler.config.power == 1.5
    expected = extended("a waltz", generator=seeded(3), **QUICK).audios
    assert expected.shape == (1, 1, 48000) and expected.abs().max() > 0
    assert torch.equal(loaded("a waltz", generator=seeded(3), **QUICK).audios, expected)


def test_they_serve_the_other_tasks_too(extended):
    inpaint = MeLoDyInpaintPipeline.from_pipe(extended)
    clip = 0.1 * torch.sin(torch.arange(48000) * 0.05)
    filled = inpaint(
        clip,
        audio_sampling_rate=24000,
        regions=[(0.5, 1.0)],
        generator=seeded(),
        num_inference_steps=2,
        output_type="pt",
    ).audios[0, 0]
    assert torch.equal(filled[:12000], clip[:12000]) and not torch.equal(filled[12000:24000], clip[12000:24000])


def test_the_schedulers_steps_are_those_of_its_formula(page):
    scheduler = page["PowerScheduler"](power=2.0)
    scheduler.set_timesteps(4)
    expected = [math.pi / 2 * (1 - i / 4) ** 2 for i in range(4)]
    torch.testing.assert_close(scheduler.timesteps, torch.tensor(expected))
    # clean latents and noise a quarter turn apart: with the true velocity the last step ends at the clean ones
    clean, noise = torch.randn(2, 1, 8, 4, generator=seeded()).unbind()
    z = noise
    for angle, following in zip(scheduler.timesteps, [*scheduler.timesteps[1:], torch.tensor(0.0)]):
        velocity = angle.cos() * noise - angle.sin() * clean
        z = scheduler.step(velocity, angle[None, None], z, next_timestep=following[None, None]).prev_sample
    torch.testing.assert_close(z, clean)


def test_they_are_published_and_loaded_by_whoever_registers_them(extended, hub_server, tmp_path):
    extended.save_pretrained(tmp_path / "pipe")
    hub_server.add("alice/extended", tmp_path / "pipe")
    torch.save(extended("a waltz", generator=seeded(3), **QUICK).audios, tmp_path / "audios.pt")
    definitions = [block.split("\npipe = ")[0] for block in BLOCKS[:2]]  # up to where each registers its class
    code = IN_A_NEW_PROCESS.format(classes="\n".join(definitions))
    hub_server.run(code, str(tmp_path / "audios.pt"), cache=tmp_path / "cache")


def test_who_has_not_registered_a_class_is_told_its_name(extended, tmp_path, monkeypatch):
    extended.save_pretrained(tmp_path)
    monkeypatch.setattr(registry, "_ADDED", {})
    with pytest.raises(ValueError, match="(LinearCodec|PowerScheduler).*register"):
        MeLoDyPipeline.from_pretrained(tmp_path)


def test_what_cannot_join_is_refused(page):
    register, codec = melody_diffusers.register, page["LinearCodec"]
    assert register(codec, slot="vae") is codec  # again, as when a notebook's cell is run twice
    with pytest.raises(ValueError, match="slot must be one of .*vae"):
        register(codec, slot="tokenizer")
    with pytest.raises(ValueError, match="another class called AudioVAEGAN"):
        register(type("AudioVAEGAN", (codec,), {}), slot="vae")
    with pytest.raises(ValueError, match="another class called LinearCodec"):
        register(type("LinearCodec", (codec,), {"__module__": "elsewhere"}), slot="vae")


def test_the_task_keeps_both_pieces(page):
    first, second, bridged = (page[name] for name in ("first", "second", "bridged"))
    before, after = first.audios.shape[1], second.audios.shape[1]
    assert torch.equal(bridged[:, :before], first.audios) and torch.equal(bridged[:, -after:], second.audios)
    assert bridged.shape[1] > before + after and bridged.isfinite().all() and page["music"].shape == (1, 1, 22 * 24000)


def test_the_metric_has_its_closed_form(page):
    sine = torch.sin(2 * math.pi * 440 * torch.arange(24000) / 24000 + 0.1)
    assert float(page["zero_crossings"](sine, 24000)) == pytest.approx(880, rel=2e-3)


def test_the_stage_saves_what_it_trained(page):
    trained, codec = page["trained"].state_dict(), page["codec"].state_dict()
    assert all(torch.equal(trained[name], codec[name]) for name in codec)
    assert page["run"].step == 4 and (page["folder"] / "my_codec" / "config.json").is_file()
