"""Listeners that others have trained, for judging a reconstruction: ViSQOL, and the notes that basic-pitch hears.

Each needs packages that nothing else here does; `missing_listeners` says which are absent and how to get them. Both run
on the CPU.

Shapes: B clips, T samples, N notes.
"""

import importlib.util
import logging
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from melody_diffusers.audio import resample, save_audio

LISTENERS = {
    "visqol": (("visqol",), "pip install 'melody-diffusers[judges]'"),
    "notes": (
        ("basic_pitch", "onnxruntime", "mir_eval", "librosa", "resampy", "pretty_midi"),
        "pip install 'melody-diffusers[midi]' && pip install --no-deps basic-pitch==0.4.0",
    ),
}
"""Name -> the packages it imports, and how to get them."""

LEAD_SECONDS = 0.25  # of silence before a recording: an onset in its very first frames is not heard otherwise
MIN_FRAMES = 5  # of 11.6 ms; by itself basic-pitch keeps 11, 128 ms, when a sixteenth at 120 bpm takes 125


def has_listener(name: str) -> bool:
    """Whether a key of `LISTENERS` can be used."""
    return all(importlib.util.find_spec(package) for package in LISTENERS[name][0])


def missing_listeners() -> list[str]:
    """One line for each of `LISTENERS` that cannot be used: what is left out, and what to install."""
    return [f"Left out: {name} (`{todo}`)." for name, (_, todo) in LISTENERS.items() if not has_listener(name)]


@lru_cache(maxsize=1)
def _visqol() -> Any:
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="audio")
    return api


def visqol(estimate: torch.Tensor, reference: torch.Tensor, *, sample_rate: int = 24000) -> torch.Tensor:
    """ViSQOL in audio mode: a guess at the mean opinion of listeners, 1 to 4.73 for a copy, higher is better.

    Chinen et al. 2020, as visqol-python computes it, at 48 kHz. It compares spectrograms without phase, in bands as
    wide as those of the ear, and was fitted to what listeners said of codecs: wrong notes within a band are no loss.

    Args:
        estimate, reference: (B, 1, T).

    Returns:
        (B,); NaN where one of the two is silent.
    """
    scores = []
    for pair in zip(reference, estimate, strict=True):
        if any(clip.abs().max() == 0 for clip in pair):
            scores.append(float("nan"))
        else:
            clips = (resample(clip, sample_rate, 48000)[0].double().cpu().numpy() for clip in pair)
            scores.append(_visqol().measure_from_arrays(*clips, 48000).moslqo)
    return torch.tensor(scores)


@lru_cache(maxsize=1)
def _basic_pitch() -> Any:
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of each inference library that is absent
    try:
        from basic_pitch import FilenameSuffix, build_icassp_2022_model_path
        from basic_pitch.inference import Model
    finally:
        logging.disable(level)
    return Model(build_icassp_2022_model_path(FilenameSuffix.onnx))


def heard_notes(waveform: torch.Tensor, *, sample_rate: int = 24000) -> list[np.ndarray]:
    """The notes that basic-pitch (Bittner et al. 2022) hears in each clip of (B, 1, T), at its usual thresholds.

    Returns:
        B arrays (N, 3) in order of time: start and end in seconds, MIDI pitch.
    """
    return [_notes(clip, sample_rate)[:, :3] for clip in waveform]


def transcribe(waveform: torch.Tensor, *, sample_rate: int = 24000) -> np.ndarray:
    """All notes that basic-pitch hears in one recording (1, T), where `heard_notes` leaves some out.

    Down to 58 ms, less than half of what basic-pitch keeps by itself, and up to both ends of the recording. Each has an
    onset of its own that the model hears. By itself basic-pitch also guesses onsets from what grows louder, and by that
    may lose the clearest one of a recording; and it looks for notes without any, in a time that grows with the square
    of the length. On the open data set neither raises F1.

    Returns:
        (N, 4) in order of time: start and end in seconds, MIDI pitch from 21 to 108, strength from 0 to 1.
    """
    seconds = waveform.shape[-1] / sample_rate
    lead = round(LEAD_SECONDS * sample_rate)
    # it counts 86 frames a second, of which there are 86.6, and drops what is then left at the end
    padded = F.pad(waveform.float().cpu(), (lead, lead + waveform.shape[-1] // 100))
    notes = _notes(padded, sample_rate, min_note_len=MIN_FRAMES, infer_onsets=False, melodia_trick=False)
    notes[:, :2] = (notes[:, :2] - LEAD_SECONDS).clip(0, seconds)
    return notes[notes[:, 0] < notes[:, 1]]


def _notes(clip: torch.Tensor, sample_rate: int, **options: Any) -> np.ndarray:
    """(N, 4) as in `transcribe` of a clip (1, T); `options` are of basic-pitch's `model_output_to_notes`."""
    if not clip.any():  # of which it would divide 0 by 0
        return np.zeros((0, 4))
    model = _basic_pitch()
    from basic_pitch.inference import run_inference
    from basic_pitch.note_creation import model_output_to_notes

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"  # it reads files alone
        save_audio(path, clip.float().cpu(), sample_rate)
        output = run_inference(path, model)
    _, events = model_output_to_notes(output, 0.5, 0.3, include_pitch_bends=False, **options)
    return np.array(sorted(event[:4] for event in events), float).reshape(-1, 4)


def notes_f1(estimated: np.ndarray, reference: np.ndarray) -> float:
    """The F1 of notes (N, 3) as in `heard_notes`: right are those of the right pitch within 50 ms of the right start.

    Ends do not matter, and each note counts once (`mir_eval.transcription`). NaN if the reference has no notes.
    """
    from mir_eval.transcription import precision_recall_f1_overlap

    if len(reference) == 0:
        return float("nan")
    if len(estimated) == 0:
        return 0.0
    arguments = [
        part
        for notes in (reference, estimated)
        # an end is never looked at, but has to come after the start
        for part in (np.stack([notes[:, 0], notes[:, 0] + 0.1], 1), 440 * 2 ** ((notes[:, 2] - 69) / 12))
    ]
    return precision_recall_f1_overlap(*arguments, offset_ratio=None)[2]


def notes_figures(
    estimate: torch.Tensor,
    reference: torch.Tensor,
    *,
    sample_rate: int = 24000,
    written: Sequence[np.ndarray] | None = None,
) -> dict[str, torch.Tensor]:
    """How many of the notes are still heard, `notes_f1`, higher is better.

    Args:
        estimate, reference: (B, 1, T).
        written: the notes of each clip as its composer wrote them, (N, 3) as in `heard_notes`, if they are known.

    Returns:
        (B,) each. notes_f1: of the notes heard in the estimate against those heard in the reference. written_notes_f1:
        against those written; the reference itself says what of them can be heard at all.
    """
    estimated = heard_notes(estimate, sample_rate=sample_rate)
    expected = {"notes_f1": heard_notes(reference, sample_rate=sample_rate)}
    if written is not None:
        expected["written_notes_f1"] = list(written)
    return {
        name: torch.tensor([notes_f1(*pair) for pair in zip(estimated, notes, strict=True)])
        for name, notes in expected.items()
    }
