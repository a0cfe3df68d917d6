"""A style and a seed become a piece: tracks of notes, and tags that are true of them.

Half of the pieces are typical of their style; the others take lead, mood, ensemble, drums, density and register freely.
Every pitched note is a degree of the piece's scale and every onset lies on its sixteenth grid (moved by the style's
swing and at most 10 ms of human timing), so key, mode and tempo hold for every window of the piece.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ensembles import Cast, Casting, Voice, lead_span, lead_window, register_of, unseen_leads
from forms import LEAD_REST_SECONDS, Bar, Form, draw_form
from instruments import (
    DRUM_KEYS,
    FAMILY_WEIGHTS,
    FILL_KEYS,
    INSTRUMENTS,
    LEAD_WEIGHTS,
    LEADS,
    SOLO_WEIGHTS,
    Instrument,
)
from styles import (
    CADENCES,
    HELD_OUT,
    MOODS,
    PITCH_NAMES,
    PROGRESSIONS,
    RHYTHMS,
    SCALES,
    STYLES,
    Mood,
    Style,
    progressions,
    tempo_word,
)
from tunes import Tune

STEPS_PER_BEAT = 4
MAX_JITTER_SECONDS = 0.010
FREE_SHARE = 0.5  # of the pieces take what is not typical of their style
BAND_SHARE = 0.75  # of the typical half have their style's own band
TEMPO_SLACK = 0.1  # how far beyond the style's range of tempos they go
TUNE_SHARE = 0.25  # of the pieces of a fitting meter play a tune that people wrote, where there are tunes
TUNE_NOTES_PER_SECOND = 7.5  # the fastest on average
ENSEMBLES = {"solo": 0.24, "duo": 0.18, "trio": 0.18, "group": 0.18, "band": 0.22}  # of the others
COUNTER_RHYTHMS = {3: RHYTHMS["waltz"]["sparse"], 4: RHYTHMS["float"]["busy"]}
PROMINENCE = ("lead", "second", "counter", "chords", "bass", "drums", "texture")
REGISTERS = ("low", "middle", "high")
DENSITIES = ("sparse", "even", "busy")


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

    role: str  # lead, second, counter, chords, bass, drums or texture
    instrument: Instrument
    level_db: float
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Tags:
    """What is true of a piece; columns of the data set."""

    style: str
    style_heard: bool  # whether an accompaniment or drums of the style play: else no caption names it
    family: str
    lead: str
    instruments: list[str]
    featured: list[str]  # the one, two or three that play the music, the lead first
    ensemble: str  # solo, duo, trio or group
    bpm: int
    tempo: str
    key: str
    mode: str
    mode_word: str
    meter: str
    mood: str
    density: str  # sparse, even or busy
    register: str  # low, middle or high in what the lead plays
    drums: bool
    form: str
    ends: bool
    tune: str
    seed: int


@dataclass(frozen=True)
class Piece:
    """Tags, tracks and the rows of the style and mood tables that made them."""

    tags: Tags
    tracks: list[Track]
    style: Style
    mood: Mood
    form: Form


def scale_pitch(tonic: int, scale: tuple[int, ...], degree: int) -> int:
    """MIDI pitch of a scale degree; degree 0 is the tonic in the octave of MIDI 0."""
    return tonic + 12 * (degree // 7) + scale[degree % 7]


class Harmony:
    """The scale of a piece, its bars, and the chord that rules each step."""

    def __init__(self, tonic: int, mode: str, degrees: list[int], style: Style, chords_per_bar: int, form: Form):
        self.scale = SCALES[mode]
        self.tonic = tonic  # pitch class 0..11
        self.chord_size = style.chord_size
        self.meter = style.meter
        self.steps_per_bar = style.meter * STEPS_PER_BEAT
        self.steps_per_chord = self.steps_per_bar // chords_per_bar
        self.degrees = [degree - 1 for degree in degrees]
        self.form = form
        self.last_beats = form.end_seconds * form.bpm / 60 - (len(form.bars) - 1) * style.meter  # of the last chord

    def pitch(self, degree: int) -> int:
        """MIDI pitch of a scale degree; degree 0 is the tonic in the octave of MIDI 0."""
        return scale_pitch(self.tonic, self.scale, degree)

    def nearest_degree(self, pitch: int) -> int:
        """The highest degree whose pitch does not exceed `pitch`."""
        degree = 7 * ((pitch - self.tonic) // 12)
        while self.pitch(degree + 1) <= pitch:
            degree += 1
        return degree

    def tonic_near(self, pitch: int) -> int:
        """The tonic that is nearest to a pitch."""
        return pitch + (self.tonic - pitch + 6) % 12 - 6

    def chord_index(self, step: int) -> int:
        return step // self.steps_per_chord

    def chord_classes(self, chord_index: int, size: int | None = None) -> list[int]:
        """Pitch classes of the chord: thirds stacked on its degree."""
        size = self.chord_size if size is None else size
        return [self.pitch(self.degrees[chord_index] + 2 * i) % 12 for i in range(size)]

    def root(self, chord_index: int, floor: int) -> int:
        """The degree of a chord's root within the octave above the degree `floor`."""
        return floor + (self.degrees[min(chord_index, len(self.degrees) - 1)] - floor) % 7

    def bars(self, absent: set[str]) -> Iterator[tuple[int, Bar]]:
        """(first step, bar) of the bars before the last chord, without the sections that a voice leaves out."""
        count = len(self.form.bars) - self.form.ends
        for index, bar in enumerate(self.form.bars[:count]):
            if bar.section not in absent:
                yield index * self.steps_per_bar, bar

    def last_chord(self, instrument: Instrument, pitches: list[int], velocity: float) -> list[Note]:
        """The pitches held to the end of a piece that ends; struck again on each beat if they would fade."""
        if not self.form.ends:
            return []
        start = (len(self.form.bars) - 1) * self.meter
        if not instrument.fades:
            return [Note(start, self.last_beats, pitch, velocity) for pitch in pitches]
        strikes = max(1, math.floor(self.last_beats))
        return [
            Note(start + beat, 0.9, pitch, velocity * (1 - 0.5 * beat / strikes))
            for beat in range(strikes)
            for pitch in pitches
        ]


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers of a piece for one purpose besides its notes, independent of all others."""
    return np.random.default_rng([seed, *purpose.encode()])


def draw(rng: np.random.Generator, options):
    """One of a sequence, every member equally likely."""
    return options[int(rng.integers(len(options)))]


def draw_weighted(rng: np.random.Generator, weights: dict[str, float]) -> str:
    values = np.array(list(weights.values()), float)
    return list(weights)[int(rng.choice(len(values), p=values / values.sum()))]


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


def compose_degrees(
    rng: np.random.Generator, style: Style, mode: str, form: Form, tune: Tune | None
) -> tuple[list[int], int]:
    """The degree (1..7) of each chord of a clip and one more to lead into, and how many there are to a bar."""
    options = progressions(style.flavour, mode)
    first = draw(rng, options)
    others = [option for option in options if option != first] or [first[len(first) // 2 :] + first[: len(first) // 2]]
    of_material = {"A": first, "B": draw(rng, others)}
    per_bar = style.chords_per_bar
    if tune is not None:
        per_bar = len(tune.chords) // tune.bars
    degrees: list[int] = []
    for bar in form.bars:
        if bar.section == "ending":
            cadence = (*CADENCES[mode], 1)
            degrees += [cadence[min(bar.index, 2)]] * per_bar
        elif tune is not None:
            begin = tune_bar(tune, bar) * per_bar
            degrees += tune.chords[begin : begin + per_bar]
        else:
            chords = of_material[bar.material]
            degrees += [chords[(bar.index * per_bar + i) % len(chords)] for i in range(per_bar)]
    return [*degrees, 1], per_bar


class Motifs:
    """The material of a melody: a few bars of rhythm with contours, and where its phrases start."""

    def __init__(self, rng: np.random.Generator, bars: Sequence[str]):
        self.bars = {name: draw(rng, bars) for name in "ABCD"}
        self.contours = {
            name: rng.choice((-3, -2, -1, 0, 1, 2, 3, 4), size=len(list(read_grid(bar))), p=_CONTOUR).tolist()
            for name, bar in self.bars.items()
        }
        self.starts = [int(start) for start in rng.integers(-2, 3, size=4)]

    def bar(self, index: int) -> Iterator[tuple[tuple[int, int, str], int]]:
        """The notes of a bar with their steps of the contour: bars follow the form A B A C A B A D."""
        name = "ABACABAD"[index % 8]
        yield from zip(read_grid(self.bars[name]), self.contours[name], strict=True)


_CONTOUR = (0.05, 0.13, 0.24, 0.08, 0.24, 0.14, 0.07, 0.05)


def compose_melody(
    rng: np.random.Generator,
    harmony: Harmony,
    bars: Sequence[str],
    mood: Mood,
    window: tuple[int, int],
    absent: set[str],
    figure: Sequence[int] = (),
) -> list[Note]:
    """A melody of motifs that come again in each theme, and others in each bridge; strong notes are chord tones.

    With a `figure` (steps of a bar) every fourth bar and the breaks are broken chords in its rhythm, as a player
    without company fills them.
    """
    material = {"A": Motifs(rng, bars), "B": Motifs(rng, bars)}
    lowest, highest = harmony.nearest_degree(window[0]) + 1, harmony.nearest_degree(window[1])
    middle = (lowest + highest) // 2
    notes = []
    degree = middle
    for first_step, bar in harmony.bars(absent):
        if figure and (bar.index % 4 == 3 or bar.section == "break"):
            notes += break_chord(harmony, first_step, figure, mood, lowest, highest)
            continue
        motifs = material[bar.material]
        if bar.index % 4 == 0:
            degree = middle + motifs.starts[bar.index // 4 % 4] + (1 if bar.material == "B" else 0)
        for (step, length, symbol), move in motifs.bar(bar.index):
            degree += move
            if degree > highest:
                degree -= 5
            if degree < lowest:
                degree += 5
            degree = min(max(degree, lowest), highest)
            if step % 8 == 0 or length >= 6:
                degree = to_chord(harmony, first_step + step, degree, lowest, highest)
            accent = 0.1 if step == 0 else 0.04 if step % 4 == 0 else 0.0
            start, velocity = (first_step + step) / STEPS_PER_BEAT, mood.velocity + accent
            gated = length / STEPS_PER_BEAT * mood.gate
            notes.append(Note(start, gated, harmony.pitch(degree), velocity + (0.1 if symbol == "X" else 0.0)))
    return notes


def to_chord(harmony: Harmony, step: int, degree: int, lowest: int, highest: int) -> int:
    """The degree itself or the nearest that the chord holds."""
    classes = harmony.chord_classes(harmony.chord_index(step), 3)
    for offset in (0, 1, -1, 2, -2):
        if harmony.pitch(degree + offset) % 12 in classes and lowest <= degree + offset <= highest:
            return degree + offset
    return degree


def break_chord(
    harmony: Harmony, first_step: int, figure: Sequence[int], mood: Mood, lowest: int, highest: int
) -> list[Note]:
    """A bar of broken chords: up and down through the tones of the chord, in the rhythm of the figure."""
    notes = []
    ends = [*figure[1:], harmony.steps_per_bar]
    for number, (step, end) in enumerate(zip(figure, ends, strict=True)):
        classes = harmony.chord_classes(harmony.chord_index(first_step + step), 3)
        tones = [degree for degree in range(lowest, highest + 1) if harmony.pitch(degree) % 12 in classes]
        place = number % max(1, 2 * len(tones) - 2)
        degree = tones[place if place < len(tones) else 2 * len(tones) - 2 - place]
        length = (end - step) / STEPS_PER_BEAT * max(mood.gate, 0.7)
        start = (first_step + step) / STEPS_PER_BEAT
        notes.append(Note(start, length, harmony.pitch(degree), mood.velocity - 0.05))
    return notes


def tune_bar(tune: Tune, bar: Bar) -> int:
    """Which bar of a tune a bar of the clip plays: themes its first half, bridges what follows."""
    theme = tune_theme_bars(tune)
    return (bar.index % theme + (theme if bar.material == "B" else 0)) % tune.bars


def density_of(tune: Tune) -> str:
    return "sparse" if tune.notes_per_beat < 1.1 else "even" if tune.notes_per_beat < 2.2 else "busy"


def tune_theme_bars(tune: Tune) -> int:
    return 8 if tune.bars >= 16 else 4


def octave_of(tune: Tune, tonic: int, window: tuple[int, int], span: tuple[int, int]) -> int | None:
    """The degree of the tune's degree 0 that brings it nearest to the window and inside the span, if any does."""
    places = {}
    for octave in range(7, 63, 7):
        pitches = [scale_pitch(tonic, SCALES[tune.mode], degree + octave) for _, _, degree in tune.notes]
        if span[0] <= min(pitches) and max(pitches) <= span[1]:
            places[octave] = abs(sum(pitches) / len(pitches) - sum(window) / 2)
    return min(places, key=lambda octave: places[octave]) if places else None


