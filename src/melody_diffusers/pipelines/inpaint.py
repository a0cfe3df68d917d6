"""Fill regions of a recording, or continue it (paper, appendix C and Algorithm 2).

What is known keeps angle 0 while the rest is denoised. The plan of the missing part comes from the language model,
which continues what precedes it, or is estimated by the semantic tokenizer from what remains around it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from ..audio import limit_peak
from . import request as checks
from .request import MeLoDyInputError
from .text_to_music import MeLoDyPipeline, MeLoDyPipelineOutput, OutputType

BEND_SECONDS = 0.02

Regions = Sequence[tuple[float, float]]


class MeLoDyInpaintPipeline(MeLoDyPipeline):
    """A `MeLoDyPipeline` whose timeline starts out partly known. Same components; `from_pipe` shares them."""

    @torch.no_grad()
    def __call__(
        self,
        audio: checks.AudioInput | None = None,
        audio_sampling_rate: int | None = None,
        regions: Regions = (),
        extend_seconds: float = 0.0,
        prompt: str | None = None,
        semantic_source: Literal["lm", "audio"] = "lm",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        lm_guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
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
            audio: the recording: a path, or an array (T,) or (C, T).
            audio_sampling_rate: samples a second of an array.
            regions: (start, end) in seconds, each within the recording.
            extend_seconds: music to add at the end.
            prompt: what the new parts should be. By default they follow the recording's own sound.
            semantic_source: "lm" lets the language model continue the plan; "audio" estimates the missing plan from
                both sides, for gaps of a second or two that should not bring anything new.
            num_waveforms_per_prompt: variations.
            (The other arguments are those of `MeLoDyPipeline.__call__`.)

        Raises:
            MeLoDyInputError: an argument out of range; a ValueError that names it, what came and what is allowed.
            FloatingPointError: a model produced NaN or infinity; names the stage.
        """
        if self.semantic_tokenizer is None:
            raise ValueError("Inpainting needs the component `semantic_tokenizer` to read the recording; it is None.")
        sampling = self._sampling(num_inference_steps, guidance_scale, temperature, top_k, top_p, lm_guidance_scale)
        self._check_outputs(output_type, callback_on_step_end_tensor_inputs, num_waveforms_per_prompt)
        checks.check_callbacks(callback_on_step_end, callback_on_token_end)
        checks.check_choice("semantic_source", semantic_source, ("lm", "audio"))
        checks.check_number("extend_seconds", extend_seconds, 0, checks.MAX_DURATION_SECONDS)
        if prompt is not None and len(checks.check_prompt(prompt)) != 1:
            raise MeLoDyInputError("prompt", prompt, "be one text for the recording", str(len(prompt)))
        generators = checks.check_generators(generator, num_waveforms_per_prompt)
        limit = checks.MAX_DURATION_SECONDS
        recording = checks.check_audio("audio", audio, audio_sampling_rate, self.sample_rate, limit)  # (1, T)
        timebase = self.timebase
        unknown_samples = self._unknown_samples(regions, recording.shape[1], extend_seconds)
        num_samples = len(unknown_samples)

        # One timeline of whole frames, at least as long as a window; what lies past the end is unknown too.
        num_frames = max(timebase.samples_to_frames(num_samples), self.dual_path.config.num_frames)
        padding = timebase.frames_to_samples(num_frames) - num_samples
        unknown = torch.nn.functional.pad(unknown_samples, (0, padding), value=True)
        unknown_frames = unknown.unflatten(0, (num_frames, -1)).any(1)
        num_tokens = timebase.frames_to_tokens(num_frames)
        known_tokens_mask = ~_cover(unknown, timebase.samples_per_token, num_tokens)
        waveform = torch.nn.functional.pad(recording, (0, len(unknown) - recording.shape[1]))
        waveform = torch.where(unknown, 0.0, waveform)[None]  # (1, 1, T): nothing to be filled leaks into the models

        device = self._execution_device
        if prompt is not None:
            mulan_tokens = self.encode_prompt(prompt=prompt)
        else:
            mulan_tokens = self.encode_prompt(audio_prompt=[recording[:, ~unknown_samples[: recording.shape[1]]]])
        heard = waveform.to(device, self.semantic_tokenizer.dtype)
        mask = None if semantic_source == "lm" else ~known_tokens_mask[None].to(device)
        semantic_tokens = self.semantic_tokenizer.encode(heard, mask=mask)
        semantic_tokens = semantic_tokens.repeat_interleave(num_waveforms_per_prompt, 0)
        if semantic_source == "lm":
            semantic_tokens = self.generate_semantic_tokens(
                mulan_tokens.repeat_interleave(num_waveforms_per_prompt, 0),
                num_tokens,
                known_tokens=semantic_tokens,
                known=known_tokens_mask,
                temperature=sampling["temperature"],
                top_k=sampling["top_k"],
                top_p=sampling["top_p"],
                guidance_scale=sampling["lm_guidance_scale"],
                generator=generators,
                callback_on_token_end=callback_on_token_end,
            )
        known_latents = self.vae.encode(waveform.to(device, self.vae.dtype)).latent_dist.mode()  # (1, L, D)
        noise = self.prepare_latents(num_waveforms_per_prompt, num_frames, generators)
        latents = torch.where(unknown_frames[:, None].to(device), noise, known_latents.to(noise.dtype))
        latents = self.denoise_latents(
            latents,
            semantic_tokens,
            unknown=unknown_frames,
            num_inference_steps=sampling["num_inference_steps"],
            guidance_scale=sampling["guidance_scale"],
            attention_kwargs=attention_kwargs,
            callback_on_step_end=callback_on_step_end,
        )
        if output_type == "latent":
            return self._finish(latents, semantic_tokens, num_samples, output_type, return_dict)
        generated, _ = self.decode_latents(latents, num_samples)
        original = torch.nn.functional.pad(recording, (0, num_samples - recording.shape[1])).to(generated.device)
        mixed, gains = limit_peak(self._splice(original, generated, unknown_samples), ceiling=1.0)
        self.maybe_free_model_hooks()
        audios = mixed.cpu().numpy() if output_type == "np" else mixed
        output = MeLoDyPipelineOutput(audios=audios, gains=gains, semantic_tokens=semantic_tokens)
        return output if return_dict else (audios, gains, semantic_tokens)

    def _unknown_samples(self, regions: object, num_samples: int, extend_seconds: float) -> torch.Tensor:
        """bool (T,): the samples to fill, those past the end of the recording included."""
        extension = self.timebase.seconds_to_samples(extend_seconds)
        unknown = torch.zeros(num_samples + extension, dtype=torch.bool)
        unknown[num_samples:] = True
        duration = num_samples / self.sample_rate
        if not checks.is_list(regions):
            raise MeLoDyInputError("regions", regions, "be a list of (start, end) in seconds")
        for i, region in enumerate(regions):
            if not checks.is_list(region) or len(region) != 2:
                raise MeLoDyInputError(f"regions[{i}]", region, "be (start, end) in seconds", repr(region)[:80])
            start, end = region
            checks.check_number(f"regions[{i}][0]", start, 0, duration)
            checks.check_number(f"regions[{i}][1]", end, start, duration, exclusive_low=True)
            unknown[round(start * self.sample_rate) : round(end * self.sample_rate)] = True
        if not unknown.any():
            allowed = "name something to fill, or `extend_seconds` be above 0"
            raise MeLoDyInputError("regions", regions, allowed, "neither")
        if unknown[:num_samples].all():
            allowed = "leave a part of the recording"
            raise MeLoDyInputError("regions", regions, allowed, "all of it", " To make all anew use MeLoDyPipeline.")
        return unknown

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
