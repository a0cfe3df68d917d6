"""The tables of the composer: moods, harmony, rhythms and the styles (instruments are in instruments.py).

Everything musical that is data lives in these two, so that a new style or instrument is a table row and not code.

Grid language. A bar is a string with one character per sixteenth note (16 in 4/4, 12 in 3/4). `.` is silence and `-`
holds the note before it. Chord parts: `x` or `X` (louder) strikes the whole chord, a digit plays that tone of the chord
(0 is the lowest, tones past the top continue an octave higher). Bass parts: `r` root, `t` third, `f` fifth, `o` root an
octave up, `n` a step below the next root. Melodies and drums: `x` plays, `X` accents, `o` plays softly.
"""

from dataclasses import dataclass

from instruments import DRUM_KEYS as DRUM_KEYS
from instruments import FAMILIES as FAMILIES
from instruments import FILL_KEYS as FILL_KEYS
from instruments import INSTRUMENTS as INSTRUMENTS

PITCH_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
}


@dataclass(frozen=True)
class Mood:
    """How a mood bends the notes and the sound, so that it can be heard."""

    modes: tuple[str, ...]
    tempo: tuple[float, float]  # where in the style's range of tempos
    register: str  # where the lead plays as a rule: low, middle or high
    velocity: float  # centre of the loudness of notes, 0..1
    density: str  # which melody rhythms as a rule: sparse, even or busy
    gate: float  # share of the written length that a melody note sounds
    treble_db: float  # high shelf on the mix
    reverb: float  # factor on the style's reverb
    echo: float = 0.0  # level of a dotted-eighth echo


MOODS = {
    "happy": Mood(("major", "mixolydian"), (0.45, 0.85), "middle", 0.78, "even", 0.85, 3.0, 0.8),
    "playful": Mood(("major", "mixolydian", "lydian"), (0.5, 1.0), "high", 0.7, "busy", 0.42, 2.0, 0.5),
    "calm": Mood(("major", "mixolydian", "dorian"), (0.0, 0.35), "middle", 0.5, "sparse", 1.0, -4.0, 1.2),
    "dreamy": Mood(("lydian", "major", "dorian"), (0.05, 0.5), "high", 0.55, "sparse", 1.0, -1.0, 2.6, 0.5),
    "majestic": Mood(("major", "minor"), (0.15, 0.6), "middle", 0.95, "even", 0.98, 2.0, 1.7),
    "energetic": Mood(("major", "mixolydian", "dorian", "minor"), (0.7, 1.0), "middle", 0.95, "busy", 0.8, 5.0, 0.6),
    "sad": Mood(("minor", "harmonic minor"), (0.0, 0.3), "middle", 0.5, "sparse", 1.0, -6.0, 1.4),
    "dark": Mood(("phrygian", "minor", "harmonic minor"), (0.2, 0.7), "low", 0.8, "even", 0.9, -8.0, 1.5),
}

# Scale degrees of the chords of four bars, per flavour and mode.
PROGRESSIONS: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {
    "pop": {
        "major": ((1, 5, 6, 4), (6, 4, 1, 5), (1, 4, 6, 5), (1, 6, 4, 5), (4, 1, 5, 6)),
        "mixolydian": ((1, 7, 4, 1), (1, 4, 7, 4), (1, 7, 4, 4)),
        "minor": ((1, 6, 3, 7), (1, 7, 6, 7), (6, 7, 1, 1), (1, 4, 6, 7), (1, 3, 7, 4)),
        "dorian": ((1, 4, 1, 7), (1, 7, 4, 1), (1, 3, 4, 1)),
    },
    "jazz": {
        "major": ((2, 5, 1, 6), (1, 6, 2, 5), (3, 6, 2, 5), (4, 5, 3, 6)),
        "minor": ((1, 4, 7, 3), (4, 7, 3, 6), (1, 6, 4, 5)),
        "dorian": ((1, 4, 1, 4), (1, 2, 3, 2), (1, 4, 7, 3)),
    },
    "classical": {
        "major": ((1, 4, 5, 1), (1, 6, 2, 5), (1, 5, 6, 3), (1, 4, 1, 5), (6, 2, 5, 1)),
        "minor": ((1, 4, 7, 3), (1, 6, 4, 5), (1, 7, 6, 5)),
        "harmonic minor": ((1, 4, 5, 1), (1, 6, 4, 5), (1, 5, 1, 5), (6, 4, 5, 1)),
    },
    "loop": {
        "major": ((1, 4, 6, 5), (4, 5, 1, 6), (1, 5, 4, 4)),
        "minor": ((1, 6, 3, 7), (1, 1, 6, 7), (6, 7, 1, 1)),
        "dorian": ((1, 4, 1, 4), (1, 3, 4, 1), (1, 1, 4, 7)),
        "phrygian": ((1, 1, 2, 1), (1, 1, 1, 7), (1, 2, 1, 2)),
    },
    "still": {
        "major": ((1, 4, 1, 5), (1, 3, 4, 1), (4, 1, 6, 5)),
        "lydian": ((1, 2, 1, 2), (1, 5, 2, 1), (1, 2, 6, 1)),
        "mixolydian": ((1, 7, 1, 4), (1, 4, 1, 7)),
        "dorian": ((1, 4, 1, 3), (1, 7, 1, 4)),
        "minor": ((1, 6, 1, 7), (1, 3, 6, 4), (6, 1, 7, 1)),
    },
    "folk": {
        "major": ((1, 4, 1, 5), (1, 5, 6, 4), (1, 1, 4, 5), (1, 4, 5, 1)),
        "mixolydian": ((1, 7, 4, 1), (1, 1, 7, 1)),
        "dorian": ((1, 7, 1, 4), (1, 7, 4, 1)),
        "minor": ((1, 7, 6, 7), (1, 4, 7, 1)),
    },
    "blues": {
        "mixolydian": ((1, 1, 1, 1, 4, 4, 1, 1, 5, 4, 1, 5), (1, 4, 1, 1, 4, 4, 1, 1, 5, 4, 1, 1)),
        "dorian": ((1, 1, 1, 1, 4, 4, 1, 1, 5, 4, 1, 1), (1, 4, 1, 1, 4, 4, 1, 1, 7, 4, 1, 1)),
        "minor": ((1, 1, 1, 1, 4, 4, 1, 1, 6, 5, 1, 1), (1, 4, 1, 1, 4, 4, 1, 1, 5, 4, 1, 5)),
        "major": ((1, 1, 1, 1, 4, 4, 1, 1, 5, 4, 1, 5),),
    },
    "vamp": {
        "dorian": ((1, 1, 4, 4), (1, 4, 1, 4), (1, 1, 1, 7), (1, 1, 1, 1)),
        "mixolydian": ((1, 1, 7, 4), (1, 1, 1, 4), (1, 7, 1, 7)),
        "minor": ((1, 1, 4, 4), (1, 7, 1, 7), (1, 1, 6, 7)),
    },
    "metal": {
        "minor": ((1, 1, 6, 7), (1, 6, 1, 7), (1, 1, 3, 6), (1, 4, 6, 7)),
        "phrygian": ((1, 2, 1, 2), (1, 1, 2, 3), (1, 2, 1, 7), (1, 1, 2, 7)),
        "harmonic minor": ((1, 6, 4, 5), (1, 1, 6, 5), (1, 4, 5, 5)),
    },
    "epic": {
        "minor": ((1, 6, 3, 7), (1, 6, 1, 7), (6, 7, 1, 1), (1, 3, 6, 4)),
        "harmonic minor": ((1, 6, 4, 5), (1, 4, 6, 5), (6, 4, 1, 5)),
        "dorian": ((1, 4, 1, 7), (1, 3, 4, 7), (1, 7, 4, 4)),
        "major": ((1, 5, 6, 4), (6, 4, 1, 5), (1, 3, 4, 5)),
        "lydian": ((1, 2, 1, 2), (1, 2, 6, 5)),
    },
    "gospel": {
        "major": ((1, 4, 1, 5, 6, 2, 4, 5), (1, 3, 4, 4, 1, 5, 4, 1), (4, 5, 3, 6, 2, 5, 1, 1), (1, 6, 2, 5)),
        "mixolydian": ((1, 7, 4, 1), (1, 4, 1, 7, 4, 4, 1, 1), (1, 1, 4, 4, 7, 4, 1, 1)),
        "minor": ((1, 4, 7, 3, 6, 4, 5, 1), (1, 6, 4, 5, 1, 4, 1, 1)),
    },
    "rag": {
        "major": ((1, 6, 2, 5), (1, 1, 5, 5, 5, 5, 1, 1), (4, 4, 1, 6, 2, 5, 1, 1), (6, 6, 2, 2, 5, 5, 1, 1)),
        "mixolydian": ((1, 4, 1, 7), (1, 7, 4, 1)),
    },
    "soul": {
        "major": ((1, 3, 4, 5), (1, 6, 2, 5), (4, 3, 2, 1), (1, 3, 6, 4)),
        "dorian": ((1, 4, 1, 4), (1, 7, 4, 7), (1, 2, 3, 4)),
        "mixolydian": ((1, 7, 4, 1), (1, 4, 7, 4)),
        "minor": ((1, 4, 7, 3), (6, 5, 1, 1), (4, 5, 1, 1)),
    },
    "latin": {
        "minor": ((1, 7, 6, 5), (1, 6, 3, 7), (1, 4, 7, 3), (4, 1, 5, 1)),
        "harmonic minor": ((1, 4, 5, 1), (1, 5, 1, 5), (4, 1, 5, 1)),
        "major": ((1, 5, 6, 4), (1, 6, 4, 5), (1, 4, 5, 4)),
        "dorian": ((1, 4, 1, 4), (1, 7, 4, 1)),
    },
}

