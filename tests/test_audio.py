import io
import math
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from melody_diffusers import audio
from melody_diffusers.audio import (
    crop_or_pad,
    fit_loop,
    growing_audio,
    limit_peak,
    load_audio,
    resample,
    rms_db,
    save_audio,
    to_mono,
)
from melody_diffusers.sound_files import read_comment


def sine(frequency: float, seconds: float = 1.0, sample_rate: int = 24000) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * sample_rate)) / sample_rate)[None]


def encoded(samples: np.ndarray, sample_rate: int = 24000, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_saving_and_loading_are_inverse(tmp_path, suffix):
    grid = torch.randint(-32768, 32768, (1, 1000), generator=torch.Generator().manual_seed(0)) / 32768
    save_audio(tmp_path / f"a{suffix}", grid)
    assert torch.equal(load_audio(tmp_path / f"a{suffix}"), grid)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    with open(tmp_path / f"a{suffix}", "rb") as file:
        assert torch.equal(load_audio(file), grid)
    assert torch.equal(load_audio((tmp_path / f"a{suffix}").read_bytes()), grid)


def test_loading_resamples_and_mixes():
    stereo = torch.cat([sine(440, 0.5, 44100), 0.5 * sine(440, 0.5, 44100)]).numpy().T
    data = encoded(stereo, 44100, format="WAV", subtype="FLOAT")
    mono = load_audio(data)
    assert mono.shape == (1, 12000)
    assert (mono - 0.75 * sine(440, 0.5))[:, 200:-200].abs().max() < 1e-3
    assert load_audio(data, mono=False).shape == (2, 12000)


def test_audio_that_cannot_be_used_is_refused_by_name(tmp_path):
    whole = encoded(np.zeros(24000, np.float32), format="WAV", subtype="PCM_16")
    bad = {
        "garbage": (b"no audio at all", "decode"),
        "nothing": (b"", "decode"),
        "empty": (encoded(np.zeros(0, np.float32), format="WAV"), "no samples"),
        "nan": (encoded(np.array([0.0, np.nan], np.float32), format="WAV", subtype="FLOAT"), "NaN"),
        "flac": (encoded(np.random.default_rng(0).uniform(-1, 1, 24000), format="FLAC")[:9000], "ends after|decode"),
    }
    assert load_audio(whole).shape == (1, 24000)
    for name, (data, cause) in bad.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.wav.*({cause})|({cause}).*{name}.wav"):
            load_audio(path)
    with pytest.raises(FileNotFoundError, match=r"missing\.wav"):
        load_audio(tmp_path / "missing.wav")


def without_length(flac: bytes) -> bytes:
    """The FLAC as one that was written to a pipe: its header does not say how long it is."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]  # 36 bits in the first block of metadata


def test_a_file_that_is_too_long_is_refused_by_its_header(tmp_path):
    size = 4_000_000_000  # 139 hours that take 16 GB as float32; the file is one hole, and takes no room
    with open(tmp_path / "long.wav", "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt ")
        file.write(struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data" + struct.pack("<I", size))
        file.truncate(size + 44)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"long\.wav: it lasts 500000\.0 s; at most 3600 s"):
            load_audio(tmp_path / "long.wav", max_seconds=3600)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    clip = encoded(np.zeros(24000), format="WAV")
    assert load_audio(clip, max_seconds=1.0).shape == (1, 24000)
    with pytest.raises(ValueError, match=r"it lasts 1\.0 s; at most 0\.99 s"):
        load_audio(clip, max_seconds=0.99)


def test_a_file_that_does_not_say_how_long_it_is_is_read_up_to_the_limit():
    flac = encoded(np.zeros(48000 * 600, np.int16), 48000, format="FLAC")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"it lasts at least 1\d\.\d s; at most 10 s"):
            load_audio(without_length(flac), max_seconds=10)
        assert tracemalloc.get_traced_memory()[1] < 8e6  # all of it as float32 would be 115 MB
    finally:
        tracemalloc.stop()
    samples = np.random.default_rng(0).integers(-9000, 9000, 500_000, np.int16)
    read = load_audio(without_length(encoded(samples, format="FLAC")), max_seconds=30)
    assert np.array_equal(read[0].numpy() * 32768, samples)


def test_an_mp3_of_several_blocks_is_what_one_read_of_it_gives(monkeypatch):
    tone = sine(440, 30.0)[0].numpy() * 0.3 + np.random.default_rng(0).normal(0, 0.05, 720_000)
    data = encoded(tone, format="MP3")  # its frames take bits from those before them: a seek loses them
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 7000)
    whole = soundfile.SoundFile(io.BytesIO(data)).read(dtype="float32")
    assert np.array_equal(load_audio(data)[0].numpy(), whole)


def test_a_refused_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.wav"
    save_audio(path, torch.zeros(10))
    before = path.read_bytes()
    for waveform in (torch.tensor([0.0, torch.nan]), torch.zeros(1, 0), torch.zeros(2, 1, 5)):
        with pytest.raises(ValueError):
            save_audio(path, waveform)
    with pytest.raises(ValueError, match=r"written as \.wav, \.flac, \.ogg, \.opus, \.mp3; got .a\.m4a"):
        save_audio(tmp_path / "a.m4a", torch.zeros(10))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_a_growing_file_keeps_what_came_before_a_failure(tmp_path, suffix):
    path, parts = tmp_path / f"growing{suffix}", (torch.rand(1, 5000) - 0.5).split(1200, dim=1)
    with pytest.raises(KeyboardInterrupt):
        with growing_audio(path, 24000, "half of it " * 300) as add:
            for part in parts[:3]:
                add(part)
            assert not path.exists()
            raise KeyboardInterrupt
    assert load_audio(path).shape == (1, 3600)
    assert read_comment(path).count("half of it") == 300
    if suffix != ".ogg":
        torch.testing.assert_close(load_audio(path), torch.cat(parts[:3], dim=1), rtol=0, atol=0.51 / 32768)
    with growing_audio(tmp_path / "none.wav", 24000):
        pass
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_resampling_keeps_a_tone_and_its_length():
    there = resample(sine(1000), 24000, 44100)
    assert there.shape == (1, 44100)
    assert (there - sine(1000, 1.0, 44100))[:, 500:-500].abs().max() < 1e-3
    assert resample(torch.zeros(2, 3, 2401), 24000, 16000).shape == (2, 3, 1601)
    assert resample(there, 44100, 44100) is there


def test_crop_pad_mono_and_level():
    waveform = torch.arange(6.0).reshape(1, 2, 3)
    assert crop_or_pad(waveform, 2, start=1).tolist() == [[[1, 2], [4, 5]]]
    assert crop_or_pad(waveform, 4, start=2).tolist() == [[[2, 0, 0, 0], [5, 0, 0, 0]]]
    assert crop_or_pad(waveform, 1, start=9).tolist() == [[[0], [0]]]
    assert to_mono(waveform).tolist() == [[[1.5, 2.5, 3.5]]]
    assert rms_db(sine(1000)).item() == pytest.approx(-10 * math.log10(2), abs=1e-3)
    assert rms_db(torch.zeros(5)).item() == pytest.approx(-120)


def test_a_loop_of_another_length_holds_the_same_waves():
    def waves(length: int) -> torch.Tensor:
        time = torch.arange(length, dtype=torch.float64) / length
        return sum(torch.sin(2 * torch.pi * turns * time + turns) for turns in (1, 30, 4000)).float()[None]

    for length in (20000, 20101, 19937):
        torch.testing.assert_close(fit_loop(waves(20000), length), waves(length), atol=2e-4, rtol=0)


def test_the_limiter_touches_only_what_is_too_loud():
    quiet, loud = 0.5 * sine(100), 3.0 * sine(100)
    limited, gain = limit_peak(torch.stack([quiet, loud]))
    assert torch.equal(limited[0], quiet) and gain[0] == 1
    assert limited[1].abs().max() <= 0.977
    assert gain[1].item() == pytest.approx(0.977 / loud.abs().max().item())
    assert torch.allclose(limited[1], loud * gain[1])
