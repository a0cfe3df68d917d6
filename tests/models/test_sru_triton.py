"""The SRU's kernels in Triton's interpreter, on the CPU, against the loop that defines the recurrence.

Triton comes with PyTorch for CUDA and not with that for CPUs; `pip install triton` brings 200 MB, so the `dev` extra
leaves it out, and these tests are then skipped.
"""

import contextlib
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from melody_diffusers.models import sru
from melody_diffusers.models.sru import SRU, SRULayer, sru_scan_reference

pytest.importorskip("triton")
NAMES = ("projected", "x", "cell_weight", "gate_bias")


@pytest.fixture(scope="module", autouse=True)
def kernel():
    """The module of the kernels, run by the interpreter."""
    if "melody_diffusers.models.sru_triton" in sys.modules:
        pytest.skip("the kernels of this process are compiled for a GPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        from melody_diffusers.models import sru_triton

        yield sru_triton


def make(hidden_size: int, num_steps: int, num_sequences: int = 2) -> tuple[SRULayer, torch.Tensor, torch.Tensor]:
    """A layer in float64, its input, and the weights of a sum over its output."""
    torch.manual_seed(0)
    layer = SRULayer(2 * hidden_size, hidden_size).double()
    for parameter in (layer.cell_weight, layer.gate_bias):
        torch.nn.init.normal_(parameter)
    shape = (num_sequences, num_steps, 2 * hidden_size)
    return layer, torch.randn(shape, dtype=torch.float64, requires_grad=True), torch.randn(shape, dtype=torch.float64)


def by_kernel(kernel, layer: SRULayer, x: torch.Tensor) -> torch.Tensor:
    projected = layer.projection(x).unflatten(-1, (2, 3, layer.hidden_size))
    return kernel.sru_triton(projected, x, layer.cell_weight, layer.gate_bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(5, 7), (130, 3), (72, 2), (3, 1)], ids=str)
def test_it_equals_the_reference_in_values_and_gradients(kernel, dtype, sizes):
    layer, x, weight = make(*sizes)
    layer, x = layer.to(dtype), x.detach().to(dtype)
    projected = layer.projection(x).unflatten(-1, (2, 3, layer.hidden_size))
    tensors = (projected, x, layer.cell_weight, layer.gate_bias)
    fast, exact = (  # the same inputs, as they are and in float64
        [each.detach().to(precision).requires_grad_() for each in tensors] for precision in (dtype, torch.float64)
    )
    h = kernel.sru_triton(*fast)
    assert h.dtype == dtype and h.shape == x.shape
    u, skip = exact[0], exact[1].unflatten(-1, (2, -1))
    u = torch.stack([u[:, :, 0], u[:, :, 1].flip(1)], dim=2).transpose(0, 1)
    skip = torch.stack([skip[:, :, 0], skip[:, :, 1].flip(1)], dim=2).transpose(0, 1)
    expected = sru_scan_reference(u[..., 0, :], u[..., 1:, :] + exact[3], skip, exact[2]).transpose(0, 1)
    expected = torch.cat([expected[:, :, 0], expected[:, :, 1].flip(1)], dim=-1)
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype]  # the interpreter cuts off bits of bfloat16
    torch.testing.assert_close(h.double(), expected, rtol=tolerance, atol=tolerance)
    gradients = [torch.autograd.grad((y * weight.to(y)).sum(), inputs) for y, inputs in ((h, fast), (expected, exact))]
    for ours, theirs, name in zip(*gradients, NAMES):
        scale = float(theirs.abs().max())
        error = (ours.double() - theirs).abs() - tolerance * theirs.abs()
        assert ours.dtype == dtype and error.max() <= 2 * tolerance * scale, name


