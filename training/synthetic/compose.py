"""A style and a seed become a piece: tracks of notes, and tags that are true of them.

Every pitched note is a degree of the piece's scale and every onset lies on its sixteenth grid (moved by the style's
swing and at most 10 ms of human timing), so key, mode and tempo hold for every window of the piece.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from styles import (
    DRUM_KEYS,
    FILL_KEYS,
    HELD_OUT,
    INSTRUMENTS,
    MOODS,
    PITCH_NAMES,
    PROGRESSIONS,
    RHYTHMS,
    SCALES,
    STYLES,
    Instrument,
    Mood,
    Part,
    Style,
    tempo_word,
)

STEPS_PER_BEAT = 4
MAX_JITTER_SECONDS = 0.010


@dataclass(frozen=True)
class Note:
    """One note; times in beats, velocity in 0..1."""

    start: float
    length: float
    pitch: int
    velocity: float


@dataclass
class Track:
    """The notes of one instrument in one role."""

    role: str  # lead, counter, chords, bass, drums or texture
    instrument: Instrument
    level_db: float
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Tags:
    """What is true of a piece; columns of the data set."""

    style: str
    family: str
    lead: str
    instruments: list[str]
    bpm: int
    tempo: str
    key: str
    mode: str
    mode_word: str
    meter: str
    mood: str
    drums: bool
    seed: int


@dataclass(frozen=True)
class Piece:
    """Tags, tracks and the rows of the style and mood tables that made them."""

    tags: Tags
    tracks: list[Track]
    style: Style
    mood: Mood


class Harmony:
    """The scale of a piece and the chord that rules each step."""

    def __init__(self, tonic: int, mode: str, degrees: list[int], style: Style, num_bars: int):
        self.scale = SCALES[mode]
        self.tonic = tonic  # pitch class 0..11
        self.chord_size = style.chord_size
        self.steps_per_bar = style.meter * STEPS_PER_BEAT
        self.steps_per_chord = self.steps_per_bar // style.chords_per_bar
        num_chords = num_bars * style.chords_per_bar
        self.degrees = [degrees[i % len(degrees)] - 1 for i in range(num_chords + 1)]  # one more to lead into

    def pitch(self, degree: int) -> int:
        """MIDI pitch of a scale degree; degree 0 is the tonic in the octave of MIDI 0."""
        return self.tonic + 12 * (degree // 7) + self.scale[degree % 7]

    def nearest_degree(self, pitch: int) -> int:
        """The highest degree whose pitch does not exceed `pitch`."""
        degree = 7 * ((pitch - self.tonic) // 12)
        while self.pitch(degree + 1) <= pitch:
            degree += 1
        return degree

    def chord_index(self, step: int) -> int:
        return step // self.steps_per_chord

    def chord_classes(self, chord_index: int, size: int | None = None) -> list[int]:
        """Pitch classes of the chord: thirds stacked on its degree."""
        size = self.chord_size if size is None else size
        return [self.pitch(self.degrees[chord_index] + 2 * i) % 12 for i in range(size)]


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers of a piece for one purpose besides its notes, independent of all others."""
    return np.random.default_rng([seed, *purpose.encode()])


def draw(rng: np.random.Generator, options):
    """One of a sequence, every member equally likely."""
    return options[int(rng.integers(len(options)))]


def read_grid(bar: str):
    """(step, length in steps, symbol) of each event of a bar in the grid language of styles.py."""
    for step, symbol in enumerate(bar):
        if symbol not in ".-":
            length = 1
            while step + length < len(bar) and bar[step + length] == "-":
                length += 1
            yield step, length, symbol


def voice_chord(classes: list[int], previous: list[int] | None, low: int, high: int) -> list[int]:
    """Pitches of a chord in close position within [low, high], near the voicing before it."""
    target = (low + high) / 2 if previous is None else sum(previous) / len(previous)
    best: list[int] = []
    best_cost = math.inf
    for inversion in range(len(classes)):
        order = classes[inversion:] + classes[:inversion]
        start = low + (order[0] - low) % 12
        while start <= high:
            pitches = [start]
            for pitch_class in order[1:]:
                pitches.append(pitches[-1] + 1 + (pitch_class - pitches[-1] - 1) % 12)
            overshoot = max(0, pitches[-1] - high)
            cost = abs(sum(pitches) / len(pitches) - target) + 0.15 * (pitches[-1] - start) + 4 * overshoot
            if cost < best_cost:
                best, best_cost = pitches, cost
            start += 12
    return best


def lead_range(instrument: Instrument, register: int) -> tuple[int, int]:
    """The octave and a third in which a lead sings, moved by the mood within the instrument's range."""
    high = min(instrument.high, 84 if instrument.low < 60 else 88) - 4 + register
    high = min(max(high, instrument.low + 16), instrument.high)
    return high - 16, high


