"""Folders of recordings, as anyone has them: any format, rate and number of channels, in subfolders or not."""

import os
from pathlib import Path

from torch import Tensor

from ..audio import load_audio

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".aac", ".mp4", ".wma", ".ape", ".wv"),  # which libsndfile cannot decode, and the user is told
)


def audio_paths(folder: Path) -> list[Path]:
    """All paths below the folder that are named like audio files, in one order on every machine.

    Among them are folders with such names and folders that cannot be listed, so that whoever opens them says so. Links
    to folders are not followed.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=lambda error: found.append(Path(error.filename))):
        names = [name for name in files + folders if not name.startswith(".")]  # such are notes of file systems
        found.extend(Path(parent, name) for name in names if Path(name).suffix.lower() in AUDIO_SUFFIXES)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_recordings(
    folder: str | os.PathLike, sample_rate: int, max_seconds: float, min_seconds: float
) -> list[tuple[Tensor, str]]:
    """Clips (1, T) of all recordings, each with its recording's caption, or "" where there is none.

    A caption is the text in `name.txt` beside `name.wav`.

    Args:
        folder: holds recordings, also in subfolders; taken in the order of their names.
        sample_rate: of the clips.
        max_seconds: recordings are cut into clips of this length; the last one is what remains.
        min_seconds: shorter clips are left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file cannot be decoded, or there is no recording of `min_seconds`; names it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder of recordings at {folder}.")
    files, clips = audio_paths(Path(folder)), []
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
