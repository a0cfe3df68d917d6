"""Melodies that people wrote: old tunes and chorales from the corpus of music21, as scale degrees on a grid.

    pip install --no-deps music21    # its corpus is read by the parsers of this file; music21 itself is not imported

Four collections are read, all of them music in the public domain: O'Neill's Music of Ireland (1850 melodies), Ryan's
Mammoth Collection, Aird's Airs, and Bach's chorales. A tune is kept if it is diatonic, on a grid of sixteenths, and in
4/4, 2/4 (two bars become one of 4/4) or 3/4. Its bars count from the first full one; repeats are not unrolled.
"""

import importlib.util
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

from styles import SCALES

COLLECTIONS = {
    "oneills1850": "O'Neill's Music of Ireland (1903)",
    "ryansMammoth": "Ryan's Mammoth Collection (1883)",
    "airdsAirs": "Aird's Selection of Scotch, English, Irish and Foreign Airs (1782)",
    "bach": "chorales of J. S. Bach (died 1750)",
}
LICENCES = """
## Tunes

Titles in the column `tune` and the notes in tunes.json are music in the public domain: {collections}.

They were read from the corpus of music21 (https://github.com/cuthbertLab/music21, BSD-3-Clause; the corpus comes with
the permission of its encoders). Margaret Greentree encoded the chorales, and those whom the corpus names the tunes; of
their files only pitches and lengths are used.
""".format(collections="; ".join(COLLECTIONS.values()))
MIN_BARS = 8
MAX_SPAN = 12  # scale degrees from the lowest to the highest note
HALF_BAR = 8  # sixteenths

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_MODES = dict(
    maj="major",
    ion="major",
    m="minor",
    min="minor",
    aeo="minor",
    mix="mixolydian",
    dor="dorian",
    phr="phrygian",
    lyd="lydian",
)
_MODES[""] = "major"
_SHARPS = {"major": 0, "lydian": 1, "mixolydian": -1, "dorian": -2, "minor": -3, "phrygian": -4}  # on the tonic C


@dataclass(frozen=True)
class Tune:
    """A melody in bars of `meter` beats. Notes are (sixteenth, length in sixteenths, degree; 0 is a tonic)."""

    title: str
    collection: str
    meter: int
    mode: str
    bars: int
    notes: tuple[tuple[int, int, int], ...]
    chords: tuple[int, ...]  # the degree (1..7) of a triad for each half bar of 4/4, or each bar of 3/4

    @property
    def notes_per_beat(self) -> float:
        return len(self.notes) / (self.bars * self.meter)


Timed = tuple[Fraction, Fraction, int]  # onset and length in whole notes, MIDI pitch


def find_corpus() -> Path | None:
    """The corpus of an installed music21."""
    spec = importlib.util.find_spec("music21")
    folders = (
        [Path(folder) / "corpus" for folder in (spec.submodule_search_locations or [])] if spec is not None else []
    )
    return next((folder for folder in folders if all((folder / name).is_dir() for name in COLLECTIONS)), None)


def read_corpus(corpus: Path) -> list[Tune]:
    """All usable tunes, in the order of their files; a title that comes again is left out."""
    tunes: dict[str, Tune] = {}
    for name in COLLECTIONS:
        for path in sorted((corpus / name).iterdir()):
            if path.suffix == ".abc":
                texts = re.split(r"\n\s*\n", path.read_text("utf-8", "replace"))
                found: Iterable[Tune | None] = [read_abc(text, name) for text in texts]
            elif path.suffix == ".mxl":
                found = [read_chorale(path)]
            else:
                continue
            for tune in found:
                if tune is not None:
                    tunes.setdefault(tune.title, tune)
    return list(tunes.values())


def save(tunes: list[Tune], path: Path) -> None:
    path.write_text("[\n" + ",\n".join(json.dumps(asdict(tune)) for tune in tunes) + "\n]\n", encoding="utf-8")


@lru_cache(maxsize=2)
def load(path: str) -> tuple[Tune, ...]:
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    return tuple(Tune(**{**r, "notes": tuple(map(tuple, r["notes"])), "chords": tuple(r["chords"])}) for r in rows)


