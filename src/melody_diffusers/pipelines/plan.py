"""A plan from what a pipeline made, and the same sound from a plan.

A waveform follows from its plan, from the noise it was rendered from, and from the parts that rendered it. The noise is
kept as a seed: its generator first drew the plan, so that rendering draws as many numbers and leaves them.
"""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from diffusers.utils import logging

from ..hf.lora import base_digest
from ..plans import MusicPlan, PlanError, shown
from .request import GenerationRequest
from .stages import MeLoDyPipelineOutput, Stages
from .text_to_music import MeLoDyPipeline

logger = logging.get_logger(__name__)

LIBRARIES = ("melody-diffusers", "torch", "diffusers", "transformers", "numba")
DRAWS_AT_ONCE = 1 << 20


def plan_of(pipe: MeLoDyPipeline, output: MeLoDyPipelineOutput, row: int = 0) -> MusicPlan:
    """The plan of one waveform of an output, with all that `render_plan` needs. Ask before the pipeline is changed.

    The seed is known where the waveform had a generator of its own on the CPU, seeded and not used before the call.

    Raises:
        ValueError: the output is no music that a plan gives again: it was inpainted, interrupted, or copied.
    """
    asked = output.asked
    if asked is None:
        raise ValueError(
            "`output` must be what MeLoDyPipeline returned, itself: what was inpainted needs its recording besides, "
            "and a copy does not say how it was made."
        )
    if not 0 <= row < len(asked["seeds"]):
        raise ValueError(f"`row` must be a whole number from 0 to {len(asked['seeds']) - 1}; got {row}.")
    tokens = output.semantic_tokens[row].tolist()[: pipe.timebase.frames_to_tokens(asked["num_frames"])]
    length = output.audios.shape[-1] if output.gains is not None else asked["num_samples"]
    if len(tokens) < pipe.timebase.frames_to_tokens(asked["num_frames"]) or length != asked["num_samples"]:
        raise ValueError("`output` must be whole to be made again; this one was interrupted.")
    attention_kwargs = asked["attention_kwargs"] or {}
    if set(attention_kwargs) - {"scale"}:
        raise ValueError(f"A plan can say `scale` of `attention_kwargs` and no more; got {list(attention_kwargs)}.")
    rate = pipe.sample_rate
    drawn_tokens = len(tokens) + (pipe.timebase.token_rate if asked["loop"] else 0)  # the second more, see `loops.py`
    rendering = {
        "fade_seconds": asked["fade_samples"] / rate,
        "ending": asked["ending"],
        "loop": asked["loop"],
        "adapter_scale": attention_kwargs.get("scale"),
    }
    return MusicPlan(
        tokens=tuple(tokens),
        seconds=asked["num_samples"] / rate,
        token_rate=pipe.timebase.token_rate,
        codebook_size=pipe.semantic_lm.config.semantic_codebook_size,
        prompt=asked["prompts"][row],
        mulan_tokens=None if output.mulan_tokens is None else tuple(output.mulan_tokens[row].tolist()),
        seed=asked["seeds"][row],
        drawn_tokens=drawn_tokens if asked["is_drawn"] else 0,
        sampling=asked["sampling"],
        rendering=asked["rendering"] | rendering,
        **rendered_by(pipe),
    )


def draw_plan(pipe: MeLoDyPipeline, request: GenerationRequest) -> MusicPlan:
    """The plan of one piece that is not rendered: `render_plan` gives the sound that the pipeline makes of the request.

    Raises:
        ValueError: the request is of several pieces.
    """
    if request.batch_size != 1:
        raise ValueError(f"`request` must be of one piece; got {request.batch_size}.")
    pipe._interrupt = False
    mulan_tokens, semantic_tokens = pipe.plan(request)
    output = MeLoDyPipelineOutput(
        audios=torch.zeros(1, 1, 0), gains=None, semantic_tokens=semantic_tokens, mulan_tokens=mulan_tokens
    )
    output.asked = request.record()
    pipe.maybe_free_model_hooks()
    return plan_of(pipe, output)


