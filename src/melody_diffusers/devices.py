"""Which device is used where none is named, what is fast on it, and waiting for it."""

import logging
import time
from functools import cache
from importlib.util import find_spec

import torch

logger = logging.getLogger(__name__)


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_tensor_cores(device: torch.device) -> None:
    """On CUDA, let float32 matrix products round their factors to ten bits (TF32), which is several times faster."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


@cache
def multiplies_bfloat16_faster(device: torch.device) -> bool:
    """Whether matrix products take at most two thirds of the time in bfloat16, tried out within a tenth of a second.

    Processors without instructions for it imitate bfloat16 and are slower. Both dtypes use the device as the calls of a
    pipeline would: with torch's own number of threads.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        factors = torch.ones(2, 512, 512, device=device, dtype=dtype)
        times = []
        for _ in range(6):
            started = time.perf_counter()
            torch.mm(*factors)
            synchronize(device)
            times.append(time.perf_counter() - started)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] <= 2 / 3 * seconds[torch.float32]


def fast_dtypes(device: torch.device) -> dict[str, torch.dtype]:
    """What to give `from_pretrained` as `dtype`: bfloat16 where the device multiplies it faster, else float32.

    The language model and MuLan stay in float32: a plan is a chain of choices, in which a rounding error can change a
    token and with it the rest of the piece.
    """
    default = torch.bfloat16 if multiplies_bfloat16_faster(device) else torch.float32
    return {"semantic_lm": torch.float32, "mulan": torch.float32, "default": default}


@cache
def has_numba() -> bool:
    """Whether loops can be compiled for the CPU. A numba that cannot be imported is told of once, by a warning."""
    try:
        import numba  # noqa: F401 (whether it works)
    except ImportError as error:
        if find_spec("numba") is not None:
            logger.warning(f"On the CPU music takes several times longer, since numba cannot be imported: {error}")
        return False
    return True


def synchronize(device: torch.device) -> None:
    """Waits until all work queued on the device is done; a no-op on the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
