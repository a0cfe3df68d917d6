"""What can be joined in the open training set: any lead in any style, ensembles, forms, and tunes that people wrote."""

import importlib
import importlib.util
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "training" / "synthetic"
sys.path.insert(0, str(FOLDER))
composer = importlib.import_module("compose")
ensembles = importlib.import_module("ensembles")
forms = importlib.import_module("forms")
instruments = importlib.import_module("instruments")
styles = importlib.import_module("styles")
tunes = importlib.import_module("tunes")

needs_player = pytest.mark.skipif(
    importlib.util.find_spec("tinysoundfont") is None, reason="pip install --no-deps tinysoundfont==0.3.7"
)
PIECES = [composer.compose(style, seed) for style in styles.STYLES for seed in range(100, 150)]


def players(piece) -> int:
    """How many play: the lead's own accompaniment is the lead's, and so is all of one instrument's."""
    return len({track.instrument.name for track in piece.tracks if track.role != "texture"})


def test_every_style_comes_in_every_way():
    for style in styles.STYLES.values():
        of_style = [piece for piece in PIECES if piece.tags.style == style.name]
        assert len({piece.tags.family for piece in of_style}) >= 5, style.name
        assert len({piece.tags.mood for piece in of_style}) >= 5, style.name
        for name in ("density", "register"):
            assert len({getattr(piece.tags, name) for piece in of_style}) == 3, (style.name, name)
        assert len({piece.tags.ensemble for piece in of_style}) >= (3 if "duo" in style.ensembles else 1), style.name
        if "group" in style.ensembles:
            assert {piece.tags.drums for piece in of_style} == {True, False}, style.name
    assert min(Counter(piece.tags.ensemble for piece in PIECES).values()) > 0.1 * len(PIECES)
    assert {piece.tags.lead for piece in PIECES} == set(instruments.LEADS)
    assert {piece.tags.family for piece in PIECES} == set(instruments.FAMILIES)
    for lead in ("grand piano", "flute", "harp"):
        assert len({piece.tags.style for piece in PIECES if piece.tags.lead == lead}) >= 8


def test_half_of_the_pieces_are_typical_of_their_style():
    typical = np.mean([piece.tags.lead in piece.style.leads for piece in PIECES])
    assert 0.5 < typical < 0.75


def test_a_style_is_heard_where_its_drums_or_an_accompaniment_play():
    heard = [piece.tags.style_heard for piece in PIECES]
    assert 0.75 < np.mean(heard) < 0.95
    for piece in PIECES:
        tags, roles = piece.tags, {track.role for track in piece.tracks}
        if tags.style_heard:
            assert "drums" in roles or roles & {"chords", "bass"}, tags
        else:
            assert not tags.drums and tags.ensemble != "group", tags


def test_ensembles_are_named_after_how_many_play():
    for piece in PIECES:
        tags, count = piece.tags, players(piece)
        named = {"solo": 1, "duo": 2, "trio": 3}.get(tags.ensemble)
        if tags.ensemble == "group":  # two may play one instrument, as the violins of a quartet
            assert count >= 3, tags
        else:
            assert count == named, tags
        assert tags.featured[0] == tags.lead and set(tags.featured) <= set(tags.instruments)
        assert 1 <= len(tags.featured) <= 3 and len(set(tags.featured)) == len(tags.featured)
        if tags.ensemble == "solo":
            assert not tags.drums and tags.featured == tags.instruments == [tags.lead]
        if tags.ensemble == "duo":
            assert not tags.drums and tags.featured == tags.instruments


def test_a_player_alone_accompanies_the_melody_if_the_instrument_can():
    alone = [piece for piece in PIECES if piece.tags.ensemble == "solo"]
    for piece in alone:
        roles = {track.role for track in piece.tracks}
        assert roles == {"lead"} if not piece.tracks[0].instrument.chordal else "chords" in roles, piece.tags
    assert {piece.tracks[0].instrument.chordal for piece in alone} == {True, False}


def test_styles_named_after_an_instrument_have_it():
    for piece in PIECES:
        if piece.style.anchor and piece.tags.ensemble == "solo":
            assert piece.tags.family == instruments.INSTRUMENTS[piece.style.anchor].family
        if piece.tags.style == "solo piano":
            assert "grand piano" in piece.tags.instruments or piece.tags.family == "piano" or piece.tracks[1:], (
                piece.tags
            )
        if piece.tags.style == "string quartet":
            assert {"viola", "cello"} <= set(piece.tags.instruments), piece.tags


