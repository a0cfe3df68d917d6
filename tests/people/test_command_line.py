"""The `melody` command as people type it, on places and files as they have them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melody_diffusers import cli
from melody_diffusers.audio import load_audio, save_audio
from melody_diffusers.cli.parser import _seconds

RATE = 24000
QUICK = ["--duration", 1, "--steps", 1, "--device", "cpu"]


@pytest.fixture
def melody(tiny_folder, tmp_path, monkeypatch, capfd):
    """Runs the command in an empty folder; gives the exit code, stdout and stderr without progress."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        flags = ["--model", tiny_folder] if arguments[0] in ("generate", "inpaint") else []
        code = cli.main([str(argument) for argument in (*arguments, *flags)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def tone(path, rate=44100, channels=2):
    sine = 0.3 * np.sin(2 * np.pi * 220 * np.arange(2 * rate) / rate)
    soundfile.write(path, np.stack([sine] * channels, 1), rate)
    return path.read_bytes()


def test_the_prompt_needs_no_quotes(melody, tmp_path):
    assert melody("generate", "a", "slow", "waltz", *QUICK, "--seed", 1, "-o", "a.flac")[0] == 0
    assert melody("generate", "a slow waltz", *QUICK, "--seed", 1, "-o", "b.flac")[0] == 0
    assert torch.equal(load_audio("a.flac"), load_audio("b.flac"))
    assert soundfile.SoundFile("a.flac").comment.splitlines()[0] == "melody-diffusers seed 1: a slow waltz"


def test_the_prompt_may_lie_in_a_file(melody, tmp_path):
    (tmp_path / "prompt.txt").write_text("a slow\nwaltz\n", encoding="utf-8-sig")
    assert melody("generate", "@prompt.txt", *QUICK, "-o", "a.flac")[0] == 0
    assert soundfile.SoundFile("a.flac").comment.splitlines()[0].endswith(": a slow waltz")
    code, _, err = melody("generate", "@nowhere.txt", *QUICK, "-o", "b.flac")
    assert code == 2 and "There is no file 'nowhere.txt'" in err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("0:30", 30), ("1:02:03.5", 3723.5), ("2m", 120), ("1m30s", 90), ("500ms", 0.5)],
)
def test_times_as_people_write_them(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "long", "30x", "-3", "nan", "inf", "1:2:3:4", "s"])
def test_what_is_no_time_is_refused_with_examples(melody, text):
    code, _, err = melody("generate", "a", f"--duration={text}", "-o", "a.wav")
    assert code == 2 and "--duration: must be a time, as 30, 30s, 1:30 or 2m" in err


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1])
def test_seeds_of_64_bits(melody, seed):
    assert melody("generate", "a", *QUICK, "--seed", seed, "-o", "a.wav")[0] == 0


def test_a_seed_of_minus_one_is_any_seed(melody):
    seeds = [re.match(r"seed (\d+)\n", melody("generate", "a", *QUICK, "--seed", -1, "-o", "a.wav")[2]) for _ in "ab"]
    assert seeds[0][1] != seeds[1][1]


def test_several_pieces_are_those_that_their_seeds_make_alone(melody, tmp_path):
    code, out, _ = melody("generate", "a waltz", *QUICK, "--count", 3, "--seed", 5, "-o", "a.flac")
    assert code == 0 and "seed              5, 6, 7" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.flac", "a-2.flac", "a-3.flac"]
    assert melody("generate", "a waltz", *QUICK, "--seed", 6, "-o", "alone.flac")[0] == 0
    assert torch.allclose(load_audio("a-2.flac"), load_audio("alone.flac"), atol=2e-4)


def test_a_file_of_prompts_makes_a_piece_of_each(melody, tmp_path):
    lines = ["# my list", "", *(f"piece {i}" for i in range(10))]  # more than one batch
    (tmp_path / "list.txt").write_text("\n".join(lines))
    assert melody("generate", "--prompts", "list.txt", *QUICK, "-o", "out.wav")[0] == 0
    comments = [soundfile.SoundFile(f"out-{i:02d}.wav").comment.splitlines()[0] for i in range(1, 11)]
    assert [comment.rpartition(": ")[2] for comment in comments] == lines[2:]


