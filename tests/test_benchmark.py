"""benchmarks/compare.py: what it writes, and that a system that fails costs the others nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = """
import torch
from systems import System, ours

def tiny(dtype):
    from melody_diffusers import MeLoDyPipeline
    from tiny import make_tiny_components
    return ours(MeLoDyPipeline(**make_tiny_components()), "tiny", num_inference_steps=1, lm_guidance_scale=1)

def broken(dtype):
    def generate(seconds, batch):
        if seconds == 2:
            raise MemoryError("no room")
        return torch.zeros(batch, 2, round(100 * seconds))
    return System(generate, 100, [], "fails at the second length")
"""


def test_a_run_is_written_whole_beside_a_peer_that_fails(tmp_path):
    (tmp_path / "peers.py").write_text(PEERS)
    command = [sys.executable, ROOT / "benchmarks/compare.py", "--out", tmp_path, "--runs", "2", "--threads", "1"]
    command += ["--systems", "peers:tiny", "peers:broken", "--seconds", "1", "2", "--ours", "3", "--batch", "2"]
    path = os.pathsep.join(map(str, [ROOT / "src", ROOT / "tests", tmp_path]))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["machine"]["threads"] == 1 and results["machine"]["torch"]
    rows = {(row["system"], row["seconds"], row["batch"]): row for row in results["medians"]}
    ours = [("peers:tiny", 1, 1), ("peers:tiny", 2, 1), ("peers:tiny", 3, 1), ("peers:tiny", 1, 2)]
    assert set(rows) == {*ours, ("peers:broken", 1, 1)}
    assert all(row["runs"] == 2 and row["times_real_time"] > 0 for row in rows.values())
    assert all(0 < sum(rows[case]["stages"].values()) < 1.2 * rows[case]["took"] for case in ours)
    order = [timing["system"] for timing in results["timings"] if timing["seconds"] == 1 and timing["batch"] == 1]
    assert order == ["peers:tiny", "peers:broken"] * 2
    reasons = {(case["system"], case["seconds"]): case["reason"] for case in results["not_measured"]}
    assert reasons == {("peers:broken", 2): "MemoryError: no room"}

    plan = results["systems"]["peers:tiny"]["work"]["generate_semantic_tokens"]
    linear = 16 * (4 * 16 + 3 * 32)  # numbers in the linear layers of the language model, without its head
    assert plan["weight_bytes"] > 25 * 4 * linear and plan["flops"] > 25 * 2 * linear  # 25 tokens
    assert all(ceiling["float32"] > 1e8 and ceiling["copy"] > 1e7 for ceiling in results["ceilings"])
    table = (tmp_path / "table.md").read_text()
    assert table in done.stdout and "| peers:tiny, 1 s: plan |" in table and "no room" in table
    assert (tmp_path / "length.png").stat().st_size and (tmp_path / "batch.png").stat().st_size
