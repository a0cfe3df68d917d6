"""A stage that was stopped goes on bit for bit, and two processes train it as one does."""

import json
from pathlib import Path

import pytest
import stages
import torch
from distributed import run_two
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NO_DROPOUT = {
    "mulan": [f"model.text_config.{kind}_dropout_prob=0.0" for kind in ("hidden", "attention_probs")],
    "semantic_lm": ["model.attention_dropout=0.0"],
}
SPLIT = ("dual_path", "semantic_lm")  # with run.fsdp, too
NO_BATCH_NORM = [stage for stage in stages.OVERRIDES if stage != "semantic_encoder"]


def curves(folder: Path) -> dict[str, list[float]]:
    """What was logged at each step."""
    events = EventAccumulator(str(folder / "logs" / "melody"))
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if not name.startswith("heldout")]
    logged = {name: [event.value for event in events.Scalars(name)] for name in names}
    return {name: values for name, values in logged.items() if len(values) > 1}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    stages.make_workspace(folder)
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", stages.OVERRIDES)
def test_a_stage_goes_on_as_if_it_had_not_stopped(workspace, tmp_path, stage):
    assert stages.differences(workspace, stage, tmp_path, workers=0, every=13) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stage", stages.OVERRIDES)
def test_at_every_step(workspace, tmp_path, stage, workers):
    assert stages.differences(workspace, stage, tmp_path, workers) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [0, 2])
def test_at_every_step_of_two_processes(workspace, tmp_path, workers):
    jobs = [("differences", stage, str(tmp_path / stage), workers) for stage in stages.OVERRIDES]
    outputs = run_two(Path(stages.__file__), str(workspace), json.dumps(jobs), timeout=3500)
    assert json.loads(outputs[0].splitlines()[-1]) == [[]] * len(jobs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_train_every_stage_as_one_does(workspace, tmp_path):
    """The semantic encoder has batch normalisation, whose statistics are those of a process's own batch on a CPU."""
    jobs = []
    for stage in NO_BATCH_NORM:
        settings = [*NO_DROPOUT.get(stage, []), "run.max_steps=6", "run.log_every=1", "run.trackers=[tensorboard]"]
        settings.append("run.mixed_precision=no")  # sums of bfloat16 depend on how many are added at a time
        stages.run_stage(workspace, stage, tmp_path / f"{stage} one", *settings, "run.batch_size=4")
        jobs.append(("run_stage", stage, str(tmp_path / f"{stage} two"), *settings))
        if stage in SPLIT:
            jobs.append(("run_stage", stage, str(tmp_path / f"{stage} split"), *settings, "run.fsdp=true"))
    run_two(Path(stages.__file__), str(workspace), json.dumps(jobs), timeout=1500)
    for _, stage, folder, *_ in jobs:
        ours, whole = curves(Path(folder)), curves(tmp_path / f"{stage} one")
        assert ours.keys() == whole.keys() and any(name.startswith("grad_norm") for name in whole)
        for name, values in whole.items():
            if name != "waveform":  # a ratio of sums over the batch, which here has no weight
                assert ours[name] == pytest.approx(values, rel=1e-5, abs=1e-7), (folder, name)
    for stage in SPLIT:  # what is saved is whole as well
        weights = [load_file(file) for file in (tmp_path / f"{stage} split").glob("*model.safetensors")]
        assert len(weights) == 1 and all(torch.isfinite(tensor.float()).all() for tensor in weights[0].values())


def test_processes_of_a_split_model_may_hear_tokens_and_none(workspace, tmp_path):
    """At one sample each, half of them without tokens, some steps have both kinds, which use different weights."""
    settings = ["run.batch_size=1", "run.max_steps=8", "data.drop_tokens=0.5"]
    jobs = [("run_stage", "dual_path", str(tmp_path / "whole"), *settings)]
    jobs.append(("run_stage", "dual_path", str(tmp_path / "split"), *settings, "run.fsdp=true"))
    run_two(Path(stages.__file__), str(workspace), json.dumps(jobs))
    whole, split = (load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("whole", "split"))
    for name, tensor in whole.items():
        torch.testing.assert_close(split[name], tensor, rtol=0, atol=1e-4, msg=name)
