"""`melody data build` and `melody data encode`."""

import argparse

from .pipeline import load_pipeline


def build_data(args: argparse.Namespace) -> int:
    """`melody data build`: recordings of any kind to a data set folder."""
    from ..data.build import MANIFEST, build_dataset
    from ..data.decoding import DecodeLimits

    limits = DecodeLimits(
        clip_seconds=args.clip_seconds,
        min_seconds=args.min_seconds,
        loop_seconds=args.loop_seconds,
        max_seconds=args.max_seconds,
        min_level_db=args.min_level,
        timeout_seconds=args.timeout,
    )
    summary = build_dataset(
        args.source,
        args.out,
        limits=limits,
        validation_share=args.validation_share,
        test_share=args.test_share,
        split=args.split,
        streaming=args.streaming,
        max_recordings=args.max_recordings,
        workers=args.workers,
        replace=args.replace,
    )
    print(f"{summary}\nwrote {args.out}; {args.out / MANIFEST} has a line for each recording")
    return 0


def encode_data(args: argparse.Namespace) -> int:
    """`melody data encode`: a data set folder to latents and tokens, by the components of a pipeline."""
    from ..data.encode import ClipEncoder, encode_dataset, process_state

    if not args.data.is_dir():
        raise ValueError(f"--data {str(args.data)!r} is no folder; `melody data build` makes one.")
    args.device = str(process_state().device) if args.device is None else args.device
    pipe, _ = load_pipeline("MeLoDyPipeline", args)
    if pipe.semantic_tokenizer is None:
        raise ValueError(f"--model {args.model!r} has no semantic_tokenizer, without which nothing can be encoded.")
    encoder = ClipEncoder(
        pipe.vae,
        pipe.mulan,
        pipe.mulan_quantizer,
        pipe.semantic_tokenizer,
        pipe.tokenizer,
        window_seconds=args.window_seconds,
        window_stride_seconds=args.window_stride_seconds,
        tag_lists=args.tag_lists,
        mixed_precision=args.mixed_precision,
    )
    encode_dataset(args.data, encoder, args.out, args.splits, args.batch_size, args.rows_per_part)
    return 0