def render_plan(
    pipe: MeLoDyPipeline, plan: MusicPlan, generator: torch.Generator | None = None, **arguments: Any
) -> MeLoDyPipelineOutput:
    """The plan as sound, as it was rendered before; warns where that cannot be had, see `differences`.

    Args:
        generator: for other noise than the plan's.
        arguments: of `MeLoDyPipeline.__call__`, in place of the plan's; among them perhaps another prompt, which a
            diffusion model that hears it then hears beside the plan.

    Raises:
        PlanError: the plan has other tokens than this pipeline.
        MeLoDyInputError: as when the pipeline is called.
    """
    check_plan(pipe, plan)
    codebook_size = plan.codebook_size
    for difference in differences(pipe, plan):
        logger.warning(difference)
    if generator is None and plan.seed is not None:
        generator = torch.Generator().manual_seed(plan.seed)
        skip_draws(generator, plan.drawn_tokens * codebook_size)
    rendering = {"ending": None, **plan.rendering}  # which plans of earlier versions do not name
    if (scale := rendering.pop("adapter_scale", None)) is not None:
        rendering["attention_kwargs"] = {"scale": scale}
    fixed = {"semantic_tokens": [list(plan.tokens)], "audio_duration": plan.seconds, "generator": generator}
    if plan.mulan_tokens is not None and not {"prompt", "audio_prompt"} & set(arguments):
        fixed["mulan_tokens"] = [list(plan.mulan_tokens)]
    return pipe(**(fixed | rendering | arguments))


def check_plan(pipe: Stages, plan: MusicPlan) -> None:
    """A PlanError unless the plan has this pipeline's tokens."""
    codebook_size = pipe.semantic_lm.config.semantic_codebook_size
    if (plan.codebook_size, plan.token_rate) != (codebook_size, pipe.timebase.token_rate):
        raise PlanError(
            f"A plan for this pipeline must have {pipe.timebase.token_rate} tokens a second below {codebook_size}; got "
            f"{plan.token_rate} below {plan.codebook_size}. Load the model it was made with: {shown(plan.model)!r}."
        )


def skip_draws(generator: torch.Generator, count: int) -> None:
    """Leaves the generator as it is after the language model drew `count` uniform numbers from it."""
    while count > 0:
        count -= torch.rand(min(count, DRAWS_AT_ONCE), generator=generator).numel()


def differences(pipe: MeLoDyPipeline, plan: MusicPlan) -> list[str]:
    """Sentences on why this pipeline may render the plan to other sound than before; none where it gives the same."""
    here, found = rendered_by(pipe), []
    if plan.digest != here["digest"]:
        found.append(
            f"The plan was rendered by the model {shown(plan.model)!r} ({shown(plan.digest) or 'no digest'}) and this "
            f"is {here['model']!r} ({here['digest']}), which differs in weights, scheduler or adapters: it will be "
            "other sound. Load the model, and the adapters, that it was made with."
        )
    for name, value in here["versions"].items():
        if (before := plan.versions.get(name)) != value:
            was = shown(before) if before else "none"
            found.append(f"The plan was rendered with {name} {was} and this is {value}: the sound may differ a little.")
    for name, what in (("dtype", "in"), ("device", "on")):
        if getattr(plan, name) != here[name]:
            was = shown(getattr(plan, name))
            found.append(f"The plan was rendered {what} {was} and this is {here[name]}: the sound may differ a little.")
    if plan.seed is None:
        found.append(
            "The plan does not say which noise it was rendered from: the same piece will sound a little other."
        )
    return found


def rendered_by(pipe: MeLoDyPipeline) -> dict[str, Any]:
    """The fields of a plan that say what rendered it: model, digest, dtype, device and versions."""
    device = pipe._execution_device.type
    if device == "cpu":  # where sums are split among threads, and rounded accordingly
        device += f" with OMP_NUM_THREADS={torch.get_num_threads()}"
    dtypes = dict.fromkeys(str(getattr(pipe, part).dtype).removeprefix("torch.") for part in ("dual_path", "vae"))
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "model": pipe._base_name()[:200],
        "digest": model_digest(pipe),
        "dtype": " and ".join(dtypes),
        "device": device,
        "versions": versions,
    }


def model_digest(pipe: Stages) -> str:
    """A digest of what turns plans into sound: diffusion model, VAE, scheduler and adapters; 16 hexadecimal digits.

    It is made of `hf.lora.base_digest`, which sees the signs of weights, so that it is one in each dtype.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (pipe.dual_path, pipe.vae):
        digest.update(base_digest(part).encode())
    settings = {name: value for name, value in dict(pipe.scheduler.config).items() if not name.startswith("_")}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, module in pipe.dual_path.named_modules():
        for adapter in getattr(module, "active_adapters", ()) if hasattr(module, "lora_A") else ():
            if adapter in module.lora_A and not getattr(module, "disable_adapters", False):
                digest.update(f"{name} {module.scaling[adapter]:g}".encode())
                for weight in (module.lora_A[adapter].weight, module.lora_B[adapter].weight):
                    digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
