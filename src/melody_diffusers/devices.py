"""Which device is used where none is named, and waiting for it."""

import torch


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_tensor_cores(device: torch.device) -> None:
    """On CUDA, let float32 matrix products round their factors to ten bits (TF32), which is several times faster."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def synchronize(device: torch.device) -> None:
    """Waits until all work queued on the device is done; a no-op on the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
