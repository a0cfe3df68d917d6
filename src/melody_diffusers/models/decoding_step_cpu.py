"""One LLaMA layer for one token on a CPU as one compiled operation (numba).

A small model's step is a hundred operations of microseconds each: through PyTorch, most of their time is the way
there. Sums run in another order than PyTorch's: scores agree to a few parts in a million.

Shapes: B batch, H width, A heads, K heads of keys and values, D their width, L length of the cache, I inner width.
"""

import numpy as np

from ..compiled import compiled

_F = np.float32


@compiled
def products(weight, x, y):
    """y (B, R) = x (B, C) weight (R, C)^T; two rows of x at a time, so that a weight is read once for a guided pair."""
    rows, columns = weight.shape
    for b in range(0, len(x) - 1, 2):
        for i in range(rows):
            first, second = _F(0), _F(0)
            for j in range(columns):
                first += weight[i, j] * x[b, j]
                second += weight[i, j] * x[b + 1, j]
            y[b, i], y[b + 1, i] = first, second
    if len(x) % 2:
        b = len(x) - 1
        for i in range(rows):
            first = _F(0)
            for j in range(columns):
                first += weight[i, j] * x[b, j]
            y[b, i] = first


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
            score += query[j] * keys[t, j]
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
            heard[j] += share * values[t, j]


@compiled
def layer_step(x, position, input_norm, inputs, output, post_norm, gates, down, cos, sin, keys, values, eps):
    """One layer; x (B, H) becomes its output, and the cache, keys and values (B, K, L, D), holds `position` too.

    `inputs` ((A + 2 K) D, H) makes queries, keys and values, `gates` (2 I, H) the gate and what it gates; cos and sin
    (L, D / 2) turn the pairs (j, j + D / 2) of a head.
    """
    batch, groups, half, inner = len(x), keys.shape[1], keys.shape[3] // 2, down.shape[1]
    heads = len(inputs) // (2 * half) - 2 * groups
    projected = np.empty((batch, heads + 2 * groups, 2 * half), _F)
    products(inputs, rms_norm(x, input_norm, eps), projected.reshape(batch, -1))
    heard = np.empty((batch, heads, 2 * half), _F)
    for b in range(batch):
        for h in range(heads + groups):
            for j in range(half):
                first, second = projected[b, h, j], projected[b, h, j + half]
                projected[b, h, j] = first * cos[position, j] - second * sin[position, j]
                projected[b, h, j + half] = second * cos[position, j] + first * sin[position, j]
        for k in range(groups):
            keys[b, k, position] = projected[b, heads + k]
            values[b, k, position] = projected[b, heads + groups + k]
        for h in range(heads):
            k = h * groups // heads
            _attend(projected[b, h], keys[b, k, : position + 1], values[b, k, : position + 1], heard[b, h])
    change = np.empty_like(x)
    products(output, heard.reshape(batch, -1), change)
    x += change
    gated = np.empty((batch, 2 * inner), _F)
    products(gates, rms_norm(x, post_norm, eps), gated)
    opened = np.empty((batch, inner), _F)
    for b in range(batch):
        for j in range(inner):
            opened[b, j] = gated[b, j] / (_F(1) + np.exp(-gated[b, j])) * gated[b, inner + j]
    products(down, opened, change)
    x += change
