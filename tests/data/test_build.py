import io
import json
import os
import sys
import zipfile

import datasets
import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, Features, Value

from melody_diffusers import cli
from melody_diffusers.data import build
from melody_diffusers.data import outlines as outlines_module
from melody_diffusers.data.build import _choose_splits, build_dataset
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.data.decoding import DecodeLimits, Decoder
from melody_diffusers.data.outlines import same_music

RATE = 24000
SHORT = DecodeLimits(clip_seconds=1.0, min_seconds=0.5)


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, round(RATE * seconds)).astype(np.int16)


def encoded(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC")
    return buffer.getvalue()


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    (folder / "more").mkdir(parents=True)
    for index in range(6):
        soundfile.write(folder / ("more" if index % 2 else "") / f"{index}.wav", noise(index, 3.7), RATE)
    (folder / "0.txt").write_text("a song\nof noise\n")
    (folder / "metadata.csv").write_text("file_name,caption,mood\n2.wav,from a table,calm\nmore/1.wav,,loud\n")
    with soundfile.SoundFile(folder / "tagged.ogg", "w", RATE, 1, format="OGG", subtype="VORBIS") as file:
        file.genre, file.title = "Ambient", "not a caption"
        file.write(noise(6))
    (folder / "notes.txt").write_text("not beside any audio")
    (folder / "cover.jpg").write_bytes(b"")
    return folder


def rows_of(out) -> list[dict]:
    return [
        row | {"split": split, "clip": clips.clip(index)[0]}
        for split in datasets.get_dataset_split_names(str(out))
        for clips in [AudioClips(out, split, None)]
        for index, row in enumerate(clips.rows)
    ]


def test_a_folder_becomes_clips_with_captions_and_splits(songs, tmp_path):
    summary = build_dataset(songs, tmp_path / "out", limits=SHORT, workers=2)
    assert summary.recordings == 7 and summary.refused == {} and sum(summary.clips.values()) == 6 * 4 + 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "data", "manifest.jsonl"]
    rows = rows_of(tmp_path / "out")
    of = {}
    for row in rows:
        of.setdefault(row["recording"], []).append(row)
    assert sorted(of) == ["0.wav", "2.wav", "4.wav", "more/1.wav", "more/3.wav", "more/5.wav", "tagged.ogg"]
    for name, clips in of.items():
        assert len({clip["split"] for clip in clips}) == 1  # no recording straddles two splits
        if name.endswith(".wav"):
            assert [clip["start_seconds"] for clip in clips] == [0, 1, 2, 3]
            whole = np.concatenate([clip["clip"].numpy() for clip in clips])
            assert np.array_equal(whole * 32768, noise(int(name[-5]), 3.7))
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert of["0.wav"][2]["captions"] == ["a song", "of noise"]
    assert of["2.wav"][0]["captions"] == ["from a table", "calm"] and of["2.wav"][0]["mood"] == "calm"
    assert of["more/1.wav"][0]["captions"] == ["loud", "loud music"]
    assert of["tagged.ogg"][0]["style"] == "Ambient" and of["more/3.wav"][0]["captions"] == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert "25 clips" in card and "| train | " in card and str(tmp_path) not in card


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of files are text elsewhere")
def test_many_clips_fill_shards_in_order_and_any_name_will_do(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "CLIPS_PER_SHARD", 4)
    monkeypatch.setattr(build, "CLIPS_PER_ROW_GROUP", 2)
    (tmp_path / "songs").mkdir()
    whole = noise(0, 9.5)
    for name in (b"\xff\xfe", "'; \n\u202e\N{HEADPHONE}".encode()):
        path = os.path.join(os.fsencode(tmp_path / "songs"), name + b".wav")
        with open(path, "wb") as file:
            file.write(encoded(whole))
        whole = whole[::-1]
    build_dataset(tmp_path / "songs", tmp_path / "out", limits=SHORT, validation_share=0, test_share=0)
    shards = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert shards == [f"train-{shard:05d}-of-00005.parquet" for shard in range(5)]
    rows = rows_of(tmp_path / "out")
    assert [row["start_seconds"] for row in rows] == [*range(10), *range(10)]
    assert rows[19]["recording"] == "??.wav" and len(rows[19]["clip"]) == RATE / 2
    assert np.array_equal(np.concatenate([row["clip"].numpy() for row in rows[10:]]) * 32768, whole)


def choose_splits(lines, validation_share, test_share):
    _choose_splits(lines, {line["sha256"]: line["sha256"] for line in lines}, {}, validation_share, test_share)


def test_recordings_stay_in_their_splits_when_others_come():
    def splits(names: range) -> dict[str, str]:
        lines = [{"sha256": f"{(name * 2654435761) % 2**32:08x}", "split": None} for name in names]
        choose_splits(lines, 0.1, 0.2)
        return {line["sha256"]: line["split"] for line in lines}

    few, many = splits(range(1, 500)), splits(range(1, 1000))
    assert all(many[name] == split for name, split in few.items())
    shares = [list(many.values()).count(split) / len(many) for split in ("validation", "test")]
    assert shares == pytest.approx([0.1, 0.2], abs=0.02)
    lines = [{"sha256": f"{2**32 - 1 - i:08x}", "split": None} for i in range(3)]
    choose_splits(lines, 0.01, 0.01)
    assert [line["split"] for line in lines] == ["train", "validation", "test"]  # each has one at least
    choose_splits(lines, 0.0, 0.0)
    assert [line["split"] for line in lines] == ["train"] * 3
    choose_splits(lines[:1], 0.01, 0.01)
    assert lines[0]["split"] == "train"


