"""The SRU scan of sru.py as one CUDA kernel, and its gradients as another, in Triton.

A program takes one sequence, one direction and a block of channels through all time steps, with the state in registers.
It reads the projection's output and the highway input where they lie, so nothing is reversed, transposed, cast or
copied before it. The gates depend on the last cell, so the recurrence is not linear, and no parallel scan computes it.

For the backward pass nothing is kept but the inputs: it runs the recurrence once more and lays its cells aside.

Shapes: N sequences, K time steps, H channels of one direction; 2 directions, forward first; 3 projections: candidate,
forget, reset.
"""

import logging

import torch
import triton
import triton.language as tl
from torch import Tensor

logger = logging.getLogger(__name__)


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _place(n, d, s, K, H, j):
    """Where time step s of direction d stands in (N, K, 2, H); the backward direction starts at the end."""
    t = n * K + d * (K - 1 - s) + (1 - d) * s
    return (t * 2 + d) * H + j


@triton.jit
def _gates(u, vf, vr, bf, br, c, place, m, H, j):
    """Candidate, forget and reset gate of one step after the cell c."""
    u += 3 * (place - j) + j
    candidate = tl.load(u, m, 0.0).to(tl.float32)
    f = _sigmoid(tl.load(u + H, m, 0.0).to(tl.float32) + bf + vf * c)
    r = _sigmoid(tl.load(u + 2 * H, m, 0.0).to(tl.float32) + br + vr * c)
    return candidate, f, r


@triton.jit
def _forward(u, x, v, b, h, K, H, BLOCK: tl.constexpr):
    n, d = tl.program_id(0).to(tl.int64), tl.program_id(1)
    j = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    m, of = j < H, 2 * d * H + j
    vf, vr = tl.load(v + of, m, 0.0).to(tl.float32), tl.load(v + of + H, m, 0.0).to(tl.float32)
    bf, br = tl.load(b + of, m, 0.0).to(tl.float32), tl.load(b + of + H, m, 0.0).to(tl.float32)
    c = tl.full([BLOCK], 0.0, tl.float32)
    for s in range(K):
        place = _place(n, d, s, K, H, j)
        candidate, f, r = _gates(u, vf, vr, bf, br, c, place, m, H, j)
        c = f * c + (1 - f) * candidate
        skip = tl.load(x + place, m, 0.0).to(tl.float32)
        tl.store(h + place, (r * c + (1 - r) * skip).to(h.dtype.element_ty), m)


@triton.jit
def _backward(dh, u, x, v, b, cells, du, dx, dv, db, K, H, BLOCK: tl.constexpr):
    n, d = tl.program_id(0).to(tl.int64), tl.program_id(1)
    j = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    m, of = j < H, 2 * d * H + j
    vf, vr = tl.load(v + of, m, 0.0).to(tl.float32), tl.load(v + of + H, m, 0.0).to(tl.float32)
    bf, br = tl.load(b + of, m, 0.0).to(tl.float32), tl.load(b + of + H, m, 0.0).to(tl.float32)
    c = tl.full([BLOCK], 0.0, tl.float32)
    for s in range(K):  # the cell before each step
        place = _place(n, d, s, K, H, j)
        tl.store(cells + place, c, m)
        candidate, f, r = _gates(u, vf, vr, bf, br, c, place, m, H, j)
        c = f * c + (1 - f) * candidate
    tl.debug_barrier()  # what one thread wrote another may read
    dc = tl.full([BLOCK], 0.0, tl.float32)  # of the cell after the step
    dvf, dvr = tl.full([BLOCK], 0.0, tl.float32), tl.full([BLOCK], 0.0, tl.float32)
    dbf, dbr = tl.full([BLOCK], 0.0, tl.float32), tl.full([BLOCK], 0.0, tl.float32)
    for i in range(K):
        place = _place(n, d, K - 1 - i, K, H, j)
        before = tl.load(cells + place, m, 0.0)
        candidate, f, r = _gates(u, vf, vr, bf, br, before, place, m, H, j)
        c = f * before + (1 - f) * candidate
        dh_t = tl.load(dh + place, m, 0.0).to(tl.float32)
        skip = tl.load(x + place, m, 0.0).to(tl.float32)
        dc += dh_t * r
        dr = dh_t * (c - skip) * r * (1 - r)  # of the gates' arguments
        df = dc * (before - candidate) * f * (1 - f)
        at = du + 3 * (place - j) + j
        tl.store(at, (dc * (1 - f)).to(du.dtype.element_ty), m)
        tl.store(at + H, df.to(du.dtype.element_ty), m)
        tl.store(at + 2 * H, dr.to(du.dtype.element_ty), m)
        tl.store(dx + place, (dh_t * (1 - r)).to(dx.dtype.element_ty), m)
        dc = dc * f + df * vf + dr * vr
        dvf += df * before
        dvr += dr * before
        dbf += df
        dbr += dr
    of += n * 4 * H
    tl.store(dv + of, dvf, m)
    tl.store(dv + of + H, dvr, m)
    tl.store(db + of, dbf, m)
    tl.store(db + of + H, dbr, m)


