"""The course of a piece: sections that differ, and the part of the piece that a clip shows.

A piece of one to two minutes is an intro, themes, bridges and breaks, and an ending. A clip is a window of it that
begins on a bar line, so only the bars in it are composed.
"""

import math
from dataclasses import dataclass

import numpy as np

PIECE_SECONDS = (60.0, 120.0)
ENDING_SHARE = 0.15  # of the clips come to the end of their piece
LONG_ENDING_SHARE = 0.4  # of those of LONG_SECONDS or more
BEGINNING_SHARE = 0.2  # of the clips begin with their piece
LONG_BEGINNING_SHARE = 0.5
LONG_SECONDS = 45.0
SHORT_SECONDS = 15.0  # shorter clips have no room for intros, breaks and endings
LAST_CHORD_SECONDS = (2.0, 3.6)  # from the last chord to the end of the clip
SILENCE_SECONDS = (0.3, 1.0)  # between the end of the last chord and the end of the clip
PART_SECONDS = 7.0  # the longest intro or break
LEAD_REST_SECONDS = 3.9  # the longest intro without the lead

CYCLES = (
    ("theme", "theme", "bridge", "theme", "break"),
    ("theme", "bridge", "theme", "break", "bridge"),
    ("theme", "theme", "break", "bridge"),
    ("theme", "bridge", "break", "theme", "theme", "bridge"),
)


@dataclass(frozen=True)
class Bar:
    """A bar of a clip: its section, which material it is of (A or B), and its place in the section."""

    section: str  # intro, theme, bridge, break or ending
    material: str
    index: int
    is_last: bool  # of its section
    number: int  # of its section within the clip


@dataclass(frozen=True)
class Form:
    """The bars of a clip. If it `ends`, its last bar is the last chord, which sounds until `end_seconds`."""

    bars: tuple[Bar, ...]
    bpm: int
    ends: bool
    end_seconds: float
    bar_seconds: float

    @property
    def sections(self) -> list[str]:
        """The sections that sound for a second at least."""
        heard = [bar for index, bar in enumerate(self.bars) if index * self.bar_seconds < self.end_seconds - 1.0]
        names = {bar.number: bar.section for bar in heard}
        return [names[number] for number in sorted(names)]


def lay_out(total_bars: int, bar_seconds: float, theme_bars: int, cycle: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """(section, material, bars) from the intro on, until `total_bars` are full."""
    short = max(bars for bars in (1, 2, 4) if bars == 1 or bars * bar_seconds <= PART_SECONDS)
    sections = [("intro", "A", short)]
    count = short
    while count < total_bars:
        for name in cycle:
            bars = short if name == "break" else theme_bars
            sections.append((name, "B" if name == "bridge" else "A", bars))
            count += bars
    return sections


def fit_ending(seconds: float, bpm: int, meter: int) -> tuple[int, int]:
    """The bars before the last chord, and a tempo (changed if need be) that leaves the last chord its time."""
    shortest, longest = LAST_CHORD_SECONDS
    bars = max(1, math.floor((seconds - shortest) * bpm / 60 / meter))
    if seconds - bars * meter * 60 / bpm <= longest:
        return bars, bpm
    slower = (bars, math.ceil(60 * meter * bars / (seconds - shortest - 0.9 * (longest - shortest))))
    faster = (bars + 1, math.ceil(60 * meter * (bars + 1) / (seconds - shortest)))
    return min(slower, faster, key=lambda fit: abs(fit[1] - bpm))


def draw_form(rng: np.random.Generator, seconds: float, bpm: int, meter: int, theme_bars: int | None = None) -> Form:
    """The window of a piece that a clip of `seconds` shows."""
    is_long = seconds >= LONG_SECONDS
    is_short = seconds < SHORT_SECONDS
    ends = bool(rng.random() < (LONG_ENDING_SHARE if is_long else ENDING_SHARE)) and not is_short
    begins = bool(rng.random() < (LONG_BEGINNING_SHARE if is_long else BEGINNING_SHARE)) and not is_short
    end_seconds = seconds
    if ends:
        num_bars, bpm = fit_ending(seconds, bpm, meter)
        end_seconds = seconds - rng.uniform(*SILENCE_SECONDS)
    else:
        num_bars = math.ceil(seconds * bpm / 60 / meter)
    bar_seconds = meter * 60 / bpm
    if theme_bars is None:
        theme_bars = 8 if 8 * bar_seconds <= 18 else 4
    piece_bars = max(num_bars, math.ceil(rng.uniform(*PIECE_SECONDS) / bar_seconds))
    cycle = ("theme", "bridge") if is_short else CYCLES[int(rng.integers(len(CYCLES)))]
    layout = lay_out(piece_bars + num_bars, bar_seconds, theme_bars, cycle)
    bars = [
        Bar(section, material, index, index == count - 1, number)
        for number, (section, material, count) in enumerate(layout)
        for index in range(count)
    ]
    first = 0 if begins else int(rng.integers(layout[0][2], max(piece_bars, layout[0][2] + 1)))
    window = bars[first : first + num_bars]
    if ends:
        number = window[-1].number + 1
        cadence = min(2, num_bars)
        window = window[: num_bars - cadence]
        window += [Bar("ending", "A", index, index == cadence, number) for index in range(cadence + 1)]
    return Form(tuple(window), bpm, ends, end_seconds, bar_seconds)
