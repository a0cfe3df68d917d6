"""Among 200 files are some that are damaged, absurd or hostile: each gets a reason, and the others come through."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile

from melody_diffusers.audio import load_audio
from melody_diffusers.data.datasets import AudioClips

if os.name == "nt":
    pytest.skip("the folder holds pipes and links", allow_module_level=True)

NUM_FILES = 200
RATE = 24000

BUILD = """
import json, re, sys
from pathlib import Path
from melody_diffusers.data import decoding
from melody_diffusers.data.build import build_dataset

def megabytes(process):  # at most so far; getrusage would count what was there before the program was loaded
    status = Path(f"/proc/{process}/status")
    return int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) / 1024 if status.exists() else 0.0

of_children = []
close = decoding.Decoder.close

def close_and_note(self):
    if self._process is not None:
        of_children.append(megabytes(self._process.pid))
    close(self)

decoding.Decoder.close = close_and_note
source, out, workers = sys.argv[1:]
limits = decoding.DecodeLimits(clip_seconds=1.0, min_seconds=0.5, max_seconds=30.0, timeout_seconds=60.0)
before = megabytes("self")
summary = build_dataset(source, out, limits=limits, workers=int(workers))
grown = megabytes("self") - before
print(json.dumps({"grown": grown, "children": of_children, "refused": summary.refused}))
"""


def noise(seconds: float = 1.0, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * rate), channels))
    return np.concatenate([samples[:-1], np.full((1, channels), 0.5)])


def encoded(samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def spoilt(content: bytes, at: float = 0.5, num_bytes: int = 2000) -> bytes:
    start = int(len(content) * at)
    return content[:start] + np.random.default_rng(1).bytes(num_bytes) + content[start + num_bytes :]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(10_000_000))
    return buffer.getvalue()


def flac_without_length(seconds: float) -> bytes:
    content = bytearray(encoded(noise(seconds), format="FLAC"))
    content[21] &= 0xF0  # the number of samples: 36 bits in the first block of metadata
    content[22:26] = bytes(4)
    return bytes(content)


def with_sample(value: float) -> np.ndarray:
    samples = noise()
    samples[12345] = value
    return samples


def hostile_files() -> dict[str, tuple[str, bytes]]:
    """name -> reason, content."""
    wav, flac, mp3, ogg = (encoded(noise(), format=name) for name in ("WAV", "FLAC", "MP3", "OGG"))
    return {
        "text.wav": ("not_audio", b"this is no music\n" * 100),
        "nothing.wav": ("not_audio", b""),
        "zeros.wav": ("not_audio", bytes(10_000)),
        "zip.wav": ("not_audio", zip_bomb()),
        "zip.flac": ("not_audio", zip_bomb()),
        "riff_alone.wav": ("not_audio", wav[:4]),
        "picture.mp3": ("corrupt", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20),
        "video.m4a": ("corrupt", b"\0\0\0\x20ftypM4A " + bytes(2000)),
        "header_alone.flac": ("truncated", flac[:42]),
        "half.flac": ("corrupt", half(flac)),
        "spoilt.flac": ("corrupt", spoilt(flac)),
        "no_length.flac": ("too_long", flac_without_length(31.0)),
        "spoilt_header.wav": ("corrupt", wav[:20] + b"\xff" * 16 + wav[36:]),
        "half.wav": ("truncated", half(wav)),
        "half.mp3": ("truncated", half(mp3)),
        "half.ogg": ("truncated", half(ogg)),
        "half.aiff": ("truncated", half(encoded(noise(), format="AIFF"))),
        "half.au": ("truncated", half(encoded(noise(), format="AU"))),
        "half_under_another_name.mp3": ("truncated", half(wav)),
        "no_samples.wav": ("too_short", encoded(noise()[:0])),
        "one_sample.wav": ("too_short", encoded(noise()[:1])),
        "short.ogg": ("too_short", encoded(noise(0.3), format="OGG")),
        "long.wav": ("too_long", encoded(noise(31.0, 8000), 8000, subtype="PCM_U8")),
        "nan.wav": ("not_finite", encoded(with_sample(np.nan), subtype="FLOAT")),
        "infinite.wav": ("not_finite", encoded(with_sample(-np.inf), subtype="DOUBLE")),
        "beyond_float.wav": ("not_finite", encoded(with_sample(1e300), subtype="DOUBLE")),
        "huge.wav": ("out_of_range", encoded(with_sample(1e29), subtype="FLOAT")),
        "silence.wav": ("silent", encoded(np.zeros(RATE))),
        "quiet.wav": ("silent", encoded(1e-4 * noise(), subtype="FLOAT")),
        "cancelling.wav": ("silent", encoded(noise() * [1, -1], subtype="FLOAT")),
        "seven_hertz.wav": ("bad_rate", encoded(noise(), 7)),
        "megahertz.wav": ("bad_rate", encoded(noise(), 1_000_000)),
        "1024_channels.wav": ("too_many_channels", encoded(np.zeros((100, 1024)))),
        "nine_channels.flac.wav": ("too_many_channels", encoded(noise(channels=9))),
        "bomb.flac": ("too_large", encoded(np.zeros(25_000_000, np.int16), 48000, "FLAC")),
        "z_copy_of_good_000.wav": ("duplicate", b""),
        "described_badly.wav": ("bad_caption", encoded(noise(seed=2))),
        "folder.wav": ("not_a_file", b""),
        "pipe.wav": ("not_a_file", b""),
        "link_to_parent.wav": ("not_a_file", b""),
        "link_to_itself.wav": ("unreadable", b""),
        "link_to_nowhere.flac": ("unreadable", b""),
    }


GOOD = [  # of all kinds: suffix, rate, channels, and the encoding
    (".wav", RATE, 1, "WAV", "PCM_16"),
    (".wav", RATE, 1, "WAV", "PCM_U8"),
    (".wav", RATE, 1, "WAV", "PCM_24"),
    (".WAV", RATE, 1, "WAV", "DOUBLE"),
    (".flac", RATE, 1, "FLAC", "PCM_16"),
    (".wav", RATE, 2, "WAV", "PCM_16"),
    (".wav", 192_000, 2, "WAV", "PCM_24"),
    (".flac", 44_100, 2, "FLAC", "PCM_24"),
    (".wav", 8_000, 8, "WAV", "FLOAT"),
    (".mp3", 44_100, 2, "MP3", None),
    (".ogg", 48_000, 1, "OGG", "VORBIS"),
    (".ogg", 48_000, 2, "OGG", "OPUS"),
    (".aiff", 22_050, 1, "AIFF", "PCM_16"),
    (".wav", 32_000, 1, "FLAC", "PCM_16"),  # the content decides
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "music"
    (folder / "deeper").mkdir(parents=True)
    hostile = hostile_files()
    for index in range(NUM_FILES - len(hostile)):
        suffix, rate, channels, format, subtype = GOOD[index % len(GOOD)]
        content = encoded(noise(1.0, rate, channels, seed=100 + index), rate, format, subtype)
        (folder / ("deeper" if index % 3 == 1 else "") / f"good_{index:03d}{suffix}").write_bytes(content)
    for name, (_, content) in hostile.items():
        path = folder / name
        if name == "folder.wav":
            path.mkdir()
        elif name == "pipe.wav":
            os.mkfifo(path)
        elif name.startswith("link_to"):
            path.symlink_to({"parent": "..", "itself": name, "nowhere": "nowhere"}[name.split("_")[2].split(".")[0]])
        elif name.startswith("z_copy"):
            path.write_bytes((folder / "good_000.wav").read_bytes())
        else:
            path.write_bytes(content)
    (folder / "described_badly.json").write_text("{" * 100_000)
    return folder


def build(source, out, workers: int) -> dict:
    run = subprocess.run(
        [sys.executable, "-c", BUILD, str(source), str(out), str(workers)], capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    assert "libmpg123" not in run.stderr  # what decoders say of damaged files stays in the child
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "music"
    return out, build(source, out, workers=2)


def lines_of(out) -> dict[str, dict]:
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == sorted(line["path"] for line in lines)
    return {line["path"]: line for line in lines}


def test_each_hostile_file_gets_its_reason_and_no_other_file_gets_one(built):
    out, figures = built
    lines, hostile = lines_of(out), hostile_files()
    assert len(hostile) >= 32 and len(lines) == NUM_FILES
    assert {path: line["reason"] for path, line in lines.items() if line["reason"] is not None} == {
        name: reason for name, (reason, _) in hostile.items()
    }
    assert sum(figures["refused"].values()) == len(hostile)
    for line in lines.values():
        assert (line["reason"] is None) == (line["detail"] is None) == (line["split"] is not None)
        assert str(out.parent) not in json.dumps(line)  # no path of this machine


def test_memory_stays_bounded(built):
    _, figures = built
    assert figures["grown"] <= 256 and len(figures["children"]) == 2, figures  # no child had to be replaced
    assert max(figures["children"]) <= 256, figures


def test_what_is_accepted_is_what_was_recorded(source, built):
    out, _ = built
    lines, seen = lines_of(out), set()
    for split in ("train", "validation", "test"):
        clips = AudioClips(out, split, None)
        for index, row in enumerate(clips.rows):
            line = lines[row["recording"]]
            assert line["split"] == split and line["clips"] == 1
            given = (load_audio(source / row["recording"]) * 32768).round().clamp(-32768, 32767)
            stored = clips.clip(index) * 32768
            assert stored.shape[-1] == RATE
            tolerance = 0 if line["rate"] == RATE else 2  # resampled in blocks rather than at once
            assert (given - stored).abs().max() <= tolerance, line
            seen.add(row["recording"])
    assert seen == {path for path, line in lines.items() if line["reason"] is None}


def test_the_same_folder_gives_the_same_bytes_whatever_the_number_of_workers(source, built, tmp_path):
    out, _ = built
    build(source, tmp_path / "music", workers=1)
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(tmp_path / "music").as_posix() for path in (tmp_path / "music").rglob("*") if path.is_file()
    )
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "music" / name).read_bytes(), name
