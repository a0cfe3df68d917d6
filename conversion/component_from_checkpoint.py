"""Turns a checkpoint of a training, in any layout, into a component's folder, ready for training/assemble_pipeline.py.

    python conversion/component_from_checkpoint.py --config outputs/tiny/dual_path \
        --checkpoint outputs/tiny/dual_path/checkpoints --out outputs/assembled/dual_path

--config is a folder with the component's config.json: of the stage, of a pipeline, or of an earlier version of equal
sizes. What --checkpoint is, is seen from what it holds:

    step-*/manifest.json          of our TrainingRun: the folder of one step, or of all, whose newest valid one is
                                  taken; averaged weights (EMA) where there are any, the live ones with --live
    .metadata, *.distcp           torch.distributed.checkpoint, as FSDP writes it (pytorch_model_fsdp_0 of accelerate)
    latest, *_optim_states.pt     DeepSpeed, ZeRO 1 to 3: the fp32 weights of all processes, put together
    one file                      a full state dict, .safetensors or of torch.save; FSDP's FULL_STATE_DICT, for example

Several models may lie in one checkpoint: --prefix says which is meant ("ema.", say) where that is not clear from the
names. All but safetensors are pickles: --allow_pickle reads them, and only tensors and plain values in them. Every
weight has to be there, with its shape. At the end the folder that was written computes what the checkpoint does.
"""

import argparse
import math
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from transformers import PreTrainedModel

from melody_diffusers.conversion_utils import compare, component_class, trial_outputs
from melody_diffusers.training_utils.checkpoint import named_tensors, newest_checkpoint, read_checkpoint

WRAPPERS = re.compile(r"_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.|_orig_mod\.")
ROUNDING = 2e-2  # largest relative difference between DeepSpeed's fp32 weights and their 16-bit copies

METADATA_CLASSES = {  # all that a .metadata file of torch.distributed.checkpoint is made of, besides dtypes
    "torch.distributed.checkpoint.metadata": (
        "Metadata MetadataIndex StorageMeta BytesStorageMetadata TensorStorageMetadata TensorProperties "
        "ChunkStorageMetadata _MEM_FORMAT_ENCODING"
    ),
    "torch.distributed.checkpoint.filesystem": "_StorageInfo",
    "torch.serialization": "_get_layout",
    "torch": "Size",
    "pathlib": "PosixPath WindowsPath",
    "pathlib._local": "PosixPath WindowsPath",
}


class MetadataUnpickler(pickle.Unpickler):
    """Reads a .metadata file, and refuses every class that such files are not made of."""

    def find_class(self, module: str, name: str) -> Any:
        known = name in METADATA_CLASSES.get(module, "").split()
        if known or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a .metadata file may not name {module}.{name}")


class SafeReader(FileSystemReader):
    """torch's reader, which unpickles the metadata without restraint, with `MetadataUnpickler` in its place."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = MetadataUnpickler(file).load()
        files = {info.relative_path for info in metadata.storage_data.values()}
        if outside := [name for name in files if Path(name).name != name]:
            raise ValueError(f"{self.path} names files outside of itself: {outside[:3]}.")
        return metadata


class Inert:
    """Stands for an object of DeepSpeed's own classes, none of which are imported or needed."""

    def __init__(self, *values: Any) -> None:
        self.values = values


def load_pickle(path: Path) -> Any:
    """`torch.load` of tensors and plain values; DeepSpeed's objects come as `Inert`."""
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    stands_for = [(Inert, name) for name in foreign if name.startswith("deepspeed.")]
    with torch.serialization.safe_globals(stands_for):
        return torch.load(path, map_location="cpu", weights_only=True)


def read_training_run(checkpoint: Path, live: bool) -> dict[str, Tensor]:
    """Weights of every model of a TrainingRun, `<model>.<name>`; averages take the place of the live ones."""
    files, _ = read_checkpoint(checkpoint)
    weights = {}
    for kind in ("model.",) if live else ("model.", "ema."):  # averages hold what was trained; buffers are the model's
        for file, tensors in files.items():
            if file.startswith(kind):
                weights |= {f"{file.removeprefix(kind)}.{name}": tensor for name, tensor in tensors.items()}
    return weights


