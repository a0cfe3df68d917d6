"""Captions from tags, as people would write prompts: reproducible from the tags and a seed.

`write_captions(tags, seed)` gives a caption of each kind in `TEMPLATES`, and for a share of clips one in another
language; `write_wishes(tags, seed)` gives more, which name the exact tempo, the key or both; `tag_caption(tags)` gives
the bare list of tags. Tags are any mapping with the columns of the data set; what it lacks is not spoken of. The
sentences come from templates.py, the words from words.py and languages.py.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import languages
from templates import HELD_OUT_TEMPLATES, TEMPLATES, WISHES, WISHES_AFTER_SENTENCES
from words import (
    ALONE,
    ALONE_PLURAL,
    ANY_KIND,
    ANY_PIECE,
    CLAIMS,
    DENSITIES,
    DENSITY_PHRASES,
    DRUM_TAGS,
    DRUMS,
    ENDINGS,
    FAMILIES,
    FORMS,
    GROUPS,
    INSTRUMENTAL,
    INSTRUMENTS,
    LEAD_NOUNS,
    MASS_NOUNS,
    METERS,
    MODES,
    MOOD_IMAGES,
    MOODS,
    PACES,
    PLAYERS,
    PURPOSES,
    REGISTER_PHRASES,
    REGISTERS,
    SINGULARS,
    SOLO,
    SPEEDS,
    SPOKEN_KEYS,
    STYLES,
    TEMPOS,
    TOGETHER,
    WITH_DRUMS,
    StyleWords,
    Words,
)

FOREIGN_SHARE = 0.35  # of clips that have a caption in another language
LOWERCASE_SHARE = 0.45  # of captions, as people type
TYPO_SHARE, TYPOS_PER_WORD = 0.15, 0.05
ATTEMPTS = 12  # at a caption that reads well
PERCUSSION = re.compile(r"drum|percussion")
ELECTRIC = re.compile(r"synth|wave lead|stabs|chip|sub bass|triangle|machine|8-bit|dusty|electric|overdriven|distorted")
SYNTHETIC = re.compile(r"synth|wave lead|stabs|chip|sub bass|triangle bass|machine|8-bit")
ENSEMBLES = ("string ensemble", "pizzicato strings", "brass section", "choir", "synth choir")  # no one player's
STRINGS = ("violin", "viola", "cello", "fiddle", "string ensemble", "pizzicato strings", "double bass")
BRASS = ("trumpet", "muted trumpet", "trombone", "french horn", "brass section", "tuba")
SIZES = {"duo": 2, "trio": 3}
SOUNDS_LIKE_A_VOWEL = ("8", "fm", "11", "18")
SOUNDS_LIKE_A_CONSONANT = ("uni", "use", "eu", "one", "uk", "u.")

ASKS = ("give me", "I want", "play", "make", "compose", "I'd like", "create", "please generate", "let me hear")

Part = str | tuple[str, Any]  # text, or ("slot", name), ("maybe", parts), ("either", list of parts)


def parse(template: str) -> list[Part]:
    """The parts of a template: texts, slots, what may be left out, and alternatives."""
    tokens = re.findall(r"[\[\](){}|]|[^\[\](){}|]+", template)

    def read(ends: str) -> tuple[list[Part], str]:
        parts: list[Part] = []
        while tokens:
            token = tokens.pop(0)
            if token in ends:
                return parts, token
            if token == "{":
                parts.append(("slot", tokens.pop(0)))
                tokens.pop(0)
            elif token == "[":
                parts.append(("maybe", read("]")[0]))
            elif token == "(":
                options, end = [], "|"
                while end == "|":
                    option, end = read("|)")
                    options.append(option)
                parts.append(("either", options))
            else:
                parts.append(token)
        return parts, ""

    return read("")[0]


def expand(parts: Sequence[Part], phrases: "Phrases") -> str | None:
    """The text of a template's parts; None where a slot has nothing to say or a condition does not hold."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        what, content = part
        if what == "slot":
            value = getattr(phrases, content)()
            if not value:
                return None
            phrases.said.add(content)
            if value is not True:
                texts.append(value)
        elif what == "maybe":
            said, text = set(phrases.said), expand(content, phrases) if phrases.clip.random.random() < 0.5 else None
            if text is None:
                phrases.said = said
            texts.append(text or "")
        else:
            text = expand(phrases.clip.choose(content), phrases)
            if text is None:
                return None
            texts.append(text)
    return "".join(texts)


