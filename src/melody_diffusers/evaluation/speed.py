"""How long music takes to make: real-time factor, load time, the share of each stage, model evaluations.

Real-time factor here is seconds of audio per second of work: 3 means three times faster than real time.
"""

import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline

from melody_diffusers.devices import synchronize

STAGES = ("encode_prompt", "generate_semantic_tokens", "denoise_latents", "decode_latents")


@contextmanager
def stage_clock(pipe: DiffusionPipeline) -> Iterator[dict[str, float]]:
    """Within it, the pipeline's four stages add the seconds they take to the dictionary it gives.

    The stages are public methods that `__call__` calls in turn; each is shadowed on this one object by a timed call of
    itself, and uncovered again on leaving. GPU work is waited for at the end of each stage.
    """
    seconds = dict.fromkeys(STAGES, 0.0)

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                synchronize(pipe.device)
                seconds[name] += time.perf_counter() - started

        return call

    for name in STAGES:
        object.__setattr__(pipe, name, timed(name, getattr(pipe, name)))
    try:
        yield seconds
    finally:
        for name in STAGES:
            object.__delattr__(pipe, name)


def measure_load_seconds(model: str) -> float:
    """Seconds from a fresh Python process to a pipeline ready for its first call, imports included."""
    script = "import sys, melody_diffusers as m; m.MeLoDyPipeline.from_pretrained(sys.argv[1])"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, str(model)], check=True, capture_output=True)
    return time.perf_counter() - started


def measure_speed(
    pipe: DiffusionPipeline,
    *,
    prompt: str = "a slow solo piano piece",
    audio_duration: float = 10.0,
    num_runs: int = 5,
    num_threads: int = 2,
    **call_arguments: Any,
) -> dict[str, float]:
    """Times single generations (batch of one) after one warm-up call, and gives the median run's figures.

    Args:
        num_threads: CPU threads of torch during the measurement; the former number is put back afterwards.
        call_arguments: for the pipeline: `num_inference_steps`, `guidance_scale`, `temperature`, ...

    Returns:
        `seconds` and `real_time_factor` of the median run; `seconds_<stage>` medians for each stage;
        `model_evaluations` and `language_model_evaluations`, the calls of the diffusion and of the language model in
        one generation (NFE; guidance makes a call larger, not calls more); `num_threads`.
    """
    threads = torch.get_num_threads()
    totals: list[float] = []
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    evaluations: Counter[torch.nn.Module] = Counter()

    def count(model: torch.nn.Module) -> None:
        evaluations[model] += 1

    torch.set_num_threads(num_threads)
    try:
        for run in range(num_runs + 1):
            generator = torch.Generator().manual_seed(run)
            evaluations.clear()
            with stage_clock(pipe) as seconds:
                started = time.perf_counter()
                pipe(
                    prompt=prompt,
                    audio_duration=audio_duration,
                    generator=generator,
                    output_type="pt",
                    # counted by callbacks, since a model with hooks would take a longer way
                    callback_on_token_end=lambda *_: count(pipe.semantic_lm),
                    callback_on_step_end=lambda *_: count(pipe.dual_path),
                    **call_arguments,
                )
                total = time.perf_counter() - started
            if run > 0:  # the first call is the warm-up
                totals.append(total)
                for name in STAGES:
                    stages[name].append(seconds[name])
    finally:
        torch.set_num_threads(threads)
    median = statistics.median(totals)
    return {
        "seconds": median,
        "real_time_factor": audio_duration / median,
        **{f"seconds_{name}": statistics.median(times) for name, times in stages.items()},
        "model_evaluations": evaluations[pipe.dual_path],
        "language_model_evaluations": evaluations[pipe.semantic_lm],
        "num_threads": num_threads,
    }
