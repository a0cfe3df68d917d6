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
    for bpm in ("fast", "nan", "inf", "0", None, [], "-3", True):
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


def test_tables(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "metadata.csv").write_text('file_name,text,genre\na.wav,"one, two",jazz\nmore/b.wav,three,\n')
    lines = [{"file_name": "c.wav", "captions": ["four", "five"]}, {"file_name": "d.wav", "bpm": 120}]
    (tmp_path / "more" / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    rows = read_metadata(tmp_path)
    assert list(rows) == ["a.wav", "more/b.wav", "more/c.wav", "more/d.wav"]
    assert rows["a.wav"] == describe({"text": "one, two", "genre": "jazz"})
    assert rows["more/c.wav"]["captions"] == ["four", "five"] and rows["more/d.wav"]["bpm"] == 120
    for name, content in (("csv", "name\na.wav\n"), ("jsonl", "[1]\n"), ("jsonl", '{"file_name": 3}\n'), ("csv", "\0")):
        for old in tmp_path.rglob("metadata.*"):
            old.unlink()
        (tmp_path / f"metadata.{name}").write_text(content)
        if content == "\0":
            assert read_metadata(tmp_path) == {}
            continue
        with pytest.raises(ValueError, match=f"metadata.{name}, after row [01]: .*file_name"):
            read_metadata(tmp_path)
