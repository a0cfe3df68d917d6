"""English captions from tags: templates filled with synonyms, reproducible from the tags and a seed.

`write_captions(tags, seed)` gives six captions of six kinds (short prompt, tag list, sentence, instruments, tempo and
key, description); `tag_caption(tags)` gives the bare tag list. Tags are any mapping with the columns of the data set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StyleWords:
    """`kinds` follow an adjective without an article (mass nouns); `pieces` are countable."""

    kinds: tuple[str, ...]
    pieces: tuple[str, ...]
    uses: tuple[str, ...]
    scenes: tuple[str, ...]  # whole clauses about the sound, true of every piece of the style


STYLES = {
    "lo-fi hip hop": StyleWords(
        ("lo-fi hip hop", "lofi", "chillhop", "lo-fi study music", "dusty hip hop", "downtempo hip hop", "jazzy lo-fi"),
        ("lo-fi beat", "chillhop beat", "lofi instrumental", "hip hop instrumental", "lo-fi loop", "boom bap beat"),
        ("for studying", "for late-night coding", "for a rainy afternoon", "for a coffee break", "for homework"),
        ("vinyl crackle sits under the beat", "the drums sound dusty and worn", "jazzy chords loop lazily",
         "a swung beat nods along", "the sound is muffled like an old tape"),
    ),
    "house": StyleWords(
        ("house", "house music", "deep house", "club house", "four-on-the-floor house", "piano house", "dance music"),
        ("house track", "club track", "dance floor tune", "deep house groove", "house anthem", "disco house cut"),
        ("for the dance floor", "for a pool party", "for a DJ set", "for a nightclub", "for a fashion show"),
        ("a four-on-the-floor kick drives the groove", "open hats ring between the kicks", "claps land on two and four",
         "the bass bounces off the beat", "synth stabs pump with the kick"),
    ),
    "techno": StyleWords(
        ("techno", "techno music", "warehouse techno", "driving techno", "underground techno", "minimal techno"),
        ("techno track", "techno loop", "rave tune", "warehouse track", "peak-time techno cut", "machine groove"),
        ("for a warehouse rave", "for a treadmill run", "for a strobe-lit basement", "for a racing game"),
        ("a pounding kick never stops", "a hypnotic sequence repeats", "a rolling bass fills the gaps between kicks",
         "metallic hats tick relentlessly", "the loop churns on and on"),
    ),
    "ambient": StyleWords(
        ("ambient", "ambient music", "drone ambient", "atmospheric music", "meditation music", "space music"),
        ("ambient soundscape", "ambient piece", "atmospheric texture", "sleep track", "drifting soundscape"),
        ("for sleep", "for meditation", "for yoga", "for a nature documentary", "for deep concentration",
         "for a planetarium"),
        ("long chords swell and fade", "there is no beat, only slow waves of sound", "wide pads drift by",
         "single notes echo in a huge space", "a soft arpeggio glimmers"),
    ),
    "rock": StyleWords(
        ("rock", "rock music", "guitar rock", "hard rock", "riff rock", "garage rock", "classic rock"),
        ("rock song", "rock instrumental", "rock anthem", "guitar track", "rock band jam", "stadium rock tune"),
        ("for a road trip", "for a motorbike advert", "for a sports highlight reel", "for the gym", "for air guitar"),
        ("power chords chug along", "the backbeat hits hard", "crunchy guitars fill the room",
         "bass and guitar pound in lockstep", "drum fills crash into each new line"),
    ),
    "jazz swing": StyleWords(
        ("jazz", "swing", "swing jazz", "bebop", "straight-ahead jazz", "small-group jazz", "mainstream jazz"),
        ("jazz tune", "swing number", "jazz standard", "jazz combo piece", "bop tune", "jazz club number"),
        ("for a small club", "for a cocktail bar", "for a detective film", "for a dinner party", "for a smoky lounge"),
        ("the ride cymbal swings", "a walking bass strolls underneath", "chords comp behind the solo",
         "the soloist improvises freely", "a tight rhythm section keeps swinging"),
    ),
    "bossa nova": StyleWords(
        ("bossa nova", "bossa", "Brazilian jazz", "Latin jazz", "Brazilian music", "samba-jazz"),
        ("bossa nova", "bossa tune", "Brazilian instrumental", "Latin jazz piece", "beach bar song", "samba ballad"),
        ("for a beach bar", "for a sunny terrace", "for an elevator", "for a hotel lobby", "for a stroll in Rio"),
        ("a nylon guitar plucks syncopated chords", "the rim click keeps the clave", "soft brushes shuffle along",
         "the bass sways between root and fifth", "everything is gently syncopated"),
    ),
    "waltz": StyleWords(
        ("waltz music", "ballroom music", "Viennese waltz", "three-four dance music", "musette waltz"),
        ("waltz", "ballroom waltz", "dance in three", "carousel waltz", "old-fashioned waltz", "salon waltz"),
        ("for a ballroom", "for a merry-go-round", "for a first wedding dance", "for a Paris street scene"),
        ("an oom-pah-pah accompaniment turns round and round",
         "the bass takes beat one and chords answer on two and three", "dancers could whirl to it",
         "it turns in three-four time", "the melody glides over a lilting three"),
    ),
    "march": StyleWords(
        ("march music", "marching band music", "military music", "parade music", "brass band music"),
        ("march", "military march", "parade march", "marching band tune", "ceremonial march", "brass band march"),
        ("for a parade", "for a victory ceremony", "for a school marching band", "for a circus entrance"),
        ("snare drums rattle", "the tuba pumps on every beat", "horns answer off the beat",
         "boots could keep step to it", "a crash cymbal marks every bar"),
    ),
    "folk": StyleWords(
        ("folk", "folk music", "acoustic folk", "traditional music", "Celtic folk", "country dance music"),
        ("folk tune", "folk dance", "traditional reel", "acoustic jig", "village dance", "fireside tune", "barn dance"),
        ("for a village dance", "for a campfire", "for a pub session", "for a harvest festival", "for a hike"),
        ("a picked acoustic guitar keeps time", "the tune skips along", "it sounds like friends playing on a porch",
         "the melody is simple and singable", "everything is acoustic"),
    ),
    "baroque chorale": StyleWords(
        ("baroque chorale music", "church music", "sacred music", "baroque music", "hymn music", "liturgical music"),
        ("baroque chorale", "chorale", "hymn", "four-part hymn", "church chorale", "Bach-style chorale", "sacred hymn"),
        ("for a church service", "for a cathedral", "for a solemn ceremony", "for a procession", "for Easter morning"),
        ("four voices move together", "each phrase comes to rest on a cadence", "block harmonies fill the nave",
         "the voices step from chord to chord", "the harmony is strict and stately"),
    ),
    "string quartet": StyleWords(
        ("string quartet music", "chamber music", "classical chamber music", "classical strings", "quartet music"),
        ("string quartet", "classical quartet", "chamber piece", "quartet movement", "string chamber work"),
        ("for a wedding ceremony", "for a museum", "for a period drama", "for a garden reception"),
        ("two violins, viola and cello converse", "bows dig into the strings", "the inner voices keep moving",
         "the cello anchors the harmony", "it sounds like a recital in a small hall"),
    ),
    "solo piano": StyleWords(
        ("solo piano", "piano music", "solo piano music", "neoclassical piano", "unaccompanied piano"),
        ("piano piece", "piano solo", "piano ballad", "piano etude", "piano instrumental", "piano nocturne"),
        ("for a quiet evening", "for a film scene", "for reading", "for a candlelit dinner", "for journaling"),
        ("a single piano plays alone", "the left hand ripples in broken chords", "only a piano is heard",
         "the right hand sings the melody", "the pedal lets the notes blur"),
    ),
    "music box": StyleWords(
        ("music box music", "lullaby music", "nursery music", "toy music", "baby sleep music"),
        ("music box tune", "music box lullaby", "lullaby", "nursery melody", "tinkling lullaby", "wind-up toy tune"),
        ("for a baby to fall asleep to", "for a nursery", "for a snow globe", "for a bedtime story",
         "for a fairy tale"),
        ("tiny metal tines tinkle", "it sounds like a wound-up toy", "delicate notes chime",
         "a ballerina could spin to it", "the notes are small and glassy"),
    ),
    "chiptune": StyleWords(
        ("chiptune", "8-bit music", "video game music", "retro game music", "chip music", "console music"),
        ("chiptune", "8-bit theme", "video game theme", "arcade tune", "game console track", "pixel adventure theme"),
        ("for a platform game", "for a boss fight", "for an arcade cabinet", "for a pixel art trailer",
         "for a level select screen"),
        ("square waves bleep", "rapid arpeggios flicker", "it sounds like an old game console",
         "noise drums hiss and click", "a triangle wave plays the bass"),
    ),
    "synthwave": StyleWords(
        ("synthwave", "retrowave", "80s synth music", "outrun", "80s electronic music", "darksynth", "new retro wave"),
        ("synthwave track", "retrowave tune", "80s synth anthem", "outrun track", "retro electronic theme"),
        ("for a night drive", "for a neon city at midnight", "for a cyberpunk film", "for an 80s movie montage"),
        ("a pulsing synth bass drives on", "gated drums boom", "analog pads glow behind it", "arpeggios shimmer",
         "it glows like neon"),
    ),
}  # fmt: skip

MOODS = {
    "happy": (
        ("happy", "cheerful", "joyful", "merry", "sunny", "bright", "uplifting", "feel-good", "optimistic", "jolly"),
        ("like sunshine after rain", "that makes you smile", "full of good cheer", "like the first day of holidays",
         "with a spring in its step"),
    ),
    "playful": (
        ("playful", "quirky", "bouncy", "whimsical", "mischievous", "cheeky", "perky", "comical", "light-hearted"),
        ("that skips and hops", "with short, hopping notes", "like a cartoon chase", "like kittens at play",
         "that never sits still"),
    ),
    "calm": (
        ("calm", "peaceful", "relaxing", "gentle", "soothing", "tranquil", "serene", "mellow", "soft", "laid-back"),
        ("that takes its time", "like a still lake", "to unwind to", "like a slow breath", "with nowhere to hurry to"),
    ),
    "dreamy": (
        ("dreamy", "ethereal", "hazy", "floating", "otherworldly", "magical", "spacious", "weightless", "shimmering"),
        ("washed in echo", "drenched in reverb", "like drifting through clouds", "like a half-remembered dream",
         "floating in a vast space"),
    ),
    "majestic": (
        ("majestic", "grand", "epic", "heroic", "triumphant", "noble", "powerful", "stately", "glorious", "proud"),
        ("like a coronation", "with a huge sound", "fit for a king", "like a view from a mountain top",
         "that stands tall"),
    ),
    "energetic": (
        ("energetic", "lively", "exciting", "driving", "fiery", "vigorous", "high-energy", "punchy", "frenetic"),
        ("that never lets up", "full of drive", "bursting with energy", "that gets the heart racing",
         "like a chase at full speed"),
    ),
    "sad": (
        ("sad", "melancholic", "sorrowful", "mournful", "wistful", "gloomy", "tearful", "heartbroken", "nostalgic"),
        ("like a farewell", "full of longing", "that aches quietly", "like rain on a window", "about something lost"),
    ),
    "dark": (
        ("dark", "ominous", "brooding", "menacing", "sinister", "shadowy", "tense", "eerie", "haunting", "foreboding"),
        ("like footsteps in an empty house", "full of menace", "from the shadows", "like a storm drawing near",
         "that creeps up on you"),
    ),
}  # fmt: skip

TEMPOS = {
    "very slow": ("very slow", "extremely slow", "glacial", "barely moving", "very slow-paced"),
    "slow": ("slow", "unhurried", "slow-paced", "leisurely", "low-tempo", "relaxed"),
    "moderate": ("mid-tempo", "moderate", "medium-paced", "steady", "moderately paced"),
    "upbeat": ("upbeat", "brisk", "quick", "up-tempo", "sprightly"),
    "fast": ("fast", "fast-paced", "rapid", "racing", "speedy", "very quick"),
}
PACES = {
    "very slow": ("at a crawl", "at a very slow pace", "with hardly any pulse", "at a snail's pace"),
    "slow": ("at a slow pace", "slowly", "at an easy pace", "in no rush"),
    "moderate": ("at a walking pace", "at a medium tempo", "at a moderate speed", "at a steady pace"),
    "upbeat": ("at a brisk pace", "at a lively clip", "at an upbeat tempo", "with a quick pulse"),
    "fast": ("at high speed", "at a fast tempo", "at a breakneck pace", "at full tilt"),
}

# Synonyms of an instrument: nouns that take an article when singular; plurals and mass nouns are in PLURALS.
INSTRUMENTS = {
    "grand piano": ("piano", "grand piano", "acoustic piano", "concert piano"),
    "electric piano": ("electric piano", "Rhodes piano", "Rhodes", "Wurlitzer-style piano"),
    "church organ": ("church organ", "pipe organ", "cathedral organ", "organ"),
    "hammond organ": ("Hammond organ", "electric organ", "rock organ", "drawbar organ", "organ"),
    "music box": ("music box", "wind-up music box", "toy music box", "musical box"),
    "celesta": ("celesta", "celeste", "bell piano", "glockenspiel-like celesta"),
    "vibraphone": ("vibraphone", "vibes", "mallet vibraphone", "set of vibes"),
    "marimba": ("marimba", "wooden marimba", "mallet marimba", "xylophone-like marimba"),
    "kalimba": ("kalimba", "thumb piano", "mbira", "African thumb piano"),
    "nylon guitar": ("nylon guitar", "classical guitar", "Spanish guitar", "nylon-string guitar"),
    "acoustic guitar": ("acoustic guitar", "steel-string guitar", "folk guitar", "strummed acoustic guitar"),
    "jazz guitar": ("jazz guitar", "hollow-body guitar", "mellow electric guitar", "archtop guitar"),
    "clean electric guitar": ("clean electric guitar", "electric guitar", "clean guitar", "undistorted guitar"),
    "overdriven guitar": ("overdriven guitar", "electric guitar", "lead guitar", "gritty electric guitar"),
    "distorted guitar": ("distorted guitar", "heavy guitars", "crunchy guitars", "fuzzy guitar"),
    "banjo": ("banjo", "bluegrass banjo", "plucked banjo", "five-string banjo"),
    "violin": ("violin", "solo violin", "bowed violin"),
    "viola": ("viola", "mellow viola"),
    "cello": ("cello", "violoncello", "deep cello"),
    "fiddle": ("fiddle", "folk violin", "country fiddle", "Irish fiddle"),
    "string ensemble": ("strings", "string section", "string orchestra", "orchestral strings", "string ensemble"),
    "harp": ("harp", "concert harp", "plucked harp"),
    "trumpet": ("trumpet", "solo trumpet", "bright trumpet"),
    "trombone": ("trombone", "slide trombone", "tenor trombone"),
    "french horn": ("French horn", "horn", "orchestral horn"),
    "brass section": ("brass section", "horn section", "brass", "brass ensemble"),
    "saxophone": ("saxophone", "sax", "tenor saxophone", "tenor sax", "smooth sax"),
    "clarinet": ("clarinet", "woody clarinet", "licorice stick"),
    "oboe": ("oboe", "plaintive oboe"),
    "flute": ("flute", "concert flute", "silver flute", "airy flute"),
    "recorder": ("recorder", "wooden recorder", "soprano recorder"),
    "pan flute": ("pan flute", "panpipes", "Andean pan flute", "breathy pan flute"),
    "whistle": ("whistle", "tin whistle", "penny whistle", "Irish whistle"),
    "choir": ("choir", "choral voices", "wordless choir", "vocal ensemble", "voices", "chorus of voices"),
    "accordion": ("accordion", "squeezebox", "button accordion", "French accordion", "piano accordion"),
    "synth lead": ("synth lead", "lead synthesizer", "analog synth lead", "saw lead", "synthesizer"),
    "supersaw synth": ("supersaw synth", "supersaw lead", "detuned synth", "huge synth lead", "synthesizer"),
    "acid synth": ("acid synth", "squelchy synth", "303-style synth", "acid line", "squelchy acid line"),
    "synth pluck": ("synth pluck", "plucked synth", "plucky synthesizer", "short synth notes"),
    "square wave lead": ("square wave lead", "8-bit lead", "square wave", "bleepy square lead"),
    "pulse wave lead": ("pulse wave lead", "pulse wave", "thin 8-bit lead", "buzzy pulse lead"),
    "synth bell": ("synth bell", "FM bell", "digital bell", "glassy synth bells", "bell synth"),
    "synth pad": ("synth pad", "warm pads", "lush pad", "synth pads", "string-like pad"),
    "synth stabs": ("synth stabs", "chord stabs", "house stabs"),
    "chip arpeggio": ("8-bit arpeggio", "chip arpeggios", "fast arpeggio", "bleeping arpeggios"),
    "upright bass": ("upright bass", "double bass", "plucked upright bass", "acoustic bass"),
    "bass guitar": ("bass guitar", "electric bass", "fingered bass"),
    "fretless bass": ("fretless bass", "smooth fretless bass", "bass guitar"),
    "double bass": ("double bass", "bowed bass", "contrabass"),
    "tuba": ("tuba", "bass tuba", "oompah tuba"),
    "sub bass": ("sub bass", "deep bass", "rumbling sub bass"),
    "synth bass": ("synth bass", "synthesizer bass", "electronic bass", "buzzing bass"),
    "triangle bass": ("triangle bass", "8-bit bass", "triangle wave bass"),
    "drum kit": ("drums", "drum kit", "acoustic drums", "live drums"),
    "rock drums": ("rock drums", "punchy drums", "hard-hitting drums", "drum kit"),
    "jazz drums": ("jazz drums", "swinging drums", "ride cymbal and drums", "drum kit"),
    "brushed drums": ("brushed drums", "brushes", "soft drums", "drums played with brushes"),
    "marching drums": ("marching drums", "military drums", "snare and bass drum", "field drums"),
    "drum machine": ("drum machine", "electronic drums", "programmed drums", "909-style drums", "synthetic drums"),
    "dusty drums": ("dusty drums", "lo-fi drums", "sampled drums", "crunchy lo-fi drums"),
    "8-bit drums": ("8-bit drums", "noise drums", "chip percussion", "console drums"),
    "hand percussion": ("hand percussion", "tambourine and congas", "congas", "light percussion"),
    "vinyl crackle": ("vinyl crackle", "record noise", "needle crackle", "tape and vinyl noise"),
}
for _name in (
    "blues", "funk", "reggae", "country", "disco", "drum and bass", "trap", "metal", "tango", "samba", "celtic",
    "cinematic orchestra", "gospel", "ragtime", "soul", "latin pop",
):  # fmt: skip
    STYLES[_name] = StyleWords(
        (_name, f"{_name} music"),
        (f"{_name} piece", f"{_name} tune", f"{_name} track", f"{_name} instrumental"),
        ("for a video", "for a party", "for an evening"),
        ("the rhythm carries it", "the parts lock together"),
    )
for _name in (
    "harpsichord", "reed organ", "steel drums", "sitar", "pizzicato strings", "muted trumpet", "bassoon", "harmonica",
    "synth choir",
):  # fmt: skip
    INSTRUMENTS[_name] = (_name,)
MASS_NOUNS = {"brass"}
PLURALS = {
    "steel drums", "pizzicato strings",
    "vibes", "heavy guitars", "crunchy guitars", "strings", "orchestral strings", "brass", "choral voices", "voices",
    "panpipes", "short synth notes", "glassy synth bells", "warm pads", "synth pads", "synth stabs", "chord stabs",
    "house stabs", "chip arpeggios", "bleeping arpeggios", "sub bass", "deep bass", "rumbling sub bass", "brushes",
    "ride cymbal and drums", "snare and bass drum", "tambourine and congas", "congas", "hand percussion",
    "light percussion", "chip percussion", "vinyl crackle", "record noise", "needle crackle", "tape and vinyl noise",
    "drums played with brushes", "electronic bass", "synth bass", "synthesizer bass",
}  # fmt: skip
FAMILY_WORDS = {
    "piano": ("piano", "keys", "keyboards", "piano sounds"),
    "organ": ("organ", "organ sounds", "drawbars and pipes"),
    "mallets": ("mallet percussion", "bell-like mallets", "tuned percussion", "chimes"),
    "guitar": ("guitar", "plucked strings", "fretted strings", "guitars"),
    "strings": ("strings", "bowed strings", "orchestral strings"),
    "brass": ("brass", "brass instruments", "horns"),
    "woodwinds": ("woodwinds", "wind instruments", "reeds and flutes", "winds"),
    "choir": ("choir", "voices", "wordless vocals", "choral singing"),
    "accordion": ("accordion", "squeezebox", "free reeds", "bellows and reeds"),
    "harp": ("harp", "plucked harp"),
    "synth": ("synthesizer", "synths", "electronic keyboards", "synthetic sounds"),
}
MODES = {
    "major": ("major", "major", "major"),
    "minor": ("minor", "minor", "natural minor"),
    "harmonic minor": ("minor", "minor", "harmonic minor"),
    "dorian": ("minor", "dorian", "dorian minor"),
    "phrygian": ("minor", "phrygian", "phrygian minor"),
    "mixolydian": ("major", "mixolydian", "mixolydian major"),
    "lydian": ("major", "lydian", "lydian major"),
}
SPOKEN_SHARPS = {"C#": "C sharp", "F#": "F sharp", "Eb": "E flat", "Ab": "A flat", "Bb": "B flat"}
METERS = {"3/4": ("three-four time", "triple meter", "3/4"), "4/4": ("four-four time", "common time", "4/4")}
WITHOUT_DRUMS = ("without drums", "with no percussion", "no drums", "drumless", "with no drums at all")
WITH_DRUMS = ("drums keep time", "over a drum beat", "drums and all", "with a steady beat")
VERBS = ("plays", "carries", "leads", "sings", "takes", "delivers")
NOUNS = ("melody", "tune", "theme", "solo")
TUNES = ("melody", "tune", "theme", "lead line", "main melody")
ASKS = (
    "Make me",
    "Play",
    "I want",
    "Give me",
    "Write",
    "Compose",
    "I'd like",
    "I need",
    "Create",
    "Please play",
    "Generate",
)
ADVERBS = ("clearly", "up front", "in the foreground", "throughout", "on top")

SOUNDS_LIKE_A_VOWEL = ("8-bit", "80s", "fm ")
SOUNDS_LIKE_A_CONSONANT = ("uni", "use", "eu", "one")


def with_article(noun: str) -> str:
    """`noun` with a or an; plurals and mass nouns stay bare."""
    if noun in PLURALS or noun.endswith(("drums", "chords")) or noun.startswith(("the ", "a ", "an ")):
        return noun
    lower = noun.lower()
    if lower.startswith(SOUNDS_LIKE_A_VOWEL):
        return f"an {noun}"
    if lower.startswith(SOUNDS_LIKE_A_CONSONANT):
        return f"a {noun}"
    return f"an {noun}" if lower[0] in "aeiou" else f"a {noun}"


def join_words(words: list[str]) -> str:
    """a, b and c"""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


class Words:
    """One draw of synonyms for the tags of a piece; a template reads the slots it needs."""

    def __init__(self, tags: Mapping[str, Any], rng: np.random.Generator):
        self._rng = rng
        style = STYLES[tags["style"]]
        moods, images = MOODS[tags["mood"]]
        self.kind = self.pick(style.kinds)
        self.piece = self.pick(style.pieces)
        self.use = self.pick(style.uses)
        self.scene = self.pick(style.scenes)
        self.mood = self.pick(moods)
        self.other_mood = self.pick([mood for mood in moods if mood != self.mood])
        self.image = self.pick(images)
        self.tempo = self.pick(TEMPOS[tags["tempo"]])
        self.pace = self.pick(PACES[tags["tempo"]])
        self.bpm = self.pick(
            (
                f"{tags['bpm']} BPM",
                f"{tags['bpm']} bpm",
                f"{tags['bpm']} beats per minute",
                f"about {5 * round(tags['bpm'] / 5)} BPM",
            )
        )
        tonic = self.pick((tags["key"], tags["key"], SPOKEN_SHARPS.get(tags["key"], tags["key"])))
        self.key = f"{tonic} {self.pick(MODES[tags['mode']])}"
        self.in_key = self.pick((f"in {self.key}", f"in {self.key}", f"in the key of {self.key}"))
        self.meter = self.pick(METERS[tags["meter"]])
        self.family = self.pick(FAMILY_WORDS[tags["family"]])
        self.lead = self.pick(INSTRUMENTS[tags["lead"]])
        self.solo = self.lead if self.lead not in PLURALS else tags["lead"]  # a singular noun for "the X plays"
        others = [name for name in tags["instruments"] if name != tags["lead"]]
        rng.shuffle(others)
        used = {self.lead}
        self.backing: list[str] = []
        for name in others:
            word = self.pick([w for w in INSTRUMENTS[name] if w not in used] or [name])
            if word not in used:
                used.add(word)
                self.backing.append(word)
        count = int(rng.integers(0, len(self.backing) + 1))
        self.some = [self.lead, *self.backing[:count]]
        self.everything = [self.lead, *self.backing]
        if tags["drums"]:
            self.drums = self.pick(("", "", f", {self.pick(WITH_DRUMS)}"))
        else:
            self.drums = self.pick(("", f", {self.pick(WITHOUT_DRUMS)}"))
        self.no_drums = "" if tags["drums"] else self.drums
        self.verb = self.pick(VERBS)
        self.noun = self.pick(NOUNS)
        self.tune = self.pick(TUNES)
        self.ask = self.pick(ASKS)
        self.adverb = self.pick(ADVERBS)

    def pick(self, options):
        return options[int(self._rng.integers(len(options)))]

    def names_the_lead(self, phrase: str) -> bool:
        """Whether a phrase already says what the lead instrument is, as in "piano ballad"."""
        return any(word in phrase for word in (self.lead.split()[-1], "piano" if "piano" in self.lead else self.lead))

    def with_lead(self, phrase: str) -> str:
        """`phrase` followed by its lead instrument, unless it names it."""
        return phrase if self.names_the_lead(phrase) else f"{phrase} with {self.a_lead}"

    def with_some(self, phrase: str, preposition: str = "with") -> str:
        """`phrase` followed by the lead and some of the other instruments, without naming the lead twice."""
        some = self.some[1:] if self.names_the_lead(phrase) else self.some
        return f"{phrase} {preposition} {join_words([with_article(word) for word in some])}" if some else phrase

    @property
    def a_lead(self) -> str:
        return with_article(self.lead)

    @property
    def backing_list(self) -> str:
        words = [with_article(word) for word in self.backing[:3]]
        return join_words(words) if words else "nothing else"

    @property
    def solo_or_over(self) -> str:
        return f"over {self.backing_list}" if self.backing else "all alone"


Template = Callable[[Words], str]

TEMPLATES: dict[str, tuple[Template, ...]] = {
    "short": (
        lambda w: w.kind,
        lambda w: w.piece,
        lambda w: f"{w.mood} {w.kind}",
        lambda w: f"{with_article(w.mood)} {w.piece}",
        lambda w: f"{w.kind} {w.use}",
        lambda w: f"{w.ask} {with_article(w.piece)} {w.use}",
        lambda w: f"{w.tempo} {w.kind}",
    ),
    "tags": (
        lambda w: f"{w.kind}, {w.mood}, {', '.join(w.some)}, {w.bpm}",
        lambda w: f"{w.mood}, {w.tempo}, {w.kind}, {w.family}",
        lambda w: ", ".join([*w.everything, w.kind, w.key]),
        lambda w: f"{w.kind}, {w.lead}, {w.mood}, {w.other_mood}, {w.key}, {w.bpm}",
        lambda w: f"{w.family}, {w.kind}, {w.mood}, instrumental",
    ),
    "sentence": (
        lambda w: f"{w.with_some(f'{capitalised(with_article(w.mood))} {w.piece}')}.",
        lambda w: (
            f"{w.with_some(f'{capitalised(with_article(w.tempo))}, {w.mood} {w.piece}', 'featuring')}{w.no_drums}."
        ),
        lambda w: f"{capitalised(with_article(w.piece))} {w.image}, {w.mood} and {w.tempo}{w.drums}.",
        lambda w: f"{w.with_lead(f'{w.ask} some {w.mood} {w.kind}')}.",
        lambda w: f"{capitalised(with_article(w.mood))} and {w.other_mood} {w.piece} {w.use}.",
        lambda w: f"{w.ask} {with_article(w.mood)} {w.piece} {w.image}.",
    ),
    "instruments": (
        lambda w: f"{w.lead} playing a {w.noun}" if w.lead in PLURALS else f"{w.a_lead} {w.noun}",
        lambda w: f"{capitalised(w.a_lead)} {w.solo_or_over}.",
        lambda w: f"The {w.solo} {w.verb} the {w.tune} {w.adverb}.",
        lambda w: (
            f"{capitalised(join_words([with_article(word) for word in w.everything]))} playing {with_article(w.piece)}."
        ),
        lambda w: f"{capitalised(w.mood)} music with {w.family}",
        lambda w: f"{capitalised(w.a_lead)} {w.adverb}, {w.mood} and {w.tempo}.",
    ),
    "tempo": (
        lambda w: f"{capitalised(w.tempo)} {w.kind} at {w.bpm} {w.in_key}.",
        lambda w: f"{capitalised(with_article(w.piece))} {w.pace}, {w.bpm}.",
        lambda w: w.with_lead(f"{w.kind} at {w.bpm}"),
        lambda w: f"{capitalised(w.mood)} {w.kind} {w.in_key}, {w.meter}, {w.bpm}.",
        lambda w: f"The {w.solo} {w.verb} {with_article(w.mood)} {w.noun} {w.in_key} {w.pace}.",
        lambda w: f"{capitalised(with_article(w.piece))} with a tempo of {w.bpm}{w.drums}.",
    ),
    "description": (
        lambda w: (
            f"This is {with_article(w.mood)} {w.piece}. It moves {w.pace} and {w.scene}. "
            f"The {w.solo} {w.verb} the {w.tune}."
        ),
        lambda w: (
            f"Instrumental {w.kind}. Mood: {w.mood}. Instruments: {', '.join(w.everything)}. "
            f"Key: {w.key}. Tempo: {w.bpm}."
        ),
        lambda w: (
            f"In this {w.mood} {w.piece}, {w.scene} while {w.a_lead}"
            f" {'play' if w.lead in PLURALS - MASS_NOUNS else 'plays'} the {w.tune}."
        ),
        lambda w: f"{capitalised(w.scene)}. {capitalised(with_article(w.tempo))}, {w.mood} {w.piece} {w.use}.",
        lambda w: f"{capitalised(with_article(w.piece))} {w.image}: {w.a_lead} {w.solo_or_over}, {w.bpm}.",
        lambda w: f"The music is {w.mood} and {w.other_mood}, {w.pace}, in {w.meter}; {w.scene}.",
    ),
}


def write_captions(tags: Mapping[str, Any], seed: int = 0) -> list[str]:
    """One caption of each kind, in an order of their own."""
    rng = np.random.default_rng([seed, int(tags["seed"]), 7])
    captions = []
    for templates in TEMPLATES.values():
        words = Words(tags, rng)
        captions.append(words.pick(templates)(words))
    return [captions[i] for i in rng.permutation(len(captions))]


def tag_caption(tags: Mapping[str, Any]) -> str:
    """The bare list of tags."""
    key = f"{tags['key']} {tags['mode']}"
    drums = "drums" if tags["drums"] else "no drums"
    return ", ".join(
        [tags["style"], tags["mood"], tags["tempo"], *tags["instruments"], key, f"{tags['bpm']} BPM", drums]
    )
