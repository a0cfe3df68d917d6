"""How much of a recording survives the audio VAE-GAN: its waveform, spectrum, harmony and attacks.

SI-SDR asks for the waveform itself, phase included; all others ask for what is heard: the log-mel distance for colour,
the chroma for harmony, the attacks for time. The multi-resolution STFT distance of the report is the training loss of
the same name (`losses.multi_resolution_stft_loss`). None is trained; `listeners.py` has those that are.

Shapes: B clips, T samples, N frames.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from melody_diffusers.evaluation.listeners import has_listener, notes_figures, visqol
from melody_diffusers.models.audio_vae import AudioVAEGAN
from melody_diffusers.spectra import griffin_lim, log_mel_spectrogram, semitone_spectrogram

ATTACK_HOP_SECONDS = 0.0025
ATTACK_STEP_DB = 10.0
TRUE_MAGNITUDES = "Griffin-Lim on true magnitudes"
LABELS = {
    "log_mel_db": "log-mel distance, dB",
    "chroma_correlation": "chroma correlation",
    "pitch_class_kept": "strongest pitch class kept",
    "pitch_class_share": "of frames",
    "attack_loss_db": "attack loss, dB",
    "onset_correlation": "onset correlation",
    "visqol": "ViSQOL",
    "notes_f1": "notes F1",
    "written_notes_f1": "written notes F1",
    "frechet": "Frechet distance",
}
"""What a table calls the figures of `reconstruction_figures` (the last is of whole sets of clips)."""


def si_sdr(estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in decibels, higher is better (Le Roux et al. 2019).

    The estimate is split into its projection on the reference and the rest: 10 log10(|projection|^2 / |rest|^2), after
    the means are removed. Scaling the estimate changes nothing; noise at right angles to the reference and as strong
    as it gives 0 dB; an exact copy gives infinity and a silent estimate minus infinity.

    Args:
        estimate, reference: (..., T).

    Returns:
        (...) float64, on the CPU: not every device has float64.
    """
    if estimate.shape != reference.shape:
        raise ValueError(f"shapes differ: estimate {tuple(estimate.shape)}, reference {tuple(reference.shape)}")
    estimate, reference = estimate.cpu().double(), reference.cpu().double()
    estimate = estimate - estimate.mean(dim=-1, keepdim=True)
    reference = reference - reference.mean(dim=-1, keepdim=True)
    energy = reference.square().sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    projection = (estimate * reference).sum(dim=-1, keepdim=True) / energy * reference
    signal = projection.square().sum(dim=-1)
    distortion = (estimate - projection).square().sum(dim=-1)
    # log10 of each power alone: a quotient of two zeros (silence for silence) would be NaN
    ratio = 10 * (torch.log10(signal) - torch.log10(distortion))
    return torch.where(signal == 0, -torch.inf, ratio)


def log_mel_distance(estimate: torch.Tensor, reference: torch.Tensor, *, sample_rate: int = 24000) -> torch.Tensor:
    """Mean absolute difference of 80-band log-mel spectrograms in decibels, lower is better.

    Both are floored at 1e-3, the level of white noise at -57 dB: what nobody hears should not count. A gain of g dB on
    audio that stays above the floor gives exactly g.

    Args:
        estimate, reference: (B, 1, T).

    Returns:
        (B,)
    """
    log_mel_estimate, log_mel_reference = (
        log_mel_spectrogram(x[:, 0], sample_rate=sample_rate, num_mels=80, floor=1e-3) for x in (estimate, reference)
    )  # (B, frames, 80)
    return 20 / math.log(10) * (log_mel_estimate - log_mel_reference).abs().mean(dim=(1, 2))


def chromagram(waveform: torch.Tensor, *, sample_rate: int = 24000) -> torch.Tensor:
    """Magnitudes of the pitch classes C to B, (B, 1, T) to (B, N, 12), a frame each 40 ms.

    The root of the energy of a pitch class over six octaves from C2 up, in windows of 170 ms (4096 samples at 24 kHz,
    see `semitone_spectrogram`), so that semitones part from about A2 up.
    """
    energy = (2 * semitone_spectrogram(waveform, sample_rate, round(0.04 * sample_rate))).exp() - 1e-8  # its floor
    return energy.clamp_min(0).unflatten(-1, (-1, 12)).sum(-2).sqrt()


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of the rows of (B, K) and (B, K): (B,), NaN where a row is constant."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    scale = x.norm(dim=-1) * y.norm(dim=-1)
    return torch.where(scale > 0, (x * y).sum(-1) / scale, torch.nan)