@pytest.mark.parametrize("suffix", [".ogg", ".mp3", ".opus"])
def test_music_is_written_in_formats_to_send_around(melody, suffix):
    assert melody("generate", "a", *QUICK, "-o", f"a{suffix}")[0] == 0
    assert load_audio(f"a{suffix}").shape[1] == pytest.approx(RATE, abs=1500)


def command(tiny_folder, *arguments, **options):
    words = [sys.executable, "-m", "melody_diffusers.cli", *map(str, arguments), "--model", tiny_folder]
    return subprocess.run(words, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)


def test_a_dash_sends_wav_down_a_pipe_and_nothing_else(tiny_folder):
    run = command(tiny_folder, "generate", "a", *QUICK, "-o", "-")
    assert run.returncode == 0 and load_audio(run.stdout).shape == (1, RATE)
    assert b"real-time factor" in run.stderr


def test_nobody_reading_the_summary_is_no_failure(tiny_folder, tmp_path):
    words = [sys.executable, "-m", "melody_diffusers.cli", "generate", "a", *map(str, QUICK), "--model", tiny_folder]
    reader, writer = os.pipe()
    os.close(reader)  # as `| head -0` leaves it
    run = subprocess.run([*words, "-o", tmp_path / "a.wav"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert run.returncode == 0 and b"Traceback" not in run.stderr and b"Exception" not in run.stderr
    assert load_audio(tmp_path / "a.wav").shape == (1, RATE)


def test_a_place_that_cannot_be_written_is_told_before_the_model_is_loaded(melody, monkeypatch):
    from melody_diffusers.cli import music

    monkeypatch.setattr(music, "load_pipeline", lambda *_: pytest.fail("it was loaded"))
    code, _, err = melody("generate", "a", "-o", "/proc/a.wav")
    assert code == 2 and err.splitlines()[-1].startswith("melody: error: -o '/proc/a.wav' cannot be written")
    os.mkdir("songs.wav")
    assert "is a folder; name a file in it" in melody("generate", "a", "-o", "songs.wav")[2]


def test_the_seed_is_told_before_anything_can_fail(melody, monkeypatch):
    from melody_diffusers.cli import music

    def fail(*_):
        raise FloatingPointError("The decoder produced NaN or infinity.")

    monkeypatch.setattr(music, "load_pipeline", fail)
    code, _, err = melody("generate", "a", "--seed", 9, "-o", "a.wav")
    assert code == 1 and err == "seed 9\nmelody: error: The decoder produced NaN or infinity.\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; shorter music"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory; shorter music"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"), "out of memory; shorter music"),
        (KeyError("x"), "KeyError: 'x' (this should not happen; MELODY_TRACEBACK=1 shows where it did)"),
    ],
)
def test_every_failure_is_one_line(melody, monkeypatch, error, said):
    from melody_diffusers.cli import music

    def fail(*_):
        raise error

    monkeypatch.setattr(music, "load_pipeline", fail)
    code, out, err = melody("generate", "a", "-o", "a.wav")
    assert code == 1 and out == "" and len(err.splitlines()) == 2 and said in err


def test_a_complaint_of_the_pipeline_speaks_of_flags(melody):
    for flags, said in (
        (["--steps", "0"], "--steps must be a whole number from 1 to 1000"),
        (["--top-p", "2"], "--top-p must be a number from 0 to 1"),
        (["--duration", "2:00:00"], "--duration must be a number above 0 and at most 3600"),
    ):
        code, _, err = melody("generate", "a", *flags, "-o", "a.wav")
        assert code == 2 and said in err and "`" not in err.splitlines()[-1]
    soundfile.write("in.wav", np.zeros(RATE), RATE)
    assert "--end must be" in melody("inpaint", "in.wav", "--start", 0.5, "--end", 3, "-o", "a.wav")[2]


