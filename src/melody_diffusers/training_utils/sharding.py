"""Parameters, gradients and optimiser states split over processes (FSDP2), for models that one device cannot hold.

Checkpoints and saved folders hold whole tensors, so that they do not depend on how many processes wrote them.
"""

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ..models.semantic_lm import SemanticLM

FORWARD_METHODS = {SemanticLM: ("semantic_logits",)}  # what training calls besides forward


def shard(model: nn.Module) -> None:
    """Splits the model over all processes, each of its repeated blocks gathered only while it computes."""
    blocks = set(getattr(model, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module)
    fully_shard(model, reshard_after_forward=True)  # by default the outermost keeps its parameters gathered
    for method in FORWARD_METHODS.get(type(model), ()):
        register_fsdp_forward_method(model, method)


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be split; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def split_like(reference: Tensor, tensor: Tensor) -> Tensor:
    """This process's part of a whole tensor, if `reference` is split."""
    if isinstance(reference, DTensor):
        return distribute_tensor(tensor.to(reference.device), reference.device_mesh, reference.placements)
    return tensor


def unsharded(model: nn.Module) -> nn.Module:
    """The model itself, or if it is split a whole copy of it on the CPU; every process has to ask for it."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    state = {name: full(tensor).cpu() for name, tensor in model.state_dict().items()}
    base = next(cls for cls in type(model).__mro__ if not cls.__name__.startswith("FSDP"))
    whole = base.from_config(model.config) if hasattr(base, "from_config") else base(model.config)
    whole.load_state_dict(state)
    return whole
