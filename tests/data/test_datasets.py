import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from datasets import Array2D, Audio, Features, List, Value
from torch.utils.data import DataLoader

from melody_diffusers.audio import load_audio
from melody_diffusers.data import datasets as datasets_module
from melody_diffusers.data.datasets import AudioClips, EncodedClips, tags_of
from melody_diffusers.timebase import Timebase

FEATURES = Features(
    {
        "audio": {"bytes": Value("binary"), "path": Value("string")},
        "captions": List(Value("string")),
        "style": Value("string"),
        "key": Value("string"),
        "mode_word": Value("string"),
        "bpm": Value("int32"),
        "instruments": List(Value("string")),
    }
)


def flac(samples: np.ndarray, sample_rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips that count up from 0, so that a crop tells where it starts; the last one is short and at another rate."""
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    (folder / "data").mkdir(parents=True)
    rows = [
        {
            "audio": {"bytes": flac(np.arange(4000, dtype=np.int16) + 100 * i, 8000), "path": f"{i}.flac"},
            "captions": [f"caption {i} a", f"caption {i} b"],
            "style": "house",
            "key": "C",
            "mode_word": "minor",
            "bpm": 120,
            "instruments": ["piano", "bass"],
        }
        for i in range(4)
    ]
    rows.append(rows[0] | {"audio": {"bytes": flac(np.zeros(4000, np.int16), 16000), "path": "4.flac"}, "captions": []})
    for split in ("train", "test_font"):
        dataset = datasets.Dataset.from_list(rows, features=FEATURES).cast_column("audio", Audio(sampling_rate=8000))
        dataset.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_crops_are_stretches_of_the_clip_and_follow_the_epoch(folder):
    clips = AudioClips(folder, "train", 0.1, sample_rate=8000)
    starts = set()
    for epoch in range(20):
        clips.set_epoch(epoch)
        crop = clips[1]["waveform"]
        assert crop.shape == (1, 800)
        counts = (crop[0] * 32768).int() - 100
        assert torch.equal(counts, torch.arange(800, dtype=torch.int32) + counts[0])
        assert torch.equal(crop, clips[1]["waveform"])
        starts.add(int(counts[0]))
    assert len(starts) > 15 and min(starts) >= 0 and max(starts) <= 3200
    assert not torch.equal(AudioClips(folder, "train", 0.1, 8000, seed=1)[1]["waveform"], clips[1]["waveform"])


def test_preloaded_clips_equal_decoded_ones_and_share_one_file(folder):
    one, two = AudioClips(folder, "test_font", 0.1, 8000), AudioClips(folder, "test_font", 0.1, 8000)
    decoded = AudioClips(folder, "test_font", 0.1, 8000, preload=False)
    for index in range(len(one)):
        for other in (two, decoded):
            assert torch.equal(one.clip(index), other.clip(index))
            assert torch.equal(one[index]["waveform"], other[index]["waveform"])
            assert one[index]["caption"] == other[index]["caption"]
    assert one._samples.filename == two._samples.filename
    cache = folder.parent / ".cache"
    assert not [path for path in cache.iterdir() if "tmp" in path.name]
    assert one.clip(4).shape == (1, 2000)  # 16 kHz became 8 kHz
    assert AudioClips(folder, "train", 0.1, 4000).clip(0).shape == (1, 2000)


def test_short_clips_are_repeated_and_whole_clips_are_whole(folder):
    long = AudioClips(folder, "train", 1.0, 8000)[1]["waveform"]
    assert long.shape == (1, 8000) and torch.equal(long[0, 4000:], long[0, :4000])
    assert long[0, 3999] == (3999 + 100) / 32768
    whole = AudioClips(folder, "train", None, 8000)
    assert [whole[index]["waveform"].shape[-1] for index in range(5)] == [4000] * 4 + [2000]
    assert len(list(whole)) == 5


def test_captions_are_drawn_among_captions_and_tags(folder):
    clips = AudioClips(folder, "train", 0.1, 8000, tag_share=0.5)
    drawn = []
    for epoch in range(200):
        clips.set_epoch(epoch)
        drawn.append(clips[2]["caption"])
    tags = [text for text in drawn if "house" in text]
    assert 70 < len(tags) < 130 and {"caption 2 a", "caption 2 b"} == set(drawn) - set(tags)
    assert {tuple(sorted(text.split(", "))) for text in tags} == {("120 bpm", "C minor", "bass", "house", "piano")}
    assert "house" in AudioClips(folder, "train", 0.1, 8000, tag_share=0.0)[4]["caption"]  # a clip without captions
    assert "caption" in AudioClips(folder, "train", 0.1, 8000, tag_share=0.0)[0]["caption"]
    assert tags_of({"style": None, "instruments": [], "mood": "calm"}) == ["calm"]


def test_a_loader_stacks_clips(folder):
    batch = next(iter(DataLoader(AudioClips(folder, "train", 0.1, 8000), batch_size=3, num_workers=1)))
    assert batch["waveform"].shape == (3, 1, 800) and len(batch["caption"]) == 3
    assert batch["index"].tolist() == [0, 1, 2]


def test_what_the_folder_lacks_is_named(folder):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        AudioClips("nowhere", "train", 1.0)
    with pytest.raises(ValueError, match="nosplit"):
        AudioClips(folder, "nosplit", 1.0)
    with pytest.raises(ValueError, match="crop_seconds"):
        AudioClips(folder, "train", 0.0)


def test_a_few_clips_that_cannot_be_decoded_are_left_out_and_noted(tmp_path):
    def write(num_bad: int, name: str):
        rows = [{"audio": {"bytes": flac(np.full(80, i, np.int16), 8000), "path": None}} for i in range(200)]
        for i in range(num_bad):
            rows[10 + i]["audio"]["bytes"] = b"spoilt" * 10
        rows = [row | {"captions": [f"caption {i}"]} for i, row in enumerate(rows)]
        (tmp_path / name).mkdir()
        features = Features({"audio": FEATURES["audio"], "captions": FEATURES["captions"]})
        dataset = datasets.Dataset.from_list(rows, features=features).cast_column("audio", Audio())
        dataset.to_parquet(tmp_path / name / "train-00000-of-00001.parquet")
        return tmp_path / name

    few, many = write(2, "few"), write(3, "many")
    for _ in range(2):  # decoded, and from the cache
        clips = AudioClips(few, "train", None, 8000)
        assert len(clips) == len(clips.rows) == len(clips._dataset) == 198
        for index, truth in ((0, 0), (9, 9), (10, 12), (197, 199)):
            item = clips[index]
            assert item["caption"] == f"caption {truth}" and item["waveform"].shape == (1, 80)
            assert (item["waveform"] * 32768 == truth).all()
    notes = [json.loads(line) for line in (tmp_path / ".cache" / "quarantine.jsonl").read_text().splitlines()]
    assert [(note["folder"], note["split"], note["row"]) for note in notes] == [("few", "train", i) for i in (10, 11)]
    lazy = AudioClips(few, "train", None, 8000, preload=False)
    assert [lazy[index]["index"] for index in (9, 10, 11, 12, 10)] == [9, 12, 12, 12, 12]
    assert lazy[10]["caption"] == "caption 12"
    with pytest.raises(ValueError, match="3 of 200 clips of train in .*many cannot be decoded.*row 10"):
        AudioClips(many, "train", None, 8000)
    lazy = AudioClips(many, "train", None, 8000, preload=False)
    with pytest.raises(ValueError, match="3 of 200"):
        lazy[10]


@pytest.fixture
def own_folder(folder, tmp_path):
    """A copy of the data set that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "mine" / "set"))


