"""`melody plan` on files that `melody generate` wrote, with the shipped model and a tiny one."""

import json
import re

import numpy as np
import pytest
import soundfile

from melody_diffusers import cli
from melody_diffusers.plans import MusicPlan

SHIPPED = ["a slow solo piano piece", "--duration", 2.5, "--steps", 2, "--seed", 5, "--device", "cpu"]
QUICK = ["a waltz", "--duration", 1, "--steps", 1, "--seed", 5, "--device", "cpu"]


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def samples(path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


def test_the_shipped_model_renders_each_of_its_files_again(tmp_path, capsys):
    for suffix in ("wav", "flac", "ogg"):
        assert run("generate", *SHIPPED, "-o", tmp_path / f"song.{suffix}") == 0
    fresh = samples(tmp_path / "song.wav")
    for suffix in ("wav", "flac", "ogg"):
        assert run("plan", "render", tmp_path / f"song.{suffix}", "--device", "cpu", "-o", tmp_path / "again.wav") == 0
        assert np.array_equal(samples(tmp_path / "again.wav"), fresh)
        assert MusicPlan.load(tmp_path / "again.wav") == MusicPlan.load(tmp_path / f"song.{suffix}")
    assert run("plan", "render", tmp_path / "song.wav", "--device", "cpu", "-o", tmp_path / "again.ogg") == 0
    assert np.array_equal(samples(tmp_path / "again.ogg"), samples(tmp_path / "song.ogg"))
    capsys.readouterr()
    assert run("plan", "show", tmp_path / "song.ogg", "--tokens") == 0
    printed = capsys.readouterr().out
    for line in ("prompt +a slow solo piano piece", "seconds +2.5", "seed +5", "num_inference_steps +2"):
        assert re.search(f"^  {line}$", printed, re.MULTILINE), printed
    assert printed.splitlines()[-1].count(" ") == 12  # 63 tokens of a chunk, 25 a line


@pytest.fixture
def song(tiny_folder, tmp_path):
    assert run("generate", *QUICK, "--model", tiny_folder, "-o", tmp_path / "song.wav") == 0
    return tmp_path / "song.wav"


def test_edits_are_made_in_their_order_and_rendered(song, tiny_folder, tmp_path, capsys):
    out, plan = tmp_path / "edited.melody", MusicPlan.load(song)
    edits = ["--repeat", 0, "0:01", 2, "--cut", 1.2, 2, "--keep", "40ms", 1.2, "--splice", 0.4, song]
    assert run("plan", "edit", song, *edits, "-o", out) == 0
    assert "wrote" in capsys.readouterr().out
    tokens = (2 * plan.tokens[:25])[:30][1:30]
    assert MusicPlan.load(out).tokens == tokens[:10] + plan.tokens[:25] + tokens[10:]
    flags = [
        "--model",
        tiny_folder,
        "--device",
        "cpu",
        "--steps",
        2,
        "--guidance",
        1.5,
        "--seed",
        9,
        "--dtype",
        "float32",
    ]
    for name in ("first", "second"):
        png = tmp_path / f"{name}.png"
        assert run("plan", "render", out, *flags, "--spectrogram", png, "-o", tmp_path / f"{name}.flac") == 0
        assert png.is_file()
    assert np.array_equal(samples(tmp_path / "first.flac"), samples(tmp_path / "second.flac"))
    made = MusicPlan.load(tmp_path / "first.flac")
    assert (made.seed, made.drawn_tokens, made.rendering["num_inference_steps"]) == (9, 0, 2)
    assert len(samples(tmp_path / "first.flac")) == 54 * 960


def test_a_plan_is_taken_out_and_never_overwritten_unasked(song, tiny_folder, tmp_path, capsys):
    out = tmp_path / "song.melody"
    assert run("plan", "edit", song, "-o", out) == 0
    before = out.read_bytes()
    assert run("plan", "edit", song, "--cut", 0, 0.5, "-o", out) == 2
    assert "is there already; choose another name, or --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert run("plan", "edit", song, "--cut", 0, 0.5, "-o", out, "--overwrite") == 0
    sound = song.read_bytes()
    assert run("plan", "render", song, "--model", tiny_folder, "-o", song) == 2
    assert song.read_bytes() == sound


def test_without_a_plan_there_is_none(tiny_folder, tmp_path, capsys):
    assert run("generate", *QUICK, "--no-plan", "--model", tiny_folder, "-o", tmp_path / "a.wav") == 0
    capsys.readouterr()
    for command in (["show"], ["edit", "-o", tmp_path / "b.melody"], ["render", "-o", tmp_path / "b.wav"]):
        assert run("plan", *command, tmp_path / "a.wav") == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and "Its comment holds no plan" in captured.err


def test_another_model_is_told_of(song, tiny_folder, tmp_path, monkeypatch):
    from melody_diffusers.pipelines import plan as module

    lines: list[str] = []
    monkeypatch.setattr(module.logger, "warning", lines.append)
    assert run("plan", "edit", song, "-o", tmp_path / "a.melody") == 0
    text = (tmp_path / "a.melody").read_text()
    digest = json.loads(text)["digest"]
    (tmp_path / "a.melody").write_text(text.replace(digest, "0" * 16))
    flags = ["--model", tiny_folder, "--device", "cpu"]
    assert run("plan", "render", tmp_path / "a.melody", *flags, "-o", tmp_path / "a.wav") == 0
    assert len(lines) == 1 and "0000000000000000" in lines[0] and digest in lines[0]
    assert np.array_equal(samples(tmp_path / "a.wav"), samples(song))
    assert MusicPlan.load(tmp_path / "a.wav").digest == digest  # what rendered it


MISTAKES = {
    "no file": (["show", "none.wav"], "There is no file 'none.wav' to read a plan from"),
    "no sound": (["show", "page.wav"], "It is no plan, and no sound file that can be read"),
    "no JSON": (["show", "a.melody"], "must be JSON text"),
    "a time": (["edit", "b.melody", "--cut", "x", "1", "-o", "c.melody"], "argument --cut: must be a time"),
    "times": (["edit", "b.melody", "--repeat", "0", "1", "0", "-o", "c.melody"], "must be a whole number from 1"),
    "past the end": (["edit", "b.melody", "--cut", "0", "9", "-o", "c.melody"], "from 0 to 2 s, within the plan"),
    "a sound": (["edit", "b.melody", "-o", "c.wav"], "A plan is saved as .melody; got 'c.wav'. For sound, render it."),
    "a plan": (["render", "b.melody", "-o", "c.melody"], "-o must end in .wav, .flac"),
    "no data": (["audit", "b.melody", "--data", "nowhere"], "There is no encoded split 'train' in nowhere"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_in_one_line(case, tmp_path, monkeypatch, capsys):
    arguments, said = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.wav").write_bytes(b"<html>404</html>")
    (tmp_path / "a.melody").write_text("tokens: 1, 2")
    MusicPlan(tokens=(1,) * 50, seconds=2.0, codebook_size=32).save("b.melody")
    assert run("plan", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and said in captured.err and captured.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.melody", "b.melody", "page.wav"]


def test_audit_finds_what_was_copied(tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    random = np.random.default_rng(0)
    clips = [random.integers(0, 32, 200).tolist() for _ in range(3)]
    datasets.Dataset.from_dict({"semantic_tokens": clips}).save_to_disk(tmp_path / "data" / "train")
    tokens = (*random.integers(0, 32, 25).tolist(), *clips[1][50:90])
    MusicPlan(tokens=tokens, seconds=65 / 25, codebook_size=32).save(tmp_path / "a.melody")
    assert run("plan", "audit", tmp_path / "a.melody", "--data", tmp_path / "data", "--split", "train") == 0
    printed = capsys.readouterr().out
    assert "3, of 600 tokens" in printed and re.search(r"longest common run +4\d tokens, 1.6", printed)
    assert "in plan 1 at 2 s" in printed and re.search(r"by chance +\de-\d+", printed)
