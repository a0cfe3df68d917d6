"""Reconstruction metrics against their closed forms."""

import math
from pathlib import Path

import pytest
import torch

from melody_diffusers.evaluation.reconstruction import (
    attack_figures,
    chroma_figures,
    figures_table,
    log_mel_distance,
    plot_spectrogram_pair,
    reconstruction_figures,
    reconstructions,
    si_sdr,
)
from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig


def orthogonal_pair(samples: int = 4800) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sines of whole periods: orthogonal, of equal power and without mean."""
    phase = 2 * torch.pi * torch.arange(samples, dtype=torch.float64) / samples
    return torch.sin(20 * phase)[None, None], torch.sin(33 * phase)[None, None]


@pytest.mark.parametrize("noise_gain, decibels", [(1.0, 0.0), (0.1, 20.0), (10.0, -20.0)])
def test_si_sdr_of_a_sum_of_orthogonal_sines(noise_gain: float, decibels: float) -> None:
    signal, noise = orthogonal_pair()
    for scale, offset in ((1.0, 0.0), (0.03, 0.5), (-2.0, 0.0)):  # neither level nor constant matters
        ratio = si_sdr(scale * (signal + noise_gain * noise) + offset, signal)
        assert ratio.shape == (1, 1)
        assert ratio.item() == pytest.approx(decibels, abs=1e-6)


class WithoutFloat64(torch.Tensor):
    """A tensor of a device that has no float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            return torch.Tensor(out)
        assert not isinstance(out, torch.Tensor) or out.dtype != torch.float64, func
        return out


def test_si_sdr_asks_no_device_for_float64() -> None:
    signal, noise = orthogonal_pair()
    on_device = [x.float().as_subclass(WithoutFloat64) for x in (signal + 0.1 * noise, signal)]
    assert si_sdr(*on_device).item() == pytest.approx(20, abs=1e-3)


def test_si_sdr_at_its_limits() -> None:
    signal, noise = orthogonal_pair()
    assert si_sdr(signal, signal).item() > 200
    assert si_sdr(noise, signal).item() < -200
    assert si_sdr(torch.zeros_like(signal), signal).item() == -torch.inf
    with pytest.raises(ValueError, match="shapes differ"):
        si_sdr(signal, signal[..., 1:])


def test_log_mel_distance_of_a_gain_is_the_gain() -> None:
    noise = 0.1 * torch.randn(2, 1, 24000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_mel_distance(noise, noise), torch.zeros(2))
    gains = torch.tensor([0.5, 2.0])
    expected = (20 * gains.log10()).abs()
    torch.testing.assert_close(log_mel_distance(gains[:, None, None] * noise, noise), expected, rtol=1e-4, atol=0)
    assert log_mel_distance(torch.zeros_like(noise), 1e-9 * noise).max() == 0  # below the floor nothing counts


def notes(*midi_pitches: int, seconds: float = 1.0) -> torch.Tensor:
    """One sine after the other, (1, 1, T) at 24 kHz."""
    time = torch.arange(round(seconds * 24000)) / 24000
    return torch.cat([0.3 * torch.sin(2 * math.pi * 440 * 2 ** ((p - 69) / 12) * time) for p in midi_pitches])[
        None, None
    ]


def test_chroma_knows_pitch_classes_and_nothing_of_octaves_and_levels() -> None:
    original = notes(60, 64, 67, 60)  # C E G C
    for estimate in (original, 0.1 * original, notes(72, 76, 79, 72)):
        figures = chroma_figures(estimate, original)
        assert figures["chroma_correlation"].item() > 0.97
        assert figures["pitch_class_kept"].item() == 1
        assert figures["pitch_class_share"].item() > 0.97
    figures = chroma_figures(notes(61, 64, 67, 61), original)  # the C a semitone too high
    assert figures["pitch_class_kept"].item() == 0
    assert figures["pitch_class_share"].item() == pytest.approx(0.5, abs=0.03)
    assert 0.2 < figures["chroma_correlation"].item() < 0.7
    assert all(value.isnan().all() for value in chroma_figures(original, torch.zeros_like(original)).values())


