"""A folder of recordings as somebody has it, built into a data set, and what trains on it."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melody_diffusers.data.build import build_dataset
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.data.decoding import DecodeLimits

TRAINING = Path(__file__).parents[2] / "training"
RATE = 24000


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(TRAINING))


def music(seed: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """Notes that come and go, of another melody for each seed."""
    random = np.random.default_rng(seed)
    notes = np.repeat(random.uniform(150, 1500, round(seconds * 4) + 1), rate // 4)[: round(seconds * rate)]
    decay = np.exp(-3 * (np.arange(len(notes)) % (rate // 4)) / rate)
    return 0.3 * decay * np.sin(2 * np.pi * np.cumsum(notes) / rate) + 0.01 * random.standard_normal(len(notes))


def write(path: Path, seed: int, seconds: float = 12.0, rate: int = RATE, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, music(seed, seconds, rate), rate, **options)


def lines_of(folder: Path) -> dict[str, dict]:
    lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    return {line["path"]: line for line in lines}


def test_loops_are_used_and_shorter_pieces_are_refused(tmp_path):
    for number, seconds in enumerate((1.5, 2.5, 4.0, 9.9, 10.5, 23.0)):
        write(tmp_path / "songs" / f"{number}.wav", number, seconds)
    summary = build_dataset(tmp_path / "songs", tmp_path / "set", validation_share=0, test_share=0)
    assert summary.refused == {"too_short": 1} and summary.loops == 3
    assert "3 recordings are shorter than a clip has to be: loops, which trainings repeat" in str(summary)
    clips = AudioClips(tmp_path / "set", "train", crop_seconds=10.0)
    lengths = sorted(round(clips.clip(i).shape[1] / RATE, 1) for i in range(len(clips)))
    assert lengths == [2.5, 4.0, 9.9, 10.5, 20.0]  # three seconds at the end of a song are no loop
    loop = clips[[clips.clip(i).shape[1] for i in range(len(clips))].index(4 * RATE)]["waveform"]
    assert torch.equal(loop[:, : 4 * RATE], loop[:, 4 * RATE : 8 * RATE])  # and no silence


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_recordings_have_clips_in_every_split(tmp_path, count):
    for number in range(count):
        write(tmp_path / "songs" / f"{number}.wav", number, 50.0)
    build_dataset(tmp_path / "songs", tmp_path / "set")
    sizes = [len(AudioClips(tmp_path / "set", split, None)) for split in ("train", "validation", "test")]
    assert sizes == {1: [1, 1, 1], 2: [4, 1, 1], 3: [3, 3, 3]}[count]


def test_songs_that_are_added_move_no_other_to_another_split(tmp_path):
    songs, out = tmp_path / "songs", tmp_path / "set"
    for number in range(3):
        write(songs / f"{number}.wav", number)
    build_dataset(songs, out)
    before = {name: line["split"] for name, line in lines_of(out).items()}
    assert sorted(before.values()) == ["test", "train", "validation"]
    for number in range(3, 9):
        write(songs / f"{number}.wav", number)
    with pytest.raises(FileExistsError, match="holds a data set already.*--replace"):
        build_dataset(songs, out)
    build_dataset(songs, out, replace=True)
    after = {name: line["split"] for name, line in lines_of(out).items()}
    assert len(after) == 9 and {name: after[name] for name in before} == before


def test_what_was_held_out_of_an_only_recording_stays_held_out(tmp_path):
    songs, out = tmp_path / "songs", tmp_path / "set"

    def held_out() -> set[tuple[str, float]]:
        rows = [row for split in ("validation", "test") for row in AudioClips(out, split, None).rows]
        return {(row["recording"], row["start_seconds"]) for row in rows}

    write(songs / "0.wav", 0, 70.0)
    build_dataset(songs, out)
    assert held_out() == {("0.wav", 40.0), ("0.wav", 60.0)}
    for number in range(1, 6):
        write(songs / f"{number}.wav", number)
    build_dataset(songs, out, replace=True)
    assert {("0.wav", 40.0), ("0.wav", 60.0)} <= held_out()


def test_one_track_in_several_formats_is_on_one_side(tmp_path):
    songs = tmp_path / "songs"
    for number in range(12):
        write(songs / f"{number}.flac", number, 15.0, 44100)
        write(songs / "mp3" / f"track {number}.mp3", number, 15.0, 44100)
        write(songs / "ogg" / f"take {number}.ogg", number, 15.0, 44100, format="OGG", subtype="VORBIS")
    build_dataset(songs, tmp_path / "set", validation_share=0.3, test_share=0.3)
    split = {name: line["split"] for name, line in lines_of(tmp_path / "set").items()}
    assert set(split.values()) == {"train", "validation", "test"}
    for number in range(12):
        assert len({split[f"{number}.flac"], split[f"mp3/track {number}.mp3"], split[f"ogg/take {number}.ogg"]}) == 1


def test_different_music_of_one_length_is_not_taken_for_one_track(tmp_path):
    from melody_diffusers.data.build import same_music
    from melody_diffusers.data.decoding import Outline

    lines, outlines = [], {}
    for number in range(40):
        outline = Outline(RATE)
        outline.add(music(number, 15.0).astype(np.float32))
        lines.append({"sha256": f"{number:064x}", "seconds": 15.0})
        outlines[lines[-1]["sha256"]] = np.frombuffer(bytes.fromhex(outline.hex()), np.uint8)
    assert same_music(lines, outlines) == {line["sha256"]: line["sha256"] for line in lines}


def test_clips_without_captions_are_not_paired_with_an_empty_one(tmp_path):
    songs = tmp_path / "songs"
    for number in range(6):
        write(songs / f"{number}.wav", number)
    (songs / "2.txt").write_text("a calm tune")
    build_dataset(songs, tmp_path / "set", validation_share=0, test_share=0)
    clips = AudioClips(tmp_path / "set", "train", 5.0, described_only=True)
    assert len(clips) == 1 and clips[0]["caption"] == "a calm tune"
    whole = AudioClips(tmp_path / "set", "train", 5.0)
    index = [row["recording"] for row in whole.rows].index("2.wav")
    assert len(whole) == 6 and torch.equal(clips.clip(0), whole.clip(index))


def test_the_text_tower_learns_words_of_music_where_there_are_no_captions():
    import text_teacher

    sentences = text_teacher.make_sentences([], ["piano", "calm", "drums"], 300, np.random.default_rng(0))
    assert len(sentences) > 50 and all(set(re.findall("[a-z]+", text)) for text in sentences)


def test_mulan_of_a_folder_without_captions_is_the_shipped_one():
    from train_mulan import shipped_mulan

    from melody_diffusers import MELODY_TINY, MuLanConfig, MuLanModel

    shipped = MuLanModel.from_pretrained(MELODY_TINY, subfolder="mulan")
    same, tokenizer = shipped_mulan(shipped, "data/mine")
    assert torch.equal(same.text_projection.weight, shipped.text_projection.weight)
    assert tokenizer.tokenize("a waltz")
    config = MuLanConfig(**{**shipped.config.to_dict(), "projection_dim": 64})
    with pytest.raises(ValueError, match="embeddings of 128 numbers, not 64. Describe some clips"):
        shipped_mulan(MuLanModel(config), "data/mine")


def test_a_model_of_too_few_clips_is_refused_before_any_stage_runs(tmp_path, capsys):
    import recipe

    write(tmp_path / "songs" / "0.wav", 0, 30.0)
    build_dataset(tmp_path / "songs", tmp_path / "set")
    made = recipe.Recipe(str(tmp_path / "set"), str(tmp_path / "stages"), str(tmp_path / "model"))
    assert made.make("pipeline") == 2
    said = capsys.readouterr().out
    assert "has too few clips (train 2, validation 0, test 0)" in said and "three clips" in said
    assert not (tmp_path / "stages").exists()


def test_a_setting_reaches_each_stage_that_has_it_and_is_refused_where_none_does(tmp_path, capsys):
    import recipe

    for number in range(3):
        write(tmp_path / "songs" / f"{number}.wav", number)
    build_dataset(tmp_path / "songs", tmp_path / "set")
    settings = ["run.max_steps=4", "cluster.num_passes=2", "run.num_iterations=3", "data.crops_per_clip=5"]
    made = recipe.Recipe(str(tmp_path / "set"), str(tmp_path / "stages"), "model", settings)
    given = {name: made.command(stage) for name, stage in made.stages.items()}
    assert "run.max_steps=4" in given["vae_gan"] and "cluster.num_passes=2" in given["semantic_tokenizer"]
    assert {"run.num_iterations=3", "data.crops_per_clip=5"} <= set(given["mulan_quantizer"])
    assert "data.crops_per_clip=5" not in given["vae_gan"] and "run.max_steps=4" not in given["semantic_tokenizer"]
    wrong = recipe.Recipe(str(tmp_path / "set"), str(tmp_path / "stages"), "model", ["data.crop_second=5"])
    assert wrong.make("pipeline") == 2 and "data.crop_second=5: no stage has such a key" in capsys.readouterr().out


def test_an_output_among_the_data_is_refused_at_the_start(tmp_path):
    import train_mulan
    from train_mulan import DataConfig

    from melody_diffusers.training_utils import OptimConfig, RunConfig, load_config

    config = TRAINING / "configs" / "mulan" / "tiny.yaml"
    sections = {"model": train_mulan.MuLanConfig, "data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    places = [f"data.folder={tmp_path}/set", f"run.output_dir={tmp_path}/set/mulan"]
    with pytest.raises(ValueError, match="lies within data.folder .*: what is written there would be read as data"):
        load_config(config, sections, places)


def test_a_training_started_elsewhere_finds_the_files_its_configuration_names(tmp_path, monkeypatch):
    import train_mulan
    from train_mulan import DataConfig

    from melody_diffusers.training_utils import OptimConfig, RunConfig, load_config

    monkeypatch.chdir(tmp_path)
    config = TRAINING / "configs" / "mulan" / "tiny.yaml"
    sections = {"model": train_mulan.MuLanConfig, "data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    assert Path(load_config(config, sections).data.prompts).is_file()
    with pytest.raises(ValueError, match="data.prompts names nowhere.yaml, and there is no such file"):
        load_config(config, sections, ["data.prompts=nowhere.yaml"])


def test_what_was_built_iterates_without_torchcodec_as_its_card_says(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / "songs" / f"{number}.wav", number)
    build_dataset(tmp_path / "songs", tmp_path / "set")
    card = (tmp_path / "set" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(code, found)
    assert found["rate"] == RATE and len(found["samples"]) == 12 * RATE
    assert "torchcodec" not in sys.modules


def test_a_recording_without_a_length_is_decoded_under_the_same_limits(tmp_path):
    from melody_diffusers.data.decoding import Decoder

    write(tmp_path / "a.flac", 0, 12.0)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # as if it had been written to a pipe
    (tmp_path / "a.flac").write_bytes(content)
    for most, reason in ((60.0, None), (11.0, "too_long")):
        with Decoder(DecodeLimits(max_seconds=most)) as decoder:
            assert decoder.decode(str(tmp_path / "a.flac"), str(tmp_path / "clips"))["reason"] == reason
