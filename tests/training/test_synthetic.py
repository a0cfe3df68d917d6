"""The open training set: tags are true of the notes and the sound, captions are well formed, builds repeat."""

import importlib
import importlib.util
import io
import shutil
import struct
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

FOLDER = Path(__file__).parents[2] / "training" / "synthetic"
sys.path.insert(0, str(FOLDER))
captions = importlib.import_module("captions")
composer = importlib.import_module("compose")
styles = importlib.import_module("styles")

needs_player = pytest.mark.skipif(
    importlib.util.find_spec("tinysoundfont") is None, reason="pip install --no-deps tinysoundfont==0.3.7"
)
NUM_CLIPS = 32
PIECES = [composer.compose(style, seed) for style in styles.STYLES | styles.HELD_OUT for seed in range(12)]
TAGS = [asdict(piece.tags) for piece in PIECES if piece.tags.style in styles.STYLES]


def test_tables_are_complete():
    assert len(styles.STYLES) >= 28
    assert len(styles.INSTRUMENTS) >= 60
    assert min(style.bpm[0] for style in styles.STYLES.values()) == 60
    assert max(style.bpm[1] for style in styles.STYLES.values()) == 190
    for flavour in styles.PROGRESSIONS:
        assert all(styles.progressions(flavour, mode) for mode in styles.SCALES)
    for style in (styles.STYLES | styles.HELD_OUT).values():
        steps = 4 * style.meter
        for mood in style.moods:
            modes = set(styles.MOODS[mood].modes) & set(style.modes) & set(styles.PROGRESSIONS[style.flavour])
            assert modes, (style.name, mood)
        assert {styles.INSTRUMENTS[lead].family for lead in style.leads} <= set(styles.FAMILIES)
        for part in style.parts:
            assert all(name == "lead" or name in styles.INSTRUMENTS for name in part.instruments)
            assert all(len(bar) == steps for bars in part.bars for bar in bars)
        assert style.kits and style.grooves  # any style may come with drums
        for groove in style.grooves:
            assert all(name in styles.DRUM_KEYS and len(bar) == steps for name, bar in groove.items())
        assert all(len(bar) == steps for bars in styles.RHYTHMS[style.rhythm].values() for bar in bars)


def test_every_note_lies_in_the_scale_of_its_key():
    for piece in PIECES:
        tonic = styles.PITCH_NAMES.index(piece.tags.key)
        scale = {(tonic + step) % 12 for step in styles.SCALES[piece.tags.mode]}
        for track in piece.tracks:
            if track.role != "drums":
                assert {note.pitch % 12 for note in track.notes} <= scale, piece.tags
    assert {piece.tags.mode for piece in PIECES} == set(styles.SCALES)


def test_onsets_keep_the_tempo():
    for piece in PIECES:
        pair = 2 * piece.style.swing_steps / 4  # beats
        late = (piece.style.swing - 0.5) * pair
        grid = np.arange(0, 200, 0.25)
        grid = grid + late * np.isclose(grid % pair, pair / 2)
        starts = np.array([note.start for track in piece.tracks for note in track.notes])
        error_beats = np.abs(starts[:, None] - grid[None, :]).min(axis=1)
        assert error_beats.max() * 60 / piece.tags.bpm <= composer.MAX_JITTER_SECONDS + 1e-9
        assert piece.tags.tempo == styles.tempo_word(piece.tags.bpm)
        slowest, fastest = piece.style.bpm
        slack = composer.TEMPO_SLACK if not piece.tags.ends else 0.2  # an ending has to fit
        assert (1 - slack) * slowest - 1 <= piece.tags.bpm <= (1 + slack) * fastest + 1


def test_every_instrument_plays_in_the_clip_and_the_lead_rests_for_four_seconds_at_most():
    for piece in PIECES:
        beat = 60 / piece.tags.bpm
        assert piece.tags.instruments == list(dict.fromkeys(track.instrument.name for track in piece.tracks))
        for track in piece.tracks:
            if track.role != "texture":
                sounding = [note for note in track.notes if note.start * beat < 18.0]
                assert len({round(note.start) for note in sounding}) >= 2, (piece.tags, track.role)
        heard_until = 0.0
        for note in sorted(piece.tracks[0].notes, key=lambda note: note.start):
            if note.start * beat < 19.0:
                assert note.start * beat - heard_until < 4.5, piece.tags
                heard_until = max(heard_until, (note.start + note.length) * beat)
        assert heard_until > 20.0 - 4.5, piece.tags


