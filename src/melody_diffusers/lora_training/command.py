"""The `melody lora` commands, with heavy imports inside the handlers."""

import argparse
import importlib.util
from pathlib import Path

NEEDED = {"datasets": "datasets", "peft": "peft", "psutil": "psutil", "pydantic": "pydantic", "yaml": "pyyaml"}


def train(args: argparse.Namespace) -> int:
    """`melody lora train`: a folder of recordings to an adapter."""
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"melody lora train needs {', '.join(missing)}: pip install 'melody-diffusers[train]'")
    from .trainer import train_lora

    train_lora(args.recordings, args.output, args.config, args.set)
    return 0


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds `lora train` to the commands of a parser."""
    lora = commands.add_parser("lora", help="train an adapter").add_subparsers(metavar="command", required=True)
    command = lora.add_parser("train", help="a folder of recordings to an adapter; the same command again goes on")
    command.add_argument("recordings", type=Path, help="folder of recordings, or one that `melody data build` wrote")
    command.add_argument("--output", type=Path, required=True, help="folder for the adapter, samples and checkpoints")
    command.add_argument("--config", type=Path, help="YAML file (default: the package's, for melody-tiny)")
    what = "override single values, such as run.budget_minutes=30"
    command.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help=what)
    command.set_defaults(handler=train)
