"""A device without hardware, for tests: its tensors hold their values on the CPU, and mixing it with the CPU raises.

    with FakeDevice() as device:
        model.to("fake")

`device.syncs` then counts, by operation, what would make the host wait for a GPU, and `device.launches` what would be
launched there. With `has_float64=False` a float64 tensor on the device is an error, as on Apple's.

It cannot see real kernels, streams, several processes, or autocast's lists of operations.
"""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Backend(_DummyBackendModule):
    inside = False  # a FakeDevice: else other tests of the same process would take this device for theirs

    def is_available(self) -> bool:
        return self.inside

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_BACKEND = _Backend()
_setup_privateuseone_for_python_backend("fake", _BACKEND)  # device guard and hooks, in Python; one to a process
MIXED = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_"}  # what CUDA lets cross devices
FUSED = {"rms_norm", "scaled_dot_product_attention"}  # one kernel each on CUDA, without gradients
EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view"}  # nothing is launched
SYNCS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "equal"}


class FakeTensor(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="fake:0",
        )
        self.held = held
        return self

    def tolist(self):
        return self.cpu().tolist()

    def untyped_storage(self):  # what save_file looks at to find tensors that share memory
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError("A tensor of the fake device is used outside FakeDevice.")


class Generator(torch._C.Generator):
    """In place of torch.Generator: draws on the CPU, and says which device it is of."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self.of = torch.device(device)

    device = property(lambda self: self.of)


def _enter_without_gradients(self) -> None:
    """In place of inference mode, whose tensors a subclass cannot be."""
    self.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _leave(self, *error) -> None:
    torch.set_grad_enabled(self.before)


class _Functions(TorchFunctionMode):
    """A draw on one device from a generator of another is an error. Counts what is one kernel on CUDA as one."""

    def __init__(self, launches: Counter):
        super().__init__()
        self.launches = launches

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in FUSED and not torch.is_grad_enabled():
            tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
            if tensors and all(isinstance(x, FakeTensor) for x in tensors):
                self.launches[func.__name__] += 1
                args, kwargs = tree_map(lambda x: x.held if isinstance(x, FakeTensor) else x, (args, kwargs or {}))
                return FakeTensor(func(*args, **kwargs))
        generator = (kwargs or {}).get("generator")
        if generator is not None:
            drawn_on = kwargs.get("device") or next((x.device for x in args if isinstance(x, torch.Tensor)), "cpu")
            if torch.device(drawn_on).type != generator.device.type:
                raise RuntimeError(f"{func.__name__} on '{drawn_on}' was given a generator of '{generator.device}'.")
        return func(*args, **(kwargs or {}))


class FakeDevice(TorchDispatchMode):
    def __init__(self, has_float64: bool = True):
        super().__init__()
        self.has_float64 = has_float64
        self.syncs, self.launches = Counter(), Counter()

    def __enter__(self):
        self.swap = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # module.to("fake") keeps tied weights tied
        self.generator, torch.Generator = torch.Generator, Generator
        inference = torch.inference_mode
        self.inference = {name: getattr(inference, name) for name in ("__enter__", "__exit__")}
        inference.__enter__, inference.__exit__ = _enter_without_gradients, _leave
        self.functions = _Functions(self.launches)
        self.functions.__enter__()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="fake") then comes by here
        _BACKEND.inside = True
        return super().__enter__()

    def __exit__(self, *args):
        super().__exit__(*args)
        _BACKEND.inside = False
        torch._C._set_only_lift_cpu_tensors(False)
        self.functions.__exit__(*args)
        torch.Generator = self.generator
        for name, method in self.inference.items():
            setattr(torch.inference_mode, name, method)
        torch.__future__.set_swap_module_params_on_conversion(self.swap)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        fake = [x for x in tensors if isinstance(x, FakeTensor)]
        target = kwargs.get("device")
        on_device = torch.device(target).type == "fake" if target is not None else bool(fake)
        if not fake and not on_device:
            return func(*args, **kwargs)
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
        if composite and name != "_to_copy":
            with self, torch._C.DisableTorchFunction():
                return func.decompose(*args, **kwargs)
        scalars = torch.Tag.pointwise in func.tags and all(isinstance(x, FakeTensor) or x.dim() == 0 for x in tensors)
        if len(fake) not in (0, len(tensors)) and name not in MIXED and not scalars:
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found fake:0 and cpu.")
        views = any(x.alias_info is not None and not x.alias_info.is_write for x in func._schema.returns)
        if not views and name not in EMPTY and torch.Tag.inplace_view not in func.tags:
            self.launches[name] += 1
        crosses = len({on_device, *(isinstance(x, FakeTensor) for x in tensors)}) > 1
        if name in SYNCS or (name in ("_to_copy", "copy_") and crosses):
            self.syncs[name] += 1
        if target is not None:
            kwargs = kwargs | {"device": "cpu"}
        held = tree_map(lambda x: x.held if isinstance(x, FakeTensor) else x, (args, kwargs))
        out = func(*held[0], **held[1])
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():
                func(*args, **kwargs)
        written = {a.name: a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        if written and len(func._schema.returns) == 1:
            return (dict(zip((a.name for a in func._schema.arguments), args)) | kwargs)[next(iter(written))]

        def wrap(x):
            if not isinstance(x, torch.Tensor) or not on_device or isinstance(x, FakeTensor):
                return x
            if x.dtype == torch.float64 and not self.has_float64:
                raise TypeError(f"{func}: this device has no float64.")
            return FakeTensor(x)

        return tree_map(wrap, out)
