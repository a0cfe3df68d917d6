"""Nothing is lost when a process dies, and nothing that is not finite reaches a weight."""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import toy
from distributed import run_two, start_two

from melody_diffusers.training_utils import TrainingRun
from melody_diffusers.training_utils.checkpoint import find_damage

HERE = Path(__file__).parent


POISONS = {"nan loss": ("loss", "nan"), "GAN term": ("adversarial", "inf"), "critic": ("critic", "nan")}
POISONS["gradient"] = ("critic", "slope")
NAMED = {"nan loss": "loss_0", "GAN term": "adversarial", "critic": "loss_1", "gradient": "grad_norm_1"}
BAD_STEPS = [2, 5, 6]
SHARED = {"dropout": 0.0, "batch_size": 4}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What came of trainings by two processes, and their folders, by name."""
    root = tmp_path_factory.mktemp("two")
    jobs = {name: {"settings": {"max_steps": 8}, "poison": (*how, BAD_STEPS)} for name, how in POISONS.items()}
    jobs["in a row"] = {"settings": {"max_steps": 8, "checkpoint_every": 2}, "poison": ("critic", "nan", [3, 4, 5, 6])}
    jobs["whole"] = {"settings": {"max_steps": 20} | SHARED}
    jobs["begun"] = {"settings": {"max_steps": 16, "checkpoint_every": 8} | SHARED}
    listed = [{"folder": str(root / name)} | job for name, job in jobs.items()]
    first, second = (json.loads(out.splitlines()[-1]) for out in run_two(HERE / "toy_jobs.py", json.dumps(listed)))
    assert first == second  # both processes have the same weights, averages and optimiser states at every step
    return {name: (result, root / name) for name, result in zip(jobs, first)}


@pytest.mark.parametrize("name", POISONS)
def test_what_is_not_finite_on_one_of_two_processes_changes_nothing_on_either(two, name):
    result, folder = two[name]
    assert result["error"] is None and torch.tensor(result["weights"]).isfinite().all()
    states = result["states"]
    for step, (before, after) in enumerate(zip(states, states[1:])):
        assert (before == after) == (step in BAD_STEPS), step
    for step in BAD_STEPS:
        told = json.loads((folder / "diagnostics" / f"step-{step:08d}-process-1.json").read_text())
        assert told["step"] == step and len(set(told["rows"])) == 4
        assert NAMED[name] in told["not_finite"]
        assert (folder / "diagnostics" / f"step-{step:08d}-process-1.safetensors").is_file()


def test_three_steps_in_a_row_that_are_not_finite_end_the_run_on_all_processes(two):
    result, folder = two["in a row"]
    assert "loss_1" in result["error"] and "3 steps in a row, up to step 6" in result["error"]
    assert find_damage(folder / "checkpoints" / "step-00000004") is None


@pytest.mark.parametrize(
    "settings", [{"batch_size": 8}, {"gradient_accumulation_steps": 2}], ids=["one part", "two parts"]
)
def test_two_processes_take_the_steps_of_one(two, tmp_path, settings):
    """The same global batch of 8, once more by one process."""
    result, _ = two["whole"]
    weights, _, losses = toy.train(tmp_path, 20, **SHARED | settings)
    if "gradient_accumulation_steps" in settings:
        losses = [sum(losses[i : i + 2]) / 2 for i in range(0, len(losses), 2)]
    assert result["losses"] == pytest.approx(losses, rel=1e-5)
    assert torch.allclose(torch.tensor(result["weights"]), weights, atol=1e-6)


def test_a_run_of_two_processes_goes_on_with_one(two, tmp_path):
    result, folder = two["begun"]
    shutil.rmtree(folder / "checkpoints" / "step-00000016")
    weights, _, losses = toy.train(folder, 16, **SHARED, gradient_accumulation_steps=2)
    losses = [sum(losses[i : i + 2]) / 2 for i in range(0, len(losses), 2)]
    assert losses == pytest.approx(result["losses"][8:], rel=1e-5)
    assert torch.allclose(torch.tensor(result["weights"]), weights, atol=1e-6)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_whose_peer_is_killed_or_frozen_ends_in_time_and_leaves_a_checkpoint(how, tmp_path):
    settings = {"max_steps": 1000, "checkpoint_every": 2, "timeout_minutes": 0.1} | SHARED
    job = {"folder": str(tmp_path), "settings": settings, "signal": [how, 7]}
    left, peer = start_two(HERE / "toy_jobs.py", json.dumps([job]))
    try:
        _, errors = left.communicate(timeout=60)  # starting takes most of it
    finally:
        left.kill()
        peer.kill()
        peer.communicate()
    assert left.returncode != 0 and "Error" in errors
    newest = max((tmp_path / "checkpoints").glob("step-*"))
    assert newest.name == "step-00000006" and find_damage(newest) is None


def test_twenty_runs_that_are_told_to_stop_at_random_times_are_gone_at_once_and_go_on_exactly(tmp_path):
    draw, reference = random.Random(0), []
    length, known = 100_000, 800  # of the schedule, and steps that are looked at

    def weights(run: TrainingRun) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for model in run.models.values() for p in model.parameters()])

    toy.train(tmp_path / "whole", length, stop_after=known, on_step=lambda run: reference.append(weights(run)))
    for trial in range(20):
        folder = tmp_path / str(trial)
        child = toy.in_another_process(toy.train_slowly, folder, length, tmp_path / f"{trial}.log")
        while not (folder / "checkpoints" / "step-00000005").exists():
            assert child.is_alive()
            time.sleep(0.01)
        time.sleep(draw.random() * 0.3)
        told = time.monotonic()
        os.kill(child.pid, draw.choice([signal.SIGTERM, signal.SIGUSR1]))
        child.join()
        assert time.monotonic() - told < 10
        assert child.exitcode == 0
        log = (tmp_path / f"{trial}.log").read_text()
        (step,) = map(int, re.findall(r"Stopped at step (\d+). To resume: python", log))
        went_on: list[torch.Tensor] = []
        toy.train(folder, length, stop_after=step + 3, on_step=lambda run, on=went_on: on.append(weights(run)))
        assert len(went_on) == 3 and all(
            torch.equal(a, b) for a, b in zip(went_on, reference[step : step + 3], strict=True)
        )


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path):
    whole, _, _ = toy.train(tmp_path / "whole", 30)
    for trial in range(5):
        folder = tmp_path / str(trial)
        child = toy.in_another_process(toy.train_and_die, folder, 30, 7 + 4 * trial)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        again, _, _ = toy.train(folder, 30)
        assert torch.equal(again, whole)


def test_a_process_that_has_run_long_enough_saves_and_leaves(tmp_path, capsys):
    whole, _, _ = toy.train(tmp_path / "whole", 9)
    visits = 0
    while True:
        try:
            again, _, _ = toy.train(tmp_path / "slices", 9, max_minutes=1e-9)
            break
        except SystemExit as leaving:
            assert leaving.code == 0
        visits += 1
    assert visits == 8 and torch.equal(again, whole)  # a step at a time, and the last one ends the training
    assert capsys.readouterr().out.count("To resume: python") == 8


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_only(tmp_path, monkeypatch, capsys):
    from melody_diffusers.training_utils import run as run_module

    write, calls = run_module.write_checkpoint, []

    def fail(*arguments):
        calls.append(arguments[1])
        if len(calls) in (2, 3):
            raise OSError("No space left on device")
        write(*arguments)

    monkeypatch.setattr(run_module, "write_checkpoint", fail)
    weights, _, _ = toy.train(tmp_path / "a", 12)
    assert (
        calls == [3, 6, 9, 12, 12] and capsys.readouterr().out.count("No space left on device. Training goes on") == 2
    )
    assert torch.equal(weights, toy.train(tmp_path / "b", 12)[0])
    monkeypatch.setattr(
        run_module, "write_checkpoint", lambda *arguments: fail("", calls.clear() or calls.extend([0, 0]))
    )
    with pytest.raises(OSError, match="No space left"):
        toy.train(tmp_path / "c", 30)
