"""Writes a smaller copy of a component or of a whole pipeline, and says what that costs in accuracy.

    python conversion/shrink.py --source outputs/melody --out outputs/melody_fp16 --dtype float16

float16 and bfloat16 store every weight in two bytes. Load the copy with that dtype, or diffusers' components, and those
whose config.json says so, compute in float32:

    MeLoDyPipeline.from_pretrained("outputs/melody_fp16", dtype=torch.float16)

int8 is what weights become when they are loaded. The copy holds bfloat16, and the caller's `quantization_config` turns
the linear layers of MuLan, the language model and the diffusion model into bytes with a scale for each row, which takes
about half as much memory again (pip install "torchao>=0.16"):

    int8 = Int8WeightOnlyConfig(version=2)                                   # from torchao.quantization
    quantization = PipelineQuantizationConfig(quant_mapping={                # from diffusers
        "dual_path": diffusers.TorchAoConfig(int8),
        "semantic_lm": transformers.TorchAoConfig(int8),
        "mulan": transformers.TorchAoConfig(int8),
    })
    MeLoDyPipeline.from_pretrained("outputs/melody_int8", dtype=torch.bfloat16, quantization_config=quantization)

Each component computes one fixed random input as it was and from the copy, both in float32, so that the difference is
what rounding the weights costs and not how this machine computes with 16 bits; int8 computes in bfloat16, as it will be
used. A line gives sizes, and the largest absolute and the relative difference of the outputs.
"""

import argparse
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import diffusers
import torch
import transformers
from torch import nn

from melody_diffusers import DualPathDiffusionModel, MuLanModel, SemanticLM
from melody_diffusers.conversion_utils import COMPONENTS, compare, component_class, trial_outputs

TOLERANCES = {"float16": 0.01, "bfloat16": 0.05, "int8": 0.1}
INT8_COMPONENTS = (DualPathDiffusionModel, MuLanModel, SemanticLM)  # most of the weights, and none makes the waveform


def int8_config(cls: type) -> Any:
    """torchao's int8 weights, in the wrapper of the library that loads the class."""
    from torchao.quantization import Int8WeightOnlyConfig

    library = transformers if issubclass(cls, transformers.PreTrainedModel) else diffusers
    return library.TorchAoConfig(Int8WeightOnlyConfig(version=2))


def file_megabytes(folder: Path) -> float:
    """Of the weights without those of variants, as `model.teacher.safetensors` is one, which are not copied."""
    files = (file for file in folder.rglob("*.safetensors") if len(file.suffixes) == 1)
    return sum(file.stat().st_size for file in files) / 1e6


def memory_megabytes(component: nn.Module) -> float:
    """Of all parameters and buffers; of a quantized tensor, what it is made of."""
    total = 0
    for tensor in (*component.parameters(), *component.buffers()):
        plain = type(tensor.data) is torch.Tensor
        total += sum(part.nbytes for part in ([tensor] if plain else map(tensor.__getattribute__, inner_names(tensor))))
    return total / 1e6


def inner_names(tensor: torch.Tensor) -> list[str]:
    return tensor.__tensor_flatten__()[0]  # type: ignore[attr-defined]


def shrink(source: Path, out: Path, dtype: str, tolerance: float) -> None:
    """Writes the component of the folder `source` to `out` and compares the two."""
    cls = component_class(source)
    stored = torch.bfloat16 if dtype == "int8" else getattr(torch, dtype)
    quantized = dtype == "int8" and cls in INT8_COMPONENTS
    extra = {"quantization_config": int8_config(cls)} if quantized else {}
    cls.from_pretrained(source, dtype=stored).save_pretrained(out)
    small = cls.from_pretrained(out, dtype=stored, **extra).eval()
    sizes = (
        f"files {file_megabytes(source):.2f} -> {file_megabytes(out):.2f} MB, memory {memory_megabytes(small):.2f} MB"
    )
    outputs = trial_outputs(small if quantized else small.float())
    whole = cls.from_pretrained(source, dtype=torch.float32).eval()
    compare(f"{cls.__name__}: {sizes}", outputs, trial_outputs(whole), tolerance)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of a component or of a pipeline")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, which must not exist")
    parser.add_argument("--dtype", choices=sorted(TOLERANCES), required=True)
    parser.add_argument("--tolerance", type=float, help=f"largest relative difference; by default {TOLERANCES}")
    args = parser.parse_args(arguments)

    if args.out.exists():
        raise ValueError(f"--out must name a new folder; {args.out} exists.")
    if args.dtype == "int8" and importlib.util.find_spec("torchao") is None:
        raise ValueError('--dtype int8 needs torchao: pip install "torchao>=0.16".')
    tolerance = TOLERANCES[args.dtype] if args.tolerance is None else args.tolerance
    if not (args.source / "model_index.json").is_file():
        shrink(args.source, args.out, args.dtype, tolerance)
        return
    names = {cls.__name__ for cls in COMPONENTS}
    index = json.loads((args.source / "model_index.json").read_text(encoding="utf-8"))
    models = [name for name, entry in sorted(index.items()) if isinstance(entry, list) and entry[1] in names]
    shutil.copytree(args.source, args.out, ignore=shutil.ignore_patterns(*models))
    for name in models:
        shrink(args.source / name, args.out / name, args.dtype, tolerance)
    print(f"{args.out}: files {file_megabytes(args.source):.2f} -> {file_megabytes(args.out):.2f} MB")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main()
