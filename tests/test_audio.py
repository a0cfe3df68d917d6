import io
import math
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from melody_diffusers.audio import crop_or_pad, limit_peak, load_audio, resample, rms_db, save_audio, to_mono
from melody_diffusers.spectra import (
    SPECTRAL_FRAME_SIZE,
    griffin_lim,
    inverse_stft_frames,
    log_mel_spectrogram,
    mel_filterbank,
    spectral_frames,
    stft_frames,
)


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


def test_mel_filters_equal_librosa_and_have_unit_area():
    filters = mel_filterbank(24000, 2048, 40)
    assert filters.shape == (1025, 40)
    areas = filters.sum(dim=0) * 24000 / 2048
    assert torch.allclose(areas[10:], torch.ones(30), atol=0.02)
    librosa = pytest.importorskip("librosa")
    for options in ({}, {"f_min": 50.0, "f_max": 8000.0}):
        ours = mel_filterbank(24000, 1024, 64, **options).T.numpy()
        theirs = librosa.filters.mel(
            sr=24000, n_fft=1024, n_mels=64, fmin=options.get("f_min", 0.0), fmax=options.get("f_max")
        )
        assert np.abs(ours - theirs).max() < 1e-7


def test_log_mel_of_a_tone_peaks_at_its_band_and_scales_with_it():
    mel = log_mel_spectrogram(sine(2000)[None])  # (1, 1, T)
    assert mel.shape == (1, 1, 100, 64)
    bands = mel_filterbank(24000, 1024, 64)
    assert (mel[0, 0, 5:95].argmax(dim=-1) == bands[round(2000 * 1024 / 24000)].argmax()).all()
    louder = log_mel_spectrogram(2 * sine(2000))[:, 5:95]
    peak = mel[0, :, 5:95].argmax(dim=-1, keepdim=True)
    assert torch.allclose((louder - mel[0, :, 5:95]).gather(-1, peak), torch.tensor(math.log(2)), atol=1e-4)
    assert torch.equal(log_mel_spectrogram(torch.zeros(2400)), torch.full((10, 64), math.log(1e-5)))
    assert log_mel_spectrogram(torch.zeros(2, 2399)).shape == (2, 9, 64)


def test_log_mel_can_be_trained_through_after_inference_mode():
    with torch.inference_mode():
        log_mel_spectrogram(torch.zeros(2400), num_mels=17)
    waveform = sine(500, 0.1).requires_grad_()
    log_mel_spectrogram(waveform, num_mels=17).sum().backward()
    assert torch.isfinite(waveform.grad).all() and waveform.grad.abs().sum() > 0


@pytest.mark.parametrize("hop_length", [240, 480])
def test_inverse_stft_frames_is_the_exact_inverse(hop_length):
    waveform = torch.randn(2, 10 * hop_length, generator=torch.Generator().manual_seed(0))
    spectrum = stft_frames(waveform, 960, hop_length)
    assert spectrum.shape == (2, 10, 481)
    torch.testing.assert_close(inverse_stft_frames(spectrum, hop_length), waveform, rtol=0, atol=1e-6)


def test_griffin_lim_finds_a_waveform_with_the_magnitudes_of_partials():
    time = torch.arange(24000) / 24000
    partials = sum(torch.sin(2 * math.pi * f * time) / n for n, f in enumerate((220.0, 331.7, 1234.5), start=1))
    waveform = (0.2 * partials * (-2 * time).exp())[None]
    magnitude = stft_frames(waveform, 960, 240).abs()
    again = griffin_lim(magnitude, 240)
    assert again.shape == waveform.shape
    error = (stft_frames(again, 960, 240).abs() - magnitude).norm() / magnitude.norm()
    assert error < 0.1  # -20 dB
    assert torch.equal(again, griffin_lim(magnitude, 240))


def test_griffin_lim_of_silence_is_silence():
    assert not griffin_lim(torch.zeros(1, 8, 481), 240).any()


def test_spectral_frames_tell_a_note_and_its_onset():
    time = torch.arange(48000) / 24000
    waveform = torch.where(time >= 1.0, torch.sin(2 * math.pi * 440.0 * time), 0.0)[None, None] * 0.5
    frames = spectral_frames(waveform)
    assert frames.shape == (1, 50, SPECTRAL_FRAME_SIZE)
    semitones = frames[0, 30, 128:200]  # from C2 up: A4 is 33 semitones above
    assert int(semitones.argmax()) == 33
    assert int(frames[0, :, 200].argmax()) in (24, 25)  # windows reach across the border at 1 s


def test_a_file_that_is_too_long_is_refused_by_its_header(tmp_path):
    """Ten hours of silence: half a gigabyte, of which nothing is read."""
    num_bytes = 10 * 3600 * 8000 * 2
    file = tmp_path / "long.wav"
    with open(file, "wb") as stream:
        stream.write(
            struct.pack(
                "<4sI4s4sIHHIIHH4sI",
                b"RIFF",
                36 + num_bytes,
                b"WAVE",
                b"fmt ",
                16,
                1,
                1,
                8000,
                16000,
                2,
                16,
                b"data",
                num_bytes,
            )
        )
        stream.truncate(44 + num_bytes)
    tracemalloc.start()
    with pytest.raises(ValueError, match="long.wav: it lasts 36000.0 s; at most 3600 s"):
        load_audio(file, max_seconds=3600.0)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    save_audio(tmp_path / "short.wav", torch.zeros(1, 24000))
    assert load_audio(tmp_path / "short.wav", max_seconds=1.0).shape == (1, 24000)
