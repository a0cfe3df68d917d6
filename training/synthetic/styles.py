"""The tables of the composer: instruments, moods, harmony and the sixteen styles.

Everything musical that is data lives here, so that a new style or instrument is a table row and not code.

Grid language. A bar is a string with one character per sixteenth note (16 in 4/4, 12 in 3/4). `.` is silence and `-`
holds the note before it. Chord parts: `x` or `X` (louder) strikes the whole chord, a digit plays that tone of the chord
(0 is the lowest, tones past the top continue an octave higher). Bass parts: `r` root, `t` third, `f` fifth, `o` root an
octave up, `n` a step below the next root. Melodies and drums: `x` plays, `X` accents, `o` plays softly.
"""

from dataclasses import dataclass

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

FAMILIES = (
    "piano",
    "organ",
    "mallets",
    "guitar",
    "strings",
    "brass",
    "woodwinds",
    "choir",
    "accordion",
    "synth",
)  # the families a lead instrument can have


@dataclass(frozen=True)
class Instrument:
    """One sound: a soundfont program, a soundfont drum kit, or a voice of voices.py."""

    name: str
    family: str
    low: int = 0  # MIDI pitches it plays comfortably
    high: int = 127
    program: int | None = None
    kit: int | None = None
    voice: str | None = None


def _sampled(name: str, program: int, family: str, low: int, high: int) -> Instrument:
    return Instrument(name, family, low, high, program=program)


def _synth(name: str, voice: str, family: str, low: int, high: int) -> Instrument:
    return Instrument(name, family, low, high, voice=voice)


INSTRUMENTS = {
    instrument.name: instrument
    for instrument in (
        _sampled("grand piano", 0, "piano", 28, 88),
        _sampled("electric piano", 4, "piano", 36, 84),
        _sampled("church organ", 19, "organ", 36, 84),
        _sampled("hammond organ", 16, "organ", 36, 84),
        _sampled("music box", 10, "mallets", 60, 96),
        _sampled("celesta", 8, "mallets", 60, 94),
        _sampled("vibraphone", 11, "mallets", 53, 84),
        _sampled("marimba", 12, "mallets", 45, 84),
        _sampled("kalimba", 108, "mallets", 55, 84),
        _sampled("nylon guitar", 24, "guitar", 40, 76),
        _sampled("acoustic guitar", 25, "guitar", 40, 76),
        _sampled("jazz guitar", 26, "guitar", 40, 76),
        _sampled("clean electric guitar", 27, "guitar", 40, 76),
        _sampled("overdriven guitar", 29, "guitar", 40, 78),
        _sampled("distorted guitar", 30, "guitar", 40, 76),
        _sampled("banjo", 105, "guitar", 48, 79),
        _sampled("violin", 40, "strings", 55, 88),
        _sampled("viola", 41, "strings", 48, 79),
        _sampled("cello", 42, "strings", 36, 69),
        _sampled("fiddle", 110, "strings", 55, 86),
        _sampled("string ensemble", 48, "strings", 36, 84),
        _sampled("harp", 46, "harp", 36, 90),
        _sampled("trumpet", 56, "brass", 55, 80),
        _sampled("trombone", 57, "brass", 40, 70),
        _sampled("french horn", 60, "brass", 41, 74),
        _sampled("brass section", 61, "brass", 45, 77),
        _sampled("saxophone", 66, "woodwinds", 46, 77),
        _sampled("clarinet", 71, "woodwinds", 50, 84),
        _sampled("oboe", 68, "woodwinds", 58, 84),
        _sampled("flute", 73, "woodwinds", 60, 89),
        _sampled("recorder", 74, "woodwinds", 60, 88),
        _sampled("pan flute", 75, "woodwinds", 60, 86),
        _sampled("whistle", 78, "woodwinds", 60, 88),
        _sampled("choir", 52, "choir", 43, 79),
        _sampled("accordion", 21, "accordion", 50, 84),
        _synth("synth lead", "saw_lead", "synth", 48, 84),
        _synth("supersaw synth", "supersaw", "synth", 48, 84),
        _synth("acid synth", "acid", "synth", 36, 72),
        _synth("synth pluck", "pluck", "synth", 48, 84),
        _synth("square wave lead", "square", "synth", 55, 88),
        _synth("pulse wave lead", "pulse", "synth", 55, 88),
        _synth("synth bell", "fm_bell", "synth", 55, 88),
        _synth("synth pad", "pad", "synth", 40, 80),
        _synth("synth stabs", "stab", "synth", 48, 76),
        _synth("chip arpeggio", "pulse", "synth", 52, 80),
        _sampled("upright bass", 32, "bass", 28, 52),
        _sampled("bass guitar", 33, "bass", 28, 52),
        _sampled("fretless bass", 35, "bass", 28, 52),
        _sampled("double bass", 43, "bass", 28, 52),
        _sampled("tuba", 58, "bass", 29, 53),
        _synth("sub bass", "sub", "bass", 30, 50),
        _synth("synth bass", "saw_bass", "bass", 30, 52),
        _synth("triangle bass", "triangle", "bass", 33, 57),
        Instrument("drum kit", "drums", kit=0),
        Instrument("rock drums", "drums", kit=16),
        Instrument("jazz drums", "drums", kit=32),
        Instrument("brushed drums", "drums", kit=40),
        Instrument("marching drums", "drums", kit=48),
        Instrument("drum machine", "drums", voice="machine_kit"),
        Instrument("dusty drums", "drums", voice="dusty_kit"),
        Instrument("8-bit drums", "drums", voice="console_kit"),
        Instrument("hand percussion", "drums", kit=0),
        Instrument("vinyl crackle", "texture", voice="vinyl"),
    )
}

