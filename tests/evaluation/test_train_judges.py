"""The script that trains the judges, with the configuration that ships."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from melody_diffusers.evaluation.judges import ClipJudge
from melody_diffusers.evaluation.key import KEYS, KeyJudge

ROOT = Path(__file__).parents[2]


def test_two_steps_write_judges_that_load(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    arguments = ["--config", str(ROOT / "training" / "configs" / "judges" / "tiny.yaml"), "--set"]
    arguments += [f"data.folder={data}", f"run.output_dir={tmp_path / 'judges'}", "run.max_steps=2", "run.batch_size=2"]
    monkeypatch.setattr("sys.argv", ["train_judges.py", *arguments])
    runpy.run_path(str(ROOT / "training" / "train_judges.py"), run_name="__main__")

    judge = ClipJudge.from_pretrained(tmp_path / "judges" / "clip").eval()
    assert judge.config.labels == {"style": ["rock", "waltz"], "family": ["guitar", "piano"]}
    heard = judge.judge(torch.zeros(3, 1, 240000))
    assert all(
        len(heard[question]) == 3 and set(heard[question]) <= set(judge.config.labels[question]) for question in heard
    )
    key_judge = KeyJudge.from_pretrained(tmp_path / "judges" / "key").eval()
    assert set(key_judge.judge(torch.zeros(3, 1, 240000))) <= set(KEYS)
    accuracy = json.loads((tmp_path / "judges" / "accuracy.json").read_text())
    assert accuracy.keys() == {"validation", "test"}
    assert all(0 <= share <= 1 for shares in accuracy.values() for share in shares.values())
