"""Spectra against closed forms, inverses and torch's own STFT; what is made once for a device."""

import math

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from melody_diffusers.spectra import (
    SPECTRAL_FRAME_SIZE,
    SPECTRAL_MEL,
    SPECTRAL_ONSET,
    SPECTRAL_SEMITONES,
    bin_weights,
    frame_spectra,
    griffin_lim,
    griffin_lim_loop,
    inverse_stft_frames,
    log_mel_spectrogram,
    mel_filterbank,
    reflected,
    semitone_spectrogram,
    spectral_frames,
    stft_frames,
    stft_magnitude,
)


def sine(frequency: float, seconds: float = 1.0, sample_rate: int = 24000) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * sample_rate)) / sample_rate)[None]


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_samples, n_fft, hop_length", [(24000, 1024, 240), (5001, 400, 160), (100, 1024, 240)])
def test_frame_spectra_are_bit_equal_to_torch_stft(num_samples, n_fft, hop_length):
    signal, window = noise(2, num_samples), torch.hann_window(n_fft)
    expected = torch.stft(
        signal, n_fft, hop_length, window=window, center=True, pad_mode="constant", return_complex=True
    )
    padded = torch.nn.functional.pad(signal, (n_fft // 2, n_fft // 2))
    assert torch.equal(frame_spectra(padded, window, hop_length), expected.transpose(1, 2))


def test_reflected_equals_padding_by_reflection():
    signal = noise(2, 1, 10)
    for left, right in [(0, 0), (3, 0), (0, 4), (9, 9)]:
        assert torch.equal(reflected(signal, left, right), torch.nn.functional.pad(signal, (left, right), "reflect"))


class Copies(TorchFunctionMode):
    """The calls that could bring values to another device."""

    calls = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.copy_)

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.calls:
            self.made.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "spectrum",
    [
        lambda waveform: log_mel_spectrogram(waveform, num_mels=19),
        lambda waveform: semitone_spectrogram(waveform, num_semitones=19),
        lambda waveform: stft_magnitude(waveform, 256, 190, 95),
        lambda waveform: inverse_stft_frames(stft_frames(waveform[:, 0], 380, 190), 190),
    ],
    ids=["log-mel", "semitones", "magnitudes", "frames"],
)
def test_windows_and_filters_are_brought_to_a_device_once(spectrum):
    waveform = noise(1, 1, 1900)
    with Copies() as copies:
        first = spectrum(waveform)
        assert copies.made
        copies.made.clear()
        assert torch.equal(spectrum(waveform), first)
        assert not copies.made


def test_what_is_kept_for_one_device_stays_off_the_others():
    waveform, shapes = noise(1, 2400), []
    for _ in range(2):
        with FakeTensorMode():
            shapes.append(log_mel_spectrogram(torch.zeros(1, 2400), num_mels=21).shape)
    assert shapes == [(1, 10, 21)] * 2
    with torch.device("meta"):
        assert stft_frames(torch.zeros(1, 4790), 958, 479).device.type == "meta"
        assert not stft_magnitude(waveform, 958, 958, 479).is_meta
    assert type(log_mel_spectrogram(waveform, num_mels=21)) is torch.Tensor


def test_log_mel_and_spectral_frames_compile_to_one_graph():
    for spectrum in (log_mel_spectrogram, spectral_frames):
        compiled = torch.compile(spectrum, backend="eager", fullgraph=True)
        assert torch.equal(compiled(noise(1, 1, 2400)), spectrum(noise(1, 1, 2400)))


def test_mel_filters_have_unit_area_and_peak_on_slaneys_scale():
    filters = mel_filterbank(24000, 2048, 40)
    assert filters.shape == (1025, 40)
    areas = filters.sum(dim=0) * 24000 / 2048
    assert torch.allclose(areas[10:], torch.ones(30), atol=0.02)
    # 40 bands to 12 kHz on a scale that is linear to 1 kHz (mel 15) and then has 27 mels per factor 6.4
    highest = 15 + 27 * math.log(12) / math.log(6.4)
    mels = [highest * band / 41 for band in range(1, 41)]
    peaks = [mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27) for mel in mels]
    distance = filters.argmax(dim=0) * 24000 / 2048 - torch.tensor(peaks)
    assert distance.abs().max() <= 24000 / 2048


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


