"""Losses against their closed forms."""

import math

import pytest
import torch

from melody_diffusers.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    kl_loss,
    log_magnitude_loss,
    magnitude_loss,
    mel_distance,
    multi_resolution_stft_loss,
    stft_magnitude,
    stft_magnitude_pairs,
    waveform_loss,
)


@pytest.fixture
def waveform() -> torch.Tensor:
    return 0.1 * torch.randn(2, 1, 12000, generator=torch.Generator().manual_seed(0))


def test_magnitudes_equal_torch_stft(waveform):
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
    noise = 0.1 * torch.randn(1, 1, 96000, generator=torch.Generator().manual_seed(0))
    for size in (64, 512, 4096):
        # the magnitude of complex Gaussian noise is Rayleigh-distributed: mean sqrt(pi) / 2 times its deviation
        assert stft_magnitude(noise, size, size, size // 4).mean() == pytest.approx(0.05 * math.sqrt(math.pi), rel=0.05)


def test_spectral_losses_of_a_gain(waveform):
    """|STFT| is linear in gain: halving costs half the mean magnitude, and ln 2 of log magnitude."""
    pairs = stft_magnitude_pairs(0.5 * waveform, waveform)
    assert len(pairs) == 7  # the paper's resolutions
    expected = torch.stack([wanted.mean() for _, wanted in pairs]).mean() / 2
    torch.testing.assert_close(magnitude_loss(pairs), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(multi_resolution_stft_loss(0.5 * waveform, waveform), expected, rtol=1e-4, atol=0)
    assert log_magnitude_loss(pairs, floor=1e-6).item() == pytest.approx(math.log(2), rel=1e-2)
    assert mel_distance(0.5 * waveform, waveform).item() == pytest.approx(math.log(2), rel=1e-3)


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


def test_kl_equals_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 4, 5, 3, generator=generator).unbind(0)
    posterior = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(kl_loss(mean, logvar), torch.distributions.kl_divergence(posterior, prior).mean())


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
