"""Builds a data set folder from recordings of any kind: what is sound becomes clips, what is not gets a reason.

The folder has the layout that `AudioClips` and `datasets.load_dataset` read: data/<split>-*.parquet with encoded clips
and what is known of them, a card, and manifest.jsonl with one line for each recording, accepted or refused. The same
recordings and settings give the same bytes.
"""

import hashlib
import io
import itertools
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Audio, Features, List, Value

from ..files import put_in_place
from .captions import LIST_COLUMNS, TEXT_COLUMNS, describe, widen
from .decoding import DecodeLimits
from .outlines import same_music
from .recordings import AUDIO_SUFFIXES, MANIFEST, Recording, audio_paths, decode_all, folder_recordings

CLIPS_PER_SHARD = 512
CLIPS_PER_ROW_GROUP = 32
SPLITS = ("train", "validation", "test")
_FACTS = ("sha256", "format", "rate", "channels", "seconds", "peak", "level_db")

CARD = """---
task_categories:
- text-to-audio
tags:
- music
---

# {name}

{clips} clips of up to {clip_seconds:g} s, mono, {sample_rate} Hz, 16-bit FLAC, cut from {recordings} recordings by
`melody data build`. All clips of a recording are in one split. `manifest.jsonl` says of each input file what it is and
which split it went to, or why it was refused.

| split | recordings | clips | hours |
|---|---|---|---|
{rows}

Without torchcodec, `datasets` does not decode audio; soundfile does:

```python
import io, soundfile
from datasets import Audio, load_dataset

clips = load_dataset("{name}", split="train").cast_column("audio", Audio(decode=False))
samples, rate = soundfile.read(io.BytesIO(clips[0]["audio"]["bytes"]))
```

Columns: `audio`; `captions`; the tags `style`, `mood`, `tempo`, `key`, `meter`, `instruments`, `bpm`, `tags`;
`recording` and `start_seconds`, where the clip was cut.

The rights to the recordings are their owners'; say here under which licence you may pass them on.
"""


class Clip(NamedTuple):
    """A clip of a recording: its number, where its bytes lie in the recording's spool, and what it was cut from."""

    number: int
    place: int
    num_bytes: int
    start_seconds: float
    seconds: float


@dataclass
class BuildSummary:
    """What a build did: hours and clips by split, and how many recordings were refused by reason."""

    seconds: dict[str, float] = field(default_factory=dict)
    clips: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    recordings: int = 0
    loops: int = 0
    hours_per_hour: float = 0.0

    def __str__(self) -> str:
        lines = [f"{split}: {n} clips, {self.seconds[split] / 3600:.3g} h" for split, n in self.clips.items()]
        counts = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
        lines.append(
            f"refused {sum(self.refused.values())} of {self.recordings} recordings" + (counts and f": {counts}")
        )
        if self.loops:
            lines.append(f"{self.loops} recordings are shorter than a clip has to be: loops, which trainings repeat")
        return "\n".join([*lines, f"{self.hours_per_hour:.0f} hours of music per hour"])


