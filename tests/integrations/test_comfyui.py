"""The nodes by ComfyUI's contract, without ComfyUI: how it loads a folder, asks for inputs, and runs a node."""

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from melody_diffusers import MeLoDyInputError, MeLoDyPipeline

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
RANGED = {"INT": int, "FLOAT": float}


@pytest.fixture(scope="module")
def nodes() -> dict[str, type]:
    """The folder, loaded as ComfyUI loads one: as a module by its path, whose name is no Python name."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    return module.NODE_CLASS_MAPPINGS


def run(node: type, model: str, **given) -> dict:
    """What ComfyUI does with a node: the widgets' values, in its inference mode; one AUDIO comes out."""
    kinds = node.INPUT_TYPES()
    inputs = {name: kind[1]["default"] for name, kind in kinds["required"].items() if len(kind) > 1} | given
    for name, value in inputs.items():
        kind, *options = {**kinds["required"], **kinds["optional"]}[name]
        if kind in RANGED:
            assert isinstance(value, RANGED[kind]) and options[0]["min"] <= value <= options[0]["max"], name
    with torch.inference_mode():
        results = getattr(node(), node.FUNCTION)(**inputs, model=model)
    assert isinstance(results, tuple) and len(results) == len(node.RETURN_TYPES) == 1
    audio = results[0]
    assert set(audio) == {"waveform", "sample_rate"} and isinstance(audio["sample_rate"], int)
    assert audio["waveform"].ndim == 3 and audio["waveform"].dtype == torch.float32
    assert audio["waveform"].device.type == "cpu" and audio["waveform"].isfinite().all()
    return audio


@pytest.fixture
def comfy(monkeypatch) -> ModuleType:
    """What nodes may ask of a running ComfyUI."""
    management = ModuleType("comfy.model_management")
    management.get_torch_device = lambda: torch.device("cpu")
    management.throw_exception_if_processing_interrupted = lambda: None
    package = ModuleType("comfy")
    package.model_management = management
    monkeypatch.setitem(sys.modules, "comfy", package)
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    return management


def test_the_nodes_say_what_comfyui_asks_for(nodes):
    assert set(nodes) == {"MeLoDyGenerate", "MeLoDyEdit", "MeLoDyLoop"}
    for node in nodes.values():
        kinds = node.INPUT_TYPES()
        json.dumps(kinds)  # as its page is told
        assert node.RETURN_TYPES == ("AUDIO",) and node.CATEGORY.startswith("audio/")
        parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
        assert list(parameters)[1:] == [*kinds["required"], *kinds["optional"]]
        needed = [name for name, each in parameters.items() if each.default is inspect.Parameter.empty]
        assert needed[1:] == list(kinds["required"])
        for kind, *options in {**kinds["required"], **kinds["optional"]}.values():
            assert kind in ("STRING", "INT", "FLOAT", "AUDIO")
            assert kind not in RANGED or {"default", "min", "max"} <= set(options[0])


def test_music_from_text_is_what_the_pipeline_makes(nodes, tiny_folder):
    audio = run(nodes["MeLoDyGenerate"], tiny_folder, prompt="a waltz", seed=2**64 - 1, seconds=2.5, steps=2)
    pipe = MeLoDyPipeline.from_pretrained(tiny_folder)
    generator = torch.Generator().manual_seed(2**64 - 1)
    same = pipe("a waltz", audio_duration=2.5, num_inference_steps=2, generator=generator, output_type="pt")
    assert audio["sample_rate"] == 24000 and torch.equal(audio["waveform"], same.audios)


def test_settings_reach_the_pipeline(nodes, tiny_folder):
    plain = run(nodes["MeLoDyGenerate"], tiny_folder, prompt="a waltz", seconds=2.5, steps=2)
    for change in ({"steps": 3}, {"guidance": 9.0}, {"seed": 1}):
        changed = run(nodes["MeLoDyGenerate"], tiny_folder, prompt="a waltz", seconds=2.5, **{"steps": 2} | change)
        assert not torch.equal(changed["waveform"], plain["waveform"]), change


def test_a_loop_has_the_length_of_its_bars(nodes, tiny_folder):
    audio = run(nodes["MeLoDyLoop"], tiny_folder, bars=2, bpm=124.0, beats_per_bar=3, steps=1)
    assert audio["waveform"].shape == (1, 1, round(2 * 3 * 60 / 124 * 24000))


def test_an_edit_keeps_the_rest_and_each_recording_by_itself(nodes, tiny_folder):
    noise = 0.1 * torch.randn(2, 2, 3 * 48000, generator=torch.Generator().manual_seed(0))
    audio = {"waveform": noise, "sample_rate": 48000}
    edit = {"start": 1.0, "end": 1.5, "after": 0.5, "steps": 1}
    made = run(nodes["MeLoDyEdit"], tiny_folder, audio=audio, **edit, seed=7)
    assert made["sample_rate"] == 48000 and made["waveform"].shape == (2, 2, int(3.5 * 48000))
    known = torch.cat([torch.arange(48000), torch.arange(int(1.5 * 48000), 3 * 48000)])
    assert torch.equal(made["waveform"][..., known], noise[..., known])
    filled = slice(48000, int(1.5 * 48000))
    assert not torch.equal(made["waveform"][..., filled], noise[..., filled])
    second = run(nodes["MeLoDyEdit"], tiny_folder, audio={**audio, "waveform": noise[1:]}, **edit, seed=8)
    assert torch.equal(second["waveform"], made["waveform"][1:])


def test_what_is_wrong_is_said(nodes, tiny_folder):
    with pytest.raises(MeLoDyInputError, match="prompt"):
        run(nodes["MeLoDyGenerate"], tiny_folder, prompt="")
    audio = {"waveform": torch.zeros(1, 1, 48000), "sample_rate": 24000}
    with pytest.raises(MeLoDyInputError, match="regions"):
        run(nodes["MeLoDyEdit"], tiny_folder, audio=audio, start=1.5, end=0.5)


def test_stop_stops_at_the_next_step_and_the_next_run_is_as_ever(nodes, tiny_folder, comfy):
    class Stopped(Exception):
        pass

    asked = []

    def stop() -> None:
        asked.append(None)
        if len(asked) == 5:
            raise Stopped

    settings = {"prompt": "a waltz", "seconds": 2.5, "steps": 2}
    whole = run(nodes["MeLoDyGenerate"], tiny_folder, **settings)
    comfy.throw_exception_if_processing_interrupted = stop
    with pytest.raises(Stopped):
        run(nodes["MeLoDyGenerate"], tiny_folder, **settings)
    assert len(asked) == 5
    assert torch.equal(run(nodes["MeLoDyGenerate"], tiny_folder, **settings)["waveform"], whole["waveform"])
    assert len(asked) > 5
