import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from melody_diffusers import DualPathDiffusionModel, MeLoDyStreamPipeline, StreamState, audio, cli
from melody_diffusers.audio import load_audio
from melody_diffusers.cli import music

RATE = 24000


@pytest.fixture
def song(tmp_path):
    """A second and a half of a 220 Hz tone."""
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * np.arange(36000) / RATE), RATE, subtype="PCM_16")
    return path


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def summary(text: str) -> dict[str, str]:
    """name -> rest, of the indented lines that end a run."""
    return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in text.splitlines() if line.startswith("  "))


def test_generate_with_every_flag_writes_what_it_says(tiny_folder, tmp_path, capsys):
    wav, png = tmp_path / "music.wav", tmp_path / "music.png"
    flags = ["--duration", 1.5, "--steps", 2, "--guidance", 1.5, "--temperature", 0.9, "--top-k", 10, "--top-p", 0.95]
    flags += ["--seed", 7, "--model", tiny_folder, "--device", "cpu", "--spectrogram", png, "-o", wav]
    assert run("generate", "a happy waltz", *flags) == 0
    printed = summary(capsys.readouterr().out)
    samples, rate = soundfile.read(wav)
    assert rate == RATE and samples.shape == (36000,) and np.abs(samples).max() > 0
    assert soundfile.info(wav).subtype == "PCM_16"
    assert printed["audio"] == "1.50 s, 24000 Hz, mono"
    assert printed["seed"] == "7"
    seconds = float(printed["seconds taken"].split()[0])
    factor = float(printed["real-time factor"])
    assert (factor - 0.01) * (seconds - 0.005) < 1.5 < (factor + 0.01) * (seconds + 0.005)  # both are rounded
    assert 0 < float(printed["limiter gain"].split()[0]) <= 1
    assert Image.open(png).size == (150, 384)


