"""A given piece made a little, or entirely, differently: the reverse process from an angle between music and noise.

Latents of the piece are turned towards noise by `strength` of a right angle (paper, eq. 1) and rendered from there. A
part of the plan may be written anew; what it covers starts from noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..audio import AudioInput, fade_, limit_peak
from .checks import MeLoDyInputError, check_audio, check_number, check_tensor, names_others_arguments
from .conditions import Prompt
from .denoise import Continuation, Pass, plan_passes, window_and_chunk
from .recording import level_gain
from .request import MAX_SECONDS, OutputType, Request, check_common, check_single
from .stages import MeLoDyPipelineOutput, Stages

SPAN_SECONDS = 1.0  # of a plan that are written anew together


@dataclass(frozen=True, kw_only=True)
class VariationRequest(Request):
    """What `MeLoDyVariationPipeline` is asked.

    Attributes:
        recording: (1, T) at the pipeline's sample rate.
        strength, plan_strength: 0 to 1.
        semantic_tokens: (1, S), or None where the plan is to be read from the recording.
    """

    recording: torch.Tensor
    strength: float
    plan_strength: float
    semantic_tokens: torch.Tensor | None

    @classmethod
    def check(
        cls,
        pipe: "MeLoDyVariationPipeline",
        *,
        audio: Any,
        audio_sampling_rate: Any,
        strength: Any,
        plan_strength: Any,
        prompt: Any,
        audio_prompt: Any,
        audio_prompt_sampling_rate: Any,
        audio_prompt_weight: Any,
        negative_prompt: Any,
        semantic_tokens: Any,
        **common: Any,
    ) -> "VariationRequest":
        """The request that the arguments of `MeLoDyVariationPipeline.__call__` make, or the error that names one."""
        fields = check_common(pipe, 1, negative_prompt=negative_prompt, **common)
        strength = check_number("strength", strength, 0, 1)
        plan_strength = check_number("plan_strength", plan_strength, 0, 1)
        clip, prompts = check_single(
            pipe,
            audio,
            "piece",
            prompt=prompt,
            audio_prompt=audio_prompt,
            audio_prompt_sampling_rate=audio_prompt_sampling_rate,
            audio_prompt_weight=audio_prompt_weight,
        )
        recording = check_audio("audio", clip, audio_sampling_rate, pipe.sample_rate, MAX_SECONDS)
        timebase = pipe.timebase
        num_frames = timebase.whole_token_frames(timebase.samples_to_frames(recording.shape[1]))
        if semantic_tokens is not None:
            size = pipe.semantic_lm.config.semantic_codebook_size
            semantic_tokens = check_tensor("semantic_tokens", semantic_tokens, (1, None), size)
            if (needed := timebase.frames_to_tokens(num_frames)) > semantic_tokens.shape[1]:
                allowed = f"cover the piece, which takes {needed} tokens"
                raise MeLoDyInputError("semantic_tokens", semantic_tokens, allowed, str(semantic_tokens.shape[1]))
            semantic_tokens = semantic_tokens[:, :needed]
        elif pipe.semantic_tokenizer is None:
            allowed = "be given, for the component `semantic_tokenizer`, which would read them from the piece, is None"
            raise MeLoDyInputError("semantic_tokens", None, allowed)
        return cls(
            recording=recording,
            strength=strength,
            plan_strength=plan_strength,
            semantic_tokens=semantic_tokens,
            num_samples=recording.shape[1],
            num_frames=num_frames,
            **prompts,
            **fields,
        )


class MeLoDyVariationPipeline(Stages):
    """Makes a given piece anew, by degrees. Same components as `MeLoDyPipeline`; `from_pipe` shares them."""

    @names_others_arguments
    @torch.no_grad()
    def __call__(
        self,
        audio: AudioInput | None = None,
        audio_sampling_rate: int | None = None,
        strength: float = 0.5,
        plan_strength: float = 0.0,
        prompt: Prompt | None = None,
        audio_prompt: AudioInput | None = None,
        audio_prompt_sampling_rate: int | None = None,
        audio_prompt_weight: float | None = None,
        negative_prompt: Prompt | None = None,
        semantic_tokens: torch.Tensor | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        prompt_guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        lm_guidance_scale: float | None = None,
        continuation: Continuation | None = None,
        num_waveforms_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        fade_seconds: float = 0.02,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006 (diffusers' signature)
        callback_on_token_end: Callable[..., None] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> MeLoDyPipelineOutput | tuple:
        """The piece, more or less otherwise: (B, 1, T) of its own length, mono at the pipeline's rate.

        Args:
            audio: the piece: a file, an array, (rate, array) and so on (`audio.AudioInput`).
            audio_sampling_rate: samples a second of an array that comes without its rate.
            strength: where between the piece, 0, and noise, 1, the reverse process starts. 0 gives the piece as the VAE
                hears it, 1 another rendering of its plan.
            plan_strength: share of the plan, 0 to 1, that the language model writes anew, a second at a time. What a
                larger share rewrites holds what a smaller one does.
            prompt, audio_prompt: what it should become. By default it follows its own sound.
            semantic_tokens: (1, S), its plan, where that is known; by default it is read from the sound.
            num_waveforms_per_prompt: variations.
            (The other arguments are those of `MeLoDyPipeline.__call__`.)

        Raises:
            MeLoDyInputError: an argument out of range; a ValueError that names it, what came and what is allowed.
            FloatingPointError: a model produced NaN or infinity; names the stage.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        request = VariationRequest.check(self, **arguments)
        self._interrupt = False
        timebase, device = self.timebase, self._execution_device
        gain = level_gain(request.recording, self.sample_rate)  # of the models' level over the recording's
        waveform = F.pad(
            request.recording * gain, (0, timebase.frames_to_samples(request.num_frames) - request.num_samples)
        )

        mulan_tokens = self.encode_asked(request)
        if mulan_tokens is None:
            mulan_tokens = self.encode_prompt(audio_prompt=[request.recording])
        mulan_tokens = mulan_tokens.repeat_interleave(request.batch_size, 0)
        semantic_tokens = request.semantic_tokens
        if semantic_tokens is None:
            semantic_tokens = self.semantic_tokenizer.encode(waveform[None].to(device, self.semantic_tokenizer.dtype))
        semantic_tokens = semantic_tokens.repeat_interleave(request.batch_size, 0)
        rewritten = _spans(request, semantic_tokens.shape[1], timebase.token_rate)
        if rewritten.any():
            semantic_tokens = self.generate_semantic_tokens(
                mulan_tokens,
                len(rewritten),
                known_tokens=semantic_tokens,
                known=~rewritten,
                sampling=request.sampling,
                generator=request.generator,
                callback_on_token_end=request.callback_on_token_end,
                negative_tokens=self.encode_negative(request),
            )
        if self._interrupt:
            return self._output(request, self._nothing(request), None, semantic_tokens, mulan_tokens)
        known = self.vae.encode(waveform[None].to(device, self.vae.dtype)).latent_dist.mode()
        noise = self.prepare_latents(request.batch_size, request.num_frames, request.generator)
        frames = torch.arange(request.num_frames) * len(rewritten) // request.num_frames
        share = torch.where(rewritten[frames], 1.0, request.strength)  # of the way from music to noise, (L,)
        angle = share[None].to(noise.device) * torch.pi / 2
        latents = self.scheduler.add_noise(known.to(noise), noise, angle)
        if share.any():
            latents = self.denoise_latents(
                latents,
                semantic_tokens,
                mulan_tokens=mulan_tokens,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                prompt_guidance_scale=request.prompt_guidance_scale,
                guidance_interval=request.guidance_interval,
                attention_kwargs=request.attention_kwargs,
                callback_on_step_end=request.callback_on_step_end,
                passes=self._passes(request, share),
            )
        if request.output_type == "latent":
            return self._output(request, latents, None, semantic_tokens, mulan_tokens)
        audios, gains = limit_peak(self.decode_unlimited(latents, request.num_samples) / gain)
        fade_(audios, request.fade_samples, request.fade_samples)
        return self._output(request, audios, gains, semantic_tokens, mulan_tokens)

    def _passes(self, request: VariationRequest, share: torch.Tensor) -> list[Pass]:
        """Those of a piece from noise, the angles of each frame times its share of the way, (L,)."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(request.num_inference_steps)
        window, chunk = window_and_chunk(self.dual_path.config, request.num_frames)
        alignment = self.timebase.frame_alignment
        passes = plan_passes(share > 0, window, chunk, scheduler, alignment, request.continuation)
        return [Pass(start, *(angles * share[start : start + window] for angles in pair)) for start, *pair in passes]


def _spans(request: VariationRequest, num_tokens: int, token_rate: int) -> torch.Tensor:
    """bool (num_tokens,): what of the plan is written anew, whole spans, in an order that follows from their number
    alone, so that a larger share holds a smaller one whatever the seed."""
    length = max(1, round(SPAN_SECONDS * token_rate))
    count = -(-num_tokens // length)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[order[: round(request.plan_strength * count)]] = True
    return chosen.repeat_interleave(length)[:num_tokens]