# For the modes that a flavour leaves out.
ANY_FLAVOUR: dict[str, tuple[tuple[int, ...], ...]] = {
    "major": ((1, 4, 5, 1), (1, 6, 4, 5), (1, 5, 6, 4)),
    "mixolydian": ((1, 7, 4, 1), (1, 4, 7, 4), (1, 7, 1, 4)),
    "lydian": ((1, 2, 1, 2), (1, 2, 6, 5), (1, 5, 2, 1)),
    "minor": ((1, 6, 3, 7), (1, 4, 6, 7), (1, 7, 6, 7)),
    "dorian": ((1, 4, 1, 7), (1, 3, 4, 1), (1, 7, 4, 1)),
    "phrygian": ((1, 2, 1, 7), (1, 2, 3, 2), (1, 1, 2, 1)),
    "harmonic minor": ((1, 4, 5, 1), (1, 6, 4, 5), (1, 5, 1, 5)),
}
CADENCES = {
    "major": (4, 5),
    "mixolydian": (4, 7),
    "lydian": (2, 5),
    "minor": (6, 7),
    "dorian": (4, 7),
    "phrygian": (3, 2),
    "harmonic minor": (4, 5),
}  # the degrees of the two bars before the last chord


def progressions(flavour: str, mode: str) -> tuple[tuple[int, ...], ...]:
    """The chord progressions of a flavour in a mode."""
    return PROGRESSIONS[flavour].get(mode, ANY_FLAVOUR[mode])


# Melody rhythms: pattern -> density -> bars to choose from.
RHYTHMS: dict[str, dict[str, tuple[str, ...]]] = {
    "song": {
        "sparse": ("x-------x---x---", "x-----x-x-------", "x---x---x-------", "x-----x-x---x---"),
        "even": ("x---x-x-x---x---", "x-----x-x---x-x-", "x---x---x-x-x---", "x-x-x---x-x-x---"),
        "busy": ("x-x-x-x-x-x-x---", "x-xxx-x-x-xxx-x-", "x-x-x-xxx-x-x-x-", "xxx-x-x-x-x-x-x-"),
    },
    "lazy": {
        "sparse": ("x-----x---x-----", "....x---x-x-----", "x---------x-x---", "x-----x-x-------"),
        "even": ("x--x--x---x-x---", "..x-x-x---x---x-", "x--x--x-x-----x-"),
        "busy": ("x--x-xx-x-x-x-x-", "x-x-x--x--x-x-x-", "..x-x-xxx-x-x---"),
    },
    "float": {
        "sparse": ("x-----------x---", "x-------x-------", "x---------------"),
        "even": ("x-------x---x---", "x---x-------x---", "x-------x-------"),
        "busy": ("x---x---x---x---", "x---x-----x-x---", "x-----x-x---x---"),
    },
    "swing": {
        "sparse": ("x---x-x---x-x---", "..x-x---x-x-----", "x-----x-x---x-x-"),
        "even": ("x---x-x-x-x-x-x-", "..x-x-x---x-x-x-", "x-x-x---x-x-x-x-"),
        "busy": ("x-x-x-x-x-x-x-x-", "x-x-x-xxx-x-x-x-", "xxx-x-x-x-x-x-x-"),
    },
    "riff": {
        "sparse": ("x--.x--.....x---", "x-----x-..x---..", "x---..x-....x-x-"),
        "even": ("x..x..x...x.x...", "x-.x..x-..x..x..", "x.x...x.x...x.x."),
        "busy": ("x.xx.xx.x.xx.x.x", "x.x.xx.xx.x.xx.x", "xx.xx.xxxx.xx.x."),
    },
    "fanfare": {
        "sparse": ("x-----x-x-------", "x---x---x-------", "x-------x---x---"),
        "even": ("x--xx---x--xx---", "x---x---x-----x-", "x---x-x-x---x---"),
        "busy": ("x--xx-x-x--xx-x-", "xxx-x-x-xxx-x---", "x-x-x-xxx-x-x---"),
    },
    "reel": {
        "sparse": ("x---x-x-x-------", "x-----x-x---x---", "x---x---x-x-x---"),
        "even": ("x-x-x-x-x-x-x---", "x---x-x-x-x-x-x-", "x-x-x---x-x-x-x-"),
        "busy": ("x-xxx-x-x-xxx-x-", "xxxxx-x-xxxxx-x-", "x-x-x-xxx-xxx-x-"),
    },
    "chip": {
        "sparse": ("x---x---x-x-x---", "x-----x-x---x-x-", "x-x-x---x-------"),
        "even": ("x-x-x-x-x---x-x-", "x--x--x-x--x--x-", "x-xxx---x-x-x-x-"),
        "busy": ("x-xxx-xxx-xxx-x-", "xxxxx-x-xxxxx-x-", "x.xxx.x.xxx.x.xx"),
    },
    "hymn": {
        "sparse": ("x-------x-------", "x---x---x-------", "x-------x---x---"),
        "even": ("x---x---x---x---", "x---x---x-------", "x---x-x-x---x---"),
        "busy": ("x---x-x-x---x-x-", "x-x-x---x---x---", "x---x---x-x-x---"),
    },
    "waltz": {
        "sparse": ("x-------x---", "x-----------", "x-----x-----"),
        "even": ("x---x---x---", "x-----x-x---", "x-------x-x-"),
        "busy": ("x-x-x-x-x-x-", "x---x-x-x-x-", "x-x-x---x---"),
    },
    "blues": {
        "sparse": ("....x-x-x-------", "x---x-x---------", "..x-x---x-------"),
        "even": ("..x-x-x-x---x---", "x-x-x---..x-x---", "x---x-x-x-x-----"),
        "busy": ("x-x-x-x-x-x-x-x-", "xxx-x-x-x-x-x---", "x-x-xxx-x-xxx-x-"),
    },
    "syncopated": {
        "sparse": ("x--x--x-........", "..x--x----x-....", "x-----x--x------"),
        "even": ("x--x--x---x-x---", "..x--x-x..x--x--", "x-x--x-x--x-x---", "x..x..x.x-.x.x--"),
        "busy": ("x-xx-xx-x-xx-xx-", "x.xx.x.xx.xx.x.x", "xx-x-xx-xx-x-xx-"),
    },
    "shred": {
        "sparse": ("x-------x---x---", "x-----------x-x-", "x---x---x-------"),
        "even": ("x---x-x-x-x-x-x-", "x-x-x-x-x---x---", "x-xxx-xxx---x---"),
        "busy": ("xxxxxxxxxxxxxxxx", "x-xxx-xxx-xxx-xx", "xxxxxxxxx-x-x---"),
    },
    "tango": {
        "sparse": ("x-------....x-x-", "x-----x-x-------", "x---x---x-------"),
        "even": ("x--x..x-x---....", "..xxx-x-x---x---", "x---x-xxx-x-x---", "x--x--x-x--x--x-"),
        "busy": ("xxxxx-x-xxxxx-x-", "..xxx.x.x.x.x-x-", "x--xx-x-xxx-x-x-"),
    },
    "epic": {
        "sparse": ("x-------x-------", "x-----------x---", "x---------------"),
        "even": ("x-----x-x-------", "x-----x-x---x---", "x---x---x-----x-"),
        "busy": ("x---x-x-x---x-x-", "x-x-x---x-x-x---", "x--xx-x-x--xx-x-"),
    },
    "gospel": {
        "sparse": ("x---x---x-------", "..x-x---x-------", "x-----x-x-------"),
        "even": ("x---x-x-x---x---", "..x-x-x-x---x-x-", "x-x-x---x-x-x---"),
        "busy": ("x-x-x-x-x-x-x-x-", "x-x-xxx-x-x-x-x-", "x-xxx-x-x-xxx---"),
    },
    "rag": {
        "sparse": ("x-x--x--x-------", "x--x----x--x----", "x-x---x---x-----"),
        "even": ("x-x--x-xx-x--x--", "xx-xx-x-xx-xx---", "x-x-xx-xx-x-x---"),
        "busy": ("xx-xxx-xxx-xxx-x", "xxxxx-xxxxxxx-x-", "x-xxx-xx-xx-xxxx"),
    },
}


