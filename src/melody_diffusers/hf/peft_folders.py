"""Adapters in the form of PEFT's own `save_pretrained`: adapter_config.json and adapter_model.safetensors."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors import SafetensorError
from safetensors.torch import load_file

from .loading import read_json

# Of PEFT's settings only these are written and read: some others name Python modules to import.
CONFIG_FIELDS = (
    "r",
    "lora_alpha",
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "lora_bias",
)
COMPONENTS = ["dual_path", "semantic_lm"]
PEFT_WEIGHTS = "adapter_model.safetensors"
MAX_RANK = 4096


def read_peft_folders(
    models: Mapping[str, Any], source: Any, subfolder: str | None, weight_name: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and header of an adapter in the form that PEFT's own `save_pretrained` gives it; None for any other.

    Args:
        models: those of a pipeline, by name. The names of the modules that it adapts tell which of them it belongs to.
        source: a folder, or one that has a folder for each model, or the file of the weights; what else a pipeline
            loads adapters from is None here.
        subfolder: of the folder.
        weight_name: of the file.

    Raises:
        OSError: the weights are damaged.
        ValueError: no adapter of ours, or not LoRA.
    """
    if isinstance(source, Mapping) or weight_name not in (None, PEFT_WEIGHTS):
        return None
    place = Path(source, subfolder or "")
    place = place.parent if place.name == PEFT_WEIGHTS else place
    if not place.is_dir() or (place / LORA_WEIGHT_NAME_SAFE).exists():
        return None
    folders = [place, *sorted(place.iterdir())]  # one that PEFT named, or one for each model
    folders = [folder for folder in folders if (folder / "adapter_config.json").is_file()]
    state_dict: dict[str, torch.Tensor] = {}
    metadata: dict[str, Any] = {}
    for folder in folders[:1] if folders[:1] == [place] else folders:
        part, tensors = _read_peft_folder(models, folder)
        if any(key.startswith(f"{part}.") for key in state_dict):
            names = ", ".join(each.name for each in folders)
            raise ValueError(f"{place} has several adapters of {part} among {names}; give the folder of one.")
        state_dict |= {f"{part}.{key}": tensor for key, tensor in tensors.items()}
        config = read_json(folder / "adapter_config.json")
        config["target_modules"] = sorted({key.partition(".lora_")[0] for key in tensors})  # not where it might be
        metadata |= {f"{part}.{field}": config[field] for field in CONFIG_FIELDS if field in config}
    return (state_dict, metadata) if folders else None


def _read_peft_folder(models: Mapping[str, Any], folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """Which model one folder of PEFT's adapts, and its tensors by their names in that model."""
    file = folder / PEFT_WEIGHTS
    if read_json(folder / "adapter_config.json").get("peft_type") != "LORA" or not file.is_file():
        raise ValueError(f"{folder} must hold a LoRA adapter of PEFT, with its weights in {file.name}.")
    try:
        tensors = {key.removeprefix("base_model.model."): tensor for key, tensor in load_file(file).items()}
    except SafetensorError as error:
        raise OSError(f"{file} is damaged: {error}. Save or download it again.") from None
    others = [key for key in tensors if ".lora_" not in key]
    if others:
        raise ValueError(f"{folder} holds whole weights besides LoRA's (PEFT's modules_to_save), as {others[0]}.")
    modules = {key.partition(".lora_")[0] for key in tensors}
    parts = [part for part in COMPONENTS if modules <= {name for name, _ in models[part].named_modules()}]
    if len(parts) != 1:
        raise ValueError(
            f"{folder} is no adapter of {' or '.join(COMPONENTS)}: neither has all of the modules that it "
            f"adapts, such as {min(modules, default='none')}."
        )
    if not all(torch.isfinite(weight).all() for weight in tensors.values()):
        raise ValueError(f"{folder} holds NaN or infinity; it must have been damaged, or its training was.")
    return parts[0], tensors


def check_settings(source: str, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting of another type than PEFT's, or for ranks that would fill the memory."""
    for name, value in metadata.items():
        field = name.rpartition(".")[2]
        if value is None:
            continue
        values = list(value.values()) if field.endswith("_pattern") and isinstance(value, dict) else [value]
        if field in ("r", "rank_pattern"):
            is_right = all(type(rank) is int and 1 <= rank <= MAX_RANK for rank in values)
        elif field in ("lora_alpha", "alpha_pattern"):
            is_right = all(type(alpha) in (int, float) and math.isfinite(alpha) for alpha in values)
        elif field == "target_modules":
            is_right = isinstance(value, str) or isinstance(value, list) and all(type(each) is str for each in value)
        else:
            is_right = field not in CONFIG_FIELDS or type(value) is bool
        if not is_right:
            raise ValueError(f"{source}: `{name}` is {value!r:.80}, which is no setting of a LoRA adapter.")
