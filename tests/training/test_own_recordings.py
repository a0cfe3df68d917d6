"""`make model` on what people have: with captions, with a few, with none, and a single recording."""

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoTokenizer, BertModel

from melody_diffusers import MELODY_TINY, MeLoDyPipeline, MuLanModel
from melody_diffusers.data.build import build_dataset
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.data.decoding import DecodeLimits

RATE = 24000
TRAINING = Path(__file__).parents[2] / "training"
RECIPE = runpy.run_path(str(TRAINING / "recipe.py"))
Recipe, STAGES = RECIPE["Recipe"], RECIPE["STAGES"]
TINY = (
    *("run.max_steps=2", "run.budget_minutes=null", "run.num_iterations=2", "cluster.num_centroids=64"),
    *("model.semantic_codebook_size=64", "data.statistics_clips=2", "data.heldout_clips=2", "encode.tag_lists=1"),
)


def write_song(path: Path, seed: int, seconds: float) -> None:
    """A melody of eight notes a second."""
    random, time = np.random.default_rng(seed), np.arange(round(RATE * seconds)) / RATE
    notes = 220 * 2 ** (random.integers(0, 24, int(8 * seconds) + 1) / 12)
    samples = 0.3 * np.sin(2 * np.pi * np.cumsum(notes[(8 * time).astype(int)]) / RATE) * np.exp(-8 * (time % 0.125))
    soundfile.write(path, samples, RATE)


def data_set(place: Path, count: int, seconds: float = 10.0, described: int = 0) -> Path:
    (place / "songs").mkdir()
    for index in range(count):
        write_song(place / "songs" / f"{index}.wav", index, seconds)
        if index < described:
            (place / "songs" / f"{index}.txt").write_text(("a slow song", "a quick tune")[index % 2])
    build_dataset(place / "songs", place / "set", limits=DecodeLimits(clip_seconds=10.0))
    return place / "set"


def run_script(monkeypatch, script: str, *arguments: object) -> None:
    monkeypatch.syspath_prepend(TRAINING)  # as Python does for a script
    monkeypatch.setattr(sys, "argv", [*map(str, (script, *arguments))])
    runpy.run_path(str(TRAINING / script), run_name="__main__")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "count, seconds, described",
    [(8, 10.0, 5), (3, 3.0, 0)],
    ids=["few captions", "three loops without captions"],
)
def test_a_model_of_ones_own_comes_out_and_makes_music(tmp_path, capfd, count, seconds, described):
    data, teacher = data_set(tmp_path, count, seconds, described), " --sentences 300 --steps 3 --batch_size 16"
    stages = [
        dataclasses.replace(stage, arguments=stage.arguments + teacher) if stage.name == "text_tower" else stage
        for stage in STAGES
    ]
    recipe = Recipe(str(data), str(tmp_path / "stages"), str(tmp_path / "model"), TINY, stages=stages)
    assert recipe.make("pipeline") == 0
    printed = capfd.readouterr().out
    assert "pipeline: done" in printed and ("has no captions" in printed) == (described == 0)
    assert ("melody-tiny's own MuLan is taken" in printed) == (described == 0)
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    clip, _ = soundfile.read(tmp_path / "songs" / "0.wav", dtype="float32")
    for prompt in ({"prompt": "a slow song"}, {"audio_prompt": torch.from_numpy(clip)[None, None]}):
        audio = pipe(**prompt, num_inference_steps=2, generator=torch.Generator().manual_seed(0)).audios
        assert audio.shape == (1, 1, 240_000) and np.abs(audio).max() > 0


def test_the_shipped_text_tower_serves_recordings_without_captions(tmp_path, monkeypatch, capsys):
    data = data_set(tmp_path, 3)
    run_script(monkeypatch, "text_teacher.py", "--dataset", data, "--out", tmp_path / "out")
    assert "has no captions, so melody-tiny's own is taken" in capsys.readouterr().out
    tower = BertModel.from_pretrained(tmp_path / "out" / "text_tower", add_pooling_layer=False).state_dict()
    shipped = MuLanModel.from_pretrained(MELODY_TINY, subfolder="mulan").text_tower.state_dict()
    assert tower.keys() == shipped.keys() and all(torch.equal(tower[k], v.float()) for k, v in shipped.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer").tokenize("a piano") == ["a", "piano"]


def test_a_batch_norm_is_settled_by_fewer_clips_than_a_batch(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TRAINING))
    from train_semantic_encoder import settle_batch_norm

    class Listener(torch.nn.Module):
        samples_per_token, device = 960, torch.device("cpu")

        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(1)

        def forward(self, waveform, mask):
            return self.norm(waveform + 3.0)

    listener, clips = Listener(), AudioClips(data_set(tmp_path, 3), "train", 1.0)
    settle_batch_norm(listener, clips, batch_size=16)
    assert float(listener.norm.running_mean) == pytest.approx(3.0, abs=0.05)


