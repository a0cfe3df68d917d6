"""The notes of a piece of the open data set, which its composer knows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from compose import compose
from ensembles import unseen_leads
from tunes import load


def written_notes(row: Mapping[str, Any], seconds: float, tunes_file: Path | None = None) -> np.ndarray | None:
    """All pitched notes of a piece of synthetic/compose.py, (N, 3): start and end in seconds, MIDI pitch.

    None where the composer makes another piece of the row's style and seed than it did when the data set was built.

    Args:
        row: of a data set of build.py, without its sound. seconds: of its clip.
        tunes_file: holds the tunes that its data set arranges.
    """
    tunes = load(str(tunes_file)) if tunes_file is not None else ()
    is_unseen = row["lead"] in unseen_leads(row["style"])
    piece = compose(row["style"], row["seed"], seconds, is_unseen, tunes)
    if any(getattr(piece.tags, name) != row[name] for name in ("lead", "bpm", "key", "mood", "instruments")):
        return None
    beat = 60 / piece.tags.bpm
    notes = [
        (note.start * beat, (note.start + note.length) * beat, note.pitch)
        for track in piece.tracks
        if track.role not in ("drums", "texture")
        for note in track.notes
    ]
    return np.array(sorted(notes), float).reshape(-1, 3)
