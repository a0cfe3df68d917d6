"""Adapts a pipeline to a folder of recordings by LoRA: `melody lora train`."""

from .trainer import train_lora

__all__ = ["train_lora"]
