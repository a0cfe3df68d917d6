"""Who plays: a lead alone, with partners or with a whole band; and which pairs of style and lead are unseen.

A style gives the patterns of its accompaniment, whoever plays them: its own instruments (`band`), others (`group`), a
partner of the lead, or the lead itself.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from instruments import (
    BASS_PLAYERS,
    CHORD_PLAYERS,
    INSTRUMENTS,
    LAYERS,
    LEADS,
    LOW_PLAYERS,
    MELODY_PLAYERS,
    Instrument,
)
from styles import HOLD, STYLES, Part, Style

UNSEEN_SHARE = 0.15  # of the leads of each style
PLAYERS = {1: "solo", 2: "duo", 3: "trio"}  # a group from four on
OWN_SHARE = 0.65  # of those who accompany a free lead play an instrument of the style's own
OWN_LEVEL_DB = -5.0  # of a lead's own accompaniment, below its melody
LAYER_LEVEL_DB = -28.0
SECOND_LEVEL_DB = -3.5  # of a second melody, below the first
DEEPEST = 36  # the lowest pitch of a left hand


@lru_cache
def unseen_leads(style_name: str) -> frozenset[str]:
    """The leads that a style never has in train, validation and test: none of its frequent ones, few typical ones."""
    if style_name not in STYLES:
        return frozenset()
    typical = STYLES[style_name].leads
    chosen: list[str] = []
    for lead in sorted(LEADS, key=lambda lead: hashlib.sha256(f"{style_name}/{lead}".encode()).digest()):
        is_frequent = typical.get(lead, 0) >= 0.5 * max(typical.values())
        if is_frequent or lead in typical and sum(name in typical for name in chosen) >= len(typical) // 3:
            continue
        chosen.append(lead)
        if len(chosen) == round(UNSEEN_SHARE * len(LEADS)):
            break
    return frozenset(chosen)


@dataclass(frozen=True)
class Voice:
    """A part and who plays it. Role `second` follows the lead in thirds."""

    part: Part
    instrument: Instrument
    player: int  # 0 is the lead's

    @property
    def role(self) -> str:
        return self.part.role


@dataclass
class Cast:
    """The voices beside the lead, the drums, and the lowest pitch that leaves the lead's left hand its room."""

    lead: Instrument
    voices: list[Voice] = field(default_factory=list)
    kit: Instrument | None = None
    lead_floor: int = 0

    @property
    def players(self) -> int:
        return len({0, *(v.player for v in self.voices if v.role != "texture")}) + (self.kit is not None)

    @property
    def ensemble(self) -> str:
        return PLAYERS.get(self.players, "group")

    def shows(self, style: Style) -> bool:
        """Whether the style can be heard: its drums play, or its accompaniment does, either with an instrument that
        the style is known by or as a group."""
        accompaniment = {voice.instrument.name for voice in self.voices if voice.role in ("chords", "bass")}
        known_by = {*style.leads, *(name for part in style.parts for name in part.instruments)}
        has_own = bool(known_by & {self.lead.name, *accompaniment})
        return self.kit is not None or bool(accompaniment) and (has_own or self.ensemble == "group")

    @property
    def featured(self) -> list[str]:
        """The instruments that may be named as playing the music."""
        melodic = self.ensemble != "group"
        names = [v.instrument.name for v in self.voices if v.role in ("second", "counter") or melodic]
        return list(dict.fromkeys([self.lead.name, *names]))[:3]


