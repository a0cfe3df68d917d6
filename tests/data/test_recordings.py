import json
import os

import numpy as np
import pytest
import soundfile

from melody_diffusers.data.build import build_dataset
from melody_diffusers.data.decoding import DecodeLimits
from melody_diffusers.data.recordings import FolderReading, read_folder


def write_tone(path, seconds: float, sample_rate: int, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * sample_rate)) / sample_rate)
    soundfile.write(path, np.stack([tone] * channels, axis=1), sample_rate)


def read(folder, spools) -> FolderReading:
    spools.mkdir(exist_ok=True)
    return read_folder(folder, DecodeLimits(clip_seconds=1.0, min_seconds=0.5), spools)


def test_every_format_rate_and_number_of_channels_becomes_mono_clips(tmp_path):
    songs = tmp_path / "songs"
    write_tone(songs / "a.wav", 2.5, 44100, channels=2)
    write_tone(songs / "b.flac", 1.0, 24000)
    write_tone(songs / "more" / "c.mp3", 1.5, 32000)
    write_tone(songs / "more" / "D.OGG", 1.2, 48000, channels=2)
    (songs / "b.txt").write_text("a calm tone\n")
    (songs / "._a.wav").write_bytes(b"what a file system noted")
    (songs / "notes.md").write_text("not audio")
    reading = read(songs, tmp_path / "spools")
    assert str(reading) == "used 4 of 4 files (7 clips, 1 with captions or tags)"
    assert [(found.name, found.row["captions"]) for found in reading.accepted] == [
        ("a.wav", []),
        ("b.flac", ["a calm tone"]),
        ("more/D.OGG", []),
        ("more/c.mp3", []),
    ]
    clips = [clip for found in reading.accepted for clip in found.waveforms(24000)]
    assert [clip.shape[-1] for clip in clips][:5] == [24000, 24000, 12000, 24000, 24000] and len(clips) == 7
    for clip in clips:
        spectrum = np.abs(np.fft.rfft(clip[0].numpy()))
        assert clip.shape[0] == 1 and abs(spectrum.argmax() * 24000 / clip.shape[-1] - 440) < 2


def test_bad_files_are_named_with_their_reasons_and_the_others_are_used(tmp_path):
    songs = tmp_path / "songs"
    write_tone(songs / "good.wav", 1.0, 24000)
    write_tone(songs / "kick.wav", 0.4, 24000)
    write_tone(songs / "odd.wav", 1.0, 24000)
    (songs / "odd.json").write_text("{")
    (songs / "again.wav").write_bytes((songs / "good.wav").read_bytes())
    (songs / "broken.flac").write_bytes(b"fLaC")
    (songs / "bought.m4a").write_bytes(b"no audio")
    os.symlink(songs / "nowhere", songs / "lost.wav")
    reading = read(songs, tmp_path / "spools")
    assert [found.name for found in reading.accepted] == ["again.wav"]
    reasons = {name: reason for name, reason, _ in reading.refused}
    assert {name: reasons[name] for name in ("good.wav", "kick.wav", "odd.wav", "lost.wav")} == {
        "good.wav": "duplicate",
        "kick.wav": "too_short",
        "odd.wav": "bad_caption",
        "lost.wav": "unreadable",
    }
    assert {"broken.flac", "bought.m4a"} < reasons.keys()
    assert "used 1 of 7 files (1 clips, 0 with captions or tags); refused 6: " in str(reading)
    assert "1 too_short (kick.wav: 0.40 s; the least is 0.5 s: join several, or repeat it)" in str(reading)


def test_a_folder_is_read_as_melody_data_build_reads_it(tmp_path):
    songs = tmp_path / "songs"
    for name, seconds in {"a.wav": 2.5, "short.wav": 0.2, "b.wav": 1.0}.items():
        write_tone(songs / name, seconds, 24000)
    (songs / "c.wav").write_bytes(b"RIFF")
    (songs / "metadata.csv").write_text("file,description,genre\na.wav,a tone,(26)\n")
    reading = read(songs, tmp_path / "spools")
    build_dataset(songs, tmp_path / "set", limits=DecodeLimits(clip_seconds=1.0, min_seconds=0.5))
    lines = [json.loads(line) for line in (tmp_path / "set" / "manifest.jsonl").read_text().splitlines()]
    assert reading.refused == [(line["path"], line["reason"], line["detail"]) for line in lines if line["reason"]]
    built = read(tmp_path / "set", tmp_path / "more spools")  # the data set folder itself
    assert {found.split for found in built.accepted} == {"train", "validation", "test"}
    for found in reading.accepted:
        parts = [part for part in built.accepted if part.name == found.name]
        parts.sort(key=lambda part: part.clips[0][1])
        assert found.clips == [clip for part in parts for clip in part.clips]
        assert all(part.row == found.row and part.sha256.split("-")[0] == found.sha256 for part in parts)
        same = [clip for part in parts for clip in part.waveforms(24000)]
        assert all(np.array_equal(*pair) for pair in zip(found.waveforms(24000), same, strict=True))
    assert reading.accepted[0].row["captions"] == ["a tone", "Ambient"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere", tmp_path / "spools")
    (tmp_path / "songs").mkdir()
    with pytest.raises(ValueError, match="holds no recording that can be used: it has no files that end in .wav"):
        read(tmp_path / "songs", tmp_path / "spools")
    write_tone(tmp_path / "songs" / "short.wav", 0.4, 24000)
    with pytest.raises(ValueError, match="used 0 of 1 files .* 1 too_short .short.wav: 0.40 s; the least is 0.5 s"):
        read(tmp_path / "songs", tmp_path / "spools")
