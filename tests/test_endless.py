"""benchmarks/endless.py: its measures against known values, and that a run is written whole."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from melody_diffusers.evaluation.judges import ClipJudge

ROOT = Path(__file__).parents[1]
RATE = 24000
spec = importlib.util.spec_from_file_location("endless", ROOT / "benchmarks/endless.py")
endless = importlib.util.module_from_spec(spec)
spec.loader.exec_module(endless)


def heard(sound: torch.Tensor) -> "endless.Sound":
    measured = endless.Sound(RATE)
    for chunk in sound.split(59520, dim=1):
        measured.add(chunk)
    return measured


def test_a_minute_of_a_tone_and_one_of_noise():
    tone = 0.5 * torch.sin(2 * math.pi * 3000 * torch.arange(60 * RATE, dtype=torch.float64) / RATE).float()
    noise = 0.1 * torch.randn(60 * RATE, generator=torch.Generator().manual_seed(0))
    measured = heard(torch.cat([tone, noise, tone[: 10 * RATE]])[None])
    assert measured.levels == pytest.approx([20 * math.log10(0.5) - 3.01, -20], abs=0.02)
    assert measured.centroids[0] == pytest.approx(3000, rel=0.02)
    assert measured.centroids[1] == pytest.approx(RATE / 4, rel=0.02)
    assert measured.flatnesses[0] < 0.01 and measured.flatnesses[1] == pytest.approx(0.56, abs=0.01)  # e^-gamma


def test_a_click_at_each_border_is_found_and_its_like_elsewhere_is_not():
    noise = 0.1 * torch.randn(1, 40 * 59520, generator=torch.Generator().manual_seed(0))
    smooth = heard(noise)
    ratio, error = endless.seam_ratio(smooth.at_borders, smooth.inside[1:])
    assert abs(ratio - 1) < 3 * error < 0.1
    noise[:, ::59520] += 1.5  # two changes in the 481 around each border, of a mean square of 0.02
    clicking = heard(noise)
    ratio, _ = endless.seam_ratio(clicking.at_borders, clicking.inside[1:])
    assert ratio == pytest.approx(1 + 2 * 1.5**2 / 481 / 0.02, rel=0.05)
    assert endless.seam_ratio(clicking.at_middles, clicking.inside[1:])[0] == pytest.approx(1, abs=0.05)


def test_a_line_has_its_slope_and_no_error():
    assert endless.slope([1.0, 3.0, 5.0, 7.0]) == (pytest.approx(2), pytest.approx(0, abs=1e-9))
    assert endless.slope([1.0, 2.0]) == (0, 0)


def test_the_longest_repetition():
    tokens = np.random.default_rng(0).permutation(1000).astype(np.uint16)
    assert endless.longest_repetition(tokens) == 0
    assert endless.longest_repetition(np.concatenate([tokens, tokens[100:237]])) == 137
    assert endless.longest_repetition(np.zeros(10, dtype=np.uint16)) == 9


def test_a_run_is_written_whole(tiny_folder, tmp_path):
    ClipJudge({"style": ["ambient", "techno"]}, width=2).save_pretrained(tmp_path / "judge")
    command = [sys.executable, ROOT / "benchmarks/endless.py", "--model", tiny_folder, "--out", tmp_path / "out"]
    command += ["--chunks", "26", "--threads", "1", "--first-sounds", "2", "--prompt", "a waltz", "--seed", "3"]
    command += ["--judge", tmp_path / "judge", "--changes", "1"]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out/table.md").read_text()
    assert text in done.stdout and "26 chunks, 1 whole minutes, of 'a waltz', seed 3." in text
    results = json.loads((tmp_path / "out/results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "out/chunks.jsonl").read_text().splitlines()]
    assert [line["chunk"] for line in lines if "chunk" in line] == list(range(1, 27))
    assert [line["level"] for line in lines if "minute" in line] == results["played"]["levels"]
    assert len(results["played"]["seconds"]) == 26 and len(results["first_sound"]["cpu_seconds"]) == 2
    assert len(set(results["played"]["state_bytes"][2:])) == 1
    assert (tmp_path / "out/endless.png").stat().st_size
