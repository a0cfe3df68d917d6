"""Folders of recordings, as anyone has them: any format, rate and number of channels, in subfolders or not."""

import os
import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from ..audio import load_audio
from .captions import describe, merge, read_metadata, read_sidecar
from .decoding import DecodeLimits, Decoder

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".aac", ".mp4", ".wma", ".ape", ".wv"),  # which libsndfile cannot decode, and the user is told
)


@dataclass
class Recording:
    """One input: its name in the manifest, where its bytes lie, and what is said of it.

    Args:
        is_temporary: the file was made for the builder, which removes it.
        refused: (reason, detail), when it need not even be opened.
    """

    name: str
    path: Path
    row: dict[str, Any]
    is_temporary: bool = False
    refused: tuple[str, str] | None = None


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


def folder_recordings(folder: Path, paths: list[Path], limit: int | None = None) -> Iterator[Recording]:
    """The first `limit` of all audio files of the folder, with what files beside them and tables say of them."""
    metadata, nothing = read_metadata(folder, paths), describe({})
    for path in paths[:limit]:
        name = path.relative_to(folder).as_posix()
        recording = Recording(name, path, metadata.get(path, nothing))
        try:
            recording.row = merge(read_sidecar(path), recording.row)
        except ValueError as error:
            recording.refused = ("bad_caption", str(error))
        yield recording


def decode_all(
    recordings: Iterator[Recording], limits: DecodeLimits, workers: int, spools: Path
) -> Iterator[tuple[Recording, Path, dict[str, Any]]]:
    """Each recording with the file of its clips and what was found, in order; a few are under way at a time."""
    decoders: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
    every = [Decoder(limits) for _ in range(workers)]
    for decoder in every:
        decoders.put(decoder)

    def work(recording: Recording, spool: Path) -> dict[str, Any]:
        decoder = decoders.get()
        try:
            return decoder.decode(str(recording.path), str(spool))
        finally:
            decoders.put(decoder)
            if recording.is_temporary:
                recording.path.unlink(missing_ok=True)

    pool = ThreadPoolExecutor(workers)
    under_way: deque[tuple[Recording, Path, Future]] = deque()
    try:
        bar = tqdm(recordings, desc="decode", unit="recording")
        for number, recording in enumerate(bar):
            spool = spools / f"{number:09d}.clips"
            future: Future = Future()
            if recording.refused is None:
                future = pool.submit(work, recording, spool)
            else:
                reason, detail = recording.refused
                future.set_result({"clips": [], "reason": reason, "detail": detail})
            under_way.append((recording, spool, future))
            if len(under_way) > 2 * workers:
                recording, spool, future = under_way.popleft()
                yield recording, spool, future.result()
        for recording, spool, future in under_way:
            yield recording, spool, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for decoder in every:
            decoder.close()


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
