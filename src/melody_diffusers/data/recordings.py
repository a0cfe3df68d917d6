"""Folders of recordings, as anyone has them: any format, rate and number of channels, in subfolders or not."""

import os
from pathlib import Path

from torch import Tensor

from ..audio import load_audio

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")


def read_recordings(
    folder: str | os.PathLike, sample_rate: int, max_seconds: float, min_seconds: float
) -> list[tuple[Tensor, str]]:
    """Clips (1, T) of all recordings, each with its recording's caption, or "" where there is none.

    A caption is the text in `name.txt` beside `name.wav`.

    Args:
        folder: WAV, FLAC, MP3 and Ogg files, also in subfolders; taken in the order of their names.
        sample_rate: of the clips.
        max_seconds: recordings are cut into clips of this length; the last one is what remains.
        min_seconds: shorter clips are left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file cannot be decoded, or there is no recording of `min_seconds`; names it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder of recordings at {folder}.")
    files = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in AUDIO_SUFFIXES]
    files = [path for path in files if not path.name.startswith(".")]  # such are notes of file systems
    clips = []
    for path in files:
        text = path.with_suffix(".txt")
        caption = text.read_text(encoding="utf-8").strip() if text.is_file() else ""
        pieces = load_audio(path, sample_rate).split(round(max_seconds * sample_rate), dim=-1)
        clips += [(piece, caption) for piece in pieces if piece.shape[-1] >= round(min_seconds * sample_rate)]
    if not clips:
        raise ValueError(
            f"{folder} holds no recording of {min_seconds:g} s or more: found {len(files)} files that end in "
            f"{', '.join(AUDIO_SUFFIXES)}."
        )
    return clips
