"""Music as a MIDI file: its notes, its tempo, and that nothing is lost or replaced by it."""

import importlib.util
import shutil

import numpy as np
import pytest
import soundfile
import torch

from melody_diffusers import MusicPlan, cli
from melody_diffusers.audio import save_audio
from melody_diffusers.evaluation.listeners import has_listener
from melody_diffusers.midi import find_tempo, write_midi

needs_extra = pytest.mark.skipif(not has_listener("notes"), reason="needs the extra midi, and basic-pitch")
RATE = 24000
SCALE = [60, 62, 64, 65]


def sines(*pitches: int, seconds: float = 0.5) -> torch.Tensor:
    """One after the other, (T,), each with an attack of 10 ms."""
    time = torch.arange(round(seconds * RATE)) / RATE
    shape = torch.minimum(time / 0.01, (seconds - time) / 0.02).clamp(0, 1)
    return torch.cat([0.3 * shape * torch.sin(2 * torch.pi * 440 * 2 ** ((p - 69) / 12) * time) for p in pitches])


def clicks(bpm: float, seconds: float = 10.0) -> torch.Tensor:
    """(1, T)"""
    waveform = torch.zeros(1, round(seconds * RATE))
    burst = 0.5 * torch.randn(600, generator=torch.Generator().manual_seed(0))
    for start in np.arange(0.0, seconds - 0.1, 60 / bpm):
        waveform[0, round(start * RATE) :][:600] = burst
    return waveform


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


@needs_extra
def test_a_scale_comes_back_as_its_notes_in_a_file_that_a_library_reads(tmp_path):
    mido = pytest.importorskip("mido")
    path = tmp_path / "scale.mid"
    written = write_midi((RATE, sines(*SCALE)), path, bpm=90, beats_per_bar=3)
    file = mido.MidiFile(path)
    ticks, seconds, notes, sounding, settings = file.ticks_per_beat, 0.0, [], {}, {}
    for message in file:  # with times in seconds, by the tempo in the file
        seconds += message.time
        if message.type == "note_on" and message.velocity > 0:
            sounding[message.note] = seconds
        elif message.type in ("note_on", "note_off"):
            notes.append((sounding.pop(message.note), seconds, message.note))
        elif message.is_meta:
            settings[message.type] = message
    assert ticks == 480 and not sounding
    assert settings["set_tempo"].tempo == pytest.approx(60e6 / 90, abs=1)
    assert (settings["time_signature"].numerator, settings["time_signature"].denominator) == (3, 4)
    assert [pitch for _, _, pitch in notes] == SCALE
    np.testing.assert_allclose([start for start, _, _ in notes], [0, 0.5, 1, 1.5], atol=0.05)
    np.testing.assert_allclose(np.array(notes), written.notes[:, :3], atol=2 * 60 / 90 / ticks)
    assert written.bpm == 90 and written.bpm_from == "as given" and notes[-1][1] <= 2.0 + 0.01


@needs_extra
def test_notes_stay_in_place_for_minutes_and_to_both_ends(tmp_path):
    notes = write_midi((RATE, sines(*(SCALE * 60))), tmp_path / "long.mid").notes
    for first in (0, 120, 236):
        starts = 0.5 * np.arange(first, first + 4)
        near = notes[(notes[:, 0] > starts[0] - 0.1) & (notes[:, 0] < starts[0] + 1.9)]
        assert near[:, 2].tolist() == SCALE
        np.testing.assert_allclose(near[:, 0], starts, atol=0.05)


@needs_extra
def test_drums_are_heard_as_few_short_and_weak_notes(tmp_path):
    """They are not told from notes: of forty hits some become short ones."""
    random, time = torch.Generator().manual_seed(0), torch.arange(8000) / RATE
    drums = torch.zeros(10 * RATE)
    for i in range(20):  # half seconds: a snare, and a kick at every other
        drums[i * 12000 :][:8000] += 0.4 * torch.randn(8000, generator=random) * (-time * 30).exp()
        if i % 2 == 0:
            drums[i * 12000 :][:8000] += 0.8 * (-time * 9).exp() * torch.sin(314 * time + 25 * (1 - (-time * 25).exp()))
    notes = write_midi((RATE, drums / drums.abs().max()), tmp_path / "drums.mid").notes
    assert len(notes) < 20
    assert (notes[:, 1] - notes[:, 0] < 0.5).all() and (notes[:, 3] < 0.6).all()


@needs_extra
def test_silence_has_no_notes(tmp_path):
    mido = pytest.importorskip("mido")
    written = write_midi((RATE, torch.zeros(5 * RATE)), tmp_path / "silence.midi")
    assert written.notes.shape == (0, 4) and (written.bpm, written.bpm_from) == (120, "for want of one that is heard")
    assert not [message for message in mido.MidiFile(tmp_path / "silence.midi") if message.type == "note_on"]


TEMPOS = {  # what clicks at 120 bpm are taken for
    "nothing named": (None, 120, "as heard"),
    "the same": ("a waltz, 120 bpm.", 120, "as the prompt names it, and as heard"),
    "half": ("a waltz at 60 beats per minute", 60, "as the prompt names it, and as heard"),
    "nearly": ("119.5BPM techno", 119.5, "as the prompt names it, and as heard"),
    "another": ("a waltz, 97 bpm", 120, "as heard"),
    "two": ('"60 bpm" x 2 + "techno, 130 bpm" x 1', 120, "as heard"),
    "no tempo": ("eighty bpm, 1990s, 3000 bpm, 5 bpm", 120, "as heard"),
}


