import io
import math
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from melody_diffusers.audio import crop_or_pad, limit_peak, load_audio, resample, rms_db, save_audio, to_mono


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


def test_a_refused_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.wav"
    save_audio(path, torch.zeros(10))
    before = path.read_bytes()
    for waveform in (torch.tensor([0.0, torch.nan]), torch.zeros(1, 0), torch.zeros(1, 1, 5)):
        with pytest.raises(ValueError):
            save_audio(path, waveform)
    with pytest.raises(ValueError, match=r"\.wav or \.flac"):
        save_audio(tmp_path / "a.mp3", torch.zeros(10))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


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


def test_the_limiter_touches_only_what_is_too_loud():
    quiet, loud = 0.5 * sine(100), 3.0 * sine(100)
    limited, gain = limit_peak(torch.stack([quiet, loud]))
    assert torch.equal(limited[0], quiet) and gain[0] == 1
    assert limited[1].abs().max() <= 0.977
    assert gain[1].item() == pytest.approx(0.977 / loud.abs().max().item())
    assert torch.allclose(limited[1], loud * gain[1])


def test_a_file_that_is_too_long_is_refused_by_its_header(tmp_path):
    """Ten hours of silence: half a gigabyte, of which nothing is read."""
    num_bytes = 10 * 3600 * 8000 * 2
    file = tmp_path / "long.wav"
    with open(file, "wb") as stream:
        form = (16, 1, 1, 8000, 16000, 2, 16)  # PCM, mono, 8 kHz, 16 bits
        head = (b"RIFF", 36 + num_bytes, b"WAVE", b"fmt ", *form, b"data", num_bytes)
        stream.write(struct.pack("<4sI4s4sIHHIIHH4sI", *head))
        stream.truncate(44 + num_bytes)
    tracemalloc.start()
    with pytest.raises(ValueError, match="long.wav: it lasts 36000.0 s; at most 3600 s"):
        load_audio(file, max_seconds=3600.0)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    save_audio(tmp_path / "short.wav", torch.zeros(1, 24000))
    assert load_audio(tmp_path / "short.wav", max_seconds=1.0).shape == (1, 24000)