DRUM_KEYS = {
    "kick": 36,
    "soft kick": 35,
    "snare": 38,
    "rim": 37,
    "clap": 39,
    "closed hat": 42,
    "pedal hat": 44,
    "open hat": 46,
    "ride": 51,
    "crash": 49,
    "shaker": 82,
    "tambourine": 54,
    "low conga": 64,
    "high conga": 63,
}
FILL_KEYS = (38, 45, 48, 41)  # snare and three toms


@dataclass(frozen=True)
class Mood:
    """How a mood bends the notes and the sound, so that it can be heard."""

    modes: tuple[str, ...]
    tempo: tuple[float, float]  # where in the style's range of tempos
    register: int  # semitones by which the lead moves
    velocity: float  # centre of the loudness of notes, 0..1
    density: str  # which melody rhythms: sparse, even or busy
    gate: float  # share of the written length that a melody note sounds
    treble_db: float  # high shelf on the mix
    reverb: float  # factor on the style's reverb
    echo: float = 0.0  # level of a dotted-eighth echo


MOODS = {
    "happy": Mood(("major", "mixolydian"), (0.45, 0.85), 3, 0.78, "even", 0.85, 3.0, 0.8),
    "playful": Mood(("major", "mixolydian", "lydian"), (0.5, 1.0), 7, 0.7, "busy", 0.42, 2.0, 0.5),
    "calm": Mood(("major", "mixolydian", "dorian"), (0.0, 0.35), 0, 0.5, "sparse", 1.0, -4.0, 1.2),
    "dreamy": Mood(("lydian", "major", "dorian"), (0.05, 0.5), 5, 0.55, "sparse", 1.0, -1.0, 2.6, 0.5),
    "majestic": Mood(("major", "minor"), (0.15, 0.6), -2, 0.95, "even", 0.98, 2.0, 1.7),
    "energetic": Mood(("major", "mixolydian", "dorian", "minor"), (0.7, 1.0), 2, 0.95, "busy", 0.8, 5.0, 0.6),
    "sad": Mood(("minor", "harmonic minor"), (0.0, 0.3), -3, 0.5, "sparse", 1.0, -6.0, 1.4),
    "dark": Mood(("phrygian", "minor", "harmonic minor"), (0.2, 0.7), -9, 0.8, "even", 0.9, -8.0, 1.5),
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
}

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
    drum_db: float = -19.0
    lead_db: float = -15.0
    lowpass_hz: float | None = None
    drive: float = 0.0
    duck: float = 0.0  # how far the kick pushes the rest down
    reverb: float = 0.15


_HOLD = (("x---------------",),)

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
            leads={"accordion": 5, "violin": 2, "clarinet": 1, "flute": 1, "trumpet": 1},
            rhythm="waltz",
            parts=(
                Part("chords", ("string ensemble", "grand piano", "harp"), (("....x--.x--.",),), -24),
                Part("bass", ("double bass", "tuba"), (("r---........", "f---........"),), -20),
            ),
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
                Part("chords", ("lead",), (("x-------x-------",), ("x---x---x---x---",)), -20, 52, 69),
                Part("bass", ("lead",), (("r---t---r---f---",), ("r---f---r---t---",), ("r-------r---f---",)), -20),
            ),
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
                    ("lead",),
                    (("0-1-2-3-4-3-2-1-",), ("0-2-1-2-3-2-1-2-",), ("0-1-2-1-3-1-2-1-",)),
                    -21,
                    48,
                    66,
                ),
                Part("bass", ("lead",), (("r-------f-------",), ("r---------------",)), -22),
            ),
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
            parts=(Part("chords", ("lead",), (("0-1-2-1-0-1-2-1-",), ("0---1-2-0---1-2-",)), -20, 60, 76),),
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