@dataclass(frozen=True)
class Part:
    """An accompanying voice of a style."""

    role: str  # chords, bass, counter or texture
    instruments: tuple[str, ...]  # one is drawn; ("lead",) means the lead's own instrument
    bars: tuple[tuple[str, ...], ...]  # one tuple is drawn; its bars alternate
    level_db: float  # of the stem where it sounds, before the mix is normalised
    low: int = 50  # where chords are voiced
    high: int = 71
    voicing: str = "close"  # or "power": root, fifth and octave
    chance: float = 1.0


@dataclass(frozen=True)
class Style:
    """What a style fixes: tempo, harmony, leads, accompaniment, drums and the sound of the mix."""

    name: str
    bpm: tuple[int, int]
    moods: tuple[str, ...]
    modes: tuple[str, ...]
    flavour: str  # key into PROGRESSIONS
    leads: dict[str, float]  # instrument -> weight
    rhythm: str  # key into RHYTHMS
    parts: tuple[Part, ...]
    chord_size: int = 3
    chords_per_bar: int = 1
    meter: int = 4
    swing: float = 0.5  # where the off note of a pair falls
    swing_steps: int = 1  # 1: sixteenths swing; 2: eighths swing
    kits: tuple[str, ...] = ()
    grooves: tuple[dict[str, str], ...] = ()
    drum_chance: float = 1.0
    fills: bool = True
    drum_db: float = -19.0
    lead_db: float = -15.0
    lowpass_hz: float | None = None
    drive: float = 0.0
    duck: float = 0.0  # how far the kick pushes the rest down
    reverb: float = 0.15
    ensembles: tuple[str, ...] = ("solo", "duo", "trio", "group", "band")  # band: the parts as they stand here
    anchor: str | None = None  # the instrument the style is named after: it leads, or is the partner


HOLD = {3: (("x-----------",),), 4: (("x---------------",),)}  # a chord for each bar
_HOLD = HOLD[4]

