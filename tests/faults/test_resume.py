"""A stage that was stopped goes on bit for bit: at each of 40 steps, with any number of workers and processes."""

import json
from pathlib import Path

import pytest
import stages
from distributed import run_two


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    stages.make_workspace(folder)
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", stages.OVERRIDES)
def test_a_stage_goes_on_from_any_step_as_if_it_had_not_stopped(workspace, tmp_path, stage, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    assert stages.differences(workspace, stage, 0, tmp_path, every=13) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stage", stages.OVERRIDES)
def test_at_every_step(workspace, tmp_path, stage, workers, processes):
    if processes == 1:
        assert stages.differences(workspace, stage, workers, tmp_path) == []
    else:
        outputs = run_two(Path(stages.__file__), str(workspace), stage, str(workers), str(tmp_path))
        assert json.loads(outputs[0].splitlines()[-1]) == []
