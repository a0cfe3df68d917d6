"""A plan as a file and within sound files: what is written is read again, what is broken is refused in words."""

import io
import json
import math

import numpy as np
import pytest
import soundfile

from melody_diffusers import MusicPlan
from melody_diffusers.plans import MAX_TOKENS, PlanError
from melody_diffusers.sound_files import MAX_COMMENT_BYTES, append_wav_comment, open_sound, read_comment

RATE = 24000
TONE = (8000 * np.sin(np.arange(RATE) / 10)).astype(np.int16)
RENDERING = {"num_inference_steps": 5, "guidance_interval": [0.0, 1.0], "continuation": "diagonal"}


def plan_with(num_tokens: int = 100, **fields) -> MusicPlan:
    tokens = np.random.default_rng(0).integers(0, 1024, num_tokens).tolist()
    given = {"tokens": tuple(tokens), "seconds": num_tokens / 25, "codebook_size": 1024, "digest": "abc"}
    return MusicPlan(
        **(given | {"prompt": 'a "wa\nltz" für Élise', "seed": 2**64 - 1, "rendering": RENDERING} | fields)
    )


def wav_with(comment: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, TONE, RATE, format="WAV", subtype="PCM_16")
    append_wav_comment(file, comment)
    return file.getvalue()


@pytest.mark.parametrize("num_tokens", [1, 250, 90_000])
def test_a_plan_file_holds_the_plan(num_tokens, tmp_path):
    plan = plan_with(num_tokens)
    plan.save(tmp_path / "a.melody")
    assert MusicPlan.load(tmp_path / "a.melody") == plan == MusicPlan.from_text(plan.to_text())
    assert json.loads((tmp_path / "a.melody").read_text())["tokens"] == list(plan.tokens)
    assert plan.to_text().isascii() and "\n" not in plan.to_text()
    assert len(plan.to_text()) < 5 * num_tokens + 700


def test_a_plan_keeps_what_the_prompt_became_if_it_had_one(tmp_path):
    plan = plan_with(50, mulan_tokens=[5, 65535, 0])
    plan.save(tmp_path / "a.melody")
    assert MusicPlan.load(tmp_path / "a.melody") == plan and plan.mulan_tokens == (5, 65535, 0)
    assert MusicPlan.from_text(changed(mulan_tokens=...)).mulan_tokens is None


def test_a_plan_file_is_not_overwritten_unasked(tmp_path):
    plan, other = plan_with(5), plan_with(6)
    plan.save(tmp_path / "a.melody")
    with pytest.raises(FileExistsError, match="is there already; choose another name"):
        other.save(tmp_path / "a.melody")
    assert MusicPlan.load(tmp_path / "a.melody") == plan
    other.save(tmp_path / "a.melody", overwrite=True)
    assert MusicPlan.load(tmp_path / "a.melody") == other
    with pytest.raises(PlanError, match="saved as .melody; got 'a.json'"):
        plan.save(tmp_path / "a.json")
    assert [file.name for file in tmp_path.iterdir()] == ["a.melody"]


@pytest.mark.parametrize("num_tokens", [25, 2500, 90_000])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_sound_files_hold_it_and_sound_the_same(suffix, num_tokens, tmp_path):
    audio = pytest.importorskip("melody_diffusers.audio")
    plan, sound = plan_with(num_tokens), TONE[None].astype(np.float32) / 32768
    audio.save_audio(tmp_path / f"with{suffix}", sound, RATE, comment=f"seed 1: a waltz\n{plan.to_text()}")
    audio.save_audio(tmp_path / f"without{suffix}", sound, RATE)
    assert MusicPlan.load(tmp_path / f"with{suffix}") == plan
    assert MusicPlan.from_sound_file((tmp_path / f"with{suffix}").read_bytes()) == plan
    samples = [soundfile.read(tmp_path / f"{name}{suffix}", dtype="int16")[0] for name in ("with", "without")]
    assert np.array_equal(*samples)
    if suffix in (".wav", ".flac"):
        assert np.array_equal(samples[0], TONE)
    comment = soundfile.SoundFile(tmp_path / f"with{suffix}").comment  # as other programs read it
    assert comment.splitlines()[0] == "melody-diffusers seed 1: a waltz"
    with open_sound(tmp_path / f"with{suffix}") as file:
        assert sum(map(len, file.blocks(1000))) >= RATE


