"""Builds the open training set: music composed by rule, with captions that are true of it.

    python training/synthetic/build.py --out data/synthetic --hours 36 --seed 0 --workers 2

The folder it writes loads with `datasets.load_dataset`. The same seed and package versions give the same bytes.
"""

import argparse
import importlib.util
import io
import json
import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import rooms
import soundfile
import tunes
from captions import write_captions, write_prompts, write_wishes
from compose import compose, draw, generator
from datasets import Audio, Features, List, Value
from forms import LONG_SECONDS
from kits import FILES as SAMPLES
from kits import SAMPLE_FOLDER, has_samples
from render import RENDER_RATE, SAMPLE_RATE, render
from soundfont import SoundFont
from sources import DEBIAN_FONTS, PERMISSIVE, SAMPLE_PACKAGE, is_permissive, licence_of, manifest
from styles import STYLES
from tqdm.auto import tqdm

from melody_diffusers.files import put_in_place

FONT = Path(__file__).parent / "fonts" / "FluidR3Mono_trimmed.sf3"
TEST_FONT_NAME = "TimGM6mb.sf2"
CLIP_SECONDS = 20.0
ROWS_PER_SHARD = 256
TEST_FONT_PIECES_PER_STYLE = 15
SPLIT_PERIOD = (
    20  # of every twenty pieces of a style, one is for validation, one for test, and one more has unseen pairs
)
TUNES = "tunes.json"

FEATURES = Features(
    {
        "audio": Audio(sampling_rate=SAMPLE_RATE),
        "captions": List(Value("string")),
        "prompts": List({"text": Value("string"), "named": List(Value("string"))}),
        "style": Value("string"),
        "family": Value("string"),
        "lead": Value("string"),
        "instruments": List(Value("string")),
        "featured": List(Value("string")),
        "style_heard": Value("bool"),
        "ensemble": Value("string"),
        "bpm": Value("int32"),
        "tempo": Value("string"),
        "key": Value("string"),
        "mode": Value("string"),
        "mode_word": Value("string"),
        "meter": Value("string"),
        "mood": Value("string"),
        "density": Value("string"),
        "register": Value("string"),
        "drums": Value("bool"),
        "form": Value("string"),
        "ends": Value("bool"),
        "tune": Value("string"),
        "font": Value("string"),
        "seed": Value("int64"),
        "piece_id": Value("string"),
    }
)


@dataclass(frozen=True)
class Job:
    """One piece to make: everything a worker needs to know."""

    split: str
    style: str
    seed: int
    font: str
    caption_seed: int
    drum_samples: str | None = None
    variety: bool = False
    seconds: float = CLIP_SECONDS
    tunes: str | None = None


@dataclass(frozen=True)
class Sounds:
    """What pieces are played with: fonts with the licences stated for them, drum samples, and how they are mastered."""

    fonts: tuple[tuple[str, str | None], ...] = ((str(FONT), None),)
    drum_samples: str | None = None
    variety: bool = False


