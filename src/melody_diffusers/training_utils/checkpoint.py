"""Checkpoints of a training run: folders of safetensors and JSON that are there whole or not at all.

Written aside, synced to disk, listed with their sizes in manifest.json, then renamed. The newest is found by looking
at what is there, so that no pointer can go wrong. Nothing is ever unpickled.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tensor that two names share comes once."""
    persistent = model.state_dict().keys()
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors.items() if name in persistent}


def write_checkpoint(
    folder: Path, step: int, files: dict[str, dict[str, Tensor]], counters: dict[str, Any], keep: int
) -> None:
    """Writes folder/step-<step> with one safetensors file per entry of `files`, then removes all but `keep` others."""
    checkpoint = folder / f"step-{step:08d}"
    if not _is_valid(checkpoint):
        aside = folder / f".tmp-{checkpoint.name}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, tensors in files.items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, aside / f"{name}.safetensors")
        (aside / "state.json").write_text(json.dumps(counters), encoding="utf-8")
        sizes = {file.name: file.stat().st_size for file in sorted(aside.iterdir())}
        (aside / "manifest.json").write_text(json.dumps(sizes, indent=1), encoding="utf-8")
        for path in [*aside.iterdir(), aside]:
            _sync(path)
        shutil.rmtree(checkpoint, ignore_errors=True)
        os.replace(aside, checkpoint)
        _sync(folder)
    valid = [path for path in sorted(folder.glob("step-*")) if _is_valid(path)]
    for old in valid[:-keep]:
        shutil.rmtree(old)


def newest_checkpoint(folder: Path) -> Path | None:
    """The valid checkpoint of the latest step, if there is one."""
    return next((path for path in sorted(folder.glob("step-*"), reverse=True) if _is_valid(path)), None)


def read_checkpoint(checkpoint: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors of each file, and the counters."""
    files = {path.stem: load_file(path) for path in checkpoint.glob("*.safetensors")}
    return files, json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))


def _is_valid(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
