import importlib.util
import re
import runpy
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.conversion_utils import compare

main = runpy.run_path(str(Path(__file__).parents[2] / "conversion" / "shrink.py"), run_name="conversion")["main"]


def shrink(source, out, dtype, *others):
    main(["--source", str(source), "--out", str(out), "--dtype", dtype, *others])


def test_a_pipeline_takes_half_the_space_and_still_plays(tiny_folder, tmp_path, capsys):
    shrink(tiny_folder, tmp_path / "small", "bfloat16")
    lines = [line for line in capsys.readouterr().out.splitlines() if "largest difference" in line]
    assert len(lines) == 6 and all("relative" in line for line in lines)
    for file in Path(tiny_folder).rglob("*.safetensors"):
        small = load_file(tmp_path / "small" / file.relative_to(tiny_folder))
        for name, tensor in load_file(file).items():
            assert torch.equal(small[name], tensor.bfloat16() if tensor.is_floating_point() else tensor)
    for file in Path(tiny_folder).rglob("*"):  # tokenizer, scheduler, index
        assert (tmp_path / "small" / file.relative_to(tiny_folder)).exists()
    assert not [file for file in (tmp_path / "small").rglob("*.json") if str(tiny_folder) in file.read_text()]
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "small", dtype=torch.bfloat16)
    assert pipe.dual_path.dtype == pipe.semantic_lm.dtype == torch.bfloat16
    pipe.set_progress_bar_config(disable=True)
    audio = pipe("a waltz", num_inference_steps=1, output_type="pt", generator=torch.Generator().manual_seed(0)).audios
    assert audio.isfinite().all() and audio.abs().max() > 0


@pytest.mark.parametrize("name", ["dual_path", "semantic_lm", "semantic_tokenizer", "vae"])
def test_one_component_in_float16(tiny_folder, tmp_path, capsys, name):
    source = Path(tiny_folder) / name
    shrink(source, tmp_path / "small", "float16")
    said = capsys.readouterr().out
    assert "relative" in said
    (before,), (after,) = (list(folder.glob("*.safetensors")) for folder in (source, tmp_path / "small"))
    for key, tensor in load_file(before).items():
        assert torch.equal(load_file(after)[key], tensor.half() if tensor.is_floating_point() else tensor)


def test_a_loss_beyond_the_tolerance_ends_the_script(tiny_folder, tmp_path):
    with pytest.raises(SystemExit, match="--tolerance 1e-09"):
        shrink(Path(tiny_folder) / "dual_path", tmp_path / "small", "bfloat16", "--tolerance", "1e-9")


def test_what_is_not_finite_is_beyond_every_tolerance(capsys):
    with pytest.raises(SystemExit):
        compare("it", [torch.tensor([1.0, torch.nan])], [torch.tensor([1.0, 1.0])], 1e9)
    assert "nan" in capsys.readouterr().out


def test_a_folder_is_never_written_over(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match="new folder"):
        shrink(tiny_folder, tmp_path, "float16")


def test_int8_says_what_to_install(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match='pip install "torchao'):
        shrink(tiny_folder, tmp_path / "small", "int8")
    assert not (tmp_path / "small").exists()


def test_int8_weights_are_a_byte_in_memory_and_come_near(tiny_folder, tmp_path, capsys):
    pytest.importorskip("torchao", exc_type=ImportError)
    for name in ("dual_path", "semantic_lm", "mulan"):
        shrink(Path(tiny_folder) / name, tmp_path / name, "int8")
        before, after, memory = map(
            float, re.search(r"files (\S+) -> (\S+) MB, memory (\S+) MB", said(capsys)).groups()
        )
        assert after < 0.8 * before and memory <= after  # the configuration of safetensors takes its share here
    # as the docstring says
    from torchao.quantization import Int8WeightOnlyConfig

    int8 = Int8WeightOnlyConfig(version=2)
    quantization = diffusers.PipelineQuantizationConfig(
        quant_mapping={"dual_path": diffusers.TorchAoConfig(int8), "semantic_lm": transformers.TorchAoConfig(int8)}
    )
    pipe = MeLoDyPipeline.from_pretrained(tiny_folder, dtype=torch.bfloat16, quantization_config=quantization)
    assert pipe.dual_path.proj_in.weight.qdata.dtype == torch.int8
    assert pipe.semantic_lm.model.layers[0].mlp.up_proj.weight.qdata.dtype == torch.int8


def said(capsys) -> str:
    return capsys.readouterr().out
