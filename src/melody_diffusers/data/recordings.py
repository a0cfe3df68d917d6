"""Folders of recordings, as anyone has them: any format, rate and number of channels, in subfolders or not."""

import hashlib
import io
import json
import os
import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile
from torch import Tensor
from tqdm.auto import tqdm

from ..audio import load_audio
from .captions import describe, merge, read_metadata, read_sidecar, widen
from .decoding import DecodeLimits, Decoder

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".aac", ".mp4", ".webm", ".wma", ".ape", ".wv"),  # which PyAV decodes, if it is there
)
MANIFEST = "manifest.jsonl"  # of a data set folder that was built here


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


@dataclass
class Accepted:
    """A recording that can be used.

    Args:
        sha256: of its bytes.
        row: captions and tags, also those captions that are made of tags.
        spool: the file with its clips, encoded one after the other.
        clips: (bytes, start in seconds, seconds) of each.
        split: where a data set has put it.
    """

    name: str
    sha256: str
    row: dict[str, Any]
    spool: Path
    clips: list[tuple[int, float, float]]
    split: str | None = None

    @property
    def seconds(self) -> float:
        return sum(seconds for *_, seconds in self.clips)

    def waveforms(self, sample_rate: int) -> Iterator[Tensor]:
        """The clips, (1, T) each."""
        with open(self.spool, "rb") as file:
            for num_bytes, *_ in self.clips:
                yield load_audio(file.read(num_bytes), sample_rate)


@dataclass
class FolderReading:
    """What a folder holds: recordings that can be used, and (name, reason, detail) of each that cannot."""

    min_seconds: float
    accepted: list[Accepted] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        clips = sum(len(recording.clips) for recording in self.accepted)
        described = sum(len(recording.clips) for recording in self.accepted if recording.row["captions"])
        files = len(self.accepted) + len(self.refused)
        text = f"used {len(self.accepted)} of {files} files ({clips} clips, {described} with captions or tags)"
        reasons: dict[str, list[str]] = {}
        for name, reason, detail in self.refused:
            reasons.setdefault(reason, []).append(f"{name}: {detail}")
        parts = []
        for reason, names in sorted(reasons.items()):
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            todo = f"; the least is {self.min_seconds:g} s: join several, or repeat it" if reason == "too_short" else ""
            parts.append(f"{len(names)} {reason} ({', '.join(names[:3])}{more}{todo})")
        return text + (f"; refused {len(self.refused)}: {', '.join(parts)}" if parts else "")


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
    recordings: Iterator[Recording], limits: DecodeLimits, workers: int, spools: Path, total: int | None = None
) -> Iterator[tuple[Recording, Path, dict[str, Any]]]:
    """Each recording with the file of its clips and what was found, in order; a few are under way at a time.

    Bytes that came before are refused, and the row takes from the file's own tags what nothing else says.
    """
    digests: set[str] = set()
    for recording, spool, found in _decode_each(recordings, limits, workers, spools, total):
        if found["reason"] is None and found["sha256"] in digests:
            found |= {"reason": "duplicate", "detail": "the same bytes as an earlier file", "clips": []}
        if found["reason"] is None:
            digests.add(found["sha256"])
            recording.row = merge(recording.row, describe({"genre": found["genre"]}))
        yield recording, spool, found


def _decode_each(
    recordings: Iterator[Recording], limits: DecodeLimits, workers: int, spools: Path, total: int | None
) -> Iterator[tuple[Recording, Path, dict[str, Any]]]:
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
        bar = tqdm(recordings, desc="decode", unit="recording", total=total)
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


def read_folder(folder: str | os.PathLike, limits: DecodeLimits, spools: Path, workers: int = 1) -> FolderReading:
    """All recordings of a folder, decoded and cut, and why the others cannot be used: no file ends it.

    The same files are accepted and refused, for the same reasons, as by `melody data build`, and captions and tags come
    from the same places. Splits there are none, but in a data set folder that `melody data build` wrote.

    Args:
        folder: audio files, also in subfolders, or a data set folder that `melody data build` wrote.
        spools: a folder for the decoded clips, which the caller removes.
        workers: processes that decode.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a table of captions cannot be read, or the folder holds nothing that can be used; says why.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of recordings at {folder}.")
    reading = FolderReading(limits.min_seconds)
    if (folder / MANIFEST).is_file() and any((folder / "data").glob("*.parquet")):
        reading.accepted = _built_recordings(folder, limits, spools)
    else:
        paths = audio_paths(folder)
        recordings = folder_recordings(folder, paths)
        for recording, spool, found in decode_all(recordings, limits, workers, spools, len(paths)):
            if found["reason"] is not None:
                reading.refused.append((recording.name, found["reason"], found["detail"]))
                spool.unlink(missing_ok=True)
                continue
            row, clips = widen(recording.row), [tuple(clip) for clip in found["clips"]]
            reading.accepted.append(Accepted(recording.name, found["sha256"], row, spool, clips))
    if not reading.accepted:
        what = f"{reading}" if reading.refused else f"it has no files that end in {', '.join(AUDIO_SUFFIXES)}"
        raise ValueError(f"{folder} holds no recording that can be used: {what}.")
    return reading


def _built_recordings(folder: Path, limits: DecodeLimits, spools: Path) -> list[Accepted]:
    """The recordings of a data set folder, with their clips as they were cut there; shorter ones are left out."""
    import pyarrow.parquet as pq

    with open(folder / MANIFEST, encoding="ascii") as lines:
        digests = {line["path"]: line["sha256"] for line in map(json.loads, lines) if line["reason"] is None}
    found: dict[tuple[str, str], Accepted] = {}
    for file in sorted((folder / "data").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(32):
            for columns in batch.to_pylist():
                content, name = columns.pop("audio")["bytes"], columns["recording"]
                seconds = soundfile.info(io.BytesIO(content)).duration
                if seconds < limits.min_seconds:
                    continue
                split = file.name.split("-")[0]
                key = (name, split)  # a recording of which the end is held out is in several
                if key not in found:
                    spool = spools / f"{len(found):09d}.clips"
                    digest = digests.get(name) or hashlib.sha256(name.encode()).hexdigest()
                    digest += "" if split == "train" else f"-{split}"
                    found[key] = Accepted(name, digest, describe(columns), spool, [], split)
                with open(found[key].spool, "ab") as output:
                    found[key].clips.append((output.write(content), columns["start_seconds"], seconds))
    return list(found.values())
