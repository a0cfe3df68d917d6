"""Numbers of a training step on their way to the host: read with one wait, and described where they are not finite."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from .sharding import full


def read_numbers(values: Mapping[str, float | Tensor], accelerator: Accelerator) -> dict[str, float]:
    """The values as floats, averaged over processes. The device is waited for once, however many they are.

    Numbers from the device are read as float32, and with several processes all of them are.
    """
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    numbers = {name: float(value) for name, value in values.items() if not isinstance(value, Tensor)}
    device = accelerator.device
    parts = [torch.stack([v.detach().to(device).float().reshape(()) for v in tensors.values()])] if tensors else []
    if accelerator.num_processes > 1:
        parts.append(torch.tensor(list(numbers.values())).to(device))
        means = accelerator.reduce(torch.cat(parts), reduction="mean").tolist()
        read = dict(zip([*tensors, *numbers], means))
    else:
        read = numbers | dict(zip(tensors, parts[0].tolist() if parts else ()))
    return {name: read[name] for name in values}


class FiniteCheck:
    """Notes what has to be finite in a step, and says what was not."""

    def __init__(self) -> None:
        self._values: dict[str, float | Tensor] = {}

    def note(self, **values: float | Tensor) -> None:
        """Adds values to those noted by the same names; NaN and infinity survive the sum."""
        for name, value in values.items():
            number = value.detach() if isinstance(value, Tensor) else value
            self._values[name] = self._values.get(name, 0.0) + number

    def clear(self) -> None:
        self._values.clear()

    def flags(self) -> dict[str, float | Tensor]:
        """1 for each name whose value is not finite, 0 for the others, on the device where the value is."""
        return {
            name: (~value.isfinite()).float() if isinstance(value, Tensor) else float(not math.isfinite(value))
            for name, value in sorted(self._values.items())
        }

    def describe(
        self, place: Path, step: int, bad: Sequence[str], models: Mapping[str, nn.Module], batches: Sequence[Any]
    ) -> None:
        """Writes place.json, what was not finite on any process and the values on this one, and place.safetensors.

        Args:
            bad: names of what was not finite.
            batches: (rows of the data set, batch) of each part of the step.
        """
        place.parent.mkdir(exist_ok=True)
        gradients = [
            f"{name}.{key}"
            for name, model in models.items()
            for key, parameter in model.named_parameters()
            if parameter.grad is not None and not full(parameter.grad).isfinite().all()
        ]
        rows = [row for rows, _ in batches for row in rows]
        facts = {
            "step": step,
            "not_finite": list(bad),
            "values": {name: str(float(value)) for name, value in self._values.items()},
            "rows": rows,
            "gradients_not_finite": gradients[:100],
        }
        place.with_suffix(".json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        tensors = {
            f"{i}.{key}": value.contiguous()
            for i, (_, batch) in enumerate(batches)
            for key, value in (batch.items() if isinstance(batch, Mapping) else enumerate(batch))
            if isinstance(value, Tensor)
        }
        save_file(tensors, place.with_suffix(".safetensors"))
        warnings.warn(
            f"{place.parents[1].name}, step {step}: {', '.join(bad)} not finite. No weight was changed; rows "
            f"{rows[:8]} of the data set and all else are in {place.with_suffix('.json')}",
            stacklevel=3,
        )
