"""Saving, loading, pickling and sharing, where something is in the way."""

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

from melody_diffusers import AudioVAEGAN, MeLoDyInpaintPipeline, MeLoDyPipeline, SemanticTokenizer
from melody_diffusers.audio import save_audio
from melody_diffusers.files import MOVING


def make(pipe, **arguments):
    pipe.set_progress_bar_config(disable=True)
    call = {"audio_duration": 1.0, "num_inference_steps": 1, "generator": torch.Generator().manual_seed(0)}
    return pipe("a waltz", **call, **arguments).audios


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return Path(shutil.copytree(tiny_folder, tmp_path / "pipeline"))


# --- settings


def test_one_setting_given_at_loading_leaves_the_checkpoints_others(tiny_components, tmp_path):
    settings = {"lm_guidance_scale": 5.0, "guidance_scale": 2.0, "num_inference_steps": 7}
    MeLoDyPipeline(**tiny_components, sampling=settings).save_pretrained(tmp_path / "a")
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "a", sampling={"num_inference_steps": 20, "guidance_scale": None})
    assert pipe.config.sampling == {"lm_guidance_scale": 5.0, "num_inference_steps": 20}
    pipe.save_pretrained(tmp_path / "b")
    assert MeLoDyPipeline.from_pretrained(tmp_path / "b").config.sampling == pipe.config.sampling
    other = MeLoDyInpaintPipeline.from_pipe(pipe, sampling={"temperature": 0.5})
    assert other.config.sampling == pipe.config.sampling | {"temperature": 0.5}
    with pytest.raises(ValueError, match="'steps'"):
        MeLoDyPipeline.from_pretrained(tmp_path / "a", sampling={"steps": 20})


# --- saving


@pytest.mark.parametrize("sizes", [("10GB", "20KB"), ("20KB", "10GB"), ("20KB", "40KB")])
def test_a_folder_saved_again_in_other_shards_loads(tiny_pipeline, tmp_path, sizes):
    for size in sizes:
        tiny_pipeline.save_pretrained(tmp_path / "pipeline", max_shard_size=size)
    loaded = MeLoDyPipeline.from_pretrained(tmp_path / "pipeline")
    assert np.array_equal(make(loaded), make(tiny_pipeline))
    loaded.save_pretrained(tmp_path / "pipeline", max_shard_size="15KB")  # into the folder it was loaded from
    assert np.array_equal(make(MeLoDyPipeline.from_pretrained(tmp_path / "pipeline")), make(tiny_pipeline))


def test_saving_leaves_alone_whatever_else_lies_there(tiny_pipeline, folder):
    tiny_pipeline.save_pretrained(folder, variant="fp16")
    (folder / "README.md").write_text("my notes")
    (folder / "vae" / "song.wav").write_bytes(b"a take")
    kept = [folder / "README.md", folder / "vae/song.wav", folder / "vae/model.fp16.safetensors"]
    before = [path.read_bytes() for path in kept]
    tiny_pipeline.save_pretrained(folder, max_shard_size="20KB")
    assert [path.read_bytes() for path in kept] == before
    assert not (folder / "dual_path/diffusion_pytorch_model.safetensors").exists()  # of the shards that are outdated
    assert not [path for path in folder.rglob("*") if path.name.startswith(".being")]
    MeLoDyPipeline.from_pretrained(folder, variant="fp16")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_interrupted_between_components_the_folder_is_as_it_was(folder, tiny_components, monkeypatch, error):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = MeLoDyPipeline(**tiny_components)
    with torch.no_grad():
        for parameter in (*other.vae.parameters(), *other.dual_path.parameters()):
            parameter.add_(1.0)

    def interrupted(*_, **__):
        raise error

    monkeypatch.setattr(SemanticTokenizer, "save_pretrained", interrupted)
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        other.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        other.save_pretrained(folder.with_name("new"))
    assert not folder.with_name("new").exists()


