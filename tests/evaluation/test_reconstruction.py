"""Reconstruction metrics against their closed forms."""

from pathlib import Path

import pytest
import torch

from melody_diffusers.evaluation.reconstruction import log_mel_distance, plot_spectrogram_pair, si_sdr


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


def test_plot_writes_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_spectrogram_pair(tmp_path / "pair.png", torch.randn(1, 24000), torch.zeros(1, 24000), title="noise")
    assert (tmp_path / "pair.png").stat().st_size > 1000
