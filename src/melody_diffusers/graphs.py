"""CUDA graphs: work of fixed shapes is recorded once, and then launched as one.

A network of a thousand small operations keeps the host longer than the GPU. A recording of them costs one launch.
"""

import logging
import threading
from collections.abc import Callable, Hashable
from functools import cache

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)
DEVICES = ("cuda",)
LEAST_CALLS = 8  # that a recording, which costs about two, is made for
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_hf_hook", "_diffusers_hook", "_compiled_call_impl")
KNOWN = ("torch.nn.", "melody_diffusers.")  # modules that compute the same each time, from inputs and weights alone
_ONE_AT_A_TIME = threading.Lock()  # as torch demands


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """In which is recorded on this device. torch's own choice may lie on another one, where nothing would be recorded;
    and a new one each time would leave its cuBLAS workspace behind."""
    return torch.cuda.Stream(device)


class Recording:
    """A function of tensors, replayed on a CUDA device from its second call on; elsewhere it is simply called.

    The first call of new shapes runs the function, which also loads its kernels. The second one records it. Where that
    fails, the function is called each time.

    Args:
        function: from tensors to one tensor. With equal shapes it does the same work at the same places, and it waits
            for nothing.
        num_calls: how often it is going to be called; for fewer than `LEAST_CALLS` nothing is recorded.
        state: asked at each call. A recording holds for as long as the answer is the same; None forbids one.
    """

    def __init__(
        self, function: Callable[..., Tensor], num_calls: int, state: Callable[[], Hashable | None] = lambda: ()
    ) -> None:
        self.function, self.state, self.worth_it = function, state, num_calls >= LEAST_CALLS
        self._key: Hashable = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value; a later call leaves it as it is."""
        key = self._key_of(inputs)
        if key is None:
            return self.function(*inputs)
        if key != self._key:
            self._key, self._graph = key, None
            return self.function(*inputs)
        if self._graph is None and not self._record(inputs):
            return self.function(*inputs)
        for mine, given in zip(self._inputs, inputs):
            mine.copy_(given)
        self._graph.replay()
        return self._output.clone()

    def _key_of(self, inputs: tuple[Tensor, ...]) -> Hashable | None:
        if not self.worth_it or torch.is_grad_enabled() or any(each.device.type not in DEVICES for each in inputs):
            return None
        state = self.state()
        return None if state is None else (state, *((each.shape, each.dtype, each.device) for each in inputs))

    def _record(self, inputs: tuple[Tensor, ...]) -> bool:
        self._inputs, graph = [each.clone() for each in inputs], torch.cuda.CUDAGraph()
        device = inputs[0].device
        try:
            # torch.cuda.graph does not put the stream back where recording fails.
            with _ONE_AT_A_TIME, torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
                with torch.cuda.graph(graph, stream=_stream(device), capture_error_mode="thread_local"):
                    self._output = self.function(*self._inputs)
        except RuntimeError as error:
            logger.debug(f"Runs without a CUDA graph: {error}")
            self.worth_it = False
            return False
        self._graph = graph
        return True


def state_of(model: nn.Module) -> Hashable | None:
    """Where the model's weights and buffers lie; None where anything else decides what its forward does.

    That is: training, hooks (and with them offloading), adapters, quantized or compiled layers, and classes from
    elsewhere, whose Python a replay would not run.
    """
    places: list[int] = []
    classes: set[type] = set()
    for module in model.modules():
        own = vars(module)
        if own["training"] or "forward" in own or any(own.get(name) for name in HOOKS):
            return None
        classes |= {type(module), type(own.get("processor", module))}
        for tensor in (*own["_parameters"].values(), *own["_buffers"].values()):
            if tensor is not None:
                if type(tensor) not in (Tensor, nn.Parameter):
                    return None
                places.append(tensor.data_ptr())
    return tuple(places) if all(f"{each.__module__}.".startswith(KNOWN) for each in classes) else None
