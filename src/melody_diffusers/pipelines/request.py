"""What a call asks for, checked whole before any work and frozen: later stages ask nothing again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch

from ..models.semantic_lm import Sampling
from .checks import (
    MeLoDyInputError,
    as_list,
    check_choice,
    check_generators,
    check_number,
    check_tensor,
    fresh_seeds,
    split_clips,
)
from .conditions import Prompt, as_text, check_conditions, check_negative
from .denoise import Continuation
from .loops import LONGEST_SECONDS, SHORTEST_SECONDS, check_length, with_tempo
from .recording import Recording, Window, check_recording, runs_to_fill, windows_around

if TYPE_CHECKING:
    from .stages import Stages

MAX_SECONDS = 3600.0  # of music to make, and of a recording that is given
DEFAULT_SECONDS = 10.0
SAMPLING_DEFAULTS = {
    "num_inference_steps": 10,
    "guidance_scale": 2.5,
    "prompt_guidance_scale": 1.0,
    "guidance_interval": (0.0, 1.0),
    "temperature": 1.0,
    "top_k": None,
    "top_p": 1.0,
    "lm_guidance_scale": 1.0,
    "continuation": "diagonal",
}
"""Arguments of a call for which a checkpoint may have defaults of its own, and ours where it has none."""

OutputType: TypeAlias = Literal["np", "pt", "latent"]
Ending: TypeAlias = Literal["fade"]
InpaintOutputType: TypeAlias = Literal["np", "pt", "latent", "patches"]
Regions: TypeAlias = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every pipeline is asked, checked; the arguments of `MeLoDyPipeline.__call__`, defaults filled in.

    Attributes:
        prompt, audio_prompt, negative_prompt: one for each prompt of the batch, clips (1, T) at the pipeline's sample
            rate; or None.
        sampling: how the language model draws.
        generator: one for each waveform, or None. seeds: those that make them again, see `fresh_seeds`.
        fade_samples: over which the music fades in and out.
        batch_size: waveforms that will be made.
        num_samples: T of each.
        num_frames: latent frames of the timeline: whole tokens, and at least one chunk, for a plan needs some time to
            be music; or what is given of a plan, where that is less.
    """

    prompt: list[Prompt] | None
    audio_prompt: list[torch.Tensor] | None
    audio_prompt_weight: float
    negative_prompt: list[Prompt] | None
    num_inference_steps: int
    guidance_scale: float
    prompt_guidance_scale: float
    guidance_interval: tuple[float, float]
    continuation: Continuation
    sampling: Sampling
    num_waveforms_per_prompt: int
    batch_size: int
    generator: list[torch.Generator] | None
    seeds: list[int | None]
    fade_samples: int
    output_type: OutputType | InpaintOutputType
    return_dict: bool
    callback_on_step_end: Callable[..., dict] | None
    callback_on_token_end: Callable[..., None] | None
    attention_kwargs: dict[str, Any] | None
    num_samples: int
    num_frames: int

    def record(self) -> dict[str, Any] | None:
        """What a plan says of how it was made and rendered; None where a plan alone would not give the sound again."""
        return None


def check_sampling(pipe: "Stages", num_prompts: int, *, negative_prompt: Any, **sampling: Any) -> dict[str, Any]:
    """How the models are asked: fields of a `Request`; `sampling` are the arguments named in `SAMPLING_DEFAULTS`."""
    defaults = SAMPLING_DEFAULTS | (pipe.config.sampling or {})
    chosen = {name: defaults[name] if value is None else value for name, value in sampling.items()}
    scales = dict.fromkeys(("guidance_scale", "prompt_guidance_scale", "lm_guidance_scale"), 30)
    for name, high in (scales | {"temperature": 10, "top_p": 1}).items():
        chosen[name] = check_number(name, chosen[name], 0, high)
    if chosen["prompt_guidance_scale"] != 1 and not getattr(pipe.dual_path.config, "num_mulan_codebooks", 0):
        allowed = "be 1 for a diffusion model that does not hear the prompt"
        raise MeLoDyInputError("prompt_guidance_scale", chosen["prompt_guidance_scale"], allowed)
    chosen["num_inference_steps"] = check_number(
        "num_inference_steps", chosen["num_inference_steps"], 1, 1000, integer=True
    )
    chosen["top_p"] = chosen["top_p"] or 1.0  # 0 switches it off elsewhere, and so it does here
    negative = check_negative(pipe, negative_prompt, num_prompts, chosen["lm_guidance_scale"])
    if chosen["top_k"] is not None:
        chosen["top_k"] = check_number("top_k", chosen["top_k"], 0, 1_000_000, integer=True) or None  # likewise
    check_choice("continuation", chosen["continuation"], get_args(Continuation))
    return {
        "negative_prompt": negative,
        "num_inference_steps": chosen["num_inference_steps"],
        "guidance_scale": chosen["guidance_scale"],
        "prompt_guidance_scale": chosen["prompt_guidance_scale"],
        "guidance_interval": _check_interval("guidance_interval", chosen["guidance_interval"]),
        "continuation": chosen["continuation"],
        "sampling": Sampling(chosen["temperature"], chosen["top_k"], chosen["top_p"], chosen["lm_guidance_scale"]),
    }


