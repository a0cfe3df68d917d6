"""Run by test_training.py on two processes: trainings one after another, some with losses that are not finite.

Takes a JSON list of {"folder", "settings", "poison": [which loss, how, at which steps], "signal": [which, at which
step]} and prints what came of each as one JSON line. Only the second process is poisoned or gets a signal.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor

from melody_diffusers.training_utils import TrainingRun

sys.path.insert(0, str(Path(__file__).parents[1]))
import toy  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = []
    for job in json.loads(sys.argv[1]):
        name, kind, steps = job.get("poison", ("", "", []))
        states: list[list[float]] = []

        def poison(run: TrainingRun, loss_name: str, loss: Tensor, name=name, kind=kind, steps=steps) -> Tensor:
            if (loss_name, run.accelerator.process_index) != (name, 1) or run.step not in steps:
                return loss
            if kind == "slope":  # the loss is finite, its gradient is not
                return loss + ((loss - loss.detach()) * 0).abs().sqrt()
            return loss * float(kind)

        def note(run: TrainingRun, states=states, job=job) -> None:
            if run.accelerator.process_index == 1 and run.step == job.get("signal", [0, -1])[1]:
                os.kill(os.getpid(), job["signal"][0])
            tensors = [tensor for parts in run._tensors().values() for tensor in parts.values()]
            tensors += [t for o in run._optimizers for state in o.state.values() for t in state.values()]
            states.append([float(tensor.double().sum()) for tensor in tensors])

        result = {"error": None, "weights": None, "losses": None, "states": states}
        try:
            weights, _, losses = toy.train(job["folder"], on_step=note, poison=poison, **job["settings"])
            result |= {"weights": weights.tolist(), "losses": losses}
        except FloatingPointError as error:
            result["error"] = str(error)
        results.append(result)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