def test_notes_stay_near_what_their_instrument_plays_comfortably():
    for piece in PIECES:
        for track in piece.tracks:
            if track.role not in ("drums", "texture"):
                pitches = [note.pitch for note in track.notes]
                assert track.instrument.low - 2 <= min(pitches), (piece.tags, track.role)
                assert max(pitches) <= track.instrument.high + (0 if track.role == "lead" else 12), piece.tags


def test_the_lead_is_the_loudest_part_and_names_the_family():
    for piece in PIECES:
        lead, *others = piece.tracks
        assert (lead.role, lead.instrument.name, lead.instrument.family) == ("lead", piece.tags.lead, piece.tags.family)
        assert all(track.level_db < lead.level_db for track in others)


def test_drums_follow_the_tag_and_a_kick_marks_each_bar():
    for piece in PIECES:
        drums = [track for track in piece.tracks if track.role == "drums"]
        assert bool(drums) == piece.tags.drums
        for track in drums:
            meter = piece.style.meter
            kicks = np.array([note.start for note in track.notes if note.pitch in (35, 36, 41, 64)])
            bars = {
                round(note.start // meter) * meter for note in track.notes if 0.5 < note.start % meter < meter - 0.1
            }
            assert max(np.abs(kicks - bar).min() for bar in bars) < 0.05


def test_moods_change_the_notes():
    def melody(mood: str) -> tuple[float, float, float]:
        chosen = [piece for piece in PIECES if piece.tags.mood == mood]
        notes = [note for piece in chosen for note in piece.tracks[0].notes]
        seconds = sum(20.0 for _ in chosen)
        velocity = float(np.mean([note.velocity for note in notes]))
        return len(notes) / seconds, velocity, float(np.mean([note.length for note in notes]))

    assert melody("energetic")[0] > 1.3 * melody("calm")[0]  # notes per second
    assert melody("majestic")[1] > melody("sad")[1] + 0.3  # loudness
    assert melody("playful")[2] < 0.5 * melody("sad")[2]  # length in beats


def test_the_bare_list_of_tags_has_all_of_them():
    tags = TAGS[5]
    bare = captions.tag_caption(tags)
    assert all(str(tags[name]) in bare for name in ("style", "mood", "bpm", "key", "lead"))


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("flute", "a flute"),
        ("organ", "an organ"),
        ("8-bit lead", "an 8-bit lead"),
        ("unhurried waltz", "an unhurried waltz"),
        ("strings", "strings"),
        ("rock drums", "rock drums"),
        ("uplifting tune", "an uplifting tune"),
    ],
)
def test_articles(noun, expected):
    assert captions.with_article(noun) == expected


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    summary = importlib.import_module("build").build(folder, hours=NUM_CLIPS * 20 / 3600, seed=5)
    assert summary["clips"] == NUM_CLIPS + NUM_CLIPS // 20
    return folder


@needs_player
def test_splits_share_no_seed_and_every_style_is_in_each():
    build = importlib.import_module("build")
    num_styles = len(styles.STYLES)
    jobs = build.plan(num_styles * 40, seed=1, test_font="other.sf2", test_font_pieces=3)
    seeds = {split: {job.seed for job in jobs if job.split == split} for split in {job.split for job in jobs}}
    assert set(seeds) == {"train", "validation", "test", "unseen_pairs", "test_font"}
    assert sum(map(len, seeds.values())) == len(jobs) == len(set().union(*seeds.values()))
    assert len(seeds["train"]) == 36 * num_styles
    assert {len(seeds[split]) for split in ("validation", "test", "unseen_pairs")} == {2 * num_styles}
    for split in seeds:
        assert {job.style for job in jobs if job.split == split} == set(styles.STYLES)
    assert {job.font for job in jobs if job.split == "test_font"} == {"other.sf2"}
    other = build.plan(num_styles * 40, seed=2, test_font=None, test_font_pieces=3)
    assert not {job.seed for job in jobs} & {job.seed for job in other}


