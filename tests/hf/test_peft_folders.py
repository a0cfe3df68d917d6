"""Adapters as PEFT itself writes them: where they may lie, and which are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny_components

from melody_diffusers import MeLoDyPipeline

peft = pytest.importorskip("peft")

TARGETS = {"dual_path": ["to_q"], "semantic_lm": ["q_proj"]}


def write(folder: Path, part: str = "dual_path", adapter_name: str = "default", **settings) -> None:
    """What PEFT writes for an adapter of one of the models."""
    config = peft.LoraConfig(**{"r": 2, "target_modules": TARGETS[part], "init_lora_weights": False} | settings)
    peft.get_peft_model(make_tiny_components()[part], config, adapter_name=adapter_name).save_pretrained(folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with an adapter of each model; to be read only."""
    folder = tmp_path_factory.mktemp("peft")
    for part in TARGETS:
        write(folder / part, part)
    return folder


@pytest.fixture
def pipe(tiny_components) -> MeLoDyPipeline:
    return MeLoDyPipeline(**tiny_components)


def change(folder: Path, **settings) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    ("source", "options", "parts"),
    [
        ("", {}, ["dual_path", "semantic_lm"]),
        ("", {"subfolder": "semantic_lm"}, ["semantic_lm"]),
        ("dual_path", {}, ["dual_path"]),
        ("dual_path", {"weight_name": "adapter_model.safetensors"}, ["dual_path"]),
        ("dual_path/adapter_model.safetensors", {}, ["dual_path"]),
    ],
)
def test_an_adapter_is_found_by_its_folder_its_file_or_a_folder_of_both(pipe, written, source, options, parts):
    pipe.load_lora_weights(written / source, adapter_name="mine", **options)
    assert pipe.get_list_adapters() == {part: ["mine"] for part in parts}
    for part in parts:
        stored = load_file(written / part / "adapter_model.safetensors")
        name = next(key for key in stored if key.endswith("lora_B.weight"))
        layer = name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
        loaded = getattr(pipe, part).get_submodule(layer).lora_B["mine"].weight
        assert torch.equal(loaded, stored[name])


def test_an_adapter_that_peft_called_by_a_name_is_found_below(pipe, tmp_path):
    write(tmp_path, adapter_name="waltzes")
    assert (tmp_path / "waltzes/adapter_config.json").is_file()
    pipe.load_lora_weights(tmp_path)
    assert pipe.get_list_adapters() == {"dual_path": ["default_0"]}


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"target_modules": "all-linear"}, {"layers_to_transform": [0]}]
)
def test_what_peft_can_do_besides_is_kept_when_it_is_saved_again_as_ours(pipe, tmp_path, settings):
    part = "semantic_lm" if "layers_to_transform" in settings else "dual_path"
    write(tmp_path / "theirs", part, **settings)
    pipe.load_lora_weights(tmp_path / "theirs")
    pipe.save_lora_weights(tmp_path / "ours")
    stored = load_file(tmp_path / "theirs/adapter_model.safetensors")
    ours = load_file(tmp_path / "ours/pytorch_lora_weights.safetensors")
    assert ours.keys() == {key.replace("base_model.model", part) for key in stored}
    assert all(torch.equal(ours[key.replace("base_model.model", part)], weight) for key, weight in stored.items())


def test_two_adapters_of_one_model_side_by_side_are_not_mixed(pipe, written, tmp_path):
    for name in "fiddle", "flute":
        shutil.copytree(written / "dual_path", tmp_path / name)
    with pytest.raises(ValueError, match="several adapters of dual_path among fiddle, flute; give the folder of one"):
        pipe.load_lora_weights(tmp_path)
    pipe.load_lora_weights(tmp_path, subfolder="flute")


def test_whole_weights_beside_an_adapter_are_refused_by_name(pipe, tmp_path):
    write(tmp_path, "semantic_lm", modules_to_save=["lm_head"])
    with pytest.raises(ValueError, match="whole weights besides LoRA's .*lm_head"):
        pipe.load_lora_weights(tmp_path)


def test_a_damaged_file_is_named(pipe, written, tmp_path):
    shutil.copy(written / "dual_path/adapter_config.json", tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(OSError, match="adapter_model.safetensors is damaged"):
        pipe.load_lora_weights(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 10**9},  # would fill the memory
        {"r": "4"},
        {"r": 0},
        {"rank_pattern": {"to_q": 10**9}},
        {"lora_alpha": "8"},
        {"lora_alpha": float("inf")},
        {"alpha_pattern": {"to_q": None}},
        {"use_dora": "yes"},
    ],
    ids=str,
)
def test_settings_that_no_adapter_has_are_refused_before_memory_is_taken(pipe, written, tmp_path, settings):
    shutil.copytree(written / "dual_path", tmp_path / "adapter")
    change(tmp_path / "adapter", **settings)
    with pytest.raises(ValueError, match="is no setting of a LoRA adapter"):
        pipe.load_lora_weights(tmp_path / "adapter")
    assert pipe.get_list_adapters() == {}


def test_targets_are_what_the_file_holds_and_no_pattern_is_run(pipe, written, tmp_path):
    shutil.copytree(written / "dual_path", tmp_path / "adapter")
    change(tmp_path / "adapter", target_modules="(.*)*x", auto_mapping={"parent_library": "evil"})
    pipe.load_lora_weights(tmp_path / "adapter")
    assert all(name.endswith("to_q") for name in pipe.dual_path.peft_config["default_0"].target_modules)
