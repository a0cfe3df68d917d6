"""The scripts for adapters: from a folder of recordings to an adapter, and from there to a comparison."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.audio import load_audio

pytest.importorskip("peft")
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


def test_one_clip_is_not_enough(tiny_folder, recordings, tmp_path, monkeypatch):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "one.wav").write_bytes((recordings / "one.wav").read_bytes())
    with pytest.raises(ValueError, match="at least two clips"):
        train(monkeypatch, tiny_folder, tmp_path / "few", tmp_path / "out", "run.max_steps=1")
