"""Fill regions of a recording, or continue it (paper, appendix C and Algorithm 2).

What is known keeps angle 0 while the rest is denoised. The plan of the missing part comes from the language model,
which continues what precedes it, or is estimated by the semantic tokenizer from what remains around it.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F

from ..audio import AudioInput, fade_, limit_peak
from .checks import names_others_arguments
from .conditions import Prompt
from .denoise import Continuation
from .request import InpaintRequest, OutputType, Regions
from .stages import MeLoDyPipelineOutput
from .text_to_music import MeLoDyPipeline

BEND_SECONDS = 0.02


class MeLoDyInpaintPipeline(MeLoDyPipeline):
    """A `MeLoDyPipeline` whose timeline starts out partly known. Same components; `from_pipe` shares them."""

    @names_others_arguments
    @torch.no_grad()
    def __call__(
        self,
        audio: AudioInput | None = None,
        audio_sampling_rate: int | None = None,
        regions: Regions = (),
        extend_seconds: float = 0.0,
        prompt: Prompt | None = None,
        audio_prompt: AudioInput | None = None,
        audio_prompt_sampling_rate: int | None = None,
        audio_prompt_weight: float | None = None,
        negative_prompt: Prompt | None = None,
        semantic_source: Literal["lm", "audio"] = "lm",
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
        """Fill `regions` of a recording and, after it, `extend_seconds` more.

        Samples outside the regions are returned as they came (at the pipeline's sample rate, mono), and nothing of
        what was inside them is heard. At each border the new sound is bent to meet the old without a step.

        Args:
            audio: the recording: a file, an array, (rate, array) and so on (`audio.AudioInput`).
            audio_sampling_rate: samples a second of an array that comes without its rate.
            regions: (start, end) in seconds, each within the recording.
            extend_seconds: music to add at the end.
            prompt, audio_prompt: what the new parts should be. By default they follow the recording's own sound.
            semantic_source: "lm" lets the language model continue the plan; "audio" estimates the missing plan from
                both sides, for gaps of a second or two that should not bring anything new.
            num_waveforms_per_prompt: variations.
            fade_seconds: what is added at the end fades out over so long; 0 leaves the cut.
            (The other arguments are those of `MeLoDyPipeline.__call__`.)

        Raises:
            MeLoDyInputError: an argument out of range; a ValueError that names it, what came and what is allowed.
            FloatingPointError: a model produced NaN or infinity; names the stage.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        if self.semantic_tokenizer is None:
            raise ValueError("Inpainting needs the component `semantic_tokenizer` to read the recording; it is None.")
        request = InpaintRequest.check(self, **arguments)
        self._interrupt = False
        recording, unknown = request.recording, request.unknown

        # One timeline of whole frames; what lies past the end is unknown too.
        timebase, num_tokens = self.timebase, self.timebase.frames_to_tokens(request.num_frames)
        padding = timebase.frames_to_samples(request.num_frames) - request.num_samples
        missing = F.pad(unknown, (0, padding), value=True)  # (T,)
        missing_frames = missing.unflatten(0, (request.num_frames, -1)).any(1)
        missing_tokens = _cover(missing, timebase.samples_per_token, num_tokens)
        waveform = F.pad(recording, (0, len(missing) - recording.shape[1]))
        waveform = torch.where(missing, 0.0, waveform)[None]  # (1, 1, T): nothing to be filled leaks into the models

        if request.prompt is not None or request.audio_prompt is not None:
            mulan_tokens = self.encode_prompt(request.prompt, request.audio_prompt, request.audio_prompt_weight)
        else:
            mulan_tokens = self.encode_prompt(audio_prompt=[recording[:, ~unknown[: recording.shape[1]]]])
        mulan_tokens = mulan_tokens.repeat_interleave(request.batch_size, 0)
        semantic_tokens = self._read_plan(waveform, missing_tokens if request.semantic_source == "audio" else None)
        semantic_tokens = semantic_tokens.repeat_interleave(request.batch_size, 0)
        if request.semantic_source == "lm":
            semantic_tokens = self.generate_semantic_tokens(
                mulan_tokens,
                num_tokens,
                known_tokens=semantic_tokens,
                known=~missing_tokens,
                sampling=request.sampling,
                generator=request.generator,
                callback_on_token_end=request.callback_on_token_end,
                negative_tokens=self.encode_negative(request),
            )
        if self._interrupt:
            return self._output(request, self._nothing(request), None, semantic_tokens, mulan_tokens)
        known_latents = self.vae.encode(waveform.to(self._execution_device, self.vae.dtype)).latent_dist.mode()
        noise = self.prepare_latents(request.batch_size, request.num_frames, request.generator)
        latents = torch.where(missing_frames[:, None].to(noise.device), noise, known_latents.to(noise.dtype))
        latents = self.denoise_latents(
            latents,
            semantic_tokens,
            mulan_tokens=mulan_tokens,
            unknown=missing_frames,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            prompt_guidance_scale=request.prompt_guidance_scale,
            guidance_interval=request.guidance_interval,
            continuation=request.continuation,
            attention_kwargs=request.attention_kwargs,
            callback_on_step_end=request.callback_on_step_end,
        )
        if request.output_type == "latent":
            return self._output(request, latents, None, semantic_tokens, mulan_tokens)
        generated, _ = self.decode_latents(latents, request.num_samples)
        num_samples, num_added = generated.shape[-1], request.num_samples - recording.shape[1]  # fewer if interrupted
        generated = fade_(generated, 0, min(request.fade_samples, num_added))
        original = F.pad(recording, (0, num_added)).to(generated.device)[:, :num_samples]
        audios, gains = limit_peak(self._splice(original, generated, unknown[:num_samples]), ceiling=1.0)
        return self._output(request, audios, gains, semantic_tokens, mulan_tokens)

    def _read_plan(self, waveform: torch.Tensor, missing_tokens: torch.Tensor | None) -> torch.Tensor:
        """Semantic tokens (1, S) of (1, 1, T); those that `missing_tokens`, (S,), names are estimated."""
        device = self._execution_device
        mask = None if missing_tokens is None else missing_tokens[None].to(device)
        return self.semantic_tokenizer.encode(waveform.to(device, self.semantic_tokenizer.dtype), mask=mask)

    def _splice(self, original: torch.Tensor, generated: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
        """`generated` (B, 1, T) where unknown, `original` (1, T) elsewhere. The step between the two at a border is
        added to the generated side, fading out over 20 ms."""
        mixed = torch.where(unknown.to(generated.device), generated, original)
        borders = unknown.int().diff().nonzero()[:, 0].tolist()  # border b lies between the samples b and b + 1
        for border in borders:
            inside = unknown[border + 1 :] if unknown[border + 1] else unknown[: border + 1].flip(0)
            run = len(inside) if inside.all() else int(inside.int().argmin())
            length = min(self.timebase.seconds_to_samples(BEND_SECONDS), run)
            ramp = torch.linspace(1, 0, length + 1, device=mixed.device)[:-1]
            outside = border if unknown[border + 1] else border + 1
            step = original[:, outside] - generated[..., outside]  # (B, 1)
            if unknown[border + 1]:
                mixed[..., border + 1 : border + 1 + length] += step.unsqueeze(-1) * ramp
            else:
                mixed[..., border + 1 - length : border + 1] += step.unsqueeze(-1) * ramp.flip(0)
        return mixed


def _cover(samples: torch.Tensor, samples_per_unit: int, num_units: int) -> torch.Tensor:
    """bool (num_units,): the units that hold at least one of the samples marked."""
    padded = torch.nn.functional.pad(samples, (0, num_units * samples_per_unit - len(samples)))
    return padded.unflatten(0, (num_units, samples_per_unit)).any(1)
