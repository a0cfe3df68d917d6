"""The scripts for adapters: from a folder of recordings to an adapter, and from there to a comparison."""

import importlib.util
import json
import re
import runpy
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from melody_diffusers import DualPathDiffusionModel, MeLoDyPipeline, cli, lora_training
from melody_diffusers.audio import load_audio
from melody_diffusers.data.encode import ClipEncoder
from melody_diffusers.data.recordings import Accepted

pytest.importorskip("peft")
from melody_diffusers.lora_training.windows import choose_sides  # noqa: E402
from melody_diffusers.training_utils.velocity import load_teacher  # noqa: E402

TRAINING = Path(__file__).parents[2] / "training"


def run_script(monkeypatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(TRAINING / script), run_name="__main__")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Three clips of noise with a beat, of another rate, one of them with a caption."""
    folder = tmp_path_factory.mktemp("recordings")
    generator = torch.Generator().manual_seed(0)
    for name in ("one.wav", "two.ogg", "three.flac"):
        noise = 0.1 * torch.randn(12 * 32000, 2, generator=generator)
        noise[::16000] = 0.9
        soundfile.write(folder / name, noise.numpy(), 32000)
    (folder / "two.txt").write_text("a fast rock solo")
    return folder


def train(monkeypatch, tiny_folder, recordings, output, *overrides: str) -> dict[str, torch.Tensor]:
    prompts = Path(output).parent / "prompts.yaml"
    prompts.parent.mkdir(exist_ok=True)
    prompts.write_text("[a slow waltz, sad piano solo, happy techno]")
    settings = [
        f"data.model={tiny_folder}",
        f"data.prompts={prompts}",
        "run.batch_size=2",
        "run.budget_minutes=null",
        "run.checkpoint_every=1",
    ]
    settings += ["dual_path.schedule=constant", "semantic_lm.schedule=constant"]
    arguments = ["--data", recordings, "--output", output, "--set", *settings, *overrides]
    run_script(monkeypatch, "train_lora.py", *arguments)
    return MeLoDyPipeline.lora_state_dict(output)


@pytest.mark.timeout(600)
def test_recordings_become_an_adapter_that_a_stopped_run_gives_as_well(
    tiny_folder, recordings, tmp_path, monkeypatch, capsys
):
    whole = train(monkeypatch, tiny_folder, recordings, tmp_path / "my lora", "run.max_steps=3")
    printed = capsys.readouterr().out
    assert "0.6 minutes of recordings: 2 windows to train on, 1 held out" in printed
    assert "held-out velocity" in printed and "nll" in printed
    for part in ("dual_path", "semantic_lm"):
        trained = [weight for name, weight in whole.items() if name.startswith(part) and ".lora_B." in name]
        assert trained and all(weight.abs().max() > 0 for weight in trained)
    before, after = (load_audio(tmp_path / "my lora" / f"{name}.wav") for name in ("before", "after"))
    assert before.shape == after.shape == (1, 240_000) and not torch.equal(before, after)

    train(monkeypatch, tiny_folder, recordings, tmp_path / "stopped", "run.max_steps=2")
    resumed = train(monkeypatch, tiny_folder, recordings, tmp_path / "stopped", "run.max_steps=3")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    pipe = MeLoDyPipeline.from_pretrained(tiny_folder)
    pipe.load_lora_weights(tmp_path / "my lora")
    assert pipe.get_list_adapters() == {"dual_path": ["default_0"], "semantic_lm": ["default_0"]}

    arguments = [
        "--model",
        tiny_folder,
        "--lora",
        tmp_path / "my lora",
        "--data",
        recordings,
        "--out",
        tmp_path / "out",
    ]
    arguments += ["--prompts_per_class", 1, "--num_inference_steps", 1, "--batch_size", 32, "--prompt", "fast rock"]
    run_script(monkeypatch, "evaluate_lora.py", *arguments)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["base"].keys() == report["adapter"].keys() and len(report["base"]) == 6
    for name, value in report["base"].items():
        assert value != report["adapter"][name], name
    assert len(list((tmp_path / "out" / "adapter").glob("style-*.flac"))) == 3


def test_an_adapter_of_a_distilled_model_is_learnt_by_its_teacher(
    tiny_folder, recordings, tmp_path, monkeypatch, capsys
):
    """What guidance makes of music is no place to learn what music is from; the adapter fits the distilled model."""
    distilled = shutil.copytree(tiny_folder, tmp_path / "pipeline")
    model = DualPathDiffusionModel.from_pretrained(distilled / "dual_path")
    model.save_pretrained(distilled / "dual_path", variant="teacher")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1)
    model.save_pretrained(distilled / "dual_path")

    printed = []
    for name, folder in {"plain": tiny_folder, "distilled": distilled}.items():
        train(monkeypatch, folder, recordings, tmp_path / name / "lora", "run.max_steps=1")
        printed.append(re.search(r"held-out velocity (\S+) ->", capsys.readouterr().out)[1])
    assert printed[0] == printed[1]
    pipe = MeLoDyPipeline.from_pretrained(distilled)
    pipe.load_lora_weights(tmp_path / "distilled" / "lora")  # would be refused if the teacher's weights were its base
    assert "dual_path" in pipe.get_list_adapters()

    (weights,) = (distilled / "dual_path").glob("*.teacher.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(OSError, match="damaged"):  # and not the distilled weights in its place
        load_teacher(distilled, subfolder="dual_path")
    weights.unlink()
    assert load_teacher(distilled, subfolder="dual_path") is None


def songs(folder: Path, **seconds: float) -> Path:
    """Recordings of noise of these lengths, by name."""
    folder.mkdir(exist_ok=True)
    for name, length in seconds.items():
        noise = 0.1 * torch.randn(round(length * 24000), generator=torch.Generator().manual_seed(len(name)))
        soundfile.write(folder / f"{name}.wav", noise.numpy(), 24000)
    return folder


def test_one_short_recording_is_refused_at_once_with_what_the_least_is(tiny_folder, tmp_path, monkeypatch):
    few = songs(tmp_path / "few", one=12)
    with pytest.raises(ValueError, match="One recording of 12.0 s .* at least two recordings, or one of 20 s"):
        train(monkeypatch, tiny_folder, few, tmp_path / "out", "run.max_steps=1")
    assert not (tmp_path / "out").exists()


def test_an_output_among_the_recordings_is_refused(tiny_folder, tmp_path, monkeypatch):
    music = songs(tmp_path / "songs", a=10, bb=10)
    with pytest.raises(ValueError, match="lies within .* its samples would become recordings"):
        train(monkeypatch, tiny_folder, music, music / "my lora", "run.max_steps=1")


def test_of_one_long_recording_the_end_is_held_out(tiny_folder, tmp_path, monkeypatch, capsys):
    train(monkeypatch, tiny_folder, songs(tmp_path / "one", song=25), tmp_path / "out", "run.max_steps=1")
    assert "0.4 minutes of recordings: 3 windows to train on, 1 held out" in capsys.readouterr().out


def test_the_command_of_the_installed_package_trains_as_well(tiny_folder, tmp_path, capsys):
    (tmp_path / "prompts.yaml").write_text("[a slow waltz]")
    settings = [f"data.model={tiny_folder}", f"data.prompts={tmp_path / 'prompts.yaml'}", "run.max_steps=1"]
    arguments = ["lora", "train", str(songs(tmp_path / "one", a=10, bb=10)), "--output", str(tmp_path / "my lora")]
    assert cli.main([*arguments, "--set", *settings, "run.batch_size=1"]) == 0
    assert f"The adapter is in {tmp_path / 'my lora'}" in capsys.readouterr().out
    assert cli.main(["lora", "train", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 2
    assert f"melody: error: There is no folder of recordings at {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_missing_extra_is_named_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("peft", "yaml") else name)
    assert cli.main(["lora", "train", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    message = "melody: error: melody lora train needs peft, pyyaml: pip install 'melody-diffusers[train]'\n"
    assert capsys.readouterr().err == message


def test_loops_fill_the_window_and_bad_files_cost_themselves_alone(tiny_folder, tmp_path, monkeypatch, capsys):
    loops = songs(tmp_path / "loops", loop_a=2.5, loop_bb=4, kick=0.5)
    (loops / "broken.flac").write_bytes(b"fLaC")
    (loops / "loop_a_prompt.txt").write_text("a loop of noise")
    train(monkeypatch, tiny_folder, loops, tmp_path / "out", "run.max_steps=1")
    printed = capsys.readouterr().out
    assert "used 2 of 4 files (2 clips, 1 with captions or tags); refused 2: " in printed
    assert "1 too_short (kick.wav: 0.50 s; the least is 2 s" in printed
    assert "2 loops shorter than 10 s were repeated to fill the window" in printed
    assert "1 windows to train on, 1 held out" in printed


def test_a_finished_adapter_says_so_and_new_songs_or_settings_train_it_anew(tiny_folder, tmp_path, monkeypatch, capsys):
    music, out = songs(tmp_path / "songs", a=10, bb=10), tmp_path / "out"
    first = train(monkeypatch, tiny_folder, music, out, "run.max_steps=1")
    capsys.readouterr()
    train(monkeypatch, tiny_folder, music, out, "run.max_steps=1")
    assert "is trained already: 1 steps on these recordings" in capsys.readouterr().out
    train(monkeypatch, tiny_folder, songs(music, ccc=10), out, "run.max_steps=1")
    printed = capsys.readouterr().out
    assert "1 recording is new since this adapter was trained (ccc.wav): training starts anew" in printed
    assert "lora: 1 steps" in printed and (out / "checkpoints-before").is_dir()
    second = train(monkeypatch, tiny_folder, music, out, "run.max_steps=1", "dual_path.rank=2")
    assert "dual_path.rank changed since this adapter was trained: training starts anew" in capsys.readouterr().out
    assert {weight.shape for weight in first.values()} != {weight.shape for weight in second.values()}


def test_what_was_encoded_is_not_encoded_again(tiny_folder, tmp_path, monkeypatch):
    music, out = songs(tmp_path / "songs", a=10, bb=10), tmp_path / "out"
    train(monkeypatch, tiny_folder, music, out, "run.max_steps=1")
    kept = {file: file.stat().st_mtime_ns for file in (out / "encoded").iterdir()}
    assert len(kept) == 3  # two recordings, and the other music
    monkeypatch.setattr(ClipEncoder, "encode_audio", None)
    train(monkeypatch, tiny_folder, music, out, "run.max_steps=2")
    assert {file: file.stat().st_mtime_ns for file in (out / "encoded").iterdir()} == kept


def recording(digest: str, seconds: float = 12.0, split: str | None = None) -> Accepted:
    return Accepted(digest, digest * 8, {}, Path(), [(1, 0.0, seconds)], split)


def test_no_recording_changes_sides_when_others_are_added():
    shares = {digest: choose_sides([recording("0"), recording("f"), recording(digest)], 10, 0.2) for digest in "2468"}
    assert all(sides["0" * 8] == "held out" and sides["f" * 8] == "train" for sides in shares.values())
    few = choose_sides([recording("8"), recording("f")], 10, 0.2)
    assert few == {"8" * 8: "held out", "f" * 8: "train"}  # one at least
    more = choose_sides([recording(digest) for digest in "068f"], 10, 0.2, few)
    assert more == {"0" * 8: "held out", "6" * 8: "train", **few}


def test_a_data_set_folder_keeps_its_splits():
    sides = choose_sides([recording("0", split="train"), recording("f", split="validation")], 10, 0.2)
    assert sides == {"0" * 8: "train", "f" * 8: "held out"}


def test_if_all_would_be_held_out_one_is_trained_on():
    assert choose_sides([recording("0"), recording("1")], 10, 0.2) == {"0" * 8: "held out", "1" * 8: "train"}


def test_the_prompts_of_the_package_are_among_those_that_the_text_tower_is_judged_by():
    """Of all styles that melody-tiny knows."""
    judged = yaml.safe_load((TRAINING / "configs" / "mulan" / "prompts.yaml").read_text(encoding="utf-8"))
    own = yaml.safe_load(Path(lora_training.__file__).with_name("prompts.yaml").read_text(encoding="utf-8"))
    asked = yaml.safe_load((files("melody_diffusers.evaluation") / "prompts.yaml").read_text(encoding="utf-8"))
    assert own.keys() == asked["style"].keys() and own.items() <= judged.items()
