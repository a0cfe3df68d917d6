"""`melody lora train`."""

import argparse
import importlib.util

NEEDED = {"datasets": "datasets", "peft": "peft", "psutil": "psutil", "pydantic": "pydantic", "yaml": "pyyaml"}


def train_adapter(args: argparse.Namespace) -> int:
    """`melody lora train`: a folder of recordings to an adapter."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"melody lora train needs {', '.join(missing)}: pip install 'melody-diffusers[train]'")
    from ..lora_training.trainer import train_lora

    train_lora(args.recordings, args.output, args.config, args.set)
    return 0