def chroma_figures(
    estimate: torch.Tensor, reference: torch.Tensor, *, sample_rate: int = 24000
) -> dict[str, torch.Tensor]:
    """How much of the harmony is kept, higher is better.

    Args:
        estimate, reference: (B, 1, T).

    Returns:
        (B,) each. chroma_correlation: Pearson's, of the two chromagrams over all pitch classes and frames.
        pitch_class_kept: 1 where the pitch class with most energy in the whole clip is the same, else 0.
        pitch_class_share: the share of frames whose strongest pitch class is the same, of those within 40 dB of the
        loudest frame of the reference. NaN for silence.
    """
    estimated, original = (chromagram(x, sample_rate=sample_rate) for x in (estimate, reference))
    energy, kept = original.square().sum(-1), estimated.argmax(-1) == original.argmax(-1)  # (B, N)
    is_loud = (energy > 1e-4 * energy.amax(-1, keepdim=True)).float()
    strongest, expected = (x.square().sum(1).argmax(-1) for x in (estimated, original))
    return {
        "chroma_correlation": correlation(estimated.flatten(1), original.flatten(1)),
        "pitch_class_kept": torch.where(energy.sum(-1) > 0, (strongest == expected).float(), torch.nan),
        "pitch_class_share": (kept * is_loud).sum(-1) / is_loud.sum(-1),
    }


def attack_steps(waveform: torch.Tensor, *, sample_rate: int = 24000) -> torch.Tensor:
    """How many dB louder the 10 ms after each moment are than the 20 ms before it: (B, 1, T) to (B, N).

    A moment every 2.5 ms. Of the first difference of the waveform, so that bass that rings on hides no attack; quieter
    than 40 dB below what follows counts as 40 dB, where nobody hears it.
    """
    hop = round(ATTACK_HOP_SECONDS * sample_rate)
    energy = F.avg_pool1d(waveform.float().diff(dim=-1).square(), hop)[:, 0]  # (B, N)
    before = F.avg_pool1d(F.pad(energy, (8, 0))[:, None, :-1], 8, stride=1)[:, 0]  # of blocks i - 8 to i - 1
    after = F.avg_pool1d(F.pad(energy, (0, 3))[:, None], 4, stride=1)[:, 0]  # of blocks i to i + 3
    return 10 * torch.log10((after + 1e-10) / (before + 1e-4 * after + 1e-10))


def attack_figures(
    estimate: torch.Tensor, reference: torch.Tensor, *, sample_rate: int = 24000
) -> dict[str, torch.Tensor]:
    """How much attacks are smeared, and sound before their time.

    An attack is a moment of the reference where the level jumps by at least 10 dB (`attack_steps`), the largest jump
    within 50 ms. What is smeared over the time before it makes the jump smaller; a gain does not change it.

    Args:
        estimate, reference: (B, 1, T).

    Returns:
        (B,) each. attack_loss_db: by how much the jumps of the estimate are smaller, mean over attacks, lower is
        better; NaN where there are none. onset_correlation: Pearson's, of the onset strengths every 2.5 ms (the rise of
        24 log-mel bands in windows of 10.7 ms, mean over bands), higher is better; NaN for silence.
    """
    steps, expected = (attack_steps(x, sample_rate=sample_rate) for x in (estimate, reference))
    is_attack = (expected >= ATTACK_STEP_DB) & (expected == F.max_pool1d(expected[:, None], 41, 1, 20)[:, 0])
    is_attack[:, :8] = False  # nothing is known of the time before
    loss = torch.where(is_attack, expected - steps, torch.nan)
    hop = round(ATTACK_HOP_SECONDS * sample_rate)
    strengths = []
    for x in (estimate, reference):
        mel = log_mel_spectrogram(
            x[:, 0],
            sample_rate=sample_rate,
            n_fft=2 ** round(math.log2(0.0107 * sample_rate)),
            hop_length=hop,
            num_mels=24,
            floor=1e-3,
        )  # (B, N, 24)
        strengths.append((mel[:, 4:] - mel[:, :-4]).clamp_min(0).mean(-1))
    return {"attack_loss_db": loss.nanmean(-1), "onset_correlation": correlation(*strengths)}


@torch.no_grad()
def without_phase(vae: AudioVAEGAN, waveform: torch.Tensor, num_iterations: int = 16) -> torch.Tensor | None:
    """What Griffin-Lim makes of the magnitudes that the encoder sees of (B, 1, T); None if its head has none.

    A decoder with perfect magnitudes and no better idea of phase would sound like this.
    """
    if not hasattr(vae.encoder, "magnitude"):
        return None
    whole = F.pad(waveform.to(vae.device, vae.dtype), (0, -waveform.shape[-1] % vae.hop_samples))
    magnitude = vae.encoder.magnitude(whole)  # (B, N, F)
    hop = whole.shape[-1] // magnitude.shape[1]
    return griffin_lim(magnitude, hop, num_iterations)[:, None, : waveform.shape[-1]].float().cpu()