@pytest.mark.parametrize("gain_before, loss", [(0.0, 0.0), (0.01, 3.0), (0.1, 20.0), (1.0, 40.0)])
def test_attack_loss_is_what_sounds_before_its_time(gain_before: float, loss: float) -> None:
    """Bursts of noise after silence, and the same noise in the 20 ms before them, so many times quieter."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.zeros(1, 1, 48000)
    for start in range(6000, 48000, 6000):
        reference[..., start : start + 1200] = 0.3 * torch.randn(1200, generator=generator)
    early = 0.3 * torch.randn(1, 1, 48000, generator=generator)
    is_before = torch.arange(48000) % 6000 >= 6000 - 480
    estimate = reference + gain_before * early * is_before
    for gain in (1.0, 0.2):
        figures = attack_figures(gain * estimate, reference)
        assert figures["attack_loss_db"].item() == pytest.approx(loss, abs=1.0)
    assert (figures["onset_correlation"].item() > 0.9) == (gain_before <= 0.1)


def test_attacks_hidden_by_bass_are_found_and_silence_has_none() -> None:
    bass = notes(31, seconds=2.0)
    clicks = torch.zeros_like(bass)
    clicks[..., 6000::6000] = 0.5
    late = 0.7 * (clicks + clicks.roll(-240, dims=-1))  # and half of the energy of each 10 ms before
    assert attack_figures(bass + late, bass + clicks)["attack_loss_db"].item() > 15
    assert attack_figures(bass, bass)["attack_loss_db"].isnan().all()
    silent = attack_figures(torch.zeros_like(bass), torch.zeros_like(bass))
    assert all(value.isnan().all() for value in silent.values())


def test_figures_of_clips_are_means_over_those_that_have_them() -> None:
    clips = [notes(60, 64)[0], notes(67)[0], torch.zeros(1, 12000)]
    figures = reconstruction_figures(clips, clips, trained=False)
    assert figures["log_mel_db"] == 0
    assert figures["chroma_correlation"] == pytest.approx(1)
    assert figures["pitch_class_kept"] == figures["pitch_class_share"] == 1
    with pytest.raises(ValueError, match="shapes differ"):
        reconstruction_figures([clips[0]], [clips[1]])


def test_a_table_has_what_some_row_has() -> None:
    lines = figures_table(
        {"one": {"log_mel_db": 1.0}, "two": {"log_mel_db": 2.0, "visqol": float("nan"), "other": 3.0}}
    )
    assert lines[0] == "| | log-mel distance, dB | ViSQOL |"
    assert lines[2:] == ["| one | 1.000 | - |", "| two | 2.000 | - |"]


def test_griffin_lim_stands_beside_a_head_of_magnitudes_alone() -> None:
    small = {"istft_width": 16, "istft_encoder_layers": 1, "istft_decoder_layers": 1, "latent_dim": 4}
    waveform = notes(60, 67, seconds=0.5)[..., :-7]
    rows = reconstructions(AudioVAEGAN(AudioVAEGANConfig(head="magnitude", **small)).eval(), waveform)
    assert {row.shape for row in rows.values()} == {waveform.shape}
    assert list(rows) == [
        "through the VAE",
        "Griffin-Lim on the decoded magnitudes",
        "Griffin-Lim on true magnitudes",
    ]
    torch.testing.assert_close(rows["through the VAE"], rows["Griffin-Lim on the decoded magnitudes"])
    assert chroma_figures(rows["Griffin-Lim on true magnitudes"], waveform)["pitch_class_kept"].item() == 1
    rows = reconstructions(AudioVAEGAN(AudioVAEGANConfig(head="istft", **small)).eval(), waveform)
    assert list(rows) == ["through the VAE"]


def test_plot_writes_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_spectrogram_pair(tmp_path / "pair.png", torch.randn(1, 24000), torch.zeros(1, 24000), title="noise")
    assert (tmp_path / "pair.png").stat().st_size > 1000
