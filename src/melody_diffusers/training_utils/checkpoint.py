"""Checkpoints of a training run: folders of safetensors and JSON that are there whole or not at all.

Each is written aside, synced to disk, sealed by a manifest with the SHA-256 of every file, and renamed into its place;
only then do older ones go. The newest is found by looking at what is there and checking it, so that no pointer can go
wrong. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

MANIFEST = "manifest.json"


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tensor that two names share comes once."""
    persistent = model.state_dict().keys()
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors.items() if name in persistent}


def write_checkpoint(
    folder: Path, step: int, files: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any], keep: int
) -> None:
    """Writes folder/step-<step> with one safetensors file per entry of `files`, then removes all but `keep` others.

    Raises:
        OSError: the disk is full or failing; the checkpoints that were there are as they were.
    """
    checkpoint, aside = folder / f"step-{step:08d}", folder / f".tmp-step-{step:08d}"
    for left in (*folder.glob(".tmp-*"), *folder.glob(".del-*")):  # by a run that was killed
        shutil.rmtree(left)
    try:
        aside.mkdir(parents=True)
        with ThreadPoolExecutor() as pool:  # a file is read back and synced while the next is being written
            digests, synced = {}, []

            def seal(file: Path) -> None:
                digests[file.name] = pool.submit(_sha256, file)
                synced.append(pool.submit(_sync, file))

            for name, tensors in files.items():
                file = aside / f"{name}.safetensors"
                save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
                seal(file)
            (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
            seal(aside / "state.json")
        for sync in synced:
            sync.result()
        manifest = {name: digest.result() for name, digest in sorted(digests.items())}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in (aside / MANIFEST, aside):
            _sync(path)
        if checkpoint.exists():  # damaged, or of the same step before a run went back
            _remove(checkpoint)
        os.replace(aside, checkpoint)
        _sync(folder)
    except Exception as error:
        shutil.rmtree(aside, ignore_errors=True)
        # what safetensors cannot write it reports by an exception of its own
        raise OSError(f"{checkpoint} could not be written: {error}") from error
    for old in sorted(folder.glob("step-*"))[:-keep]:
        _remove(old)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step of which every file is as it was written, if there is one.

    A later one that is not is put aside as damaged-step-<step>, and a warning names the file.
    """
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(checkpoint, aside)
        warnings.warn(f"{checkpoint} is passed over, and now called {aside.name}: {damage}.", stacklevel=2)
    return None


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None if nothing is."""
    try:
        digests = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(digests, dict) or not digests:
            return f"{MANIFEST} lists no files"
    except (OSError, ValueError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, digest in digests.items():
        try:
            if _sha256(checkpoint / name) != digest:
                return f"{name} has changed since it was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def read_checkpoint(checkpoint: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors of each file, and the state."""
    files = {path.stem: load_file(path) for path in checkpoint.glob("*.safetensors")}
    return files, json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))


def write_model(model: Any, folder: Path) -> None:
    """`model.save_pretrained(folder)`, each file whole and config.json last."""
    aside = folder / ".tmp-model"
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    for file in sorted(aside.iterdir(), reverse=True):
        os.replace(file, folder / file.name)
    aside.rmdir()


def _remove(checkpoint: Path) -> None:
    """Renamed first, so that what a crash leaves half removed is no checkpoint by its name."""
    doomed = checkpoint.with_name(f".del-{checkpoint.name}")
    os.replace(checkpoint, doomed)
    shutil.rmtree(doomed)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