def compose_melody(
    rng: np.random.Generator, harmony: Harmony, rhythm: str, mood: Mood, low: int, high: int, num_bars: int
) -> list[Note]:
    """A melody of motifs: bars follow the form A B A C, strong notes are chord tones, contours repeat."""
    bars = RHYTHMS[rhythm][mood.density]
    motifs = {name: draw(rng, bars) for name in "ABCD"}
    contours: dict[str, list[int]] = {}
    for name, bar in motifs.items():
        num_notes = sum(1 for _ in read_grid(bar))
        contours[name] = [int(step) for step in rng.choice((-3, -2, -1, 0, 1, 2, 3, 4), size=num_notes, p=_CONTOUR)]
    form = "ABACABAD"
    lowest, highest = harmony.nearest_degree(low) + 1, harmony.nearest_degree(high)
    middle = (lowest + highest) // 2
    notes = []
    degree = middle
    for bar_index in range(num_bars):
        name = form[bar_index % len(form)]
        if bar_index % 4 == 0:
            degree = middle + int(rng.integers(-2, 3))
        first_step = bar_index * harmony.steps_per_bar
        for (step, length, symbol), move in zip(read_grid(motifs[name]), contours[name], strict=True):
            degree += move
            if degree > highest:
                degree -= 5
            if degree < lowest:
                degree += 5
            degree = min(max(degree, lowest), highest)
            if step % 8 == 0 or length >= 6:
                classes = harmony.chord_classes(harmony.chord_index(first_step + step), 3)
                for offset in (0, 1, -1, 2, -2):
                    if harmony.pitch(degree + offset) % 12 in classes and lowest <= degree + offset <= highest:
                        degree += offset
                        break
            accent = 0.1 if step == 0 else 0.04 if step % 4 == 0 else 0.0
            notes.append(
                Note(
                    (first_step + step) / STEPS_PER_BEAT,
                    length / STEPS_PER_BEAT * mood.gate,
                    harmony.pitch(degree),
                    mood.velocity + accent + (0.1 if symbol == "X" else 0.0),
                )
            )
    return notes


_CONTOUR = (0.05, 0.13, 0.24, 0.08, 0.24, 0.14, 0.07, 0.05)


def compose_chords(rng: np.random.Generator, harmony: Harmony, part: Part, mood: Mood, num_bars: int) -> list[Note]:
    """Strummed, held or broken chords, each voiced near the last."""
    bars = draw(rng, part.bars)
    notes = []
    voicing: list[int] | None = None
    current = -1
    for bar_index in range(num_bars):
        first_step = bar_index * harmony.steps_per_bar
        for step, length, symbol in read_grid(bars[bar_index % len(bars)]):
            chord_index = harmony.chord_index(first_step + step)
            if chord_index != current:
                current = chord_index
                if part.voicing == "power":
                    degree = harmony.nearest_degree(part.low)
                    degree += (harmony.degrees[chord_index] - degree) % 7
                    voicing = [harmony.pitch(degree + i) for i in (0, 4, 7)]
                else:
                    voicing = voice_chord(harmony.chord_classes(chord_index), voicing, part.low, part.high)
            assert voicing is not None
            if symbol in "xX":
                pitches = voicing
            else:
                octave, tone = divmod(int(symbol), len(voicing))
                pitches = [voicing[tone] + 12 * octave]
            velocity = mood.velocity + (0.12 if symbol == "X" else 0.0) + (0.05 if step % 4 == 0 else 0.0) - 0.05
            start = (first_step + step) / STEPS_PER_BEAT
            notes += [Note(start, 0.96 * length / STEPS_PER_BEAT, pitch, velocity) for pitch in pitches]
    return notes


def compose_bass(rng: np.random.Generator, harmony: Harmony, part: Part, mood: Mood, low: int, num_bars: int):
    """Roots, fifths and thirds of the chords, and steps into the next root."""
    bars = draw(rng, part.bars)
    floor = harmony.nearest_degree(low) + 1
    notes = []
    for bar_index in range(num_bars):
        first_step = bar_index * harmony.steps_per_bar
        for step, length, symbol in read_grid(bars[bar_index % len(bars)]):
            chord_index = harmony.chord_index(first_step + step)
            root = floor + (harmony.degrees[chord_index] - floor) % 7
            next_root = floor + (harmony.degrees[chord_index + 1] - floor) % 7
            degree = {"r": root, "t": root + 2, "f": root + 4, "o": root + 7, "n": next_root - 1}[symbol]
            velocity = mood.velocity + (0.12 if step == 0 else 0.03)
            start = (first_step + step) / STEPS_PER_BEAT
            notes.append(Note(start, 0.95 * length / STEPS_PER_BEAT, harmony.pitch(degree), velocity))
    return notes


def compose_drums(rng: np.random.Generator, style: Style, mood: Mood, num_bars: int) -> list[Note]:
    """The style's groove, with a fill at the end of every fourth bar of the styles that have a snare."""
    groove = draw(rng, style.grooves)
    has_fills = "snare" in groove and style.name not in ("jazz swing", "march")
    loudness = {"X": 0.2, "x": 0.0, "o": -0.3}
    notes = []
    for bar_index in range(num_bars):
        first_beat = bar_index * style.meter
        fill = has_fills and bar_index % 4 == 3
        for name, bar in groove.items():
            for step, _, symbol in read_grid(bar):
                if fill and step >= 12 and name != "kick":
                    continue
                velocity = 0.5 * mood.velocity + 0.38 + loudness[symbol]
                notes.append(Note(first_beat + step / STEPS_PER_BEAT, 0.2, DRUM_KEYS[name], velocity))
        if fill:
            for step in range(12, 16):
                if step == 12 or rng.random() < 0.6:
                    start = first_beat + step / STEPS_PER_BEAT
                    notes.append(Note(start, 0.2, draw(rng, FILL_KEYS), 0.5 * mood.velocity + 0.35))
    return notes