def check_common(
    pipe: "Stages",
    num_prompts: int,
    *,
    num_waveforms_per_prompt: Any,
    generator: Any,
    fade_seconds: Any,
    output_type: Any,
    return_dict: bool,
    callback_on_step_end: Any,
    callback_on_step_end_tensor_inputs: Any,
    callback_on_token_end: Any,
    attention_kwargs: dict[str, Any] | None,
    output_types: Sequence[str] = ("np", "pt", "latent"),
    **sampling: Any,
) -> dict[str, Any]:
    """The fields of a `Request` but for the lengths and the prompts; `sampling` goes to `check_sampling`."""
    chosen = check_sampling(pipe, num_prompts, **sampling)
    fade_seconds = check_number("fade_seconds", fade_seconds, 0, 60)
    check_choice("output_type", output_type, output_types)
    names = as_list(callback_on_step_end_tensor_inputs)
    if names is None or any(name not in pipe._callback_tensor_inputs for name in names):
        allowed = f"name none but {pipe._callback_tensor_inputs}"
        raise MeLoDyInputError("callback_on_step_end_tensor_inputs", names, allowed, repr(names))
    callbacks = {"callback_on_step_end": callback_on_step_end, "callback_on_token_end": callback_on_token_end}
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise MeLoDyInputError(name, callback, "be a function or None")
    num_waveforms_per_prompt = check_number("num_waveforms_per_prompt", num_waveforms_per_prompt, 1, 64, integer=True)
    batch_size = num_prompts * num_waveforms_per_prompt
    generators = check_generators(generator, batch_size)
    return chosen | {
        "num_waveforms_per_prompt": num_waveforms_per_prompt,
        "batch_size": batch_size,
        "generator": generators,
        "seeds": fresh_seeds(generators, batch_size),
        "fade_samples": pipe.timebase.seconds_to_samples(fade_seconds),
        "output_type": output_type,
        "return_dict": return_dict,
        "attention_kwargs": attention_kwargs,
        **callbacks,
    }


def check_single(pipe: "Stages", audio: Any, what: str, **conditions: Any) -> tuple[Any, dict[str, Any]]:
    """The one clip in `audio`, not yet read, and what it is to become, as by `check_conditions`: one of each.

    Raises:
        MeLoDyInputError: there are several; speaks of `audio` as `what`.
    """
    prompts = check_conditions(pipe, **conditions)
    for name in ("prompt", "audio_prompt"):
        if prompts[name] is not None and len(prompts[name]) != 1:
            raise MeLoDyInputError(name, conditions[name], f"be one for the {what}", str(len(prompts[name])))
    clips = split_clips(audio, pipe.sample_rate)
    if len(clips) != 1:
        raise MeLoDyInputError("audio", audio, f"be one {what}", str(len(clips)))
    return clips[0], prompts


def ending_seconds(duration: float) -> float:
    """How long a piece fades out at its end: two seconds, of more than twenty a tenth up to ten seconds, and of less
    than eight a quarter."""
    return min(max(2.0, duration / 10), 10.0, duration / 4)


def _check_interval(name: str, value: Any) -> tuple[float, float]:
    """Two numbers from 0 to 1, the first at most the second."""
    pair = as_list(value)
    if pair is None or len(pair) != 2:
        raise MeLoDyInputError(name, value, "be two numbers from 0 to 1", repr(value)[:80])
    low = check_number(f"{name}[0]", pair[0], 0, 1)
    return low, check_number(f"{name}[1]", pair[1], low, 1)