# The subset of ABC that the three collections are written in.

_TOKEN = re.compile(
    r"(?P<bar>\[?[|:]+\]?[12]?|\[[12])|(?P<tuplet>\(\d(?::\d?){0,2})"
    r"|(?P<accidental>[_^=]*)(?P<note>[A-Ga-gzx])(?P<octave>[,']*)(?P<length>\d*/*\d*)(?P<tie>-?)(?P<dotted>[<>]*)"
)
_IGNORED = re.compile(r'"[^"]*"|![^!]*!|\{[^}]*\}|\+[^+]*\+|\[[A-Z]:[^\]]*\]|%[^\n]*|[`~.vuTHLMPS\\()](?!\d)')


class Unusable(ValueError):
    """A tune that the grid, the scale or this parser has no place for."""


def read_abc(text: str, collection: str = "") -> Tune | None:
    """One tune of ABC, or None if it is no usable one."""
    fields: dict[str, str] = {}
    body = []
    for line in text.splitlines():
        if re.match(r"[A-Za-z]:", line):
            if line[0] in "KML" and body:
                return None  # changes of key and meter
            fields.setdefault(line[0], line[2:].split("%")[0].strip())
        elif "K" in fields and "|" in line:
            body.append(line)
    try:
        meter, tonic, mode = read_meter(fields.get("M", "")), *read_key(fields.get("K", ""))
        unit = Fraction(fields["L"]) if "L" in fields else Fraction(1, 8)
        title = re.sub(r"\s+", " ", fields.get("T", "")).strip(' ."')
        title = re.sub(r"^(.*), (The|A|An)$", r"\2 \1", title)
        bars = full_bars(read_bars(" ".join(body), unit, signature(tonic, mode)), meter)
        return make_tune(title, collection, meter, (tonic, mode), list(timed(bars)))
    except (Unusable, ValueError, ZeroDivisionError):
        return None


def read_meter(text: str) -> Fraction:
    meter = {"C": "4/4", "C|": "4/4"}.get(text, text)
    if meter not in ("4/4", "2/4", "3/4"):
        raise Unusable(meter)
    return Fraction(meter)


def read_key(text: str) -> tuple[int, str]:
    """Pitch class of the tonic, and the mode."""
    match = re.match(r"([A-G])([#b]?)\s*([A-Za-z]*)", text)
    if match is None or match[3][:3].lower() not in _MODES:
        raise Unusable(text)
    return (_LETTERS[match[1]] + {"#": 1, "b": -1, "": 0}[match[2]]) % 12, _MODES[match[3][:3].lower()]


def signature(tonic: int, mode: str) -> dict[str, int]:
    """Which letters a key signature alters, and by how much."""
    fifths = (tonic * 7) % 12 + _SHARPS[mode]
    fifths = (fifths + 5) % 12 - 5  # -5..6
    order = "FCGDAEB"
    return {letter: 1 for letter in order[: max(fifths, 0)]} | {letter: -1 for letter in order[::-1][: max(-fifths, 0)]}


def read_bars(body: str, unit: Fraction, key: dict[str, int]) -> list[list[tuple[Fraction, int | None, bool]]]:
    """Bars of (length, pitch or None for a rest, tied to the next); of two endings, the first."""
    bars: list[list[tuple[Fraction, int | None, bool]]] = [[]]
    altered: dict[str, int] = {}
    triplet: list[Fraction] = []  # factors for the notes to come: on the grid, two halves and a whole
    pending, skipping = Fraction(1), False
    for token in _TOKEN.finditer(_IGNORED.sub("", body)):
        if token["bar"]:
            altered = {}
            skipping = token["bar"].endswith("2") or (skipping and not re.search(r":|\|\||\]", token["bar"]))
            if bars[-1]:
                bars.append([])
        elif token["tuplet"]:
            if not token["tuplet"].startswith("(3"):
                raise Unusable(token["tuplet"])
            triplet = [Fraction(1), Fraction(1, 2), Fraction(1, 2)]
        elif not skipping:
            letter = token["note"].upper()
            length = unit * read_length(token["length"]) * pending * (triplet.pop() if triplet else 1)
            pending = Fraction(1)
            if token["dotted"]:
                long = 2 - Fraction(1, 2 ** len(token["dotted"]))
                length, pending = (
                    (length * long, 2 - long) if token["dotted"][0] == ">" else (length * (2 - long), long)
                )
            if letter in "ZX":
                bars[-1].append((length, None, False))
                continue
            if token["accidental"]:
                signs = token["accidental"]
                altered[token["note"]] = signs.count("^") - signs.count("_")
            shift = altered.get(token["note"], key.get(letter, 0))
            octave = (72 if token["note"].islower() else 60) + 12 * (
                token["octave"].count("'") - token["octave"].count(",")
            )
            bars[-1].append((length, octave + _LETTERS[letter] + shift, bool(token["tie"])))
    return [bar for bar in bars if bar]


