"""Simple recurrent unit (Lei et al. 2018), bidirectional: the recurrence of the fine path (paper, section 4.2).

With `u = W x`, for each channel and each time step t:

    f_t = sigmoid(u^f_t + v^f * c_{t-1} + b^f)          forget gate
    r_t = sigmoid(u^r_t + v^r * c_{t-1} + b^r)          reset gate
    c_t = f_t * c_{t-1} + (1 - f_t) * u^c_t             cell
    h_t = r_t * c_t + (1 - r_t) * x_t                   highway output

Every matrix product lies outside the recurrence, so the scan over time is element-wise. `sru_scan_reference` says so
in the plainest way; `sru_scan` computes the same values with three fused operations a step and its own backward pass,
on any device. Where the hardware has a kernel of its own (`fused_scan`) a layer takes that.

Shapes: N sequences, K time steps, H channels of one direction. Scans run time-first: (K, N, 2, H), where axis 2 holds
the forward and the backward direction, the latter already reversed in time.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from ..devices import has_numba


def sru_scan_reference(
    candidate: torch.Tensor, gates: torch.Tensor, skip: torch.Tensor, cell_weight: torch.Tensor
) -> torch.Tensor:
    """The recurrence above, written as a loop: the definition that `sru_scan` has to equal.

    Args:
        candidate: `u^c`, (K, N, 2, H).
        gates: `u^f + b^f` and `u^r + b^r`, (K, N, 2, 2, H); axis 3 holds forget, reset.
        skip: the highway input `x`, (K, N, 2, H).
        cell_weight: `v^f` and `v^r`, (2, 2, H); axis 0 holds the direction, axis 1 forget, reset.

    Returns:
        `h`, (K, N, 2, H).
    """
    cell = torch.zeros_like(candidate[0])
    outputs = []
    for u, gate, x in zip(candidate, gates, skip, strict=True):
        f, r = torch.sigmoid(gate + cell_weight * cell.unsqueeze(-2)).unbind(-2)
        cell = f * cell + (1 - f) * u
        outputs.append(r * cell + (1 - r) * x)
    return torch.stack(outputs)


class _Scan(torch.autograd.Function):
    """Cells and gates of the recurrence. Keeps both for the backward pass, so nothing is computed twice."""

    @staticmethod
    def forward(ctx, candidate, gates, cell_weight):
        cells = torch.empty_like(candidate)
        gates = gates.clone()
        cell = torch.zeros_like(candidate[0])
        for t in range(candidate.shape[0]):
            gates[t].addcmul_(cell_weight, cell.unsqueeze(-2)).sigmoid_()
            cell = torch.lerp(candidate[t], cell, gates[t, ..., 0, :], out=cells[t])
        ctx.save_for_backward(candidate, gates, cell_weight, cells)
        return cells, gates[..., 1, :].contiguous()

    @staticmethod
    def backward(ctx, grad_cells, grad_reset):
        candidate, gates, cell_weight, cells = ctx.saved_tensors
        previous = torch.cat([torch.zeros_like(cells[:1]), cells[:-1]])
        forget, reset = gates.unbind(-2)
        slope = gates * (1 - gates)  # of both sigmoids
        forget_slope = slope[..., 0, :] * (previous - candidate)  # d c_t / d (forget gate's argument)
        grad_gates = torch.empty_like(gates)
        grad_gates[..., 1, :] = grad_reset * slope[..., 1, :]
        # What c_{t-1} passes on through the reset gate does not depend on the recurrence: one product for all steps.
        grad_cells = grad_cells.clone()
        grad_cells[:-1].addcmul_(grad_gates[1:, ..., 1, :], cell_weight[:, 1])
        # d c_t / d c_{t-1}, directly and through the forget gate.
        carry = torch.addcmul(forget, forget_slope, cell_weight[:, 0])
        for t in range(len(cells) - 1, 0, -1):
            grad_cells[t - 1].addcmul_(grad_cells[t], carry[t])
        grad_gates[..., 0, :] = grad_cells * forget_slope
        grad_candidate = grad_cells * (1 - forget)
        grad_cell_weight = (grad_gates * previous.unsqueeze(-2)).sum((0, 1))
        return grad_candidate, grad_gates, grad_cell_weight


def sru_scan(
    candidate: torch.Tensor, gates: torch.Tensor, skip: torch.Tensor, cell_weight: torch.Tensor
) -> torch.Tensor:
    """`sru_scan_reference`, faster: same arguments, same values and gradients."""
    cells, reset = _Scan.apply(candidate, gates, cell_weight)
    return torch.lerp(skip, cells, reset)


@cache
def _has_sru_triton(device: torch.device) -> bool:
    try:
        from .sru_triton import is_usable
    except ImportError:  # PyTorch brings Triton for CUDA only
        return False
    return is_usable(device)


@torch.compiler.assume_constant_result
def has_sru_triton(device: torch.device) -> bool:
    """Whether the device is a GPU that Triton compiles for. (The compiler looks through caches, and past this.)"""
    return _has_sru_triton(device)


def fused_scan(projected: torch.Tensor) -> Callable | None:
    """The whole recurrence as one operation, with the arguments of `sru_cpu`; None where there is none."""
    if projected.dtype == torch.float64 or type(projected) is not torch.Tensor:
        return None
    if projected.is_cuda and has_sru_triton(projected.device):
        from .sru_triton import sru_triton

        return sru_triton
    if projected.device.type == "cpu" and not torch.compiler.is_compiling() and has_numba():
        from .sru_cpu import sru_cpu

        return sru_cpu
    return None


class SRULayer(nn.Module):
    """One bidirectional layer: (N, K, input_size) -> (N, K, 2 * hidden_size), forward channels first.

    Where the input is as wide as the output it is the highway input itself; otherwise a fourth projection makes it.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.num_projections = 3 if input_size == 2 * hidden_size else 4  # candidate, forget, reset (, highway)
        self.projection = nn.Linear(input_size, 2 * self.num_projections * hidden_size, bias=False)
        self.cell_weight = nn.Parameter(torch.zeros(2, 2, hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(2, 2, hidden_size))
        # Lei et al., section 3.2: a uniform W of variance 1/d keeps the state's scale through the layers.
        bound = (3 / input_size) ** 0.5
        nn.init.uniform_(self.projection.weight, -bound, bound)

    def forward(self, x: torch.Tensor, scan: Callable | None = None) -> torch.Tensor:
        u = self.projection(x).unflatten(-1, (2, self.num_projections, self.hidden_size))  # (N, K, 2, P, H)
        if scan is None and self.num_projections == 3 and (fused := fused_scan(u)) is not None:
            return fused(u, x, self.cell_weight, self.gate_bias)
        scan = scan or sru_scan
        u = torch.stack([u[:, :, 0], u[:, :, 1].flip(1)], dim=2).transpose(0, 1)  # (K, N, 2, P, H)
        u = u.to(torch.promote_types(u.dtype, self.cell_weight.dtype))  # under autocast the state stays in float32
        if self.num_projections == 4:
            skip = u[..., 3, :]
        else:
            skip = x.unflatten(-1, (2, self.hidden_size)).to(u.dtype)
            skip = torch.stack([skip[:, :, 0], skip[:, :, 1].flip(1)], dim=2).transpose(0, 1)
        h = scan(u[..., 0, :].contiguous(), u[..., 1:3, :] + self.gate_bias, skip, self.cell_weight)  # (K, N, 2, H)
        h = h.transpose(0, 1)  # (N, K, 2, H)
        return torch.cat([h[:, :, 0], h[:, :, 1].flip(1)], dim=-1).to(x.dtype)  # (N, K, 2H)


class SRU(nn.Module):
    """Stack of bidirectional SRU layers: (N, K, input_size) -> (N, K, 2 * hidden_size).

    Args:
        input_size: channels of the input.
        hidden_size: channels of each direction.
        num_layers: layers in the stack; the paper uses 2.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 2):
        super().__init__()
        sizes = [input_size] + [2 * hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(SRULayer(size, hidden_size) for size in sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x
