"""Losses against their closed forms."""

import math

import pytest
import torch

from melody_diffusers.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    log_magnitude_loss,
    magnitude_loss,
    mel_distance,
    multi_resolution_stft_loss,
    stft_magnitude_pairs,
    waveform_loss,
)


@pytest.fixture
def waveform() -> torch.Tensor:
    return 0.1 * torch.randn(2, 1, 12000, generator=torch.Generator().manual_seed(0))


def test_spectral_losses_of_a_gain(waveform):
    """|STFT| is linear in gain: halving costs half the mean magnitude, and ln 2 of log magnitude."""
    pairs = stft_magnitude_pairs(0.5 * waveform, waveform)
    assert len(pairs) == 7  # the paper's resolutions
    expected = torch.stack([wanted.mean() for _, wanted in pairs]).mean() / 2
    torch.testing.assert_close(magnitude_loss(pairs), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(multi_resolution_stft_loss(0.5 * waveform, waveform), expected, rtol=1e-4, atol=0)
    assert log_magnitude_loss(pairs, floor=1e-6).item() == pytest.approx(math.log(2), rel=1e-2)
    assert mel_distance(0.5 * waveform, waveform).item() == pytest.approx(math.log(2), rel=1e-3)


def test_an_error_in_the_bass_counts_more_by_the_octave():
    wanted = torch.ones(1, 4, 1201)  # a bin for every 10 Hz
    low, high = wanted.clone(), wanted.clone()
    low[..., 0], high[..., 100] = math.e, math.e
    for predicted, weight in ((low, 1.0), (high, 200 / 1200)):
        assert log_magnitude_loss([(predicted, wanted)]).item() == pytest.approx(1 / 1201)
        whole = sum(200 / (10 * k + 200) for k in range(1201))
        assert log_magnitude_loss([(predicted, wanted)], corner_hz=200.0).item() == pytest.approx(
            weight / whole, rel=1e-4
        )


def test_equal_waveforms_cost_nothing(waveform):
    assert multi_resolution_stft_loss(waveform, waveform) == 0
    assert mel_distance(waveform, waveform) == 0
    assert waveform_loss(waveform, waveform) == 0


def test_spectral_losses_are_differentiable_at_silence(waveform):
    silence = torch.zeros_like(waveform, requires_grad=True)
    pairs = stft_magnitude_pairs(silence, waveform)
    (magnitude_loss(pairs) + log_magnitude_loss(pairs) + waveform_loss(silence, waveform)).backward()
    assert silence.grad.isfinite().all()


def test_waveform_loss_is_relative_energy(waveform):
    assert waveform_loss(torch.zeros_like(waveform), waveform).item() == pytest.approx(1.0)
    assert waveform_loss(0.9 * waveform, waveform).item() == pytest.approx(0.01, rel=1e-4)


def test_gan_losses_of_known_logits():
    ones, zeros = [(torch.ones(2, 3), [])], [(torch.zeros(2, 3), [])]
    assert discriminator_loss(ones, zeros) == 0 and discriminator_loss(zeros, ones) == 2
    assert generator_loss(ones) == 0 and generator_loss(zeros) == 1


def test_feature_matching_is_a_mean_of_means_and_spares_the_real_side():
    real_layer = torch.zeros(2, 3, requires_grad=True)
    fake_layer = torch.full((2, 3), 2.0, requires_grad=True)
    loss = feature_matching_loss([(real_layer, [real_layer, real_layer])], [(fake_layer, [fake_layer, real_layer])])
    assert loss == 1.0  # (2 + 0) / 2
    loss.backward()
    torch.testing.assert_close(fake_layer.grad, torch.full((2, 3), 1 / 12))