@dataclass(frozen=True, kw_only=True)
class GenerationRequest(Request):
    """What `MeLoDyPipeline` is asked: prompts, or tokens in their place, and perhaps the noise to start from.

    Attributes:
        mulan_tokens: (B, N). semantic_tokens: (B, S). latents: (B, L, D).
        loop: whether the end runs into the beginning; `num_frames` are then those that come nearest to `num_samples`.
        ending_samples: over which the music fades out, at least `fade_samples`.
    """

    mulan_tokens: torch.Tensor | None
    semantic_tokens: torch.Tensor | None
    latents: torch.Tensor | None
    loop: bool
    ending: Ending | None
    ending_samples: int

    def record(self) -> dict[str, Any]:
        """Numbers and words alone: an output that is kept keeps no tensors of its request."""
        prompts = [None] if self.prompt is None else [as_text(prompt) for prompt in self.prompt]
        return {
            "prompts": [prompt for prompt in prompts for _ in range(self.batch_size // len(prompts))],
            "seeds": self.seeds if self.latents is None else [None] * self.batch_size,
            "is_drawn": self.semantic_tokens is None and self.sampling.temperature > 0,
            "num_samples": self.num_samples,
            "num_frames": self.num_frames,
            "fade_samples": self.fade_samples,
            "ending": self.ending,
            "loop": self.loop,
            "attention_kwargs": self.attention_kwargs,
            "sampling": {
                "temperature": self.sampling.temperature,
                "top_k": self.sampling.top_k,
                "top_p": self.sampling.top_p,
                "lm_guidance_scale": self.sampling.guidance_scale,
            },
            "rendering": {
                "num_inference_steps": self.num_inference_steps,
                "guidance_scale": self.guidance_scale,
                "prompt_guidance_scale": self.prompt_guidance_scale,
                "guidance_interval": self.guidance_interval,
                "continuation": self.continuation,
            },
        }

    @classmethod
    def check(
        cls,
        pipe: "Stages",
        *,
        prompt: Any,
        audio_prompt: Any,
        audio_prompt_sampling_rate: Any,
        audio_prompt_weight: Any,
        negative_prompt: Any,
        audio_duration: Any,
        loop: Any,
        bars: Any,
        bpm: Any,
        beats_per_bar: Any,
        ending: Any,
        latents: Any,
        mulan_tokens: Any,
        semantic_tokens: Any,
        **common: Any,
    ) -> "GenerationRequest":
        """The request that the arguments of `MeLoDyPipeline.__call__` make, or the error that names one of them."""
        conditions = {
            "prompt": prompt,
            "audio_prompt": audio_prompt,
            "mulan_tokens": mulan_tokens,
            "semantic_tokens": semantic_tokens,
        }
        given = [name for name, value in conditions.items() if value is not None]
        prompts_given = [name for name in given if name != "semantic_tokens"]
        if not given or (len(prompts_given) > 1 and prompts_given != ["prompt", "audio_prompt"]):
            allowed = (
                "be given, or `audio_prompt`, or both, which mix; or `mulan_tokens`; and with or without one of these, "
                "`semantic_tokens`"
            )
            raise MeLoDyInputError("prompt", prompt, allowed, " and ".join(given) or "none of them")
        if semantic_tokens is not None and negative_prompt is not None:
            allowed = "be left out for a plan, `semantic_tokens`, which is rendered as it is"
            raise MeLoDyInputError("negative_prompt", negative_prompt, allowed)
        lm, timebase = pipe.semantic_lm.config, pipe.timebase
        audio_duration = check_length(loop, bars, bpm, beats_per_bar, audio_duration)
        if ending is not None:
            check_choice("ending", ending, get_args(Ending))
        prompts = check_conditions(
            pipe,
            prompt=prompt,
            audio_prompt=audio_prompt,
            audio_prompt_sampling_rate=audio_prompt_sampling_rate,
            audio_prompt_weight=audio_prompt_weight,
        )
        if bpm is not None and prompts["prompt"] is not None:
            prompts["prompt"] = [with_tempo(each, bpm) for each in prompts["prompt"]]
        if mulan_tokens is not None:
            shape = (None, lm.num_mulan_codebooks)
            mulan_tokens = check_tensor("mulan_tokens", mulan_tokens, shape, lm.mulan_codebook_size)
        if semantic_tokens is not None:
            semantic_tokens = check_tensor("semantic_tokens", semantic_tokens, (None, None), lm.semantic_codebook_size)
        parts = (prompts["prompt"], prompts["audio_prompt"], mulan_tokens, semantic_tokens)
        num_prompts = len(next(part for part in parts if part is not None))
        if semantic_tokens is not None:
            if num_prompts not in (1, len(semantic_tokens)):
                allowed = f"hold one plan for each of the {num_prompts} prompts"
                raise MeLoDyInputError("semantic_tokens", semantic_tokens, allowed, str(len(semantic_tokens)))
            num_prompts = len(semantic_tokens)
        fields = check_common(pipe, num_prompts, negative_prompt=negative_prompt, **common)

        if audio_duration is None:
            has_plan = semantic_tokens is not None
            audio_duration = semantic_tokens.shape[1] / timebase.token_rate if has_plan else DEFAULT_SECONDS
        audio_duration = check_number("audio_duration", audio_duration, 0, MAX_SECONDS, exclusive_low=True)
        num_samples = max(1, timebase.seconds_to_samples(audio_duration))
        num_frames = timebase.whole_token_frames(timebase.samples_to_frames(num_samples))
        renderer = pipe.dual_path.config
        chunk = timebase.whole_token_frames(renderer.num_frames // renderer.num_chunks)
        if loop:
            audio_duration = check_number("audio_duration", audio_duration, SHORTEST_SECONDS, LONGEST_SECONDS)
            if not hasattr(pipe.vae, "decode_loop"):
                allowed = f"be False for a `vae` that cannot decode loops, by `decode_loop`; this is a {type(pipe.vae)}"
                raise MeLoDyInputError("loop", loop, allowed)
            whole = timebase.frames_to_samples(timebase.frame_alignment)
            num_frames = max(1, round(num_samples / whole)) * timebase.frame_alignment
            needed = timebase.frames_to_tokens(num_frames)
            if semantic_tokens is not None and semantic_tokens.shape[1] != needed:
                allowed = f"go around once: a loop of {audio_duration:g} s has {needed} tokens"
                raise MeLoDyInputError("semantic_tokens", semantic_tokens, allowed, str(semantic_tokens.shape[1]))
        elif semantic_tokens is None:
            num_frames = max(num_frames, chunk)
        elif (needed := timebase.frames_to_tokens(num_frames)) > semantic_tokens.shape[1]:
            allowed = f"cover `audio_duration`: {audio_duration:g} s need {needed} tokens"
            raise MeLoDyInputError("semantic_tokens", semantic_tokens, allowed, str(semantic_tokens.shape[1]))
        elif num_frames < chunk:  # as when the plan was made, so that a short piece comes out the same again
            whole = semantic_tokens.shape[1] // timebase.token_alignment * timebase.frame_alignment
            num_frames = max(num_frames, min(chunk, whole))
        if latents is not None:
            latents = check_tensor("latents", latents, (fields["batch_size"], num_frames, pipe.vae.latent_dim))
        if loop:
            ending, fields["fade_samples"] = None, 0
        ending_samples = 0 if ending is None else timebase.seconds_to_samples(ending_seconds(audio_duration))
        return cls(
            mulan_tokens=mulan_tokens,
            semantic_tokens=semantic_tokens,
            latents=latents,
            loop=loop,
            ending=ending,
            ending_samples=max(fields["fade_samples"], ending_samples),
            num_samples=num_samples,
            num_frames=num_frames,
            **prompts,
            **fields,
        )


@dataclass(frozen=True, kw_only=True)
class InpaintRequest(Request):
    """What `MeLoDyInpaintPipeline` is asked. `num_samples` are those of the whole timeline, at the recording's rate;
    `num_frames` those of all windows.

    Attributes:
        recording: as it came.
        num_before: samples of the timeline before the recording.
        windows: the parts of the timeline in which something is to be filled.
        semantic_source: where the plan of what is missing comes from.
    """

    recording: Recording
    num_before: int
    windows: list[Window]
    semantic_source: Literal["lm", "audio"]

    @classmethod
    def check(
        cls,
        pipe: "Stages",
        *,
        audio: Any,
        audio_sampling_rate: Any,
        regions: Any,
        extend_seconds: Any,
        prepend_seconds: Any,
        prompt: Any,
        audio_prompt: Any,
        audio_prompt_sampling_rate: Any,
        audio_prompt_weight: Any,
        negative_prompt: Any,
        semantic_source: Any,
        **common: Any,
    ) -> "InpaintRequest":
        """The request that the arguments of `MeLoDyInpaintPipeline.__call__` make, or the error that names one."""
        output_types = get_args(InpaintOutputType)
        fields = check_common(pipe, 1, negative_prompt=negative_prompt, output_types=output_types, **common)
        check_choice("semantic_source", semantic_source, ("lm", "audio"))
        if semantic_source == "audio" and negative_prompt is not None:
            allowed = 'be left out for `semantic_source="audio"`, which asks no language model'
            raise MeLoDyInputError("negative_prompt", negative_prompt, allowed)
        extend_seconds = check_number("extend_seconds", extend_seconds, 0, MAX_SECONDS)
        prepend_seconds = check_number("prepend_seconds", prepend_seconds, 0, MAX_SECONDS)
        clip, prompts = check_single(
            pipe,
            audio,
            "recording",
            prompt=prompt,
            audio_prompt=audio_prompt,
            audio_prompt_sampling_rate=audio_prompt_sampling_rate,
            audio_prompt_weight=audio_prompt_weight,
        )
        recording = check_recording(clip, audio_sampling_rate, pipe.sample_rate, MAX_SECONDS)
        runs, num_before, num_samples = runs_to_fill(regions, recording, prepend_seconds, extend_seconds)
        context, timebase = pipe.dual_path.config.num_frames, pipe.timebase
        windows = windows_around(runs, num_samples, recording.rate, timebase, context)
        return cls(
            recording=recording,
            num_before=num_before,
            windows=windows,
            semantic_source=semantic_source,
            num_samples=num_samples,
            num_frames=sum(each.num_frames(recording.rate, timebase) for each in windows),
            **prompts,
            **fields,
        )
