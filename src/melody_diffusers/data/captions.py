"""Captions and tags of a recording, from wherever people keep them: files beside it, tables, tags in the file.

A row is what is known of one recording: {"captions": [...], "style": ..., ...} with the columns of `TEXT_COLUMNS`.
"""

import csv
import io
import json
import posixpath
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .datasets import tags_of

CAPTION_NAMES = ("captions", "caption", "text", "description", "prompt")
TAG_NAMES = {  # our columns, and what others call them
    "style": ("style", "genre", "genres"),
    "mood": ("mood", "moods"),
    "tempo": ("tempo",),
    "key": ("key", "initial_key", "keyscale", "key_scale"),
    "meter": ("meter", "time_signature", "timesignature"),
    "instruments": ("instruments", "instrument"),
    "bpm": ("bpm",),
    "tags": ("tags", "aspect_list", "keywords"),
}
FILE_NAMES = ("file_name", "filename", "file", "path", "file_path", "audio", "audio_path", "audio_filepath")
LIST_COLUMNS = ("captions", "instruments", "tags")
TEXT_COLUMNS = ("captions", *TAG_NAMES)
MAX_CAPTION_BYTES = 1 << 20
METADATA_FILES = ("metadata.csv", "metadata.json", "metadata.jsonl")
SIDECARS = (".json", ".caption", ".caption.txt", "_prompt.txt", ".txt")  # after the stem of the audio file's name
UNKNOWN = ("nan", "n/a", "none", "null")  # what programs write where they know nothing
LYRICS = re.compile(r"^\s*\[(verse|chorus|pre-?chorus|intro|outro|bridge|hook|refrain|inst(rumental)?)\b", re.I | re.M)
ID3_GENRES = (  # by their numbers in ID3v1, from 0
    *("Blues", "Classic Rock", "Country", "Dance", "Disco", "Funk", "Grunge", "Hip-Hop", "Jazz", "Metal", "New Age"),
    *("Oldies", "Other", "Pop", "R&B", "Rap", "Reggae", "Rock", "Techno", "Industrial", "Alternative", "Ska"),
    *("Death Metal", "Pranks", "Soundtrack", "Euro-Techno", "Ambient", "Trip-Hop", "Vocal", "Jazz+Funk", "Fusion"),
    *("Trance", "Classical", "Instrumental", "Acid", "House", "Game", "Sound Clip", "Gospel", "Noise", "Alt. Rock"),
    *("Bass", "Soul", "Punk", "Space", "Meditative", "Instrumental Pop", "Instrumental Rock", "Ethnic", "Gothic"),
    *("Darkwave", "Techno-Industrial", "Electronic", "Pop-Folk", "Eurodance", "Dream", "Southern Rock", "Comedy"),
    *("Cult", "Gangsta Rap", "Top 40", "Christian Rap", "Pop/Funk", "Jungle", "Native American", "Cabaret"),
    *("New Wave", "Psychedelic", "Rave", "Showtunes", "Trailer", "Lo-Fi", "Tribal", "Acid Punk", "Acid Jazz"),
    *("Polka", "Retro", "Musical", "Rock & Roll", "Hard Rock"),
)


def describe(columns: Mapping[str, Any]) -> dict[str, Any]:
    """A row from columns of any of the known names, in any case; others are left out, and so are empty values."""
    columns = {str(name).strip().lower().replace(" ", "_"): value for name, value in columns.items()}
    row: dict[str, Any] = {}
    for name, aliases in {"captions": CAPTION_NAMES, **TAG_NAMES}.items():
        values = [text for alias in aliases for text in _texts(columns.get(alias))]
        if name == "bpm":
            row[name] = _bpm(values)
        elif name in LIST_COLUMNS:
            parts = values if name == "captions" else [part for text in values for part in text.split(",")]
            row[name] = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
        else:
            values = [better for text in values if (better := _READINGS.get(name, str)(text))]
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
    """The row in the files beside `name.wav`; empty where there is none.

    These are `name.txt`, `name.caption`, `name.caption.txt` and `name_prompt.txt`, with a caption a line, and
    `name.json`, with columns or a list of captions. A `name.txt` with section marks such as [verse] holds lyrics, which
    are no caption.

    Raises:
        ValueError: a file is there but cannot be read; names it.
    """
    rows = [describe({})]
    for ending in SIDECARS:
        file = path.with_name(path.stem + ending)
        if not file.is_file():
            continue
        try:
            if file.stat().st_size > MAX_CAPTION_BYTES:
                raise ValueError("it is larger than a megabyte")
            text = _read_text(file)
            content = json.loads(text) if ending == ".json" else [] if LYRICS.search(text) else text.splitlines()
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{file.name}: {_cause(error)}") from error
        rows.append(describe(content if isinstance(content, dict) else {"captions": content}))
    return merge(*rows)


