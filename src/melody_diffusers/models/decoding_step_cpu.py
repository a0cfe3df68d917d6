"""One LLaMA layer for one token on a CPU as one compiled operation (numba).

A small model's step is a hundred operations of microseconds each: through PyTorch, most of their time is the way
there. A large model's step is as long as its weights take to be read, and the products here read them two to three
times as fast as PyTorch's. Numbers are computed in float32, whatever weights and cache hold. Sums run in another order
than PyTorch's: scores agree to a few parts in a million.

Shapes: B batch, H width, A heads, K heads of keys and values, D their width, L length of the cache, I inner width.
"""

import numpy as np
from torch import Tensor

from ..compiled import bits, compiled, narrow, run_parts, wide

_F = np.float32
SHARES = 1 << 10  # of a matrix's rows, at which threads may cut


def vector(tensor: Tensor) -> np.ndarray:
    """Few numbers, as float32."""
    return np.ascontiguousarray(tensor.detach().float().numpy())


def matrix(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """A weight's numbers (R, C), not copied, of bfloat16 their bits, and the scale of each of its rows (R,)."""
    if hasattr(weight, "qdata"):
        return weight.qdata.numpy(), vector(weight.scale).reshape(-1)
    return bits(weight), np.ones(len(weight), _F)


@compiled
def _dot(a, b):
    total = _F(0)
    for j in range(len(a)):
        total += wide(a[j]) * b[j]
    return total


@compiled
def products(weight, scale, x, y):
    """y (B, R) = x (B, C) (scale (R, 1) weight (R, C))^T; a weight is read once for two rows of x, a guided pair.

    Four rows of the weight are read side by side, a quarter of the matrix apart: a processor fetches ahead along each,
    which of neighbouring rows, in one page of memory, it does for one alone.
    """
    rows, columns = weight.shape
    quarter, paired = rows // 4, len(x) // 2 * 2
    for b in range(0, paired, 2):
        for i in range(quarter):
            i1, i2, i3 = i + quarter, i + 2 * quarter, i + 3 * quarter
            p0, p1, p2, p3 = _F(0), _F(0), _F(0), _F(0)
            q0, q1, q2, q3 = _F(0), _F(0), _F(0), _F(0)
            for j in range(columns):
                p, q = x[b, j], x[b + 1, j]
                w = wide(weight[i, j])
                p0, q0 = p0 + w * p, q0 + w * q
                w = wide(weight[i1, j])
                p1, q1 = p1 + w * p, q1 + w * q
                w = wide(weight[i2, j])
                p2, q2 = p2 + w * p, q2 + w * q
                w = wide(weight[i3, j])
                p3, q3 = p3 + w * p, q3 + w * q
            y[b, i], y[b, i1], y[b, i2], y[b, i3] = p0, p1, p2, p3
            y[b + 1, i], y[b + 1, i1], y[b + 1, i2], y[b + 1, i3] = q0, q1, q2, q3
        for i in range(4 * quarter, rows):
            y[b, i], y[b + 1, i] = _dot(weight[i], x[b]), _dot(weight[i], x[b + 1])
    for b in range(paired, len(x)):
        for i in range(rows):
            y[b, i] = _dot(weight[i], x[b])
    for b in range(len(x)):
        for i in range(rows):
            y[b, i] *= scale[i]


@compiled
def rms_norm(x, weight, eps):
    """x / sqrt(mean(x^2) + eps) * weight, (B, H)."""
    y = np.empty_like(x)
    for b in range(len(x)):
        square = _F(0)
        for j in range(x.shape[1]):
            square += x[b, j] * x[b, j]
        scale = _F(1) / np.sqrt(square / _F(x.shape[1]) + eps)
        for j in range(x.shape[1]):
            y[b, j] = x[b, j] * scale * weight[j]
    return y


@compiled
def _attend(query, keys, values, heard):
    """heard (D,) = softmax(query keys^T / sqrt(D)) values, of (D,), (T, D) and (T, D)."""
    length, width = keys.shape
    weights = np.empty(length, _F)
    highest = _F(-np.inf)
    for t in range(length):
        score = _F(0)
        for j in range(width):
            score += query[j] * wide(keys[t, j])
        weights[t] = score / np.sqrt(_F(width))
        highest = max(highest, weights[t])
    total = _F(0)
    for t in range(length):
        weights[t] = np.exp(weights[t] - highest)
        total += weights[t]
    heard[:] = 0
    for t in range(length):
        share = weights[t] / total
        for j in range(width):
            heard[j] += share * wide(values[t, j])


@compiled
def attend(projected, position, cos, sin, keys, values):
    """What the heads hear (B, A D) with queries, keys and values (B, (A + 2 K) D); the cache holds `position` too."""
    batch, groups, half = len(projected), keys.shape[1], keys.shape[3] // 2
    made = projected.reshape(batch, -1, 2 * half)
    heads = made.shape[1] - 2 * groups
    heard = np.empty((batch, heads, 2 * half), _F)
    for b in range(batch):
        for h in range(heads + groups):
            for j in range(half):
                first, second = made[b, h, j], made[b, h, j + half]
                made[b, h, j] = first * cos[position, j] - second * sin[position, j]
                made[b, h, j + half] = second * cos[position, j] + first * sin[position, j]
        for k in range(groups):
            for j in range(2 * half):
                keys[b, k, position, j] = narrow(made[b, heads + k, j], keys)
                values[b, k, position, j] = narrow(made[b, heads + groups + k, j], values)
        for h in range(heads):
            k = h * groups // heads
            _attend(made[b, h], keys[b, k, : position + 1], values[b, k, : position + 1], heard[b, h])
    return heard.reshape(batch, -1)


@compiled
def silu_gate(gated):
    """silu(gate) * up, (B, I), of both side by side, (B, 2 I)."""
    batch, inner = len(gated), gated.shape[1] // 2
    opened = np.empty((batch, inner), _F)
    for b in range(batch):
        for j in range(inner):
            opened[b, j] = gated[b, j] / (_F(1) + np.exp(-gated[b, j])) * gated[b, inner + j]
    return opened


@compiled
def layer_step(x, position, norms, query, key, value, output, gate, up, down, cos, sin, keys, values, eps):
    """One layer; x (B, H) becomes its output, and the cache, keys and values (B, K, L, D), holds `position` too.

    `norms` are the weights of the norms before attention and before the feed-forward. A matrix is a pair, numbers
    (R, C), of bfloat16 their bits, and scale (R,). cos and sin (L, D / 2) turn the pairs (j, j + D / 2) of a head.
    """
    batch, queries, sources, inner = len(x), len(query[0]), len(key[0]), len(gate[0])
    normed = rms_norm(x, norms[0], eps)
    projected = np.empty((batch, queries + 2 * sources), _F)
    products(query[0], query[1], normed, projected[:, :queries])
    products(key[0], key[1], normed, projected[:, queries : queries + sources])
    products(value[0], value[1], normed, projected[:, queries + sources :])
    change = np.empty_like(x)
    products(output[0], output[1], attend(projected, position, cos, sin, keys, values), change)
    x += change
    normed = rms_norm(x, norms[1], eps)
    gated = np.empty((batch, 2 * inner), _F)
    products(gate[0], gate[1], normed, gated[:, :inner])
    products(up[0], up[1], normed, gated[:, inner:])
    products(down[0], down[1], silu_gate(gated), change)
    x += change


def layer_step_in_parts(x, position, norms, query, key, value, output, gate, up, down, cos, sin, keys, values, eps):
    """`layer_step` by as many threads as torch has, of which each takes a share of every matrix's rows."""
    projected = _parts([query, key, value], rms_norm(x, norms[0], eps))
    x += _parts([output], attend(projected, position, cos, sin, keys, values))
    x += _parts([down], silu_gate(_parts([gate, up], rms_norm(x, norms[1], eps))))


def _parts(matrices, x):
    """Products with all matrices, side by side (B, R), by several threads."""
    borders = np.cumsum([0, *(len(numbers) for numbers, _ in matrices)])
    y = np.empty((len(x), borders[-1]), _F)

    def part(_, first, last):
        for start, (numbers, scale) in zip(borders, matrices):
            rows = slice(first * len(scale) // SHARES, last * len(scale) // SHARES)
            products(numbers[rows], scale[rows], x, y[:, start : start + len(scale)][:, rows])

    run_parts(part, SHARES, sum(numbers.size for numbers, _ in matrices))
    return y
