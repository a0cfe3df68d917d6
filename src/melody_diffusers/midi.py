"""Music as notes: what is heard in a sound becomes a MIDI file, whose bars have the tempo of the piece.

The notes are heard, not known: docs/midi.md says how many of them are right. Needs the extra `midi`.

Shapes: T samples, N notes.
"""

import io
import numbers
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .audio import DEFAULT_RATE, AudioInput, file_within, is_encoded, load_audio
from .evaluation.judges import TRIPLE_RATIOS, estimate_bpm, tempo_matches
from .evaluation.listeners import LISTENERS, has_listener, transcribe
from .plans import MusicPlan, PlanError

SUFFIXES = (".mid", ".midi")
MAX_SECONDS = 3600.0
TICKS_PER_BEAT = 480
NAMED_BPM = re.compile(r"(?<![\d.])(\d{2,3}(?:\.\d+)?)\s*(?:bpm\b|beats (?:per|a) minute\b)", re.IGNORECASE)
LOWEST_BPM, HIGHEST_BPM = 20.0, 400.0
WHOLE_BPM = 0.002  # the step of `estimate_bpm` is 0.0026: so close to a whole number, that is likelier


@dataclass(frozen=True)
class WrittenMidi:
    """What `write_midi` wrote.

    Attributes:
        notes: (N, 4) in order of time: start and end in seconds, MIDI pitch, strength from 0 to 1.
        bpm: beats a minute, which bars are counted by. bpm_from: how it was found, in words.
    """

    notes: np.ndarray
    bpm: float
    bpm_from: str


def write_midi(
    audio: AudioInput,
    path: str | os.PathLike,
    *,
    sample_rate: int | None = None,
    prompt: str | None = None,
    bpm: float | None = None,
    beats_per_bar: int = 4,
    overwrite: bool = False,
) -> WrittenMidi:
    """Writes the notes that basic-pitch hears in music as a MIDI file of one track, all or nothing.

    Notes stand where they are heard, on no grid, and bar 1 begins where the sound does: put both at the same place of a
    sequencer and they run together. Drums are not told from notes: see docs/midi.md.

    Args:
        audio: a file of any kind, or an array with its rate; see `AudioInput`. At most an hour.
        path: of the file to write, .mid or .midi.
        sample_rate: of an array that comes without its rate.
        prompt: that the music was made for; by default the one in the plan that a file holds.
        bpm: beats a minute, 20 to 400. By default those that the prompt names, if they are heard within 1 %, or half,
            twice, a third or three times as many are, or if no tempo is heard; else those that are heard
            (`estimate_bpm`), rounded where that moves them by 0.2 % at most; else 120, as in MIDI itself.
        beats_per_bar: 1 to 99.
        overwrite: replace the file if it is there.

    Raises:
        ImportError: the extra `midi` or basic-pitch is missing; says how to get them.
        FileExistsError: there is such a file, and `overwrite` was not asked for.
        FileNotFoundError: there is no such sound file.
        ValueError: an argument is not as it must be, or the sound cannot be used.
    """
    check_midi(path, overwrite)
    if bpm is not None and not (isinstance(bpm, numbers.Real) and LOWEST_BPM <= bpm <= HIGHEST_BPM):
        raise ValueError(f"bpm must be a number from {LOWEST_BPM:g} to {HIGHEST_BPM:g}, or None; got {bpm!r}.")
    if not isinstance(beats_per_bar, int) or not 1 <= beats_per_bar <= 99:
        raise ValueError(f"beats_per_bar must be a whole number from 1 to 99; got {beats_per_bar!r}.")
    source = file_within(audio)
    waveform = load_audio(source, max_seconds=MAX_SECONDS, source_rate=sample_rate)  # (1, T)
    if prompt is None and is_encoded(source):
        prompt = _prompt_within(source)
    bpm, bpm_from = (bpm, "as given") if bpm is not None else find_tempo(waveform, prompt)
    notes = transcribe(waveform, sample_rate=DEFAULT_RATE)
    _save(Path(path), _midi_bytes(notes, bpm, beats_per_bar))
    return WrittenMidi(notes, bpm, bpm_from)


def check_midi(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Raises what `write_midi` would about what is installed and about its file, before any work."""
    if not has_listener("notes"):
        raise ImportError(f"MIDI needs basic-pitch and what it imports: {LISTENERS['notes'][1]}")
    place = Path(path)
    if place.suffix.lower() not in SUFFIXES:
        raise ValueError(f"A MIDI file must end in {' or '.join(SUFFIXES)}; got {str(place)!r}.")
    if not place.parent.is_dir():
        raise ValueError(f"{str(place)!r} cannot be written: there is no folder {str(place.parent)!r}.")
    if place.is_dir():
        raise ValueError(f"{str(place)!r} is a folder; name a file in it.")
    if os.path.lexists(place) and not overwrite:
        raise FileExistsError(f"{str(place)!r} is there already; choose another name, or ask to overwrite it.")


def find_tempo(waveform: torch.Tensor, prompt: str | None = None) -> tuple[float, str]:
    """The tempo of (1, T) at 24 kHz as `write_midi` finds it: beats a minute, and how it was found."""
    heard = estimate_bpm(waveform)
    named = {float(number) for number in NAMED_BPM.findall(prompt or "")}
    for bpm in named if len(named) == 1 else ():  # a prompt that mixes may name several
        is_heard = tempo_matches(heard, bpm, tolerance=0.01, ratios=TRIPLE_RATIOS)
        if LOWEST_BPM <= bpm <= HIGHEST_BPM and (heard == 0 or is_heard):
            return bpm, "as the prompt names it" + (", and as heard" if is_heard else "; no tempo is heard")
    if heard == 0:
        return 120.0, "for want of one that is heard"
    is_whole = abs(heard - round(heard)) <= WHOLE_BPM * heard
    return float(round(heard)) if is_whole else heard, "as heard"


def _prompt_within(source: Any) -> str | None:
    """The prompt of the plan that a sound file holds, if it does."""
    try:
        if isinstance(source, (str, os.PathLike)):
            return MusicPlan.load(source).prompt
        return MusicPlan.from_sound_file(source).prompt
    except PlanError:
        return None


def _midi_bytes(notes: np.ndarray, bpm: float, beats_per_bar: int) -> bytes:
    """A MIDI file of the notes (N, 4)."""
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(resolution=TICKS_PER_BEAT, initial_tempo=bpm)
    midi.time_signature_changes.append(pretty_midi.TimeSignature(beats_per_bar, 4, 0))
    track = pretty_midi.Instrument(program=0, name="notes")
    for start, end, pitch, strength in notes.tolist():
        velocity = min(max(round(127 * strength), 1), 127)  # 0 would end a note
        track.notes.append(pretty_midi.Note(velocity, int(pitch), start, end))
    midi.instruments.append(track)
    file = io.BytesIO()
    midi.write(file)
    return file.getvalue()


def _save(place: Path, data: bytes) -> None:
    aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.write_bytes(data)
        os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)
