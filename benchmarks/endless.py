"""Whether a stream stays as it is for hours, how soon it is heard, and how it takes a change of prompt.

    python benchmarks/endless.py --minutes 60 --out outputs/endless
    python benchmarks/endless.py --chunks 10000 --judge outputs/judges/clip

Sound is measured as it comes and is not kept. Ctrl-C and SIGTERM end the stream early, and what was measured by then is
written. --out then holds results.json, table.md and endless.png. Besides, chunks.jsonl has a line for each chunk and
each minute as soon as it is made. The figures of the first table hold on any machine; those of the second are times, of
which only an idle machine gives true ones.
"""

import argparse
import itertools
import json
import math
import os
import signal
import statistics
import time
from dataclasses import fields
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

import melody_diffusers
from melody_diffusers import MeLoDyStreamPipeline, StreamState
from melody_diffusers.pipelines.denoise import Diagonal, window_and_chunk
from melody_diffusers.spectra import frame_spectra

SEAM_SECONDS = 0.02
REPEATED = 5  # seconds
WARM_UP = 100  # chunks, of which neither time nor memory counts
CHANGE = ("ambient pads", "techno with drum machine, 130 bpm", "techno")  # from, to, what a judge calls it
WINDOW_SECONDS = 5.0  # that a judge hears at a time

Row = tuple[str, str, str, bool | None]
"""What was measured, the figure, what it should be, and whether it is."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Sound:
    """What is measured of sound that comes in chunks (1, T).

    Attributes:
        levels: dB RMS of each whole minute.
        centroids, flatnesses: of its spectra, in Hz and from 0 to 1: means of frames within 40 dB of the loudest.
        at_borders, at_middles: mean squared first difference in the 20 ms around each border of two chunks, and around
            the middle of each chunk, for comparison.
        inside: the same of all that is not around a border, one number a chunk.
    """

    def __init__(self, sample_rate: int) -> None:
        self.rate, self.half = sample_rate, round(SEAM_SECONDS / 2 * sample_rate)
        self.window = torch.hann_window(1024)
        self.levels: list[float] = []
        self.centroids: list[float] = []
        self.flatnesses: list[float] = []
        self.at_borders: list[float] = []
        self.at_middles: list[float] = []
        self.inside: list[float] = []
        self.minute = torch.zeros(0)  # no longer than a minute and a chunk
        self.tail = torch.zeros(0)  # the last 10 ms of the chunk before

    def add(self, chunk: torch.Tensor) -> None:
        sound, half = chunk[0], self.half
        changes = sound.diff().square()
        if len(self.tail):
            border = torch.cat([self.tail, sound[: half + 1]]).diff().square()
            self.at_borders.append(float(border.mean()))
            middle = len(sound) // 2
            self.at_middles.append(float(changes[middle - half : middle + half + 1].mean()))
        self.inside.append(float(changes[half:-half].mean()))
        self.tail = sound[-half - 1 :].clone()
        self.minute = torch.cat([self.minute, sound])
        while len(self.minute) >= 60 * self.rate:
            self._measure_minute(self.minute[: 60 * self.rate])
            self.minute = self.minute[60 * self.rate :].clone()

    def _measure_minute(self, sound: torch.Tensor) -> None:
        power = frame_spectra(sound, self.window, 512).abs().square()[:, 1:] + 1e-12  # (N, F)
        power = power[power.sum(1) >= 1e-4 * power.sum(1).amax()]
        hertz = torch.arange(1, power.shape[1] + 1) * (self.rate / len(self.window))
        self.levels.append(10 * math.log10(max(float(sound.square().mean()), 1e-12)))
        self.centroids.append(float(((power.sqrt() * hertz).sum(1) / power.sqrt().sum(1)).mean()))
        self.flatnesses.append(float((power.log().mean(1).exp() / power.mean(1)).mean()))


def seam_ratio(at: list[float], inside: list[float]) -> tuple[float, float]:
    """Mean of the first over the mean of the second, and its standard error, where chunks are independent."""
    base = max(statistics.fmean(inside), 1e-20)
    ratio = statistics.fmean(at) / base
    left = [a - ratio * b for a, b in zip(at, inside, strict=True)]
    return ratio, statistics.pstdev(left) / base / math.sqrt(len(left))


def slope(values: list[float]) -> tuple[float, float]:
    """Of a line through the values by least squares, for each step, and its standard error; 0 of fewer than three."""
    if len(values) < 3:
        return 0.0, 0.0
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    found = float(steps @ values / (steps @ steps))
    left = np.asarray(values) - np.mean(values) - found * steps
    return found, float(np.sqrt(left @ left / (len(values) - 2) / (steps @ steps)))


def longest_repetition(tokens: np.ndarray) -> int:
    """The most tokens in a row that stand twice in (S,)."""
    tokens = np.ascontiguousarray(tokens)
    low, high = 0, len(tokens)  # so many stand twice; so many do not
    while high - low > 1:
        length = min((low + high) // 2, 2 * low + 1)  # few do, and what is short is soon compared
        seen: set[int] = set()
        for i in range(len(tokens) - length + 1):
            seen.add(hash(tokens[i : i + length].tobytes()))
            if len(seen) <= i:
                break
        low, high = (length, high) if len(seen) < len(tokens) - length + 1 else (low, length)
    return low


def bytes_of(state: StreamState) -> int:
    """Of its tensors and of its numbers and settings as text."""
    values = [getattr(state, field.name) for field in fields(state)]
    tensors = [value for value in values if isinstance(value, torch.Tensor)] + list(state.decoder.values())
    return sum(tensor.nbytes for tensor in tensors) + len(json.dumps(state.settings)) + 4 * 8


def own_mebibytes() -> float:
    """Memory that this process has written, wherever the system keeps it; NaN where it does not tell as Linux does.

    Pages of files, libraries say, come and go with what other processes need.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:"))) / 1024