def test_a_killed_process_holds_nobody_up_and_outdated_samples_go(own_folder):
    cache = own_folder.parent / ".cache"
    for split, rate in (("train", 8000), ("train", 4000), ("test_font", 8000)):
        AudioClips(own_folder, split, None, rate)
    before = {path.name for path in cache.iterdir()}
    assert len(before) == 9
    code = "import filelock, sys; filelock.FileLock(sys.argv[1]).acquire(); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(cache / "set-train-8000.lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    left = cache / f"set-train-8000-{'0' * 24}.tmp"
    left.write_bytes(bytes(10))
    (cache / "set-train-8000-notes.i16").write_bytes(b"somebody else's")
    holder.kill()
    holder.communicate()
    os.utime(own_folder / "data" / "train-00000-of-00001.parquet", (1, 1))
    one, two = AudioClips(own_folder, "train", None, 8000), AudioClips(own_folder, "train", None, 8000)
    assert torch.equal(one.clip(1), two.clip(1))
    after = {path.name for path in cache.iterdir()}
    assert len(after) == 10 and not left.exists() and "set-train-8000-notes.i16" in after
    changed = {name for name in before - after}
    assert len(changed) == 2 and all(name.startswith("set-train-8000-") for name in changed)


def test_where_nothing_can_be_written_samples_and_notes_go_to_the_users_cache(own_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (own_folder.parent / ".cache").write_text("a file in its place, which stops root as well")
    clips = AudioClips(own_folder, "train", None, 8000)
    assert clips.clip(0).shape == (1, 4000)
    clips._bad = set()
    with pytest.raises(ValueError, match="more than one in a hundred"):
        clips._quarantine(2, ValueError("spoilt"))
    (place,) = (tmp_path / "home" / "melody_diffusers").iterdir()
    assert sorted(path.suffix for path in place.iterdir()) == [".i16", ".jsonl", ".lock", ".npy"]
    assert json.loads((place / "quarantine.jsonl").read_text())["row"] == 2


def test_bytes_survive_the_trip_through_parquet(folder):
    stored = AudioClips(folder, "train", None, 8000)._dataset[3]["audio"]["bytes"]
    assert torch.equal(load_audio(stored, 8000), (torch.arange(4000.0)[None] + 300) / 32768)


ENCODED_FEATURES = Features(
    {
        "latents": Array2D((None, 3), "float16"),
        "semantic_tokens": List(Value("int32")),
        "mulan_tokens_audio": List(List(Value("int32"))),
        "mulan_tokens_text": List(List(Value("int32"))),
        "style": Value("string"),
    }
)


def write_encoded(folder, rows: list[dict], hop_samples: int) -> None:
    datasets.Dataset.from_list(rows, features=ENCODED_FEATURES).save_to_disk(folder / "train")
    rates = {"sample_rate": 24000, "hop_samples": hop_samples, "token_rate": 25}
    settings = {"timebase": rates, "window_seconds": 10.0, "window_stride_seconds": 2.5}
    (folder / "encoding.json").write_text(json.dumps(settings))


@pytest.fixture
def encoded(tmp_path):
    """Codes that count: frame i of clip c is i / 1024 in every channel, token t is t, window w says w."""
    rows = [
        {
            "latents": np.repeat(np.arange(1250)[:, None] / 1024, 3, axis=1).astype(np.float16),
            "semantic_tokens": list(range(500)),
            "mulan_tokens_audio": [[w, clip] for w in range(5)],
            "mulan_tokens_text": [[100 + k, clip] for k in range(2)] if clip < 2 else [],
            "style": "waltz",
        }
        for clip in range(3)
    ]
    write_encoded(tmp_path, rows, hop_samples=384)  # 2.5 frames to a token
    return tmp_path


def test_encoded_crops_are_aligned(encoded):
    clips = EncodedClips(encoded, "train", num_tokens=250, text_share=0.0)
    starts, windows = set(), {}
    for epoch in range(60):
        clips.set_epoch(epoch)
        item = clips[1]
        assert item["latents"].shape == (625, 3) and item["latents"].dtype == torch.float32
        assert item["semantic_tokens"].shape == (250,) and item["semantic_tokens"].dtype == torch.int64
        start = int(item["semantic_tokens"][0])
        assert start % 2 == 0 and item["semantic_tokens"].tolist() == list(range(start, start + 250))
        frame = start * 5 // 2
        truth = (torch.arange(frame, frame + 625) / 1024).half().float()[:, None].expand(-1, 3)
        assert torch.equal(item["latents"], truth)
        assert item["mulan_tokens"][1] == 1
        windows[start] = int(item["mulan_tokens"][0])
        starts.add(start)
    assert len(starts) > 40 and 0 <= min(starts) and max(starts) <= 250
    for start, window in windows.items():  # the window of the same length whose start is nearest
        assert abs(start / 25 - 2.5 * window) <= 1.25 + 1e-9


def test_conditions_come_from_captions_as_often_as_asked(encoded):
    clips = EncodedClips(encoded, "train", num_tokens=10, text_share=0.5)
    texts = 0
    for epoch in range(200):
        clips.set_epoch(epoch)
        texts += int(clips[0]["mulan_tokens"][0] >= 100)
        assert clips[2]["mulan_tokens"][0] < 100  # no captions: always audio
    assert 70 < texts < 130
    assert EncodedClips(encoded, "train", None)[0]["latents"].shape == (1250, 3)
    assert clips.rows[0] == {"style": "waltz"} and len(list(clips)) == 3
    batch = next(iter(DataLoader(clips, batch_size=3)))
    assert batch["latents"].shape == (3, 25, 3) and batch["mulan_tokens"].shape == (3, 2)


@pytest.mark.parametrize("hop_samples", [96, 384, 480])
def test_crops_of_clips_of_any_length_have_the_frames_of_their_tokens(tmp_path, hop_samples):
    timebase, rows = Timebase(24000, hop_samples, 25), []
    for left in (0, 1, hop_samples, 480, 481, 959):  # samples of the last token that the clip holds
        num_samples = 14 * 960 + left
        frames = np.arange(timebase.samples_to_frames(num_samples)) / 1024
        rows.append(
            {
                "latents": np.repeat(frames[:, None], 3, axis=1).astype(np.float16),
                "semantic_tokens": list(range(timebase.samples_to_tokens(num_samples))),
                "mulan_tokens_audio": [[0]],
                "mulan_tokens_text": [],
                "style": None,
            }
        )
    write_encoded(tmp_path, rows, hop_samples)
    clips, last = EncodedClips(tmp_path, "train", num_tokens=10), set()
    for epoch in range(40):
        clips.set_epoch(epoch)
        batch = next(iter(DataLoader(clips, batch_size=len(rows))))
        assert batch["latents"].shape == (len(rows), timebase.tokens_to_frames(10), 3)
        for tokens, latents in zip(batch["semantic_tokens"], batch["latents"], strict=True):
            assert round(float(latents[0, 0]) * 1024) * hop_samples == int(tokens[0]) * 960
            last.add(int(tokens[-1]))
    # a 15th token is used where all its frames are there, if a crop may end after it
    assert max(last) == (13 if timebase.token_alignment == 2 else 14)
    assert [len(item["semantic_tokens"]) for item in EncodedClips(tmp_path, "train", None)][:2] == [14, 14]
    with pytest.raises(ValueError, match="from 1 to 14 "):
        EncodedClips(tmp_path, "train", num_tokens=16)


@pytest.mark.parametrize("num_tokens", [0, 3, 502])
def test_crops_that_cannot_be_are_refused(encoded, num_tokens):
    with pytest.raises(ValueError, match=f"multiple of 2 from 1 to 500.*got {num_tokens}"):
        EncodedClips(encoded, "train", num_tokens)


def test_encoded_clips_are_not_sent_to_each_worker_and_workers_give_the_same(encoded):
    clips = EncodedClips(encoded, "train", num_tokens=250)
    clips.set_epoch(3)
    assert len(pickle.dumps(clips)) < 2_000 < clips[0]["latents"].nbytes
    loader = DataLoader(clips, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for item, alone in zip(loader, clips, strict=True):
        assert item["index"] == alone["index"] and all(
            torch.equal(item[name], alone[name]) for name in ("latents", "semantic_tokens", "mulan_tokens")
        )


def test_a_missing_split_is_named(encoded):
    with pytest.raises(FileNotFoundError, match="'test'"):
        EncodedClips(encoded, "test", 10)


def test_of_several_processes_one_decodes_and_what_is_outdated_goes(own_folder, monkeypatch):
    own, cache, decoded = own_folder, own_folder.parent / ".cache", []
    load = datasets_module.load_audio
    monkeypatch.setattr(datasets_module, "load_audio", lambda *a: time.sleep(0.01) or decoded.append(1) or load(*a))
    with ThreadPoolExecutor(4) as threads:  # each opens the lock for itself, as a process would
        together = list(threads.map(lambda _: AudioClips(own, "train", None, 8000), range(4)))
    assert len(decoded) == len(together[0]) and all(torch.equal(c.clip(1), together[0].clip(1)) for c in together)
    cached = {file.name for file in cache.glob("set-train-*.i16")}
    (own / "notes.txt").write_text("the data has changed")
    AudioClips(own, "train", None, 8000)
    AudioClips(own, "test_font", None, 8000)
    after = {file.name for file in cache.glob("set-train-*.i16")}
    assert len(cached) == len(after) == 1 and cached != after
    assert len(list(cache.glob("*.i16"))) == 2  # the other split's stays


@pytest.mark.skipif(os.name != "posix", reason="names a file as a folder")
def test_a_read_only_cache_of_the_datasets_library_does_not_end_it(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "data", tmp_path / "set" / "data")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/dev/null/cache")
    assert len(AudioClips(tmp_path / "set", "train", 0.1, 8000)) == 5
    assert datasets_module.read_folder(datasets.get_dataset_split_names, tmp_path / "set") == ["train", "test_font"]
    assert (tmp_path / ".cache" / "datasets").is_dir()
