"""Steps against schedules: what fewer reverse steps save and cost, in the form of the paper's Tables 2 and 4.

Every setting renders the same plans from the same noise: the language model is asked once, so that two settings differ
by the diffusion alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from melody_diffusers.evaluation.clips import CLIP_SECONDS, Clip
from melody_diffusers.evaluation.cycle_consistency import mulan_cycle_consistency
from melody_diffusers.evaluation.embeddings import Embedding
from melody_diffusers.evaluation.kernel import median_pairwise_distance
from melody_diffusers.evaluation.rows import distances, embed_clips
from melody_diffusers.evaluation.speed import measure_speed
from melody_diffusers.schedulers.angle import AngleScheduler

SCHEDULES = ("linear", "uniform")


@torch.no_grad()
def compare_sampling(
    pipe: DiffusionPipeline,
    prompts: list[Clip],
    reference: Mapping[str, torch.Tensor],
    embeddings: Mapping[str, Embedding],
    all_steps: Sequence[int],
    *,
    batch_size: int = 8,
    num_runs: int = 5,
    num_threads: int = 2,
    **call_arguments: Any,
) -> list[dict[str, Any]]:
    """One row for every number of steps and schedule.

    Args:
        prompts: what to play, of which MCC and distances are taken.
        reference: the embeddings of real clips, name -> (N, W, E).
        embeddings: "mulan" among them, the space of MCC.
        call_arguments: for the pipeline: `guidance_scale`, `temperature`, ...

    Returns:
        `schedule`, `num_inference_steps`, what `measure_speed` gives, `mcc`, `frechet`, `kernel`.
    """
    batches = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]

    def play(pipe: DiffusionPipeline, clips: list[Clip], **arguments: Any) -> Any:
        generators = [torch.Generator().manual_seed(clip.seed) for clip in clips]
        return pipe(audio_duration=CLIP_SECONDS, ending=None, generator=generators, **{**call_arguments, **arguments})

    plans = [
        play(
            pipe, clips, prompt=[clip.text for clip in clips], num_inference_steps=1, output_type="latent"
        ).semantic_tokens
        for clips in tqdm(batches, desc="plans")
    ]
    texts = pipe.mulan.embed_texts(pipe.tokenizer, [clip.text for clip in prompts]).cpu()
    bandwidths = {name: median_pairwise_distance(vectors.flatten(0, 1)) for name, vectors in reference.items()}
    rows = []
    for schedule in SCHEDULES:
        variant = type(pipe).from_pipe(pipe, scheduler=AngleScheduler(schedule=schedule))
        variant.set_progress_bar_config(disable=True)
        for steps in all_steps:
            audio = (
                play(variant, clips, semantic_tokens=plan, num_inference_steps=steps, output_type="pt").audios.cpu()
                for clips, plan in zip(batches, tqdm(plans, desc=f"{schedule}, {steps} steps"), strict=True)
            )
            vectors = embed_clips(audio, pipe.sample_rate, embeddings)
            matched, _ = mulan_cycle_consistency(vectors["mulan"][:, 0], texts)
            arguments = {**call_arguments, "num_inference_steps": steps, "audio_duration": CLIP_SECONDS}
            speed = measure_speed(variant, num_runs=num_runs, num_threads=num_threads, **arguments)
            rows.append({"schedule": schedule, "num_inference_steps": steps, "mcc": matched, **speed})
            rows[-1] |= distances(vectors, reference, bandwidths)
    return rows
