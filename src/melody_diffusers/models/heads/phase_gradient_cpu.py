"""The two dear parts of `phase_gradient` as compiled loops: the network, for use, and the solver.

Shapes: B batch, N spectra, F frequency bins, C channels.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ...compiled import compiled, run_parts

_F = np.float32
TAPS = 9  # bins that the network's convolution reads, written out in `_network`


@compiled
def _network(first, last, log, around, around_bias, middle, middle_bias, ends, ends_bias, turn, out):
    # log (B, N + frames - 1, F + TAPS - 1); around (C, frames, TAPS); middle (C, C); ends (4, C); turn (2, F);
    # out (B, N, 4, F). Every inner loop runs along the bins.
    channels, frames = around.shape[0], around.shape[1]
    count, bins = out.shape[1], out.shape[3]
    x, y = np.empty((channels, bins), np.float32), np.empty((channels, bins), np.float32)
    for place in range(first, last):
        b, n = place // count, place % count
        for c in range(channels):
            row = x[c]
            row[:] = around_bias[c]
            for j in range(frames):
                a, w = log[b, n + j], around[c, j]
                w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
                for k in range(bins):
                    row[k] += (
                        w0 * a[k]
                        + w1 * a[k + 1]
                        + w2 * a[k + 2]
                        + w3 * a[k + 3]
                        + w4 * a[k + 4]
                        + w5 * a[k + 5]
                        + w6 * a[k + 6]
                        + w7 * a[k + 7]
                        + w8 * a[k + 8]
                    )
            for k in range(bins):
                row[k] = max(row[k], _F(0))
        for c in range(channels):
            row = y[c]
            row[:] = middle_bias[c]
            for d in range(channels):
                w0, a = middle[c, d], x[d]
                for k in range(bins):
                    row[k] += w0 * a[k]
            for k in range(bins):
                row[k] = max(row[k], _F(0))
        for c in range(4):
            row = out[b, n, c]
            row[:] = ends_bias[c]
            for d in range(channels):
                w0, a = ends[c, d], y[d]
                for k in range(bins):
                    row[k] += w0 * a[k]
        made = out[b, n]
        for k in range(bins):
            real, imaginary = made[0, k], made[1, k]
            made[0, k] = real * turn[0, k] - imaginary * turn[1, k]
            made[1, k] = real * turn[1, k] + imaginary * turn[0, k]
            made[2, k] = -made[2, k]
            made[3, k] = -made[3, k]


def network(log: Tensor, turn: Tensor, *weights: Tensor) -> Tensor:
    """What `PhaseNetwork` makes of padded log magnitudes (B, N + frames - 1, F + TAPS - 1): (B, N, 4, F).

    Args:
        turn: cosine and sine of what a tone in the middle of each bin turns from frame to frame, (2, F).
        weights: of the convolution (C, 1, frames, TAPS), the layer (C, C, 1, 1) and the last (4, C, 1, 1), each
            followed by its bias.
    """
    around, around_bias, middle, middle_bias, ends, ends_bias = (
        w.detach().float().contiguous().numpy() for w in weights
    )
    frames = around.shape[2]
    out = torch.empty(len(log), log.shape[1] - frames + 1, 4, turn.shape[1])
    arrays = (
        log.contiguous().numpy(),
        around[:, 0],
        around_bias,
        middle[:, :, 0, 0],
        middle_bias,
        ends[:, :, 0, 0],
        ends_bias,
    )
    run_parts(
        lambda _, first, last: _network(first, last, *arrays, turn.contiguous().numpy(), out.numpy()),
        out.shape[0] * out.shape[1],
        out.numel(),
    )
    return out


@compiled
def _solve(first, last, magnitude, onward, end, phase, coupling, out):
    """One pass up and one down the bins of each frame. The matrix is Hermitian, so its factor has real pivots: for a
    bin k with the pull d_k of all its neighbours and the number g_k that ties it to the bin below,

        p_k = d_k - |g_k|^2 / p_(k-1),   y_k = r_k + g_k y_(k-1) / p_(k-1),   u_k = (y_k + conj(g_(k+1)) u_(k+1)) / p_k.
    """
    frames, bins = magnitude.shape[1], magnitude.shape[2]
    tiny = _F(1e-12)
    pivot, tied, pull = np.empty(bins, np.float32), np.empty(bins, np.float32), np.empty(bins, np.float32)
    real, imag = np.empty(bins, np.float32), np.empty(bins, np.float32)
    g, i = np.zeros(bins, np.float32), np.zeros(bins, np.float32)
    for b in range(first, last):
        u, v = phase[b, :, 0].copy(), phase[b, :, 1].copy()
        for n in range(frames):
            loud, before = magnitude[b, n], (magnitude[b, n - 1] if n > 0 else end[b])
            for k in range(bins):
                weight = loud[k] * before[k]
                x, y = weight * onward[b, n, 0, k], weight * onward[b, n, 1, k]
                pull[k] = math.sqrt(x * x + y * y) + tiny
                real[k] = x * u[k] - y * v[k]
                imag[k] = x * v[k] + y * u[k]
            for k in range(1, bins):
                weight = coupling * loud[k] * loud[k - 1]
                g[k], i[k] = weight * onward[b, n, 2, k], weight * onward[b, n, 3, k]
                tied[k] = g[k] * g[k] + i[k] * i[k]
            tied[0] = _F(0)
            for k in range(bins):
                pivot[k] = math.sqrt(tied[k])
            for k in range(bins - 1):
                pull[k] += pivot[k] + pivot[k + 1]
            pull[bins - 1] += pivot[bins - 1]
            inverse = _F(1) / pull[0]
            pivot[0] = inverse
            for k in range(1, bins):
                x, y = inverse * real[k - 1], inverse * imag[k - 1]
                real[k] += g[k] * x - i[k] * y
                imag[k] += g[k] * y + i[k] * x
                inverse = _F(1) / (pull[k] - tied[k] * inverse)
                pivot[k] = inverse
            x, y = _F(0), _F(0)
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


def solve(magnitude: Tensor, onward: Tensor, end: Tensor, phase: Tensor, coupling: float) -> Tensor:
    """As `phase_gradient.solve_frames`, of float32 and complex64."""
    out = torch.empty(*magnitude.shape, 2)
    arrays = [each.detach().contiguous().numpy() for each in (magnitude, onward, end, torch.view_as_real(phase))]
    run_parts(lambda _, first, last: _solve(first, last, *arrays, _F(coupling), out.numpy()), len(out), onward.numel())
    return torch.view_as_complex(out)