@torch.no_grad()
def reconstructions(vae: AudioVAEGAN, waveform: torch.Tensor, num_iterations: int = 16) -> dict[str, torch.Tensor]:
    """What the VAE makes of (B, 1, T), and, if its head has magnitudes, what Griffin-Lim makes of those alone.

    Returns:
        (B, 1, T) each: "through the VAE"; "Griffin-Lim on the decoded magnitudes"; `TRUE_MAGNITUDES`.
    """
    inputs = waveform.to(vae.device, vae.dtype)
    latents = vae.encode(inputs).latent_dist.mode()
    rows = {"through the VAE": vae.decode(latents).sample}
    perfect = without_phase(vae, waveform, num_iterations)
    if perfect is not None:
        decoded, _ = vae.magnitude_pair(inputs, latents)
        hop = rows["through the VAE"].shape[-1] // decoded.shape[1]
        rows["Griffin-Lim on the decoded magnitudes"] = griffin_lim(decoded, hop, num_iterations).unsqueeze(1)
        rows[TRUE_MAGNITUDES] = perfect
    return {name: row[..., : waveform.shape[-1]].float().cpu() for name, row in rows.items()}


@torch.no_grad()
def reconstruction_figures(
    estimates: Sequence[torch.Tensor] | torch.Tensor,
    references: Sequence[torch.Tensor] | torch.Tensor,
    sample_rate: int = 24000,
    *,
    written: Sequence[np.ndarray] | None = None,
    trained: bool = True,
) -> dict[str, float]:
    """Means over clips of everything that can be measured here, each over the clips that have it (NaN: none has).

    Args:
        estimates, references: of the same length, waveforms (1, T) or a tensor (B, 1, T); clips may differ in length.
        written: the notes of each clip, (N, 3), if its composer is known; see `listeners.notes_figures`.
        trained: ask also what is installed of `listeners.py`, at about three seconds for a clip of ten.

    Returns:
        log_mel_db, and the figures of `chroma_figures` and `attack_figures`; visqol, notes_f1 and written_notes_f1.
    """
    figures: dict[str, list[torch.Tensor]] = {}
    listeners = [name for name in ("visqol", "notes") if trained and has_listener(name)]
    for index, (estimate, reference) in enumerate(zip(estimates, references, strict=True)):
        if estimate.shape != reference.shape:
            raise ValueError(f"shapes differ: estimate {tuple(estimate.shape)}, reference {tuple(reference.shape)}")
        pair = (estimate[None].float().cpu(), reference[None].float().cpu())
        of_clip = {
            "log_mel_db": log_mel_distance(*pair, sample_rate=sample_rate),
            **chroma_figures(*pair, sample_rate=sample_rate),
            **attack_figures(*pair, sample_rate=sample_rate),
        }
        if "visqol" in listeners:
            of_clip["visqol"] = visqol(*pair, sample_rate=sample_rate)
        if "notes" in listeners:
            score = None if written is None else [written[index]]
            of_clip |= notes_figures(*pair, sample_rate=sample_rate, written=score)
        for name, value in of_clip.items():
            figures.setdefault(name, []).append(value)
    return {name: torch.cat(values).nanmean().item() for name, values in figures.items()}


def figures_table(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a Markdown table: a line for each row, a column for each of `LABELS` that some row has."""
    names = [name for name in LABELS if any(name in row for row in rows.values())]
    lines = [f"| | {' | '.join(LABELS[name] for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for label, row in rows.items():
        values = [f"{row[name]:.3f}" if math.isfinite(row.get(name, math.nan)) else "-" for name in names]
        lines.append(f"| {' | '.join([label, *values])} |")
    return lines


def plot_spectrogram_pair(
    path: str | Path, reference: torch.Tensor, estimate: torch.Tensor, *, title: str, sample_rate: int = 24000
) -> None:
    """A PNG of the log-mel spectrograms of two clips (1, T), original above, reconstruction below."""
    from matplotlib.figure import Figure  # not pyplot: no global state, works without a display

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for ax, name, waveform in zip(axes, ("original", "reconstruction"), (reference, estimate), strict=True):
        log_mel = log_mel_spectrogram(waveform[0], sample_rate=sample_rate, num_mels=80)  # (frames, 80)
        seconds = waveform.shape[-1] / sample_rate
        ax.imshow(log_mel.T.cpu().numpy(), origin="lower", aspect="auto", extent=(0, seconds, 0, 80), vmin=-9, vmax=3)
        ax.set_ylabel(f"{name}\nmel band")
    axes[1].set_xlabel("seconds")
    figure.suptitle(title)
    figure.savefig(path, dpi=80)