@pytest.fixture
def hub_set(tmp_path):
    """A data set with encoded bytes, the path of a file, and rows that hold nothing or nothing good."""
    soundfile.write(tmp_path / "elsewhere.wav", noise(3), RATE)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("in.wav", encoded(noise(4)))
    rows = [
        {"audio": {"bytes": encoded(noise(0)), "path": "a.flac"}, "text": "first", "genre": "jazz"},
        {"audio": {"bytes": encoded(noise(1)), "path": None}, "text": "second", "genre": None},
        {"audio": {"bytes": b"no audio", "path": "../../c.mp3"}, "text": "third", "genre": None},
        {"audio": None, "text": "fourth", "genre": None},
        {"audio": {"bytes": None, "path": str(tmp_path / "elsewhere.wav")}, "text": "fifth", "genre": None},
        {"audio": {"bytes": encoded(noise(0)), "path": "again.flac"}, "text": "first", "genre": "jazz"},
        {"audio": {"bytes": None, "path": f"zip://in.wav::{tmp_path}/all.zip"}, "text": "sixth", "genre": None},
        {"audio": {"bytes": None, "path": f"zip://out.wav::{tmp_path}/all.zip"}, "text": "seventh", "genre": None},
    ]
    features = {"audio": {"bytes": Value("binary"), "path": Value("string")}}
    features |= {"text": Value("string"), "genre": Value("string")}
    dataset = Dataset.from_list(rows, features=Features(features))
    (tmp_path / "set").mkdir()
    dataset.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    typed = dataset.select(range(2)).rename_column("audio", "sound").cast_column("sound", Audio(decode=False))
    (tmp_path / "typed").mkdir()
    typed.to_parquet(tmp_path / "typed" / "train-00000-of-00001.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "saved_splits")
    return tmp_path / "set"


@pytest.mark.parametrize("kind", ["set", "set, streaming", "saved", "saved_splits"])
def test_a_hugging_face_data_set_becomes_clips(hub_set, tmp_path, kind):
    folder, streaming = tmp_path / kind.split(",")[0], "streaming" in kind
    build_dataset(folder, tmp_path / "out", limits=SHORT, streaming=streaming, validation_share=0, test_share=0)
    rows = rows_of(tmp_path / "out")
    assert [row["captions"] for row in rows] == [["first", "jazz"], ["second"], ["fifth"], ["sixth"]]
    for row, seed in zip(rows, (0, 1, 3, 4), strict=True):
        assert np.array_equal(row["clip"].numpy() * 32768, noise(seed))
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == [
        *(None, None, "not_audio", "unreadable", None, "duplicate", None, "unreadable")
    ]
    assert [line["path"] for line in lines] == [
        *("0000000-a.flac", "0000001", "0000002-c.mp3", "0000003", "0000004-elsewhere.wav", "0000005-again.flac"),
        *("0000006-all.zip", "0000007-all.zip"),
    ]


def test_the_command_with_every_flag(songs, tmp_path, capsys):
    flags = ["--clip-seconds", 2, "--min-seconds", 0.5, "--max-seconds", 3.8, "--min-level", -50, "--timeout", 60]
    flags += ["--validation-share", 0.3, "--test-share", 0.2, "--workers", 1, "--max-recordings", 3]
    arguments = ["data", "build", songs, "--out", tmp_path / "out", *flags]
    assert cli.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "refused 0 of 3 recordings" in printed and "hours of music per hour" in printed
    assert len(rows_of(tmp_path / "out")) == 6
    again = ["data", "build", str(songs), "--out", str(tmp_path / "out"), "--min-seconds", "3"]
    assert cli.main(again) == 2 and "holds a data set already" in capsys.readouterr().err
    assert cli.main([*again, "--replace", "--loop-seconds", "3"]) == 0
    assert "refused 1 of 7 recordings: 1 too_short" in capsys.readouterr().out


def test_the_audio_column_is_found_by_its_type(hub_set, tmp_path):
    build_dataset(tmp_path / "typed", tmp_path / "out", limits=SHORT, validation_share=0, test_share=0)
    assert [row["captions"][0] for row in rows_of(tmp_path / "out")] == ["first", "second"]
    dataset = Dataset.from_dict({"text": ["a"]})
    (tmp_path / "silent").mkdir()
    dataset.to_parquet(tmp_path / "silent" / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="no audio column, only text"):
        build_dataset(tmp_path / "silent", tmp_path / "other")


def test_the_command_reads_data_sets_of_any_split(hub_set, tmp_path, capsys):
    (hub_set / "train-00000-of-00001.parquet").rename(hub_set / "test-00000-of-00001.parquet")
    arguments = ["data", "build", hub_set, "--out", tmp_path / "out", "--split", "test", "--streaming"]
    arguments += ["--clip-seconds", 1, "--min-seconds", 1]
    assert cli.main([str(argument) for argument in arguments]) == 0
    assert "refused 4 of 8 recordings: 1 duplicate, 1 not_audio, 2 unreadable" in capsys.readouterr().out


def test_where_the_old_data_set_cannot_be_replaced_both_are_kept(songs, tmp_path, monkeypatch):
    out, replace = tmp_path / "out", os.replace
    build_dataset(songs, out, limits=SHORT, max_recordings=3)
    before = rows_of(out)

    def refuse(source, target):
        if out in (source, target):
            raise OSError("disk trouble")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="could not be renamed to .*out: disk trouble") as error:
        build_dataset(songs, out, limits=SHORT, replace=True)
    monkeypatch.undo()
    assert all(np.array_equal(a["clip"], b["clip"]) for a, b in zip(rows_of(out), before, strict=True))
    new = next(path for path in tmp_path.iterdir() if path.name.startswith(".out.partial"))
    assert str(new) in str(error.value)
    new.rename(tmp_path / "new")
    assert len({row["recording"] for row in rows_of(tmp_path / "new")}) == 7