def build_dataset(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    limits: DecodeLimits | None = None,
    validation_share: float = 0.05,
    test_share: float = 0.05,
    split: str = "train",
    streaming: bool = False,
    max_recordings: int | None = None,
    workers: int = 1,
    replace: bool = False,
) -> BuildSummary:
    """Writes the data set folder `out`, all or nothing.

    A recording is decoded, checked against `limits`, mixed to mono, resampled and cut. Its split follows from a hash of
    its bytes; what an earlier data set in `out` says of it, or of another file of the same music, comes first. So it
    stays where it is when others come or go. Of one or two recordings, the last clips are held out. Captions and tags
    come from files beside it (`read_sidecar` of captions.py), from tables (`read_metadata`), from the columns of a
    Hugging Face data set, and from the tags in the file; none is needed.

    Args:
        source: a folder of audio files, also in subfolders (links to folders are not followed), or a Hugging Face data
            set with an audio column: a folder, or a name on the Hub.
        validation_share: of the recordings, for validation, one at least if there are three; likewise `test_share`.
        split: which split of a Hugging Face data set is read.
        streaming: do not download the whole of it first.
        max_recordings: stop after so many inputs.
        workers: processes that decode.
        replace: build the data set anew that this function wrote to `out` before.

    Raises:
        FileExistsError: there is a data set in `out`, and `replace` is False.
        ValueError: an argument or a table of captions is wrong, `out` is something else, or nothing can be used.
        OSError: `out` could not be replaced; the message names the folder that holds the new data set.
    """
    limits, out = DecodeLimits() if limits is None else limits, Path(out)
    if not 0 <= validation_share < 1 or not 0 <= test_share < 1 or validation_share + test_share >= 1:
        raise ValueError(f"The shares must be at least 0 and sum to below 1, got {validation_share} and {test_share}.")
    if workers < 1 or (max_recordings is not None and max_recordings < 1):
        raise ValueError(f"workers and max_recordings must be at least 1, got {workers} and {max_recordings}.")
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} exists and is no data set that was built here; it will not be replaced.")
    if (out / MANIFEST).is_file() and not replace:
        raise FileExistsError(
            f"{out} holds a data set already. To build it anew, with recordings that came or went since, pass "
            "replace=True (--replace): those that stay keep their splits."
        )
    if Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(f"{out} lies within {source}, which it would become part of.")
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    spools = partial / "spools"
    spools.mkdir(parents=True)
    try:
        started, manifest, accepted = time.monotonic(), [], []
        outlines: dict[str, np.ndarray] = {}
        recordings, total = _recordings(source, split, streaming, max_recordings, spools)
        for recording, spool, found in decode_all(recordings, limits, workers, spools, total):
            line = {"path": recording.name} | {name: found.get(name) for name in _FACTS}
            line |= {"clips": len(found["clips"]), "split": None, "reason": found["reason"], "detail": found["detail"]}
            manifest.append(line)
            if found["reason"] is None:
                outlines[found["sha256"]] = np.frombuffer(bytes.fromhex(found["outline"]), np.uint8)
                accepted.append((line, widen(recording.row), spool, _placed(found["clips"])))
            else:
                spool.unlink(missing_ok=True)
        refused = Counter(line["reason"] for line in manifest if line["reason"] is not None)
        if not accepted:
            counts = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
            raise ValueError(f"{source} holds no recording that can be used: {counts or 'no audio files at all'}.")
        lines = [line for line, *_ in accepted]
        earlier = _earlier_lines(out)
        _choose_splits(lines, same_music(lines, outlines), earlier, validation_share, test_share)
        loops = sum(clips[0].seconds < limits.min_seconds for *_, clips in accepted)
        summary = BuildSummary(recordings=len(manifest), refused=dict(sorted(refused.items())), loops=loops)
        held_out = [name for name, share in (("validation", validation_share), ("test", test_share)) if share > 0]
        by_split = _clips_by_split(accepted, held_out, earlier)
        for name, chosen in by_split.items():
            summary.clips[name] = sum(len(clips) for *_, clips in chosen)
            summary.seconds[name] = sum(clip.seconds for *_, clips in chosen for clip in clips)
            _write_split(partial / "data", name, chosen, limits.sample_rate)
        for *_, spool, _ in accepted:
            spool.unlink()
        summary.hours_per_hour = sum(summary.seconds.values()) / (time.monotonic() - started)
        with open(partial / MANIFEST, "w", encoding="ascii") as file:
            file.writelines(json.dumps(line) + "\n" for line in manifest)
        _write_card(partial, out.name, summary, [line for line, *_ in accepted], limits)
        shutil.rmtree(spools)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    put_in_place(partial, out)  # what fails here costs neither data set
    return summary


