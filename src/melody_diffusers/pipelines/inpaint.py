"""Fill regions of a recording, continue it, or lead into it (paper, appendix C and Algorithm 2).

What is known keeps angle 0 while the rest is denoised. The plan of the missing part comes from the language model,
which continues what precedes it, or is estimated by the semantic tokenizer from what remains around it. The models see
a window around each region, however long the recording is, and what they make is fitted to it: its rate, its channels,
its level at the borders. All else is left alone.

Shapes: B batch, C channels and T samples of the recording, L latent frames, S semantic tokens, N MuLan tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F

from ..audio import SILENCE_DB, AudioInput, fade_, limit_peak, resample, to_mono
from .checks import names_others_arguments
from .conditions import Prompt
from .denoise import Continuation
from .recording import Window, level_gain
from .request import InpaintOutputType, InpaintRequest, Regions
from .stages import MeLoDyPipelineOutput
from .text_to_music import MeLoDyPipeline

BEND_SECONDS = 0.02
BALANCE_SECONDS = 1.0  # before and after what is filled, whose levels say how it is spread over the channels
LEADS = 8  # plans that are drawn for what comes before a recording, to choose one of
SHORT_TERM_SECONDS = 3.0
JOIN_SECONDS = 2.0  # of the recording, by whose plan it is chosen


class Patch(NamedTuple):
    """What was made for one place: its first sample, counted from the recording's own first, and (B, C, T) float32."""

    start: int
    waveform: torch.Tensor


@dataclass
class MeLoDyInpaintOutput(MeLoDyPipelineOutput):
    """What `MeLoDyInpaintPipeline` returns.

    Attributes:
        audios: (B, C, T) float32, NumPy or PyTorch, at the recording's own rate and with its channels; a list of
            `Patch` for `output_type="patches"`; latents (B, L, D) for "latent".
        gains: (B,) the smallest gain of the limiter, which only ever changes what was filled; None for latents.
        semantic_tokens: (B, S) plans of the windows that the models saw, one after the other. So are latents, and
            mulan_tokens: (B, N) what prompt or surroundings became, N for each window.
        sampling_rate: the recording's, samples a second.
    """

    sampling_rate: int