def test_the_printed_seed_makes_the_same_file_again(tiny_folder, tmp_path, capsys):
    arguments = ["generate", "a waltz", "--duration", 1, "--steps", 1, "--model", tiny_folder]
    assert run(*arguments, "-o", tmp_path / "first.flac") == 0
    seed = summary(capsys.readouterr().out)["seed"]
    assert run(*arguments, "-o", tmp_path / "again.flac", "--seed", seed) == 0
    assert run(*arguments, "-o", tmp_path / "other.flac", "--seed", int(seed) + 1) == 0
    first, again, other = (soundfile.read(tmp_path / f"{name}.flac")[0] for name in ("first", "again", "other"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_piece_fades_out_unless_asked_not_to(tiny_folder, tmp_path):
    arguments = ["generate", "a waltz", "--duration", 2, "--steps", 1, "--seed", 7, "--model", tiny_folder]
    for name, flags in {"faded": [], "fade": ["--ending", "fade"], "cut": ["--ending", "none", "--fade", 0]}.items():
        assert run(*arguments, *flags, "-o", tmp_path / f"{name}.wav") == 0
    faded, fade, cut = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("faded", "fade", "cut"))
    assert np.array_equal(faded, fade) and np.array_equal(faded[480:-12000], cut[480:-12000])
    assert np.abs(faded[-480:]).max() < 0.02 * np.abs(cut[-480:]).max()


def test_loop_with_every_flag_writes_what_it_says_and_its_plan_gives_it_again(tiny_folder, tmp_path, capsys):
    out, png, again = tmp_path / "loop.wav", tmp_path / "loop.png", tmp_path / "again.wav"
    flags = ["--bars", 1, "--bpm", 95, "--beats-per-bar", 3, "--steps", 2, "--guidance", 1.5, "--temperature", 0.9]
    flags += ["--top-k", 10, "--top-p", 0.95, "--seed", 7, "--lm-guidance", 2, "--negative-prompt", "techno"]
    flags += ["--model", tiny_folder, "--device", "cpu", "--spectrogram", png, "--overwrite", "-o", out]
    assert run("loop", "a happy waltz", *flags) == 0
    printed = summary(capsys.readouterr().out)
    samples, rate = soundfile.read(out, dtype="int16")
    assert rate == RATE and len(samples) == round(3 * 60 / 95 * RATE) and png.is_file()
    assert printed["audio"] == "1.89 s, 24000 Hz, mono" and printed["seed"] == "7"
    assert soundfile.SoundFile(out).comment.splitlines()[0].endswith("seed 7: a happy waltz")
    assert run("plan", "render", out, "--model", tiny_folder, "--device", "cpu", "-o", again) == 0
    assert np.array_equal(soundfile.read(again, dtype="int16")[0], samples)

    short = ["--duration", "1.5s", "--steps", 1, "--count", 2, "--no-plan", "--model", tiny_folder, "-o", out]
    assert run("loop", "a waltz", *short) == 0
    assert [soundfile.info(tmp_path / f"loop-{number}.wav").frames for number in (1, 2)] == [36000, 36000]


def test_generate_from_a_clip(tiny_folder, tmp_path, song):
    out = tmp_path / "like.wav"
    flags = ["--duration", 1, "--steps", 1, "--model", tiny_folder, "-o", out]
    assert run("generate", "--audio-prompt", song, *flags) == 0
    assert soundfile.info(out).frames == RATE


def test_a_clip_and_a_text_mix_and_a_negative_prompt_leads_away(tiny_folder, tmp_path, song):
    out = tmp_path / "mixed.wav"
    flags = ["--audio-prompt", song, "--audio-weight", 0.3, "--negative-prompt", "rock", "--lm-guidance", 2]
    assert run("generate", "a waltz", *flags, "--duration", 1, "--steps", 1, "--model", tiny_folder, "-o", out) == 0
    assert soundfile.info(out).frames == RATE


STREAM = ["--steps", 1, "--seed", 3, "--fade", 0]


def test_stream_with_every_flag_writes_what_it_says(tiny_folder, tmp_path, song, capsys):
    out = tmp_path / "evening.wav"
    flags = ["--duration", "5s", "--steps", 2, "--guidance", 1.5, "--temperature", 0.9, "--top-k", 10, "--top-p", 0.95]
    flags += ["--then", "0:20", "rock", "--crossfade", 4, "--audio-prompt", song, "--audio-weight", 0.3, "--seed", 7]
    flags += ["--lm-guidance", 2, "--negative-prompt", "techno", "--model", tiny_folder, "--device", "cpu", "-o", out]
    assert run("stream", "a happy waltz", *flags) == 0
    printed = summary(capsys.readouterr().out)
    samples, rate = soundfile.read(out)
    assert (rate, samples.shape) == (RATE, (5 * RATE,))
    assert soundfile.SoundFile(out).comment.endswith("seed 7: a happy waltz")
    assert samples[0] == 0 and abs(samples[-1]) < abs(samples).max() / 100  # faded
    assert printed["audio"] == "5.00 s, 24000 Hz, mono" and printed["seed"] == "7"
    assert [path.name for path in tmp_path.iterdir() if path != song] == ["evening.wav"]


def test_a_stream_to_a_pipe_is_a_wav_or_raw_samples(tiny_folder, tmp_path, capsysbinary):
    arguments = ["stream", "a waltz", "--duration", 3, *STREAM, "--model", tiny_folder]
    assert run(*arguments, "-o", tmp_path / "a.wav") == 0
    capsysbinary.readouterr()
    assert run(*arguments, "-o", "-") == 0
    piped = capsysbinary.readouterr().out
    assert run(*arguments, "-o", "-", "--raw") == 0
    raw = capsysbinary.readouterr().out
    expected = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    assert np.array_equal(np.frombuffer(raw, "<i2"), expected)
    (tmp_path / "piped.wav").write_bytes(piped)
    assert np.array_equal(soundfile.read(tmp_path / "piped.wav", dtype="int16")[0], expected)


@pytest.mark.parametrize("name", ["a.wav", "-"])
def test_ctrl_c_keeps_what_was_streamed_by_then(name, tiny_folder, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    following, asked = MeLoDyStreamPipeline._next_chunk, []

    def interrupted(*arguments):
        asked.append(arguments)
        if len(asked) > 2:
            raise KeyboardInterrupt
        return following(*arguments)

    monkeypatch.setattr(MeLoDyStreamPipeline, "_next_chunk", interrupted)
    assert run("stream", "a waltz", *STREAM, "--model", tiny_folder, "-o", name) == 0
    out, err = capsysbinary.readouterr()
    assert b"stopped" in (err if name == "-" else out)
    if name == "-":  # a header that leaves the end open
        (tmp_path / "a.wav").write_bytes(out)
    samples = load_audio(tmp_path / "a.wav")
    assert samples.shape[1] / RATE == pytest.approx(2 * 2.48, abs=0.2)
    asked[:] = [None] * 3
    assert run("stream", "a waltz", *STREAM, "--model", tiny_folder, "-o", tmp_path / "none.wav") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.fixture
def long_stream(tiny_folder, tmp_path):
    """What a stream of 12 s is, that nothing stops; and its command, without what it writes."""
    command = ["stream", "a waltz", "--then", 6, "rock", *STREAM, "--model", tiny_folder]
    assert run(*command, "--duration", 12, "-o", tmp_path / "whole.wav") == 0
    return soundfile.read(tmp_path / "whole.wav", dtype="int16")[0], command


def test_a_stream_that_was_stopped_goes_on_to_the_bit(long_stream, tiny_folder, tmp_path, capsys):
    whole, command = long_stream
    state, first, second = tmp_path / "evening.safetensors", tmp_path / "first.wav", tmp_path / "second.flac"
    command = [*command, "--fade", 1]  # which only the very beginning has
    assert run(*command, "--duration", 4, "--save-state", state, "-o", first) == 0
    assert f"wrote {first} and {state}" in capsys.readouterr().out
    go_on = ["stream", "--state", state, "--model", tiny_folder]
    assert run(*go_on, "--duration", 4, "--fade", 0, "-o", second) == 0
    assert "seed" not in capsys.readouterr().out
    assert soundfile.SoundFile(second).comment.endswith("from evening.safetensors")
    one, two = (soundfile.read(path, dtype="int16")[0] for path in (first, second))
    assert len(one) / RATE == pytest.approx(2 * 2.48, abs=0.2) and len(two) == 4 * RATE  # the last chunk is whole
    assert np.array_equal(np.concatenate([one, two])[RATE:], whole[RATE : len(one) + len(two)])
    kept = state.read_bytes()
    changed = tmp_path / "changed.wav"
    assert run(*go_on, "techno", "--then", "0:20", "rock", "--crossfade", 0, "--duration", 8, "-o", changed) == 0
    assert state.read_bytes() == kept and soundfile.SoundFile(changed).comment.endswith("evening.safetensors: techno")
    assert run(*go_on, "--then", 15, "rock", "--duration", 1, "--save-state", state, "--overwrite", "-o", changed) == 0
    assert state.read_bytes() != kept


@pytest.mark.parametrize("name", ["a.wav", "-"])
def test_ctrl_c_ends_a_stream_within_one_pass_and_it_goes_on_to_the_bit(
    name, long_stream, tiny_folder, tmp_path, monkeypatch, capsysbinary
):
    monkeypatch.chdir(tmp_path)
    (whole, command), state, passes = long_stream, tmp_path / "state.safetensors", []

    def pressed(*_):
        passes.append(None)
        if len(passes) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        forward = DualPathDiffusionModel.forward
        patch.setattr(DualPathDiffusionModel, "forward", lambda *a, **k: (pressed(), forward(*a, **k))[1])
        assert run(*command, "--save-state", state, "-o", name) == 0
    assert len(passes) == 4
    out, _ = capsysbinary.readouterr()
    if name == "-":
        (tmp_path / "a.wav").write_bytes(out)
    one = np.round(load_audio(tmp_path / "a.wav")[0].numpy() * 32768).astype(int)
    assert len(one) > 0
    assert run("stream", "--state", state, "--duration", 2, "--fade", 0, "--model", tiny_folder, "-o", "b.wav") == 0
    two = soundfile.read(tmp_path / "b.wav", dtype="int16")[0]
    assert np.array_equal(np.concatenate([one, two]), whole[: len(one) + len(two)])


def test_ctrl_c_while_sound_is_written_waits_until_it_is(tiny_folder, tmp_path, monkeypatch):
    fade, faded = audio.fade_, []

    def pressed(*arguments):
        faded.append(arguments)
        if len(faded) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return fade(*arguments)

    monkeypatch.setattr(audio, "fade_", pressed)
    sound, state = tmp_path / "a.wav", tmp_path / "state.safetensors"
    assert run("stream", "a waltz", *STREAM, "--save-state", state, "--model", tiny_folder, "-o", sound) == 0
    assert StreamState.load(state).num_samples == soundfile.info(sound).frames > 0


def test_no_state_is_written_over_unasked_nor_where_nothing_was_made(tiny_folder, tmp_path, monkeypatch, capsys):
    state, other = tmp_path / "state.safetensors", ["--model", tiny_folder, "-o", tmp_path / "a.wav"]
    state.write_bytes(b"mine")
    check_mistake(capsys, ["stream", "a waltz", "--save-state", state, *other], "is there already; choose another name")
    check_mistake(capsys, ["stream", "--state", state, *other], "is no stream that `StreamState.save` wrote")
    assert state.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [state]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MeLoDyStreamPipeline, "_next_chunk", interrupted)
    assert run("stream", "a waltz", "--save-state", state, "--overwrite", *other) == 130
    assert state.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [state]


def test_inpaint_with_every_flag_changes_the_region_alone(tiny_folder, tmp_path, song, capsys):
    out, png = tmp_path / "filled.wav", tmp_path / "filled.png"
    flags = ["--start", 0.5, "--end", 0.75, "--extend", 1, "--prompt", "a waltz", "--steps", 1, "--guidance", 1]
    flags += ["--temperature", 1.1, "--top-k", 5, "--top-p", 0.9, "--seed", 3, "--model", tiny_folder]
    assert run("inpaint", song, *flags, "--device", "cpu", "--spectrogram", png, "-o", out) == 0
    before, after = soundfile.read(song, dtype="int16")[0], soundfile.read(out, dtype="int16")[0]
    assert len(after) == 36000 + RATE and png.is_file()
    outside = np.r_[0:12000, 18000:36000]
    assert np.array_equal(after[outside], before[outside])
    assert (after[12000:18000] != before[12000:18000]).mean() > 0.9
    assert summary(capsys.readouterr().out)["audio"] == "2.50 s, 24000 Hz, mono"


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate", "channels", "said"),
    [
        (".wav", "PCM_16", 44100, 2, "44100 Hz, stereo"),
        (".flac", "PCM_24", 48000, 2, "48000 Hz, stereo"),
        (".wav", "FLOAT", 24000, 1, "24000 Hz, mono"),
    ],
)
def test_a_filled_file_is_the_file_itself_outside(suffix, subtype, rate, channels, said, tiny_folder, tmp_path, capsys):
    song, out = tmp_path / f"song{suffix}", tmp_path / f"filled{suffix}"
    soundfile.write(song, np.random.default_rng(0).uniform(-1, 1, (2 * rate, channels)), rate, subtype=subtype)
    fill = ["--start", 0.5, "--end", 0.75, "--before", 0.25, "--after", 0.5, "--steps", 1, "--model", tiny_folder]
    assert run("inpaint", song, *fill, "-o", out) == 0
    assert soundfile.info(out).subtype == subtype and soundfile.info(out).samplerate == rate
    before, after = (soundfile.read(path, dtype="float64", always_2d=True)[0] for path in (song, out))
    assert after.shape == (round(2.75 * rate), channels)
    kept, outside = after[rate // 4 : rate // 4 + 2 * rate], np.r_[0 : rate // 2, 3 * rate // 4 : 2 * rate]
    assert np.array_equal(kept[outside], before[outside])
    assert (kept[rate // 2 : 3 * rate // 4] != before[rate // 2 : 3 * rate // 4]).mean() > 0.9
    assert summary(capsys.readouterr().out)["audio"] == f"2.75 s, {said}"


def test_continue_goes_on_after_a_recording_or_leads_into_it(tiny_folder, tmp_path, song, capsysbinary):
    flags, before = ["--steps", 1, "--model", tiny_folder], soundfile.read(song, dtype="int16")[0]
    assert run("continue", song, *flags, "-o", tmp_path / "after.wav") == 0
    after = soundfile.read(tmp_path / "after.wav", dtype="int16")[0]
    assert len(after) == 36000 + 10 * RATE and np.array_equal(after[:36000], before)
    capsysbinary.readouterr()
    assert run("continue", song, "--before", "1s", *flags, "-o", "-") == 0
    (tmp_path / "led.wav").write_bytes(capsysbinary.readouterr().out)
    led = soundfile.read(tmp_path / "led.wav", dtype="int16")[0]
    assert len(led) == RATE + 36000 and np.array_equal(led[RATE:], before) and led[:RATE].any()


def test_a_format_that_cannot_hold_the_recording_is_refused_before_the_work(tiny_folder, tmp_path, capsys):
    soundfile.write(tmp_path / "in.wav", np.zeros((44100, 2)), 44100)
    arguments = ["continue", tmp_path / "in.wav", "--model", tiny_folder, "-o", tmp_path / "out.opus"]
    check_mistake(capsys, arguments, ".opus does not hold 44100 Hz and 2 channels; write .wav or .flac")


def test_a_piece_is_varied_by_the_plan_that_it_holds(tiny_folder, tmp_path, capsys):
    first, other = tmp_path / "first.wav", tmp_path / "other.wav"
    common = ["--model", tiny_folder, "--steps", 2, "--seed", 1]
    assert run("generate", "a waltz", "--duration", 1, *common, "-o", first) == 0
    flags = ["--strength", 0.3, "--plan-strength", 0]
    assert run("vary", first, *flags, *common, "-o", other) == 0
    assert soundfile.info(other).frames == RATE
    with soundfile.SoundFile(other) as file:
        assert "first.wav by 0.3 and its plan by 0" in file.comment
    assert run("vary", first, *flags, *common, "-o", first) == 2
    assert "is the recording itself" in capsys.readouterr().err


def test_benchmark_with_every_flag_prints_each_stage(tiny_folder, capsys):
    flags = [
        "--duration",
        1,
        "--runs",
        1,
        "--steps",
        1,
        "--guidance",
        1,
        "--model",
        tiny_folder,
        "--device",
        "cpu",
        "--dtype",
        "bfloat16",
    ]
    assert run("benchmark", *flags) == 0
    printed = summary(capsys.readouterr().out)
    stages = [float(printed[name]) for name in printed if re.match("encode|generate|denoise|decode", name)]
    assert len(stages) == 4 and 0 < sum(stages) <= float(printed["seconds"]) + 0.05
    assert printed["language model calls"] == "63"  # of one chunk
    assert printed["diffusion model calls"] == "1"
    assert float(printed["real-time factor"]) > 0 and float(printed["megabytes of weights"]) > 0


MISTAKES = {
    "no command": ([], "required: command"),
    "unknown command": (["compose"], "invalid choice: 'compose'"),
    "unknown flag": (["generate", "a waltz", "-o", "a.wav", "--loud"], "unrecognized arguments: --loud"),
    "no output": (["generate", "a waltz"], "required: -o/--output"),
    "format": (
        ["generate", "a waltz", "-o", "a.m4a"],
        "must end in .wav, .flac, .ogg, .opus, .mp3, or be -; got 'a.m4a'",
    ),
    "folder": (["generate", "a waltz", "-o", "nowhere/a.wav"], "there is no folder 'nowhere'"),
    "model": (["generate", "a waltz", "-o", "a.wav", "--model", "nope"], "'nope' is neither a folder"),
    "empty folder": (["generate", "a waltz", "-o", "a.wav", "--model", "."], "'.' is neither a folder"),
    "seed": (["generate", "a waltz", "-o", "a.wav", "--seed", "-2"], "--seed: must be a whole number from 0"),
    "number": (
        ["generate", "a waltz", "-o", "a.wav", "--duration", "long"],
        "--duration: must be a time, as 30, 30s, 1:30 or 2m; got 'long'",
    ),
    "raw file": (["stream", "a waltz", "--raw", "-o", "a.wav"], "--raw is for -o -"),
    "nothing before": (["stream", "--audio-prompt", "a.wav", "--then", "3", "rock", "-o", "b.wav"], "--then needs a"),
    "no such state": (["stream", "--state", "no.safetensors", "-o", "a.wav"], "there is no such file; `melody stream"),
    "seed of a state": (["stream", "--state", "b", "--seed", "3", "-o", "a.wav"], "--seed must be left out with"),
    "state's name": (["stream", "a", "--save-state", "a.wav", "-o", "a.wav"], "--save-state must end in .safetensors"),
    "state's folder": (["stream", "a", "--save-state", "b/a.safetensors", "-o", "a.wav"], "there is no folder 'b'"),
    "then when": (["stream", "a waltz", "--then", "soon", "rock", "-o", "a.wav"], "must be a time"),
    "half a region": (["inpaint", "a.wav", "--start", "1", "-o", "b.wav"], "--start and --end belong together"),
    "no data command": (["data"], "required: command"),
    "no data": (["data", "encode", "--data", "nowhere", "--out", "out"], "--data 'nowhere' is no folder"),
    "no source": (["data", "build", "--out", "out"], "required: source"),
    "limits": (["data", "build", ".", "--out", "out", "--min-seconds", "0"], "Need 0 < min_seconds <= clip_seconds"),
    "no runs": (["benchmark", "--runs", "0"], "--runs: must be a whole number from 1"),
}
MISTAKES_OF_THE_PIPELINE = {
    "device": (["generate", "a waltz", "--device", "abacus"], "--device 'abacus' is not available"),
    "no prompt": (["generate"], "Give a prompt, or --prompts FILE, or --audio-prompt FILE"),
    "empty prompt": (["generate", " "], "prompt 1 must not be empty"),
    "duration": (["generate", "a waltz", "--duration", "0"], "--duration must be a number above 0"),
    "bars alone": (["loop", "a waltz", "--bars", "4"], "--bpm must be given with --bars"),
    "two lengths": (
        ["loop", "a", "--bars", "4", "--bpm", "120", "--duration", "4"],
        "--duration must be left out where --bars and --bpm say it",
    ),
    "long loop": (["loop", "a waltz", "--duration", "10m"], "--duration must be a number from 1 to 300"),
    "steps": (["generate", "a waltz", "--steps", "0"], "--steps must be a whole number"),
    "weight": (["generate", "a", "--audio-weight", "0.5"], "--audio-weight must be left out unless a text, the prompt"),
    "negative": (["generate", "a", "--negative-prompt", "b"], "Give --lm-guidance a value above 1"),
    "no stream": (["stream"], "Give a prompt"),
    "crossfade": (["stream", "a waltz", "--crossfade", "2h"], "--crossfade must be a number from 0 to 3600"),
    "no clip": (["generate", "--audio-prompt", "none.wav"], "no audio file at none.wav"),
    "no recording": (["inpaint", "none.wav", "--extend", "1"], "no audio file at none.wav"),
    "no piece": (["vary", "none.wav"], "no audio file at none.wav"),
    "too long": (["continue", __file__, "--before", "2h"], "--before must be a number from 0 to 3600"),
    "no sound": (["continue", __file__], "the recording must be an audio file that can be read"),
}


def check_mistake(capsys, arguments: list, message: str) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("melody")]
    assert len(errors) == 1 and message in errors[0], captured.err
    assert "Traceback" not in captured.err and captured.out == ""


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_one_line_and_exit_code_2(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_mistake(capsys, *MISTAKES[name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MISTAKES_OF_THE_PIPELINE)
def test_the_pipelines_complaints_reach_the_user_in_one_line(name, tiny_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES_OF_THE_PIPELINE[name]
    check_mistake(capsys, [*arguments, "--model", tiny_folder, "-o", "out.wav"], message)
    assert list(tmp_path.iterdir()) == []


def test_interruption_ends_in_one_line(monkeypatch, capsys, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(music, "load_pipeline", interrupted)
    assert run("generate", "a waltz", "-o", tmp_path / "a.wav") == 130
    assert capsys.readouterr().err.endswith("melody: interrupted\n")


@pytest.mark.parametrize(
    "command",
    [
        *("generate", "loop", "inpaint", "continue", "vary", "stream", "plan edit"),
        *("data build", "data encode", "benchmark", "evaluate"),
    ],
)
def test_every_command_explains_itself(command, capsys):
    assert run(*command.split(), "--help") == 0
    assert f"melody {command}" in capsys.readouterr().out


def test_every_option_of_every_command_says_what_it_does():
    from melody_diffusers.cli.parser import parser

    waiting, seen = [parser()], 0
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action.choices, dict):  # commands
                assert all(choice.help for choice in action._choices_actions)
                waiting += action.choices.values()
            else:
                assert action.help, action.option_strings
                seen += 1
    assert seen > 200


def test_help_and_version_answer_without_loading_torch():
    code = "import sys; from melody_diffusers import cli; cli.main([sys.argv[1]]); sys.exit('torch' in sys.modules)"
    for flag in ("--help", "--version"):
        subprocess.run([sys.executable, "-c", code, flag], check=True, capture_output=True)


def test_a_name_that_cannot_be_written_is_refused_without_loading_torch(tmp_path):
    code = "import sys; from melody_diffusers import cli; print(cli.main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "generate", "a waltz", "-o", str(tmp_path / "a.m4a")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["2", "False"]


UNNEEDED = "av datasets gradio IPython matplotlib pandas pyarrow pytest sklearn tensorboard torchvision"


def test_generate_loads_nothing_that_other_tasks_need_and_searches_no_imports_for_garbage(tiny_folder, tmp_path):
    code = (
        "import gc, sys; from melody_diffusers import cli; assert cli.main(sys.argv[2:]) == 0; "
        "print('frozen', gc.isenabled() and gc.get_freeze_count() > 100_000, {*sys.argv[1].split()} & {*sys.modules})"
    )
    flags = ["--duration", "1", "--steps", "1", "--model", str(tiny_folder), "-o", str(tmp_path / "a.wav")]
    command = [sys.executable, "-c", code, UNNEEDED, "generate", "a waltz", *flags]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[-1] == "frozen True set()"


def test_the_installed_command_is_this_one():
    from importlib.metadata import entry_points

    (command,) = entry_points(group="console_scripts", name="melody")
    assert command.load() is cli.main


def test_a_tone_is_one_bright_row_in_its_spectrogram(tmp_path):
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(2 * RATE) / RATE)[None]
    music.write_spectrogram(tmp_path / "tone.png", tone, RATE)
    image = np.asarray(Image.open(tmp_path / "tone.png")).astype(int).sum(-1)  # (rows, columns)
    assert image.shape == (384, 200)
    brightest = image[:, 20:-20].argmax(0)
    assert np.ptp(brightest) <= 3  # a mel band is three rows high
    higher = torch.sin(2 * torch.pi * 4000 * torch.arange(2 * RATE) / RATE)[None]
    music.write_spectrogram(tmp_path / "higher.png", higher, RATE)
    other = np.asarray(Image.open(tmp_path / "higher.png")).astype(int).sum(-1)
    assert other[:, 100].argmax() < brightest[80]  # higher tones are drawn above