def read_distributed(folder: Path, component: nn.Module, prefix: str | None) -> dict[str, Tensor]:
    """The tensors of a torch.distributed.checkpoint folder that belong to the component; no process group is needed."""
    entries = SafeReader(folder).read_metadata().state_dict_metadata
    tensors = {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
    chosen = match(tensors, component, prefix).values()
    weights = {name: torch.empty(tensors[name].size, dtype=tensors[name].properties.dtype) for name in chosen}
    dcp.load(weights, storage_reader=SafeReader(folder), no_dist=True)
    return weights


def read_deepspeed(folder: Path) -> dict[str, Tensor]:
    """fp32 weights and buffers of a ZeRO checkpoint, whose parameters are one flat vector cut into a part per process.

    ZeRO 1 and 2 cut the vector of all parameters; ZeRO 3 cuts every parameter, padded to a multiple of the processes.
    """
    parts = sorted(folder.glob("*zero_pp_rank_*_mp_rank_00_optim_states.pt"), key=_rank)
    if len(parts) != len(list(folder.glob("*_optim_states.pt"))):
        raise ValueError(f"{folder} is of model-parallel training, which is not read here.")
    ranks = [load_pickle(part)["optimizer_state_dict"] for part in parts]
    stage, count = ranks[0]["zero_stage"], ranks[0]["partition_count"]
    stage = stage.values[0] if isinstance(stage, Inert) else stage
    count = max(count) if isinstance(count, list) else count
    if count != len(ranks):
        raise ValueError(f"{folder} must hold the states of all {count} processes; it holds {len(ranks)}.")
    states = [load_pickle(file) for file in sorted(folder.glob("*mp_rank_00_model_states.pt"), key=_rank)]
    model, groups = states[0], states[0]["param_shapes"]
    if stage == 3:
        buffers = set(model["buffer_names"])
        weights = {name: tensor for name, tensor in model["module"].items() if name in buffers}
        for name, shape in (model.get("frozen_param_shapes") or {}).items():
            weights[name] = _join([state["frozen_param_fragments"][name] for state in states], shape)
        flats, start = [torch.cat(rank["fp32_flat_groups"]) for rank in ranks], 0
        for name, shape in ((name, shape) for group in groups for name, shape in group.items()):
            end = start + math.ceil(math.prod(shape) / count)
            weights[name] = _join([flat[start:end] for flat in flats], shape)
            start = end
    else:
        weights = model["module"] | (model.get("frozen_param_fragments") or {})
        for i, group in enumerate(groups):
            flat = torch.cat([rank["single_partition_of_fp32_groups"][i] for rank in ranks])
            sizes = [math.prod(shape) for shape in group.values()]
            for (name, shape), piece in zip(group.items(), flat[: sum(sizes)].split(sizes), strict=True):
                error = (piece - weights[name].flatten().float()).norm()
                if not error <= ROUNDING * piece.norm() + 1e-6:
                    raise ValueError(f"{folder}: the fp32 weights of {name} are not those of the model.")
                weights[name] = piece.view(shape)
    for alias, name in (model.get("shared_params") or {}).items():
        weights[alias] = weights[name]
    return weights


def _rank(path: Path) -> int:
    found = re.search(r"pp_rank_(\d+)_", path.name)
    return int(found[1]) if found else 0


def _join(pieces: list[Tensor], shape: Iterable[int]) -> Tensor:
    shape = tuple(shape)
    return torch.cat(pieces)[: math.prod(shape)].view(shape)


def flatten(values: dict, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of dicts within dicts, by dotted name."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
    return found


def match(names: Iterable[str], component: nn.Module, prefix: str | None) -> dict[str, str]:
    """Which name in the checkpoint belongs to each of the component's: the same behind a prefix and without wrappers.

    Raises:
        ValueError: no prefix leads to all of them, several do, or there are more parts than the component has.
    """
    wanted, known = sorted(named_tensors(component)), component.state_dict().keys()
    plain = {WRAPPERS.sub("", name): name for name in names}
    if prefix is None:
        prefixes = [name.removesuffix(wanted[0]) for name in plain if f".{name}".endswith(f".{wanted[0]}")]
    else:
        prefixes = [prefix]
    complete = [start for start in prefixes if all(start + name in plain for name in wanted)]
    if len(complete) > 1:
        raise ValueError(f"The checkpoint holds several models that fit; give --prefix, one of {sorted(complete)}.")
    if not complete:
        lacks = [name for name in wanted if not prefixes or prefixes[0] + name not in plain]
        raise ValueError(
            f"The checkpoint must hold all {len(wanted)} tensors of the component that --config describes; it lacks "
            f"{', '.join(lacks[:3])}. Its own begin with {', '.join(sorted(plain)[:3])}."
        )
    start = complete[0]
    parts = {name.split(".")[0] for name in known}  # an optimiser beside them is none of these
    theirs = {name.removeprefix(start) for name in plain if name.startswith(start)}
    if more := sorted(name for name in theirs - known if name.split(".")[0] in parts):
        raise ValueError(f"The checkpoint holds more than --config describes: {', '.join(more[:3])}.")
    return {name: plain[start + name] for name in wanted}


def read(
    checkpoint: Path, component: nn.Module, prefix: str | None, live: bool, allow_pickle: bool
) -> tuple[str, dict[str, Tensor]]:
    """The layout of the checkpoint, and its tensors by name."""
    if not checkpoint.exists():
        raise ValueError(f"There is no checkpoint at {checkpoint}.")
    if checkpoint.suffix == ".safetensors":
        return "state dict", load_file(checkpoint)
    step = checkpoint if (checkpoint / "manifest.json").is_file() else newest_checkpoint(checkpoint)
    if step is not None:
        return f"TrainingRun, {step.name}, {'live' if live else 'averaged where kept'}", read_training_run(step, live)
    if not allow_pickle:
        raise ValueError(
            f"{checkpoint} is made of pickles; give --allow_pickle to read tensors and plain values of it."
        )
    if checkpoint.is_file():
        return "state dict", flatten(load_pickle(checkpoint))
    if (checkpoint / ".metadata").is_file():
        return "torch.distributed.checkpoint", read_distributed(checkpoint, component, prefix)
    tag = checkpoint / "latest"
    folder = checkpoint / Path(tag.read_text(encoding="utf-8").strip()).name if tag.is_file() else checkpoint
    if any(folder.glob("*_optim_states.pt")):
        return f"DeepSpeed, {folder.name}", read_deepspeed(folder)
    raise ValueError(f"{checkpoint} is in none of the layouts that --help lists.")


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="folder with the component's config.json")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder or file of weights")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--prefix", help="what stands before the component's names in the checkpoint")
    parser.add_argument("--live", action="store_true", help="of a TrainingRun, the live weights and not their averages")
    parser.add_argument("--allow_pickle", action="store_true", help="read pickles, as plain weights only")
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest relative difference of the outputs")
    args = parser.parse_args(arguments)

    cls = component_class(args.config)
    if issubclass(cls, PreTrainedModel):
        component = cls(cls.config_class.from_pretrained(args.config))
    else:
        component = cls.from_config(cls.load_config(args.config))
    component = component.float().eval()
    layout, weights = read(args.checkpoint, component, args.prefix, args.live, args.allow_pickle)
    names, targets = match(weights, component, args.prefix), named_tensors(component)
    for name, target in targets.items():
        weight = weights[names[name]]
        if weight.shape != target.shape:
            raise ValueError(f"{name} must be {tuple(target.shape)} as in --config; it is {tuple(weight.shape)}.")
        if not weight.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity.")
        target.copy_(weight)
    expected = trial_outputs(component)
    component.save_pretrained(args.out)
    size = sum(target.numel() for target in targets.values())
    print(f"{layout}: {len(names)} tensors of {cls.__name__}, {size / 1e6:.1f} M numbers")
    compare(cls.__name__, trial_outputs(cls.from_pretrained(args.out).eval()), expected, args.tolerance)


if __name__ == "__main__":
    main()