def test_the_input_is_never_replaced_unasked(melody, tmp_path):
    before = tone(tmp_path / "song.wav")
    fill = ["inpaint", "song.wav", "--start", 0.5, "--end", 0.75, "--steps", 1]
    code, _, err = melody(*fill, "-o", "song.wav")
    assert code == 2 and "'song.wav' is the recording itself; choose another name, or --overwrite" in err
    os.link("song.wav", "another_name.wav")
    assert melody(*fill, "-o", "another_name.wav")[0] == 2
    assert (tmp_path / "song.wav").read_bytes() == before
    assert melody(*fill, "-o", "song.wav", "--overwrite")[0] == 0
    assert (tmp_path / "song.wav").read_bytes() != before


@pytest.mark.parametrize("flag", ["-o", "--spectrogram"])
def test_what_is_not_ours_is_never_overwritten_unasked(melody, tmp_path, flag):
    name = "mine.wav" if flag == "-o" else "mine.png"
    (tmp_path / name).write_bytes(b"the only copy")
    flags = [flag, name] if flag == "-o" else ["-o", "a.wav", flag, name]
    code, _, err = melody("generate", "a", *QUICK, *flags)
    assert code == 2 and f"'{name}' is there and was not made by melody" in err
    assert (tmp_path / name).read_bytes() == b"the only copy"
    for _ in range(2):  # asked; and then it is ours
        overwrite = ["--overwrite"] if (tmp_path / name).read_bytes() == b"the only copy" else []
        assert melody("generate", "a", *QUICK, *flags, *overwrite)[0] == 0


def test_music_is_rescued_when_its_place_fails_at_the_end(melody, monkeypatch, tmp_path):
    from melody_diffusers import audio

    write = audio.save_audio
    places = []

    def full(path, *arguments, **options):
        places.append(path)
        if len(places) == 1:
            raise OSError("No space left on device")
        write(path, *arguments, **options)

    monkeypatch.setattr(audio, "save_audio", full)
    code, _, err = melody("generate", "a", *QUICK, "-o", "a.wav")
    assert code == 2 and f"the music is in {places[1]}" in err and load_audio(places[1]).shape == (1, RATE)


def test_an_adapter_is_played_with_as_strongly_as_asked(melody, tiny_pipeline, tiny_folder, tmp_path):
    from peft import LoraConfig

    from melody_diffusers import MeLoDyPipeline

    pipe = MeLoDyPipeline.from_pretrained(tiny_folder)
    torch.manual_seed(0)
    pipe.dual_path.add_adapter(LoraConfig(r=4, lora_alpha=1, target_modules=["to_q", "to_v"], init_lora_weights=False))
    pipe.save_lora_weights(tmp_path / "lora")
    made = {}
    for name, flags in {
        "none": [],
        "half": ["--lora", "lora:0.5"],
        "full": ["--lora", "lora"],
        "zero": ["--lora", "lora:0"],
    }.items():
        assert melody("generate", "a", *QUICK, "--seed", 1, *flags, "-o", f"{name}.wav")[0] == 0
        made[name] = load_audio(f"{name}.wav")
    assert torch.equal(made["none"], made["zero"])
    distance = {name: float((made[name] - made["none"]).square().mean()) for name in ("half", "full")}
    assert 0 < distance["half"] < distance["full"]


def test_a_prompt_and_a_list_of_prompts_together_are_refused(melody):
    assert "Give a prompt, or --prompts FILE" in melody("generate", "a", "--prompts", "b.txt", "-o", "a.wav")[2]


def test_a_long_recording_is_refused_as_a_prompt_by_its_header(melody, tmp_path):
    save_audio(tmp_path / "long.flac", np.zeros(3601 * 8000, np.float32), 8000)
    code, _, err = melody("generate", "--audio-prompt", "long.flac", "-o", "a.wav")
    assert code == 2 and "it lasts 3601.0 s; at most 3600 s" in err


def test_an_old_python_is_told_in_one_line(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 18); $2"\n')
    old.chmod(0o755)
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    words = ["make", "-C", root, "music", f"PYTHON={old}", f"VENV={tmp_path}/venv"]
    run = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert run.returncode != 0 and not (tmp_path / "venv").exists()
    assert (
        f"melody-diffusers needs Python 3.10 to 3.14, and {old} is 3.9: make music PYTHON=python3.12, say" in run.stderr
    )


def test_the_package_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "melody_diffusers", "--version"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("melody-diffusers ")