def test_songs_that_were_added_make_the_stages_stale(tmp_path):
    data = data_set(tmp_path, 3)

    def recipe():
        return Recipe(str(data), str(tmp_path / "stages"), str(tmp_path / "model"))

    before = recipe()
    stage = before.stages["vae_gan"]
    (tmp_path / "stages" / "vae_gan").mkdir(parents=True)
    (tmp_path / "stages" / "vae_gan" / "config.json").write_text("{}")
    before._write_note(stage, done=True, facts=before.facts(stage))
    assert recipe().state(stage) == ("nothing", "")
    build_dataset(tmp_path / "songs", data, limits=DecodeLimits(clip_seconds=10.0), replace=True)
    assert recipe().state(stage) == ("nothing", "")  # the same songs
    write_song(tmp_path / "songs" / "new.wav", 9, 10.0)
    build_dataset(tmp_path / "songs", data, limits=DecodeLimits(clip_seconds=10.0), replace=True)
    assert recipe().state(stage) == ("again", "data changed")


def test_stages_within_the_data_set_are_refused(tmp_path, capsys):
    data = data_set(tmp_path, 3)
    assert Recipe(str(data), str(data / "stages"), str(tmp_path / "model")).make("pipeline") == 2
    assert f"--stages {data / 'stages'} lies within the data set" in capsys.readouterr().out
    assert not (data / "stages").exists()


@pytest.mark.parametrize("count", [0, 1], ids=["an empty folder", "a folder of recordings"])
def test_a_folder_that_is_no_data_set_is_refused_before_any_stage_runs(tmp_path, capsys, count):
    (tmp_path / "songs").mkdir()
    for index in range(count):
        write_song(tmp_path / "songs" / f"{index}.wav", index, 10.0)
    assert Recipe(str(tmp_path / "songs"), str(tmp_path / "stages"), str(tmp_path / "model")).make("pipeline") == 2
    assert f"`melody data build {tmp_path / 'songs'} --out FOLDER` makes one" in capsys.readouterr().out
    assert not (tmp_path / "stages").exists()


def test_an_encoding_within_the_data_set_is_refused_before_models_are_read(tmp_path, monkeypatch):
    config = TRAINING / "configs" / "encode" / "tiny.yaml"
    places = [f"data.folder={tmp_path}", f"encode.output_dir={tmp_path}/encoded"]
    with pytest.raises(ValueError, match="encode.output_dir .* lies within data.folder"):
        run_script(monkeypatch, "encode_dataset.py", "--config", config, "--set", *places)


def test_a_setting_reaches_the_stages_that_know_it(tmp_path):
    def takers(setting: str) -> list[str]:
        recipe = Recipe(str(tmp_path), str(tmp_path / "stages"), str(tmp_path / "model"), [setting])
        return [name for name, stage in recipe.stages.items() if setting in recipe.command(stage)]

    trainings = ["vae_gan", "mulan", "semantic_encoder", "semantic_lm", "dual_path", "distilled"]
    assert takers("run.max_steps=7") == trainings and takers("optim.clip=0.5") == trainings
    assert takers("run.num_iterations=2") == ["mulan_quantizer"]
    assert takers("encode.window_seconds=5") == ["encoded"]  # with its default in the script, not in the YAML
    assert takers("cluster.num_passes=3") == ["semantic_tokenizer"]


def test_a_setting_that_no_stage_knows_is_named_before_any_runs(tmp_path, capsys):
    data = data_set(tmp_path, 3)
    assert (
        Recipe(str(data), str(tmp_path / "stages"), str(tmp_path / "model"), ["run.max_step=7"]).make("pipeline") == 2
    )
    assert "--set run.max_step=7: no stage has such a key" in capsys.readouterr().out
    assert not (tmp_path / "stages").exists()