def read_length(text: str) -> Fraction:
    if not text:
        return Fraction(1)
    above, slash, below = text.partition("/")
    if not slash:
        return Fraction(int(above))
    divisor = int(below.strip("/")) if below.strip("/") else 2 ** (1 + below.count("/"))
    return Fraction(int(above or 1), divisor)


def full_bars(bars: list[list], meter: Fraction) -> list[list]:
    """Full bars alone: the pickup is dropped, halves around a repeat are joined, the last bar is filled up."""
    full: list[list] = []
    partial: list = []
    for index, bar in enumerate(bars):
        joined = [*partial, *bar]
        length = sum(note[0] for note in joined)
        if length == meter:
            full.append(joined)
            partial = []
        elif length > meter or partial and index < len(bars) - 1:
            raise Unusable(f"bar {index}")
        elif index > 0 or len(bars) == 1:
            partial = joined
    if partial:
        missing = meter - sum(note[0] for note in partial)
        partial[-1] = (partial[-1][0] + missing, *partial[-1][1:])
        full.append(partial)
    return full


def timed(bars: list[list]) -> Iterator[Timed]:
    """Notes with their onsets; tied ones become one."""
    onset, held = Fraction(0), None
    for length, pitch, tie in (note for bar in bars for note in bar):
        begin = onset
        if held is not None and held[1] == pitch:
            begin = held[0]
        elif held is not None:  # the tie was a slur
            yield held[0], onset - held[0], held[1]
        onset += length
        held = (begin, pitch) if tie and pitch is not None else None
        if held is None and pitch is not None:
            yield begin, onset - begin, pitch
    if held is not None:
        yield held[0], onset - held[0], held[1]


# Chorales: MusicXML, four voices.