@needs_player
def test_recordings_of_a_held_out_style_are_no_part_of_the_training_set(tmp_path, monkeypatch):
    build, held_out = importlib.import_module("build"), importlib.import_module("held_out")
    assert not {job.style for job in build.plan(16 * 40, 0, "other.sf2", 3)} & set(styles.HELD_OUT)

    def contents(name: str) -> dict[str, bytes]:
        arguments = ["--style", "ska", "--out", tmp_path / name, "--train_minutes", 0.7, "--test_minutes", 0.3]
        monkeypatch.setattr(sys, "argv", ["held_out.py", *map(str, arguments)])
        held_out.main()
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.wav")}

    files = contents("once")
    assert sorted(files) == ["test/ska-000.wav", "train/ska-000.wav", "train/ska-001.wav"]
    assert len(set(files.values())) == 3 and contents("again") == files
    assert soundfile.info(tmp_path / "once" / "train" / "ska-000.wav").duration == 20.0


@needs_player
def test_a_small_build_loads_and_sounds_as_promised(data_set):
    datasets = importlib.import_module("datasets")
    loaded = datasets.load_dataset(str(data_set), cache_dir=str(data_set.parent / "cache"))
    assert set(loaded) == {"train", "unseen_pairs"}
    rows = loaded["train"].cast_column("audio", datasets.Audio(decode=False))
    assert len(rows) == NUM_CLIPS
    assert len(set(rows["style"])) == len(styles.STYLES)
    assert {len(captions) for captions in loaded["unseen_pairs"]["captions"]} <= {8, 9}
    for row in rows:
        waveform, sample_rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert (sample_rate, waveform.shape) == (24_000, (480_000,))
        assert 0.1 < np.abs(waveform).max() <= 0.89
        assert 20 * np.log10(np.sqrt(np.mean(waveform**2))) == pytest.approx(-18, abs=1)
        seconds = np.sqrt((waveform.reshape(20, -1) ** 2).mean(axis=1))
        last = 18 if row["ends"] else 20
        assert 20 * np.log10(seconds[:last].min()) > -45  # no hole anywhere
        assert len(row["captions"]) in (16, 17) and all(row["captions"])  # eight of them are wishes
        assert row["lead"] == row["instruments"][0]
        assert row["family"] == styles.INSTRUMENTS[row["lead"]].family
    card = (data_set / "README.md").read_text()
    assert card.startswith("---\nlicense: cc0-1.0") and "| train | " in card and "data_files" not in card


@needs_player
def test_the_same_seed_gives_the_same_rows_in_other_processes(data_set, tmp_path):
    parquet = importlib.import_module("pyarrow.parquet")
    importlib.import_module("build").build(tmp_path / "again", hours=4 * 20 / 3600, seed=5, workers=1)
    (again,) = (tmp_path / "again").glob("data/*.parquet")
    (first,) = data_set.glob("data/train-*.parquet")
    assert parquet.read_table(again).equals(parquet.read_table(first).slice(0, 4))


@needs_player
def test_the_same_seed_gives_the_same_bytes_and_replaces_what_was_there(tmp_path):
    build = importlib.import_module("build").build

    def contents(seed: int) -> dict[str, bytes]:
        build(tmp_path / "set", hours=20 / 3600, seed=seed)
        return {path.name: path.read_bytes() for path in (tmp_path / "set").rglob("*.*")}

    first = contents(5)
    assert contents(6) != first
    assert contents(5) == first
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@needs_player
@pytest.mark.parametrize(
    "foreign", ["data/mine/train-00000-of-00001.parquet", "notes.txt", "data/song.wav", "README.md"]
)
def test_what_it_did_not_write_is_never_replaced(tmp_path, foreign):
    """`--out data` would remove all data sets."""
    build, folder = importlib.import_module("build").build, tmp_path / "set"
    if foreign != "README.md":  # a folder of its own, with something more in it
        build(folder, hours=20 / 3600)
    (folder / foreign).parent.mkdir(parents=True, exist_ok=True)
    (folder / foreign).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    with pytest.raises(SystemExit, match="would be replaced"):
        build(folder, hours=20 / 3600)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


