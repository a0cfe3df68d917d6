"""Moving averages of the weights, which are what a finished training writes."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverages:
    """The averages of the trainable parameters of some models: `tensors`, by model and name of the parameter."""

    def __init__(self, models: Mapping[str, nn.Module], names: Iterable[str], decay: float | None) -> None:
        self._models, self._decay = models, decay or 0.0
        self.tensors: dict[str, dict[str, Tensor]] = {
            name: {key: p.detach().clone() for key, p in models[name].named_parameters() if p.requires_grad}
            for name in (names if decay is not None else ())
        }

    def update(self, step: int) -> None:
        """Moves the averages towards the weights after optimiser step `step`, counted from 1."""
        for name, average in self.tensors.items():
            decay = min(self._decay, step / (9 + step))  # early averages follow closely
            live = {key: parameter.detach() for key, parameter in self._models[name].named_parameters()}
            get_ema_multi_avg_fn(decay)(list(average.values()), [live[key] for key in average], None)

    def load(self) -> dict[nn.Parameter, Tensor]:
        """Puts the averages into the models; gives the weights that were there."""
        live = {}
        for name, average in self.tensors.items():
            for key, parameter in self._models[name].named_parameters():
                if key in average:
                    live[parameter] = parameter.detach().clone()
                    parameter.data.copy_(average[key])
        return live

    @contextlib.contextmanager
    def loaded(self) -> Iterator[None]:
        """Within the context the models carry the averages."""
        live = self.load()
        try:
            yield
        finally:
            for parameter, weights in live.items():
                parameter.data.copy_(weights)