def perform(rng: np.random.Generator, track: Track, style: Style, bpm: int) -> None:
    """Swing and human timing, in place. Programmed sounds keep machine timing."""
    human = 0.0 if track.instrument.voice is not None else 0.004 * bpm / 60  # beats
    limit = MAX_JITTER_SECONDS * bpm / 60
    pair = 2 * style.swing_steps / STEPS_PER_BEAT
    late = (style.swing - 0.5) * pair
    performed = []
    for note in track.notes:
        start = note.start + (late if abs(note.start % pair - pair / 2) < 1e-6 else 0.0)
        start += min(max(human * rng.standard_normal(), -limit), limit)
        velocity = min(max(note.velocity + 0.03 * rng.standard_normal(), 0.15), 1.0)
        performed.append(replace(note, start=max(0.0, start), velocity=velocity))
    track.notes = performed


def swell(rng: np.random.Generator, tracks: list[Track], style: Style) -> None:
    """Phrases of two, four or eight bars that grow louder and fall off together, in place; programmed sounds don't."""
    beats = int(draw(rng, (2, 4, 8))) * style.meter
    depth, peak = rng.uniform(0.0, 0.18), rng.uniform(0.4, 0.8)
    for track in tracks:
        if track.instrument.voice is None:
            share = 0.5 if track.role == "drums" else 1.0
            for index, note in enumerate(track.notes):
                change = share * depth * (np.interp(note.start % beats / beats, (0, peak, 1), (0, 1, 0)) - 0.5)
                velocity = float(min(max(note.velocity + change, 0.15), 1.0))
                track.notes[index] = replace(note, velocity=velocity)


def compose(style_name: str, seed: int, seconds: float = 20.0) -> Piece:
    """The piece of this style and seed: at least `seconds` of notes from its first bar on."""
    styles = STYLES | HELD_OUT  # in this order: a style's number is part of its seed
    style = styles[style_name]
    rng = np.random.default_rng([seed, list(styles).index(style_name)])
    mood_name = draw(rng, style.moods)
    mood = MOODS[mood_name]
    mode = draw(rng, [mode for mode in mood.modes if mode in style.modes and mode in PROGRESSIONS[style.flavour]])
    slowest, fastest = style.bpm
    bpm = round(slowest + (fastest - slowest) * rng.uniform(*mood.tempo))
    tonic = int(rng.integers(12))
    num_bars = math.ceil(seconds * bpm / 60 / style.meter) + 1
    harmony = Harmony(tonic, mode, list(draw(rng, PROGRESSIONS[style.flavour][mode])), style, num_bars)

    weights = np.array(list(style.leads.values()))
    lead = INSTRUMENTS[list(style.leads)[int(rng.choice(len(weights), p=weights / weights.sum()))]]
    low, high = lead_range(lead, mood.register)
    tracks = [Track("lead", lead, style.lead_db, compose_melody(rng, harmony, style.rhythm, mood, low, high, num_bars))]
    for part in style.parts:
        names = [name for name in part.instruments if name != lead.name] or part.instruments
        name = draw(rng, names)
        instrument = lead if name == "lead" else INSTRUMENTS[name]
        track = Track(part.role, instrument, part.level_db)
        if part.role == "counter":
            low, high = lead_range(instrument, -4)
            track.notes = compose_melody(rng, harmony, "float", replace(mood, density="busy"), low, high, num_bars)
        elif part.role == "chords":
            track.notes = compose_chords(rng, harmony, part, mood, num_bars)
        elif part.role == "bass":
            floor = instrument.low if instrument.family == "bass" else max(instrument.low, 36)
            track.notes = compose_bass(rng, harmony, part, mood, floor, num_bars)
        tracks.append(track)
    has_drums = bool(style.kits) and rng.random() < style.drum_chance
    if has_drums:
        kit = INSTRUMENTS[draw(rng, style.kits)]
        tracks.append(Track("drums", kit, style.drum_db, compose_drums(rng, style, mood, num_bars)))
    for track in tracks:
        perform(rng, track, style, bpm)
    swell(rng, tracks, style)

    tags = Tags(
        style=style.name,
        family=lead.family,
        lead=lead.name,
        instruments=list(dict.fromkeys(track.instrument.name for track in tracks)),
        bpm=bpm,
        tempo=tempo_word(bpm),
        key=PITCH_NAMES[tonic],
        mode=mode,
        mode_word="major" if SCALES[mode][2] == 4 else "minor",
        meter=f"{style.meter}/4",
        mood=mood_name,
        drums=has_drums,
        seed=seed,
    )
    return Piece(tags, tracks, style, mood)