def first_sound(pipe: MeLoDyStreamPipeline, prompt: str, runs: int) -> dict[str, list[float]]:
    """Seconds from the call to the first chunk, and seconds of CPU time, warm."""
    found: dict[str, list[float]] = {"seconds": [], "cpu_seconds": []}
    for seed in range(runs + 1):
        started, cpu_started = time.perf_counter(), time.process_time()
        next(pipe(prompt, generator=seeded(seed), output_type="pt"))
        took, cpu_took = time.perf_counter() - started, time.process_time() - cpu_started
        if seed > 0:
            found["seconds"].append(took)
            found["cpu_seconds"].append(cpu_took)
    return found


def play(pipe: MeLoDyStreamPipeline, prompt: str, seed: int, num_chunks: int, log: TextIO) -> dict:
    """What is measured of a stream: lists with a number for each chunk or minute, and the longest repetition.

    `log` gets a line of JSON for each, at once.
    """
    sound = Sound(pipe.sample_rate)
    window = pipe.timebase.frames_to_tokens(pipe.dual_path.config.num_frames)
    names = ("seconds", "cpu_seconds", "state_bytes", "mebibytes", "gain")
    numbers = {name: np.full(num_chunks, np.nan) for name in names}  # all there from the start, not to grow
    plan = np.full(window * (num_chunks + 1), 2**16 - 1, dtype=np.uint16)
    chunks, planned, made = pipe(prompt, generator=seeded(seed), output_type="pt"), 0, 0
    try:
        while made < num_chunks:
            started, cpu_started = time.perf_counter(), time.process_time()
            chunk = next(chunks)
            numbers["seconds"][made] = time.perf_counter() - started
            numbers["cpu_seconds"][made] = time.process_time() - cpu_started
            numbers["state_bytes"][made], numbers["gain"][made] = bytes_of(chunk.state), chunk.state.gain
            numbers["mebibytes"][made] = own_mebibytes()
            tokens = chunk.semantic_tokens[0].numpy()
            plan[planned : planned + len(tokens)] = tokens
            planned, made, minutes = planned + len(tokens), made + 1, len(sound.levels)
            sound.add(chunk.audio.cpu())
            log.write(
                json.dumps({"chunk": made, **{name: values[made - 1] for name, values in numbers.items()}}) + "\n"
            )
            for i in range(minutes, len(sound.levels)):
                minute = {"level": sound.levels[i], "centroid": sound.centroids[i], "flatness": sound.flatnesses[i]}
                log.write(json.dumps({"minute": i + 1, **minute}) + "\n")
            log.flush()
            if made % 100 == 0:
                print(f"{made} chunks, {chunk.state.num_samples / pipe.sample_rate / 60:.1f} minutes", flush=True)
    except KeyboardInterrupt:
        print("stopped; what was made is measured", flush=True)
    measured = {name: values[:made].tolist() for name, values in numbers.items()}
    measured |= {name: getattr(sound, name) for name in ("levels", "centroids", "flatnesses")}
    measured |= {name: getattr(sound, name) for name in ("at_borders", "at_middles", "inside")}
    return measured | {"longest_repetition_seconds": longest_repetition(plan[:planned]) / pipe.timebase.token_rate}