def _recordings(
    source: str | os.PathLike, split: str, streaming: bool, limit: int | None, spools: Path
) -> tuple[Iterator[Recording], int | None]:
    """All recordings of a source, and how many there are where that is known before."""
    folder = Path(source)
    paths = audio_paths(folder) if folder.is_dir() else []
    if paths:
        return folder_recordings(folder, paths, limit), min(len(paths), limit or len(paths))
    if folder.is_dir() and not any(folder.rglob("*.parquet")) and not any(folder.rglob("*.arrow")):
        raise ValueError(f"{source} holds neither audio files ({', '.join(AUDIO_SUFFIXES)}) nor a data set.")
    return _dataset_recordings(source, split, streaming, limit, spools), limit


def _dataset_recordings(
    source: str | os.PathLike, split: str, streaming: bool, limit: int | None, spools: Path
) -> Iterator[Recording]:
    saved = Path(source)
    if (saved / "dataset_dict.json").is_file() or (saved / "state.json").is_file():  # by `save_to_disk`
        dataset = datasets.load_from_disk(str(saved / split if (saved / "dataset_dict.json").is_file() else saved))
    else:
        dataset = datasets.load_dataset(str(source), split=split, streaming=streaming)
    columns = dataset.features or dict.fromkeys(next(iter(dataset)))
    audio = [name for name, kind in columns.items() if isinstance(kind, Audio) or name == "audio"]
    if not audio:
        raise ValueError(f"{source} has no audio column, only {', '.join(columns)}.")
    dataset = dataset.cast_column(audio[0], Audio(decode=False))  # bytes, or the path of a file
    for index, columns in enumerate(dataset):
        if index == limit:
            break
        sound = columns.pop(audio[0]) or {"bytes": None, "path": None}
        name = f"{index:07d}" + (f"-{Path(sound['path']).name}" if sound["path"] else "")
        recording = Recording(name, Path(sound["path"] or ""), describe(columns))
        if sound["bytes"] is None and not sound["path"]:
            recording.refused = ("unreadable", "the row holds no audio")
        elif sound["bytes"] is not None or "://" in sound["path"]:  # of an audio folder on the Hub, in streaming
            recording.path, recording.is_temporary = spools / f"{index:07d}.input", True
            try:
                with io.BytesIO(sound["bytes"]) if sound["bytes"] is not None else fsspec.open(sound["path"]) as file:
                    with open(recording.path, "wb") as copy:
                        shutil.copyfileobj(file, copy)
            except (OSError, ValueError, KeyError) as error:
                recording.refused = ("unreadable", type(error).__name__)
        yield recording


def _earlier_lines(out: Path) -> dict[str, dict[str, Any]]:
    """sha256 -> line of the manifest of the data set that is to be replaced."""
    if not (out / MANIFEST).is_file():
        return {}
    with open(out / MANIFEST, encoding="ascii") as file:
        return {line["sha256"]: line for line in map(json.loads, file) if line["split"] is not None}


def _placed(clips: list[list]) -> list[Clip]:
    places = itertools.accumulate((num_bytes for num_bytes, *_ in clips), initial=0)
    return [Clip(number, place, *clip) for number, (place, clip) in enumerate(zip(places, clips))]


def _choose_splits(
    lines: list[dict[str, Any]],
    music: dict[str, str],
    earlier: dict[str, dict[str, Any]],
    validation_share: float,
    test_share: float,
) -> None:
    """Fills in `split`: what it was; else the lowest hashes are for testing, the next ones for validation.

    Recordings of the same music (`music`, as `same_music` gives it) go together.
    """
    groups: dict[str, str | None] = {}
    for line in sorted(lines, key=lambda line: line["sha256"]):
        key = music[line["sha256"]]
        groups[key] = groups.get(key) or earlier.get(line["sha256"], {}).get("split")
    sizes = Counter(music[line["sha256"]] for line in lines)
    # the lowest of several hashes would be held out more often than one
    places = {key: key if sizes[key] == 1 else hashlib.sha256(key.encode()).hexdigest() for key in groups}
    new = sorted((key for key, split in groups.items() if split is None), key=places.__getitem__)
    shares = {"test": test_share, "validation": validation_share}
    for split, share in shares.items():
        most = share + (test_share if split != "test" else 0)
        chosen = [key for key in new if int(places[key][:8], 16) / 2**32 < most]
        if not chosen and share > 0 and len(groups) >= 3 and split not in groups.values():
            chosen = new[:1]
        groups |= dict.fromkeys(chosen, split)
        new = [key for key in new if key not in chosen]
    for line in lines:
        line["split"] = groups[music[line["sha256"]]] or "train"