def test_unseen_pairs_are_left_out_and_few():
    total = len(styles.STYLES) * len(instruments.LEADS)
    pairs = [(style, lead) for style in styles.STYLES for lead in ensembles.unseen_leads(style)]
    assert len(pairs) == pytest.approx(0.15 * total, rel=0.05)
    for style in styles.STYLES.values():
        left_out = ensembles.unseen_leads(style.name) & set(style.leads)
        assert len(left_out) <= len(style.leads) / 3
        assert all(style.leads[lead] < 0.5 * max(style.leads.values()) for lead in left_out)
    assert max(Counter(lead for _, lead in pairs).values()) < 0.4 * len(styles.STYLES)
    families = Counter(instruments.INSTRUMENTS[lead].family for _, lead in pairs)
    members = Counter(instruments.INSTRUMENTS[lead].family for lead in instruments.LEADS)
    assert all(families[family] < 0.35 * members[family] * len(styles.STYLES) for family in members)
    assert not any(piece.tags.lead in ensembles.unseen_leads(piece.tags.style) for piece in PIECES)
    for style in list(styles.STYLES)[::5]:
        unseen = {composer.compose(style, seed, unseen=True).tags.lead for seed in range(10)}
        assert unseen <= ensembles.unseen_leads(style) and len(unseen) > 2


def test_density_and_register_are_heard():
    def mean(name: str, value: str, of) -> float:
        return float(np.mean([of(piece) for piece in PIECES if getattr(piece.tags, name) == value]))

    def notes_per_beat(piece) -> float:
        return len(piece.tracks[0].notes) / (20 * piece.tags.bpm / 60)

    def place(piece) -> float:
        low, high = ensembles.lead_span(piece.tracks[0].instrument)
        return (np.mean([note.pitch for note in piece.tracks[0].notes]) - low) / (high - low)

    sparse, even, busy = (mean("density", value, notes_per_beat) for value in ("sparse", "even", "busy"))
    assert 1.3 * sparse < even and 1.3 * even < busy
    for piece in PIECES:
        limits = {"low": (0, 0.45), "middle": (0.4, 0.65), "high": (0.6, 1)}[piece.tags.register]
        assert limits[0] <= place(piece) <= limits[1], piece.tags


def test_the_form_names_the_sections_of_the_clip():
    for piece in PIECES:
        sections = piece.tags.form.split(",")
        assert set(sections) <= {"intro", "theme", "bridge", "break", "ending"}
        assert "intro" not in sections[1:] and "ending" not in sections[:-1]
        assert (sections[-1] == "ending") == piece.tags.ends
    short = [composer.compose(style, seed, 8.0) for style in styles.STYLES for seed in range(3)]
    assert all(set(piece.tags.form.split(",")) <= {"theme", "bridge"} for piece in short)
    long = [composer.compose(style, 1, 90.0) for style in styles.STYLES]
    assert all({"theme", "bridge", "break"} <= set(piece.tags.form.split(",")) for piece in long)
    assert 0.08 < np.mean([piece.tags.ends for piece in PIECES]) < 0.25
    assert 0.15 < np.mean([piece.tags.form.startswith("intro") for piece in PIECES]) < 0.35


