"""Every training loss as a pure function, its equation in its docstring.

Shapes: B batch, T samples, F frequency bins, N frames. Waveforms (B, 1, T).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .spectra import bin_weights, log_mel_spectrogram, stft_magnitude

# The seven resolutions of the paper's multi-resolution spectral loss (section 4 and appendix).
STFT_FFT_SIZES = (8192, 4096, 2048, 512, 128, 64, 32)
STFT_WINDOW_SIZES = (4096, 2048, 1024, 256, 64, 32, 16)
STFT_HOP_SIZES = (2048, 1024, 512, 128, 32, 16, 8)


def stft_magnitude_pairs(
    prediction: torch.Tensor,
    target: torch.Tensor,
    fft_sizes: Sequence[int] = STFT_FFT_SIZES,
    window_sizes: Sequence[int] = STFT_WINDOW_SIZES,
    hop_sizes: Sequence[int] = STFT_HOP_SIZES,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Magnitudes of the predicted and the wanted waveform, (B, 1, N, F) each, at every resolution.

    Several losses read the same spectra, and both waveforms share one FFT call: on a CPU this is most of a step.
    """
    both = torch.cat([prediction, target.to(prediction.dtype)])  # (2B, 1, T)
    return [
        tuple(stft_magnitude(both, fft_size, window_size, hop_size).chunk(2))
        for fft_size, window_size, hop_size in zip(fft_sizes, window_sizes, hop_sizes, strict=True)
    ]