STYLES = {
    style.name: style
    for style in (
        Style(
            "lo-fi hip hop",
            bpm=(68, 90),
            moods=("calm", "sad", "dreamy", "happy"),
            modes=("major", "dorian", "minor"),
            flavour="jazz",
            chord_size=5,
            swing=0.58,
            leads={
                "electric piano": 3,
                "vibraphone": 2,
                "kalimba": 2,
                "nylon guitar": 2,
                "jazz guitar": 2,
                "flute": 1.5,
                "saxophone": 1.5,
            },
            rhythm="lazy",
            parts=(
                Part("chords", ("electric piano", "grand piano"), (("x-----....x---..", "x-----...x--..x-"),), -24),
                Part("bass", ("fretless bass", "sub bass"), (("r-----.r..f---n-",), ("r---..r...r--.f-",)), -21),
                Part("texture", ("vinyl crackle",), (), -38),
            ),
            kits=("dusty drums",),
            grooves=(
                {"kick": "X..x......x.....", "snare": "....X.......X...", "closed hat": "x.x.x.xox.x.x.xo"},
                {"kick": "X......x..x.....", "snare": "....X.......X..o", "closed hat": "x.xox.x.x.xox.x."},
                {"kick": "X.....x..xx.....", "snare": "....X.......X...", "closed hat": "x.x.x.x.x.x.x.xx"},
            ),
            lowpass_hz=5000,
            drive=0.2,
            reverb=0.12,
        ),
        Style(
            "house",
            bpm=(116, 128),
            moods=("happy", "energetic", "dreamy", "dark"),
            modes=("major", "dorian", "minor"),
            flavour="loop",
            chord_size=4,
            leads={
                "grand piano": 3,
                "hammond organ": 3,
                "synth pluck": 1.5,
                "supersaw synth": 1,
                "choir": 1.5,
                "brass section": 2,
            },
            rhythm="riff",
            parts=(
                Part(
                    "chords", ("synth stabs",), (("x--.x..x..x..x..", ".x-..x-.x-..x-.."), ("..x-..x-..x-..x-",)), -25
                ),
                Part("bass", ("synth bass",), (("..r-..r-..r-..o-",), ("..r-..ro..r-.rf-",)), -20),
                Part("chords", ("synth pad",), _HOLD, -31),
            ),
            kits=("drum machine",),
            grooves=(
                {
                    "kick": "X...X...X...X...",
                    "clap": "....X.......X...",
                    "open hat": "..X...X...X...X.",
                    "closed hat": "xoxoxoxoxoxoxoxo",
                },
                {
                    "kick": "X...X...X...X...",
                    "clap": "....X.......X..o",
                    "open hat": "..X...X...X...X.",
                    "shaker": "x.xxx.xxx.xxx.xx",
                },
            ),
            drum_db=-18,
            duck=0.55,
        ),
        Style(
            "techno",
            bpm=(128, 144),
            moods=("dark", "energetic", "dreamy"),
            modes=("phrygian", "minor", "dorian"),
            flavour="loop",
            leads={"acid synth": 3, "synth pluck": 2, "choir": 2.5, "marimba": 1, "hammond organ": 1.5},
            rhythm="riff",
            parts=(
                Part("bass", ("synth bass", "sub bass"), ((".rrr.rrr.rrr.rrr",), (".r.r.rro.r.r.rfo",)), -20),
                Part("chords", ("synth pad",), _HOLD, -31),
            ),
            kits=("drum machine",),
            grooves=(
                {
                    "kick": "X...X...X...X...",
                    "open hat": "..x...x...x...x.",
                    "clap": "............X...",
                    "pedal hat": "x.xxx.xxx.xxx.xx",
                },
                {"kick": "X...X...X...X..x", "open hat": "..X...X...X...X.", "rim": "...x..x....x..x."},
                {"kick": "X...X...X...X...", "closed hat": "xxxxxxxxxxxxxxxx", "clap": "....X.......X..."},
            ),
            drum_db=-16,
            drive=0.25,
            duck=0.6,
            reverb=0.18,
        ),
        Style(
            "ambient",
            bpm=(60, 76),
            moods=("calm", "dreamy", "sad", "dark"),
            modes=("lydian", "major", "dorian", "minor"),
            flavour="still",
            chord_size=5,
            leads={"choir": 3.5, "synth bell": 2, "grand piano": 1.5, "string ensemble": 2, "pan flute": 1.5},
            rhythm="float",
            parts=(
                Part("chords", ("synth pad",), _HOLD, -20, 48, 70),
                Part("bass", ("sub bass",), (("r---------------",),), -26),
                Part(
                    "chords",
                    ("harp", "synth pluck", "kalimba"),
                    (("0---2---1---3---",), ("0-1-2-3-4-3-2-1-",)),
                    -29,
                    60,
                    76,
                ),
            ),
            kits=("hand percussion", "drum machine"),
            grooves=(
                {"kick": "X.........o.....", "rim": "............o...", "shaker": "x...o...x...o..."},
                {"kick": "o...............", "rim": "......o.....o..."},
            ),
            drum_chance=0.1,
            drum_db=-26,
            fills=False,
            lead_db=-16,
            reverb=0.45,
        ),
        Style(
            "rock",
            bpm=(104, 152),
            moods=("energetic", "happy", "dark", "majestic"),
            modes=("major", "mixolydian", "minor"),
            flavour="pop",
            leads={"overdriven guitar": 5, "clean electric guitar": 1.5, "hammond organ": 4},
            rhythm="song",
            parts=(
                Part(
                    "chords",
                    ("distorted guitar",),
                    (("X-x-x-x-X-x-x-x-",), ("X---x-x-..x-x-x-",), ("X-xxx-x-X-xxx-x-",)),
                    -22,
                    40,
                    56,
                    "power",
                ),
                Part("bass", ("bass guitar",), (("r-r-r-r-r-r-r-n-",), ("r---r-r-..r-r-f-",)), -21),
            ),
            kits=("rock drums", "drum kit"),
            grooves=(
                {"kick": "X.......X.x.....", "snare": "....X.......X...", "closed hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X..x..x.X.......", "snare": "....X.......X...", "ride": "x.x.x.x.x.x.x.x."},
                {"kick": "X.x...x.X.x...x.", "snare": "....X.......X...", "open hat": "X...X...X...X..."},
            ),
            drum_db=-18,
            reverb=0.12,
        ),
        Style(
            "jazz swing",
            bpm=(116, 190),
            moods=("happy", "calm", "energetic", "playful", "sad"),
            modes=("major", "dorian", "minor"),
            flavour="jazz",
            chord_size=5,
            swing=0.66,
            swing_steps=2,
            leads={
                "saxophone": 2.5,
                "clarinet": 1.5,
                "trumpet": 2.5,
                "trombone": 1.5,
                "grand piano": 2,
                "jazz guitar": 1,
                "vibraphone": 2,
            },
            rhythm="swing",
            parts=(
                Part(
                    "chords",
                    ("grand piano", "jazz guitar"),
                    (("x-....x-........", "......x-..x-...."), ("x---x---x---x---",)),
                    -27,
                ),
                Part("bass", ("upright bass",), (("r---t---f---n---",), ("r---f---t---n---",)), -21),
            ),
            kits=("jazz drums", "brushed drums"),
            grooves=(
                {
                    "ride": "x...x.x.x...x.x.",
                    "pedal hat": "....x.......x...",
                    "soft kick": "o...o...o...o...",
                    "rim": "......o.........",
                },
                {
                    "ride": "x...x.x.x...x.x.",
                    "pedal hat": "....x.......x...",
                    "soft kick": "x.......o.......",
                    "snare": "......o.......o.",
                },
            ),
            fills=False,
            drum_db=-22,
            reverb=0.18,
        ),
        Style(
            "bossa nova",
            bpm=(112, 144),
            moods=("calm", "happy", "dreamy", "sad"),
            modes=("major", "dorian", "minor"),
            flavour="jazz",
            chord_size=5,
            leads={"flute": 2, "clarinet": 1, "nylon guitar": 3, "accordion": 3, "grand piano": 1, "trombone": 1.5},
            rhythm="lazy",
            parts=(
                Part("chords", ("nylon guitar",), (("x-.x-.x-..x-.x..", "x-.x-..x-.x-.x.."),), -24),
                Part("bass", ("upright bass", "fretless bass"), (("r-----f-f-----r-",),), -22),
            ),
            kits=("brushed drums",),
            grooves=(
                {"soft kick": "x..xx..xx..xx..x", "rim": "x..x..x...x..x..", "closed hat": "x.xxx.xxx.xxx.xx"},
                {"soft kick": "x..xx..xx..xx..x", "rim": "x..x...x..x..x..", "shaker": "xoxoxoxoxoxoxoxo"},
            ),
            drum_db=-21,
            reverb=0.18,
        ),
        Style(
            "waltz",
            bpm=(120, 180),
            moods=("happy", "sad", "dreamy", "majestic", "playful"),
            modes=("major", "harmonic minor"),
            flavour="classical",
            meter=3,
            leads={"accordion": 3, "violin": 2, "grand piano": 2, "clarinet": 1, "flute": 1, "trumpet": 1},
            rhythm="waltz",
            parts=(
                Part("chords", ("string ensemble", "grand piano", "harp"), (("....x--.x--.",),), -24),
                Part("bass", ("double bass", "tuba"), (("r---........", "f---........"),), -20),
            ),
            kits=("brushed drums", "drum kit"),
            grooves=(
                {"kick": "X...........", "snare": "....o...o...", "pedal hat": "....x...x..."},
                {"kick": "X...........", "rim": "....x...x...", "ride": "x...x...x.x."},
            ),
            drum_chance=0.1,
            drum_db=-23,
            fills=False,
            reverb=0.25,
        ),
        Style(
            "march",
            bpm=(104, 124),
            moods=("majestic", "happy", "energetic", "dark", "playful"),
            modes=("major", "minor"),
            flavour="classical",
            leads={"trumpet": 3.5, "trombone": 2, "french horn": 1.5, "flute": 1.5, "clarinet": 1.5},
            rhythm="fanfare",
            parts=(
                Part("chords", ("french horn", "brass section"), (("..x-..x-..x-..x-",),), -25),
                Part("bass", ("tuba",), (("r---f---r---f---",),), -20),
            ),
            kits=("marching drums",),
            grooves=(
                {"soft kick": "X...X...X...X...", "snare": "x.xxx.x.x.xxx.xx", "crash": "X..............."},
                {"soft kick": "X.......X.......", "snare": "X..xX..xX.xxX.x.", "crash": "X..............."},
            ),
            fills=False,
            drum_db=-20,
            reverb=0.22,
        ),
        Style(
            "folk",
            bpm=(88, 132),
            moods=("happy", "playful", "sad", "energetic", "calm"),
            modes=("major", "mixolydian", "dorian", "minor"),
            flavour="folk",
            leads={"accordion": 3.5, "fiddle": 2.5, "banjo": 2, "whistle": 1, "recorder": 1},
            rhythm="reel",
            parts=(
                Part("chords", ("acoustic guitar",), (("0-2-1-2-0-2-1-3-",), ("0---x-x-0---x-x-",)), -23, 48, 66),
                Part("bass", ("upright bass",), (("r-------f-------",), ("r---....f---....",)), -23),
            ),
            kits=("hand percussion",),
            grooves=(
                {"tambourine": "....x.......x...", "low conga": "X.......X.......", "high conga": "......o.......o."},
                {"tambourine": "..x...x...x...x.", "low conga": "X...x...X...x..."},
            ),
            drum_chance=0.5,
            drum_db=-24,
            reverb=0.18,
        ),
        Style(
            "baroque chorale",
            bpm=(64, 88),
            moods=("majestic", "calm", "sad", "dark"),
            modes=("major", "harmonic minor", "minor"),
            flavour="classical",
            chords_per_bar=2,
            leads={"church organ": 4, "choir": 3, "brass section": 1.5, "string ensemble": 1.5},
            rhythm="hymn",
            parts=(
                Part(
                    "chords",
                    ("lead", "church organ", "string ensemble"),
                    (("x-------x-------",), ("x---x---x---x---",)),
                    -20,
                    52,
                    69,
                ),
                Part(
                    "bass",
                    ("lead", "church organ", "string ensemble"),
                    (("r---t---r---f---",), ("r---f---r---t---",), ("r-------r---f---",)),
                    -20,
                ),
            ),
            kits=("marching drums",),
            grooves=({"soft kick": "X.......o.......", "low tom": "....o.......o.oo"},),
            drum_chance=0.0,
            drum_db=-25,
            fills=False,
            lead_db=-17,
            reverb=0.4,
        ),
        Style(
            "string quartet",
            bpm=(72, 132),
            moods=("sad", "calm", "playful", "energetic", "majestic", "dark"),
            modes=("major", "dorian", "minor", "harmonic minor"),
            flavour="classical",
            leads={"violin": 1},
            rhythm="song",
            parts=(
                Part("counter", ("viola",), (), -22),
                Part(
                    "chords",
                    ("violin",),
                    (("0-1-0-1-0-1-0-1-",), ("0-1-2-1-0-1-2-1-",), ("x---x---x---x---",)),
                    -24,
                    55,
                    70,
                ),
                Part("bass", ("cello",), (("r-------f-------",), ("r---t---f---n---",)), -21),
            ),
            kits=("brushed drums", "hand percussion"),
            grooves=(
                {"soft kick": "X.......x.......", "shaker": "x.xox.xox.xox.xo"},
                {"soft kick": "X.....x.x.......", "rim": "....x.......x..."},
            ),
            drum_chance=0.0,
            drum_db=-25,
            ensembles=("band",),
            lead_db=-17,
            reverb=0.22,
        ),
        Style(
            "solo piano",
            bpm=(60, 112),
            moods=("sad", "calm", "dreamy", "happy", "dark"),
            modes=("major", "dorian", "minor"),
            flavour="pop",
            chord_size=4,
            leads={"grand piano": 1},
            rhythm="song",
            parts=(
                Part(
                    "chords",
                    ("lead", "grand piano"),
                    (("0-1-2-3-4-3-2-1-",), ("0-2-1-2-3-2-1-2-",), ("0-1-2-1-3-1-2-1-",)),
                    -21,
                    48,
                    66,
                ),
                Part("bass", ("lead", "grand piano"), (("r-------f-------",), ("r---------------",)), -22),
            ),
            kits=("brushed drums",),
            grooves=(
                {"soft kick": "X.......x.x.....", "rim": "....x.......x...", "closed hat": "x.x.x.x.x.x.x.x."},
                {"soft kick": "X.......o.......", "shaker": "x.x.x.x.x.x.x.x."},
            ),
            drum_chance=0.0,
            drum_db=-24,
            ensembles=("solo", "duo", "trio"),
            anchor="grand piano",
            lead_db=-17,
            reverb=0.22,
        ),
        Style(
            "music box",
            bpm=(66, 104),
            moods=("calm", "dreamy", "sad", "playful"),
            modes=("major", "lydian", "minor"),
            flavour="still",
            leads={"music box": 3, "celesta": 1},
            rhythm="song",
            parts=(Part("chords", ("lead", "music box"), (("0-1-2-1-0-1-2-1-",), ("0---1-2-0---1-2-",)), -20, 60, 76),),
            kits=("hand percussion",),
            grooves=({"low conga": "o.......o.......", "shaker": "x...o...x...o..."},),
            drum_chance=0.0,
            drum_db=-28,
            anchor="music box",
            lead_db=-17,
            reverb=0.25,
        ),
        Style(
            "chiptune",
            bpm=(112, 168),
            moods=("energetic", "playful", "happy", "dark"),
            modes=("major", "mixolydian", "minor"),
            flavour="pop",
            leads={"square wave lead": 1, "pulse wave lead": 1},
            rhythm="chip",
            parts=(
                Part("chords", ("chip arpeggio",), (("0123012301230123",), ("0.120.120.120.12",)), -25, 55, 72),
                Part("bass", ("triangle bass",), (("r-r-o-r-r-r-o-r-",), ("r---o---r---o---",)), -20),
            ),
            kits=("8-bit drums",),
            grooves=(
                {"kick": "X.....x.X.......", "snare": "....X.......X...", "closed hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X...X...X...X...", "snare": "....X.......X.x.", "closed hat": "..x...x...x...x."},
            ),
            drum_db=-22,
            reverb=0.02,
        ),
        Style(
            "synthwave",
            bpm=(84, 118),
            moods=("dark", "dreamy", "energetic", "sad", "majestic"),
            modes=("minor", "dorian", "major"),
            flavour="loop",
            leads={"synth lead": 2.5, "supersaw synth": 2, "overdriven guitar": 2.5, "choir": 2.5},
            rhythm="song",
            parts=(
                Part("bass", ("synth bass",), (("rrorrrorrrorrror",), ("r-r-r-r-r-r-r-r-",)), -20),
                Part("chords", ("synth pad",), _HOLD, -26),
                Part("chords", ("synth pluck",), (("0.2.1.2.3.2.1.2.",), ("0123210123210123",)), -28, 60, 78),
            ),
            kits=("drum machine",),
            grooves=(
                {"kick": "X.......X.......", "snare": "....X.......X...", "closed hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X...X...X...X...", "snare": "....X.......X...", "closed hat": "x.xxx.xxx.xxx.xx"},
            ),
            drum_db=-19,
            duck=0.2,
            reverb=0.25,
        ),
        Style(
            "blues",
            bpm=(72, 126),
            moods=("sad", "happy", "calm", "energetic", "dark"),
            modes=("mixolydian", "dorian", "minor"),
            flavour="blues",
            chord_size=4,
            swing=0.66,
            swing_steps=2,
            leads={
                "harmonica": 3,
                "overdriven guitar": 2.5,
                "clean electric guitar": 2,
                "saxophone": 1,
                "grand piano": 1.5,
            },
            rhythm="blues",
            parts=(
                Part(
                    "chords",
                    ("clean electric guitar", "grand piano", "hammond organ"),
                    (("x-x-x-x-x-x-x-x-",), ("..x-..x-..x-..x-",), ("x-----x-..x-----",)),
                    -24,
                    48,
                    66,
                ),
                Part("bass", ("bass guitar", "upright bass"), (("r---t---f---t---",), ("r-r-t-t-f-f-t-n-",)), -20),
            ),
            kits=("drum kit", "brushed drums"),
            grooves=(
                {"kick": "X.......X.......", "snare": "....X.......X...", "ride": "x...x.x.x...x.x."},
                {"kick": "X.....x.X.......", "snare": "....X.......X...", "closed hat": "x.x.x.x.x.x.x.x."},
            ),
            drum_db=-20,
            reverb=0.15,
        ),
        Style(
            "funk",
            bpm=(94, 118),
            moods=("energetic", "happy", "playful", "dark"),
            modes=("dorian", "mixolydian", "minor"),
            flavour="vamp",
            chord_size=4,
            leads={"brass section": 3, "saxophone": 2, "hammond organ": 2, "clean electric guitar": 2, "synth lead": 1},
            rhythm="syncopated",
            parts=(
                Part(
                    "chords",
                    ("clean electric guitar",),
                    (("x.xx..xx.x.xx.x.", "x.xx..xx.x.x..xx"), ("..xX..xX..xX..xX",)),
                    -24,
                    55,
                    72,
                ),
                Part(
                    "chords", ("electric piano", "hammond organ"), (("x-..........x-..",), ("......x-..x-....",)), -26
                ),
                Part(
                    "bass", ("bass guitar",), (("r..r..o.r.r..fo.",), ("r.or..r...f.o.n.",), ("r...r.o..r.r.f.n",)), -18
                ),
            ),
            kits=("drum kit",),
            grooves=(
                {"kick": "X.x....x..x..x..", "snare": "....X..o.o..X..o", "closed hat": "xxxxxxxxxxxxxxxx"},
                {
                    "kick": "X..x..x...x.....",
                    "snare": "....X.o..o..X...",
                    "closed hat": "x.xxx.xxx.xxx.x.",
                    "open hat": "..............x.",
                },
            ),
            drum_db=-18,
            reverb=0.08,
        ),
        Style(
            "reggae",
            bpm=(68, 92),
            moods=("happy", "calm", "playful", "sad", "dreamy"),
            modes=("major", "mixolydian", "dorian", "minor"),
            flavour="loop",
            leads={
                "hammond organ": 2.5,
                "clean electric guitar": 2,
                "trombone": 1.5,
                "saxophone": 1,
                "harmonica": 1,
                "steel drums": 1.5,
            },
            rhythm="lazy",
            parts=(
                Part(
                    "chords",
                    ("clean electric guitar", "grand piano"),
                    (("....x.......x...",), ("....xx......xx..",)),
                    -20,
                    55,
                    72,
                ),
                Part("chords", ("hammond organ",), (("..x...x...x...x.",), ("..xx..xx..xx..xx",)), -25, 52, 70),
                Part(
                    "bass", ("bass guitar",), (("r--r--..f-..o-..",), ("r-....r-t-..f---",), ("..r-r-..f-f-..t-",)), -17
                ),
            ),
            kits=("drum kit", "rock drums"),
            grooves=(
                {"kick": "o.......X.......", "rim": "........X.....o.", "closed hat": "x.x.x.xxx.x.x.x."},
                {"kick": "X...X...X...X...", "rim": "....o...X.......", "closed hat": "x.x.x.x.x.x.x.xx"},
            ),
            drum_db=-19,
            reverb=0.2,
        ),
        Style(
            "country",
            bpm=(92, 138),
            moods=("happy", "playful", "sad", "energetic", "calm"),
            modes=("major", "mixolydian", "minor"),
            flavour="folk",
            leads={
                "fiddle": 2.5,
                "banjo": 2,
                "harmonica": 2,
                "clean electric guitar": 2,
                "acoustic guitar": 1.5,
                "grand piano": 1,
            },
            rhythm="reel",
            parts=(
                Part("chords", ("acoustic guitar",), (("..x-..xx..x-..xx",), ("0-x-2-x-0-x-2-xx",)), -22, 48, 67),
                Part("bass", ("bass guitar", "upright bass"), (("r---....f---....",), ("r---....f---..n-",)), -20),
            ),
            kits=("brushed drums", "drum kit"),
            grooves=(
                {"kick": "X.......X.......", "snare": "..o.X.o...o.X.oo", "closed hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X...x...X...x...", "snare": "..x...x...x...x."},
            ),
            drum_db=-21,
            reverb=0.15,
        ),
        Style(
            "disco",
            bpm=(112, 126),
            moods=("happy", "energetic", "playful", "dreamy"),
            modes=("major", "dorian", "minor"),
            flavour="pop",
            chord_size=4,
            leads={"string ensemble": 3, "brass section": 2.5, "synth lead": 1.5, "electric piano": 1, "saxophone": 1},
            rhythm="syncopated",
            parts=(
                Part("chords", ("clean electric guitar",), (("x.xxx.xxx.xxx.xx",), ("xxX.xxX.xxX.xxX.",)), -25, 55, 72),
                Part(
                    "chords",
                    ("string ensemble", "electric piano"),
                    (("x---------------",), ("x-----x---------",)),
                    -27,
                    57,
                    76,
                ),
                Part("bass", ("bass guitar", "synth bass"), (("r-o-r-o-r-o-r-o-",), ("r.o.r.o.r.o.f.o.",)), -18),
            ),
            kits=("drum kit", "drum machine"),
            grooves=(
                {
                    "kick": "X...X...X...X...",
                    "snare": "....X.......X...",
                    "open hat": "..X...X...X...X.",
                    "closed hat": "x...x...x...x...",
                },
                {
                    "kick": "X...X...X...X...",
                    "clap": "....X.......X...",
                    "closed hat": "xxoxxxoxxxoxxxox",
                    "open hat": "..x...x...x...x.",
                },
            ),
            drum_db=-18,
            duck=0.15,
            reverb=0.14,
        ),
        Style(
            "drum and bass",
            bpm=(164, 180),
            moods=("energetic", "dark", "dreamy", "happy"),
            modes=("minor", "dorian", "phrygian", "major"),
            flavour="loop",
            leads={
                "synth pluck": 2,
                "synth lead": 2,
                "electric piano": 1.5,
                "synth choir": 1.5,
                "supersaw synth": 1.5,
                "vibraphone": 1,
            },
            rhythm="float",
            parts=(
                Part(
                    "bass",
                    ("sub bass", "synth bass"),
                    (("r---------r-----",), ("r-----..r---o---",), ("r--r--r-....f-n-",)),
                    -18,
                ),
                Part("chords", ("synth pad", "electric piano"), (("x---------------",), ("x-----x---------",)), -27),
            ),
            kits=("drum machine", "dusty drums"),
            grooves=(
                {"kick": "X.........X.....", "snare": "....X..o.o..X..o", "closed hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X..x......X..x..", "snare": "....X..o.o..X...", "closed hat": "xoxoxoxoxoxoxoxo"},
                {"kick": "X.x.......X.....", "snare": "....X..X.o..X.o.", "open hat": "x.......x......."},
            ),
            drum_db=-17,
            duck=0.25,
            reverb=0.2,
        ),
        Style(
            "trap",
            bpm=(66, 80),
            moods=("dark", "energetic", "sad", "dreamy"),
            modes=("minor", "phrygian", "harmonic minor", "dorian"),
            flavour="loop",
            leads={
                "synth bell": 2.5,
                "synth pluck": 2,
                "grand piano": 1.5,
                "synth choir": 1.5,
                "brass section": 1,
                "kalimba": 1,
            },
            rhythm="lazy",
            parts=(
                Part("bass", ("sub bass",), (("r-----..r--.r---",), ("r---------r-..f-",), ("r--r----..r-o---",)), -17),
                Part("chords", ("synth pad", "synth choir", "string ensemble"), _HOLD, -27),
            ),
            kits=("drum machine",),
            grooves=(
                {"kick": "X.....x...x.....", "clap": "........X.......", "closed hat": "xxxxxxxxxxxxxxxx"},
                {
                    "kick": "X..x......x..x..",
                    "snare": "........X.......",
                    "closed hat": "x.xxx.xxxxx.x.xx",
                    "open hat": "......x.........",
                },
                {"kick": "X......x..x.....", "clap": "........X......o", "closed hat": "xoxxxoxxxoxxxxxx"},
            ),
            drum_db=-18,
            duck=0.15,
            reverb=0.2,
        ),
        Style(
            "metal",
            bpm=(104, 176),
            moods=("dark", "energetic", "majestic", "sad"),
            modes=("minor", "phrygian", "harmonic minor"),
            flavour="metal",
            leads={"distorted guitar": 4, "overdriven guitar": 4},
            rhythm="shred",
            parts=(
                Part(
                    "chords",
                    ("distorted guitar",),
                    (("X.xxX.xxX.xxX.xx",), ("Xxx.Xxx.Xxx.X-x-",), ("X---x.xxX---x.xx",), ("XxxxXxxxXxxxXxxx",)),
                    -20,
                    36,
                    52,
                    "power",
                ),
                Part("bass", ("bass guitar",), (("r.rrr.rrr.rrr.rr",), ("rrr.rrr.rrr.r-n-",)), -20),
            ),
            kits=("rock drums",),
            grooves=(
                {"kick": "X.xxX.xxX.xxX.xx", "snare": "....X.......X...", "crash": "X...x...x...x..."},
                {"kick": "XxxxXxxxXxxxXxxx", "snare": "....X.......X...", "ride": "x...x...x...x..."},
                {"kick": "X..xx.xxX..xx...", "snare": "........X.......", "open hat": "x...x...x...x..."},
            ),
            drum_db=-17,
            drive=0.3,
            reverb=0.1,
        ),
        Style(
            "tango",
            bpm=(108, 136),
            moods=("dark", "sad", "energetic", "majestic", "playful"),
            modes=("harmonic minor", "minor", "major"),
            flavour="classical",
            leads={"accordion": 4, "violin": 3, "grand piano": 2, "clarinet": 1},
            rhythm="tango",
            parts=(
                Part(
                    "chords",
                    ("grand piano", "nylon guitar"),
                    (("X.....x.X...x...",), ("X..x..x.X..x..x.",), ("X...x...x...x.x.",)),
                    -21,
                    50,
                    69,
                ),
                Part("chords", ("string ensemble",), (("x--.....x--.....", "x-------x--.x--."),), -26),
                Part("bass", ("double bass",), (("r--.....f--.....",), ("r--r..r-f---..n-",)), -20),
            ),
            kits=("hand percussion", "brushed drums"),
            grooves=(
                {"soft kick": "X.....x.X.......", "rim": "...x..x....x..x."},
                {"soft kick": "X...x...x...x.x.", "snare": "......o.......oo"},
            ),
            drum_chance=0.15,
            drum_db=-24,
            reverb=0.2,
        ),
        Style(
            "samba",
            bpm=(92, 116),
            moods=("happy", "energetic", "playful", "calm"),
            modes=("major", "mixolydian", "dorian", "minor"),
            flavour="jazz",
            chord_size=4,
            leads={"nylon guitar": 2, "flute": 2, "trombone": 1.5, "accordion": 1.5, "clarinet": 1, "grand piano": 1},
            rhythm="syncopated",
            parts=(
                Part(
                    "chords",
                    ("nylon guitar", "acoustic guitar"),
                    (("x.xx.xx.x.x.xx.x",), ("x.x.xx.x.x.xx.x.",)),
                    -23,
                    52,
                    70,
                ),
                Part("bass", ("upright bass", "bass guitar"), (("r--rf-----fr....",), ("r--.f--ff--.r--.",)), -21),
            ),
            kits=("hand percussion",),
            grooves=(
                {
                    "low conga": "o...X...o...X...",
                    "high conga": "..x..xx...x..x.x",
                    "shaker": "XoxXXoxXXoxXXoxX",
                    "tambourine": "x..xx..xx..xx..x",
                },
                {
                    "low conga": "o.......X.......",
                    "high conga": "x.xx.x.xx.xx.x.x",
                    "shaker": "xxXxxxXxxxXxxxXx",
                    "claves": "x.x..x.x.xx.x.x.",
                },
            ),
            drum_db=-18,
            reverb=0.14,
        ),
        Style(
            "celtic",
            bpm=(96, 126),
            moods=("happy", "energetic", "playful", "sad", "dreamy"),
            modes=("dorian", "mixolydian", "major", "minor"),
            flavour="folk",
            leads={"whistle": 3, "fiddle": 3, "flute": 1.5, "harp": 2, "accordion": 1},
            rhythm="reel",
            parts=(
                Part("chords", ("harp",), (("0-1-2-3-2-1-2-1-",), ("0-2-1-2-3-2-1-2-",)), -24, 52, 71),
                Part(
                    "chords",
                    ("acoustic guitar",),
                    (("x-..x-x-x-..x-xx",), ("X--xx-x-X--xx-x-",)),
                    -25,
                    48,
                    66,
                    chance=0.8,
                ),
                Part("chords", ("string ensemble", "accordion"), (("x---------------",),), -28, 48, 60),
            ),
            kits=("hand percussion",),
            grooves=(
                {"low tom": "X..ox.oxX..ox.ox", "tambourine": "....x.......x..."},
                {"low tom": "X.oxo.x.X.oxo.xo"},
            ),
            drum_chance=0.6,
            drum_db=-22,
            reverb=0.28,
        ),
        Style(
            "cinematic orchestra",
            bpm=(72, 132),
            moods=("majestic", "dark", "energetic", "sad", "dreamy"),
            modes=("minor", "harmonic minor", "dorian", "major", "lydian"),
            flavour="epic",
            leads={
                "french horn": 3,
                "brass section": 2.5,
                "string ensemble": 2.5,
                "choir": 1.5,
                "trumpet": 1.5,
                "cello": 1,
            },
            rhythm="epic",
            parts=(
                Part(
                    "chords",
                    ("string ensemble", "pizzicato strings"),
                    (("X.xxX.xxX.xxX.xx",), ("Xxx.Xxx.Xxx.Xxx.",), ("X.x.xX.x.xX.x.x.",)),
                    -24,
                    48,
                    65,
                ),
                Part(
                    "chords",
                    ("choir", "french horn", "brass section", "synth choir"),
                    (("x---------------",),),
                    -26,
                    52,
                    70,
                ),
                Part("counter", ("violin", "oboe", "cello", "clarinet"), (), -25, chance=0.5),
                Part(
                    "bass",
                    ("double bass", "tuba"),
                    (("r---------------",), ("r-------r-------",), ("r.r.r.r.r.r.r.r.",)),
                    -21,
                ),
            ),
            kits=("marching drums",),
            grooves=(
                {"soft kick": "X.....x.X.......", "low tom": "X..x..x.X..x..xx", "crash": "X..............."},
                {"soft kick": "X...............", "low tom": "X.xxx.xxX.xxx.xx"},
                {"soft kick": "X.......X.....x.", "snare": "..o...o.X.o.oooo", "low tom": "X...x...X...x.x."},
            ),
            drum_chance=0.75,
            drum_db=-20,
            fills=False,
            reverb=0.45,
        ),
        Style(
            "gospel",
            bpm=(66, 112),
            moods=("happy", "majestic", "calm", "energetic", "sad"),
            modes=("major", "mixolydian", "minor"),
            flavour="gospel",
            chord_size=4,
            chords_per_bar=2,
            swing=0.62,
            swing_steps=2,
            leads={"choir": 4, "hammond organ": 3, "grand piano": 2.5, "saxophone": 1},
            rhythm="gospel",
            parts=(
                Part("chords", ("grand piano",), (("x---x-x-x---x-x-",), ("x-..x-x-..x-x-..",)), -23),
                Part("chords", ("hammond organ", "choir"), (("x-------x-------",),), -25, 52, 70),
                Part("bass", ("bass guitar",), (("r---r-t-r---f-n-",), ("r-----r-f-----n-",)), -20),
            ),
            kits=("drum kit",),
            grooves=(
                {"kick": "X.....x.X.......", "snare": "....X.......X...", "closed hat": "x.x.x.x.x.x.x.x."},
                {"kick": "X.......X...x...", "clap": "....X.......X...", "tambourine": "..x.x.x...x.x.x."},
            ),
            drum_chance=0.8,
            drum_db=-21,
            reverb=0.28,
        ),
        Style(
            "ragtime",
            bpm=(80, 108),
            moods=("playful", "happy", "energetic", "calm"),
            modes=("major", "mixolydian"),
            flavour="rag",
            chord_size=4,
            leads={"grand piano": 6, "banjo": 1.5, "clarinet": 1, "accordion": 0.5},
            rhythm="rag",
            parts=(
                Part("chords", ("lead", "grand piano"), (("..x...x...x...x.",),), -22, 52, 67),
                Part("bass", ("lead", "grand piano"), (("r-..f-..r-..f-..",), ("r-..t-..f-..n-..",)), -21),
            ),
            kits=("brushed drums", "drum kit"),
            grooves=(
                {"kick": "X...x...X...x...", "snare": "..x...x...x...x."},
                {"kick": "X...X...X...X...", "rim": "..x..x..x..x..x."},
            ),
            drum_chance=0.0,
            drum_db=-23,
            reverb=0.12,
        ),
        Style(
            "soul",
            bpm=(72, 108),
            moods=("calm", "happy", "sad", "dreamy", "energetic"),
            modes=("major", "dorian", "mixolydian", "minor"),
            flavour="soul",
            chord_size=5,
            swing=0.55,
            leads={
                "saxophone": 2.5,
                "electric piano": 2,
                "hammond organ": 2,
                "clean electric guitar": 1.5,
                "brass section": 1.5,
                "muted trumpet": 1,
            },
            rhythm="lazy",
            parts=(
                Part("chords", ("electric piano",), (("x-----x-..x-....",), ("x---..x-x---..x-",)), -23),
                Part("chords", ("clean electric guitar",), (("....x.......x...",), ("....x-..2.3.x-..",)), -26, 55, 72),
                Part("chords", ("string ensemble", "hammond organ"), (("x---------------",),), -29, 57, 74, chance=0.6),
                Part("bass", ("bass guitar",), (("r--r..o-r-..f-n-",), ("r-....r-f-r-..n-",)), -19),
            ),
            kits=("drum kit",),
            grooves=(
                {"kick": "X......x..x.....", "snare": "....X.......X...", "closed hat": "x.x.x.x.x.x.x.x."},
                {
                    "kick": "X..x....X.x.....",
                    "snare": "....X..o....X...",
                    "closed hat": "xxx.xxx.xxx.xxx.",
                    "tambourine": "....x.......x...",
                },
            ),
            drum_db=-20,
            reverb=0.16,
        ),
        Style(
            "latin pop",
            bpm=(88, 124),
            moods=("happy", "energetic", "playful", "sad", "dreamy"),
            modes=("minor", "major", "harmonic minor", "dorian"),
            flavour="latin",
            leads={
                "trumpet": 2.5,
                "nylon guitar": 2.5,
                "accordion": 1.5,
                "flute": 1,
                "grand piano": 1.5,
                "steel drums": 1,
            },
            rhythm="syncopated",
            parts=(
                Part(
                    "chords",
                    ("grand piano",),
                    (("x.xx.xx.x.xx.xx.", "x.x.xx.xx.x.xx.x"), ("0.2.3.20.2.3.2.3",)),
                    -23,
                    55,
                    74,
                ),
                Part("chords", ("nylon guitar",), (("x..x..x.x..x..x.",), ("X--x--x-X--x--x-",)), -25, 50, 68),
                Part(
                    "bass",
                    ("bass guitar", "synth bass"),
                    (("r-----r-....f---",), ("r--r..r-f--f..r-",), ("r-....f---..o---",)),
                    -19,
                ),
            ),
            kits=("hand percussion", "drum kit"),
            grooves=(
                {"kick": "X...X...X...X...", "rim": "...x..x....x..x.", "shaker": "xoxoxoxoxoxoxoxo"},
                {
                    "kick": "X.....x.X.....x.",
                    "low conga": "x...........x...",
                    "high conga": "..x.x.xx..x.x.xx",
                    "claves": "x..x..x...x.x...",
                },
                {"kick": "X...X...X...X...", "snare": "...x..x....x..x.", "cowbell": "x...x.x.x...x.x."},
            ),
            drum_db=-19,
            reverb=0.14,
        ),
    )
}

