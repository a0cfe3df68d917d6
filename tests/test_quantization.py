"""int8 weights by torchao, chosen when loading: near the model in bfloat16, half the memory, never written or read."""

import json
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from peft import LoraConfig
from torch import nn

import melody_diffusers
from melody_diffusers import MeLoDyPipeline
from melody_diffusers.conversion_utils import difference, trial_outputs
from melody_diffusers.hf.loading import SLOTS

pytest.importorskip("torchao", exc_type=ImportError)

MODELS = ["dual_path", "semantic_lm", "mulan", "vae", "semantic_tokenizer"]
LEFT_ALONE = {  # transformers quantizes every linear layer but the last
    "semantic_lm": "lm_head.weight",
    "mulan": "text_projection.weight",
    "vae": "decoder.linear.weight",
}
MAX_RELATIVE_ERROR = 0.03  # of outputs, |a - b| / |b|, against the model in bfloat16


def int8(name: str):
    """The `quantization_config` of a component, by the library that loads it."""
    from torchao.quantization import Int8WeightOnlyConfig

    library = diffusers if name == "dual_path" else transformers
    return library.TorchAoConfig(Int8WeightOnlyConfig(version=2))


def load(folder: str, name: str, quantized: bool) -> nn.Module:
    extra = {"quantization_config": int8(name)} if quantized else {}
    cls = getattr(melody_diffusers, SLOTS[name])
    return cls.from_pretrained(folder, subfolder=name, dtype=torch.bfloat16, **extra).eval()


def load_pipeline(folder: str, *names: str) -> MeLoDyPipeline:
    config = diffusers.PipelineQuantizationConfig(quant_mapping={name: int8(name) for name in names})
    pipe = MeLoDyPipeline.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def int8_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.named_parameters() if hasattr(weight, "qdata")}


@pytest.mark.parametrize("name", MODELS)
def test_a_component_comes_near_in_half_the_memory(tiny_folder, name):
    plain, small = load(tiny_folder, name, False), load(tiny_folder, name, True)
    weights = dict(plain.named_parameters())
    linear = {f"{path}.weight" for path, module in plain.named_modules() if isinstance(module, nn.Linear)}
    assert int8_weights(small).keys() == linear - {LEFT_ALONE.get(name)}
    for path, weight in int8_weights(small).items():
        assert weight.qdata.nbytes == weights[path].nbytes / 2 and weight.scale.numel() == weight.shape[0]
    _, relative = difference(trial_outputs(small), trial_outputs(plain))
    assert 0 < relative < MAX_RELATIVE_ERROR


def test_a_pipeline_makes_music(tiny_folder):
    pipe = load_pipeline(tiny_folder, *MODELS)
    assert all(int8_weights(getattr(pipe, name)) for name in MODELS)
    audio = pipe("a waltz", audio_duration=1, num_inference_steps=2, output_type="pt").audios
    assert audio.isfinite().all() and audio.abs().max() > 0


@pytest.mark.parametrize("name", [*MODELS, "mulan_quantizer"])
def test_what_was_loaded_as_int8_is_not_saved(tiny_folder, tmp_path, name):
    with pytest.raises(ValueError, match="Load it without `quantization_config` and save that"):
        load(tiny_folder, name, True).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", MODELS)
def test_what_was_made_int8_is_not_saved(tiny_folder, tmp_path, name):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = load(tiny_folder, name, False)
    quantize_(model, Int8WeightOnlyConfig(version=2))
    with pytest.raises(ValueError, match=f"{type(model).__name__} is quantized"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_pipeline_with_an_int8_model_is_not_saved(tiny_folder, tmp_path):
    pipe = load_pipeline(tiny_folder, "mulan")
    with pytest.raises(ValueError, match="mulan is quantized"):
        pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_quantization_config_is_refused(tiny_folder, tmp_path, name):
    model = load(tiny_folder, name, False)
    model.save_pretrained(tmp_path)
    file = Path(tmp_path, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": int8(name).to_dict()}))
    with pytest.raises(ValueError, match="quantization_config"):
        type(model).from_pretrained(tmp_path)


def test_an_adapter_serves_an_int8_base(tiny_folder, tmp_path):
    """Its digest differs, since weights that round to 0 lose their sign; then the caller has to know."""
    plain, small = (
        MeLoDyPipeline.from_pretrained(tiny_folder, dtype=torch.bfloat16),
        load_pipeline(tiny_folder, "dual_path"),
    )
    plain.dual_path.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    plain.save_lora_weights(tmp_path)
    with pytest.raises(ValueError, match="allow_other_base=True"):
        small.load_lora_weights(tmp_path)
    base = trial_outputs(small.dual_path)[0].float()
    small.load_lora_weights(tmp_path, allow_other_base=True)
    adapted, expected = trial_outputs(small.dual_path)[0].float(), trial_outputs(plain.dual_path)[0].float()
    assert (adapted - expected).norm() < 0.2 * (expected - base).norm()
