"""Text or a clip of music -> music of any length (paper, Algorithm 1). Read this file first.

    encode_prompt             prompt           -> MuLan tokens      what it should sound like
    generate_semantic_tokens  MuLan tokens     -> semantic tokens   the plan of the piece, 25 a second
    denoise_latents           semantic tokens  -> latents           the plan rendered, in a few steps
    decode_latents            latents          -> waveform          24 kHz sound

`stages.py` holds these four; what is asked is checked in `request.py`.

Shapes: B batch, N MuLan tokens, S semantic tokens, L latent frames, D latent channels, T samples.
"""

from collections.abc import Callable
from typing import Any

import torch

from ..audio import AudioInput, fade_
from .checks import names_others_arguments
from .conditions import Prompt
from .denoise import Continuation
from .loops import close_plan
from .request import Ending, GenerationRequest, OutputType
from .stages import MeLoDyPipelineOutput, Stages


class MeLoDyPipeline(Stages):
    """Generates music from a text prompt or a clip of music. `Stages` lists the components."""

    @names_others_arguments
    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt | list[Prompt] | None = None,
        audio_prompt: AudioInput | list[AudioInput] | None = None,
        audio_prompt_sampling_rate: int | None = None,
        audio_prompt_weight: float | None = None,
        negative_prompt: Prompt | list[Prompt] | None = None,
        audio_duration: float | None = None,
        loop: bool = False,
        bars: int | None = None,
        bpm: float | None = None,
        beats_per_bar: int = 4,
        ending: Ending | None = "fade",
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
        latents: torch.Tensor | None = None,
        mulan_tokens: torch.Tensor | None = None,
        semantic_tokens: torch.Tensor | None = None,
        fade_seconds: float = 0.02,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006 (diffusers' signature)
        callback_on_token_end: Callable[..., None] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> MeLoDyPipelineOutput | tuple:
        """Generate music (Algorithm 1).

        Args:
            prompt: what to play: a text, or several with weights, `{"a waltz": 2, "techno": 1}`, of which the ratio
                counts; or a list of these.
            audio_prompt: instead of a text, or beside it, a clip that sounds as the music should: a file, an array,
                (rate, array) and so on (`audio.AudioInput`); or a list of clips, or an array (B, C, T) as this pipeline
                returns.
            audio_prompt_sampling_rate: samples a second of prompts that come without their rate.
            audio_prompt_weight: how much a clip counts beside its text, 0 to 1; 0.5 by default.
            negative_prompt: what the music should not be: the language model's guidance leads away from it, rather than
                from what it would play without any prompt. One, or one for each prompt.
            audio_duration: seconds of music, above 0 and up to an hour. By default 10, or what `semantic_tokens` cover.
            loop: the end runs into the beginning when the sound is played again and again. It lasts exactly as long as
                asked, 1 to 300 s; nothing fades.
            bars, bpm: of a loop, its length instead of `audio_duration`: 1 to 1000 bars at 20 to 400 beats a minute. A
                prompt that names no tempo is told this one in words.
            beats_per_bar: of these bars, 1 to 32.
            ending: "fade", with which the piece comes to an end within its last two seconds (of more than twenty, their
                tenth, up to ten seconds; of less than eight, their quarter), or None, which leaves it cut off.
            num_inference_steps: reverse steps of the diffusion, 1 to 1000. None takes the checkpoint's own default, as
                for the next seven.
            guidance_scale: classifier-free guidance of the diffusion, 0 to 30; 1 switches it off.
            prompt_guidance_scale: how far the diffusion goes from the plan alone towards, and past, the plan and the
                prompt, 0 to 30; 1 switches it off. For a diffusion model that hears the prompt (`num_mulan_codebooks`).
            guidance_interval: where in the reverse process both hold, from music, 0, to noise, 1; (0, 1) is all of it.
            temperature: of the language model; 0 always takes the likeliest token.
            top_k: sample among the k likeliest tokens; 0 among all.
            top_p: sample among the likeliest tokens whose probabilities sum to p; 0, as 1, among all.
            lm_guidance_scale: classifier-free guidance of the language model, 0 to 30; 1 switches it off, and without a
                negative prompt a model that was trained without `null_condition` allows nothing else.
            continuation: how what is longer than the model's window is rendered: on the "diagonal", where chunks stand
                at staggered angles and share the calls of the network, each with half of the steps; or in "windows",
                chunk after chunk (Algorithm 2), which takes about six times as long. Loops have a way of their own.
            num_waveforms_per_prompt: variations of each prompt.
            generator: governs every random draw: one, or one for each waveform. With one for each, a batch gives what
                its samples give alone.
            latents: noise to start from, (B, L, D) with L the frames of the duration in whole tokens, at least one
                chunk (a quarter of the model's window).
            mulan_tokens: (B, N), instead of a prompt.
            semantic_tokens: (B, S), a plan to render instead of one from the language model. Beside a prompt or
                `mulan_tokens`, of which one may serve all plans, for a diffusion model that hears these as well.
            fade_seconds: the music fades in, and where it has no other `ending` out, over so long, since it begins and
                ends within sounds; 0 leaves the cuts. Not in a loop.
            output_type: "np" or "pt" for waveforms, "latent" for latents.
            return_dict: return a `MeLoDyPipelineOutput` rather than a tuple.
            callback_on_step_end: called as `f(pipe, step, angle, {"latents": ...})` after each reverse step; may
                return latents to go on with. `pipe` is this call's own view of the pipeline: what is set on it holds
                for this call alone, and `pipe._interrupt = True` ends it (see `interrupt`). What the function raises
                ends the call as well, and the next call is as ever.
            callback_on_step_end_tensor_inputs: tensors the callback is given; only "latents".
            callback_on_token_end: called as `f(pipe, step, num_tokens)` after each token of the plan, steps from 1;
                may raise as well.
            attention_kwargs: passed to the diffusion model; `{"scale": s}` scales LoRA adapters.

        Raises:
            MeLoDyInputError: an argument out of range; a ValueError that names it, what came and what is allowed.
            FloatingPointError: a model produced NaN or infinity; names the stage.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        request = GenerationRequest.check(self, **arguments)
        self._interrupt = False
        mulan_tokens, semantic_tokens = self.plan(request)
        if self._interrupt:
            return self._output(request, self._nothing(request), None, semantic_tokens, mulan_tokens)
        latents = request.latents
        if latents is None:
            latents = self.prepare_latents(request.batch_size, request.num_frames, request.generator)
        latents = self.denoise_latents(
            latents,
            semantic_tokens,
            mulan_tokens=mulan_tokens,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            prompt_guidance_scale=request.prompt_guidance_scale,
            guidance_interval=request.guidance_interval,
            continuation=request.continuation,
            attention_kwargs=request.attention_kwargs,
            callback_on_step_end=request.callback_on_step_end,
            loop=request.loop,
        )
        if request.output_type == "latent":
            return self._output(request, latents, None, semantic_tokens, mulan_tokens)
        audios, gains = self.decode_latents(latents, request.num_samples, request.loop)
        audios = fade_(audios, request.fade_samples, request.ending_samples)
        return self._output(request, audios, gains, semantic_tokens, mulan_tokens)

    @torch.no_grad()
    def plan(self, request: GenerationRequest) -> tuple[torch.Tensor | None, torch.Tensor]:
        """MuLan tokens (B, N), or None without a prompt, and the plan (B, S): what is given of both, and what is not,
        made. When it is interrupted, the plan as far as it is."""
        mulan_tokens, semantic_tokens = self.encode_asked(request), request.semantic_tokens
        if mulan_tokens is None:
            mulan_tokens = request.mulan_tokens
        if mulan_tokens is not None:
            mulan_tokens = mulan_tokens.repeat_interleave(request.batch_size // len(mulan_tokens), 0)
        if semantic_tokens is not None:
            return mulan_tokens, semantic_tokens.repeat_interleave(request.num_waveforms_per_prompt, 0)
        num_tokens = self.timebase.frames_to_tokens(request.num_frames)
        semantic_tokens = self.generate_semantic_tokens(
            mulan_tokens,
            num_tokens + (self.timebase.token_rate if request.loop else 0),
            sampling=request.sampling,
            generator=request.generator,
            callback_on_token_end=request.callback_on_token_end,
            negative_tokens=self.encode_negative(request),
        )
        if request.loop and not self._interrupt:
            window = self.timebase.frames_to_tokens(self.dual_path.config.num_frames)
            semantic_tokens = close_plan(self.semantic_lm, mulan_tokens, semantic_tokens, num_tokens, window)
        return mulan_tokens, semantic_tokens
