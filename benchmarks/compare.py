"""Times our models beside others: the same machine, the same run, the same threads, in turn (A B C A B C).

    python benchmarks/compare.py --seconds 10 30 120 --threads 2

Each system lives in a process of its own, and all are asked in turn, so that what disturbs the machine disturbs all.
One that fails, or spends its --limit, costs the others nothing: what it did not do is listed. --out then holds
results.json with every timing, table.md, length.png and batch.png.
"""

import argparse
import importlib
import multiprocessing
import os
import platform
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import report
from systems import SYSTEMS

DEFAULT = ["melody-tiny-float32", "melody-paper-bfloat16", "musicgen-small-float32", "musicgen-small-bfloat16"]
DEFAULT += ["stable-audio-3-small-float32", "stable-audio-3-small-bfloat16"]
WARM_UP = 2.5  # seconds of audio that each system makes before it is timed


def serve(connection, name: str, threads: int) -> None:
    """The process of one system: loads it, warms it up, answers questions; an error is its last answer."""
    import torch

    try:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        if name == "machine":
            system, about = None, {}
        else:
            module, _, function = name.partition(":")
            build, dtype = SYSTEMS.get(name) or (getattr(importlib.import_module(module), function), torch.float32)
            torch.set_default_dtype(dtype)  # weights are never larger than they end up
            system = build(dtype)
            torch.set_default_dtype(torch.float32)
            system.generate(WARM_UP, 1)
            about = {"parameters": sum(p.numel() for model in system.models for p in model.parameters())}
            about |= {"note": system.note, "longest": system.longest, "ours": system.stages is not None}
        connection.send(about)
        tasks = {"time": time_one, "count": count_work, "ceilings": measure_ceilings}
        while question := connection.recv():
            connection.send(tasks[question[0]](system, *question[1:]))
    except Exception as error:
        connection.send({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def time_one(system, seconds: float, batch: int) -> dict:
    """One generation: what it took, by stage where stages are known, and the most memory of the process so far."""
    import resource

    clock = nullcontext({})
    if system.stages is not None:
        from melody_diffusers.evaluation.speed import stage_clock

        clock = stage_clock(system.stages)
    with clock as stages:
        started, cpu_started = time.perf_counter(), time.process_time()
        waveform = system.generate(seconds, batch)
        took, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if len(waveform) != batch or abs(waveform.shape[-1] / system.sample_rate - seconds) > 0.1:
        raise RuntimeError(f"asked for {batch} x {seconds:g} s, it made {tuple(waveform.shape)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if platform.system() == "Darwin" else 1e3)
    return {"took": took, "cpu_seconds": cpu_seconds, "stages": dict(stages), "peak_megabytes": peak}


def measure_ceilings(_) -> dict[str, float]:
    """What this machine reaches: FLOP/s in products of 2048 x 2048 matrices, bytes/s a copy reads and writes."""
    import torch

    a, b = torch.randn(2, 2048, 2048)
    low_a, low_b, source = a.bfloat16(), b.bfloat16(), torch.ones(1 << 26)
    target = torch.zeros_like(source)
    work = {
        "float32": (2 * 2048**3, lambda: a @ b),
        "bfloat16": (2 * 2048**3, lambda: low_a @ low_b),
        "copy": (2 * source.nbytes, lambda: target.copy_(source)),
    }
    ceilings = dict.fromkeys(work, 0.0)
    for name in [*work] * 3:
        started = time.perf_counter()
        work[name][1]()
        ceilings[name] = max(ceilings[name], work[name][0] / (time.perf_counter() - started))
    return ceilings


def count_work(system, seconds: float) -> dict[str, dict[str, float]]:
    """FLOPs and bytes of weights read, by stage of ours.

    Of matrix products, convolutions and attention; not of the recurrence, Fourier transforms and what is element-wise.
    Weights are the right-hand sides of products and the kernels of convolutions.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    from melody_diffusers.evaluation.speed import STAGES
    from melody_diffusers.models import decoding_step

    decoding_step.COMPILED_ROWS = decoding_step.COMPILED_ROWS_OF_LARGE = 0  # what is compiled cannot be counted
    torch.set_num_threads(1)  # nor what runs in another thread
    aten = torch.ops.aten
    weights = {aten.mm: 1, aten.addmm: 2, aten.convolution: 1}
    counts = {name: {"flops": 0, "weight_bytes": 0} for name in STAGES}

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            kwargs, kind = kwargs or {}, function.overloadpacket
            if kind not in flop_registry:
                with self:  # what is made of products, say a linear layer in inference mode
                    result = function.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            result = function(*args, **kwargs)
            if kind in flop_registry:
                self.count["flops"] += flop_registry[kind](*args, **kwargs, out_val=result)
            if kind is aten._scaled_dot_product_flash_attention_for_cpu:  # which the registry lacks
                self.count["flops"] += 4 * args[0].numel() * args[1].shape[-2]
            if kind in weights:
                self.count["weight_bytes"] += args[weights[kind]].nbytes
            return result

    def counted(name, method):
        def call(*args, **kwargs):
            with Count() as mode:
                mode.count = counts[name]
                return method(*args, **kwargs)

        return call

    for name in STAGES:
        object.__setattr__(system.stages, name, counted(name, getattr(system.stages, name)))
    system.generate(seconds, 1)
    for name in STAGES:
        object.__delattr__(system.stages, name)
    return counts


class Worker:
    """A system in a process of its own, and the seconds that it has left."""

    def __init__(self, name: str, threads: int, limit: float) -> None:
        self.name, self.left, self.failure, self.pace = name, limit, "", 0.0
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, threads), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection
        self.about: dict = {}

    def load(self) -> None:
        """Waits until it is warm."""
        self.about = self._receive("load") or {}

    def ask(self, task: str, *question: float) -> dict | None:
        """The answer, or None and then `failure` says why."""
        if self.failure:
            return None
        started = time.monotonic()
        self.connection.send((task, *question))
        answer = self._receive(" ".join([task, *map(str, question)]))
        self.left -= time.monotonic() - started
        return answer

    def time(self, seconds: float, batch: int) -> dict | None:
        """`ask` for a timing, unless the system can't do it or, at its last pace, would not end in time."""
        if seconds > self.about.get("longest", seconds) or self.pace * seconds * batch > self.left:
            return None
        answer = self.ask("time", seconds, batch)
        self.pace = answer["took"] / seconds / batch if answer else 0.0
        return answer

    def why_not(self, seconds: float) -> str:
        """Why a length was not measured."""
        if seconds > self.about.get("longest", seconds):
            return f"it makes at most {self.about['longest']:g} s"
        return self.failure or f"it would pass the limit, of which {self.left:.0f} s are left"

    def _receive(self, what: str) -> dict | None:
        try:
            in_time = self.connection.poll(max(self.left, 0))
            answer = self.connection.recv() if in_time else {"error": f"stopped at the limit: {what}"}
        except EOFError:
            answer = {"error": f"its process ended: {what}"}
        if "error" not in answer:
            return answer
        self.failure = answer["error"]
        self.process.kill()
        return None

    def close(self) -> None:
        if not self.failure:
            self.connection.send(None)
        self.process.join()


def describe_machine(threads: int) -> dict:
    """Processor, threads, load before the start, versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in values.get("flags", "").split()]
    machine = {"processor": values.get("model name", platform.processor()), "flags": flags, "cpus": os.cpu_count()}
    machine |= {"threads": threads, "load_before": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d %H:%M")}
    return machine | {name: version(name) for name in ("torch", "diffusers", "transformers", "melody-diffusers")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=DEFAULT, help=f"of {', '.join(SYSTEMS)}, and module:function")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 30, 120], help="lengths of audio, for all")
    parser.add_argument("--ours", type=float, nargs="*", default=[2.5, 20, 60], help="further lengths, for ours")
    parser.add_argument("--batch", type=int, nargs="*", default=[2, 4, 8], help="for ours, of the first of --seconds")
    parser.add_argument("--runs", type=int, default=5, help="of each, of which the median counts")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each")
    parser.add_argument("--limit", type=float, default=900, help="seconds that each system may take, loading aside")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"))
    args = parser.parse_args()
    if unknown := [name for name in args.systems if name not in SYSTEMS and ":" not in name]:
        parser.error(f"--systems {unknown[0]}: there are {', '.join(SYSTEMS)}")
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    args.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": describe_machine(args.threads), "ceilings": [], "timings": [], "not_measured": []}

    machine = Worker("machine", args.threads, 1e6)
    workers = [Worker(name, args.threads, args.limit) for name in args.systems]
    for worker in (machine, *workers):
        print(f"loading {worker.name}", flush=True)
        worker.load()
    results["systems"] = {worker.name: worker.about for worker in workers}
    results["ceilings"].append(machine.ask("ceilings"))
    lengths = sorted({*args.seconds, *args.ours})
    for seconds, batch in [(each, 1) for each in lengths] + [(args.seconds[0], each) for each in args.batch]:
        asked = [w for w in workers if w.about.get("ours") or (batch == 1 and seconds in args.seconds)]
        for run in range(args.runs):
            for worker in asked:
                case = {"system": worker.name, "seconds": seconds, "batch": batch}
                if answer := worker.time(seconds, batch):
                    print(f"{worker.name:32}{batch:3} x {seconds:g} s: {answer['took']:.2f} s", flush=True)
                    results["timings"].append(case | {"run": run} | answer)
                elif run == 0:
                    results["not_measured"].append(case | {"reason": worker.why_not(seconds)})
        report.write(args.out, results)
    for worker in workers:
        if worker.about.get("ours"):
            worker.left = args.limit
            results["systems"][worker.name]["work"] = worker.ask("count", args.seconds[0])
    results["ceilings"].append(machine.ask("ceilings"))
    for worker in (machine, *workers):
        worker.close()
    results["counted_seconds"] = args.seconds[0]
    print(f"\n{report.write(args.out, results)}\nin {args.out}: results.json, table.md, length.png, batch.png")


if __name__ == "__main__":
    main()