def play_tune(harmony: Harmony, tune: Tune, mood: Mood, octave: int, absent: set[str]) -> list[Note]:
    """The tune's notes in the bars that play it. In the bars of a cadence the chord's tones lead to the end."""
    by_bar: dict[int, list[tuple[int, int, int]]] = {}
    for begin, length, degree in tune.notes:
        by_bar.setdefault(begin // harmony.steps_per_bar, []).append((begin % harmony.steps_per_bar, length, degree))
    notes = []
    for first_step, bar in harmony.bars(absent):
        if bar.section == "ending":
            lowest = octave + min(degree for _, _, degree in tune.notes)
            highest = octave + max(degree for _, _, degree in tune.notes)
            notes += break_chord(harmony, first_step, range(0, harmony.steps_per_bar, 4), mood, lowest, highest)
            continue
        for step, length, degree in by_bar.get(tune_bar(tune, bar), []):
            longest = harmony.steps_per_bar - step if bar.is_last else length
            gated = min(length, longest) / STEPS_PER_BEAT * mood.gate
            accent = 0.1 if step == 0 else 0.04 if step % 4 == 0 else 0.0
            start = (first_step + step) / STEPS_PER_BEAT
            notes.append(Note(start, gated, harmony.pitch(degree + octave), mood.velocity + accent))
    return notes


def restruck(melody: list[Note]) -> list[Note]:
    """The melody with notes of two beats or more struck again on each beat, for what would have died away."""
    notes = []
    for note in melody:
        strikes = max(1, math.floor(note.length + 0.05))
        for beat in range(strikes):
            length = 1.0 if beat < strikes - 1 else note.length - beat
            velocity = note.velocity - (0.08 if beat else 0.0)
            notes.append(Note(note.start + beat, length, note.pitch, velocity))
    return notes


def compose_second(harmony: Harmony, lead: list[Note], instrument: Instrument, absent: set[str]) -> list[Note]:
    """The melody's longer notes a third below it, or an octave further where the instrument is."""
    low, high = instrument.low, instrument.high
    beats = {first / STEPS_PER_BEAT for first, _ in harmony.bars(absent)}
    notes = []
    for note in lead:
        if note.start - note.start % harmony.meter not in beats or (note.length < 0.4 and note.start % 0.5 > 0):
            continue
        degree = harmony.nearest_degree(note.pitch) - 2
        while harmony.pitch(degree) > high:
            degree -= 7
        while harmony.pitch(degree) < low:
            degree += 7
        notes.append(replace(note, pitch=harmony.pitch(degree), velocity=note.velocity - 0.05))
    return notes


def compose_chords(
    rng: np.random.Generator, harmony: Harmony, voice: Voice, mood: Mood, absent: set[str]
) -> list[Note]:
    """Strummed, held or broken chords, each voiced near the last."""
    part = voice.part
    of_material = {"A": draw(rng, part.bars), "B": draw(rng, part.bars)}
    notes: list[Note] = []
    voicing: list[int] | None = None
    current = -1

    def voiced(chord_index: int) -> list[int]:
        if part.voicing == "power":
            degree = harmony.root(chord_index, harmony.nearest_degree(part.low) + 1)
            return [harmony.pitch(degree + i) for i in (0, 4, 7)]
        return voice_chord(harmony.chord_classes(chord_index), voicing, part.low, part.high)

    for first_step, bar in harmony.bars(absent):
        bars = of_material[bar.material]
        for step, length, symbol in read_grid(bars[bar.index % len(bars)]):
            chord_index = harmony.chord_index(first_step + step)
            if chord_index != current:
                current = chord_index
                voicing = voiced(chord_index)
            assert voicing is not None
            if symbol in "xX":
                pitches = voicing
            else:
                octave, tone = divmod(int(symbol), len(voicing))
                pitches = [voicing[tone] + 12 * octave]
            velocity = mood.velocity + (0.12 if symbol == "X" else 0.0) + (0.05 if step % 4 == 0 else 0.0) - 0.05
            start = (first_step + step) / STEPS_PER_BEAT
            notes += [Note(start, 0.96 * length / STEPS_PER_BEAT, pitch, velocity) for pitch in pitches]
    last_index = harmony.chord_index((len(harmony.form.bars) - 1) * harmony.steps_per_bar)
    triad = voice_chord(harmony.chord_classes(last_index, 3), voicing, part.low, part.high)
    return notes + harmony.last_chord(voice.instrument, triad, mood.velocity)


def compose_bass(rng: np.random.Generator, harmony: Harmony, voice: Voice, mood: Mood, absent: set[str]) -> list[Note]:
    """Roots, fifths and thirds of the chords, and steps into the next root."""
    of_material = {"A": draw(rng, voice.part.bars), "B": draw(rng, voice.part.bars)}
    floor = harmony.nearest_degree(voice.part.low or voice.instrument.low) + 1
    notes = []
    for first_step, bar in harmony.bars(absent):
        bars = of_material[bar.material]
        for step, length, symbol in read_grid(bars[bar.index % len(bars)]):
            chord_index = harmony.chord_index(first_step + step)
            root, next_root = harmony.root(chord_index, floor), harmony.root(chord_index + 1, floor)
            degree = {"r": root, "t": root + 2, "f": root + 4, "o": root + 7, "n": next_root - 1}[symbol]
            velocity = mood.velocity + (0.12 if step == 0 else 0.03)
            start = (first_step + step) / STEPS_PER_BEAT
            notes.append(Note(start, 0.95 * length / STEPS_PER_BEAT, harmony.pitch(degree), velocity))
    tonic = harmony.pitch(floor + -floor % 7)
    return notes + harmony.last_chord(voice.instrument, [tonic], mood.velocity)


def compose_drums(
    rng: np.random.Generator, harmony: Harmony, style: Style, kit: Instrument, mood: Mood, absent: set[str]
) -> list[Note]:
    """The style's groove, with fills where the style has them: at each fourth bar and before another section."""
    groove = draw(rng, style.grooves)
    has_fills = style.fills and "snare" in groove
    has_crash = has_fills and kit.voice is None and "crash" not in groove and rng.random() < 0.6
    loudness = {"X": 0.2, "x": 0.0, "o": -0.3}
    begin_fill = harmony.steps_per_bar - 4
    notes = []
    for first_step, bar in harmony.bars(absent):
        fill = has_fills and (bar.index % 4 == 3 or bar.is_last)
        for name, pattern in groove.items():
            for step, _, symbol in read_grid(pattern):
                if fill and step >= begin_fill and name != "kick":
                    continue
                velocity = 0.5 * mood.velocity + 0.38 + loudness[symbol]
                notes.append(Note((first_step + step) / STEPS_PER_BEAT, 0.2, DRUM_KEYS[name], velocity))
        if has_crash and bar.index == 0:
            notes.append(Note(first_step / STEPS_PER_BEAT, 0.2, DRUM_KEYS["crash"], 0.5 * mood.velocity + 0.3))
        if fill:
            for step in range(begin_fill, begin_fill + 4):
                if step == begin_fill or rng.random() < 0.6:
                    start = (first_step + step) / STEPS_PER_BEAT
                    notes.append(Note(start, 0.2, draw(rng, FILL_KEYS), 0.5 * mood.velocity + 0.35))
    if harmony.form.ends:
        start = (len(harmony.form.bars) - 1) * harmony.meter
        keys = [DRUM_KEYS[name] for name in ("kick", "soft kick", "low tom", "low conga") if name in groove][:1]
        keys += [DRUM_KEYS["crash"]] * ("snare" in groove)
        notes += [Note(start, 0.2, key, 0.5 * mood.velocity + 0.4) for key in keys]
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


@dataclass(frozen=True)
class Choices:
    """What is drawn of a piece before its notes."""

    lead: Instrument
    mood: str
    mode: str
    bpm: int
    tonic: int
    register: str
    density: str
    ensemble: str  # solo, duo, trio, group or band
    drums: bool


def draw_lead(
    rng: np.random.Generator, allowed: Sequence[str], family_weights: Mapping[str, float] = FAMILY_WEIGHTS
) -> str:
    """One of the leads: its family first."""
    families = {INSTRUMENTS[name].family for name in allowed}
    family = draw_weighted(rng, {name: weight for name, weight in family_weights.items() if name in families})
    members = [name for name in allowed if INSTRUMENTS[name].family == family]
    return draw_weighted(rng, {name: LEAD_WEIGHTS.get(name, 1.0) for name in members})


def draw_choices(rng: np.random.Generator, style: Style, unseen: bool) -> Choices:
    """Typical of the style for half of the pieces, otherwise each of them free of it and of the others."""
    free = style.name in STYLES and rng.random() < FREE_SHARE
    left_out = unseen_leads(style.name)
    allowed = [name for name in LEADS if (name in left_out) == unseen]
    typical = {name: weight for name, weight in style.leads.items() if name in allowed}
    mood_name = draw(rng, list(MOODS) if free else style.moods)
    mood = MOODS[mood_name]
    modes = [mode for mode in mood.modes if mode in style.modes and mode in PROGRESSIONS[style.flavour]]
    slowest, fastest = map(float, style.bpm)
    place = rng.uniform(*mood.tempo)
    register = mood.register if rng.random() < 0.7 else draw(rng, REGISTERS)
    shares = {name: share for name, share in ENSEMBLES.items() if name in style.ensembles}
    density, ensemble, drums = mood.density, "band", bool(rng.random() < style.drum_chance)
    if free:
        ensemble = draw_weighted(rng, shares)
        lead = draw_lead(rng, allowed, SOLO_WEIGHTS if ensemble == "solo" else FAMILY_WEIGHTS)
        modes = list(mood.modes)
        if rng.random() < 0.5:
            place = rng.uniform(0, 1)
            slowest, fastest = slowest * (1 - TEMPO_SLACK), fastest * (1 + TEMPO_SLACK)
        register, density = draw(rng, REGISTERS), draw(rng, DENSITIES)
        drums = bool(rng.random() < 0.5)
    else:
        if style.name in STYLES and rng.random() >= BAND_SHARE:
            ensemble = draw_weighted(rng, shares)
        chordal = {name: weight for name, weight in typical.items() if INSTRUMENTS[name].chordal}
        if ensemble == "solo" and chordal:
            typical = chordal
        lead = draw_weighted(rng, typical) if typical else draw_lead(rng, allowed)
    bpm = round(slowest + (fastest - slowest) * place)
    return Choices(
        INSTRUMENTS[lead], mood_name, draw(rng, modes), bpm, int(rng.integers(12)), register, density, ensemble, drums
    )


def choose_tune(
    rng: np.random.Generator,
    tunes: Sequence[Tune],
    style: Style,
    choices: Choices,
    window: tuple[int, int],
    span: tuple[int, int],
) -> tuple[Tune, int] | None:
    """For some pieces a tune of their meter and mode, neither too fast nor too wide for the lead, and its octave."""
    fitting = [tune for tune in tunes if tune.meter == style.meter and tune.mode == choices.mode]
    if not fitting or rng.random() >= TUNE_SHARE:
        return None
    for _ in range(8):
        tune = draw(rng, fitting)
        octave = octave_of(tune, choices.tonic, window, span)
        if octave is not None and tune.notes_per_beat * choices.bpm / 60 <= TUNE_NOTES_PER_SECOND:
            return tune, octave
    return None


def rests(rng: np.random.Generator, cast: Cast, form: Form) -> list[set[str]]:
    """The sections in which each voice rests: the lead first, then the cast's voices, then the drums.

    In the intro some have not come in yet; in the break drums or others drop out. A lead without company rests nowhere.
    """
    silent: list[set[str]] = [set() for _ in range(len(cast.voices) + 2)]
    others = [i + 1 for i, voice in enumerate(cast.voices) if voice.role != "texture"]
    others += [len(silent) - 1] * (cast.kit is not None)
    if not others:
        return silent
    intro_seconds = sum(bar.section == "intro" for bar in form.bars) * form.bar_seconds
    stay = draw(rng, others)
    for index in others:
        if index != stay and rng.random() < 0.5:
            silent[index].add("intro")
    if intro_seconds <= LEAD_REST_SECONDS and cast.players > 1 and rng.random() < 0.6:
        silent[0].add("intro")
    leaves = others[-1] if cast.kit is not None and rng.random() < 0.7 else draw(rng, others)
    silent[leaves].add("break")
    for index in others:
        if rng.random() < 0.3:
            silent[index].add("break")
    return silent


def figure_of(style: Style) -> list[int]:
    """The steps at which a style's chords and bass sound in its first bar: the rhythm of a figure for one player."""
    bars = [part.bars[0][0] for part in style.parts if part.role in ("chords", "bass") and part.bars][:2]
    steps = sorted({step for bar in bars for step, _, _ in read_grid(bar)} | {0})
    return steps if len(steps) > 3 else list(range(0, 4 * style.meter, 2))


def compose(
    style_name: str, seed: int, seconds: float = 20.0, unseen: bool = False, tunes: Sequence[Tune] = ()
) -> Piece:
    """The piece of this style and seed, or the window of it that a clip of `seconds` shows.

    With `unseen` its lead is one that the style does not have otherwise. `tunes` are played by some pieces.
    """
    styles = STYLES | HELD_OUT  # in this order: a style's number is part of its seed
    style = styles[style_name]
    rng = np.random.default_rng([seed, list(styles).index(style_name)])
    choices = draw_choices(rng, style, unseen)
    mood, lead = MOODS[choices.mood], choices.lead
    cast = Casting(rng, style, lead).draw(choices.ensemble, choices.drums)
    window = lead_window(lead, choices.register, cast.lead_floor)
    span = max(cast.lead_floor, lead_span(lead)[0]), lead_span(lead)[1]
    tune, octave = choose_tune(generator(seed, f"tune {style.name}"), tunes, style, choices, window, span) or (None, 0)
    theme_bars = tune_theme_bars(tune) if tune is not None else None
    form = draw_form(rng, seconds, choices.bpm, style.meter, theme_bars)
    degrees, per_bar = compose_degrees(rng, style, choices.mode, form, tune)
    harmony = Harmony(choices.tonic, choices.mode, degrees, style, per_bar, form)
    silent = rests(rng, cast, form)

    if tune is not None:
        melody = play_tune(harmony, tune, mood, octave, silent[0])
        density = density_of(tune)
    else:
        density = choices.density
        figure = figure_of(style) if cast.players == 1 and not lead.chordal else ()
        melody = compose_melody(rng, harmony, RHYTHMS[style.rhythm][density], mood, window, silent[0], figure)
    if lead.fades:
        melody = restruck(melody)
    melody += harmony.last_chord(lead, [harmony.tonic_near(sum(window) // 2)], mood.velocity)
    lead_track = Track("lead", lead, style.lead_db, melody)
    tracks = [lead_track]
    for voice, absent in zip(cast.voices, silent[1:], strict=False):
        track = Track(voice.role, voice.instrument, voice.part.level_db)
        if voice.role == "second":
            track.notes = compose_second(harmony, lead_track.notes, voice.instrument, absent)
        elif voice.role == "counter":
            own = lead_window(voice.instrument, "middle")
            track.notes = compose_melody(rng, harmony, COUNTER_RHYTHMS[style.meter], mood, own, absent)
            track.notes += harmony.last_chord(voice.instrument, [harmony.tonic_near(sum(own) // 2)], mood.velocity)
        elif voice.role == "chords":
            track.notes = compose_chords(rng, harmony, voice, mood, absent)
        elif voice.role == "bass":
            track.notes = compose_bass(rng, harmony, voice, mood, absent)
        tracks.append(track)
    if cast.kit is not None:
        notes = compose_drums(rng, harmony, style, cast.kit, mood, silent[-1])
        tracks.append(Track("drums", cast.kit, style.drum_db, notes))
    for track in tracks:
        perform(rng, track, style, form.bpm)
    swell(rng, tracks, style)

    tracks.sort(key=lambda track: (PROMINENCE.index(track.role), -track.level_db))
    tags = Tags(
        style=style.name,
        style_heard=cast.shows(style),
        family=lead.family,
        lead=lead.name,
        instruments=list(dict.fromkeys(track.instrument.name for track in tracks)),
        featured=cast.featured,
        ensemble=cast.ensemble,
        bpm=form.bpm,
        tempo=tempo_word(form.bpm),
        key=PITCH_NAMES[choices.tonic],
        mode=choices.mode,
        mode_word="major" if SCALES[choices.mode][2] == 4 else "minor",
        meter=f"{style.meter}/4",
        mood=choices.mood,
        density=density,
        register=register_of(lead, [note.pitch for note in lead_track.notes]),
        drums=cast.kit is not None,
        form=",".join(form.sections),
        ends=form.ends,
        tune=tune.title if tune is not None else "",
        seed=seed,
    )
    return Piece(tags, tracks, style, mood, form)