def change_of_prompt(pipe: MeLoDyStreamPipeline, judge, seeds: int, before: int = 6, after: int = 10) -> dict:
    """How soon a change of prompt is heard, and whether as a seam.

    Each stream plays `before` chunks of one prompt and is then given another, at once and without a crossfade of the
    condition, the hardest case. A judge hears five seconds at a time, a second apart. Seams are those of the four
    borders from the change on, beside the interior of all chunks from there.

    Returns:
        seconds: for each stream, from the change to the start of the first window from which on at least three in four
            are called what was asked for; None where there is none. before: share of the windows before the change that
            are called so. share: for each second after the change, the share of streams that are. at_borders, inside:
            as `Sound` has them.
    """
    rate, (first, then, name) = pipe.sample_rate, CHANGE
    borders, inside, soon, called, early = [], [], [], [], []
    length, hop = round(WINDOW_SECONDS * rate), rate
    for seed in range(seeds):
        start = list(itertools.islice(pipe(first, generator=seeded(seed), output_type="pt"), before))
        rest = list(itertools.islice(pipe(then, state=start[-1].state, crossfade_seconds=0, output_type="pt"), after))
        heard = Sound(rate)
        heard.add(start[-1].audio)
        for chunk in rest:
            heard.add(chunk.audio)
        borders += heard.at_borders[:4]
        inside += heard.inside[1:5]
        for chunks, answers in ((start, early), (rest, None)):
            sound = torch.cat([chunk.audio for chunk in chunks], dim=1)
            windows = sound.unfold(1, length, hop).transpose(0, 1)  # (N, 1, T)
            hits = [answer == name for answer in judge.judge(windows)["style"]]
            if answers is None:
                called.append(hits)
                good = [i for i in range(len(hits)) if hits[i] and statistics.fmean(hits[i:]) >= 0.75]
                soon.append(float(good[0]) if good else None)
            else:
                answers += hits
    return {
        "seconds": soon,
        "before": statistics.fmean(early),
        "share": [statistics.fmean(column) for column in zip(*called)],
        "at_borders": borders,
        "inside": inside,
    }


def steady_rows(played: dict, change: dict | None) -> list[Row]:
    """What holds on any machine."""
    after = [int(each) for each in played["state_bytes"][2:] or played["state_bytes"]]
    memory = played["mebibytes"][WARM_UP:]
    growth, repeated = slope(memory)[0] * len(memory), played["longest_repetition_seconds"]
    rows: list[Row] = [
        ("bytes of the state", f"{min(after)} to {max(after)}", "all the same", min(after) == max(after)),
        (f"memory from chunk {WARM_UP} to the last, by its slope, MiB", f"{growth:+.2f}", "under 1", growth < 1),
        ("longest repetition of the plan, s", f"{repeated:.2f}", f"under {REPEATED}", repeated < REPEATED),
        seam_row("first difference in 20 ms at borders over the interior", played["at_borders"], played["inside"][1:]),
        (*seam_row("the same at the middles of chunks", played["at_middles"], played["inside"][1:])[:2], "", None),
    ]
    if played["levels"]:
        rise, error = (60 * each for each in slope(played["levels"]))
        rows.append(("loudness, dB an hour", f"{rise:+.2f} ± {error:.2f}", "1 at most", abs(rise) <= 1))
        rows.append(
            ("loudness of a minute, dB, standard deviation", f"{statistics.pstdev(played['levels']):.2f}", "", None)
        )
    for name, values in (("centroid", played["centroids"]), ("flatness", played["flatnesses"])):
        if values:
            far, mean = max(abs(value / values[0] - 1) for value in values), statistics.fmean(values)
            rise, error = (60 * each / mean for each in slope(values))
            rows.append((f"{name}, the furthest minute from the first", f"{far:.1%}", "10 % at most", far <= 0.1))
            rows.append((f"{name}, change an hour", f"{rise:+.1%} ± {error:.1%}", "", None))
            rows.append(
                (f"{name} of a minute, standard deviation", f"{statistics.pstdev(values) / mean:.1%}", "", None)
            )
    if change:
        known = [seconds for seconds in change["seconds"] if seconds is not None]
        name = f"a change to {CHANGE[2]} is heard for good after, s, median of {len(known)} of {len(change['seconds'])}"
        rows.append((name, f"{statistics.median(known):.0f}" if known else "never", "", None))
        rows.append(seam_row("first difference at borders of the change", change["at_borders"], change["inside"]))
    return rows