@needs_player
def test_kicks_are_heard_on_the_beat():
    render = importlib.import_module("render")
    font = importlib.import_module("soundfont").SoundFont(
        FOLDER / "fonts" / "FluidR3Mono_trimmed.sf3", render.RENDER_RATE
    )
    for style in ("house", "rock"):
        pieces = (composer.compose(style, seed, seconds=8.0) for seed in range(50))
        piece = next(p for p in pieces if p.tags.drums and p.tags.form == "theme")
        drums = [track for track in piece.tracks if track.role == "drums"]
        waveform = render.render(replace(piece, tracks=drums), font, seconds=8.0)
        spectrum = np.fft.rfft(waveform)
        spectrum[np.fft.rfftfreq(len(waveform), 1 / render.SAMPLE_RATE) > 120] = 0  # leaves the kick
        energy = np.fft.irfft(spectrum) ** 2
        bar = 4 * 60 / piece.tags.bpm * render.SAMPLE_RATE
        window = render.SAMPLE_RATE // 20
        after = [energy[round(i * bar) :][:window].mean() for i in range(1, 3)]
        before = [energy[round(i * bar) - window :][: window // 2].mean() for i in range(1, 3)]
        assert min(after) > 3 * max(before), style


@needs_player
def test_the_limiter_leaves_quiet_sound_alone_and_bounds_loud_sound():
    render = importlib.import_module("render")
    quiet = np.linspace(-0.6, 0.6, 101, dtype=np.float32)
    assert np.array_equal(render.limit(quiet), quiet)
    loud = render.limit(np.linspace(-30, 30, 1001, dtype=np.float32))
    assert np.abs(loud).max() <= render.PEAK_CEILING
    assert np.all(np.diff(loud) >= 0)


@needs_player
def test_wrong_arguments_are_refused_with_reasons(monkeypatch, capsys):
    build = importlib.import_module("build")
    monkeypatch.setattr(sys, "argv", ["build.py", "--hours", "-1"])
    with pytest.raises(SystemExit):
        build.main()
    assert "--hours" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["build.py", "--test_font", str(build.FONT)])
    with pytest.raises(SystemExit):
        build.main()
    assert "unheard font" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no such file"):
        build.find_test_font("/nowhere/font.sf2")
    assert build.find_test_font("none") is None


@pytest.fixture(scope="module")
def other_font(tmp_path_factory):
    path = tmp_path_factory.mktemp("fonts") / "Other.sf3"
    shutil.copy(FOLDER / "fonts" / "FluidR3Mono_trimmed.sf3", path)
    return path


@pytest.fixture(scope="module")
def drum_samples(tmp_path_factory):
    """A second of decaying sine for each recording of the kits: soft ones low, hard ones high, a silent start."""
    folder = tmp_path_factory.mktemp("samples")
    time = np.arange(44_100) / 44_100
    for name in importlib.import_module("kits").FILES:
        hertz = 4000 if name.endswith("hard") else 400
        wave = np.where(time < 0.01, 0, 0.3 * np.sin(2 * np.pi * hertz * time) * np.exp(-3 * time))
        soundfile.write(folder / f"{name}.flac", np.stack([wave, wave], axis=1), 44_100)
    return folder


def test_kits_play_keys_of_the_grooves_with_recordings_of_known_origin():
    kits, sources = importlib.import_module("kits"), importlib.import_module("sources")
    assert set(kits.FILES) == set(sources.FREESOUND)
    known = {*styles.DRUM_KEYS.values(), *styles.FILL_KEYS}
    for name, kit in kits.KITS.items():
        assert styles.INSTRUMENTS[name].family == "drums" and set(kit.choices) <= known
        assert {36, 38, 42} <= set(kit.choices)


def test_loud_hits_are_other_recordings_and_a_hat_ends_the_one_before(drum_samples):
    kits = importlib.import_module("kits")
    assert kits.has_samples(drum_samples) and not kits.has_samples(drum_samples / "nowhere")
    rate, kit = 32_000, kits.KITS["rock drums"]

    def play(*notes):
        return kits.render_kit(notes, 2.0, kit, drum_samples, rate, seed=1)

    def hertz(wave):
        return np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)

    soft, hard = play((0.0, 0.2, 38, 0.5)), play((0.0, 0.2, 38, 0.9))
    assert hertz(soft) < 500 and hertz(hard) > 3000
    assert 0 < np.abs(soft).max() < np.abs(hard).max() <= 1.2
    assert np.abs(hard[:32]).max() > 0.1 * np.abs(hard).max()  # no silence before the hit
    alone, ended = play((0.0, 0.2, 46, 0.9)), play((0.0, 0.2, 46, 0.9), (0.5, 0.2, 42, 0.2))
    after = slice(round(0.6 * rate), round(0.9 * rate))
    assert np.abs(ended[after]).max() < 0.7 * np.abs(alone[after]).max()
    assert not play((0.0, 0.2, 54, 0.9)).any()  # a tambourine, which the kit leaves to others