def plan(
    num_pieces: int,
    seed: int,
    test_font: str | None,
    test_font_pieces: int,
    sounds: Sounds = Sounds(),
    seconds: float = CLIP_SECONDS,
    tunes_file: str | None = None,
) -> list[Job]:
    """The pieces of every split. Styles take turns; a piece's number within its style decides its split.

    A piece's seed draws its font. The pieces of test_font hear neither the fonts nor the drum samples of training.
    Those of unseen_pairs have leads that their styles have nowhere else.
    """
    styles = list(STYLES)
    jobs = []

    def job(split: str, index: int, piece_seed: int, font: str | None = None) -> Job:
        drum_samples = sounds.drum_samples if font is None else None
        font = draw(generator(piece_seed, "font"), sounds.fonts)[0] if font is None else font
        style = styles[index % len(styles)]
        return Job(split, style, piece_seed, font, seed, drum_samples, sounds.variety, seconds, tunes_file)

    for index in range(num_pieces):
        number = index // len(styles)
        split = {SPLIT_PERIOD - 2: "validation", SPLIT_PERIOD - 1: "test"}.get(number % SPLIT_PERIOD, "train")
        jobs.append(job(split, index, seed * 10_000_000 + index))
    for index in range(num_pieces // SPLIT_PERIOD):
        jobs.append(job("unseen_pairs", index, seed * 10_000_000 + 8_000_000 + index))
    if test_font is not None:
        for index in range(test_font_pieces * len(styles)):
            jobs.append(job("test_font", index, seed * 10_000_000 + 9_000_000 + index, test_font))
    return jobs


@lru_cache
def _load_font(path: str) -> SoundFont:
    return SoundFont(Path(path), RENDER_RATE)


def make_row(job: Job) -> dict[str, Any]:
    """Composes, renders, encodes and captions one piece."""
    known_tunes = tunes.load(job.tunes) if job.tunes is not None else ()
    piece = compose(job.style, job.seed, job.seconds, job.split == "unseen_pairs", known_tunes)
    drum_samples = Path(job.drum_samples) if job.drum_samples is not None else None
    waveform = render(piece, _load_font(job.font), job.seconds, drum_samples, job.variety)
    flac = io.BytesIO()
    soundfile.write(flac, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    piece_id = f"{job.style.replace(' ', '-')}-{job.seed}"
    tags = asdict(piece.tags)
    wishes = write_wishes(tags, job.caption_seed) if job.split == "train" else []
    return {
        "audio": {"bytes": flac.getvalue(), "path": f"{piece_id}.flac"},
        "captions": write_captions(tags, job.caption_seed) + wishes,
        "prompts": write_prompts(tags, job.caption_seed),
        **tags,
        "font": Path(job.font).stem,
        "piece_id": piece_id,
    }


def make_rows(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Rows in the order of the jobs, made by `workers` processes (0: in this one)."""
    if workers == 0:
        yield from map(make_row, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(make_row, jobs, chunksize=8)


class ShardWriter:
    """Collects rows per split and writes each full shard as one parquet file."""

    def __init__(self, folder: Path, jobs: list[Job]):
        # `datasets` takes the splits from the names in this subfolder. If the card named them instead, it would go on
        # serving its cached copy after the files had changed.
        self.folder = folder / "data"
        rows_per_split = Counter(job.split for job in jobs)
        self.num_shards = {split: -(-rows // ROWS_PER_SHARD) for split, rows in rows_per_split.items()}
        self.written = Counter[str]()
        self.pending: dict[str, list[dict[str, Any]]] = {split: [] for split in self.num_shards}
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, split: str, row: dict[str, Any]) -> None:
        self.pending[split].append(row)
        if len(self.pending[split]) == ROWS_PER_SHARD:
            self._write(split)

    def close(self) -> None:
        for split, rows in self.pending.items():
            if rows:
                self._write(split)

    def _write(self, split: str) -> None:
        name = f"{split}-{self.written[split]:05d}-of-{self.num_shards[split]:05d}.parquet"
        table = pa.Table.from_pylist(self.pending[split], schema=FEATURES.arrow_schema)
        pq.write_table(table, self.folder / name, row_group_size=64, compression="snappy")
        self.written[split] += 1
        self.pending[split] = []


def find_test_font(choice: str) -> str | None:
    """Path of the font of the test_font split, or None. `auto` looks into an installed pretty_midi."""
    if choice == "none":
        return None
    if choice != "auto":
        if not Path(choice).is_file():
            raise SystemExit(f"--test_font {choice}: no such file; give a soundfont's path, auto or none")
        return choice
    spec = importlib.util.find_spec("pretty_midi")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        font = Path(folder) / TEST_FONT_NAME
        if font.is_file():
            return str(font)
    print(
        "Leaving out the split test_font: it needs the second soundfont in the package pretty_midi "
        "(pip install --no-deps pretty_midi), or --test_font PATH."
    )
    return None


def find_fonts(choices: list[str]) -> tuple[tuple[str, str | None], ...]:
    """Paths of the training fonts with the licences stated for them (PATH=LICENCE), each checked to be permissive.

    `auto` is the font of this repository and those of Debian's packages that are installed.
    """
    if choices == ["auto"]:
        missing = [str(font) for font in DEBIAN_FONTS if not font.is_file()]
        if missing:
            print(f"Not installed, so not used: {', '.join(missing)}")
        return tuple((str(font), None) for font in (FONT, *DEBIAN_FONTS) if font.is_file())
    fonts = []
    for choice in choices:
        path, _, stated = choice.partition("=")
        if not Path(path).is_file():
            raise SystemExit(f"--fonts {choice}: no such file; give soundfonts' paths, or auto")
        licence = licence_of(Path(path), stated or None)
        if licence is None:
            raise SystemExit(f"--fonts {path}: its licence is not known; state it as {path}=LICENCE, such as =CC0-1.0")
        if not is_permissive(licence):
            raise SystemExit(f"--fonts {path}: {licence} may not be trained on; permissive are {', '.join(PERMISSIVE)}")
        fonts.append((path, licence))
    if len({Path(path).stem for path, _ in fonts}) < len(fonts):
        raise SystemExit("--fonts: two fonts have one name, and the column font could not tell them apart")
    return tuple(fonts)


def find_drum_samples(choice: str) -> str | None:
    """Folder of the drum samples, or None. `auto` takes Debian's sonic-pi-samples if it is installed."""
    if choice == "none":
        return None
    folder = SAMPLE_FOLDER if choice == "auto" else Path(choice)
    if has_samples(folder):
        return str(folder)
    if choice != "auto":
        raise SystemExit(f"--drum_samples {choice}: not the samples of Sonic Pi; give their folder, auto or none")
    print(f"Not installed, so not used: {SAMPLE_PACKAGE}")
    return None


def find_tunes(choice: str) -> Path | None:
    """The corpus of an installed music21, or None."""
    corpus = tunes.find_corpus() if choice == "auto" else None
    if choice == "auto" and corpus is None:
        print("Without tunes that people wrote: they need pip install --no-deps music21")
    return corpus


CARD = """---
license: cc0-1.0
pretty_name: Melody synthetic music
task_categories:
- text-to-audio
language:
- en
tags:
- music
- synthetic
- captions
size_categories:
- {size_category}
---

# Melody synthetic music

{hours:.1f} hours of instrumental music with exact captions, made by `training/synthetic/build.py` of melody_diffusers:

    {command}

Each row is a clip of {seconds:.0f} s, mono, 24 kHz, 16-bit FLAC, from a piece of its own. A rule-based composer writes
the notes from a style and a seed; a soundfont and a few numpy synthesisers play them; eight captions or nine are filled
in from the tags the composer knows to be true, and in the training split eight more that name the exact tempo, the key
or both. {tunes}

Half of the pieces are typical of their style, in the others the lead, the mood, the ensemble, drums, density and
register are free. Tempo, key and mode hold throughout. A clip is a window of a piece with intro, themes, bridges,
breaks and an ending: the lead rests for four seconds at most, other instruments for an intro or a break of at most
seven. About one clip in {ending} comes to the end of its piece, with a last chord and up to a second of silence.
Level is {level}, peaks stay below 0.89.

{num_styles} styles: {styles}.

| split | clips | how it differs |
|---|---|---|
{split_rows}

Columns: `audio`; `captions` (a short prompt, a tag list, a style joined with a lead, a sentence, one on the
instruments, one on tempo or key, a description and a request, in any order, and for a third of the clips one in another
language); `prompts` (two, to judge by: `text` in words and sentences that no caption has, and what it has `named`);
`style`; `family` and `lead` (the most prominent instrument); `instruments`; `featured` (those that play the music, the
lead first); `style_heard` (whether drums or an accompaniment of the style play: captions name it only then);
`ensemble` (solo, duo, trio or group); `bpm`; `tempo`; `key`; `mode`; `mode_word` (major or minor);
`meter`; `mood`; `density` (of the melody: sparse, even or busy); `register` (low, middle or high in what the lead can
play); `drums`; `form` (the sections in the clip); `ends` (the piece ends in the clip); `tune` (title of the tune it
arranges, if any); `font`; `seed`; `piece_id`.

Splits share no piece seed. The audio of train, validation and test is rendered with the permissively licensed sounds of
LICENSES.md and synthesis; the split test_font uses another soundfont (by default TimGM6mb, GPL-2, which is not part of
this data set) and is for testing only.

Limits: rules, not composers, wrote {most} music; it has no vocals, no key changes and few surprises.
"""


def write_card(folder: Path, jobs: list[Job], command: str) -> None:
    rows = Counter(job.split for job in jobs)
    notes = {
        "train": "90 % of the pieces",
        "validation": "5 %, other seeds",
        "test": "5 %, other seeds",
        "unseen_pairs": "leads that their styles never have in the others (15 % of all pairs), for testing only",
        "test_font": "other seeds and another soundfont, for testing only",
    }
    size = next(
        text for limit, text in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (10**9, "10K<n<100K")) if len(jobs) < limit
    )
    card = CARD.format(
        size_category=size,
        hours=len(jobs) * jobs[0].seconds / 3600,
        command=command,
        seconds=jobs[0].seconds,
        level="mostly from -20 to -15 dB RMS, sometimes from -28 to -14" if jobs[0].variety else "about -18 dB RMS",
        ending="six or seven" if jobs[0].seconds < LONG_SECONDS else "two or three",
        tunes=f"Some pieces arrange old tunes and chorales ({TUNES})." if jobs[0].tunes else "All are composed.",
        most="most of this" if jobs[0].tunes else "this",
        num_styles=len(STYLES),
        styles=", ".join(STYLES),
        split_rows="\n".join(f"| {split} | {count} | {notes[split]} |" for split, count in rows.items()),
    )
    (folder / "README.md").write_text(card)


def build(
    out: Path,
    hours: float,
    seed: int = 0,
    workers: int = 0,
    test_font: str | None = None,
    test_font_pieces: int = TEST_FONT_PIECES_PER_STYLE,
    sounds: Sounds = Sounds(),
    seconds: float = CLIP_SECONDS,
    corpus: Path | None = None,
) -> dict[str, float]:
    """Writes the data set to `out` and replaces what was there once it is complete; returns what it measured."""
    if out.exists() and any(out.iterdir()) and not is_synthetic_set(out):
        raise SystemExit(f"--out {out} would be replaced and holds more than a data set of this script: choose another")
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    tunes_file = partial / TUNES if corpus is not None else None
    if corpus is not None and tunes_file is not None:
        tunes.save(tunes.read_corpus(corpus), tunes_file)
    num_pieces = max(1, round(hours * 3600 / seconds))
    tunes_path = str(tunes_file) if tunes_file is not None else None
    jobs = plan(num_pieces, seed, test_font, test_font_pieces, sounds, seconds, tunes_path)
    started = time.monotonic()
    writer = ShardWriter(partial, jobs)
    progress = tqdm(make_rows(jobs, workers), total=len(jobs), unit="clip", desc="building", smoothing=0.05)
    for job, row in zip(jobs, _with_rate(progress, seconds), strict=True):
        writer.add(job.split, row)
    writer.close()
    options = _options(sounds) + f" --seconds {seconds:g}" * (seconds != CLIP_SECONDS) + " --tunes auto" * bool(corpus)
    write_card(partial, jobs, f"python training/synthetic/build.py --hours {hours:g} --seed {seed}{options}")
    fonts = {Path(path): licence for path, licence in sounds.fonts}
    samples = [Path(sounds.drum_samples) / f"{name}.flac" for name in SAMPLES] if sounds.drum_samples else []
    licences = manifest(fonts, Path(test_font) if test_font else None, samples)
    (partial / "LICENSES.md").write_text(licences + (tunes.LICENCES if corpus is not None else ""))
    elapsed = time.monotonic() - started
    summary = {"clips": len(jobs), "hours": len(jobs) * seconds / 3600, "seconds": elapsed}
    summary["hours_per_hour"] = summary["hours"] / (elapsed / 3600)
    put_in_place(partial, out)
    return summary


def _options(sounds: Sounds) -> str:
    """The options of the command line that give these sounds, without the folders of the machine."""
    fonts = [Path(path) for path, _ in sounds.fonts]
    options = "" if fonts == [FONT] else " --fonts auto"
    if FONT not in fonts or not set(fonts) <= {FONT, *DEBIAN_FONTS}:
        options = f" --fonts {' '.join(font.name for font in fonts)}"
    return options + " --drum_samples auto" * bool(sounds.drum_samples) + " --variety" * sounds.variety


def is_synthetic_set(folder: Path) -> bool:
    """Whether all of the folder is by this script: a card that says so, licences and shards."""
    card = folder / "README.md"
    is_ours = card.is_file() and "made by `training/synthetic/build.py`" in card.read_text(encoding="utf-8")
    others = (card, folder / "LICENSES.md", folder / TUNES, folder / "data")
    shards = [path.relative_to(folder) for path in folder.rglob("*") if path not in others]
    return is_ours and all(shard.match("data/*-of-*.parquet") for shard in shards)


def _with_rate(progress: tqdm, seconds: float) -> Iterable[dict[str, Any]]:
    """Passes rows on and shows hours of music per hour beside the bar."""
    for row in progress:
        rate = progress.format_dict["rate"]
        if rate:
            progress.set_postfix_str(f"{rate * seconds:.0f} hours per hour", refresh=False)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/synthetic"), help="folder to write (replaced)")
    parser.add_argument("--hours", type=float, default=36.0, help="hours of train, validation and test together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=CLIP_SECONDS, help="length of a clip (default: 20)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; 0 works in this one")
    parser.add_argument(
        "--fonts",
        nargs="+",
        default=[str(FONT)],
        help="soundfonts of train, validation and test, of which each piece draws one: paths (PATH=LICENCE for a font "
        "that is not known here), or auto for this repository's and those of Debian's packages",
    )
    parser.add_argument("--drum_samples", default="none", help="folder of Sonic Pi's samples, auto (Debian's) or none")
    parser.add_argument(
        "--variety",
        action="store_true",
        help="a master of its own for each piece, and rooms if pyroomacoustics is there",
    )
    parser.add_argument(
        "--tunes", choices=("auto", "none"), default="none", help="old tunes and chorales of an installed music21, too"
    )
    parser.add_argument("--test_font", default="auto", help="soundfont of the split test_font: a path, auto or none")
    parser.add_argument("--test_font_pieces", type=int, default=TEST_FONT_PIECES_PER_STYLE, help="per style")
    args = parser.parse_args()
    if not 0 < args.hours <= 10_000:
        parser.error(f"--hours {args.hours}: a number above 0 and at most 10000")
    if not 5 <= args.seconds <= 600:
        parser.error(f"--seconds {args.seconds}: from 5 to 600")
    if args.seed < 0 or args.workers < 0 or args.test_font_pieces < 0:
        parser.error("--seed, --workers and --test_font_pieces may not be negative")
    font = find_test_font(args.test_font)
    sounds = Sounds(find_fonts(args.fonts), find_drum_samples(args.drum_samples), args.variety)
    if font is not None and any(Path(font).samefile(path) for path, _ in sounds.fonts):
        parser.error("--test_font is also among --fonts: its split would not be played with an unheard font")
    if args.variety and not rooms.is_available():
        print("Without simulated rooms: they need pip install --no-deps pyroomacoustics")
    corpus = find_tunes(args.tunes)
    test_font_pieces = args.test_font_pieces
    summary = build(args.out, args.hours, args.seed, args.workers, font, test_font_pieces, sounds, args.seconds, corpus)
    print(json.dumps({"out": str(args.out), **{name: round(value, 1) for name, value in summary.items()}}))


if __name__ == "__main__":
    main()
