"""Run by test_checkpoints.py under crash_points.so: each write of a save fails or is the last, and what then?

Prints a JSON list, one entry for each point: [keep, mode, point, what came of it].
"""

import ctypes
import errno
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import torch

from melody_diffusers.training_utils.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint

MODES = {"SIGKILL": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO}


def content(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {name: {"weight": torch.full((3000,), float(step)), "bias": torch.zeros(3)} for name in ("model", "ema")}


def save(folder: Path, step: int, keep: int) -> None:
    write_checkpoint(folder, step, content(step), {"step": step}, keep)


def is_whole(checkpoint: Path | None, step: int) -> bool:
    if checkpoint is None or checkpoint.name != f"step-{step:08d}":
        return False
    files, state = read_checkpoint(checkpoint)
    return state == {"step": step} and all(
        torch.equal(files[name][key], tensor)
        for name, tensors in content(step).items()
        for key, tensor in tensors.items()
    )


def in_a_child(library: ctypes.CDLL, folder: Path, keep: int, mode: int, point: int) -> int:
    """Saves step 3; how many operations that took, in a pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        library.arm(point, mode)
        try:
            save(folder, 3, keep)
        except OSError:
            pass
        os.write(writing, str(library.operations()).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    number = os.read(reading, 100)
    os.close(reading)
    return int(number or 0)


def main() -> None:
    warnings.simplefilter("ignore")
    library, root = ctypes.CDLL(sys.argv[1]), Path(os.environ["CRASH_ROOT"])
    outcomes = []
    for keep in (1, 2):
        template = root / f"template-{keep}"
        for step in (1, 2):
            save(template, step, keep)
        trial = root / f"trial-{keep}"
        shutil.copytree(template, trial)
        total = in_a_child(library, trial, keep, 0, -1)
        for name, mode in MODES.items():
            for point in range(1, total + 1):
                shutil.rmtree(trial)
                shutil.copytree(template, trial)
                in_a_child(library, trial, keep, mode, point)
                newest = newest_checkpoint(trial)
                outcome = "old" if is_whole(newest, 2) else "new" if is_whole(newest, 3) else "lost"
                save(trial, 4, keep)
                left = sorted(path.name for path in trial.iterdir())
                healed = is_whole(newest_checkpoint(trial), 4) and len(left) == keep and left[-1] == "step-00000004"
                outcomes.append([keep, name, point, outcome if healed else f"not healed: {left}"])
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
