"""What judges and metrics say of the rows of a report, from the files of their clips alone.

Shapes: B clips in a batch, N clips in a row, T samples, W vectors of a clip, E embedding width.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from melody_diffusers.audio import resample
from melody_diffusers.evaluation.clips import QUESTIONS, Clip, in_batches
from melody_diffusers.evaluation.cycle_consistency import mulan_cycle_consistency
from melody_diffusers.evaluation.embeddings import Embedding
from melody_diffusers.evaluation.frechet import frechet_distance
from melody_diffusers.evaluation.judges import OCTAVE_RATIOS, TRIPLE_RATIOS, ClipJudge, estimate_bpm, tempo_matches
from melody_diffusers.evaluation.kernel import kernel_audio_distance, median_pairwise_distance
from melody_diffusers.evaluation.key import KeyJudge, relative_key
from melody_diffusers.evaluation.reconstruction import (
    TRUE_MAGNITUDES,
    log_mel_distance,
    reconstruction_figures,
    si_sdr,
    without_phase,
)
from melody_diffusers.evaluation.velocity import velocity_figures
from melody_diffusers.losses import multi_resolution_stft_loss
from melody_diffusers.models.audio_vae import AudioVAEGAN

ROW_CLIPS = 40  # trained listeners take seconds for each
ROWS = ("real", "reconstructed", "from_tokens", "generated", "silence", "noise")


def judge_row(
    clips: list[Clip], waveforms: Iterable[torch.Tensor], sample_rate: int, judge: ClipJudge, key_judge: KeyJudge
) -> dict[str, list]:
    """What the judges hear in one row: one answer per clip to each question of `ClipJudge`, a tempo and a key.

    Args:
        waveforms: batches (B, 1, T) in the order of `clips`.
    """
    heard: dict[str, list] = {question: [] for question in [*judge.config.labels, "bpm", "key"]}
    for batch in waveforms:
        for question, answers in judge.judge(resample(batch, sample_rate, judge.config.sample_rate)).items():
            heard[question] += answers
        heard["key"] += key_judge.judge(resample(batch, sample_rate, key_judge.config.sample_rate))
        for waveform in batch:  # slow, and most clips of some rows name no tempo
            named = clips[len(heard["bpm"])].bpm
            heard["bpm"].append(None if named is None else estimate_bpm(waveform, sample_rate=sample_rate))
    return heard


@torch.no_grad()
def embed_clips(
    waveforms: Iterable[torch.Tensor], sample_rate: int, embeddings: Mapping[str, Embedding]
) -> dict[str, torch.Tensor]:
    """Batches (B, 1, T) in every embedding: name -> (N, W, E)."""
    vectors: dict[str, list[torch.Tensor]] = {name: [] for name in embeddings}
    for batch in waveforms:
        for name, embed in embeddings.items():
            vectors[name].append(embed(batch, sample_rate).unflatten(0, (len(batch), -1)))
    return {name: torch.cat(of_batches) for name, of_batches in vectors.items()}


def recognised(clips: list[Clip], heard: list[str], question: str) -> dict[str, Any]:
    """The share of clips in which a judge hears what was asked: of all, of each class, of each source of prompts."""
    asked = [
        (clip.expected[question], clip.source, answer)
        for clip, answer in zip(clips, heard, strict=True)
        if question in clip.expected
    ]

    def share(pairs: list[tuple[str, str, str]]) -> float:
        return sum(expected == answer for expected, _, answer in pairs) / len(pairs)

    return {
        "share": share(asked),
        "clips": len(asked),
        "by_source": {s: share([a for a in asked if a[1] == s]) for s in sorted({source for _, source, _ in asked})},
        "by_class": {c: share([a for a in asked if a[0] == c]) for c in sorted({expected for expected, _, _ in asked})},
        "confusion": [[expected, answer] for expected, _, answer in asked],
    }


def tempo_hits(clips: list[Clip], estimates: list[float | None]) -> dict[str, float]:
    """Of the clips with a tempo, the shares within 8 % of it (`exact`), and of one of its metrical levels."""

    def exact(bpm: float, clip: Clip) -> bool:
        return tempo_matches(bpm, clip.bpm or 0)

    def at_a_level(bpm: float, clip: Clip) -> bool:
        return tempo_matches(bpm, clip.bpm or 0, ratios=TRIPLE_RATIOS if clip.triple else OCTAVE_RATIOS)

    asked = [i for i, clip in enumerate(clips) if clip.bpm is not None]
    return hits([clips[i] for i in asked], [estimates[i] for i in asked], exact, at_a_level)


def key_hits(clips: list[Clip], heard: list[str]) -> dict[str, float]:
    """Of the clips with a key, the shares in it (`exact`), and in it or the key of the other mode with its notes."""

    def exact(answer: str, clip: Clip) -> bool:
        return answer == clip.key

    def or_relative(answer: str, clip: Clip) -> bool:
        return clip.key in (answer, relative_key(answer))

    asked = [i for i, clip in enumerate(clips) if clip.key is not None]
    return hits([clips[i] for i in asked], [heard[i] for i in asked], exact, or_relative)


def hits(
    clips: list[Clip], answers: list[Any], exact: Callable[[Any, Clip], bool], generous: Callable[[Any, Clip], bool]
) -> dict[str, float]:
    """The shares `exact` and, by the generous measure, `share`; and `shuffled`: the same as `share` for every answer
    with the clip of every other. Over no clips all are NaN."""
    wrong = [generous(a, other) for i, a in enumerate(answers) for j, other in enumerate(clips) if i != j]
    count = len(clips)
    return {
        "share": sum(map(generous, answers, clips)) / count if count else float("nan"),
        "exact": sum(map(exact, answers, clips)) / count if count else float("nan"),
        "shuffled": sum(wrong) / len(wrong) if wrong else float("nan"),
        "clips": count,
    }


def distances(
    embeddings: Mapping[str, torch.Tensor],
    reference: Mapping[str, torch.Tensor],
    bandwidths: Mapping[str, float],
) -> dict[str, dict[str, float]]:
    """`frechet` and `kernel`: for every embedding, the distance of two sets of (N, W, E) vectors."""
    return {
        "frechet": {n: frechet_distance(e.flatten(0, 1), reference[n].flatten(0, 1)) for n, e in embeddings.items()},
        "kernel": {
            n: kernel_audio_distance(e.flatten(0, 1), reference[n].flatten(0, 1), bandwidths[n])
            for n, e in embeddings.items()
        },
    }


def evaluate_clips(
    folder: Path,
    manifest: dict[str, list[Clip]],
    judge: ClipJudge,
    key_judge: KeyJudge,
    pipe: DiffusionPipeline,
    embeddings: Mapping[str, Embedding],
) -> tuple[dict, dict]:
    """All figures of all rows, and the distances of the two halves of the reference, from the files alone.

    Args:
        embeddings: what distances are taken in; "mulan" among them, which is also the space of MCC.
    """
    sample_rate = pipe.sample_rate
    embedded = {
        name: embed_clips(in_batches(folder, manifest[name], sample_rate), sample_rate, embeddings)
        for name in tqdm((*ROWS, "reference"), desc="embedding")
    }

    def styled(name: str) -> dict[str, torch.Tensor]:
        """The embeddings of the clips that stand for a style: equally many of each, in every row."""
        keep = [i for i, clip in enumerate(manifest[name]) if "style" in clip.expected]
        return {embedding: vectors[keep] for embedding, vectors in embedded[name].items()}

    reference = styled("reference")
    bandwidths = {name: median_pairwise_distance(vectors.flatten(0, 1)) for name, vectors in reference.items()}
    rows = {}
    for name in tqdm(ROWS, desc="judging"):
        clips = manifest[name]
        heard = judge_row(clips, in_batches(folder, clips, sample_rate), sample_rate, judge, key_judge)
        texts = pipe.mulan.embed_texts(pipe.tokenizer, [clip.text for clip in clips]).cpu()
        matched, shuffled = mulan_cycle_consistency(embedded[name]["mulan"][:, 0], texts)
        rows[name] = {
            **{question: recognised(clips, heard[question], question) for question in QUESTIONS},
            "tempo": tempo_hits(clips, heard["bpm"]),
            "key": key_hits(clips, heard["key"]),
            "mcc": {"matched": matched, "shuffled": shuffled, "margin": matched - shuffled},
            **distances(styled(name), reference, bandwidths),
        }
    pieces = [clip.piece for clip in manifest["reference"] if "style" in clip.expected]
    numbers = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    is_odd = torch.tensor([numbers[piece] % 2 == 1 for piece in pieces])  # no piece in both halves
    half, other = ({name: vectors[keep] for name, vectors in reference.items()} for keep in (is_odd, ~is_odd))
    if min(is_odd.sum(), (~is_odd).sum()) < 2:  # a covariance needs two
        nans = dict.fromkeys(reference, float("nan"))
        return rows, {"frechet": nans, "kernel": nans}
    return rows, distances(half, other, bandwidths)


@torch.no_grad()
def measure_reconstruction(
    folder: Path, real: list[Clip], reconstructed: list[Clip], vae: AudioVAEGAN
) -> dict[str, Any]:
    """Means over all pairs of three reconstruction figures, the median SI-SDR, and the `rows` of a table.

    The rows hold those of `reconstruction_figures` that some clip has, on at most `ROW_CLIPS` clips at even distances:
    of the reconstructed clips, and of what `without_phase` makes of the real ones.
    """
    sample_rate = vae.sample_rate
    ratios, stft, mel = [], [], []
    for reference, estimate in zip(
        in_batches(folder, real, sample_rate), in_batches(folder, reconstructed, sample_rate), strict=True
    ):
        ratios.append(si_sdr(estimate, reference).flatten())
        mel.append(log_mel_distance(estimate, reference, sample_rate=sample_rate))
        stft += [multi_resolution_stft_loss(estimate[[i]], reference[[i]]) for i in range(len(reference))]
    all_ratios = torch.cat(ratios)
    chosen = [i * len(real) // ROW_CLIPS for i in range(ROW_CLIPS)] if len(real) > ROW_CLIPS else range(len(real))
    originals, *others = (
        [waveform for batch in in_batches(folder, [clips[i] for i in chosen], sample_rate) for waveform in batch]
        for clips in (real, reconstructed)
    )
    estimates = {"reconstructed": others[0]}
    phaseless = [without_phase(vae, waveform[None]) for waveform in originals]
    if phaseless[0] is not None:
        estimates[TRUE_MAGNITUDES] = [waveform[0] for waveform in phaseless]
    rows = {name: reconstruction_figures(clips, originals, sample_rate) for name, clips in estimates.items()}
    return {
        "si_sdr_db": all_ratios.mean().item(),
        "si_sdr_db_median": all_ratios.median().item(),
        "multi_resolution_stft": torch.stack(stft).mean().item(),
        "log_mel_db": torch.cat(mel).mean().item(),
        "clips": len(real),
        "row_clips": len(chosen),
        "rows": {
            name: {figure: value for figure, value in row.items() if math.isfinite(value)} for name, row in rows.items()
        },
    }


@torch.no_grad()
def measure_velocity(folder: Path, real: list[Clip], pipe: DiffusionPipeline, batch_size: int = 8) -> dict[str, float]:
    """The figures of `velocity_figures` on the latents and semantic tokens of real clips, and their number."""

    def encoded() -> Iterator[dict[str, torch.Tensor]]:
        for batch in in_batches(folder, real, pipe.sample_rate, batch_size):
            waveforms = batch.to(pipe.device)
            latents = pipe.vae.encode(waveforms.to(pipe.vae.dtype)).latent_dist.mode()
            tokens = pipe.semantic_tokenizer.encode(waveforms.to(pipe.semantic_tokenizer.dtype))
            yield {"latents": latents.to(pipe.dual_path.dtype), "semantic_tokens": tokens}

    return {**velocity_figures(pipe.dual_path, encoded()), "clips": len(real)}
