"""Adapts a pipeline to a folder of recordings by LoRA; `melody lora train` is the same (docs/lora.md).

python training/train_lora.py --data my_recordings/ --output my_lora
"""

import argparse

from melody_diffusers.lora_training.trainer import train_lora


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of recordings")
    parser.add_argument("--output", required=True, help="folder for the adapter, two samples and the checkpoints")
    parser.add_argument("--config", help="YAML file (default: the package's, for melody-tiny)")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override single values"
    )
    args = parser.parse_args()
    train_lora(args.data, args.output, args.config, args.set)


if __name__ == "__main__":
    main()
