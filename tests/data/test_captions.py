import json

import pytest

from melody_diffusers.data.captions import captions_from_tags, describe, merge, read_metadata, read_sidecar, widen


def test_columns_of_other_names_become_ours():
    row = describe(
        {
            "caption": "  a calm\npiano piece ",
            "genres": ["jazz", "swing"],
            "aspect_list": '["warm", "slow", "warm"]',
            "instrument": "piano, bass",
            "bpm": "89.6",
            "key": "C minor",
            "artist": "someone",
            "mood": float("nan"),
        }
    )
    assert row == {
        "captions": ["a calm piano piece"],
        "style": "jazz, swing",
        "mood": None,
        "tempo": None,
        "key": "C minor",
        "meter": None,
        "instruments": ["piano", "bass"],
        "bpm": 90,
        "tags": ["warm", "slow"],
    }
    for bpm in ("fast", "nan", "inf", "0", None, [], "-3", True, "5000"):
        assert describe({"bpm": bpm})["bpm"] is None
    assert describe({"text": "a \ud800 b"})["captions"] == ["a ? b"]


def test_tags_widen_into_sentences():
    tags = {"style": "jazz", "mood": "calm", "instruments": "piano, bass, drums", "bpm": 90, "key": "C minor"}
    assert captions_from_tags(describe(tags)) == [
        "jazz, calm, C minor, piano, bass, drums, 90 bpm",
        "calm jazz music with piano, bass and drums",
        "a piece of calm jazz music at 90 bpm in C minor",
    ]
    assert captions_from_tags(describe({"style": "Folk Music"})) == ["Folk Music", "Folk Music"]
    assert captions_from_tags(describe({"tags": "warm, slow"})) == ["warm, slow"]
    assert captions_from_tags(describe({"instruments": "oud"})) == ["oud", "music with oud"]
    assert captions_from_tags(describe({})) == []


def test_captions_come_first_and_tags_add_a_list():
    assert widen(describe({"caption": "a tune", "style": "jazz"}))["captions"] == ["a tune", "jazz"]
    assert widen(describe({"style": "jazz"}))["captions"] == ["jazz", "jazz music"]
    assert widen(describe({"caption": "a tune"}))["captions"] == ["a tune"]
    merged = merge(describe({"caption": "mine"}), describe({"caption": "theirs", "style": "jazz"}))
    assert merged["captions"] == ["mine"] and merged["style"] == "jazz"


def test_files_beside_the_audio(tmp_path):
    audio = tmp_path / "a.b.wav"
    assert read_sidecar(audio) == describe({})
    (tmp_path / "a.b.txt").write_text("\ufeffone\n\n two \n", encoding="utf-8")
    assert read_sidecar(audio)["captions"] == ["one", "two"]
    (tmp_path / "a.b.json").write_text('{"mood": "calm", "captions": ["three"]}')
    assert read_sidecar(audio) == describe({"captions": ["three"], "mood": "calm"})
    (tmp_path / "a.b.json").write_text('["four", 5]')
    assert read_sidecar(audio)["captions"] == ["four", "5"]
    for content in (b"{", b"\xff\xfe\x00", b"[" * 100_000, b" " * (1 << 21)):
        (tmp_path / "a.b.json").write_bytes(content)
        with pytest.raises(ValueError, match="a.b.json: "):
            read_sidecar(audio)


def write_table(folder, name: str, content: str) -> None:
    for old in folder.rglob("metadata.*"):
        old.unlink()
    (folder / name).write_text(content)


