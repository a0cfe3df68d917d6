"""The cost of a stage: counted operations agree with what is known in closed form."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))  # as Python does for a script
PLAN = runpy.run_path(str(Path(__file__).parents[2] / "training" / "plan.py"))


def test_operations_and_saved_bytes_of_two_layers():
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))
    cost = PLAN["measure"](model, lambda: model(torch.zeros(5, 32)))
    assert cost.parameters == 32 * 64 + 64 + 64 * 8 + 8
    assert cost.operations == 2 * 5 * (32 * 64 + 64 * 8)  # a multiplication and an addition each
    assert cost.saved_bytes == 4 * 5 * (32 + 64)  # what each layer heard; ReLU keeps its output, which is the same


def test_a_plan_for_melody_tiny(monkeypatch, capsys):
    PLAN["main"](["--size", "tiny", "--hours", "36", "--tflops", "100"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    costs = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if "GFLOP" in row[-1]}
    assert set(costs) >= {"vae_gan", "mulan", "semantic_encoder", "semantic_lm", "dual_path"}
    parameters = float(costs["semantic_lm"][0].removesuffix(" M"))
    assert parameters == pytest.approx(3.41, rel=0.01)
    # every weight but the embeddings once for each of 8 + 250 positions, and attention: 4 layers, 256 wide
    matrices = 4 * (4 * 256 * 256 + 3 * 256 * 512) + 256 * 1024
    least, attention = 2 * 256 * matrices, 4 * 2 * 2 * 256 * 256 * 256
    counted = float(costs["semantic_lm"][3].removesuffix(" GFLOP")) * 1e9
    assert least * 0.95 < counted < (least + attention) * 1.25
    assert any("36 hours" in row[0] for row in rows)