def read_metadata(folder: Path, paths: Iterable[Path]) -> dict[Path, dict[str, Any]]:
    """What all `metadata.csv`, `.jsonl` and `.json` in the folder and below say of the audio files `paths`.

    One of the columns `FILE_NAMES` is the file's path relative to the table's own folder, as in Hugging Face's audio
    folders; a name without suffix, and a path of another machine of which the last name occurs once, are understood.
    `metadata.json` is a list of rows, or has the rows or captions by the name of the file. Rows that name no file here
    and rows that cannot be read are warned of.

    Raises:
        ValueError: no row of a table can be read; names the file, the first such row and what a row needs.
    """
    rows: dict[Path, dict[str, Any]] = {}
    paths = list(paths)
    for table in sorted(path for name in METADATA_FILES for path in folder.rglob(name)):
        places: dict[str, list[Path]] = {}
        for path in paths:
            if path.is_relative_to(table.parent):
                place = path.relative_to(table.parent)
                for key in {place.as_posix(), place.with_suffix("").as_posix()}:
                    places.setdefault(key, []).append(path)
        number, bad, lost = 0, [], []
        try:
            for number, columns in enumerate(_rows_of(table, _read_text(table)), start=1):
                name = _file_of(columns)
                if name is None:
                    bad.append(f"row {number}: it is no JSON object with one of {', '.join(FILE_NAMES)}")
                    continue
                found = next((places[tail] for tail in _tails(name) if tail in places), [])
                if len(found) == 1:
                    row, earlier = describe(columns), rows.get(found[0], describe({}))
                    captions = list(dict.fromkeys(earlier["captions"] + row["captions"]))
                    rows[found[0]] = merge(row, earlier) | {"captions": captions}
                else:
                    lost.append(name)
        except (OSError, ValueError, csv.Error, RecursionError) as error:
            bad.append(f"after row {number}: {_cause(error)}")
        if bad and len(bad) >= number:
            raise ValueError(f"{table}, {bad[0]}. Each row needs the path of its audio file, in the column file_name.")
        if bad:
            warnings.warn(f"{table}: {len(bad)} of {number} rows cannot be read; {bad[0]}.", stacklevel=2)
        if lost:
            what = f"{len(lost)} of {number} rows name no file here, or more than one"
            warnings.warn(f"{table}: {what}; the first is {lost[0]!r}.", stacklevel=2)
    return rows


def _rows_of(table: Path, text: str) -> Iterator[Any]:
    """The rows of a table; what is no dict is a row that cannot be read."""
    if table.suffix == ".csv":
        header = text.partition("\n")[0]
        yield from csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    elif table.suffix == ".jsonl":
        for line in filter(str.strip, text.split("\n")):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None
    else:
        content = json.loads(text)
        if isinstance(content, dict):
            lists = [part for part in content.values() if isinstance(part, list) and part and isinstance(part[0], dict)]
            if len(lists) == 1:  # with other facts beside it
                content = lists[0]
            else:
                named = {name: row if isinstance(row, dict) else {"captions": row} for name, row in content.items()}
                content = [row | {"file_name": name} for name, row in named.items()]
        if not isinstance(content, list):
            raise ValueError("it must hold a list of objects, or objects by the name of the audio file")
        yield from content


def _file_of(columns: Any) -> str | None:
    if not isinstance(columns, dict):
        return None
    columns = {str(name).strip().lower(): value for name, value in columns.items()}
    names = (columns.get(name) for name in FILE_NAMES)
    return next((name for name in names if isinstance(name, str) and name.strip()), None)


def _tails(name: str) -> list[str]:
    """The path, and of an absolute one, perhaps of another machine, also its last parts: the longest first."""
    place = posixpath.normpath(name.strip().replace("\\", "/"))
    if not re.match("/|[a-zA-Z]:", place):
        return [place]
    parts = place.split("/")
    return ["/".join(parts[i:]) for i in range(1, len(parts))]


def _read_text(file: Path) -> str:
    """The text of a file in UTF-8, in UTF-16 with its mark, or in Windows' Latin-1.

    Raises:
        ValueError: it is in another encoding, or no text.
    """
    content = file.read_bytes()
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    try:
        text = content.decode(marks.get(content[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        if content[:2] in marks:
            raise ValueError("it begins like UTF-16 and is damaged") from error
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise ValueError("it is neither UTF-8 nor UTF-16 nor Latin-1; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError("it holds zero bytes, as UTF-16 without its mark does; save it as UTF-8")
    return text


def _cause(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON (line {error.lineno}, column {error.colno}: {error.msg})"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)


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
    return [text] if text and text.lower() not in UNKNOWN else []


def _bpm(values: list[str]) -> int | None:
    found = re.match(r"\d{1,4}(\.\d*)?", values[0]) if values else None  # "120 bpm", too
    bpm = 0 if found is None else round(float(found[0]))
    return bpm if 1 <= bpm <= 1000 else None


def _genre(text: str) -> str | None:
    """Without the numbers of ID3: "(52)Electronic" and "52" are both Electronic."""
    name = re.sub(r"^(\(\d+\))+", "", text).strip()
    numbers = re.findall(r"\d+", text) if not name or name.isdecimal() else []
    if numbers:
        name = dict(enumerate(ID3_GENRES)).get(int(numbers[0]), "")
    return None if name.lower() in ("", "other", "unknown") else name


def _meter(text: str) -> str:
    """A number alone counts quarters, but 6 and 12 count eighths."""
    return f"{text}/{8 if text in ('6', '12') else 4}" if re.fullmatch(r"\d{1,2}", text) else text


_READINGS = {"style": _genre, "meter": _meter}
