"""`melody vary`."""

import argparse
import time

from .music import announce_seed, check_outputs, generators, load, sampling_of, summarise_pieces, write_piece


def vary(args: argparse.Namespace) -> int:
    """`melody vary`: a piece, slightly or entirely otherwise. What holds its own plan is varied by that."""
    from ..plans import MusicPlan, PlanError

    check_outputs(args, [args.output, *([args.spectrogram] if args.spectrogram else [])], [args.input])
    args.count = 1
    seed = announce_seed(args)
    pipe, load_seconds = load("MeLoDyVariationPipeline", args)
    try:
        plan = MusicPlan.load(args.input)
    except (PlanError, OSError):  # of a file that is not there the pipeline complains
        plan = None
    size, rate = pipe.semantic_lm.config.semantic_codebook_size, pipe.timebase.token_rate
    if plan is not None and (plan.codebook_size, plan.token_rate) != (size, rate):
        plan = None  # of another model
    prompt = args.prompt if args.prompt is not None or plan is None else plan.prompt
    started = time.perf_counter()
    output = pipe(
        audio=args.input,
        strength=args.strength,
        plan_strength=args.plan_strength,
        prompt=prompt,
        semantic_tokens=None if plan is None else [list(plan.tokens)],
        generator=generators([seed]),
        **sampling_of(args),
    )
    seconds = time.perf_counter() - started
    comment = f"seed {seed}: {args.input} by {args.strength:g} and its plan by {args.plan_strength:g}"
    write_piece(args, args.output, output.audios[0].cpu(), pipe.sample_rate, comment)
    summarise_pieces(args, output, pipe.sample_rate, [seed], seconds, load_seconds)
    return 0