def test_above_the_corner_each_octave_counts_the_same():
    weights = bin_weights(12001, 24000, 200.0)  # a bin for each Hz
    assert weights.mean() == pytest.approx(1.0)
    assert weights[0] / weights[200] == pytest.approx(2.0) and weights[0] / weights[1800] == pytest.approx(10.0)
    octaves = [weights[low : 2 * low].sum() for low in (3000, 6000)]
    assert octaves[0] / octaves[1] == pytest.approx(1.0, abs=0.05)


def test_griffin_lim_of_a_loop_keeps_phases_that_come_around_and_mends_those_that_do_not():
    time = torch.arange(9600, dtype=torch.float64) / 9600
    loop = sum(torch.sin(2 * torch.pi * turns * time + turns) for turns in (40, 400, 1500)).float()[None] / 3
    around = torch.cat([loop[:, -4800:], loop, loop[:, :4800]], dim=1)
    spectrum = stft_frames(around, 960, 240)[:, 20:60]
    again = griffin_lim_loop(spectrum.abs(), 240, spectrum.angle())
    torch.testing.assert_close(again, loop, atol=1e-4, rtol=0)

    found = griffin_lim_loop(spectrum.abs(), 240)
    energy = (found.roll(-1, -1) - found).square().roll(481, -1).unflatten(-1, (-1, 960)).mean(-1)[0]
    assert 0.8 * energy[1:].mean() < energy[0] < 1.2 * energy[1:].mean()


def test_griffin_lim_of_silence_is_silence():
    assert not griffin_lim(torch.zeros(1, 8, 481), 240).any()


def test_spectral_frames_tell_a_note_and_its_onset():
    time = torch.arange(48000) / 24000
    waveform = torch.where(time >= 1.0, torch.sin(2 * math.pi * 440.0 * time), 0.0)[None, None] * 0.5
    frames = spectral_frames(waveform)
    assert frames.shape == (1, 50, SPECTRAL_FRAME_SIZE)
    semitones = frames[0, 30, SPECTRAL_SEMITONES]  # from C2 up: A4 is 33 semitones above
    assert int(semitones.argmax()) == 33
    assert int(frames[0, :, SPECTRAL_ONSET].argmax()) in (24, 25)  # windows reach across the border at 1 s
    mel = log_mel_spectrogram(waveform[:, 0, 240:], hop_length=480, floor=1e-4)  # the first frame's second half
    torch.testing.assert_close(frames[0, 30, SPECTRAL_MEL][:64], mel[0, 60])


def test_magnitudes_equal_torch_stft():
    waveform = noise(2, 1, 12000)
    for fft_size, window_size, hop_size in [(512, 256, 128), (64, 64, 16)]:
        window = torch.hann_window(window_size)
        padded = torch.nn.functional.pad(waveform[:, 0], (window_size // 2,) * 2, mode="reflect")
        frames = torch.stft(
            torch.nn.functional.pad(padded, ((fft_size - window_size) // 2,) * 2),
            fft_size,
            hop_size,
            window_size,
            window,
            center=False,
            return_complex=True,
        )
        expected = frames.abs().transpose(1, 2) / window.square().sum().sqrt()
        torch.testing.assert_close(
            stft_magnitude(waveform, fft_size, window_size, hop_size)[:, 0], expected, atol=1e-5, rtol=1e-4
        )


def test_white_noise_has_the_same_level_at_every_resolution():
    for size in (64, 512, 4096):
        # the magnitude of complex Gaussian noise is Rayleigh-distributed: mean sqrt(pi) / 2 times its deviation
        assert stft_magnitude(noise(1, 1, 96000), size, size, size // 4).mean() == pytest.approx(
            0.05 * math.sqrt(math.pi), rel=0.05
        )