def test_tables(tmp_path):
    (tmp_path / "more").mkdir()
    paths = [tmp_path / name for name in ("a.wav", "more/b.wav", "more/c.wav", "more/d.wav")]
    (tmp_path / "metadata.csv").write_text('file_name,text,genre\na.wav,"one, two",jazz\nmore/b.wav,three,\n')
    lines = [{"file_name": "c.wav", "captions": ["four", "five"]}, {"file_name": "d.wav", "bpm": 120}]
    (tmp_path / "more" / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    rows = read_metadata(tmp_path, paths)
    assert list(rows) == paths
    assert rows[paths[0]] == describe({"text": "one, two", "genre": "jazz"})
    assert rows[paths[2]]["captions"] == ["four", "five"] and rows[paths[3]]["bpm"] == 120


@pytest.mark.parametrize(
    "name, content",
    [
        ("csv", "name\na.wav\n"),
        ("jsonl", "[1]\n"),
        ("jsonl", '{"file_name": 3}\n'),
        ("csv", "\0"),
        ("json", "3"),
        ("json", "{"),
        ("json", "[" * 100_000),
    ],
)
def test_a_table_of_which_no_row_can_be_read_is_named(tmp_path, name, content):
    write_table(tmp_path, f"metadata.{name}", content)
    with pytest.raises(ValueError, match=f"metadata.{name}, (after )?row [01]: .*file_name"):
        read_metadata(tmp_path, [tmp_path / "a.wav"])


def test_a_bad_row_of_a_table_is_named_and_the_others_are_used(tmp_path):
    write_table(tmp_path, "metadata.jsonl", '{"file_name": "a.wav", "text": "one"}\n{"file_name": \n')
    with pytest.warns(UserWarning, match=r"metadata.jsonl: 1 of 2 rows cannot be read; row 2: it is no JSON object"):
        rows = read_metadata(tmp_path, [tmp_path / "a.wav"])
    assert rows[tmp_path / "a.wav"]["captions"] == ["one"]


def test_rows_for_files_that_are_not_there_are_counted(tmp_path):
    write_table(tmp_path, "metadata.csv", "file_name,text\na.wav,one\nb.wav,two\nc.wav,three\n")
    with pytest.warns(UserWarning, match=r"metadata.csv: 2 of 3 rows name no file here.* the first is 'b.wav'"):
        assert list(read_metadata(tmp_path, [tmp_path / "a.wav"])) == [tmp_path / "a.wav"]


@pytest.mark.parametrize(
    "name, content",
    [
        ("csv", "filename;description\na.wav;calm, slow\n"),
        ("csv", "Path\tPrompt\na.wav\t calm, slow\n"),
        ("csv", 'audio,caption\na.wav,"calm,\nslow"\n'),
        ("json", '[{"file": "a.wav", "text": "calm, slow"}]'),
        ("json", '{"a.wav": {"caption": "calm, slow"}}'),
        ("json", '{"a": "calm, slow"}'),
        ("json", '{"name": "mine", "samples": [{"audio_path": "/home/me/songs/a.wav", "caption": "calm, slow"}]}'),
        ("jsonl", '{"path": "C:\\\\songs\\\\a.wav", "prompt": "calm, slow"}'),
        ("jsonl", '{"file_name": "./a.wav", "text": "calm, slow"}'),
    ],
)
def test_tables_of_other_programs(tmp_path, name, content):
    write_table(tmp_path, f"metadata.{name}", content)
    assert read_metadata(tmp_path, [tmp_path / "a.wav", tmp_path / "b.wav"]) == {
        tmp_path / "a.wav": describe({"caption": "calm, slow"})
    }


def test_a_file_with_several_rows_has_all_their_captions(tmp_path):
    write_table(tmp_path, "metadata.csv", "file_name,text\na.wav,one\na.wav,two\n")
    assert read_metadata(tmp_path, [tmp_path / "a.wav"])[tmp_path / "a.wav"]["captions"] == ["one", "two"]


@pytest.mark.parametrize("ending", [".txt", ".caption", ".caption.txt", "_prompt.txt"])
def test_caption_files_of_other_programs(tmp_path, ending):
    (tmp_path / f"song{ending}").write_text("calm piano\n")
    (tmp_path / "song_lyrics.txt").write_text("la la la")
    assert read_sidecar(tmp_path / "song.mp3")["captions"] == ["calm piano"]


def test_lyrics_are_no_caption(tmp_path):
    (tmp_path / "song_lyrics.txt").write_text("la la la")
    (tmp_path / "song.txt").write_text("[Verse 1]\nla la la")
    assert read_sidecar(tmp_path / "song.mp3") == describe({})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_captions_in_the_encodings_of_editors(tmp_path, encoding):
    (tmp_path / "song.txt").write_bytes("Küchenlied".encode(encoding))
    (tmp_path / "metadata.csv").write_bytes("file_name,text\nsong.mp3,Küchenlied\n".encode(encoding))
    assert read_sidecar(tmp_path / "song.mp3")["captions"] == ["Küchenlied"]
    assert read_metadata(tmp_path, [tmp_path / "song.mp3"])[tmp_path / "song.mp3"]["captions"] == ["Küchenlied"]


def test_a_caption_in_an_unknown_encoding_is_named(tmp_path):
    (tmp_path / "song.txt").write_bytes("calm".encode("utf-16-le"))
    with pytest.raises(ValueError, match="song.txt: it holds zero bytes.* save it as UTF-8"):
        read_sidecar(tmp_path / "song.mp3")
    (tmp_path / "song.txt").write_bytes(b"\x81\xff")
    with pytest.raises(ValueError, match="song.txt: it is neither UTF-8 nor UTF-16 nor Latin-1; save it as UTF-8"):
        read_sidecar(tmp_path / "song.mp3")


@pytest.mark.parametrize(
    "genre, style",
    [("(52)Electronic", "Electronic"), ("(17)", "Rock"), ("17", "Rock"), ("(4)(20)New Beat", "New Beat")]
    + [
        ("80s", "80s"),
        ("(255)", None),
        ("Other", None),
        ("(12)", None),
        ("unknown", None),
        ("Jazz (live)", "Jazz (live)"),
    ],
)
def test_genres_of_id3_tags(genre, style):
    assert describe({"genre": genre})["style"] == style


def test_facts_by_the_names_of_ace_step():
    row = describe({"caption": "a song", "bpm": "N/A", "keyscale": "C major", "timesignature": "6", "language": "en"})
    assert row == describe({"captions": ["a song"], "key": "C major", "meter": "6/8"})
    assert describe({"BPM": "120 bpm", "Time Signature": "4"}) == describe({"bpm": 120, "meter": "4/4"})