def timed_rows(played: dict, first: dict[str, list[float]], chunk_seconds: float) -> list[Row]:
    """What only an idle machine tells, and the same of CPU time, which is nearer to the truth on a busy one."""
    rows: list[Row] = []
    for name, clock in (("seconds", "by the clock"), ("cpu_seconds", "of CPU time")):
        times = played[name][WARM_UP:] or played[name]
        some = max(1, min(1000, len(times) // 2))
        start, end, sound = times[:some], times[-some:], statistics.median(first[name])
        pace, ratio = chunk_seconds / statistics.median(times), np.quantile(end, 0.99) / np.quantile(start, 0.99)
        rows.append((f"first sound, s {clock}", f"{sound:.2f}", "0.5 at most", sound <= 0.5))
        rows.append((f"times real time, {clock}", f"{pace:.1f}", "10 at least", pace >= 10))
        what = f"p99 of the last {some} chunks over the first, {clock}"
        rows.append((what, f"{ratio:.2f}", "1.1 at most", bool(ratio <= 1.1)))
        median = statistics.median(end) / statistics.median(start)
        rows.append((f"the same of their medians, {clock}", f"{median:.2f}", "", None))
    return rows


def seam_row(name: str, at: list[float], inside: list[float]) -> Row:
    ratio, error = seam_ratio(at, inside)
    return name, f"{ratio:.3f} ± {error:.3f}", "1.05 at most", ratio <= 1.05


def table(rows: list[Row]) -> str:
    text = "| | measured | wanted | |\n|---|---|---|---|\n"
    for name, value, wanted, is_met in rows:
        text += f"| {name} | {value} | {wanted} | {'' if is_met is None else 'met' if is_met else 'missed'} |\n"
    return text


def plot(path: Path, played: dict) -> None:
    """A PNG: state, memory and time of each chunk; level, centroid and flatness of each minute."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 3)
    for ax, name in zip(axes[0], ("state_bytes", "mebibytes")):
        ax.plot(played[name])
        ax.set(title={"state_bytes": "state, bytes", "mebibytes": "memory, MiB"}[name], xlabel="chunk")
        ax.set_ylim(bottom=0)
    axes[0, 2].plot(played["seconds"], ".", markersize=2, label="by the clock")
    axes[0, 2].plot(played["cpu_seconds"], ".", markersize=2, label="CPU time")
    axes[0, 2].set(title="a chunk takes, s", xlabel="chunk", yscale="log")
    axes[0, 2].legend()
    titles = {"levels": "level, dB", "centroids": "centroid, Hz", "flatnesses": "flatness"}
    for ax, (name, title) in zip(axes[1], titles.items()):
        ax.plot(played[name])
        ax.set(title=title, xlabel="minute")
        if played[name]:
            first = played[name][0]
            ax.axhspan(*((first - 1, first + 1) if name == "levels" else (0.9 * first, 1.1 * first)), alpha=0.2)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=melody_diffusers.MELODY_TINY, help="(default: melody-tiny)")
    parser.add_argument("--prompt", default="lo-fi hip hop with electric piano and drums")
    parser.add_argument("--seed", type=int, default=0)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=60, help="of music (default: 60)")
    length.add_argument("--chunks", type=int, help="instead")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--first-sounds", type=int, default=10, help="times that the first sound is timed")
    parser.add_argument("--judge", type=Path, help="folder of a ClipJudge, which is asked when the prompt changes")
    parser.add_argument("--changes", type=int, default=10, help="streams whose prompt changes (default: 10)")
    parser.add_argument("--out", type=Path, default=Path("outputs/endless"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = {"prompt": args.prompt, "seed": args.seed, "threads": args.threads, "load_before": os.getloadavg()[0]}
    torch.set_num_threads(args.threads)
    pipe = MeLoDyStreamPipeline.from_pretrained(args.model)
    config = pipe.dual_path.config
    diagonal = Diagonal.plan(*window_and_chunk(config, config.num_frames), 1, pipe.timebase.frame_alignment)
    chunk_seconds = pipe.timebase.frames_to_seconds(diagonal.chunk)
    num_chunks = args.chunks or math.ceil(args.minutes * 60 / chunk_seconds) + 1  # the first is shorter

    results["first_sound"] = first_sound(pipe, args.prompt, args.first_sounds)
    results["change"] = None
    if args.judge is not None:
        from melody_diffusers.evaluation.judges import ClipJudge

        results["change"] = change_of_prompt(pipe, ClipJudge.from_pretrained(args.judge).eval(), args.changes)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open(args.out / "chunks.jsonl", "w", encoding="utf-8") as log:
        results["played"] = played = play(pipe, args.prompt, args.seed, num_chunks, log)
    how_long = f"{len(played['seconds'])} chunks, {len(played['levels'])} whole minutes"
    text = f"""{how_long}, of {args.prompt!r}, seed {args.seed}.

{table(steady_rows(played, results["change"]))}
Times, {args.threads} threads; before the start the machine had a load of {results["load_before"]:.1f}.

{table(timed_rows(played, results["first_sound"], chunk_seconds))}"""
    (args.out / "results.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    (args.out / "table.md").write_text(text, encoding="utf-8")
    plot(args.out / "endless.png", played)
    print(f"\n{text}\nin {args.out}: results.json, table.md, endless.png")


if __name__ == "__main__":
    main()