class Clip:
    """The tags of a clip, the facts that hold for it, and its random numbers."""

    def __init__(self, tags: Mapping[str, Any], rng: random.Random, held_out: bool):
        self.tags, self.held_out, self.random = tags, held_out, rng
        style = tags["style"]
        plain = Words((style,))
        default = StyleWords(plain, Words((f"{style} piece", f"{style} tune")), plain, PURPOSES, Words(()))
        self.style = STYLES.get(style, default)
        self.facts = facts_of(tags)
        self._true: dict[tuple[Words, bool], Sequence[str]] = {}

    def choose(self, options: Sequence[Any]) -> Any:
        return options[int(self.random.random() * len(options))]

    def pick(self, words: Words, neutral: bool = False) -> str:
        """One of the phrases that are true of the clip, "" if none; a neutral one names no instrument."""
        options = self._true.get((words, neutral))
        if options is None:
            usual, held_out = ([p for p in phrases if self._fits(p, neutral)] for phrases in words)
            options = self._true[words, neutral] = self.of(Words(tuple(usual), tuple(held_out)))
        return self.choose(options) if options else ""

    def of(self, words: Words) -> Sequence[str]:
        """All phrases of a row, true or not."""
        return words.held_out if self.held_out and words.held_out else words.usual

    def _fits(self, phrase: str, neutral: bool) -> bool:
        claims = claims_of(phrase)
        return claims <= self.facts and not (neutral and claims & NAMES_OF_INSTRUMENTS)


NAMES_OF_INSTRUMENTS = {
    "solo", "band", "orchestra", "quartet", "synth", "piano", "keys", "guitar", "strings", "brass", "choir",
    "music box", "sub bass",
}  # fmt: skip
FACT_OF_WORD: dict[str, set[str]] = {}
for _fact, _words in CLAIMS.items():
    for _word in _words.split():
        FACT_OF_WORD.setdefault(_word, set()).add(_fact)


def words_in(text: str) -> list[str]:
    return re.findall(r"[a-z0-9][a-z0-9'-]*", text.lower())


def claims_of(phrase: str) -> set[str]:
    """What a phrase of the tables says of a piece beyond the meaning of its row."""
    return set().union(*(FACT_OF_WORD.get(word, ()) for word in words_in(phrase)))


def facts_of(tags: Mapping[str, Any]) -> set[str]:
    """The claims that are true of a clip."""
    playing, ensemble, tempo = list(tags["instruments"]), tags.get("ensemble"), tags["tempo"]
    pitched = [name for name in playing if not PERCUSSION.search(name)]
    many = ensemble == "group" or any(name in ENSEMBLES for name in playing)
    tests = {
        "solo": ensemble == "solo" and tags["lead"] not in ENSEMBLES,
        "band": ensemble == "group",
        "orchestra": many and any(name in (*STRINGS, *BRASS) for name in playing),
        "quartet": ensemble in (None, "group") and {"violin", "viola", "cello"} >= set(playing) and len(playing) == 3,
        "drums": bool(tags["drums"]),
        "synth": any(SYNTHETIC.search(name) for name in playing),
        "acoustic": not any(ELECTRIC.search(name) for name in playing),
        "piano": "grand piano" in playing,
        "keys": any("piano" in name for name in playing),
        "guitar": any("guitar" in name for name in pitched if name != "bass guitar"),
        "strings": any(name in STRINGS for name in playing),
        "brass": any(name in BRASS for name in playing),
        "choir": "choir" in playing,
        "music box": "music box" in playing,
        "sub bass": "sub bass" in playing,
        "fast": tempo == "fast",
        "quick": tempo in ("moderate", "upbeat", "fast"),
        "not fast": tempo != "fast",
        "slow": tempo in ("slow", "very slow"),
        "three": tags["meter"] == "3/4",
    }
    return {fact for fact, true in tests.items() if true}


def is_plural(noun: str) -> bool:
    """Whether a noun takes no article and a verb without s: "strings play"."""
    last = noun.split()[-1]
    return noun not in MASS_NOUNS and last.endswith("s") and last not in SINGULARS


def with_article(noun: str) -> str:
    """`noun` with a or an; plurals and mass nouns stay bare."""
    if noun in MASS_NOUNS or is_plural(noun) or noun.startswith(("the ", "a ", "an ")):
        return noun
    return f"{'an' if sounds_like_a_vowel(noun) else 'a'} {noun}"


def sounds_like_a_vowel(noun: str) -> bool:
    lower = noun.lower()
    if lower.startswith(SOUNDS_LIKE_A_VOWEL):
        return True
    return lower[0] in "aeiou" and not lower.startswith(SOUNDS_LIKE_A_CONSONANT)


