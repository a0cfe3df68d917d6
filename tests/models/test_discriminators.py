"""What each discriminator may see, and the paper-sized widths."""

import pytest
import torch

from melody_diffusers.models.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    PeriodDiscriminator,
)


def test_default_widths_are_those_of_the_published_discriminators():
    with torch.device("meta"):
        period, resolution = MultiPeriodDiscriminator(), MultiResolutionDiscriminator()
    # HiFi-GAN's multi-period discriminator: 5 x 8.22 M
    assert sum(p.numel() for p in period.parameters()) == pytest.approx(41.1e6, rel=0.01)
    assert len(period.discriminators) == 5 and len(resolution.discriminators) == 3


@pytest.mark.parametrize(
    "model",
    [
        MultiPeriodDiscriminator(channels=(4, 8, 8)),
        MultiResolutionDiscriminator(((256, 64, 256), (64, 16, 64)), channels=4),
    ],
)
def test_every_sub_discriminator_answers_with_logits_and_features(model):
    waveform = (0.1 * torch.randn(2, 1, 1201)).requires_grad_()
    outputs = model(waveform)
    assert len(outputs) == len(model.discriminators)
    for logits, features in outputs:
        assert logits.shape[0] == 2
        torch.testing.assert_close(features[-1].flatten(1), logits)
    sum(logits.sum() for logits, _ in outputs).backward()
    assert waveform.grad.abs().sum() > 0 and waveform.grad.isfinite().all()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_silence_gives_finite_gradients():
    silence = torch.zeros(1, 1, 1200, requires_grad=True)
    model = MultiResolutionDiscriminator(((256, 64, 256),), channels=4)
    sum(logits.sum() for logits, _ in model(silence)).backward()
    assert silence.grad.isfinite().all()


def test_period_discriminator_mixes_only_samples_one_period_apart():
    """A change at sample 30 of a period of 5 reaches column 0 alone: the other four columns keep their logits."""
    torch.manual_seed(0)
    model = PeriodDiscriminator(5, channels=(4, 4))
    waveform = torch.randn(1, 1, 300)
    changed = waveform.clone()
    changed[..., 30] += 1.0
    before, after = (model(x)[1][-1] for x in (waveform, changed))  # (1, 1, rows, 5)
    difference = (before - after).abs().sum(dim=(0, 1, 2))
    assert difference[0] > 0 and (difference[1:] == 0).all()
