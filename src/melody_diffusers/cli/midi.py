"""`melody midi`, and --midi of `melody generate` and `melody loop`."""

import argparse
from pathlib import Path
from typing import Any


def midi(args: argparse.Namespace) -> int:
    """`melody midi`: the notes that are heard in a sound file."""
    check_midi_output(args, args.output)
    print(write_notes(args.input, args.output, bpm=args.bpm, beats_per_bar=args.beats_per_bar))
    return 0


def check_midi_output(args: argparse.Namespace, path: Path) -> None:
    """Complain before any work: of what is not installed, and of what cannot or must not be written."""
    from ..midi import check_midi

    try:
        check_midi(path, args.overwrite)
    except FileExistsError:  # it may have been edited since: unlike sound, never replaced unasked
        raise ValueError(f"{str(path)!r} is there already; choose another name, or --overwrite.") from None


def write_notes(audio: Any, path: Path, **options: Any) -> str:
    """Writes the file, which `check_midi_output` has allowed, and says what is in it."""
    from ..midi import write_midi

    written = write_midi(audio, path, overwrite=True, **options)
    count = len(written.notes)
    return f"wrote {path}: {count} note{'' if count == 1 else 's'}, {written.bpm:.5g} bpm {written.bpm_from}"