def test_interrupted_while_files_take_their_places_they_go_back(folder, tiny_components, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rename, calls = os.rename, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 25:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        MeLoDyPipeline(**tiny_components).save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_process_killed_while_files_take_their_places_leaves_no_silent_mixture(folder):
    code = (
        "import os, sys; from melody_diffusers import MeLoDyPipeline\n"
        "pipe = MeLoDyPipeline.from_pretrained(sys.argv[1]); rename, calls = os.rename, []\n"
        "def killed(source, target):\n"
        "    calls.append(target)\n"
        "    if len(calls) == 20: os.kill(os.getpid(), 9)\n"
        "    rename(source, target)\n"
        "os.rename = killed; pipe.save_pretrained(sys.argv[1])"
    )
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert subprocess.run([sys.executable, "-c", code, folder], capture_output=True).returncode == -9
    for load in (MeLoDyPipeline.from_pretrained, lambda path: AudioVAEGAN.from_pretrained(path, subfolder="vae")):
        with pytest.raises(OSError, match="was ended while files took their places"):
            load(folder)
    lost = [path for path in before if not (folder / path).exists() and not (folder / MOVING / path).exists()]
    assert lost == []


def test_saving_goes_through_a_link_to_a_folder(tiny_pipeline, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    tiny_pipeline.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and np.array_equal(
        make(MeLoDyPipeline.from_pretrained(tmp_path / "link")), make(tiny_pipeline)
    )


# --- other processes


def test_a_pipeline_survives_pickling(tiny_pipeline):
    again = pickle.loads(pickle.dumps(tiny_pipeline))
    assert np.array_equal(make(again), make(tiny_pipeline))
    waveform = torch.randn(1, 1, 24000, generator=torch.Generator().manual_seed(0))
    tokens = [pipe.semantic_tokenizer.encode(waveform) for pipe in (again, tiny_pipeline)]
    assert torch.equal(*tokens)
    names = [sorted(pipe.semantic_tokenizer.state_dict()) for pipe in (again, tiny_pipeline)]
    assert names[0] == names[1]


def test_a_pipeline_goes_to_a_spawned_process(tiny_pipeline):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(make, (tiny_pipeline,)), make(tiny_pipeline))


def test_the_clips_of_a_data_set_are_not_sent_to_each_worker(data):
    from melody_diffusers.data.datasets import AudioClips

    clips = AudioClips(data, "train", crop_seconds=1.0)
    assert len(pickle.dumps(clips)) < 20_000 < sum(len(clips.clip(i)[0]) for i in range(len(clips)))
    alone = [item["waveform"] for item in clips]
    loader = DataLoader(clips, batch_size=1, num_workers=1, multiprocessing_context="spawn")
    assert all(torch.equal(batch["waveform"][0], waveform) for batch, waveform in zip(loader, alone, strict=True))


# --- links


def test_weights_that_are_links_to_another_disk_load_when_that_is_allowed(folder, tmp_path, tiny_pipeline):
    disk = tmp_path / "disk"
    disk.mkdir()
    weights = folder / "vae" / "model.safetensors"
    shutil.move(weights, disk / "codec.safetensors")
    weights.symlink_to(disk / "codec.safetensors")
    for load in (
        lambda **options: MeLoDyPipeline.from_pretrained(folder, **options),
        lambda **options: AudioVAEGAN.from_pretrained(folder / "vae", **options),
    ):
        with pytest.raises(ValueError, match="leads out of its repository.*pass allow_links=True if it is yours"):
            load()
        load(allow_links=True)
    shutil.move(folder / "vae" / "config.json", disk / "config.json")
    (folder / "vae" / "config.json").symlink_to(disk / "config.json")
    with pytest.raises(ValueError, match="config.json leads out"):
        MeLoDyPipeline.from_pretrained(folder, allow_links=True)


# --- adapters

TARGETS = {"dual_path": ["to_q", "to_v"], "semantic_lm": ["q_proj", "v_proj"]}


def peft_folder(folder, part, tiny_components):
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS[part], init_lora_weights=False)
    model = get_peft_model(tiny_components[part], config)
    model.save_pretrained(folder)
    return model


def test_an_adapter_that_peft_saved_is_loaded(tiny_folder, tiny_components, tmp_path):
    for part in TARGETS:
        peft_folder(tmp_path / part, part, tiny_components)
    pipe = MeLoDyPipeline.from_pretrained(tiny_folder)
    plain = make(pipe)
    pipe.load_lora_weights(tmp_path, adapter_name="both")  # a folder for each model
    assert pipe.get_list_adapters() == {part: ["both"] for part in TARGETS}
    with_both = make(pipe)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(tmp_path / "dual_path")
    weights = pipe.dual_path.peft_config["default_0"]
    assert (weights.r, weights.lora_alpha) == (4, 8)
    with_one = make(pipe)
    expected = make(MeLoDyPipeline(**tiny_components | {"semantic_lm": pipe.semantic_lm}))  # as PEFT itself adapts it
    assert np.allclose(with_one, expected, atol=1e-5)
    assert not np.array_equal(plain, with_one) and not np.array_equal(with_one, with_both)


def test_a_peft_adapter_of_another_model_is_refused_by_name(tiny_folder, tiny_components, tmp_path):
    peft_folder(tmp_path, "dual_path", tiny_components)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    pipe = MeLoDyPipeline.from_pretrained(tiny_folder)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    with pytest.raises(ValueError, match="must hold a LoRA adapter of PEFT"):
        pipe.load_lora_weights(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    save_file({"base_model.model.unet.to_q.lora_A.weight": torch.zeros(4, 8)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="neither has all of the modules that it adapts, such as unet.to_q"):
        pipe.load_lora_weights(tmp_path)
    assert not any(pipe.get_list_adapters().values())


# --- quiet


def test_nothing_is_said_by_libraries_when_a_pipeline_is_loaded_and_used(tiny_folder, tmp_path):
    code = (
        "import sys; from melody_diffusers import MeLoDyPipeline\n"
        "from diffusers.utils.logging import disable_progress_bar as a\n"
        "from transformers.utils.logging import disable_progress_bar as b; a(); b()\n"
        "pipe = MeLoDyPipeline.from_pretrained(sys.argv[1])\n"
        "pipe.set_progress_bar_config(disable=True); pipe('a waltz', num_inference_steps=1, audio_duration=1.0)"
    )
    run = subprocess.run([sys.executable, "-c", code, tiny_folder], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    words = [sys.executable, "-m", "melody_diffusers.cli", "generate", "a", "--model", tiny_folder, "--seed", "1"]
    run = subprocess.run([*words, "--duration", "1", "-o", tmp_path / "a.wav"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == "seed 1\n"


def test_music_of_one_call_is_saved_without_a_word(tmp_path, capfd, tiny_pipeline):
    save_audio(tmp_path / "a.mp3", make(tiny_pipeline)[0], 24000)
    assert capfd.readouterr().err == ""