def join_words(words: Sequence[str]) -> str:
    """a, b and c"""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


class Phrases:
    """The slots of the templates for one caption; "" where there is nothing to say."""

    def __init__(self, clip: Clip, neutral: bool):
        self.clip, self.tags, self.neutral = clip, clip.tags, neutral
        self.lead_word = self._instrument(self.tags["lead"])
        self.moods: list[str] = []
        self.said: set[str] = set()  # names of the slots that the caption has

    # Style; where nobody could hear it, a noun that is true of any music
    def kind(self) -> str:
        return self.clip.pick(self.clip.style.kinds, self.neutral) if self.if_styled() else self.clip.pick(ANY_KIND)

    def piece(self) -> str:
        return self.clip.pick(self.clip.style.pieces, self.neutral) if self.if_styled() else self.clip.pick(ANY_PIECE)

    def manner(self) -> str:
        return self.clip.pick(self.clip.style.manners, True) if self.if_styled() else ""

    def use(self) -> str:
        return self.clip.pick(self.clip.style.uses) if self.if_styled() else ""

    def image(self) -> str:
        return self.clip.pick(self.clip.style.images, self.neutral) if self.if_styled() else ""

    def purpose(self) -> str:
        return self.clip.pick(PURPOSES)

    # Mood, tempo, key
    def mood(self) -> str:
        mood = self.clip.pick(MOODS.get(self.tags["mood"], Words((self.tags["mood"],))))
        if mood in self.moods:
            return ""
        self.moods.append(mood)
        return mood

    mood2 = mood

    def moody(self) -> str:
        return self.clip.pick(MOOD_IMAGES.get(self.tags["mood"], Words(())))

    def tempo(self) -> str:
        return self.clip.pick(TEMPOS[self.tags["tempo"]])

    def speed(self) -> str:
        return self.clip.pick(SPEEDS[self.tags["tempo"]])

    def pace(self) -> str:
        return self.clip.pick(PACES[self.tags["tempo"]])

    def bpm(self) -> str:
        form = self.clip.choose(("{} BPM", "{} bpm", "{} beats per minute", "{}bpm", "{} BPM"))
        return form.format(self.tags["bpm"])

    def round_bpm(self) -> str:
        return f"{5 * round(self.tags['bpm'] / 5)} {self.clip.choose(('BPM', 'bpm'))}"

    def key(self) -> str:
        tonic = self.tags["key"]
        if self.clip.random.random() < 0.4:
            tonic = SPOKEN_KEYS.get(tonic, tonic)
        mode = self.clip.pick(MODES[self.tags["mode"]]).removesuffix(" key")
        return f"{tonic} {mode}"

    def mode_word(self) -> str:
        return MODES[self.tags["mode"]].usual[0]

    def meter(self) -> str:
        return self.clip.pick(METERS.get(self.tags["meter"], Words((self.tags["meter"],))))

    # Instruments
    def _instrument(self, name: str) -> str:
        return self.clip.choose(self.clip.of(INSTRUMENTS[name])) if name in INSTRUMENTS else name

    def lead(self) -> str:
        return self.lead_word

    def a_lead(self) -> str:
        return with_article(self.lead_word)

    def the_lead(self) -> str:
        return f"the {self.lead_word}"

    def lead_mod(self) -> str:
        """The lead before a noun: "string waltz"."""
        word = self.lead_word
        if " with " in word or " of " in word:
            return ""
        return word[:-1] if is_plural(word) and word not in ("vibes", "jazz vibes") else word

    def on_lead(self) -> str:
        if self.tags["lead"] in ENSEMBLES or is_plural(self.lead_word):
            return f"with {with_article(self.lead_word)}"
        form = self.clip.choose(("on {}", "on the {}", "on {}", "for {}", "with the {}"))
        return form.format(self.lead_word) if self.lead_word not in MASS_NOUNS else f"with {self.lead_word}"

    def _verb(self, verb: str) -> str:
        """A verb that agrees with the lead."""
        return verb if is_plural(self.lead_word) else f"{verb.replace('carry', 'carrie')}s"

    def plays(self) -> str:
        return self._verb("play")

    def carries(self) -> str:
        return self._verb(self.clip.choose(("play", "play", "carry", "take", "sing")))

    def noun(self) -> str:
        return self.clip.pick(LEAD_NOUNS)

    def player(self) -> str:
        return self.clip.pick(PLAYERS.get(self.tags["lead"], Words(())))

    def family(self) -> str:
        return self.clip.pick(FAMILIES.get(self.tags["family"], Words((self.tags["family"],))))

    def _others(self, names: Sequence[str]) -> list[str]:
        """Words for other instruments than the lead, all different."""
        words: list[str] = []
        for name in names:
            word = self._instrument(name)
            if name != self.tags["lead"] and word not in (self.lead_word, *words):
                words.append(word)
        return words

    def second(self) -> str:
        return next(iter(self._others((self.tags.get("featured") or [])[1:2])), "")

    def _featured(self) -> list[str]:
        return [self.lead_word, *self._others(self.tags.get("featured") or [])]

    def featured(self) -> str:
        """The lead, and the others that play the music with it if there are any."""
        return join_words([with_article(word) for word in self._featured()])

    def bare_featured(self) -> str:
        return join_words(self._featured())

    def backing(self) -> str:
        """Some of the instruments that accompany the lead."""
        featured = (self.tags["lead"], *(self.tags.get("featured") or []))
        names = [name for name in self.tags["instruments"] if name not in featured]
        self.clip.random.shuffle(names)
        words = self._others(names[: self.clip.choose((1, 1, 2, 2, 3))])
        return join_words([with_article(word) for word in words]) if words else ""

    def all(self) -> str:
        words = [self.lead_word, *self._others(self.tags["instruments"])]
        if self.clip.random.random() < 0.5:
            return ", ".join(words) if len(words) > 1 else ""
        return join_words([with_article(word) for word in words]) if len(words) > 1 else ""

    def form(self) -> str:
        sections = str(self.tags.get("form") or "").split(",")
        return self.clip.pick(FORMS[self.clip.choose(known)]) if (known := [s for s in FORMS if s in sections]) else ""

    # How they play
    def solo(self) -> str:
        return self.clip.pick(SOLO) if self.tags.get("ensemble") == "solo" else ""

    def alone(self) -> str:
        if self.tags.get("ensemble") != "solo":
            return ""
        return self.clip.pick(ALONE_PLURAL if is_plural(self.lead_word) else ALONE)

    def together(self) -> str:
        return self.clip.pick(TOGETHER.get(self.tags.get("ensemble") or "", Words(())))

    def group(self) -> str:
        return self.clip.pick(GROUPS.get(self.tags.get("ensemble") or "", Words(())))

    def _all_are_named(self) -> bool:
        """Whether `featured` names all players of a duo or a trio."""
        return 1 + len(self._others(self.tags.get("featured") or [])) == SIZES.get(self.tags.get("ensemble") or "", 0)

    def small_group(self) -> str:
        return self.group() if self._all_are_named() else ""

    def together_all(self) -> str:
        return self.together() if self.tags.get("ensemble") == "group" or self._all_are_named() else ""

    def density(self) -> str:
        return self.clip.pick(DENSITIES.get(self.tags.get("density") or "", Words(())))

    def density_with(self) -> str:
        return self.clip.pick(DENSITY_PHRASES.get(self.tags.get("density") or "", Words(())))

    def register(self) -> str:
        return self.clip.pick(REGISTERS.get(self.tags.get("register") or "", Words(())))

    def register_in(self) -> str:
        return self.clip.pick(REGISTER_PHRASES.get(self.tags.get("register") or "", Words(())))

    def drums(self) -> str:
        return self.clip.pick(DRUMS["with" if self.tags["drums"] else "without"])

    def with_drums(self) -> str:
        """Goes on from a noun without a comma."""
        return self.clip.pick(WITH_DRUMS["with" if self.tags["drums"] else "without"])

    def drum_tag(self) -> str:
        return self.clip.pick(DRUM_TAGS["with" if self.tags["drums"] else "without"])

    def yes_no(self) -> str:
        return "yes" if self.tags["drums"] else "none"

    def Drums_sentence(self) -> str:
        with_drums = ("Drums keep time.", "There are drums.", "It has a beat.", "The drums play along.")
        without = ("There are no drums.", "It has no drums.", "No percussion at all.", "No drums, please.")
        return self.clip.choose(with_drums if self.tags["drums"] else without)

    def ending(self) -> str:
        return self.clip.pick(ENDINGS) if self.tags.get("ends") else ""

    def Ending_sentence(self) -> str:
        sentences = ("It comes to a clear end.", "It ends on a final chord.", "At the end it comes to rest.")
        return self.clip.choose(sentences) if self.tags.get("ends") else ""

    # Conditions of a template, which say nothing themselves
    def if_styled(self) -> bool:
        return languages.is_style_heard(self.tags)

    def if_drumless(self) -> bool:
        return not self.tags["drums"]

    def if_solo(self) -> bool:
        return self.tags.get("ensemble") == "solo"

    def if_duo(self) -> bool:
        return self.tags.get("ensemble") == "duo" and self._all_are_named()

    def if_trio(self) -> bool:
        return self.tags.get("ensemble") == "trio" and self._all_are_named()

    def if_several(self) -> bool:
        return bool(self.second())

    def if_plain(self) -> bool:
        return self.lead_mod() == self.lead_word

    def if_singular(self) -> bool:
        return not is_plural(self.lead_word)

    # Lists
    def _tags(self) -> list[str]:
        slots: tuple[Callable[[], str], ...] = (
            self.mood, self.tempo, self.bpm, self.key, self.drum_tag, self.group, self.density, self.register,
            self.mood, self.second, self.meter, self.purpose,
        )  # fmt: skip
        style = [self.kind] if self.if_styled() else []
        chosen = [*style, self.lead, *self.clip.random.sample(slots, self.clip.choose((1, 2, 2, 3, 3, 4, 5)))]
        if self.clip.random.random() < 0.3:
            chosen.append(lambda: self.clip.pick(INSTRUMENTAL))
        if self.clip.random.random() < 0.6:
            self.clip.random.shuffle(chosen)
        return list(dict.fromkeys(word for slot in chosen if (word := slot())))

    def comma_list(self) -> str:
        return ", ".join(self._tags())

    def hashtags(self) -> str:
        return " ".join("#" + re.sub(r"[^0-9A-Za-z]", "", tag) for tag in self._tags() if "/" not in tag)

    def labels(self) -> str:
        names = (("instrument", "lead"), ("mood", "feeling"), ("style", "genre"))
        values = (self.lead_word, self.mood(), *([self.kind()] if self.if_styled() else []))
        return ", ".join(f"{self.clip.choose(name)}: {value}" for name, value in zip(names, values))

    def slashes(self) -> str:
        return " / ".join(self._tags())

    def plusses(self) -> str:
        return " + ".join(self._tags())

    def equals(self) -> str:
        genre = f"genre={self.kind()}; " if self.if_styled() else ""
        return f"{genre}lead={self.lead_word}; mood={self.mood()}"

    def ask(self) -> str:
        return self.clip.choose(ASKS)