class _Filled(NamedTuple):
    """What became of a window: patches; their limiter's gains, (B,) each; the sample of the timeline up to which it is
    done, its end unless it was interrupted; and what the models made."""

    patches: list[Patch]
    gains: list[torch.Tensor]
    reached: int
    latents: torch.Tensor
    semantic_tokens: torch.Tensor
    mulan_tokens: torch.Tensor


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
        prepend_seconds: float = 0.0,
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
        output_type: InpaintOutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006 (diffusers' signature)
        callback_on_token_end: Callable[..., None] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> MeLoDyInpaintOutput | tuple:
        """Fill `regions` of a recording; add `extend_seconds` after it, or `prepend_seconds` before it.

        Samples outside the regions are returned as they came, at the recording's own rate and with its channels, and
        nothing of what was inside them is heard. What is filled follows the recording: the loudness of its channels
        around the place, and at each border its level, to which the new sound is bent without a step. Only what is
        filled is ever limited.

        The models see ten seconds (their window) around each place, so that time and memory grow with what is filled
        and not with the recording; with `output_type="patches"` nothing else of it is kept either.

        Args:
            audio: the recording: a file, an array, (rate, array) and so on (`audio.AudioInput`), of up to an hour.
            audio_sampling_rate: samples a second of an array that comes without its rate.
            regions: (start, end) in seconds, each within the recording.
            extend_seconds: music to add at the end.
            prepend_seconds: music to add at the beginning, which leads into the recording. Of the plans that the
                language model draws as continuations of the recording, it gets the one after which the recording's own
                beginning is likeliest; the diffusion model fills up to the known sound.
            prompt, audio_prompt: what the new parts should be. By default they follow the sound around them.
            semantic_source: "lm" lets the language model continue the plan; "audio" estimates the missing plan from
                both sides, for gaps of a second or two that should not bring anything new.
            num_waveforms_per_prompt: variations.
            fade_seconds: what is added at the end fades out over so long, and what is added at the beginning in; 0
                leaves the cut.
            output_type: "np" or "pt" for the whole, "patches" for what was made alone, which `audio.save_patched`
                writes into a copy of the file; "latent" for latents.
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
        recording, before = request.recording, request.num_before
        known = [
            (max(0, each.start - before), min(recording.num_samples, each.stop - before)) for each in request.windows
        ]
        whole = None
        if request.output_type in ("np", "pt"):
            (whole,) = recording.read([(0, recording.num_samples)])
            sounds = [whole[:, start:stop] for start, stop in known]
        else:
            sounds = recording.read(known)

        prompt_tokens = self.encode_asked(request)
        negative_tokens = self.encode_negative(request)
        filled: list[_Filled] = []
        for window, sound in zip(request.windows, sounds):
            left = max(0, before - window.start)
            sound = F.pad(sound, (left, window.stop - window.start - left - sound.shape[1]))
            filled.append(self._fill(request, window, sound, prompt_tokens, negative_tokens))
            if filled[-1].reached < window.stop:
                break

        gains = [gain for each in filled for gain in each.gains]
        patches = [patch for each in filled for patch in each.patches]
        audios: Any = patches
        if request.output_type == "latent":
            audios, gains = torch.cat([each.latents for each in filled], dim=1), []
        elif whole is not None:
            end = filled[-1].reached if filled[-1].reached < window.stop else request.num_samples
            shape = (request.batch_size, recording.channels, request.num_samples)
            audios = torch.zeros(shape, device=self._execution_device)
            audios[..., before : before + recording.num_samples] = whole
            audios = audios[..., :end]
            for patch in patches:
                start = before + patch.start
                audios[..., start : start + patch.waveform.shape[-1]] = patch.waveform
            audios = audios.cpu().numpy() if request.output_type == "np" else audios
        self.maybe_free_model_hooks()
        output = MeLoDyInpaintOutput(
            audios=audios,
            gains=torch.stack(gains).amin(0) if gains else None,
            semantic_tokens=torch.cat([each.semantic_tokens for each in filled], dim=1),
            mulan_tokens=torch.cat([each.mulan_tokens for each in filled], dim=1),
            sampling_rate=recording.rate,
        )
        if request.return_dict:
            return output
        return audios, output.gains, output.semantic_tokens, output.mulan_tokens, output.sampling_rate

    def _fill(
        self,
        request: InpaintRequest,
        window: Window,
        sound: torch.Tensor,
        mulan_tokens: torch.Tensor | None,
        negative_tokens: torch.Tensor | None,
    ) -> _Filled:
        """What belongs into the window, of which `sound` (C, T) is known but for its runs.

        MuLan tokens are those of the prompts, (1, N) and (B, N); without a prompt, the surroundings'.
        """
        timebase, rate, device = self.timebase, request.recording.rate, self._execution_device
        sound = sound.clone()
        for start, stop in window.runs:
            sound[:, start:stop] = 0  # nothing to be filled leaks into the models
        mono = resample(to_mono(sound), rate, self.sample_rate)  # (1, T at the pipeline's rate)
        gain = level_gain(mono, self.sample_rate)  # of the models' level over the recording's
        mono = mono * gain
        num_samples, num_frames = mono.shape[1], window.num_frames(rate, timebase)
        missing = torch.zeros(timebase.frames_to_samples(num_frames), dtype=torch.bool)
        for start, stop in window.runs:
            start, stop = start * self.sample_rate // rate, -(-stop * self.sample_rate // rate)
            missing[start : len(missing) if stop >= num_samples else stop] = True
        missing_frames = missing.unflatten(0, (num_frames, -1)).any(1)
        missing_tokens = _cover(missing, timebase.samples_per_token, timebase.frames_to_tokens(num_frames))
        waveform = F.pad(mono, (0, len(missing) - num_samples))[None]  # (1, 1, T)

        if mulan_tokens is None:
            mulan_tokens = self.encode_prompt(audio_prompt=[mono[:, ~missing[:num_samples]]])
        mulan_tokens = mulan_tokens.repeat_interleave(request.batch_size, 0)
        semantic_tokens = self._read_plan(waveform, missing_tokens, is_estimated=request.semantic_source == "audio")
        semantic_tokens = semantic_tokens.repeat_interleave(request.batch_size, 0)
        if request.semantic_source == "lm":
            semantic_tokens = self._plan(request, mulan_tokens, negative_tokens, semantic_tokens, ~missing_tokens)
        if self._interrupt:
            nothing = torch.zeros(request.batch_size, 0, self.vae.latent_dim, device=device)
            return _Filled([], [], window.start, nothing, semantic_tokens, mulan_tokens)
        known_latents = self.vae.encode(waveform.to(device, self.vae.dtype)).latent_dist.mode()
        noise = self.prepare_latents(request.batch_size, num_frames, request.generator)
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
            is_whole = latents.shape[1] == num_frames
            reached = window.stop if is_whole else window.start
            return _Filled([], [], reached, latents, semantic_tokens, mulan_tokens)

        length = window.stop - window.start
        generated = self.decode_unlimited(latents, num_samples)
        short_term = round(SHORT_TERM_SECONDS * self.sample_rate)
        runs = [[each * self.sample_rate // rate for each in run] for run in window.runs]
        bounds = [short_term_gain(mono, missing[:num_samples], generated[..., slice(*run)], short_term) for run in runs]
        generated = generated / gain
        if generated.shape[-1] < num_samples:  # interrupted
            length = min(length, generated.shape[-1] * rate // self.sample_rate)
        generated = resample(generated, self.sample_rate, rate)
        generated = F.pad(generated, (0, max(0, length - generated.shape[-1])))[..., :length]  # (B, 1, T)
        fade = round(request.fade_samples * rate / self.sample_rate)
        added = request.num_samples - request.num_before - request.recording.num_samples
        patches, gains = [], []
        for (start, stop), bound in zip(window.runs, bounds):
            if start >= length:
                break
            patch, gain = fit(sound, generated * bound, start, min(stop, length), rate)
            rise = min(fade, request.num_before) if window.start + start == 0 else 0
            fade_(patch, rise, min(fade, added) if stop >= length else 0)
            patches.append(Patch(window.start + start - request.num_before, patch))
            gains.append(gain)
        return _Filled(patches, gains, window.start + length, latents, semantic_tokens, mulan_tokens)

    def _read_plan(self, waveform: torch.Tensor, missing: torch.Tensor, is_estimated: bool) -> torch.Tensor:
        """Semantic tokens (1, S) of (1, 1, T), in steps of two windows of the model, each with one more before and
        after. Those that are `missing`, (S,), are estimated if they are to be."""
        tokenizer, device, size = self.semantic_tokenizer, self._execution_device, self.timebase.samples_per_token
        window = self.timebase.frames_to_tokens(self.dual_path.config.num_frames)
        tokens = torch.zeros(1, len(missing), dtype=torch.long, device=device)
        for start in range(0, len(missing), 2 * window):
            stop = min(start + 2 * window, len(missing))
            first, last = max(0, start - window), min(stop + window, len(missing))
            if is_estimated or not missing[start:stop].all():
                part = waveform[..., first * size : last * size].to(device, tokenizer.dtype)
                mask = missing[None, first:last].to(device) if is_estimated else None
                tokens[:, start:stop] = tokenizer.encode(part, mask=mask)[:, start - first : stop - first]
        return tokens

    def _plan(
        self,
        request: InpaintRequest,
        mulan_tokens: torch.Tensor,
        negative_tokens: torch.Tensor | None,
        tokens: torch.Tensor,
        known: torch.Tensor,
    ) -> torch.Tensor:
        """The plan (B, S) by the language model, of which tokens (B, S) are `known`, (S,)."""
        if known.any() and not known[0]:
            lead = int(known.int().argmax())
            tokens = tokens.clone()
            following = tokens[:, lead : lead + _first_run(known[lead:])]
            made = self._lead(request, mulan_tokens, negative_tokens, following, lead)
            if self._interrupt:
                return made
            tokens[:, :lead], known = made, known.clone()
            known[:lead] = True
        if known.all():
            return tokens
        return self.generate_semantic_tokens(
            mulan_tokens,
            len(known),
            known_tokens=tokens,
            known=known,
            sampling=request.sampling,
            generator=request.generator,
            callback_on_token_end=request.callback_on_token_end,
            negative_tokens=negative_tokens,
        )

    def _lead(
        self,
        request: InpaintRequest,
        mulan_tokens: torch.Tensor,
        negative_tokens: torch.Tensor | None,
        following: torch.Tensor,
        num_tokens: int,
    ) -> torch.Tensor:
        """A plan (B, num_tokens) that leads into the tokens `following`, (B, S).

        The language model only looks back. So it continues what follows, which keeps the style, the key and the tempo,
        `LEADS` times, and that plan is taken after which it finds the beginning of what follows the likeliest.
        """
        window = self.timebase.frames_to_tokens(self.dual_path.config.num_frames)
        following = following[:, : window - -(-window // self.dual_path.config.num_chunks)]  # room for a chunk
        num_known, join = following.shape[1], min(following.shape[1], round(JOIN_SECONDS * self.timebase.token_rate))
        repeats = LEADS if request.sampling.temperature > 0 else 1
        prompt, negative = mulan_tokens.repeat_interleave(repeats, 0), negative_tokens
        plans = self.generate_semantic_tokens(
            prompt,
            num_known + num_tokens,
            known_tokens=F.pad(following, (0, num_tokens)).repeat_interleave(repeats, 0),
            known=torch.arange(num_known + num_tokens) < num_known,
            sampling=request.sampling,
            generator=None if request.generator is None else [g for g in request.generator for _ in range(repeats)],
            callback_on_token_end=request.callback_on_token_end,
            negative_tokens=None if negative is None else negative.repeat_interleave(repeats, 0),
        )[:, num_known:]  # (B * repeats, num_tokens)
        if self._interrupt:
            return plans[::repeats]
        end = following[:, :join].repeat_interleave(repeats, 0)
        whole = torch.cat([plans[:, -(window - join) :], end], dim=1)
        scores = self.semantic_lm.semantic_logits(prompt.to(whole.device), whole)[:, -join:].float().log_softmax(-1)
        likelihood = scores.gather(-1, end.unsqueeze(-1)).sum((1, 2)).unflatten(0, (-1, repeats))  # (B, repeats)
        best = likelihood.argmax(1) + torch.arange(len(likelihood), device=plans.device) * repeats
        return plans[best]


def fit(
    original: torch.Tensor, generated: torch.Tensor, start: int, stop: int, rate: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples from `start` to `stop` of `generated` (B, 1, T) as they fit into `original` (C, T), silent there.

    They are spread over the channels as the original is around them, and limited. The step to the original at a border
    is added to them, fading out over 20 ms.

    Returns:
        (B, C, stop - start), and the limiter's gains (B,).
    """
    original = original.to(generated.device)
    near = round(BALANCE_SECONDS * rate)
    around = torch.cat([original[:, max(0, start - near) : start], original[:, stop : stop + near]], dim=1)
    first, last = max(0, start - 1), min(stop + 1, original.shape[1], generated.shape[-1])  # one more at each border
    made, gains = limit_peak(generated[..., first:last] * _balance(around))  # (B, C, T')
    patch = made[..., start - first : stop - first].clone()
    length = min(round(BEND_SECONDS * rate), stop - start)
    ramp = torch.linspace(1, 0, length + 1, device=made.device)[:-1]
    bound = torch.tensor(1.0)
    if first < start:
        step = original[:, first] - made[..., 0]  # (B, C)
        patch[..., :length] += step.unsqueeze(-1) * ramp
        bound = torch.maximum(bound, original[:, first].abs().max().cpu())
    if last > stop:
        step = original[:, stop] - made[..., -1]
        patch[..., -length:] += step.unsqueeze(-1) * ramp.flip(0)
        bound = torch.maximum(bound, original[:, stop].abs().max().cpu())
    return patch.clamp_(-float(bound), float(bound)), gains


def short_term_gain(known: torch.Tensor, missing: torch.Tensor, made: torch.Tensor, length: int) -> torch.Tensor:
    """The gain (B, 1, 1) that makes `made`, (B, 1, T'), no louder than the loudest stretch of `length` samples of what
    is known, and no quieter than the quietest; 1 where there is none so long, or silence.

    Known are the samples of (1, T) that are not `missing`, (T,).
    """
    length = min(length, made.shape[-1])
    if not 0 < length <= known.shape[1]:
        return made.new_ones(len(made), 1, 1)
    both = torch.stack([known[0].square().cpu(), missing.to(known.dtype)]).unsqueeze(1)
    powers, gaps = F.avg_pool1d(both, length, max(1, length // 10)).squeeze(1)
    powers = powers[gaps == 0]
    if not len(powers) or powers.max() <= 10 ** (SILENCE_DB / 10):
        return made.new_ones(len(made), 1, 1)
    power = made.square().mean(-1, keepdim=True).clamp(min=1e-12)
    return (power.clamp(float(powers.min()), float(powers.max())) / power).sqrt()


def _balance(sound: torch.Tensor) -> torch.Tensor:
    """How many times louder than their mean the channels of (C, T) are, (C, 1); 1 where all is silent."""
    mean = to_mono(sound).square().sum(1, keepdim=True)  # (1, 1)
    ratio = (sound.square().sum(1, keepdim=True) / mean).sqrt()
    return torch.where(mean > 0, ratio.clamp(max=len(sound)), 1.0)


def _first_run(mask: torch.Tensor) -> int:
    """How many are true at the beginning of (S,)."""
    return len(mask) if mask.all() else int(mask.int().argmin())


def _cover(samples: torch.Tensor, samples_per_unit: int, num_units: int) -> torch.Tensor:
    """bool (num_units,): the units that hold at least one of the samples marked."""
    padded = torch.nn.functional.pad(samples, (0, num_units * samples_per_unit - len(samples)))
    return padded.unflatten(0, (num_units, samples_per_unit)).any(1)
