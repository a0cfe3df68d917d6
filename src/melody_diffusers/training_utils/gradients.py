"""Gradients between the backward pass and the optimiser, and blocks that are computed again for them."""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import nn


def checkpoint_gradients(models: Mapping[str, nn.Module]) -> None:
    """Lets models compute their blocks again in the backward pass instead of keeping what these computed.

    Modules without `save_pretrained` beside a model, a linear layer say, are left as they are.

    Raises:
        ValueError: names the models that cannot.
    """
    unable = []
    for name, model in models.items():
        if getattr(model, "_supports_gradient_checkpointing", False):  # diffusers
            model.enable_gradient_checkpointing()
        elif getattr(model, "supports_gradient_checkpointing", False):  # transformers
            kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # its older name
            getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})  # or else backward(inputs=) fails
        elif hasattr(model, "save_pretrained") or len(models) == 1:
            unable.append(name)
    if unable:
        raise ValueError(
            f"run.gradient_checkpointing must be false: {', '.join(unable)} cannot compute blocks a second time."
        )


def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Replaces gradients by their means over processes; one that only some processes have counts as 0 on the others."""
    has = torch.tensor([parameter.grad is not None for parameter in parameters], device=accelerator.device).float()
    somewhere = accelerator.reduce(has, reduction="sum") > 0  # a process may have drawn no condition, say
    for parameter, needed in zip(parameters, somewhere.tolist()):
        if needed and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for same in ([g for g in gradients if g.dtype == dtype] for dtype in {g.dtype for g in gradients}):
        flat = accelerator.reduce(torch.cat([g.flatten() for g in same]), reduction="mean")
        for gradient, mean in zip(same, flat.split([g.numel() for g in same])):
            gradient.copy_(mean.view_as(gradient))
