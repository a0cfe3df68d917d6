import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melody_diffusers.data.decoding import REASONS, DecodeLimits, Decoder

posix = pytest.mark.skipif(not hasattr(os, "WUNTRACED"), reason="needs POSIX signals")


def write_noise(path, seconds: float, rate: int = 8000) -> str:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate))
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return str(path)


def test_a_recording_is_cut_into_clips_and_what_remains_is_one_if_it_is_long_enough(tmp_path):
    limits = DecodeLimits(sample_rate=8000, clip_seconds=2.0, min_seconds=0.5)
    samples = np.round(np.random.default_rng(0).uniform(-1, 1, 8000 * 10) * 32767).astype(np.int16)
    samples[2 * 16000 : 3 * 16000] = 0  # the third clip is silent
    with Decoder(limits) as decoder:
        for seconds, starts in ((9.5, [0.0, 2.0, 6.0, 8.0]), (8.4, [0.0, 2.0, 6.0]), (0.5, [0.0])):
            cut = samples[: round(seconds * 8000)]
            soundfile.write(tmp_path / "a.flac", cut, 8000)
            found = decoder.decode(str(tmp_path / "a.flac"), str(tmp_path / "spool"))
            assert found["reason"] is None and found["seconds"] == seconds
            assert [start for _, start, _ in found["clips"]] == starts
            with open(tmp_path / "spool", "rb") as spool:
                for num_bytes, start, length in found["clips"]:
                    (tmp_path / "clip.flac").write_bytes(spool.read(num_bytes))
                    clip = soundfile.read(tmp_path / "clip.flac", dtype="int16")[0]
                    first = round(start * 8000)
                    assert np.array_equal(clip, cut[first : first + 16000]) and len(clip) == length * 8000


def test_a_resampled_recording_keeps_its_length(tmp_path):
    with Decoder(DecodeLimits(clip_seconds=1.0, min_seconds=1.0)) as decoder:
        for rate in (8000, 11025, 44100, 48000, 192000):
            found = decoder.decode(write_noise(tmp_path / "a.wav", 1.0, rate), str(tmp_path / "spool"))
            assert found["reason"] is None and found["clips"][0][2] == 1.0


def test_an_mp3_is_decoded_as_in_one_read(tmp_path):
    random, seconds = np.random.default_rng(0), np.arange(24000 * 6) / 24000
    soundfile.write(
        tmp_path / "a.mp3", 0.3 * np.sin(2764.6 * seconds) + random.normal(0, 0.05, len(seconds)), 24000, format="MP3"
    )
    with Decoder(DecodeLimits(min_seconds=0.5)) as decoder:
        found = decoder.decode(str(tmp_path / "a.mp3"), str(tmp_path / "clip.flac"))
    assert found["reason"] is None and len(found["clips"]) == 1
    whole = soundfile.SoundFile(tmp_path / "a.mp3").read(dtype="float32")
    clip = soundfile.read(tmp_path / "clip.flac", dtype="float32")[0]
    assert clip.shape == whole.shape and np.abs(clip - whole).max() <= 0.5001 / 32768


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_file_that_was_written_to_a_pipe_is_whole(tmp_path, size):
    content = bytearray(Path(write_noise(tmp_path / "a.wav", 1.0)).read_bytes())
    content[4:8] = content[40:44] = size.to_bytes(4, "little")  # nobody knew the length when the header was written
    (tmp_path / "a.wav").write_bytes(content)
    with Decoder(DecodeLimits(min_seconds=0.5)) as decoder:
        found = decoder.decode(str(tmp_path / "a.wav"), str(tmp_path / "spool"))
    assert found["reason"] is None and found["seconds"] == 1.0


def test_slow_files_are_given_up_and_the_next_one_is_decoded(tmp_path):
    long, short = write_noise(tmp_path / "long.wav", 600), write_noise(tmp_path / "short.wav", 1.0)
    with Decoder(DecodeLimits(min_seconds=0.5, timeout_seconds=0.05)) as decoder:
        assert decoder.decode(long, str(tmp_path / "spool"))["reason"] == "timeout"
    with Decoder(DecodeLimits(min_seconds=0.5)) as decoder:
        assert decoder.decode(short, str(tmp_path / "spool"))["reason"] is None


@posix
def test_a_child_that_dies_costs_one_file(tmp_path):
    import signal

    long, short = write_noise(tmp_path / "long.wav", 1200), write_noise(tmp_path / "short.wav", 1.0)
    with Decoder(DecodeLimits(min_seconds=0.5)) as decoder:
        assert decoder.decode(short, str(tmp_path / "spool"))["reason"] is None
        child = decoder._process.pid
        threading.Timer(0.05, os.kill, (child, signal.SIGSEGV)).start()
        found = decoder.decode(long, str(tmp_path / "spool"))
        assert found["reason"] == "crashed" and found["detail"] == f"exit code {-signal.SIGSEGV}"
        assert decoder.decode(short, str(tmp_path / "spool"))["reason"] is None
        os.kill(decoder._process.pid, signal.SIGKILL)  # between two files
        time.sleep(0.2)
        assert decoder.decode(short, str(tmp_path / "spool"))["reason"] == "crashed"
        assert decoder.decode(short, str(tmp_path / "spool"))["reason"] is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_disk_is_not_the_files_fault(tmp_path):
    with Decoder(DecodeLimits(min_seconds=0.5)) as decoder:
        path = write_noise(tmp_path / "a.wav", 1.0)
        with pytest.raises(OSError, match="Cannot write /dev/full: No space left on device"):
            decoder.decode(path, "/dev/full")
        assert decoder.decode(path, str(tmp_path / "spool"))["reason"] is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not cap address space")
def test_the_child_cannot_take_more_memory_and_imports_nothing_heavy():
    code = (
        "import sys, numpy as np; from melody_diffusers.data import decoding; decoding._limit_memory();"
        "assert not {'torch', 'datasets', 'transformers'} & set(sys.modules);"
        "np.ones(1 << 20); np.ones(1 << 28)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and "MemoryError" in run.stderr.splitlines()[-1]


def test_limits_that_cannot_be_are_refused():
    for wrong in ({"min_seconds": 30.0}, {"max_seconds": 5.0}, {"min_level_db": 0.0}, {"timeout_seconds": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DecodeLimits(**wrong)


def test_every_reason_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert all(f"| `{reason}` | {meaning} |" in page for reason, meaning in REASONS.items())