@needs_player
def test_fonts_are_drawn_by_seed_and_stay_out_of_test_font(other_font):
    build = importlib.import_module("build")
    sounds = build.Sounds(((str(build.FONT), None), (str(other_font), "MIT")), "samples", variety=True)
    jobs = build.plan(len(styles.STYLES) * 40, 1, "test.sf2", 3, sounds)
    assert jobs == build.plan(len(styles.STYLES) * 40, 1, "test.sf2", 3, sounds)
    for style in styles.STYLES:
        share = np.mean(
            [job.font == str(other_font) for job in jobs if job.style == style and job.split != "test_font"]
        )
        assert 0.15 < share < 0.85
    unheard = [job for job in jobs if job.split == "test_font"]
    assert {(job.font, job.drum_samples) for job in unheard} == {("test.sf2", None)}
    assert {job.drum_samples for job in jobs if job.split != "test_font"} == {"samples"}


@needs_player
def test_only_fonts_of_known_permissive_licences_are_trained_on(tmp_path, monkeypatch, other_font, capsys):
    build = importlib.import_module("build")
    (tmp_path / "TimGM6mb.sf2").write_bytes(b"")
    (tmp_path / "Other.sf3").write_bytes(b"")
    with pytest.raises(SystemExit, match="GPL-2.0 may not be trained on"):
        build.find_fonts([f"{tmp_path / 'TimGM6mb.sf2'}=MIT"])
    with pytest.raises(SystemExit, match="licence is not known"):
        build.find_fonts([str(other_font)])
    for licence in ("GPL-3.0-only", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "MIT AND GPL-2.0", "unknown"):
        with pytest.raises(SystemExit, match="may not be trained on"):
            build.find_fonts([f"{other_font}={licence}"])
    with pytest.raises(SystemExit, match="one name"):
        build.find_fonts([f"{other_font}=MIT", f"{tmp_path / 'Other.sf3'}=MIT"])
    with pytest.raises(SystemExit, match="no such file"):
        build.find_fonts(["/nowhere/font.sf2"])
    assert build.find_fonts([f"{other_font}=CC0-1.0", str(build.FONT)])[0] == (str(other_font), "CC0-1.0")
    monkeypatch.setattr(build, "DEBIAN_FONTS", (tmp_path / "missing.sf2",))
    monkeypatch.setattr(build, "SAMPLE_FOLDER", tmp_path)
    assert build.find_fonts(["auto"]) == build.Sounds().fonts
    assert build.find_drum_samples("auto") is None and build.find_drum_samples("none") is None
    assert "missing.sf2" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="not the samples"):
        build.find_drum_samples(str(tmp_path))


@needs_player
def test_a_varied_build_differs_in_level_repeats_and_names_its_sources(tmp_path, other_font, drum_samples):
    build, parquet = importlib.import_module("build"), importlib.import_module("pyarrow.parquet")
    sounds = build.Sounds(((str(build.FONT), None), (str(other_font), "MIT")), str(drum_samples), variety=True)
    for name, workers in (("once", 0), ("again", 1)):
        build.build(tmp_path / name, hours=16 * 20 / 3600, seed=8, workers=workers, sounds=sounds)
    (table, again) = (parquet.read_table(next((tmp_path / n).glob("data/*.parquet"))) for n in ("once", "again"))
    assert table.equals(again)
    rows = table.to_pylist()
    assert {row["font"] for row in rows} == {"FluidR3Mono_trimmed", "Other"}
    levels = []
    for row in rows:
        waveform, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert 0.05 < np.abs(waveform).max() <= 0.89
        levels.append(20 * np.log10(np.sqrt(np.mean(waveform**2))))
        seconds = np.sqrt((waveform.reshape(20, -1) ** 2).mean(axis=1))
        assert 20 * np.log10(seconds.min()) > levels[-1] - 15
    assert -29 < min(levels) < max(levels) < -13.9 and np.std(levels) > 1
    licences = (tmp_path / "once" / "LICENSES.md").read_text()
    assert "| Other.sf3 | all but test_font | MIT |" in licences and "Michael Cowgill" in licences
    assert "| drum_snare_hard.flac | all but test_font | CC0-1.0 | menegass |" in licences
    assert "--variety" in (tmp_path / "once" / "README.md").read_text()