def test_inputs_may_lie_anywhere_and_in_other_dtypes(kernel):
    """Under autocast the projection is in bfloat16 and all else in float32; a view has other strides."""
    layer, x, weight = make(6, 4)
    layer, x = layer.float(), x.detach().float()
    projected = layer.projection(x).unflatten(-1, (2, 3, 6)).detach().bfloat16()
    plain = kernel.sru_triton(projected, x, layer.cell_weight, layer.gate_bias)
    strided = kernel.sru_triton(
        projected.transpose(0, 1).contiguous().transpose(0, 1),
        x.transpose(0, 2).contiguous().transpose(0, 2).requires_grad_(),
        layer.cell_weight,
        layer.gate_bias,
    )
    assert plain.dtype == torch.float32 and torch.equal(plain, strided)
    expected = kernel.sru_triton(projected.float(), x, layer.cell_weight, layer.gate_bias)
    assert torch.equal(plain, expected)
    strided.backward(weight.float().transpose(0, 1).contiguous().transpose(0, 1))
    assert layer.cell_weight.grad.abs().min() > 0


def test_no_sequences_are_no_work(kernel):
    layer, x, _ = make(4, 3, num_sequences=0)
    h = by_kernel(kernel, layer.float(), x.float())
    assert h.shape == (0, 3, 8) and torch.autograd.grad(h.sum(), layer.cell_weight)[0].abs().max() == 0


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_layer_compiles_into_one_graph(kernel, monkeypatch, backend):
    torch._dynamo.reset()
    monkeypatch.setattr(SRULayer, "forward", lambda layer, x: by_kernel(kernel, layer, x))
    model = SRU(8, 4).float()
    x = torch.randn(2, 5, 8, requires_grad=True)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    results = []
    for function in (model, compiled):
        h = function(x)
        results.append((h, torch.autograd.grad(h.square().sum(), x)[0]))
    torch.testing.assert_close(*results)


def test_a_checkpointed_layer_has_the_same_gradients(kernel):
    layer, x, weight = make(4, 5)
    layer.float()
    gradients = []
    for function in (by_kernel, partial(checkpoint, by_kernel, use_reentrant=False)):
        h = function(kernel, layer, x.float())
        gradients.append(torch.autograd.grad((h * weight).sum(), [x, *layer.parameters()]))
    assert all(torch.equal(*pair) for pair in zip(*gradients))


def test_torch_knows_the_operation(kernel):
    layer, x, _ = make(5, 3)
    projected = layer.float().projection(x.float()).unflatten(-1, (2, 3, 5)).detach().requires_grad_()
    checks = torch.library.opcheck(kernel.sru_triton, (projected, x.float(), layer.cell_weight, layer.gate_bias))
    assert set(checks.values()) == {"SUCCESS"}


def test_where_triton_does_not_compile_the_layer_goes_without(kernel, monkeypatch, caplog):
    device = torch.device("cpu")
    assert kernel.is_usable(device)
    monkeypatch.setattr(kernel, "_launch", lambda *_: 1 / 0)
    assert not kernel.is_usable(device) and "without its kernel" in caplog.text


def test_a_layer_on_a_gpu_is_the_kernels(kernel, monkeypatch):
    """With an input of its own width; where a projection makes the highway it is the plain scan."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(sru, "has_sru_triton", lambda device: True)
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: contextlib.nullcontext())
    with torch.profiler.profile() as profile:
        for input_size in (8, 6):
            layer, x = SRULayer(input_size, 4), torch.randn(2, 5, input_size)
            torch.testing.assert_close(layer(x), layer(x, sru_scan_reference))
    assert [event.count for event in profile.key_averages() if event.key == "melody_diffusers::sru"] == [1]


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from melody_diffusers.models import sru_triton

for kernel in (sru_triton._forward, sru_triton._backward):
    for dtype in ("fp32", "bf16", "fp16"):
        types = {name: "*fp32" if name in ("cells", "dv", "db") else f"*{dtype}" for name in kernel.arg_names}
        types |= {"K": "i32", "H": "i32", "BLOCK": "constexpr"}
        source = ASTSource(kernel, signature=types, constexprs={"BLOCK": 128})
        assert compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32)).asm["cubin"]
"""


@pytest.mark.parametrize("capability", ["80", "90"])
def test_the_kernels_compile_for_gpus(capability, tmp_path):
    """The interpreter accepts what the compiler may not."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", COMPILE, capability], env=environment, check=True)
