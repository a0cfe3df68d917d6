import copy

import pytest
import torch

from melody_diffusers import compiled
from melody_diffusers.models import sru
from melody_diffusers.models.sru import SRU, SRULayer, fused_scan, sru_scan, sru_scan_reference


def scan_inputs(num_steps=9, num_sequences=3, hidden_size=5):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    k, n, h = num_steps, num_sequences, hidden_size
    return draw(k, n, 2, h), draw(k, n, 2, 2, h), draw(k, n, 2, h), draw(2, 2, h)


@pytest.mark.parametrize("num_steps", [1, 2, 9])
def test_fast_scan_equals_reference_in_values_and_gradients(num_steps):
    inputs = scan_inputs(num_steps)
    weight = torch.randn(num_steps, 3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values, gradients = [], []
    for scan in (sru_scan_reference, sru_scan):
        h = scan(*inputs)
        values.append(h)
        gradients.append(torch.autograd.grad((h * weight).sum(), inputs))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-10)
    for reference, fast in zip(*gradients, strict=True):
        torch.testing.assert_close(reference, fast, rtol=0, atol=1e-10)


def test_fast_scan_passes_gradcheck():
    assert torch.autograd.gradcheck(sru_scan, scan_inputs(4, 2, 2))


def test_scan_leaves_its_inputs_unchanged():
    inputs = [tensor.detach() for tensor in scan_inputs()]
    copies = [tensor.clone() for tensor in inputs]
    sru_scan(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_closed_gates_pass_the_input_and_open_gates_the_candidate():
    candidate, _, skip, cell_weight = (tensor.detach() for tensor in scan_inputs())
    gates = torch.full((9, 3, 2, 2, 5), -1e9, dtype=torch.float64)  # forget nothing kept, reset shut
    torch.testing.assert_close(sru_scan(candidate, gates, skip, cell_weight * 0), skip)
    gates[..., 1, :] = 1e9  # reset open
    torch.testing.assert_close(sru_scan(candidate, gates, skip, cell_weight * 0), candidate)


def test_backward_direction_is_the_forward_one_on_reversed_time():
    layer = SRULayer(6, 4).double()
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    with torch.no_grad():  # give both directions the same weights
        weight = layer.projection.weight.unflatten(0, (2, -1))
        weight[1] = weight[0]
        forward, backward = layer(x).chunk(2, dim=-1)
        reversed_forward = layer(x.flip(1))[..., :4].flip(1)
    assert not torch.allclose(forward, backward)
    torch.testing.assert_close(backward, reversed_forward)


@pytest.mark.parametrize(("input_size", "hidden_size"), [(8, 4), (6, 4)])
def test_module_equals_the_reference_scan_with_and_without_highway_projection(input_size, hidden_size):
    torch.manual_seed(0)
    module = SRU(input_size, hidden_size, num_layers=3).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 6, input_size, dtype=torch.float64)
    expected = x
    for layer in module.layers:
        expected = layer(expected, scan=sru_scan_reference)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)
    assert module(x).shape == (2, 6, 2 * hidden_size)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("num_sequences", "num_steps", "hidden_size"), [(1, 1, 1), (3, 5, 7), (5, 32, 72)])
def test_compiled_scan_equals_the_reference_in_values_and_gradients(
    monkeypatch, dtype, tolerance, num_sequences, num_steps, hidden_size
):
    torch.manual_seed(0)
    layer = SRULayer(2 * hidden_size, hidden_size)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    layer.to(dtype)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(num_sequences, num_steps, 2 * hidden_size, dtype=dtype, requires_grad=True)
    x_exact = x.detach().double().requires_grad_()
    expected = exact(x_exact, sru_scan_reference)
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), [x_exact, *exact.parameters()])
    assert fused_scan(layer.projection(x)) is not None
    for split in (compiled.SPLIT, 0):  # on one thread, and shared by two
        monkeypatch.setattr(compiled, "SPLIT", split)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        h = layer(x)
        assert h.dtype == dtype
        torch.testing.assert_close(h.double(), expected, rtol=tolerance, atol=tolerance)
        for gradient, exact_gradient in zip(
            torch.autograd.grad((h * weight).sum(), [x, *layer.parameters()]), wanted, strict=True
        ):
            scale = exact_gradient.abs().max().clamp_min(1e-3)
            torch.testing.assert_close(
                gradient / scale, exact_gradient / scale, rtol=0, atol=tolerance, check_dtype=False
            )


def test_compiled_scan_lets_nan_through():
    layer = SRULayer(8, 4)
    x = torch.randn(2, 6, 8)
    for place in range(24):  # candidate, forget and reset gate of both directions
        u = layer.projection(x).unflatten(-1, (2, 3, 4)).detach()
        u.flatten(2)[0, 3, place] = float("nan")
        assert fused_scan(u)(u, x, layer.cell_weight, layer.gate_bias).isnan().any()


def test_without_numba_the_scan_goes_by_operations(monkeypatch):
    layer, x = SRULayer(8, 4), torch.randn(2, 6, 8)
    expected = layer(x)
    monkeypatch.setattr(sru, "has_numba", lambda: False)
    torch.testing.assert_close(layer(x), expected)


def test_state_stays_in_float32_under_autocast():
    layer = SRULayer(8, 4)
    x = torch.randn(2, 50, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x), rtol=0.05, atol=0.05)  # only the projection is rounded to bfloat16


def test_agrees_with_the_published_cell():
    """The `sru` package by the paper's authors (Lei et al.): same weights, same output."""
    published = pytest.importorskip("sru")
    torch.manual_seed(0)
    for input_size, hidden_size in [(8, 4), (6, 4)]:
        theirs = published.SRUCell(input_size, hidden_size, bidirectional=True, rescale=False)
        ours = SRULayer(input_size, hidden_size)
        with torch.no_grad():
            theirs.bias.normal_()
            theirs.weight_c.normal_()
            # theirs: (input, direction, channel, projection); ours: (direction, projection, channel, input)
            weight = theirs.weight.unflatten(1, (2, hidden_size, ours.num_projections)).permute(1, 3, 2, 0)
            ours.projection.weight.copy_(weight.flatten(0, 2))
            ours.cell_weight.copy_(theirs.weight_c.unflatten(0, (2, 2, hidden_size)).transpose(0, 1))
            ours.gate_bias.copy_(theirs.bias.unflatten(0, (2, 2, hidden_size)).transpose(0, 1))
        x = torch.randn(3, 7, input_size)
        output, _ = theirs(x.transpose(0, 1))
        torch.testing.assert_close(ours(x), output.transpose(0, 1), rtol=1e-5, atol=1e-6)