def test_masters_stay_within_musical_limits():
    mastering = importlib.import_module("mastering")
    frequency = np.linspace(0, 12_000, 1000)
    heard = (frequency > 200) & (frequency < 3500)
    masters = [mastering.draw_master(seed) for seed in range(300)]
    for master in masters:
        gain_db = 20 * np.log10(mastering.equaliser(master, frequency))
        assert np.isfinite(gain_db).all() and np.ptp(gain_db[heard]) < 16
        assert gain_db.max() < 15
    assert masters == [mastering.draw_master(seed) for seed in range(300)]
    assert 0.05 < np.mean([master.highest_hz is not None for master in masters]) < 0.25
    assert np.allclose(mastering.equaliser(mastering.Master(), frequency), 1)


def test_the_compressor_turns_down_what_is_loud_alone():
    mastering = importlib.import_module("mastering")
    quiet, loud = np.full(24_000, 0.01, np.float32), np.full(24_000, 0.8, np.float32)
    wave = np.concatenate([quiet, loud, quiet, quiet])
    compressed = mastering.compress(wave, 3.0, -20.0, 0.15, 24_000)
    assert np.all(np.abs(compressed) <= np.abs(wave)) and np.array_equal(compressed[:23_000], quiet[:23_000])
    assert compressed[45_000] == pytest.approx(0.1 * (0.8 / 0.1) ** (1 / 3), rel=0.02)
    assert compressed[-1] == pytest.approx(0.01, rel=0.01)


@pytest.mark.skipif(importlib.util.find_spec("pyroomacoustics") is None, reason="pip install --no-deps pyroomacoustics")
def test_rooms_decay_as_asked():
    rooms = importlib.import_module("rooms")
    assert 0.4 < np.mean([rooms.draw_room(seed) is not None for seed in range(300)]) < 0.8
    for seconds in (0.6, 2.5):
        response = rooms.room_response.__wrapped__(seconds, 3, 24_000)
        assert np.array_equal(response, rooms.room_response(seconds, 3, 24_000))
        assert np.sum(response.astype(np.float64) ** 2) == pytest.approx(1, abs=1e-3)
        left_db = 10 * np.log10(np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1])
        decay = 2 * (np.argmax(left_db < -35) - np.argmax(left_db < -5)) / 24_000
        assert 0.5 * seconds < decay < 1.3 * seconds


@needs_player
def test_a_filter_that_velocity_opens_is_opened_per_layer():
    """Modulators are ignored by the player; the layers' generators stand for them."""
    opened = importlib.import_module("soundfont").with_filters_opened

    def font(generators, modulators):
        rows = [
            (b"phdr", b"\0" * 76),
            (b"pbag", np.array([[0, 0], [len(generators) - 1, len(modulators)]], "<u2").tobytes()),
            (b"pmod", np.array([*modulators, [0] * 5], "<i2").tobytes()),
            (b"pgen", np.array(generators, "<i2").tobytes()),
            (b"inst", b""),
        ]
        body = b"pdta" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in rows)
        body = b"sfbkLIST" + struct.pack("<I", len(body)) + body
        return b"RIFF" + struct.pack("<I", len(body)) + body

    layer = [[44, 100 << 8 | 20], [11, 500], [41, 0]]
    plain = font([*layer, [0, 0]], [])
    assert opened(plain) == plain
    assert opened(b"no font at all") == b"no font at all"
    modulated = font([*layer, [0, 0]], [[0x002, 11, 1270, 0, 0]])
    expected = [[44, 100 << 8 | 20], [11, 500 + 800], [41, 0], [0, 0]]
    assert opened(modulated) == font(expected, [[0x002, 11, 1270, 0, 0]])
    absent = [generator for generator in layer if generator[0] != 11]
    grown = font([[44, 100 << 8 | 20], [11, 800], [41, 0], [0, 0]], [[0x402, 11, 1270, 0, 0]])
    assert opened(font([*absent, [0, 0]], [[0x402, 11, 1270, 0, 0]])) == grown
    repository_font = (FOLDER / "fonts" / "FluidR3Mono_trimmed.sf3").read_bytes()
    assert opened(repository_font) == repository_font