# What a caption asks for, and the slots that say so.
NAMED = {
    "style": {"kind", "piece", "manner"},
    "family": {"lead", "a_lead", "the_lead", "lead_mod", "on_lead", "featured", "bare_featured", "all"},
    "ensemble": {"solo", "alone", "group", "small_group", "together", "together_all", "backing", "second"},
    "drums": {"drums", "with_drums", "Drums_sentence"},
    "bpm": {"bpm"},
    "key": {"key"},
    "mood": {"mood", "mood2", "moody"},
}
NAMES_THE_LEAD = re.compile(r"lead|featured|\{all\}|family|player|list|hashtags|labels|slashes|plusses|equals")
PARSED = {
    held_out: {
        kind: [(parse(template), bool(NAMES_THE_LEAD.search(template))) for template in templates]
        for kind, templates in table.items()
    }
    for held_out, table in ((False, TEMPLATES), (True, HELD_OUT_TEMPLATES))
}
PARSED_WISHES = {
    after_sentence: [parse(wish) for wish in wishes]
    for after_sentence, wishes in ((False, WISHES), (True, WISHES_AFTER_SENTENCES))
}
MAY_REPEAT = {"with", "that", "this", "like", "drums", "there", "plays", "over"}


def reads_well(text: str, kind: str) -> bool:
    """Whether no word follows itself, and none of any weight occurs twice."""
    words = words_in(text)
    if any(first.split("-")[-1] == second.split("-")[0] for first, second in zip(words, words[1:])):
        return False
    heavy = [word[:6] for word in words if len(word) > 3 and word not in MAY_REPEAT]
    return len(heavy) - len(set(heavy)) <= (kind == "description")


