"""`melody evaluate` and `melody benchmark` on a device without float64 that refuses to mix with the CPU."""

import json

import pytest
import torch
from fake_device import FakeDevice
from small import make_pipe

from melody_diffusers import cli
from melody_diffusers.evaluation import clips, report, sampling, speed
from melody_diffusers.evaluation.judges import ClipJudge
from melody_diffusers.evaluation.key import KeyJudge


@pytest.fixture
def device():
    with FakeDevice(has_float64=False) as device:
        yield device


@pytest.fixture
def waits(monkeypatch) -> list:
    """The devices that were waited for; the emulation has nothing to wait for."""
    devices = []
    monkeypatch.setattr(torch.accelerator, "synchronize", devices.append)
    return devices


def test_a_pipeline_is_measured(device, waits, data, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    make_pipe().save_pretrained(tmp_path / "pipe")
    ClipJudge({"style": ["rock", "waltz"], "family": ["guitar", "piano"]}, width=4).save_pretrained(
        tmp_path / "judges" / "clip"
    )
    KeyJudge(width=4).save_pretrained(tmp_path / "judges" / "key")
    for module in (clips, report, sampling):
        monkeypatch.setattr(module, "CLIP_SECONDS", 1.0)
    monkeypatch.setattr(report, "measure_load_seconds", lambda model: 0.0)
    places = ["--model", tmp_path / "pipe", "--data", data, "--judges", tmp_path / "judges", "--out", tmp_path / "out"]
    settings = [
        "--quick",
        "--device",
        "fake",
        "--num-inference-steps",
        "1",
        "--compare-steps",
        "1",
        "--num-threads",
        "1",
    ]
    assert cli.main(["evaluate", *map(str, places), *settings]) == 0
    measured = json.loads((tmp_path / "out" / "report.json").read_text())
    assert measured["velocity"]["velocity_mse"] > 0 and len(measured["sampling"]) == 2 and device.launches


def test_a_pipeline_is_timed(device, waits, tmp_path, capsys):
    make_pipe().save_pretrained(tmp_path / "pipe")
    command = ["benchmark", "--model", str(tmp_path / "pipe"), "--device", "fake"]
    assert cli.main([*command, "--duration", "1", "--runs", "1", "--steps", "1"]) == 0
    assert "warm runs on fake:0" in capsys.readouterr().out
    assert len(waits) >= 2 * len(speed.STAGES)  # a stage ends when the device has done its work
