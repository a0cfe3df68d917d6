"""The SRU's recurrence on a CPU as one compiled operation, forward and backward (numba).

It reads the projection as it lies in memory, so that nothing is flipped, transposed or stacked, and keeps the state of
a sequence in the processor's cache. `sru_scan_reference` in `sru.py` defines the values.

Shapes: N sequences, K time steps, H channels of one direction. Axis of size 2: forward and backward direction; axis of
size 3: candidate, forget, reset.
"""

import numpy as np
import torch

from ..compiled import bits, compiled, narrow, num_parts, run_parts, wide

_F = np.float32


@compiled
def _sigmoid(x):
    """1 / (1 + exp(-x)) to 3e-7, by a rational function for tanh(x / 2) (that of Eigen), which can be vectorized."""
    y = _F(0.5) * (_F(18) if x > _F(18) else (_F(-18) if x < _F(-18) else x))  # NaN stays
    z = y * y
    p = _F(-2.76076847742355e-16)
    p = p * z + _F(2.00018790482477e-13)
    p = p * z + _F(-8.60467152213735e-11)
    p = p * z + _F(5.12229709037114e-08)
    p = p * z + _F(1.48572235717979e-05)
    p = p * z + _F(6.37261928875436e-04)
    p = p * z + _F(4.89352455891786e-03)
    q = _F(1.19825839466702e-06)
    q = q * z + _F(1.18534705686654e-04)
    q = q * z + _F(2.26843463243900e-03)
    q = q * z + _F(4.89352518554385e-03)
    return _F(0.5) * (p * y / q) + _F(0.5)


@compiled
def _forward(first, last, u, x, v, b, h):
    """h (N, K, 2 H) of the sequences `first` to `last`."""
    K, H = u.shape[1], u.shape[4]
    cell = np.empty(H, _F)
    for n in range(first, last):
        for d in range(2):
            cell[:] = 0
            for step in range(K):
                t = step if d == 0 else K - 1 - step
                for j in range(H):
                    c, candidate, skip = cell[j], wide(u[n, t, d, 0, j]), wide(x[n, t, d * H + j])
                    f = _sigmoid(wide(u[n, t, d, 1, j]) + b[d, 0, j] + v[d, 0, j] * c)
                    r = _sigmoid(wide(u[n, t, d, 2, j]) + b[d, 1, j] + v[d, 1, j] * c)
                    c = candidate + f * (c - candidate)
                    cell[j] = c
                    h[n, t, d * H + j] = narrow(skip + r * (c - skip), h)


@compiled
def _backward(first, last, u, x, v, b, dh, du, dx, dv, db):
    """Gradients of the sequences `first` to `last`; `dv` and `db` (2, 2, H) are added up over them.

    Cells and gates are computed again: to keep them for all sequences would take more memory than all else.
    """
    K, H = u.shape[1], u.shape[4]
    cells, gates = np.empty((K, H), _F), np.empty((K, 2, H), _F)
    carry = np.empty(H, _F)
    for n in range(first, last):
        for d in range(2):
            for step in range(K):
                t = step if d == 0 else K - 1 - step
                for j in range(H):
                    c = cells[step - 1, j] if step > 0 else _F(0)
                    f = _sigmoid(u[n, t, d, 1, j] + b[d, 0, j] + v[d, 0, j] * c)
                    gates[step, 0, j] = f
                    gates[step, 1, j] = _sigmoid(u[n, t, d, 2, j] + b[d, 1, j] + v[d, 1, j] * c)
                    cells[step, j] = u[n, t, d, 0, j] + f * (c - u[n, t, d, 0, j])
            carry[:] = 0
            for step in range(K - 1, -1, -1):
                t = step if d == 0 else K - 1 - step
                for j in range(H):
                    before = cells[step - 1, j] if step > 0 else _F(0)
                    f, r, c = gates[step, 0, j], gates[step, 1, j], cells[step, j]
                    g, skip = dh[n, t, d * H + j], x[n, t, d * H + j]
                    dr = g * (c - skip) * r * (_F(1) - r)
                    dc = carry[j] + g * r
                    df = dc * (before - u[n, t, d, 0, j]) * f * (_F(1) - f)
                    du[n, t, d, 0, j] = dc * (_F(1) - f)
                    du[n, t, d, 1, j] = df
                    du[n, t, d, 2, j] = dr
                    dx[n, t, d * H + j] = g * (_F(1) - r)
                    carry[j] = dc * f + df * v[d, 0, j] + dr * v[d, 1, j]
                    dv[d, 0, j] += df * before
                    dv[d, 1, j] += dr * before
                    db[d, 0, j] += df
                    db[d, 1, j] += dr


def _scan(projected, x, cell_weight, gate_bias):
    h = torch.empty_like(x)
    arrays = [bits(tensor) for tensor in (projected, x, cell_weight, gate_bias, h)]
    run_parts(lambda _, first, last: _forward(first, last, *arrays), len(x), x.numel())
    return h


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, projected, x, cell_weight, gate_bias):
        h = _scan(projected, x, cell_weight, gate_bias)
        ctx.save_for_backward(projected, x, cell_weight, gate_bias)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_h):
        inputs = projected, x, cell_weight, _ = ctx.saved_tensors  # once: checkpointing allows no more
        grad_projected, grad_x = torch.empty_like(projected), torch.empty_like(x)
        weights = torch.zeros(2, num_parts(len(x), x.numel()), *cell_weight.shape)  # (weight or bias, parts, 2, 2, H)
        tensors = (*inputs, grad_h.contiguous(), grad_projected, grad_x)
        arrays = [tensor.detach().numpy() for tensor in tensors]
        sums = weights.numpy()
        run_parts(lambda i, first, last: _backward(first, last, *arrays, *sums[:, i]), len(x), x.numel())
        return grad_projected, grad_x, *weights.sum(1)


def sru_cpu(
    projected: torch.Tensor, x: torch.Tensor, cell_weight: torch.Tensor, gate_bias: torch.Tensor
) -> torch.Tensor:
    """The recurrence of one bidirectional layer whose input is its own highway; computed in float32.

    Args:
        projected: `W x`, (N, K, 2, 3, H).
        x: the layer's input, (N, K, 2 H); forward channels first.
        cell_weight: `v^f` and `v^r`, (2, 2, H); axis 0 holds the direction, axis 1 forget, reset.
        gate_bias: `b^f` and `b^r`, likewise.

    Returns:
        `h`, (N, K, 2 H), in the dtype of `x`.
    """
    # Copies: numpy would pin the storage of a parameter, which FSDP resizes.
    weights = [each.float().clone(memory_format=torch.contiguous_format) for each in (cell_weight, gate_bias)]
    if projected.dtype == x.dtype == torch.bfloat16 and not torch.is_grad_enabled():  # no copies in float32
        return _scan(projected.contiguous(), x.contiguous(), *weights)
    return _Scan.apply(projected.float().contiguous(), x.float().contiguous(), *weights).to(x.dtype)