def test_an_opus_file_refuses_a_comment_that_would_break_it(tmp_path):
    audio = pytest.importorskip("melody_diffusers.audio")
    audio.save_audio(tmp_path / "a.opus", TONE, RATE, comment="x" * 49_000)
    assert len(read_comment(tmp_path / "a.opus")) > 49_000
    with pytest.raises(ValueError, match=r"in .opus has at most 50000 bytes; got 51017"):
        audio.save_audio(tmp_path / "b.opus", TONE, RATE, comment="x" * 51_000)
    assert not (tmp_path / "b.opus").exists()


@pytest.mark.parametrize("length", [0, 1, 7, 2046, 2047, 2048, 60_000])
def test_what_lies_behind_the_sound_of_a_wav_is_its_comment(length):
    data = wav_with("x" * length)
    assert read_comment(data) == "x" * length
    assert int.from_bytes(data[4:8], "little") == len(data) - 8 and len(data) % 2 == 0
    assert np.array_equal(soundfile.read(io.BytesIO(data), dtype="int16")[0], TONE)


def test_a_file_without_a_plan_says_where_to_find_one(tmp_path):
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    with pytest.raises(PlanError, match=r"from .*a\.wav: Its comment holds no plan. `melody generate` writes one"):
        MusicPlan.load(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"<html>404</html>")
    with pytest.raises(PlanError, match="It is no plan, and no sound file that can be read"):
        MusicPlan.load(tmp_path / "b.wav")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        MusicPlan.load(tmp_path / "c.wav")


def changed(**values) -> str:
    fields = json.loads(plan_with(50).to_text()) | values
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


