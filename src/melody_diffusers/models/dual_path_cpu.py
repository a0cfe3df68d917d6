"""What is no matrix product in the dual-path network, for bfloat16 on a CPU, each as one compiled operation (numba).

PyTorch makes norms, rotations and rectifiers of bfloat16 out of passes through float32 copies, which beside products in
bfloat16 are a quarter of the time. These read and write bfloat16, and compute in float32 between.

Shapes: R rows, H channels, B batch, N sequence, A heads, D their width.
"""

import numpy as np
import torch
from torch import Tensor

from ..compiled import bits, compiled, narrow, run_parts, wide

_F = np.float32


def serves(x: Tensor) -> bool:
    """Whether these may take the place of PyTorch's: nothing is to be differentiated, traced or looked into."""
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or type(x) is not Tensor:
        return False
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing())


@compiled
def _rms_norm(first, last, x, weight, eps, y):
    for r in range(first, last):
        square = _F(0)
        for j in range(x.shape[1]):
            square += wide(x[r, j]) * wide(x[r, j])
        scale = _F(1) / np.sqrt(square / _F(x.shape[1]) + eps)
        for j in range(x.shape[1]):
            y[r, j] = narrow(wide(x[r, j]) * scale * weight[j], y)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis."""
    x = x.contiguous()
    y = torch.empty_like(x)
    arrays = (
        bits(x).reshape(-1, x.shape[-1]),
        weight.detach().float().numpy(),
        _F(eps),
        bits(y).reshape(-1, x.shape[-1]),
    )
    run_parts(lambda _, first, last: _rms_norm(first, last, *arrays), len(arrays[0]), x.numel())
    return y


@compiled
def _rotate(first, last, x, cos, sin, y):
    heads, half = x.shape[1], x.shape[2] // 2
    for r in range(first, last):
        t = r % len(cos)
        for h in range(heads):
            for j in range(half):
                a, b = wide(x[r, h, j]), wide(x[r, h, j + half])
                y[r, h, j] = narrow(a * cos[t, j] - b * sin[t, j], y)
                y[r, h, j + half] = narrow(b * cos[t, j] + a * sin[t, j], y)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (j, j + D / 2) of (B, N, A, D), turned by angles: cosines and sines (N, D), twice the same half."""
    x = x.contiguous()
    y = torch.empty_like(x)
    half = x.shape[-1] // 2
    turns = [each[:, :half].float().contiguous().numpy() for each in (cos, sin)]
    arrays = bits(x).reshape(-1, *x.shape[2:]), *turns, bits(y).reshape(-1, *x.shape[2:])
    run_parts(lambda _, first, last: _rotate(first, last, *arrays), len(arrays[0]), x.numel())
    return y


@compiled
def _gelu(first, last, x):
    for r in range(first, last):
        for j in range(x.shape[1]):
            v = wide(x[r, j])
            z = v * _F(0.7071067811865476)
            z = _F(4) if z > _F(4) else (_F(-4) if z < _F(-4) else z)  # NaN stays
            s = z * z
            # erf(z) by a rational function, to 4e-7 (that of Eigen)
            p = _F(-2.72614225801306e-10)
            p = p * s + _F(2.77068142495902e-08)
            p = p * s + _F(-2.10102402082508e-06)
            p = p * s + _F(-5.69250639462346e-05)
            p = p * s + _F(-7.34990630326855e-04)
            p = p * s + _F(-2.95459980854025e-03)
            p = p * s + _F(-1.60960333262415e-02)
            q = _F(-1.45660718464996e-05)
            q = q * s + _F(-2.13374055278905e-04)
            q = q * s + _F(-1.68282697438203e-03)
            q = q * s + _F(-7.37332916720468e-03)
            q = q * s + _F(-1.42647390514189e-02)
            x[r, j] = narrow(_F(0.5) * v * (_F(1) + z * p / q), x)


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), with the distribution function of the normal distribution, in the memory of x where that is contiguous.

    As large as the inner layer is, to ask the system for as much again would take as long as the arithmetic.
    """
    x = x.contiguous()
    array = bits(x).reshape(-1, x.shape[-1])
    run_parts(lambda _, first, last: _gelu(first, last, array), len(array), x.numel())
    return x
