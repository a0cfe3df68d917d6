"""Adapts a pipeline to a folder of recordings by LoRA: `melody lora train`."""
