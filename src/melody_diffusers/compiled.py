"""Loops over numbers, compiled for the CPU at hand by numba when they are first run. Import it where numba is needed.

What is compiled is kept on disk, beside the source or in the user's cache folder, so that it happens once.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import overload

SPLIT = 1 << 21  # numbers of work from which a second thread pays

# Sums in any order and without checks for division by zero, but NaN and infinity stay what they are.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}


def compiled(function: Callable, **options: Any) -> Callable:
    """The function for numba. Where no folder can hold the result, it is compiled in every process."""
    try:
        return numba.njit(function, cache=True, **_OPTIONS, **options)
    except RuntimeError:  # numba's answer to folders that cannot be written
        return numba.njit(function, **_OPTIONS, **options)


def bits(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a tensor; bfloat16, which numpy lacks, as 16 bits. `wide` and `narrow` tell what they mean."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def wide(number):
    """In compiled code: float32, of the 16 bits of a bfloat16, of an integer of 8 bits or of itself."""
    raise NotImplementedError  # numba puts the overload below in its place, by the type of the number


@overload(wide)
def _wide(number):
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)
    return lambda number: np.float32(number)


def narrow(number, array):
    """In compiled code: float32 as what the array holds: itself, or the bits of the nearest bfloat16 (ties to even)."""
    raise NotImplementedError  # likewise


@overload(narrow)
def _narrow(number, array):
    if array.dtype == types.uint16:
        return _bfloat16
    return lambda number, array: number


def _bfloat16(number, array):
    same = np.float32(number).view(np.uint32)
    odd = np.uint32(np.uint32(same >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint32(np.uint32(same + np.uint32(0x7FFF)) + odd) >> np.uint32(16)
    return np.uint16(rounded) if number == number else np.uint16(0x7FC0)  # NaN stays


_pool: ThreadPoolExecutor | None = None


def run_parts(part: Callable[[int, int, int], None], count: int, work: int) -> None:
    """Calls part(index, first, last) so that all of `count` is covered, side by side where `work` is large enough.

    There are as many parts as torch has threads, see `num_parts`.
    """
    global _pool
    parts = num_parts(count, work)
    borders = [i * count // parts for i in range(parts + 1)]
    if parts > 1 and _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="melody")
    others = [_pool.submit(part, i, *borders[i : i + 2]) for i in range(1, parts)] if _pool else []
    part(0, *borders[:2])
    for other in others:
        other.result()


def num_parts(count: int, work: int) -> int:
    """In how many parts `run_parts` cuts."""
    return min(torch.get_num_threads(), count) if work >= SPLIT else 1


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads
    os.register_at_fork(after_in_child=_forget_pool)
