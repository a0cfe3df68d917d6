"""The table of instruments: what sounds, how high and low it plays, and in which roles it is drawn."""

from dataclasses import dataclass

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
    "harp",
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
    stand_in: str | None = None  # the voice that plays where a soundfont lacks the program
    chordal: bool = False  # one player can accompany the own melody
    fades: bool = False  # its notes die away within about a second


_MONOPHONIC = ("violin", "viola", "cello", "fiddle", "trumpet", "muted trumpet", "trombone", "french horn", "sitar",
               "acid synth", "square wave lead", "pulse wave lead", "chip arpeggio", "synth lead")  # fmt: skip
_FADING = ("music box", "celesta", "marimba", "kalimba", "banjo", "pizzicato strings", "synth stabs", "synth pluck",
           "harpsichord", "steel drums", "acid synth", "sitar")  # fmt: skip
_CHORDAL = ("piano", "organ", "mallets", "guitar", "strings", "brass", "choir", "accordion", "synth", "harp")


def _row(name: str, family: str, low: int, high: int, **sound) -> Instrument:
    chordal = family in _CHORDAL and name not in _MONOPHONIC
    return Instrument(name, family, low, high, chordal=chordal, fades=name in _FADING, **sound)


def _sampled(name: str, program: int, family: str, low: int, high: int, stand_in: str | None = None) -> Instrument:
    return _row(name, family, low, high, program=program, stand_in=stand_in)


def _synth(name: str, voice: str, family: str, low: int, high: int) -> Instrument:
    return _row(name, family, low, high, voice=voice)


INSTRUMENTS = {
    instrument.name: instrument
    for instrument in (
        _sampled("grand piano", 0, "piano", 28, 88),
        _sampled("electric piano", 4, "piano", 36, 84),
        _sampled("harpsichord", 6, "piano", 36, 84),
        _sampled("church organ", 19, "organ", 36, 84),
        _sampled("hammond organ", 16, "organ", 36, 84),
        _sampled("reed organ", 20, "organ", 36, 84, "reeds"),
        _sampled("music box", 10, "mallets", 60, 96),
        _sampled("celesta", 8, "mallets", 60, 94),
        _sampled("vibraphone", 11, "mallets", 53, 84),
        _sampled("marimba", 12, "mallets", 45, 84),
        _sampled("kalimba", 108, "mallets", 55, 84),
        _sampled("steel drums", 114, "mallets", 52, 84),
        _sampled("nylon guitar", 24, "guitar", 40, 76),
        _sampled("acoustic guitar", 25, "guitar", 40, 76),
        _sampled("jazz guitar", 26, "guitar", 40, 76),
        _sampled("clean electric guitar", 27, "guitar", 40, 76),
        _sampled("overdriven guitar", 29, "guitar", 40, 78),
        _sampled("distorted guitar", 30, "guitar", 40, 76),
        _sampled("banjo", 105, "guitar", 48, 79),
        _sampled("sitar", 104, "guitar", 48, 79),
        _sampled("violin", 40, "strings", 55, 88),
        _sampled("viola", 41, "strings", 48, 79),
        _sampled("cello", 42, "strings", 36, 69),
        _sampled("fiddle", 110, "strings", 55, 86),
        _sampled("string ensemble", 48, "strings", 36, 84),
        _sampled("pizzicato strings", 45, "strings", 40, 84, "plucked_string"),
        _sampled("harp", 46, "harp", 36, 86),
        _sampled("trumpet", 56, "brass", 55, 80),
        _sampled("muted trumpet", 59, "brass", 55, 80, "muted_brass"),
        _sampled("trombone", 57, "brass", 40, 70),
        _sampled("french horn", 60, "brass", 41, 74),
        _sampled("brass section", 61, "brass", 45, 77),
        _sampled("saxophone", 66, "woodwinds", 46, 77),
        _sampled("clarinet", 71, "woodwinds", 50, 84),
        _sampled("oboe", 68, "woodwinds", 58, 84),
        _sampled("bassoon", 70, "woodwinds", 34, 67),
        _sampled("flute", 73, "woodwinds", 60, 89),
        _sampled("recorder", 74, "woodwinds", 60, 88),
        _sampled("pan flute", 75, "woodwinds", 60, 86),
        _sampled("whistle", 78, "woodwinds", 60, 88),
        _sampled("harmonica", 22, "woodwinds", 55, 84, "reeds"),
        _sampled("choir", 52, "choir", 43, 79),
        _sampled("synth choir", 54, "choir", 43, 79, "vowels"),
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
LEADS = tuple(name for name, instrument in INSTRUMENTS.items() if instrument.family in FAMILIES)

# How often a lead is drawn where the style does not say: families, and what is asked for most within them.
FAMILY_WEIGHTS = {
    "piano": 2.5,
    "organ": 0.9,
    "mallets": 1.0,
    "guitar": 1.6,
    "strings": 1.6,
    "brass": 1.2,
    "woodwinds": 1.6,
    "choir": 0.8,
    "accordion": 0.6,
    "synth": 1.4,
    "harp": 0.6,
}
SOLO_WEIGHTS = FAMILY_WEIGHTS | {"piano": 7.0, "guitar": 3.5, "accordion": 1.2, "harp": 1.2}
LEAD_WEIGHTS = {
    "grand piano": 4.0,
    "electric piano": 1.5,
    "nylon guitar": 2.0,
    "acoustic guitar": 2.0,
    "violin": 2.0,
    "cello": 1.5,
    "trumpet": 2.0,
    "saxophone": 2.0,
    "flute": 2.5,
    "synth lead": 2.0,
}  # 1 for the others

# What accompanies where the style does not say: drawn with equal chances.
CHORD_PLAYERS = (
    "grand piano",
    "grand piano",
    "electric piano",
    "nylon guitar",
    "acoustic guitar",
    "clean electric guitar",
    "jazz guitar",
    "harp",
    "accordion",
    "hammond organ",
    "church organ",
    "reed organ",
    "string ensemble",
    "string ensemble",
    "pizzicato strings",
    "vibraphone",
    "marimba",
    "harpsichord",
    "choir",
    "synth pad",
    "synth pluck",
    "brass section",
)
LAYERS = ("string ensemble", "string ensemble", "choir", "synth pad", "synth choir", "church organ", "french horn")
BASS_PLAYERS = ("upright bass", "bass guitar", "fretless bass", "double bass", "tuba", "synth bass", "sub bass")
LOW_PLAYERS = ("cello", "bassoon", "trombone", "double bass", "upright bass")  # the lowest of melody instruments
MELODY_PLAYERS = (
    "violin",
    "violin",
    "viola",
    "cello",
    "cello",
    "flute",
    "flute",
    "oboe",
    "clarinet",
    "bassoon",
    "saxophone",
    "trumpet",
    "muted trumpet",
    "trombone",
    "french horn",
    "harmonica",
    "recorder",
    "fiddle",
    "whistle",
    "pan flute",
    "accordion",
    "vibraphone",
    "nylon guitar",
    "harp",
    "synth lead",
    "synth bell",
)

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
    "cowbell": 56,
    "claves": 75,
    "low tom": 41,
    "low conga": 64,
    "high conga": 63,
}
FILL_KEYS = (38, 45, 48, 41)  # snare and three toms