def magnitude_loss(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Mean absolute difference of magnitudes, averaged over R resolutions (section 4):

    L = 1/R sum_r  mean | |STFT_r(x)| - |STFT_r(x_hat)| |
    """
    return torch.stack([(predicted - wanted).abs().mean() for predicted, wanted in pairs]).mean()


def log_magnitude_loss(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    floor: float = 1e-3,
    corner_hz: float | None = None,
    sample_rate: int = 24000,
) -> torch.Tensor:
    """Mean absolute difference of log magnitudes, averaged over R resolutions:

        L = 1/R sum_r  mean | ln max(|STFT_r(x)|, floor) - ln max(|STFT_r(x_hat)|, floor) |

    It weighs soft and loud partials alike, where magnitudes alone hear only the loud ones.

    Args:
        corner_hz: count bins by `spectra.bin_weights` of this corner; by default all count the same.
    """
    losses = []
    for predicted, wanted in pairs:
        error = (predicted.clamp_min(floor).log() - wanted.clamp_min(floor).log()).abs()
        if corner_hz is not None:
            error = error * bin_weights(error.shape[-1], sample_rate, corner_hz).to(error.device)
        losses.append(error.mean())
    return torch.stack(losses).mean()


def multi_resolution_stft_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    fft_sizes: Sequence[int] = STFT_FFT_SIZES,
    window_sizes: Sequence[int] = STFT_WINDOW_SIZES,
    hop_sizes: Sequence[int] = STFT_HOP_SIZES,
) -> torch.Tensor:
    """`magnitude_loss` of two waveforms (B, 1, T) over the paper's seven resolutions."""
    return magnitude_loss(stft_magnitude_pairs(prediction, target, fft_sizes, window_sizes, hop_sizes))


def mel_distance(
    prediction: torch.Tensor,
    target: torch.Tensor,
    sample_rate: int = 24000,
    n_fft: int = 1024,
    hop_length: int = 240,
    num_mels: int = 64,
) -> torch.Tensor:
    """Mean absolute difference of log-mel spectrograms, `mean | ln M(x) - ln M(x_hat) |`; waveforms (B, 1, T)."""
    both = torch.cat([prediction, target.to(prediction.dtype)])  # (2B, 1, T)
    predicted, wanted = log_mel_spectrogram(
        both, sample_rate=sample_rate, n_fft=n_fft, hop_length=hop_length, num_mels=num_mels
    ).chunk(2)
    return (predicted - wanted).abs().mean()


def phase_gradient_loss(
    onward: torch.Tensor, spectrum: torch.Tensor, corner_hz: float | None = None, sample_rate: int = 24000
) -> torch.Tensor:
    """How far estimates of phase differences are from the real ones, weighted by the loudness of the bins they join:

        L = 1/2 sum_d  sum w_d |z_d - exp(i (phi - phi_d))|^2 / sum w_d,    w_d = (|X| |X_d|)^(1/4)

    where d is the frame before or the bin below, phi the phase of X. The best estimate is the mean of the unit number
    exp(i ...): short where it can't be known. 1 is no knowledge.

    Args:
        onward: z, (B, N, 4, F): real and imaginary part for the frame before, then for the bin below.
        spectrum: X, complex (B, N, F).
        corner_hz: multiply w by `spectra.bin_weights` of this corner.
    """
    magnitude = spectrum.abs()
    unit = spectrum / magnitude.clamp_min(1e-9)
    if corner_hz is not None:
        magnitude = magnitude * bin_weights(magnitude.shape[-1], sample_rate, corner_hz).to(magnitude.device) ** 2
    before = (unit[:, 1:] * unit[:, :-1].conj(), (magnitude[:, 1:] * magnitude[:, :-1]) ** 0.25, onward[:, 1:, :2])
    below = (unit[..., 1:] * unit[..., :-1].conj(), (magnitude[..., 1:] * magnitude[..., :-1]) ** 0.25)
    total = spectrum.real.new_zeros(())
    for target, weight, estimate in (before, (*below, onward[:, :, 2:, 1:])):
        error = (estimate[:, :, 0] - target.real).square() + (estimate[:, :, 1] - target.imag).square()
        total = total + 0.5 * (weight * error).sum() / weight.sum().clamp_min(1e-6)
    return total


def waveform_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Relative squared error, `sum (x - x_hat)^2 / sum x^2` over the batch: the one loss here that hears phase.

    1 for silence as the answer, 0 for a perfect one. The ratio of batch sums, so that quiet clips are not amplified.
    """
    return (prediction - target).square().sum() / target.square().sum().clamp_min(1e-8)


# One entry per sub-discriminator: its logits, and the activations of its layers.
DiscriminatorOutput = list[tuple[torch.Tensor, list[torch.Tensor]]]


def discriminator_loss(real: DiscriminatorOutput, fake: DiscriminatorOutput) -> torch.Tensor:
    """Least-squares loss of the discriminators (Mao et al. 2017), averaged over K sub-discriminators:

    L_D = 1/K sum_k  E[(D_k(x) - 1)^2] + E[D_k(x_hat)^2]
    """
    losses = [
        (real_logits - 1).square().mean() + fake_logits.square().mean()
        for (real_logits, _), (fake_logits, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_loss(fake: DiscriminatorOutput) -> torch.Tensor:
    """Least-squares loss of the generator, `L_G = 1/K sum_k E[(D_k(x_hat) - 1)^2]`."""
    return torch.stack([(logits - 1).square().mean() for logits, _ in fake]).mean()


def feature_matching_loss(real: DiscriminatorOutput, fake: DiscriminatorOutput) -> torch.Tensor:
    """Mean absolute difference of activations (Kumar et al. 2019), over K discriminators of J layers each:

    L_FM = 1/K sum_k 1/J sum_j  E| D_k^j(x) - D_k^j(x_hat) |

    The real activations carry no gradient: they are the target.
    """
    losses = [
        torch.stack([(a.detach() - b).abs().mean() for a, b in zip(real_layers, fake_layers, strict=True)]).mean()
        for (_, real_layers), (_, fake_layers) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def masked_prediction_loss(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared error of the standardised targets where the encoder's input was masked (Baevski et al. 2022, with a
    spectral teacher):

        L = mean_b mean_{s masked} |y_bs - y_hat_bs|^2 / P

    Prediction and target (B, S, P), mask (B, S) bool. A sample without a masked frame counts as 0.
    """
    error = (prediction.float() - target).square().mean(-1)  # (B, S)
    return ((error * mask).sum(1) / mask.sum(1).clamp_min(1)).mean()


def contrastive_loss(
    audio_embeds: torch.Tensor, text_embeds: torch.Tensor, logit_scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric InfoNCE of B matched pairs with a learnt temperature (van den Oord et al. 2018, Radford et al. 2021):

        l_ij = e^s <a_i, t_j>,   L = -1/(2B) sum_i  ln softmax_j(l_ij)[i] + ln softmax_j(l_ji)[i]

    Embeddings (B, E) of unit length; `logit_scale` is s, and e^s is held at 100 or below. Equal embeddings all over
    give ln B. Returns the loss and the logits (B, B), audio by text.
    """
    logits = logit_scale.exp().clamp(max=100.0) * audio_embeds @ text_embeds.T  # (B, B)
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)), logits


def velocity_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the velocity, mean((v_hat - v)^2), over all chunks of a window (eq. 7). (B, L, D) each."""
    return F.mse_loss(prediction, target)


def token_nll(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood in nats of tokens (B, S) under scores (B, S, C)."""
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())