def _clips_by_split(
    accepted: list[tuple], held_out: list[str], earlier: dict[str, dict[str, Any]]
) -> dict[str, list[tuple]]:
    """The recordings of each split that has any, with their clips.

    Where a split of `held_out` has no recording, it gets one of the last clips of the longest that is trained on. The
    manifest notes how many in `held_out_clips`, and they stay held out when other recordings come.
    """
    found = {name: [item for item in accepted if item[0]["split"] == name] for name in SPLITS}
    missing = [name for name in held_out if not found[name]]
    parted = [item for item in found["train"] if earlier.get(item[0]["sha256"], {}).get("held_out_clips")]
    if missing and not parted and found["train"]:
        parted = [max(found["train"], key=lambda item: len(item[3]))]
    for item in parted:
        line, row, spool, clips = item
        names = held_out if earlier.get(line["sha256"], {}).get("held_out_clips") else missing
        if len(clips) > len(names):
            line["held_out_clips"] = len(names)
            found["train"][found["train"].index(item)] = (line, row, spool, clips[: -len(names)])
            for name, clip in zip(names, clips[-len(names) :]):
                found[name].append((line, row, spool, [clip]))
    return {name: items for name, items in found.items() if items}


def _write_split(folder: Path, split: str, chosen: list[tuple], sample_rate: int) -> None:
    """data/<split>-*.parquet from the clips of the chosen recordings."""
    # `datasets` takes the splits from these names. If the card named them instead, it would go on serving its cached
    # copy after the files had changed.
    folder.mkdir(exist_ok=True)
    num_shards = -(-sum(len(clips) for *_, clips in chosen) // CLIPS_PER_SHARD)
    columns = {name: List(Value("string")) if name in LIST_COLUMNS else Value("string") for name in TEXT_COLUMNS}
    columns |= {"bpm": Value("int32"), "recording": Value("string"), "start_seconds": Value("float32")}
    schema = Features({"audio": Audio(sampling_rate=sample_rate), **columns}).arrow_schema
    rows = _rows(chosen)
    for shard in range(num_shards):
        with pq.ParquetWriter(folder / f"{split}-{shard:05d}-of-{num_shards:05d}.parquet", schema) as writer:
            for _ in range(CLIPS_PER_SHARD // CLIPS_PER_ROW_GROUP):
                group = list(itertools.islice(rows, CLIPS_PER_ROW_GROUP))
                if group:
                    writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _rows(chosen: list[tuple]) -> Iterator[dict[str, Any]]:
    for line, row, spool, clips in chosen:
        name = line["path"].encode("utf-8", "replace").decode("utf-8")
        with open(spool, "rb") as file:
            for clip in clips:
                file.seek(clip.place)
                audio = {"bytes": file.read(clip.num_bytes), "path": f"{name}.{clip.number:04d}.flac"}
                yield {"audio": audio, **row, "recording": name, "start_seconds": clip.start_seconds}


def _write_card(
    folder: Path, name: str, summary: BuildSummary, accepted: list[dict[str, Any]], limits: DecodeLimits
) -> None:
    recordings = Counter(line["split"] for line in accepted)
    card = CARD.format(
        name=name,
        clips=sum(summary.clips.values()),
        recordings=len(accepted),
        rows="\n".join(
            f"| {split} | {recordings[split]} | {clips} | {summary.seconds[split] / 3600:.3g} |"
            for split, clips in summary.clips.items()
        ),
        **{key: value for key, value in asdict(limits).items() if key in ("clip_seconds", "sample_rate")},
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
