"""Random numbers that depend on the seed and on what they are for, and on nothing that went before."""

import hashlib
import json
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, SequentialSampler


def seed_of(*parts: str | int) -> int:
    """A seed for a generator, the same for the same parts."""
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big") >> 1


def batch_size_of(loader: DataLoader, accelerator: Accelerator) -> int:
    """The loader's batch size, or the largest that the data set fills on every process."""
    dataset: Any = loader.dataset
    if loader.batch_size is None or not hasattr(dataset, "__len__"):
        raise ValueError("steps needs a DataLoader with a batch_size over a dataset of known length.")
    most = len(dataset) // accelerator.num_processes
    if most == 0:
        raise ValueError(f"{len(dataset)} items are too few for {accelerator.num_processes} processes.")
    if most < loader.batch_size:
        accelerator.print(f"{len(dataset)} items do not fill a batch of {loader.batch_size}: it has {most}")
    return min(most, loader.batch_size)


def rest_of_epoch(
    loader: DataLoader, size: int, seed: int, samples: int, accelerator: Accelerator
) -> tuple[list[list[int]], DataLoader]:
    """What remains of the epoch after `samples` samples of all processes and epochs: the rows of each batch of this
    process, of `size` rows, and a loader of these batches with the workers and the collate function of `loader`.

    The order comes from (seed, epoch), or from 0 to the end where the loader does not shuffle. A dataset with
    `set_epoch` is told the epoch, and one with `order(generator)` says itself how it is shuffled.
    """
    dataset: Any = loader.dataset
    total, processes = len(dataset), accelerator.num_processes
    stride = size * processes
    per_epoch = total // stride if loader.drop_last or processes > 1 else -(-total // stride)
    epoch, seen = divmod(samples // stride, per_epoch)
    if isinstance(loader.sampler, SequentialSampler):
        order = list(range(total))
    else:
        generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
        own = hasattr(dataset, "order")
        order = dataset.order(generator) if own else torch.randperm(total, generator=generator).tolist()
    starts = range(seen * stride + size * accelerator.process_index, per_epoch * stride, stride)
    batches = [order[start : start + size] for start in starts]
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    return batches, DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=accelerator.device.type == "cuda",
    )