def compose_caption(clip: Clip, kind: str) -> tuple[str, set[str]]:
    """A caption of one kind, in plain spelling, and the slots that it has."""
    templates, text, said = PARSED[clip.held_out][kind], None, set[str]()
    for _ in range(ATTEMPTS):
        parts, neutral = clip.choose(templates)
        phrases = Phrases(clip, neutral)
        text = expand(parts, phrases)
        if text is not None:
            said = phrases.said
            if reads_well(text := with_articles(" ".join(text.split())), kind):
                return text, said
    return text or clip.tags["style"], said


def with_articles(text: str) -> str:
    """Makes "a" into "an" where a vowel sound follows; the key of A has another word behind it."""
    return re.sub(r"\b([Aa]) (?=(\S+))", lambda m: f"{m[1]}n " if sounds_like_a_vowel(m[2]) else m[0], text)


def as_typed(text: str, kind: str, rng: random.Random) -> str:
    """Casing, full stops and typos as people leave them."""
    if rng.random() < LOWERCASE_SHARE:
        text = text.lower()
        if rng.random() < 0.6:
            text = text.removesuffix(".")
    elif kind not in ("short", "tags") or rng.random() < 0.3:
        text = re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)
    if rng.random() < TYPO_SHARE:
        text = with_typos(text, rng)
    return text