def test_something_drops_out_in_a_break_and_a_theme_comes_again():
    again = 0
    for style in styles.STYLES:
        piece = composer.compose(style, 3, 90.0)
        beats = piece.style.meter

        def sounding(section: str, piece=piece, beats=beats) -> int:
            bars = [index for index, bar in enumerate(piece.form.bars) if bar.section == section]
            return sum(any((n.start + 0.1) // beats in bars for n in track.notes) for track in piece.tracks)

        if len(piece.tracks) > 1 and "break" in piece.tags.form:
            assert sounding("break") < sounding("theme"), piece.tags
        by_bar: dict[tuple[str, int], list[list[int]]] = {}
        for index, bar in enumerate(piece.form.bars[:-1]):
            steps = [round(4 * note.start) - 4 * index * beats for note in piece.tracks[0].notes]
            rhythm = sorted(step for step in steps if 0 <= step < 4 * beats)
            by_bar.setdefault((bar.section, bar.index), []).append(rhythm)
        repeats = by_bar.get(("theme", 1), [])
        again += len(repeats) > 1 and all(rhythm == repeats[0] for rhythm in repeats)
    assert again > 0.6 * len(styles.STYLES)


def test_an_ending_is_a_held_tonic_and_a_short_silence():
    ending = [piece for piece in PIECES if piece.tags.ends]
    for piece in ending:
        beat = 60 / piece.tags.bpm
        start = (len(piece.form.bars) - 1) * piece.style.meter
        assert 16.0 < start * beat < 18.2
        last = [
            note for track in piece.tracks if track.role != "drums" for note in track.notes if note.start > start - 0.1
        ]
        assert 18.4 < max((note.start + note.length) * beat for note in last) < 19.8
        tonic = styles.PITCH_NAMES.index(piece.tags.key)
        lead = [note for note in piece.tracks[0].notes if note.start > start - 0.1]
        assert lead and {note.pitch % 12 for note in lead} == {tonic}
        bass = [
            note for track in piece.tracks if track.role == "bass" for note in track.notes if note.start > start - 0.1
        ]
        assert {note.pitch % 12 for note in bass} <= {tonic}


def test_the_same_seed_composes_the_same_piece():
    for style in list(styles.STYLES)[::6]:
        one, two = composer.compose(style, 4, 60.0), composer.compose(style, 4, 60.0)
        assert one.tags == two.tags and one.tracks == two.tracks


JIG = """X:1
T:Miller of Dee, The
M:3/4
L:1/8
K:G
D2|G2 G2 A2|B2 "G"B2 (AB)|c2 B2 A2|G4 D2|G>A B2 c2|d4 B2|{c}A2 G2 A2|G4:|
|:d2|e2 e2 d2|B2 G2 B2|A2 A2 G2|A4 d2|e2 e2 d2|B2 G2 c2|B2 A2 A2|G4:|
"""


def test_a_tune_is_read_from_abc():
    tune = tunes.read_abc(JIG, "test")
    assert (tune.title, tune.meter, tune.mode, tune.bars) == ("The Miller of Dee", 3, "major", 16)
    assert tune.notes[:4] == ((0, 4, 7), (4, 4, 7), (8, 4, 8), (12, 4, 9))
    assert (48, 3, 7) in tune.notes and (51, 1, 8) in tune.notes  # G>A
    assert max(start + length for start, length, _ in tune.notes) == 16 * 12
    assert len(tune.chords) == 16 and tune.chords[0] == tune.chords[-1] == 1
    assert tunes.read_abc(JIG.replace("M:3/4", "M:6/8")) is None
    assert tunes.read_abc(JIG.replace("d4 B2", "^d4 B2")) is None  # not diatonic
    assert tunes.read_abc(JIG.replace("d4 B2", "d4 B3")) is None  # too long a bar
    dorian = tunes.read_abc(JIG.replace("K:G", "K:Ador"))
    assert dorian is None or dorian.mode == "dorian"


@pytest.mark.parametrize(
    ("key", "expected"),
    [("G", {"F": 1}), ("Em", {"F": 1}), ("Bb", {"B": -1, "E": -1}), ("Ador", {"F": 1}), ("Dmix", {"F": 1}), ("C", {})],
)
def test_key_signatures(key, expected):
    assert tunes.signature(*tunes.read_key(key)) == expected


def write_chorale(path: Path) -> None:
    """Eight bars of root-position triads on I and V in C, the melody on top."""
    voices = {"S": ("E5", "D5"), "A": ("G4", "G4"), "T": ("C4", "B3"), "B": ("C3", "G2")}
    parts = []
    for name, (one, five) in voices.items():
        measures = []
        for bar in range(8):
            notes = [one, five, one, one] if bar < 7 else [one] * 4
            if name == "S" and bar == 7:
                notes = ["C5"] * 4
            body = "".join(
                f"<note><pitch><step>{n[0]}</step><octave>{n[1]}</octave></pitch><duration>2</duration></note>"
                for n in notes
            )
            attributes = (
                "<attributes><divisions>2</divisions><key><fifths>0</fifths><mode>major</mode></key>"
                "<time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
            )
            measures.append(f"<measure>{attributes if bar == 0 else ''}{body}</measure>")
        parts.append(f"<part id='{name}'>{''.join(measures)}</part>")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", "<container/>")
        archive.writestr("score.xml", f"<score-partwise>{''.join(parts)}</score-partwise>")


def test_a_chorale_is_read_with_its_chords(tmp_path):
    write_chorale(tmp_path / "bwv1.2.mxl")
    tune = tunes.read_chorale(tmp_path / "bwv1.2.mxl")
    assert (tune.title, tune.meter, tune.mode, tune.bars) == ("Chorale BWV 1.2", 4, "major", 8)
    assert tune.notes[:3] == ((0, 4, 2), (4, 4, 1), (8, 4, 2))
    assert len(tune.chords) == 16 and set(tune.chords) == {1}


def test_pieces_play_tunes_in_any_key_and_style():
    known = [tunes.read_abc(JIG, "test")]
    pieces = [composer.compose("waltz", seed, tunes=known) for seed in range(160)]
    arranged = [piece for piece in pieces if piece.tags.tune]
    assert 3 <= len(arranged) <= 40 and {piece.tags.mode for piece in arranged} == {"major"}
    assert len({piece.tags.key for piece in arranged}) > 2
    rhythm = [start for start, _, _ in known[0].notes if start < 12]
    for piece in arranged:
        scale = [(styles.PITCH_NAMES.index(piece.tags.key) + step) % 12 for step in styles.SCALES["major"]]
        assert all(note.pitch % 12 in scale for track in piece.tracks for note in track.notes if track.role != "drums")
        themes = [i for i, bar in enumerate(piece.form.bars) if bar.section == "theme" and bar.index == 0]
        if themes and not piece.tracks[0].instrument.fades:
            begin = 3 * themes[0]
            starts = [
                round(4 * (n.start - begin)) for n in piece.tracks[0].notes if begin - 0.1 < n.start < begin + 2.9
            ]
            assert starts == rhythm
    assert not any(composer.compose("rock", seed, tunes=known).tags.tune for seed in range(20))


def test_the_corpus_holds_a_thousand_tunes():
    corpus = tunes.find_corpus()
    if corpus is None:
        pytest.skip("pip install --no-deps music21")
    found = tunes.read_corpus(corpus)
    assert len(found) > 1000 and {tune.collection for tune in found} == set(tunes.COLLECTIONS)


@needs_player
def test_a_build_with_tunes_keeps_them_beside_the_clips(tmp_path, monkeypatch):
    build = importlib.import_module("build")
    corpus = tmp_path / "corpus"
    for name in tunes.COLLECTIONS:
        (corpus / name).mkdir(parents=True)
    (corpus / "airdsAirs" / "book1.abc").write_text(JIG, encoding="utf-8")
    for _ in range(2):  # the second replaces the first
        build.build(tmp_path / "set", hours=2 * 8 / 3600, seed=1, seconds=8.0, corpus=corpus)
    assert [tune.title for tune in tunes.load(str(tmp_path / "set" / "tunes.json"))] == ["The Miller of Dee"]
    card, licences = ((tmp_path / "set" / name).read_text() for name in ("README.md", "LICENSES.md"))
    assert "--seconds 8 --tunes auto" in card and "clip of 8 s" in card and "music21" in licences
    monkeypatch.setattr(tunes, "find_corpus", lambda: None)
    assert build.find_tunes("auto") is None and build.find_tunes("none") is None


@needs_player
def test_every_instrument_sounds_on_the_font_of_the_repository():
    render = importlib.import_module("render")
    font = importlib.import_module("soundfont").SoundFont(
        FOLDER / "fonts" / "FluidR3Mono_trimmed.sf3", render.RENDER_RATE
    )
    assert font.has_program(0) and not font.has_program(22)
    for name in instruments.LEADS:
        instrument = instruments.INSTRUMENTS[name]
        for pitch in (instrument.low, (instrument.low + instrument.high) // 2, instrument.high):
            track = composer.Track("lead", instrument, -15.0, [composer.Note(0.0, 1.0, pitch, 0.8)])
            stem = render.render_stem(track, 0.6, 1.0, font, 0)
            assert np.isfinite(stem).all() and np.abs(stem).max() > 0.1, (name, pitch)


@needs_player
def test_a_soft_lead_is_lifted_above_what_plays_with_it():
    render = importlib.import_module("render")
    time = np.arange(64_000) / 32_000
    lead, rest = np.sin(2 * np.pi * 880 * time), 0.9 * np.sin(2 * np.pi * 660 * time)
    lifted = 20 * np.log10(render.lead_gain(lead, rest))
    assert 3 < lifted < 5
    assert render.lead_gain(lead, 0.1 * rest) == 1
    assert render.lead_gain(np.zeros(64_000), rest) == 1
    assert 20 * np.log10(render.lead_gain(0.1 * lead, rest)) == pytest.approx(render.MAX_LEAD_GAIN_DB, abs=0.01)
