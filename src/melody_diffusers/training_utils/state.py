"""What a checkpoint holds of a run: the tensors of its models, averages and optimisers, by file."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .checkpoint import named_tensors
from .sharding import split_like

Files = dict[str, dict[str, Tensor]]


def model_tensors(models: Mapping[str, nn.Module], averages: Mapping[str, dict[str, Tensor]]) -> Files:
    """The tensors of models and averages themselves, not copies."""
    files = {f"model.{name}": named_tensors(model) for name, model in models.items()}
    return files | {f"ema.{name}": average for name, average in averages.items()}


def optimizer_tensors(optimizers: Iterable[torch.optim.Optimizer]) -> Files:
    """The states of optimisers: number of the parameter, and kind."""
    return {
        f"optimizer.{index}": {
            f"{i}.{key}": value for i, state in optimizer.state_dict()["state"].items() for key, value in state.items()
        }
        for index, optimizer in enumerate(optimizers)
    }


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def restore(files: Files, tensors: Files, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Copies what was read from a checkpoint into the tensors of `model_tensors` and into the optimisers.

    Raises:
        ValueError, KeyError, IndexError: the checkpoint is of another run.
    """
    for name, own in tensors.items():
        saved = files.get(name, {})  # nothing for a model or an average that was not there then
        if different := sorted(saved.keys() ^ own.keys()):
            raise ValueError(f"{name} differs in {', '.join(different[:4])}")
        for key, tensor in own.items():
            if saved[key].shape != tensor.shape:
                raise ValueError(f"{name}, {key} is {tuple(saved[key].shape)}, not {tuple(tensor.shape)}")
            tensor.copy_(split_like(tensor, saved[key]))
    for index, optimizer in enumerate(optimizers):
        if f"optimizer.{index}" not in files:
            raise ValueError(f"it has no optimizer {index}")
        states: dict[int, dict[str, Tensor]] = {}
        parameters = parameters_of(optimizer)
        for key, tensor in files[f"optimizer.{index}"].items():
            number, _, kind = key.partition(".")
            parameter = parameters[int(number)]
            like = split_like(parameter, tensor) if tensor.shape == parameter.shape else tensor
            states.setdefault(int(number), {})[kind] = like
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
