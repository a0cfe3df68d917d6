"""The report: what is asked of which clip, and how answers become figures."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from melody_diffusers import cli
from melody_diffusers.evaluation.clips import NAMED_BPM, QUESTIONS, Clip, choose_prompts, choose_windows
from melody_diffusers.evaluation.grid import choose_grid, grid_figures, grid_table, seeds_of_one_prompt
from melody_diffusers.evaluation.judges import ClipJudge
from melody_diffusers.evaluation.key import KeyJudge
from melody_diffusers.evaluation.rows import key_hits, recognised, tempo_hits

HAND_WRITTEN = {
    "style": {"waltz": {"triple": True, "prompts": ["One two three at 150 bpm", "A waltz", "Dance in three"]}},
    "family": {"strings": {"names": ["violin", "fiddle"]}, "brass": {"names": ["trumpet"]}},
}


def windows(pieces: int = 12) -> list[dict]:
    """Two windows of each piece; waltzes for strings or brass, and rock for guitar."""
    rows = []
    for i in range(pieces):
        style, family, word = [
            ("waltz", "strings", "violin"),
            ("waltz", "brass", "trumpet"),
            ("rock", "guitar", "guitar"),
        ][i % 3]
        captions = [f"{style} {i}", f"{word} number {i} at 120 bpm", "a violin and a trumpet", f"rock waltz {i}"]
        captions += ["a violin and a trumpet in A minor"] if i % 2 else []
        row = {"piece_id": str(i), "style": style, "family": family, "captions": captions, "bpm": 120, "meter": "3/4"}
        rows += [{**row, "start_seconds": start} for start in (0.0, 10.0)]
    return rows


def clip(**changes) -> Clip:
    fields = {"file": "x.flac", "text": "", "expected": {}, "bpm": 120, "key": None, "triple": False, "source": "hand"}
    fields |= {"piece": "", "seed": 0}
    return Clip(**{**fields, **changes})


def test_windows_are_balanced_over_styles_and_cover_the_families() -> None:
    chosen = choose_windows(windows(), clips_per_class=6, seed=0)
    for style in ("waltz", "rock"):
        assert sum(expected.get("style") == style for _, expected in chosen) == 6
    for family in ("strings", "brass", "guitar"):
        assert sum(expected["family"] == family for _, expected in chosen) >= 6
    assert len({id(window) for window, _ in chosen}) == len(chosen)
    assert all(window[question] == answer for window, expected in chosen for question, answer in expected.items())
    assert [w for w, _ in chosen] != [w for w, _ in choose_windows(windows(), clips_per_class=6, seed=1)]


def test_a_clip_whose_style_cannot_be_heard_is_not_asked_for_it() -> None:
    unheard = [window | {"style_heard": window["piece_id"].endswith("1")} for window in windows()]
    chosen = choose_windows(unheard, clips_per_class=6, seed=0)
    asked = [window["style_heard"] for window, questions in chosen if "style" in questions]
    assert asked and all(asked)
    assert any(not window["style_heard"] for window, questions in chosen if questions.keys() == {"family"})


def test_prompts_name_their_own_class_and_no_other() -> None:
    prompts = choose_prompts(windows(), HAND_WRITTEN, clips_per_class=4, seed=0)
    assert prompts == choose_prompts(windows(), HAND_WRITTEN, clips_per_class=4, seed=0)
    assert len({prompt.file for prompt in prompts}) == len({prompt.seed for prompt in prompts}) == len(prompts)
    for question, name, count, by_hand in (
        ("style", "waltz", 4, 2),
        ("style", "rock", 4, 0),
        ("family", "brass", 4, 0),
    ):
        of_class = [prompt for prompt in prompts if prompt.expected == {question: name}]
        assert len(of_class) == count
        assert sum(prompt.source == "hand" for prompt in of_class) == by_hand
        assert len({prompt.text for prompt in of_class}) == count  # one caption from each piece
    of_key = [prompt for prompt in prompts if prompt.expected == {}]
    assert [prompt.key for prompt in of_key] == ["A minor"] * 6  # every other of twelve pieces, and none twice
    assert len({prompt.piece for prompt in of_key}) == 6 and prompts[-6:] == of_key
    for prompt in prompts[:-6]:
        assert "violin and a trumpet" not in prompt.text and "rock waltz" not in prompt.text
        assert prompt.bpm == {True: 120, False: None}["120" in prompt.text] or prompt.text == "One two three at 150 bpm"


@pytest.mark.parametrize("text, bpm", [("at 98 BPM", 98), ("about 120 beats per minute", 120), ("in 4/4, 8-bit", None)])
def test_tempos_are_read_from_texts(text: str, bpm: int | None) -> None:
    named = NAMED_BPM.search(text)
    assert (int(named.group(1)) if named else None) == bpm


def test_recognised_counts_only_clips_that_were_asked() -> None:
    clips = [
        clip(expected={"style": "rock"}),
        clip(expected={"style": "rock"}, source="caption"),
        clip(expected={"style": "folk"}),
        clip(expected={"family": "brass"}),
    ]
    figures = recognised(clips, ["rock", "folk", "folk", "rock"], "style")
    assert figures["share"] == pytest.approx(2 / 3) and figures["clips"] == 3
    assert figures["by_class"] == {"rock": 0.5, "folk": 1.0}
    assert figures["by_source"] == {"caption": 0.0, "hand": 1.0}


def test_tempo_hits_against_known_estimates() -> None:
    clips = [clip(bpm=120), clip(bpm=120), clip(bpm=120, triple=True), clip(bpm=100), clip(bpm=None)]
    hits = tempo_hits(clips, [120.0, 60.0, 40.0, 127.0, None])
    assert hits["clips"] == 4 and hits["exact"] == 0.25 and hits["share"] == 0.75
    assert hits["shuffled"] == pytest.approx(7 / 12)  # of three others each: 120 fits two, 60 two, 127 three, 40 none


def test_key_hits_against_known_answers() -> None:
    clips = [clip(key="C major"), clip(key="C major"), clip(key="F minor"), clip(key="A minor"), clip()]
    hits = key_hits(clips, ["C major", "A minor", "C minor", "C major", "C major"])
    assert hits["clips"] == 4 and hits["exact"] == 0.25 and hits["share"] == 0.75
    assert hits["shuffled"] == pytest.approx(6 / 12)  # three answers fit the two others of their notes, one none
    assert key_hits([clip()], ["C major"])["clips"] == 0


def test_every_handwritten_prompt_names_a_class_once() -> None:
    content = yaml.safe_load(files("melody_diffusers.evaluation").joinpath("prompts.yaml").read_text())
    assert set(content) == set(QUESTIONS)
    texts = [text for classes in content.values() for about in classes.values() for text in about["prompts"]]
    assert len(texts) == len(set(texts)) == 130 + 16 * 3 + 3
    for classes in content.values():
        for about in classes.values():
            assert set(about) <= {"names", "triple", "prompts"}
            assert any(NAMED_BPM.search(text) for text in about["prompts"][:2])


def test_the_grid_takes_styles_in_turn_and_asks_what_its_prompts_name() -> None:
    def window(piece: int, style: str, named: list[str]) -> dict:
        prompts = [{"text": f"prompt {piece}", "named": ["style", "family", *named]}]
        tags = {"family": "brass", "ensemble": "duo", "drums": False, "bpm": 90, "key": "F", "mode_word": "minor"}
        return {"piece_id": str(piece), "style": style, "prompts": prompts, "meter": "4/4", **tags}

    windows = [window(piece, "rock", ["drums", "bpm"]) for piece in range(6) for _ in range(2)]
    windows += [window(6, "waltz", ["ensemble", "key"]), {**window(7, "folk", []), "prompts": []}]
    chosen = [clip for _, clip in choose_grid(windows, {"style": {"waltz": {"triple": True}}}, "seen pairs", 4, seed=0)]
    assert [clip.expected["style"] for clip in chosen] == ["rock", "waltz", "rock", "rock"]
    assert len({clip.piece for clip in chosen}) == 4
    rock, waltz = chosen[:2]
    assert waltz.triple and not rock.triple
    assert rock.expected == {"style": "rock", "family": "brass", "drums": "no drums"} and rock.bpm == 90
    assert waltz.expected == {"style": "waltz", "family": "brass", "ensemble": "several players"}
    assert (waltz.key, waltz.bpm, rock.key) == ("F minor", None, None)

    heard = {"style": ["rock", "waltz", "folk", "rock"], "family": ["brass", "choir", "brass", "brass"]}
    heard |= {"drums": ["no drums"] * 4, "bpm": [90.0] * 4, "key": ["F minor"] * 4}
    figures = grid_figures(chosen, heard)
    shares = {name: (figure["share"], figure["clips"]) for name, figure in figures.items()}
    assert shares == {
        "style": (0.75, 4), "family": (0.75, 4), "both": (0.5, 4), "drums": (1.0, 3), "tempo": (1.0, 3), "key": (1.0, 1)
    }  # fmt: skip
    assert grid_table({"seen pairs": figures})[-1].startswith(
        "| seen pairs | 75% of 4 | 75% of 4 | 50% of 4 | 100% of 3 |"
    )


def test_seeds_of_one_prompt_differ_in_nothing_else() -> None:
    clips = seeds_of_one_prompt(3, seed=5)
    assert [clip.seed for clip in clips] == [5, 6, 7] and len({clip.file for clip in clips}) == 3
    assert {clip.text for clip in clips} == {"a cheerful solo piano waltz"}
    heard = {"style": ["waltz", "waltz", "solo piano"], "family": ["piano", "strings", "piano"]}
    figures = grid_figures(clips, heard | {"bpm": [None] * 3, "key": ["C major"] * 3})
    assert [round(3 * figures[name]["share"]) for name in ("style", "family", "both")] == [2, 2, 1]


@pytest.mark.timeout(600)
def test_the_command_makes_judges_and_rejudges(tiny_folder: str, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    ClipJudge({"style": ["rock", "waltz"], "family": ["guitar", "piano"]}, width=4).save_pretrained(
        tmp_path / "judges" / "clip"
    )
    KeyJudge(width=4).save_pretrained(tmp_path / "judges" / "key")
    (tmp_path / "prompts.yaml").write_text("style: {rock: {prompts: [a fast rock at 140 bpm]}}")
    model = shutil.copytree(tiny_folder, tmp_path / "tiny")
    command = ["evaluate", "--model", str(model), "--data", str(data), "--judges", str(tmp_path / "judges"), "--quick"]
    command += ["--num-threads", "1", "--embedding", "melody_diffusers.evaluation.embeddings:log_mel_statistics"]
    command += [
        "--num-inference-steps",
        "2",
        "--prompts",
        str(tmp_path / "prompts.yaml"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main([*command, "--compare-steps", "1", "--long-pieces", "3", "--seeds-prompt", "1"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["rows"]) == ["real", "reconstructed", "from_tokens", "generated", "silence", "noise"]
    for row in report["rows"].values():
        assert 0 <= row["style"]["share"] <= 1 and row["mcc"]["margin"] == pytest.approx(
            row["mcc"]["matched"] - row["mcc"]["shuffled"]
        )
    assert report["rows"]["real"]["style"]["clips"] == 4 and report["rows"]["generated"]["style"]["clips"] == 4
    assert report["rows"]["generated"]["style"]["by_source"].keys() == {"caption", "hand"}
    for constant in ("silence", "noise"):  # a judge without knowledge hears one class: right once in two
        assert report["rows"][constant]["family"]["share"] == 0.5
    own = "melody_diffusers.evaluation.embeddings:log_mel_statistics"
    for row in [*report["rows"].values(), report["real_against_real"]]:
        for measure in ("frechet", "kernel"):
            assert row[measure].keys() == {"log_mel", "mulan", own} and row[measure][own] == row[measure]["log_mel"]
    settings = [(row["schedule"], row["num_inference_steps"], row["model_evaluations"]) for row in report["sampling"]]
    assert settings == [("linear", 1, 1), ("uniform", 1, 1)]
    one_step = [{name: row[name] for name in ("mcc", "frechet", "kernel")} for row in report["sampling"]]
    assert one_step[0] == one_step[1]  # one step is the same step in either schedule
    assert report["speed"]["language_model_evaluations"] == 250
    assert list(report["reconstruction"]["rows"])[0] == "reconstructed" and report["reconstruction"]["row_clips"] == 4
    assert "\n| reconstructed | " in (tmp_path / "out" / "report.md").read_text()
    assert report["seeds"]["both"]["clips"] == 1
    assert list(report["long_pieces"]) == ["real long pieces", "long pieces"]
    for pieces in report["long_pieces"].values():  # noise has no sections, does not end and does not drift
        assert pieces["clips"] == 1 and pieces["seconds"] == 20 and pieces["first"].keys() == pieces["last"].keys()
    real = report["long_pieces"]["real long pieces"]
    assert real["section_contrast"] < 0.2 and real["closes"] == 0 and abs(real["loudness_slope"]) < 1
    assert "\n| long pieces, 1 | " in (tmp_path / "out" / "report.md").read_text()
    assert report["velocity"]["clips"] == 4 and report["velocity"]["velocity_mse"] > 0
    assert report["rows"]["real"]["key"]["clips"] == 4 and report["rows"]["generated"]["key"]["clips"] >= 4
    assert report["speed"]["model_evaluations"] >= 2 and report["speed"]["real_time_factor"] > 0
    stages = [seconds for name, seconds in report["speed"].items() if name.startswith("seconds_")]
    assert len(stages) == 4 and sum(stages) <= 1.5 * report["speed"]["seconds"]
    for name in (
        "report.md",
        "rows.png",
        "velocity.png",
        "sampling.png",
        "generated_style.png",
        "reconstruction_0.png",
        "clips/generated/0000.flac",
    ):
        assert (tmp_path / "out" / name).is_file()

    (tmp_path / "about.md").write_text("---\nlicense: mit\n---\n\n# tiny\n\nMade for a test.\n\n")
    assert cli.main([*command, "--reuse", "--card", str(tmp_path / "about.md")]) == 0
    again = json.loads((tmp_path / "out" / "report.json").read_text())
    assert again["rows"] == report["rows"] and again["reconstruction"] == report["reconstruction"]
    assert again["long_pieces"] == report["long_pieces"]
    card = ModelCard.load(model / "README.md")
    assert card.data.license == "mit" and card.data.model_name == "tiny"
    metrics = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert metrics["style recognised"] == pytest.approx(report["rows"]["generated"]["style"]["share"], abs=1e-4)
    assert "# tiny\n\nMade for a test.\n\n## Evaluation\n" in card.text and str(tmp_path) not in card.text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--judges", "nowhere"], "train_judges.py"),
        (["--card", "nowhere.md"], "--card is a Markdown file"),
        (["--compare_steps", "0"], "--compare-steps: must be a whole number from 1"),
        (["--long-pieces", "-1"], "--long-pieces: must be a whole number from 0"),
    ],
)
def test_the_command_says_what_is_missing(arguments, message, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err