# Styles of no training set, for trying how a model adapts to music it has never heard (held_out.py).
HELD_OUT = {
    style.name: style
    for style in (
        Style(
            "ska",
            bpm=(132, 168),
            moods=("happy", "energetic", "playful"),
            modes=("major", "mixolydian", "minor"),
            flavour="pop",
            leads={"trombone": 2, "saxophone": 2, "trumpet": 1},
            rhythm="swing",
            parts=(
                Part("chords", ("clean electric guitar",), (("..x...x...x...x.",), ("..xx..xx..xx..xx",)), -19, 52, 71),
                Part("chords", ("hammond organ",), (("..x...x...x...x.",),), -22, 55, 74),
                Part("bass", ("bass guitar",), (("r---t---f---n---",), ("r---f---r---n---",)), -19),
            ),
            kits=("rock drums",),
            grooves=(
                {"kick": "X.......X.......", "rim": "....X.......X...", "open hat": "..x...x...x...x."},
                {"kick": "X...X...X...X...", "snare": "....X.......X...", "closed hat": "..X...X...X...X."},
            ),
            drum_db=-18,
            reverb=0.1,
        ),
    )
}


def tempo_word(bpm: int) -> str:
    """The word for a tempo; captions draw synonyms of it."""
    for limit, word in ((70, "very slow"), (88, "slow"), (112, "moderate"), (138, "upbeat")):
        if bpm < limit:
            return word
    return "fast"
