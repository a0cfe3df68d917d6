"""What compare.py measured: results.json, a table in Markdown, and two plots."""

import json
import statistics
from pathlib import Path

STAGES = {"encode_prompt": "prompt", "generate_semantic_tokens": "plan"}
STAGES |= {"denoise_latents": "diffusion", "decode_latents": "decoding"}


def medians(timings: list[dict]) -> list[dict]:
    """The median of each system, length and batch, by batch and length."""
    cases: dict[tuple, list[dict]] = {}
    for each in timings:
        cases.setdefault((each["batch"], each["seconds"], each["system"]), []).append(each)
    rows = []
    for (batch, seconds, system), runs in sorted(cases.items(), key=lambda case: case[0][:2]):
        times = [run["took"] for run in runs]
        row = {"system": system, "seconds": seconds, "batch": batch, "took": statistics.median(times)}
        row |= {"fastest": min(times), "slowest": max(times), "runs": len(runs)}
        row |= {"times_real_time": batch * seconds / row["took"]}
        row |= {"stages": {key: statistics.median(run["stages"][key] for run in runs) for key in runs[0]["stages"]}}
        rows.append(row)
    return rows


def linear_fit(rows: list[dict]) -> dict[str, float] | None:
    """Of single pieces from 10 s on: seconds against length as a straight line; R^2 is 1 where cost is linear."""
    points = [(row["seconds"], row["took"]) for row in rows if row["batch"] == 1 and row["seconds"] >= 10]
    if len(points) < 3:
        return None
    slope, intercept = statistics.linear_regression(*zip(*points))
    return {"slope": slope, "intercept": intercept, "r_squared": statistics.correlation(*zip(*points)) ** 2}


def write(out: Path, results: dict) -> str:
    """Writes all of it into the folder, and gives the table."""
    rows = results["medians"] = medians(results["timings"])
    ours = {name: [row for row in rows if row["system"] == name] for name in results["systems"]}
    ours = {name: own for name, own in ours.items() if results["systems"][name].get("ours")}
    results["linear_fits"] = {name: linear_fit(own) for name, own in ours.items()}
    best = {name: max(each[name] for each in results["ceilings"]) for name in results["ceilings"][0]}
    text = table(results, rows) + floors(results, ours, best)
    for name, fit in results["linear_fits"].items():
        if fit:
            text += f"- {name} from 10 s on: {fit['slope']:.3g} s a second of audio, R^2 {fit['r_squared']:.5f}.\n"
    for case in results["not_measured"]:
        text += f"- Not measured: {case['system']}, {case['batch']} x {case['seconds']:g} s: {case['reason']}.\n"
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(text, encoding="utf-8")
    plot(out / "length.png", [row for row in rows if row["batch"] == 1], "seconds", "seconds of audio")
    sizes = {row["seconds"] for row in rows if row["batch"] > 1}
    batches = [row for own in ours.values() for row in own if row["seconds"] in sizes]
    plot(out / "batch.png", batches, "batch", "batch size")
    return text


def table(results: dict, rows: list[dict]) -> str:
    """The machine, the systems, and the medians with what the first system takes of each one's time."""
    machine, first = results["machine"], next(iter(results["systems"]))
    text = f"{machine['processor']} ({', '.join(machine['flags'])}), {machine['threads']} threads, torch "
    text += f"{machine['torch']}, diffusers {machine['diffusers']}, transformers {machine['transformers']}, "
    text += f"{machine['date']}. Medians of warm runs, taken in turn.\n\n"
    text += "| system | million parameters | megabytes at most | |\n|---|---|---|---|\n"
    for name, about in results["systems"].items():
        if about:
            peak = max((each["peak_megabytes"] for each in results["timings"] if each["system"] == name), default=0)
            text += f"| {name} | {about['parameters'] / 1e6:.1f} | {peak:.0f} | {about['note']} |\n"
    text += f"\n| audio | system | seconds | fastest to slowest of | times real time | {first} / it |\n"
    text += "|---|---|---|---|---|---|\n"
    base = {(row["seconds"], row["batch"]): row["took"] for row in rows if row["system"] == first}
    for row in rows:
        known = base.get((row["seconds"], row["batch"]))
        ratio = f"{known / row['took']:.3g}" if known else ""
        text += f"| {row['batch']} x {row['seconds']:g} s | {row['system']} | {row['took']:.2f} | "
        text += f"{row['fastest']:.2f} to {row['slowest']:.2f} of {row['runs']} | "
        text += f"{row['times_real_time']:.3g} | {ratio} |\n"
    return text


def floors(results: dict, ours: dict[str, list[dict]], best: dict[str, float]) -> str:
    """Our stages beside what this machine can do at most: how near they come to its arithmetic and its memory."""
    text = f"""
Ceilings of this machine: {best["float32"] / 1e9:.0f} GFLOP/s in float32 and {best["bfloat16"] / 1e9:.0f} in bfloat16
(products of 2048 x 2048 matrices), {best["copy"] / 1e9:.1f} GB/s (a copy of 256 MB, read and written). Counted are
matrix products, convolutions and attention, without the recurrence and Fourier transforms. Weights that stay in the
cache may be read faster than the ceiling.

"""
    text += "| stage | seconds | GFLOP | of the matrix ceiling | GB of weights read | of the memory ceiling |\n"
    text += "|---|---|---|---|---|---|\n"
    for name, rows in ours.items():
        rows = [row for row in rows if row["batch"] == 1 and row["seconds"] == results.get("counted_seconds")]
        for stage, work in (results["systems"][name].get("work") or {}).items() if rows else ():
            took, flops, read = rows[0]["stages"][stage], work["flops"], work["weight_bytes"]
            text += f"| {name}, {rows[0]['seconds']:g} s: {STAGES[stage]} | {took:.3f} | {flops / 1e9:.1f} | "
            text += f"{flops / took / best.get(name.rpartition('-')[2], best['float32']):.1%} | {read / 1e9:.2f} | "
            text += f"{read / took / best['copy']:.1%} |\n"
    return text + "\n"


def plot(path: Path, rows: list[dict], key: str, label: str) -> None:
    """A PNG of seconds of work for each second of audio, one line for each system; below 1 is faster than real time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    for name in dict.fromkeys(row["system"] for row in rows):
        own = sorted((row[key], 1 / row["times_real_time"]) for row in rows if row["system"] == name)
        ax.plot(*zip(*own), marker="o", label=name)
    ax.axhline(1, color="grey", linestyle=":", label="real time")
    ax.set(xlabel=label, ylabel="seconds of work for a second of audio", xscale="log", yscale="log")
    ax.legend(fontsize="small")
    figure.savefig(path, dpi=100)
