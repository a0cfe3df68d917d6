"""torch.cuda.graph without a GPU: what is recorded on the CPU is computed when it is replayed, and not before."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from melody_diffusers import graphs
from melody_diffusers.models import decoding_step, dual_path, sru


class FakeGraph:
    """Stands in for torch.cuda.CUDAGraph: the operations that were recorded, at fixed places."""

    made: list["FakeGraph"] = []

    def __init__(self):
        self.operations, self.replays = [], 0
        self.made.append(self)

    def replay(self):
        self.replays += 1
        for function, args, kwargs, places in self.operations:
            results = function(*args, **kwargs)
            if places is not None:
                tree_map(lambda place, result: place.copy_(result), places, results)


class fake_graph(TorchDispatchMode):
    """Stands in for torch.cuda.graph. What is written while it records is not written, and results are NaN."""

    def __init__(self, graph, stream=None, capture_error_mode="global"):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                return func.decompose(*args, **kwargs)
        aliases = [each.alias_info for each in func._schema.returns if each.alias_info is not None]
        if any(each.is_write for each in aliases):
            self.graph.operations.append((func, args, kwargs, None))
            return args[0]
        results = func(*args, **kwargs)
        if not aliases:  # no view
            tree_map(lambda each: each.fill_(torch.nan) if each.is_floating_point() else each.zero_(), results)
            self.graph.operations.append((func, args, kwargs, results))
        return results


@pytest.fixture
def recorded(monkeypatch) -> list[FakeGraph]:
    """Graphs that are recorded within the test, on the CPU."""
    monkeypatch.setattr(graphs, "DEVICES", ("cpu",))
    monkeypatch.setattr(FakeGraph, "made", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", fake_graph)
    monkeypatch.setattr(graphs, "_stream", lambda device: None)
    for name in ("device", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: nullcontext())
    for module in (decoding_step, dual_path, sru):  # whose loops for a CPU are no operations of PyTorch
        monkeypatch.setattr(module, "has_numba", lambda: False)
    return FakeGraph.made