def read_chorale(path: Path) -> Tune | None:
    """The soprano of a chorale with the chords that its four voices sound, or None if it is no usable one."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("xml") and "META-INF" not in name)
        root = ElementTree.fromstring(archive.read(name))
    parts = root.findall("part")
    beats, unit, fifths = (root.findtext(f".//{tag}", "") for tag in ("beats", "beat-type", "fifths"))
    if len(parts) != 4 or f"{beats}/{unit}" not in ("4/4", "3/4") or len(root.findall(".//time")) > 4:
        return None
    try:
        meter = Fraction(int(beats), int(unit))
        voices = [read_voice(part, meter) for part in parts]
        mode = "minor" if root.findtext(".//mode", "") == "minor" else "major"
        tonic = (int(fifths) * 7 + (9 if mode == "minor" else 0)) % 12
        notes = [note for voice in voices for note in voice]
        title = f"Chorale BWV {path.stem.removeprefix('bwv')}"
        return make_tune(title, "bach", meter, (tonic, mode), voices[0], notes)
    except (Unusable, ValueError, TypeError):
        return None


def read_voice(part: ElementTree.Element, meter: Fraction) -> list[Timed]:
    """The notes of a part from its first full bar on."""
    divisions, bars = 1, []
    for measure in part.findall("measure"):
        divisions = int(measure.findtext("attributes/divisions", str(divisions)))
        bar = []
        if measure.find("backup") is not None:
            raise Unusable("two voices in a part")
        for note in measure.findall("note"):
            if note.find("chord") is not None or note.find("grace") is not None:
                raise Unusable("a chord in a voice")
            length = Fraction(int(note.findtext("duration", "0")), 4 * divisions)
            pitch = None
            if note.find("rest") is None:
                step, octave = note.findtext("pitch/step", ""), int(note.findtext("pitch/octave", "4"))
                pitch = 12 * (octave + 1) + _LETTERS[step] + int(float(note.findtext("pitch/alter", "0")))
            bar.append((length, pitch, any(tie.get("type") == "start" for tie in note.findall("tie"))))
        bars.append(bar)
    return list(timed(full_bars(bars, meter)))


# What both have in common.


def make_tune(
    title: str,
    collection: str,
    meter: Fraction,
    key: tuple[int, str],
    melody: list[Timed],
    harmony: list[Timed] | None = None,
) -> Tune:
    """A tune from the notes of its melody, harmonised by the notes of `harmony` or by its own."""
    if not melody or not title:
        raise Unusable("no notes")
    tonic = key[0]
    notes, mode = to_degrees(melody, *key)
    beats = 3 if meter == Fraction(3, 4) else 4
    num_bars = max(begin + length for begin, length, _ in notes) // (4 * beats)
    end = num_bars * 4 * beats
    notes = [(begin, min(length, end - begin), degree) for begin, length, degree in notes if begin < end]
    span = max(n[2] for n in notes) - min(n[2] for n in notes)
    if num_bars < MIN_BARS or span > MAX_SPAN or len(notes) < 2 * num_bars:
        raise Unusable("too short, wide or slow")
    octave = 7 * (min(n[2] for n in notes) // 7)
    notes = [(begin, length, degree - octave) for begin, length, degree in notes]
    step = 12 if beats == 3 else HALF_BAR
    sounding = [(round(16 * b), round(16 * n), p) for b, n, p in (melody if harmony is None else harmony)]
    chords = harmonise(sounding, end // step, step, tonic, mode)
    return Tune(title, collection, beats, mode, num_bars, tuple(notes), tuple(chords))


def to_degrees(melody: list[Timed], tonic: int, mode: str) -> tuple[list[tuple[int, int, int]], str]:
    """Notes in sixteenths and scale degrees. A minor tune whose sevenths are all raised is in the harmonic minor."""
    classes = {(pitch - tonic) % 12 for _, _, pitch in melody}
    if mode == "minor" and 11 in classes and 10 not in classes:
        mode = "harmonic minor"
    scale = SCALES[mode]
    if not classes <= set(scale) or 0 not in classes:
        raise Unusable("not diatonic")
    notes = []
    for begin, length, pitch in melody:
        if (16 * begin).denominator != 1 or (16 * length).denominator != 1:
            raise Unusable("off the grid")
        octave, step = divmod(pitch - tonic, 12)
        notes.append((int(16 * begin), int(16 * length), 7 * octave + scale.index(step)))
    return notes, mode


def harmonise(notes: list[tuple[int, int, int]], count: int, step: int, tonic: int, mode: str) -> list[int]:
    """For each span of `step` sixteenths the triad that holds most of what sounds, dearer the less common it is."""
    scale = SCALES[mode]
    weights = [defaultdict[int, float](float) for _ in range(count)]
    for begin, length, pitch in notes:
        for index in range(begin // step, min((begin + length - 1) // step + 1, count)):
            inside = min(begin + length, (index + 1) * step) - max(begin, index * step)
            accent = 1.5 if begin % step == 0 else 1.0
            weights[index][(pitch - tonic) % 12] += accent * inside
    rarity = {0: 0.0, 4: 0.05, 3: 0.05, 5: 0.12, 1: 0.12, 2: 0.2, 6: 0.06 if scale[6] == 10 else 0.3}
    chords: list[int] = []
    for index, heard in enumerate(weights):
        total = sum(heard.values()) or 1.0
        fits = [sum(heard[scale[(root + 2 * i) % 7]] for i in range(3)) / total - rarity[root] for root in range(7)]
        if chords:
            fits[chords[-1] - 1] += 0.06  # harmony that stays is simpler
        if index in (0, count - 1):
            fits[0] += 0.5
        chords.append(fits.index(max(fits)) + 1)
    return chords