@pytest.mark.parametrize("case", TEMPOS)
def test_the_tempo_is_the_prompts_where_it_is_heard(case):
    prompt, bpm, said = TEMPOS[case]
    assert find_tempo(clicks(120), prompt) == (bpm, said)


def test_a_tempo_that_is_heard_is_rounded_only_where_it_is_close():
    assert find_tempo(clicks(97))[0] == 97
    assert find_tempo(clicks(97.5))[0] == pytest.approx(97.5, abs=0.25)
    assert find_tempo(torch.zeros(1, 10 * RATE), "97 bpm") == (97, "as the prompt names it; no tempo is heard")


@needs_extra
def test_a_file_that_holds_its_plan_says_its_tempo(tmp_path, capsys):
    plan = MusicPlan(tokens=(1,) * 250, seconds=10.0, codebook_size=32, prompt="a waltz, 60 bpm")
    song, path = tmp_path / "song.ogg", tmp_path / "song.mid"
    save_audio(song, clicks(120), RATE, comment=f"a waltz\n{plan.to_text()}")
    assert run("midi", song, "-o", path) == 0
    assert "60 bpm as the prompt names it, and as heard" in capsys.readouterr().out
    before = path.read_bytes()
    assert before[:4] == b"MThd"
    assert run("midi", song, "--bpm", 99.5, "-o", path) == 2
    assert "is there already; choose another name, or --overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert run("midi", song, "--bpm", 99.5, "--beats-per-bar", 3, "-o", path, "--overwrite") == 0
    assert "99.5 bpm as given" in capsys.readouterr().out and path.read_bytes() != before
    with pytest.raises(FileExistsError, match="choose another name"):
        write_midi(song, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["song.mid", "song.ogg"]


@needs_extra
def test_generate_writes_the_notes_of_what_it_made(tiny_folder, tmp_path, capsys):
    flags = ["--duration", 2, "--steps", 1, "--seed", 5, "--model", tiny_folder, "--device", "cpu"]
    assert run("generate", "a waltz", *flags, "-o", tmp_path / "a.wav", "--midi", tmp_path / "a.mid") == 0
    assert "a.mid: " in capsys.readouterr().out and soundfile.info(tmp_path / "a.wav").frames == 2 * RATE
    assert run("generate", "a waltz", *flags, "-o", tmp_path / "a.wav", "--midi", tmp_path / "a.mid") == 2
    assert run("generate", "a waltz", "--count", 2, *flags, "-o", tmp_path / "b.wav", "--midi", tmp_path / "b.mid") == 2
    errors = capsys.readouterr().err
    assert "is there already" in errors and "--midi writes the notes of one piece of music; this makes 2." in errors
    loop = ["--bars", 1, "--bpm", 120, *flags[2:], "-o", tmp_path / "c.wav", "--midi", tmp_path / "c.mid"]
    assert run("loop", "a waltz", *loop) == 0
    assert "120 bpm as given" in capsys.readouterr().out


MISTAKES = {
    "no sound": (["song.ogg", "-o", "song.mid"], "There is no audio file at song.ogg"),
    "a suffix": (["song.wav", "-o", "song.wav"], "must end in .mid or .midi; got 'song.wav'"),
    "a folder": (["song.wav", "-o", "no/song.mid"], "there is no folder 'no'"),
    "a tempo": (["song.wav", "--bpm", "0", "-o", "song.mid"], "bpm must be a number from 20 to 400, or None; got 0.0"),
    "beats": (["song.wav", "--beats-per-bar", "200", "-o", "song.mid"], "a whole number from 1 to 99; got 200"),
}


@needs_extra
@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_in_one_line_and_leave_nothing(case, tmp_path, monkeypatch, capsys):
    arguments, said = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    save_audio("song.wav", sines(60), RATE)
    assert run("midi", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and said in captured.err and captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


def test_without_the_extra_it_says_how_to_get_it_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for command in (["midi", "song.wav", "-o", tmp_path / "a.mid"], ["generate", "a waltz", "-o", tmp_path / "a.wav"]):
        flags = [] if command[0] == "midi" else ["--midi", tmp_path / "a.mid", "--model", "nowhere"]
        assert run(*command, *flags) == 2
        assert "pip install 'melody-diffusers[midi]' && pip install --no-deps basic-pitch" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@needs_extra
@pytest.mark.parametrize("format", ["mp3", "flac", "opus"])
def test_any_sound_file_will_do(format, tmp_path):
    save_audio(tmp_path / f"scale.{format}", sines(*SCALE), RATE)
    shutil.copy(tmp_path / f"scale.{format}", tmp_path / "unnamed")
    notes = write_midi(tmp_path / "unnamed", tmp_path / "scale.mid").notes
    assert notes[:, 2].tolist() == SCALE
    np.testing.assert_allclose(notes[:, 0], [0, 0.5, 1, 1.5], atol=0.05)