def _launch(kernel, projected: Tensor, *arguments: Tensor) -> None:
    """Runs the kernel, whose arguments are contiguous, on the device that holds them."""
    num_sequences, num_steps, _, _, hidden_size = projected.shape
    block = min(128, triton.next_power_of_2(hidden_size))
    if num_sequences * num_steps:
        with torch.cuda.device_of(projected):
            kernel[num_sequences, 2, triton.cdiv(hidden_size, block)](*arguments, num_steps, hidden_size, BLOCK=block)


@torch.library.custom_op("melody_diffusers::sru", mutates_args=())
def sru_triton(projected: Tensor, x: Tensor, cell_weight: Tensor, gate_bias: Tensor) -> Tensor:
    """`h` of the recurrence in sru.py, with its gradients for all four arguments; the state is kept in float32.

    Args:
        projected: `u`, the projection's output as it is, (N, K, 2, 3, H).
        x: the highway input, (N, K, 2 H).
        cell_weight: `v^f` and `v^r` of each direction, (2, 2, H).
        gate_bias: `b^f` and `b^r` of each direction, (2, 2, H).

    Returns:
        (N, K, 2 H) in x's dtype, forward channels first.
    """
    inputs = [each.contiguous() for each in (projected, x, cell_weight, gate_bias)]
    h = torch.empty_like(inputs[1])
    _launch(_forward, inputs[0], *inputs, h)
    return h


@torch.library.custom_op("melody_diffusers::sru_backward", mutates_args=())
def _sru_backward(
    grad_h: Tensor, projected: Tensor, x: Tensor, cell_weight: Tensor, gate_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `sru_triton` for `projected`, `x` and, one after the other in float32, both kinds of weights."""
    grad_h, *inputs = [each.contiguous() for each in (grad_h, projected, x, cell_weight, gate_bias)]
    grad_projected, grad_x = torch.empty_like(inputs[0]), torch.empty_like(inputs[1])
    cells = torch.empty_like(grad_x, dtype=torch.float32)
    # Each sequence has its own sums, added afterwards: atomic additions would come in another order each time.
    of_weights = cells.new_zeros(2, len(x), *cell_weight.shape)
    _launch(_backward, inputs[0], grad_h, *inputs, cells, grad_projected, grad_x, *of_weights)
    return grad_projected, grad_x, of_weights.sum(1)


@sru_triton.register_fake
def _(projected, x, cell_weight, gate_bias):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@_sru_backward.register_fake
def _(grad_h, projected, x, cell_weight, gate_bias):
    of_inputs = (torch.empty_like(each, memory_format=torch.contiguous_format) for each in (projected, x))
    return *of_inputs, cell_weight.new_empty(2, *cell_weight.shape, dtype=torch.float32)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad_h: Tensor):
    inputs = _, _, cell_weight, gate_bias = ctx.saved_tensors  # once: checkpointing allows no more
    grad_projected, grad_x, of_weights = _sru_backward(grad_h, *inputs)
    return grad_projected, grad_x, of_weights[0].to(cell_weight.dtype), of_weights[1].to(gate_bias.dtype)


sru_triton.register_autograd(_differentiate, setup_context=_keep)


def is_usable(device: torch.device) -> bool:
    """Whether Triton compiles for the device: it needs a C compiler, and a GPU that it knows."""
    try:
        zeros = torch.zeros(1, 16, 2, 3, 128, device=device)
        weight = zeros[0, :2, :, 0]
        sru_triton(zeros, zeros[:, :, :, 0].flatten(2), weight, weight)
    except Exception as error:
        logger.warning(f"The SRU runs without its kernel, slower, as Triton cannot compile it for {device}: {error}")
        return False
    return True
