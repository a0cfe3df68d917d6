"""The solver of `phase_gradient` as compiled loops: one pass up and one down the bins of each frame.

The matrix is Hermitian, so its factor has real pivots: for a bin k with the pull d_k of all its neighbours and the
number g_k that ties it to the bin below,

    p_k = d_k - |g_k|^2 / p_(k-1),    y_k = r_k + g_k y_(k-1) / p_(k-1),    u_k = (y_k + conj(g_(k+1)) u_(k+1)) / p_k.
"""

import math

import numpy as np
import torch

from ...compiled import compiled, run_parts


def _solve(weighted, phase, out, first, last):
    frames, bins = weighted.shape[1], weighted.shape[3]
    tiny = np.float32(1e-12)
    pivot, tied = np.empty(bins, np.float32), np.empty(bins, np.float32)
    pull, real, imag = np.empty(bins, np.float32), np.empty(bins, np.float32), np.empty(bins, np.float32)
    for b in range(first, last):
        u, v = phase[b, :, 0].copy(), phase[b, :, 1].copy()
        for n in range(frames):
            f, h, g, i = weighted[b, n, 0], weighted[b, n, 1], weighted[b, n, 2], weighted[b, n, 3]
            for k in range(bins):
                tied[k] = g[k] * g[k] + i[k] * i[k]
                pull[k] = math.sqrt(f[k] * f[k] + h[k] * h[k]) + tiny
                real[k] = f[k] * u[k] - h[k] * v[k]
                imag[k] = f[k] * v[k] + h[k] * u[k]
            tied[0] = np.float32(0.0)
            for k in range(bins):
                out[b, n, k, 0] = math.sqrt(tied[k])
            for k in range(bins - 1):
                pull[k] += out[b, n, k, 0] + out[b, n, k + 1, 0]
            pull[bins - 1] += out[b, n, bins - 1, 0]
            inverse = np.float32(1.0) / pull[0]
            pivot[0] = inverse
            for k in range(1, bins):
                x, y = inverse * real[k - 1], inverse * imag[k - 1]
                real[k] += g[k] * x - i[k] * y
                imag[k] += g[k] * y + i[k] * x
                inverse = np.float32(1.0) / (pull[k] - tied[k] * inverse)
                pivot[k] = inverse
            x, y = np.float32(0.0), np.float32(0.0)
            for k in range(bins - 1, -1, -1):
                x, y = (real[k] + x) * pivot[k], (imag[k] + y) * pivot[k]
                real[k], imag[k] = x, y
                x, y = g[k] * x + i[k] * y, g[k] * y - i[k] * x
            for k in range(bins):
                length = math.sqrt(real[k] * real[k] + imag[k] * imag[k])
                if length > tiny:
                    u[k] = real[k] / length
                    v[k] = imag[k] / length
                out[b, n, k, 0] = u[k]
                out[b, n, k, 1] = v[k]


_solve = compiled(_solve)


def solve(weighted: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """As `phase_gradient.solve_frames`: (B, N, 4, F) float32 and complex (B, F) to complex (B, N, F)."""
    batch, frames, _, bins = weighted.shape
    out = torch.empty(batch, frames, bins, 2)
    arrays = weighted.contiguous().numpy(), torch.view_as_real(phase.to(torch.complex64)).contiguous().numpy()
    run_parts(lambda _, first, last: _solve(*arrays, out.numpy(), first, last), batch, weighted.numel())
    return torch.view_as_complex(out)