class Casting:
    """Draws the cast of a piece."""

    def __init__(self, rng: np.random.Generator, style: Style, lead: Instrument):
        self.rng, self.style, self.cast = rng, style, Cast(lead)

    def draw(self, ensemble: str, drums: bool) -> Cast:
        lead, anchor = self.cast.lead, self.style.anchor
        if ensemble == "solo" and anchor and lead.family != INSTRUMENTS[anchor].family:
            ensemble = "duo"
        if ensemble == "solo" and not lead.chordal and self._chance(0.5):
            ensemble = "duo"
        if drums and ensemble in ("trio", "group", "band"):
            self.cast.kit = INSTRUMENTS[self._one(self.style.kits)]
        {"solo": self._alone, "duo": self._duo, "trio": self._trio, "group": self._group, "band": self._band}[
            ensemble
        ]()
        if self.cast.kit is not None and self.cast.players < 3:
            self.cast.kit = None
        return self.cast

    def _one(self, names):
        """One of the names that nobody plays yet."""
        taken = {self.cast.lead.name, *(voice.instrument.name for voice in self.cast.voices)}
        free = [name for name in names if name not in taken] or list(names)
        return free[int(self.rng.integers(len(free)))]

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _add(self, part: Part, name: str, player: int | None = None) -> None:
        player = max([0, *(v.player for v in self.cast.voices)]) + 1 if player is None else player
        self.cast.voices.append(Voice(part, INSTRUMENTS[name], player))

    def _pattern(self, role: str) -> Part:
        """The style's first part of a role; a root in each bar where it has no bass."""
        found = [part for part in self.style.parts if part.role == role]
        bars = (("r-----------",),) if self.style.meter == 3 else (("r---------------",),)
        return found[0] if found else Part(role, (), bars, -21.0)

    def _alone(self) -> None:
        if self.cast.lead.chordal:
            self._accompany_itself()

    def _accompany_itself(self) -> None:
        """Left hand: bass and chords of the lead, below the melody where the instrument is wide enough."""
        lead, level = self.cast.lead, self.style.lead_db + OWN_LEVEL_DB
        floor = max(lead.low, DEEPEST)
        has_bass = lead.low <= 50
        low = floor + (7 if has_bass else 0)
        voicing = "power" if "distorted" in lead.name else "close"
        chords = replace(self._pattern("chords"), level_db=level, low=low, high=low + 16, voicing=voicing)
        self._add(chords, lead.name, player=0)
        if has_bass:
            self._add(replace(self._pattern("bass"), level_db=level - 0.5, low=floor), lead.name, player=0)
        self.cast.lead_floor = min(floor + (19 if has_bass else 12), lead.high - 14)

    def _add_accompanist(self, name: str, with_bass: bool) -> None:
        """One player of the style's chords, and of its bass if nobody else has it."""
        instrument = INSTRUMENTS[name]
        floor = max(instrument.low, 40 if with_bass else 48)
        with_bass = with_bass and instrument.low <= 50
        low = floor + (9 if with_bass else 0)
        part = self._pattern("chords")
        sustains = instrument.family in ("strings", "choir", "organ", "synth", "brass") and not instrument.fades
        bars = HOLD[self.style.meter] if sustains and self._chance(0.3) else part.bars
        voicing = part.voicing if "distorted" in name else "close"
        level = self.style.lead_db - 6.5
        self._add(replace(part, bars=bars, level_db=level, low=low, high=low + 18, voicing=voicing), name)
        if with_bass:
            player = self.cast.voices[-1].player
            self._add(
                replace(self._pattern("bass"), level_db=level - 0.5, low=max(instrument.low, DEEPEST)), name, player
            )

    def _chord_player(self) -> str:
        """The style's own, or any."""
        names = [name for name in self._pattern("chords").instruments if name not in ("lead", self.cast.lead.name)]
        own = [name for name in names if INSTRUMENTS[name].chordal]
        if self.style.anchor and self.cast.lead.name != self.style.anchor:
            return self.style.anchor
        return self._one(own if own and self._chance(OWN_SHARE) else CHORD_PLAYERS)

    def _add_bass(self) -> None:
        own = [name for name in self._pattern("bass").instruments if name != "lead" and not INSTRUMENTS[name].chordal]
        name = self._one(own if own and self._chance(OWN_SHARE) else BASS_PLAYERS)
        self._add(replace(self._pattern("bass"), level_db=self.style.lead_db - 5.5, low=0), name)

    def _add_melody(self, low: bool = False) -> None:
        """A second melody in thirds or of its own, or the style's bass line on a low melody instrument."""
        names = [name for name in MELODY_PLAYERS if not INSTRUMENTS[name].chordal]
        name = self._one(LOW_PLAYERS[:3] if low else names)
        instrument = INSTRUMENTS[name]
        level = self.style.lead_db + SECOND_LEVEL_DB
        if low or (name in LOW_PLAYERS and self._chance(0.6)):
            self._add(replace(self._pattern("bass"), level_db=level - 1, low=max(instrument.low, DEEPEST)), name)
        else:
            self._add(Part("second" if self._chance(0.5) else "counter", (), (), level), name)

    def _duo(self) -> None:
        lead = self.cast.lead
        if self.style.anchor and lead.name != self.style.anchor or self._chance(0.5):
            self._add_accompanist(self._chord_player(), with_bass=True)
        elif lead.chordal:
            self._accompany_itself()
            self._add_melody()
        else:
            name = self._one(MELODY_PLAYERS)
            if INSTRUMENTS[name].chordal:
                self._add_accompanist(name, with_bass=True)
            else:
                self._add_melody(low=lead.low >= 48 and self._chance(0.4))

    def _trio(self) -> None:
        lead = self.cast.lead
        if self.cast.kit is not None:
            if lead.chordal and self._chance(0.5):
                self._accompany_itself()
                self.cast.voices = [voice for voice in self.cast.voices if voice.role != "bass"]
                self._add_bass()
            else:
                self._add_accompanist(self._chord_player(), with_bass=True)
        elif self.style.anchor and lead.name != self.style.anchor or self._chance(0.5):
            self._add_accompanist(self._chord_player(), with_bass=False)
            self._add_bass()
        else:
            if lead.chordal:
                self._accompany_itself()
            self._add_melody()
            self._add_melody(low=True)

    def _band(self) -> None:
        """The style's parts on the style's instruments; the lead's own parts go to another where it has no chords."""
        lead, anchor = self.cast.lead, self.style.anchor
        plays_own_parts = lead.chordal and (anchor is None or lead.family == INSTRUMENTS[anchor].family)
        for part in self.style.parts:
            if not self._chance(part.chance):
                continue
            if "lead" in part.instruments and plays_own_parts:
                self._add(self._fitted(part, lead), lead.name, player=0)
            elif "lead" in part.instruments:
                others = [v for v in self.cast.voices if v.instrument.name in part.instruments]
                name = others[0].instrument.name if others else self._one([n for n in part.instruments if n != "lead"])
                self._add(self._fitted(part, INSTRUMENTS[name]), name, others[0].player if others else None)
            else:
                is_leads = part.instruments == (lead.name,)
                is_typical = lead.name in self.style.leads
                name = self._one(CHORD_PLAYERS if is_leads and not is_typical else part.instruments)
                player = 0 if name == lead.name and lead.chordal else None
                self._add(self._fitted(part, INSTRUMENTS[name]), name, player)
        if any(v.player == 0 for v in self.cast.voices):
            self.cast.lead_floor = min(max(60, lead.low + 7), lead.high - 14)

    def _group(self) -> None:
        """The style's parts on its own and on other instruments, with more voices until there are four players."""
        for part in self.style.parts:
            if part.role == "texture":
                self._add(part, part.instruments[0])
                continue
            if not self._chance(part.chance):
                continue
            own = [name for name in part.instruments if name not in ("lead", self.cast.lead.name)]
            pool = {"chords": CHORD_PLAYERS, "bass": BASS_PLAYERS}.get(part.role, MELODY_PLAYERS)
            name = self._one(own if own and self._chance(OWN_SHARE) else pool)
            self._add(self._fitted(part, INSTRUMENTS[name]), name)
        if self._chance(0.35):
            self._add_layer()
        if self._chance(0.25):
            self._add_melody()
        while self.cast.players < 4:
            has_bass = any(voice.role == "bass" for voice in self.cast.voices)
            if not has_bass:
                self._add_bass()
            elif self._chance(0.5):
                self._add_layer()
            else:
                self._add_melody()

    def _add_layer(self) -> None:
        name = self._one(LAYERS)
        low = max(INSTRUMENTS[name].low, 50)
        self._add(Part("chords", (), HOLD[self.style.meter], LAYER_LEVEL_DB, low, low + 18), name)

    def _fitted(self, part: Part, instrument: Instrument) -> Part:
        """The part within the range of an instrument; only distorted guitars keep power chords."""
        if part.role == "bass":
            return replace(part, low=instrument.low if instrument.family == "bass" else max(instrument.low, DEEPEST))
        voicing = part.voicing if "distorted" in instrument.name else "close"
        low, high = part.low, part.high
        if voicing != part.voicing:
            low, high = 50, 69
        low = min(max(low, instrument.low), max(instrument.high - 18, instrument.low))
        return replace(part, low=low, high=max(min(high, instrument.high), low + 14), voicing=voicing)


def lead_window(instrument: Instrument, register: str, floor: int = 0) -> tuple[int, int]:
    """The octave and a third in which a lead sings, low, in the middle or high in what it plays comfortably."""
    lowest, highest = lead_span(instrument)
    width = min(16, highest - lowest)
    begin = {"low": lowest + 1, "middle": (lowest + highest - width) / 2, "high": highest - width - 1}[register]
    begin = min(max(math.floor(begin), floor, lowest), highest - width)
    return begin, begin + width


def lead_span(instrument: Instrument) -> tuple[int, int]:
    """The lowest and highest pitch of a melody on an instrument."""
    return max(instrument.low, 40), min(instrument.high, 88)


def register_of(instrument: Instrument, pitches: list[int]) -> str:
    """Where a melody lies in what its instrument plays comfortably."""
    lowest, highest = lead_span(instrument)
    place = (sum(pitches) / max(len(pitches), 1) - lowest) / (highest - lowest)
    return "low" if place < 0.42 else "middle" if place < 0.62 else "high"