def test_mistakes_are_named_and_nothing_is_written(songs, tmp_path, capsys):
    other = tmp_path / "precious"
    other.mkdir()
    (other / "diary.txt").write_text("dear diary")
    (tmp_path / "empty").mkdir()
    for source, out, arguments, message in (
        (songs, other, {}, "will not be replaced"),
        (songs, songs / "out", {}, "lies within"),
        (songs, tmp_path / "out", {"test_share": 0.99}, "shares"),
        (songs, tmp_path / "out", {"workers": 0}, "workers"),
        (songs, tmp_path / "out", {"limits": DecodeLimits(max_seconds=3.0, min_seconds=2.0)}, "1 too_short|6 too_long"),
        (tmp_path / "empty", tmp_path / "out", {}, "neither audio files"),
    ):
        with pytest.raises(ValueError, match=message):
            build_dataset(source, out, **arguments)
    (songs / "metadata.csv").write_text("name\n0.wav\n")
    assert cli.main(["data", "build", str(songs), "--out", str(tmp_path / "out")]) == 2
    assert "metadata.csv, row 1" in capsys.readouterr().err
    assert (other / "diary.txt").read_text() == "dear diary" and not (songs / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "precious", "songs"]


def tune(seed: int, seconds: float = 6.0) -> np.ndarray:
    """Eight notes a second, as floats."""
    random, time = np.random.default_rng(seed), np.arange(round(RATE * seconds)) / RATE
    notes = 220 * 2 ** (random.integers(0, 24, int(8 * seconds) + 1) / 12)
    return 0.3 * np.sin(2 * np.pi * np.cumsum(notes[(8 * time).astype(int)]) / RATE) * np.exp(-8 * (time % 0.125))


def splits_of(out) -> dict[str, str]:
    lines = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    return {line["path"]: line["split"] for line in lines}


def test_one_song_as_ogg_and_mp3_is_in_one_split_whatever_its_name(tmp_path):
    (tmp_path / "songs").mkdir()
    for index in range(12):
        soundfile.write(tmp_path / "songs" / f"{index}.ogg", tune(index), RATE, format="OGG", subtype="VORBIS")
        soundfile.write(tmp_path / "songs" / f"renamed{index}.mp3", 0.7 * tune(index), RATE, format="MP3")
    build_dataset(tmp_path / "songs", tmp_path / "out", limits=SHORT, validation_share=0.3, test_share=0.3)
    splits = splits_of(tmp_path / "out")
    assert set(splits.values()) == {"train", "validation", "test"}
    assert all(splits[f"{index}.ogg"] == splits[f"renamed{index}.mp3"] for index in range(12))


def test_other_songs_of_one_length_are_not_taken_for_one(tmp_path, monkeypatch):
    monkeypatch.setattr(outlines_module, "_COMPARED", 3)  # several blocks
    (tmp_path / "songs").mkdir()
    lines, outlines = [], {}
    with Decoder(SHORT) as decoder:
        for index in range(8):
            for suffix, settings in (("wav", {}), ("ogg", {"format": "OGG", "subtype": "VORBIS"})):
                path = tmp_path / "songs" / f"{index}.{suffix}"
                soundfile.write(path, tune(index), RATE, **settings)
                found = decoder.decode(str(path), str(tmp_path / "spool"))
                lines.append(found | {"song": index})
                outlines[found["sha256"]] = np.frombuffer(bytes.fromhex(found["outline"]), np.uint8)
    first = same_music(lines, outlines)
    assert [first[line["sha256"]] for line in lines[::2]] == [first[line["sha256"]] for line in lines[1::2]]
    assert len(set(first.values())) == 8


def test_the_bar_knows_from_the_start_how_many_there_are(songs, tmp_path, capfd):
    build_dataset(songs, tmp_path / "out", limits=SHORT)
    assert "0/7" in capfd.readouterr().err