def with_typos(text: str, rng: random.Random) -> str:
    """In a few long words two letters are swapped, or one is dropped or doubled: in at least one of them."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    chosen = [i for i in long if rng.random() < TYPOS_PER_WORD] or long[:1]
    for i in chosen:
        word, at = words[i], 1 + int(rng.random() * (len(words[i]) - 2))
        kind = int(rng.random() * 3)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        words[i] = (swapped, word[:at] + word[at + 1 :], word[: at + 1] + word[at:])[kind]
    return " ".join(words)


def write_captions(tags: Mapping[str, Any], seed: int = 0, *, held_out: bool = False) -> list[str]:
    """A caption of each kind, and for a share of clips one in another language, in an order of their own.

    `held_out` takes templates that training captions never use, and words that they never use wherever there are any.
    """
    rng = random.Random(f"{seed} {int(tags['seed'])} {held_out}")
    clip = Clip(tags, rng, held_out)
    captions = [as_typed(compose_caption(clip, kind)[0], kind, rng) for kind in TEMPLATES]
    if rng.random() < FOREIGN_SHARE:
        captions.append(languages.write_caption(tags, rng, held_out))
    rng.shuffle(captions)
    return captions


def write_wishes(tags: Mapping[str, Any], seed: int = 0, count: int = 8) -> list[str]:
    """`count` captions of any kind, to each of which the exact tempo, the key or both were added.

    Few captions of `write_captions` name them, and what few captions name a model does not learn to follow.
    """
    rng = random.Random(f"{seed} {int(tags['seed'])} wishes")
    clip, kinds, captions = Clip(tags, rng, held_out=False), [kind for kind in TEMPLATES if kind != "tags"], list[str]()
    while len(captions) < count:
        kind = rng.choice(kinds)
        text, said = compose_caption(clip, kind)
        if not said & {"bpm", "round_bpm", "key", "mode_word"}:
            wish = expand(rng.choice(PARSED_WISHES[text[-1] in ".?!"]), Phrases(clip, False))
            captions.append(as_typed(f"{text}{wish}", kind, rng))
    return captions


def write_prompts(tags: Mapping[str, Any], seed: int = 0, count: int = 2) -> list[dict[str, Any]]:
    """Held-out prompts that join the clip's style and lead, to judge a model by: `text`, and which of `NAMED` it asks
    for (`named`), the style and the family of the lead always. The last has further wishes where it can. A clip whose
    style cannot be heard has none."""
    rng = random.Random(f"{seed} {int(tags['seed'])} prompts")
    clip, prompts = Clip(tags, rng, held_out=True), []
    if not languages.is_style_heard(tags):
        return []
    for number in range(count):
        best: tuple[str, list[str]] = ("", [])
        for _ in range(ATTEMPTS):
            text, said = compose_caption(clip, clip.choose(("pair", "instruments", "description", "request")))
            named = [question for question, slots in NAMED.items() if said & slots]
            if {"style", "family"} <= set(named) and len(named) > len(best[1]):
                best = (text, named)
                if number < count - 1:
                    break
        if best[0]:
            prompts.append({"text": best[0], "named": best[1]})
    return prompts


def tag_caption(tags: Mapping[str, Any]) -> str:
    """The bare list of tags."""
    style = [tags["style"]] if languages.is_style_heard(tags) else []
    key = f"{tags['key']} {tags['mode']}"
    drums = "drums" if tags["drums"] else "no drums"
    return ", ".join([*style, tags["mood"], tags["tempo"], *tags["instruments"], key, f"{tags['bpm']} BPM", drums])
