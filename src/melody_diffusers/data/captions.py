"""Captions and tags of a recording, from wherever people keep them: files beside it, tables, tags in the file.

A row is what is known of one recording: {"captions": [...], "style": ..., ...} with the columns of `TEXT_COLUMNS`.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .datasets import tags_of

CAPTION_NAMES = ("captions", "caption", "text")
TAG_NAMES = {  # our columns, and what others call them
    "style": ("style", "genre", "genres"),
    "mood": ("mood", "moods"),
    "tempo": ("tempo",),
    "key": ("key", "initial_key"),
    "meter": ("meter", "time_signature"),
    "instruments": ("instruments", "instrument"),
    "bpm": ("bpm",),
    "tags": ("tags", "aspect_list", "keywords"),
}
LIST_COLUMNS = ("captions", "instruments", "tags")
TEXT_COLUMNS = ("captions", *TAG_NAMES)
MAX_CAPTION_BYTES = 1 << 20
METADATA_FILES = ("metadata.csv", "metadata.jsonl")


def describe(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A row from columns of any of the known names; others are left out, and so are empty values."""
    row: dict[str, Any] = {}
    for name, aliases in {"captions": CAPTION_NAMES, **TAG_NAMES}.items():
        values = [text for alias in aliases for text in _texts(columns.get(alias))]
        if name == "bpm":
            row[name] = _bpm(values)
        elif name in LIST_COLUMNS:
            parts = values if name == "captions" else [part for text in values for part in text.split(",")]
            row[name] = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
        else:
            row[name] = ", ".join(values) if values else None
    return row


def merge(first: dict[str, Any], *others: dict[str, Any]) -> dict[str, Any]:
    """One row that takes each column from the first row that has a value there."""
    return {
        name: next((row[name] for row in (first, *others) if row[name] not in (None, [])), first[name])
        for name in first
    }


def widen(row: dict[str, Any]) -> dict[str, Any]:
    """The row with captions made from its tags: all of them, or the mere list where it has captions of its own."""
    made = captions_from_tags(row)
    return row | {"captions": list(dict.fromkeys(row["captions"] + made[:1] if row["captions"] else made))}


def captions_from_tags(row: Mapping[str, Any]) -> list[str]:
    """The tags as a list, and as up to two sentences that say the same."""
    tags = tags_of(dict(row))
    if not tags:
        return []
    kind = " ".join(row[name] for name in ("tempo", "mood", "style") if row.get(name))
    if not kind.lower().endswith("music"):
        kind = f"{kind} music".strip()
    captions = [", ".join(tags)]
    instruments = list(row.get("instruments") or [])
    if instruments:
        listed = instruments[-1] if len(instruments) == 1 else f"{', '.join(instruments[:-1])} and {instruments[-1]}"
        captions.append(f"{kind} with {listed}")
    elif kind != "music":
        captions.append(kind)
    measures = [f"at {row['bpm']} bpm"] if row.get("bpm") else []
    measures += [f"in {row[name]}" for name in ("key", "meter") if row.get(name)]
    if measures:
        captions.append(f"a piece of {kind} {' '.join(measures)}")
    return captions


def read_sidecar(path: Path) -> dict[str, Any]:
    """The row in `name.json` or `name.txt` (one caption a line) beside `name.wav`; empty where there is neither.

    Raises:
        ValueError: the file is there but cannot be read.
    """
    columns: dict[str, Any] = {}
    for suffix in (".txt", ".json"):
        file = path.with_suffix(suffix)
        if not file.is_file():
            continue
        try:
            if file.stat().st_size > MAX_CAPTION_BYTES:
                raise ValueError("it is larger than a megabyte")
            text = file.read_text(encoding="utf-8-sig")
            content = text.splitlines() if suffix == ".txt" else json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            cause = "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else type(error).__name__
            raise ValueError(f"{file.name}: {cause}") from error
        columns |= content if isinstance(content, dict) else {"captions": content}
    return describe(columns)


def read_metadata(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of all `metadata.csv` and `metadata.jsonl` in the folder and below, by the path of the audio file.

    Their column `file_name` is relative to their own folder, as in Hugging Face's audio folders.

    Raises:
        ValueError: a table cannot be read, or lacks that column; names file and line.
    """
    rows = {}
    for file in sorted(path for name in METADATA_FILES for path in folder.rglob(name)):
        number = 0
        with open(file, encoding="utf-8-sig", newline="") as lines:
            try:
                table: Iterable[Mapping[str, Any]]
                if file.suffix == ".csv":
                    table = csv.DictReader(lines)
                else:
                    table = (json.loads(line) for line in lines if line.strip())
                for number, columns in enumerate(table, start=1):  # noqa: B007 (the error names it)
                    name = (file.parent / columns["file_name"]).relative_to(folder).as_posix()
                    rows[name] = describe(columns)
            except (csv.Error, KeyError, TypeError, ValueError) as error:
                where = f"{file}, after row {number}"
                raise ValueError(f"{where}: needs a table with the column file_name ({error!r}).") from error
    return rows


def _texts(value: Any) -> list[str]:
    """The texts in a text, a number or a list of these, which may be JSON; runs of blanks become one."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if not isinstance(value, (str, int, float, list, tuple)) or isinstance(value, bool):
        return []
    if isinstance(value, (list, tuple)):
        return [text for item in value if not isinstance(item, (list, tuple)) for text in _texts(item)]
    text = " ".join(str(value).encode("utf-8", "replace").decode("utf-8").split())
    return [text] if text and text.lower() != "nan" else []


def _bpm(values: list[str]) -> int | None:
    try:
        bpm = round(float(values[0]))
    except (IndexError, ValueError, OverflowError):
        return None
    return bpm if 1 <= bpm <= 1000 else None
