"""`melody plan`: show, edit, render, audit."""

import argparse
import time
from dataclasses import replace

from .music import check_outputs, load, summarise_pieces, write_piece


def show(args: argparse.Namespace) -> int:
    """`melody plan show`: what is in a plan."""
    from ..plans import MusicPlan, shown

    plan = MusicPlan.load(args.input)
    lines = {
        "prompt": "none" if plan.prompt is None else shown(plan.prompt, 2000),
        "MuLan tokens": "none" if plan.mulan_tokens is None else " ".join(map(str, plan.mulan_tokens)),
        "seconds": f"{plan.seconds:g}",
        "tokens": f"{len(plan.tokens)}, {plan.token_rate} a second, below {plan.codebook_size}",
        "seed": "not known" if plan.seed is None else str(plan.seed),
        "model": f"{shown(plan.model)} ({shown(plan.digest)})",
        "rendered": f"in {shown(plan.dtype)} on {shown(plan.device)}",
        **{name: shown(str(value)) for table in (plan.sampling, plan.rendering) for name, value in table.items()},
        **{shown(name): shown(value) for name, value in plan.versions.items()},
    }
    for name, text in lines.items():
        print(f"  {name:<20}{text}")
    if args.tokens:
        for start in range(0, len(plan.tokens), plan.token_rate):
            print(" ".join(map(str, plan.tokens[start : start + plan.token_rate])))
    return 0


def edit(args: argparse.Namespace) -> int:
    """`melody plan edit`: edits in their order; without any, the plan of a sound file by itself."""
    from ..plans import MusicPlan

    plan = MusicPlan.load(args.input)
    for name, *values in args.edits:
        if name == "splice":
            plan = plan.splice(values[0], MusicPlan.load(values[1]))
        else:
            plan = getattr(plan, name)(*values)
    try:
        plan.save(args.output, args.overwrite)
    except FileExistsError:
        raise ValueError(f"-o {str(args.output)!r} is there already; choose another name, or --overwrite.") from None
    print(f"wrote {args.output}: {len(plan.tokens)} tokens, {plan.seconds:g} s")
    return 0


def render(args: argparse.Namespace) -> int:
    """`melody plan render`: a plan to sound, which holds it again."""
    from ..plans import DTYPES, MusicPlan

    plan = MusicPlan.load(args.input)
    check_outputs(args, [args.output, *([args.spectrogram] if args.spectrogram else [])], [args.input])
    changes = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    given = {name: value for name, value in changes.items() if value is not None}
    plan = replace(plan, rendering={**plan.rendering, **given})
    if args.seed is not None:
        plan = replace(plan, seed=args.seed, drawn_tokens=0)
    if args.dtype is None:
        args.dtype = plan.dtype if plan.dtype in DTYPES else "float32"
    pipe, load_seconds = load("MeLoDyPipeline", args)
    from ..pipelines.plan import render_plan, rendered_by

    started = time.perf_counter()
    output = render_plan(pipe, plan, output_type="pt")
    seconds = time.perf_counter() - started
    plan = replace(plan, **rendered_by(pipe))
    comment = f"seed {plan.seed}: {plan.prompt or 'a plan without a prompt'}"
    write_piece(args, args.output, output.audios[0].cpu(), pipe.sample_rate, comment, plan)
    seeds = [] if plan.seed is None else [plan.seed]
    summarise_pieces(args, output, pipe.sample_rate, seeds, seconds, load_seconds)
    return 0


def audit(args: argparse.Namespace) -> int:
    """`melody plan audit`: the longest run of a plan that stands in training data, and how likely that is by chance."""
    from ..plans import MusicPlan

    plan = MusicPlan.load(args.input)
    from ..data.datasets import encoded_plans
    from ..evaluation.plan_runs import chance_of_run, longest_run

    plans = encoded_plans(args.data, args.split)
    run = longest_run(plan.tokens, plans)
    chance = chance_of_run(len(plan.tokens), plans, run.length)
    rate = plan.token_rate
    print(f"  {'training plans':<20}{len(plans)}, of {sum(map(len, plans))} tokens")
    print(f"  {'longest common run':<20}{run.length} tokens, {run.length / rate:g} s")
    if run.length:
        where = f"at {run.start / rate:g} s, and in plan {run.plan} at {run.start_there / rate:g} s"
        print(f"  {'where':<20}{where}")
        print(f"  {'by chance':<20}{chance:.2g}: expected number of runs this long or longer, were each piece drawn")
        print(f"  {'':<20}anew from how often one token follows another in the training plans")
    return 0
