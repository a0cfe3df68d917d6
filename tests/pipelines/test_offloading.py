"""Offloaded models come back before they are used. Away, their weights are NaN here: no second device is needed."""

import accelerate
import numpy as np
import pytest
import torch
from diffusers.hooks import group_offloading

from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyPipeline

MUSIC = (0.3 * np.sin(np.arange(24_000) / 20)).astype(np.float32)
CALLS = {
    "text": (MeLoDyPipeline, {"prompt": "slow rock", "audio_duration": 0.5}),
    "audio": (MeLoDyPipeline, {"audio_prompt": MUSIC, "audio_prompt_sampling_rate": 24_000, "audio_duration": 0.5}),
    "inpaint": (MeLoDyInpaintPipeline, {"audio": MUSIC, "audio_sampling_rate": 24_000, "regions": [(0.4, 0.6)]}),
}


def make(components: dict, call: str) -> MeLoDyPipeline:
    pipe = CALLS[call][0](**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: MeLoDyPipeline, call: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(**CALLS[call][1], num_inference_steps=1, generator=generator, output_type="pt").audios


@torch.no_grad()
def spoil(tensors) -> None:
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)


@pytest.fixture
def nan_in_model_offload(monkeypatch):
    """A model under `CpuOffload` is NaN from when it is sent away to when its hook runs."""
    kept: dict[torch.nn.Module, dict[str, torch.Tensor]] = {}

    def send_away(hook, module):
        if module not in kept:
            kept[module] = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            spoil(module.state_dict().values())
        return module

    def bring_back(hook, module, *args, **kwargs):
        if module in kept:
            module.load_state_dict(kept.pop(module))
        return module

    pre_forward = accelerate.hooks.CpuOffload.pre_forward
    monkeypatch.setattr(accelerate.hooks.CpuOffload, "init_hook", send_away)
    monkeypatch.setattr(accelerate.hooks.CpuOffload, "detach_hook", bring_back)
    monkeypatch.setattr(
        accelerate.hooks.CpuOffload,
        "pre_forward",
        lambda hook, module, *args, **kwargs: (bring_back(hook, module), pre_forward(hook, module, *args, **kwargs))[1],
    )


@pytest.fixture
def nan_in_group_offload(monkeypatch):
    """A group's weights are NaN from when they go to the disk to when they are read back."""
    to_disk = group_offloading.ModuleGroup._offload_to_disk

    def send_away(group):
        to_disk(group)
        spoil(tensor.data for tensor in group.tensor_to_key)

    monkeypatch.setattr(group_offloading.ModuleGroup, "_offload_to_disk", send_away)


@pytest.mark.parametrize("call", CALLS)
def test_model_offloading_brings_back_each_model(make_components, nan_in_model_offload, call):
    expected = run(make(make_components(), call), call)
    pipe = make(make_components(), call)
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        torch.testing.assert_close(run(pipe, call), expected, rtol=0, atol=0)
    offloaded = {name for name, model in pipe.components.items() if hasattr(model, "_hf_hook")}
    assert offloaded == {"vae", "mulan", "semantic_tokenizer", "semantic_lm", "dual_path"}


def test_model_offloading_does_without_the_semantic_tokenizer(make_components, nan_in_model_offload):
    expected = run(make(make_components(), "text"), "text")
    pipe = make(make_components() | {"semantic_tokenizer": None}, "text")
    pipe.enable_model_cpu_offload(device="cpu")
    torch.testing.assert_close(run(pipe, "text"), expected, rtol=0, atol=0)


@pytest.mark.parametrize("offload_type", ["block_level", "leaf_level"])
@pytest.mark.parametrize("call", ["text", "inpaint"])
def test_group_offloading_brings_back_each_group(make_components, nan_in_group_offload, tmp_path, call, offload_type):
    expected = run(make(make_components(), call), call)
    pipe = make(make_components(), call)
    pipe.enable_group_offload(
        torch.device("cpu"),
        offload_type=offload_type,
        num_blocks_per_group=1,
        offload_to_disk_path=str(tmp_path),
        exclude_modules="vae",
    )
    torch.testing.assert_close(run(pipe, call), expected, rtol=0, atol=1e-5)
    grouped = [
        name
        for name, model in pipe.components.items()
        if isinstance(model, torch.nn.Module) and any(hasattr(module, "_diffusers_hook") for module in model.modules())
    ]
    assert sorted(grouped) == ["dual_path", "semantic_lm"]


def test_every_weight_is_used_within_its_own_module(make_components):
    """What sequential offloading and layerwise casting build on."""
    for call in CALLS:
        expected = run(make(make_components(), call), call)
        pipe = make(make_components(), call)
        for model in pipe.components.values():
            for module in model.modules() if isinstance(model, torch.nn.Module) else ():
                weights = [weight.data for weight in module.parameters(recurse=False)]
                kept = [weight.clone() for weight in weights]

                def bring_back(module, inputs, weights=weights, kept=kept):
                    for weight, value in zip(weights, kept, strict=True):
                        weight.copy_(value)

                module.register_forward_pre_hook(bring_back)
                module.register_forward_hook(lambda module, inputs, outputs, weights=weights: spoil(weights))
                spoil(weights)
        torch.testing.assert_close(run(pipe, call), expected, rtol=0, atol=0)
