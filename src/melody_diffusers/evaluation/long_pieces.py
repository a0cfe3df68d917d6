"""Long pieces: do they have parts, do they end, and are they at their end still what was asked for?

None of the figures is trained but the answers of `ClipJudge`, which hears the first and the last ten seconds.

Shapes: B pieces, T samples, N moments, F features.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from melody_diffusers.audio import rms_db
from melody_diffusers.evaluation.clips import CLIP_SECONDS, QUESTIONS, Clip, in_batches, is_triple, named_classes
from melody_diffusers.evaluation.grid import choose_grid
from melody_diffusers.evaluation.judges import ClipJudge
from melody_diffusers.evaluation.key import KeyJudge
from melody_diffusers.evaluation.reconstruction import chromagram
from melody_diffusers.evaluation.rows import judge_row, recognised
from melody_diffusers.spectra import frame_spectra, log_mel_spectrogram

LONG_SECONDS = 60.0
LONG_ROW, REAL_LONG_ROW = "long pieces", "real long pieces"
WHOLE_CLIP_SECONDS = 3600.0  # a window that no clip fills
BLOCK_SECONDS = 8  # on either side of a boundary between sections: two to four bars
CLOSE_DB = 20.0
TAIL_SECONDS = 5  # a last chord and its decay; the music before it is asked whether it drifts


def choose_long_prompts(
    windows: list[dict], hand_written: dict[str, dict[str, dict]], count: int, seconds: float, seed: int
) -> list[Clip]:
    """At most `count` pieces to make, of prompts that name a style and a lead, of as many styles as there are.

    The prompts are those of the column `prompts`; without it, hand-written prompts for a style, first those that also
    name a single family.
    """
    naming_both = [
        {**window, "prompts": [p for p in window.get("prompts") or [] if set(QUESTIONS) <= set(p["named"])]}
        for window in windows
    ]
    classes = {question: sorted({window[question] for window in windows}) for question in QUESTIONS}
    most = max(count, len(classes["style"]))
    pieces = [clip for _, clip in choose_grid(naming_both, hand_written, LONG_ROW, most, seed)]
    pieces = random.Random(seed).sample(pieces, min(count, len(pieces)))
    if not pieces:
        written = []
        for style in classes["style"]:
            for text in hand_written.get("style", {}).get(style, {}).get("prompts", []):
                families = named_classes(text, classes["family"], hand_written.get("family", {}))
                written.append((text, {"style": style} | ({"family": families[0]} if len(families) == 1 else {})))
        random.Random(seed).shuffle(written)
        written.sort(key=lambda prompt: -len(prompt[1]))
        pieces = [
            Clip(f"{LONG_ROW}/{number:04d}.flac", text, expected, None, None, False, "hand", "", seed + number)
            for number, (text, expected) in enumerate(written[:count])
        ]
    return [replace(piece, seconds=seconds, bpm=None, key=None) for piece in pieces]


def choose_long_windows(
    windows: list[dict],
    hand_written: dict[str, dict[str, dict]],
    count: int,
    seconds: float,
    sample_rate: int,
    seed: int,
) -> list[tuple[dict, Clip]]:
    """The last `seconds` of at most `count` clips that are as long: where a clip ends with its piece, so do they.

    Args:
        windows: whole clips.
    """
    num_samples = round(seconds * sample_rate)
    long = [window for window in windows if len(window["samples"]) >= num_samples]
    return [
        (
            {**window, "samples": window["samples"][-num_samples:]},
            Clip(
                file=f"{REAL_LONG_ROW}/{number:04d}.flac",
                text=window["captions"][0],
                expected={question: window[question] for question in QUESTIONS},
                bpm=None,
                key=None,
                triple=is_triple(window, hand_written),
                source="caption",
                piece=window["piece_id"],
                seed=seed + number,
                seconds=seconds,
            ),
        )
        for number, window in enumerate(random.Random(seed).sample(long, min(count, len(long))))
    ]


def section_contrast(waveform: torch.Tensor, *, sample_rate: int = 24000) -> torch.Tensor:
    """How different the music is on both sides of its strongest boundary, (B, 1, T) to (B,).

    Foote's novelty (2000) at its highest: a checkerboard kernel of 2 x 8 seconds along the diagonal of the
    self-similarity matrix, half the mean similarity within both sides less that across. The similarity of two seconds
    is the mean of the cosine of their twelve pitch classes and the correlation of their 40 log-mel bands. 0 where both
    sides are alike on average, as in a loop that is repeated within eight seconds; 1 where each side is one sound
    throughout, the two share no pitch class and their bands are uncorrelated.

    Raises:
        ValueError: shorter than two seconds.
    """
    num_seconds = waveform.shape[-1] // sample_rate
    if num_seconds < 2:
        raise ValueError(f"A piece of at least two seconds is needed, got {waveform.shape[-1] / sample_rate:.1f} s.")
    block = min(BLOCK_SECONDS, num_seconds // 2)
    hop = sample_rate // 50
    mel = log_mel_spectrogram(waveform[:, 0], sample_rate=sample_rate, hop_length=hop, num_mels=40, floor=1e-3)
    novelties = []
    # noise without its mean is chance: so pitch classes keep theirs, and bands flat within 1.4 dB count less
    mel = mel - mel.mean(-1, keepdim=True)
    for frames, rate, least in ((chromagram(waveform, sample_rate=sample_rate), 25, 1e-9), (mel, 50, 1.0)):
        x = frames[:, : num_seconds * rate].unflatten(1, (num_seconds, rate)).mean(2)  # (B, N, F)
        x = x / x.norm(dim=-1, keepdim=True).clamp_min(least)
        means = x.unfold(1, block, 1).mean(-1)  # (B, N - block + 1, F)
        # multiplied out, this is the kernel's sum: both sides with themselves, less one with the other
        novelties.append((means[:, block:] - means[:, :-block]).square().sum(-1) / 2)
    return torch.stack(novelties).mean(0).amax(-1)


def ending_figures(waveform: torch.Tensor, *, sample_rate: int = 24000) -> dict[str, torch.Tensor]:
    """Whether a piece comes to rest or is cut, from levels of half seconds.

    Args:
        waveform: (B, 1, T), more than ten seconds.

    Returns:
        (B,) each. last_second_db: level of the last second over that of the piece. closes: 1 where the last half
        second is at least 20 dB below the median, or below the loudest of the last five seconds. closes_elsewhere:
        the share of other half seconds, but for the first and last five seconds, that would count as a close: what a
        cut at any moment gives.
    """
    half = sample_rate // 2
    whole = waveform[:, 0, waveform.shape[-1] % half :]
    levels = rms_db(whole.unflatten(-1, (-1, half)))  # (B, N)
    num = 2 * TAIL_SECONDS
    recent = F.max_pool1d(F.pad(levels, (num - 1, 0), value=-math.inf), num, 1)  # (B, N)
    closed = levels <= torch.maximum(levels.median(-1, keepdim=True).values, recent) - CLOSE_DB
    return {
        "last_second_db": rms_db(waveform[:, 0, -2 * half :]) - rms_db(waveform[:, 0]),
        "closes": closed[:, -1].float(),
        "closes_elsewhere": closed[:, num:-num].float().mean(-1),
    }


def drift_figures(waveform: torch.Tensor, *, sample_rate: int = 24000) -> dict[str, torch.Tensor]:
    """Slopes of level and brightness over a piece, by least squares.

    Of seconds within 40 dB of the loudest, without the last five, which may close the piece.

    Args:
        waveform: (B, 1, T), more than seven seconds.

    Returns:
        (B,) each. loudness_slope: decibels a minute. centroid_slope: of the spectral centroid, octaves a minute.
    """
    num_seconds = waveform.shape[-1] // sample_rate - TAIL_SECONDS
    seconds = waveform[:, 0, : num_seconds * sample_rate].float().unflatten(-1, (num_seconds, sample_rate))
    levels = rms_db(seconds)  # (B, N)
    window = torch.hann_window(1024, device=waveform.device)
    magnitude = frame_spectra(seconds, window, 512).abs().sum(2)  # (B, N, F)
    hertz = torch.arange(513, device=waveform.device) * (sample_rate / 1024)
    centroid = ((magnitude * hertz).sum(-1) / magnitude.sum(-1).clamp_min(1e-9)).clamp_min(1).log2()  # (B, N)
    weight = (levels >= levels.amax(-1, keepdim=True) - 40).float()
    weight = weight / weight.sum(-1, keepdim=True)
    minutes = torch.arange(num_seconds, device=waveform.device) / 60
    minutes = minutes - (weight * minutes).sum(-1, keepdim=True)  # (B, N)
    spread = (weight * minutes.square()).sum(-1)
    return {
        "loudness_slope": (weight * minutes * levels).sum(-1) / spread,
        "centroid_slope": (weight * minutes * centroid).sum(-1) / spread,
    }


@torch.no_grad()
def long_figures(
    folder: Path, clips: list[Clip], sample_rate: int, judge: ClipJudge, key_judge: KeyJudge
) -> dict[str, Any]:
    """Means over the pieces of a row, and what the judge hears in their `first` and `last` ten seconds.

    Returns:
        `clips`, `seconds`; section_contrast and the figures of `ending_figures` and `drift_figures`; the sizes of the
        slopes whatever their sign, loudness_slope_size and centroid_slope_size; `first` and `last`, each with what
        `recognised` gives for style and family.
    """
    found: dict[str, list[torch.Tensor]] = {}
    for waveform in in_batches(folder, clips, sample_rate, batch_size=1):
        of_piece = {
            "section_contrast": section_contrast(waveform, sample_rate=sample_rate),
            **ending_figures(waveform, sample_rate=sample_rate),
            **drift_figures(waveform, sample_rate=sample_rate),
        }
        of_piece |= {f"{name}_size": value.abs() for name, value in of_piece.items() if name.endswith("slope")}
        for name, value in of_piece.items():
            found.setdefault(name, []).append(value)
    num_samples = round(CLIP_SECONDS * sample_rate)

    def asked_of(part: slice) -> dict[str, Any]:
        parts: Iterable[torch.Tensor] = (batch[..., part] for batch in in_batches(folder, clips, sample_rate))
        heard = judge_row(clips, parts, sample_rate, judge, key_judge)
        asked = [question for question in QUESTIONS if any(question in clip.expected for clip in clips)]
        return {question: recognised(clips, heard[question], question) for question in asked}

    return {
        "clips": len(clips),
        "seconds": clips[0].seconds,
        **{name: torch.cat(values).mean().item() for name, values in found.items()},
        "first": asked_of(slice(num_samples)),
        "last": asked_of(slice(-num_samples, None)),
    }


def long_table(rows: dict[str, dict]) -> list[str]:
    """One line a row; slopes as their mean, and in brackets the mean of their sizes."""
    columns = ["section contrast", "ends (elsewhere)", "last second, dB"]
    columns += [f"{question}, first and last ten seconds" for question in QUESTIONS]
    columns += ["louder, dB a minute", "brighter, octaves a minute"]
    lines = [f"| clips | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{name}, {row['clips']}", f"{row['section_contrast']:.2f}"]
        cells += [f"{row['closes']:.0%} ({row['closes_elsewhere']:.0%})", f"{row['last_second_db']:.1f}"]
        for question in QUESTIONS:
            shares = [row[part][question]["share"] for part in ("first", "last") if question in row[part]]
            cells.append(", ".join(f"{share:.0%}" for share in shares) or "-")
        for slope in ("loudness_slope", "centroid_slope"):
            cells.append(f"{row[slope]:+.2f} ({row[f'{slope}_size']:.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines
