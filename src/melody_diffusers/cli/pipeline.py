"""The pipeline that a command works with."""

import argparse
import gc
import os
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load_pipeline(class_name: str, args: argparse.Namespace) -> tuple["DiffusionPipeline", float]:
    """The pipeline on its device, in its dtype, and the seconds that took."""
    is_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", args.model) and not args.model.startswith(".")
    if not os.path.isfile(os.path.join(args.model, "model_index.json")) and (
        os.path.exists(args.model) or not is_hub_name
    ):
        raise ValueError(f"--model {args.model!r} is neither a folder with a model_index.json nor a name on the Hub.")
    started = time.perf_counter()
    import melody_diffusers

    pipeline_class = getattr(melody_diffusers, class_name)  # first, since it imports the rest, and how is its concern
    if gc.get_freeze_count() == 0:  # what has been imported stays: no search for garbage goes through it any more
        gc.freeze()
    import torch
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils.logging import disable_progress_bar as disable_transformers_progress_bar

    from ..devices import default_device, fast_dtypes, use_tensor_cores

    disable_progress_bar()
    disable_transformers_progress_bar()
    device = default_device() if args.device is None else args.device
    try:
        device = torch.empty(0, device=device).device
        use_tensor_cores(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device!r} is not available: {error}") from error
    dtype = fast_dtypes(device) if args.dtype == "auto" else getattr(torch, args.dtype)
    pipe = pipeline_class.from_pretrained(args.model, dtype=dtype)
    pipe.set_progress_bar_config(disable=None)  # bars are for terminals
    return pipe.to(device), time.perf_counter() - started