BROKEN = {
    "empty": ("", "must be JSON text"),
    "cut": (plan_with(50).to_text()[:200], "must be JSON text"),
    "brackets": ("[" * 100_000, "must be JSON text"),
    "nested": ('{"format":' + '{"a":' * 50_000, "must be JSON text"),
    "a list": ("[]", 'must say "format"'),
    "another format": (changed(format="melody plan 2"), "A newer melody-diffusers may know"),
    "a long number": (changed().replace('"seconds": 2.0', '"seconds": ' + "9" * 5000), "5000 digits"),
    "NaN": (changed(seconds=math.nan), "NaN is no number"),
    "an overflow": (changed().replace('"seconds": 2.0', '"seconds": 1e999'), "`seconds` must be a number"),
    "a field too many": (changed(__class__="os.system"), "got __class__, too"),
    "a field too few": (changed(tokens=...), "tokens is missing"),
    "tokens of text": (changed(tokens="abc"), "`tokens` must be a list of 1 to"),
    "no tokens": (changed(tokens=[]), "0 of them"),
    "too many tokens": (changed(tokens=[0] * (MAX_TOKENS + 1)), "100001 of them"),
    "a token too high": (changed(tokens=[0] * 49 + [1024]), "from 0 to 1023; got 1024"),
    "a token below": (changed(tokens=[0] * 49 + [-1]), "from 0 to 1023; got -1"),
    "a fraction": (changed(tokens=[0] * 49 + [1.5]), "from 0 to 1023; got 1.5"),
    "a truth": (changed(tokens=[True] * 50), "from 0 to 1023; got True"),
    "no token": (changed(tokens=[None] * 50), "from 0 to 1023; got None"),
    "longer than its tokens": (changed(seconds=3000), "covered by 50 tokens, 2 s; got 3000"),
    "a huge codebook": (changed(codebook_size=2**40), "`codebook_size` must be a whole number from 1 to 65536"),
    "a huge draw": (changed(drawn_tokens=10**15), "`drawn_tokens` must be"),
    "a wrong seed": (changed(seed="7"), "`seed` must be a whole number from 0 to"),
    "a long prompt": (changed(prompt="x" * 5000), "`prompt` must be a text of at most 2000"),
    "no MuLan tokens": (changed(mulan_tokens=[]), "`mulan_tokens` must be a list of 1 to 64 whole numbers"),
    "many MuLan tokens": (changed(mulan_tokens=[0] * 65), "`mulan_tokens` must be a list of 1 to 64"),
    "a MuLan token too high": (changed(mulan_tokens=[0, 65536]), "below 65536, or null; got \\[0, 65536\\]"),
    "a MuLan token of text": (changed(mulan_tokens="12"), "`mulan_tokens` must be"),
    "a MuLan token that is a truth": (changed(mulan_tokens=[True]), "`mulan_tokens` must be"),
    "steps": (changed(rendering={"num_inference_steps": 10**9}), "`rendering.num_inference_steps` must be"),
    "an unknown argument": (changed(rendering={"callback_on_step_end": "f"}), "got \\['callback_on_step_end'\\]"),
    "an interval": (changed(rendering={"guidance_interval": [1, 0]}), "`rendering.guidance_interval` must be two"),
    "versions": (changed(versions=[1]), "`versions` must be a table"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plans_are_refused_in_words(case, tmp_path):
    text, said = BROKEN[case]
    with pytest.raises(PlanError, match=said) as found:
        MusicPlan.from_text(text)
    assert len(str(found.value)) < 700
    (tmp_path / "a.melody").write_text(text)
    with pytest.raises(PlanError, match="Cannot read a plan from"):
        MusicPlan.load(tmp_path / "a.melody")
    with pytest.raises(PlanError, match="Cannot read a plan from the given file"):
        MusicPlan.from_sound_file(wav_with("seed 1\n" + text))


def test_what_is_too_long_is_not_parsed(tmp_path):
    (tmp_path / "a.melody").write_text("[" * (MAX_COMMENT_BYTES + 1))
    with pytest.raises(PlanError, match="at most 1048576 bytes"):
        MusicPlan.load(tmp_path / "a.melody")
    (tmp_path / "b.melody").write_bytes(b"{\xff\xfe")
    with pytest.raises(PlanError, match="text in UTF-8"):
        MusicPlan.load(tmp_path / "b.melody")
    assert read_comment(wav_with("x" * MAX_COMMENT_BYTES)) == ""


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_end_in_words(seed):
    random, whole = np.random.default_rng(seed), wav_with(f"seed 1\n{plan_with(50).to_text()}")
    data = bytearray(whole[: random.integers(1, len(whole))] if seed % 2 else whole)
    for place in random.integers(0, len(data), 20):
        data[place] = random.integers(0, 256)
    data += bytes(random.integers(0, 256, 8 * (seed % 3), dtype=np.uint8))
    try:
        MusicPlan.from_sound_file(bytes(data))
    except PlanError as error:
        assert "the given file" in str(error)


def test_control_characters_of_a_stranger_do_not_reach_the_terminal():
    with pytest.raises(PlanError) as found:
        MusicPlan.from_text(changed(**{"\x1b[2Jevil": 1}))
    assert "\x1b" not in str(found.value)


def test_edits_are_on_the_grid_of_tokens():
    plan = plan_with(100)
    tokens = plan.tokens
    assert plan.cut(1.0, 2.0).tokens == tokens[:25] + tokens[50:]
    assert plan.cut(1.019, 2.021).tokens == tokens[:25] + tokens[51:]  # 2.021 s is nearer to 2.04 s
    assert plan.keep(0.04, 0.2).tokens == tokens[1:5]
    assert plan.repeat(0, 0.08, 3).tokens == 3 * tokens[:2] + tokens[2:]
    assert plan.repeat(3.96, 4, 1) == plan
    other = plan_with(10)
    assert plan.splice(4.0, other).tokens == tokens + other.tokens
    assert plan.splice(0.5, other).tokens == tokens[:13] + other.tokens + tokens[13:]
    assert [len(plan.keep(start / 50, start / 50 + 1).tokens) for start in range(10)] == [25] * 10
    assert plan.cut(1, 2).seconds == 3.0 and plan.cut(1, 2).seed == plan.seed
    heard, other = plan_with(100, mulan_tokens=(1, 2)), plan_with(10, mulan_tokens=(3, 4))
    edits = [heard.cut(0, 1), heard.keep(0, 1), heard.repeat(0, 1, 2), heard.splice(1, other)]
    assert [edited.mulan_tokens for edited in edits] == [(1, 2)] * 4


def test_what_lies_past_the_music_is_no_part_of_an_edit():
    plan = plan_with(63, seconds=1.0)  # a second of a chunk
    assert plan.repeat(0, 1, 2).tokens == 2 * plan.tokens[:25]
    assert plan.keep(0, 0.6).tokens == plan.tokens[:15]


def test_edits_that_cannot_be_say_what_can():
    plan = plan_with(100)
    for edit, said in {
        (3.0, 5.0): "from 0 to 4 s, within the plan; got 5.0",
        (-1.0, 2.0): "from 0 to 4 s, within the plan; got -1.0",
        (2.0, 2.01): "end a token, 40 ms, after its start",
        (0.0, math.nan): "within the plan; got nan",
    }.items():
        with pytest.raises(PlanError, match=said):
            plan.cut(*edit)
    with pytest.raises(PlanError, match="last above 0 s"):
        plan.cut(0, 4)
    with pytest.raises(PlanError, match="at most an hour"):
        plan.repeat(0, 4, 10**9)
    with pytest.raises(PlanError, match="of one model"):
        plan.splice(0, plan_with(10, digest="other"))
