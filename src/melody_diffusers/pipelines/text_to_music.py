"""Text or a clip of music -> music of any length (paper, Algorithm 1). Read this file first.

    encode_prompt             prompt           -> MuLan tokens      what it should sound like
    generate_semantic_tokens  MuLan tokens     -> semantic tokens   the plan of the piece, 25 a second
    denoise_latents           semantic tokens  -> latents           the plan rendered, in a few steps
    decode_latents            latents          -> waveform          24 kHz sound

Shapes: B batch, N MuLan tokens, S semantic tokens, L latent frames, D latent channels, T samples.
"""

import itertools
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedTokenizerBase

from ..audio import limit_peak, rms_db
from ..hf.bases import Pipeline
from ..models.audio_vae import AudioVAEGAN
from ..models.dual_path import DualPathDiffusionModel
from ..models.mulan import MuLanModel
from ..models.residual_quantizer import ResidualQuantizer
from ..models.semantic_lm import SemanticLM
from ..models.semantic_tokenizer import SemanticTokenizer
from ..schedulers.angle import AngleScheduler
from ..timebase import Timebase
from . import request as checks
from .denoise import denoise, plan_windows
from .request import MeLoDyInputError

logger = logging.get_logger(__name__)

OutputType = Literal["np", "pt", "latent"]
SAMPLING_DEFAULTS = {
    "num_inference_steps": 10,
    "guidance_scale": 2.5,
    "temperature": 1.0,
    "top_k": None,
    "top_p": 1.0,
    "lm_guidance_scale": 1.0,
}
SILENCE_DB = -70.0
_TOKENIZER_LOCK = threading.Lock()  # a fast tokenizer keeps padding and truncation as state and refuses a second caller


@dataclass
class MeLoDyPipelineOutput(BaseOutput):
    """What a MeLoDy pipeline returns.

    Attributes:
        audios: (B, 1, T) float32 in [-1, 1], NumPy or PyTorch; the latents (B, L, D) for `output_type="latent"`.
        gains: (B,) gain the limiter applied to each waveform, 1 where it did nothing; None for latents.
        semantic_tokens: (B, S) the plan that was rendered; give it back to render the same piece again.
    """

    audios: np.ndarray | torch.Tensor
    gains: torch.Tensor | None
    semantic_tokens: torch.Tensor


class _Call(threading.local):
    """What a callback may ask of the call that runs in its thread."""

    guidance_scale: float = 1.0
    num_timesteps: int = 0


_CALL = _Call()


class MeLoDyPipeline(Pipeline):
    """Generates music from a text prompt or a clip of music.

    Args:
        vae: latents -> waveform.
        mulan: text or audio -> embedding.
        tokenizer: of the text tower.
        mulan_quantizer: embedding -> MuLan tokens.
        semantic_tokenizer: waveform -> semantic tokens; needed for inpainting only.
        semantic_lm: MuLan tokens -> semantic tokens.
        dual_path: semantic tokens -> latents.
        scheduler: the angles of the reverse process.
        token_rate: semantic tokens a second.
        sampling: this checkpoint's own defaults for the arguments named in `SAMPLING_DEFAULTS`.

    Raises:
        ValueError: components that do not fit together, or a scheduler other than `AngleScheduler`.
    """

    # A model sends the one before it back to the CPU. `semantic_tokenizer` runs in inpainting alone and would, after
    # mulan, keep it on the device. accelerate cannot offload a model that has buffers only: mulan_quantizer stays.
    model_cpu_offload_seq = "semantic_tokenizer->mulan->semantic_lm->dual_path->vae"
    _exclude_from_cpu_offload = ["mulan_quantizer"]
    _optional_components = ["semantic_tokenizer"]
    _callback_tensor_inputs = ["latents"]
    _not_by_forward = ["vae", "mulan", "mulan_quantizer", "semantic_tokenizer"]

    def __init__(
        self,
        vae: AudioVAEGAN,
        mulan: MuLanModel,
        tokenizer: PreTrainedTokenizerBase,
        mulan_quantizer: ResidualQuantizer,
        semantic_tokenizer: SemanticTokenizer | None,
        semantic_lm: SemanticLM,
        dual_path: DualPathDiffusionModel,
        scheduler: AngleScheduler,
        token_rate: int = 25,
        sampling: dict[str, Any] | None = None,
    ):
        super().__init__()
        if not isinstance(scheduler, AngleScheduler | None):
            raise ValueError(
                f"`scheduler` must be an AngleScheduler; got {type(scheduler).__name__}. The network predicts the "
                "velocity at per-frame angles, which the schedules of other schedulers do not describe."
            )
        unknown_keys = set(sampling or {}) - set(SAMPLING_DEFAULTS)
        if unknown_keys:
            raise ValueError(f"`sampling` allows {sorted(SAMPLING_DEFAULTS)}; got {sorted(unknown_keys)}.")
        if None not in (
            vae,
            mulan,
            mulan_quantizer,
            semantic_lm,
            dual_path,
        ):  # as from_pretrained(..., vae=None) leaves it
            _check_sizes(vae, mulan, mulan_quantizer, semantic_tokenizer, semantic_lm, dual_path)
        self.register_modules(
            vae=vae,
            mulan=mulan,
            tokenizer=tokenizer,
            mulan_quantizer=mulan_quantizer,
            semantic_tokenizer=semantic_tokenizer,
            semantic_lm=semantic_lm,
            dual_path=dual_path,
            scheduler=scheduler,
        )
        self.register_to_config(token_rate=token_rate, sampling=sampling)

    @property
    def sample_rate(self) -> int:
        """Samples a second of the generated waveform."""
        return self.vae.sample_rate

    @property
    def guidance_scale(self) -> float:
        """Of the diffusion, in the call that runs in this thread; a callback may set `_guidance_scale`."""
        return _CALL.guidance_scale

    @property
    def _guidance_scale(self) -> float:
        return _CALL.guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, value: float) -> None:
        _CALL.guidance_scale = value

    @property
    def num_timesteps(self) -> int:
        """Reverse steps of the call that runs in this thread, those of all windows together."""
        return _CALL.num_timesteps

    @property
    def timebase(self) -> Timebase:
        """Rates of samples, latent frames and semantic tokens."""
        return Timebase(self.vae.sample_rate, self.vae.hop_samples, self.config.token_rate)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        audio_prompt: checks.AudioInput | list[checks.AudioInput] | None = None,
        audio_prompt_sampling_rate: int | None = None,
        audio_duration: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        lm_guidance_scale: float | None = None,
        num_waveforms_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        mulan_tokens: torch.Tensor | None = None,
        semantic_tokens: torch.Tensor | None = None,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006 (diffusers' signature)
        callback_on_token_end: Callable[..., None] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> MeLoDyPipelineOutput | tuple:
        """Generate music.

        Args:
            prompt: what to play, or a list of such texts.
            audio_prompt: instead of a text, a clip that sounds as the music should: a path, or an array (T,) or
                (C, T); or a list of clips.
            audio_prompt_sampling_rate: samples a second of array prompts.
            audio_duration: seconds of music, above 0 and up to an hour. By default 10, or what `semantic_tokens` cover.
            num_inference_steps: reverse steps of the diffusion, 1 to 1000. None takes the checkpoint's own default, as
                for the next five.
            guidance_scale: classifier-free guidance of the diffusion, 0 to 30; 1 switches it off.
            temperature: of the language model; 0 always takes the likeliest token.
            top_k: sample among the k likeliest tokens.
            top_p: sample among the likeliest tokens whose probabilities sum to p.
            lm_guidance_scale: classifier-free guidance of the language model, 0 to 30; 1 switches it off, and a model
                that was trained without `null_condition` allows nothing else.
            num_waveforms_per_prompt: variations of each prompt.
            generator: governs every random draw: one, or one for each waveform. With one for each, a batch gives what
                its samples give alone.
            latents: noise to start from, (B, L, D) with L the frames of the duration, at least one window.
            mulan_tokens: (B, N), instead of a prompt.
            semantic_tokens: (B, S), a plan to render instead of one from the language model.
            output_type: "np" or "pt" for waveforms, "latent" for latents.
            return_dict: return a `MeLoDyPipelineOutput` rather than a tuple.
            callback_on_step_end: called as `f(pipeline, step, angle, {"latents": ...})` after each reverse step; may
                return latents to go on with. What it raises ends the call, and the next call is as ever.
            callback_on_step_end_tensor_inputs: tensors the callback is given; only "latents".
            callback_on_token_end: called as `f(pipeline, step, num_tokens)` after each token of the plan, steps from 1;
                may raise as well.
            attention_kwargs: passed to the diffusion model; `{"scale": s}` scales LoRA adapters.

        Raises:
            MeLoDyInputError: an argument out of range; a ValueError that names it, what came and what is allowed.
            FloatingPointError: a model produced NaN or infinity; names the stage.
        """
        sampling = self._sampling(num_inference_steps, guidance_scale, temperature, top_k, top_p, lm_guidance_scale)
        self._check_outputs(output_type, callback_on_step_end_tensor_inputs, num_waveforms_per_prompt)
        checks.check_callbacks(callback_on_step_end, callback_on_token_end)
        timebase = self.timebase
        if semantic_tokens is not None:
            vocabulary = self.semantic_lm.config.semantic_codebook_size
            checks.check_tensor("semantic_tokens", semantic_tokens, (None, None), vocabulary)
        if audio_duration is None:
            audio_duration = 10.0 if semantic_tokens is None else semantic_tokens.shape[1] / timebase.token_rate
        checks.check_number("audio_duration", audio_duration, 0, checks.MAX_DURATION_SECONDS, exclusive_low=True)
        condition = self._check_condition(
            prompt, audio_prompt, audio_prompt_sampling_rate, mulan_tokens, semantic_tokens
        )
        batch_size = len(condition) * num_waveforms_per_prompt
        generators = checks.check_generators(generator, batch_size)
        num_samples = max(1, timebase.seconds_to_samples(audio_duration))
        num_frames = timebase.samples_to_frames(num_samples)
        if semantic_tokens is None:  # the models know windows of full length: render one, then cut
            num_frames = max(num_frames, self.dual_path.config.num_frames)
        elif timebase.frames_to_tokens(num_frames) > semantic_tokens.shape[1]:
            needed = timebase.frames_to_tokens(num_frames)
            allowed = f"cover `audio_duration`: {audio_duration:g} s need {needed} tokens"
            raise MeLoDyInputError("semantic_tokens", semantic_tokens, allowed, str(semantic_tokens.shape[1]))
        if latents is not None:
            checks.check_tensor("latents", latents, (batch_size, num_frames, self.vae.latent_dim))

        if semantic_tokens is None:
            if mulan_tokens is None:
                mulan_tokens = self.encode_prompt(**{"prompt" if prompt is not None else "audio_prompt": condition})
            mulan_tokens = mulan_tokens.to(self._execution_device)
            semantic_tokens = self.generate_semantic_tokens(
                mulan_tokens.repeat_interleave(num_waveforms_per_prompt, 0),
                timebase.frames_to_tokens(num_frames),
                temperature=sampling["temperature"],
                top_k=sampling["top_k"],
                top_p=sampling["top_p"],
                guidance_scale=sampling["lm_guidance_scale"],
                generator=generators,
                callback_on_token_end=callback_on_token_end,
            )
        else:
            semantic_tokens = semantic_tokens.to(self._execution_device)
            semantic_tokens = semantic_tokens.repeat_interleave(num_waveforms_per_prompt, 0)
        if latents is None:
            latents = self.prepare_latents(batch_size, num_frames, generators)
        latents = self.denoise_latents(
            latents.to(self._execution_device, self.dual_path.dtype),
            semantic_tokens,
            num_inference_steps=sampling["num_inference_steps"],
            guidance_scale=sampling["guidance_scale"],
            attention_kwargs=attention_kwargs,
            callback_on_step_end=callback_on_step_end,
        )
        return self._finish(latents, semantic_tokens, num_samples, output_type, return_dict)

    def encode_prompt(
        self, prompt: str | list[str] | None = None, audio_prompt: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """MuLan tokens (B, N) of texts, or of clips (1, T) at the pipeline's sample rate."""
        device = self._execution_device
        if audio_prompt is not None:
            clips = [self.mulan.get_audio_features(clip[None].to(device, self.mulan.dtype)) for clip in audio_prompt]
            embeddings = torch.cat(clips)
        else:
            limit = self.mulan.config.text_config.max_position_embeddings
            with _TOKENIZER_LOCK:
                encoded = self.tokenizer(
                    checks.check_prompt(prompt),
                    padding="max_length",  # one length for every batch, so that a batch equals its single samples
                    truncation=True,
                    max_length=min(self.tokenizer.model_max_length, limit),
                    return_tensors="pt",
                ).to(device)
            if encoded["attention_mask"][:, -1].any():
                logger.warning("A prompt is longer than the text model reads and was cut: put what matters first.")
            embeddings = self.mulan.get_text_features(encoded["input_ids"], encoded["attention_mask"])
        _require_finite(embeddings, "MuLan embedding")
        return self.mulan_quantizer.encode(embeddings.to(self.mulan_quantizer.dtype))

    def generate_semantic_tokens(
        self,
        mulan_tokens: torch.Tensor,
        num_tokens: int,
        *,
        known_tokens: torch.Tensor | None = None,
        known: torch.Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        guidance_scale: float = 1.0,
        generator: list[torch.Generator] | None = None,
        callback_on_token_end: Callable[..., None] | None = None,
    ) -> torch.Tensor:
        """The plan, (B, num_tokens), of any length: past the first window the oldest tokens are dropped and
        ceil(window / M) new ones follow (Algorithm 2).

        Args:
            mulan_tokens: (B, N).
            num_tokens: S, tokens of the whole timeline.
            known_tokens: (B, S), kept where `known`.
            known: bool, (S,); the language model continues whatever precedes an unknown run.
            temperature, top_k, top_p, generator, callback_on_token_end: as in `__call__`.
            guidance_scale: `lm_guidance_scale` there.
        """
        device = mulan_tokens.device
        window = self.timebase.frames_to_tokens(self.dual_path.config.num_frames)
        step = -(-window // self.dual_path.config.num_chunks)
        tokens = torch.zeros(len(mulan_tokens), num_tokens, dtype=torch.long, device=device)
        unknown = torch.ones(num_tokens, dtype=torch.bool)
        if known is not None and known_tokens is not None:
            tokens, unknown = known_tokens.to(device).clone(), ~known
        position, num_unknown, step_number = 0, int(unknown.sum()), itertools.count(1)
        with self.progress_bar(total=num_unknown) as bar:
            bar.set_description("semantic tokens")

            def on_token(*_) -> None:
                bar.update(1)
                if callback_on_token_end is not None:
                    callback_on_token_end(self, next(step_number), num_unknown)

            while unknown[position:].any():
                position += int(unknown[position:].int().argmax())
                count = max(step, window - position)
                run = unknown[position : position + count]
                count = len(run) if run.all() else int(run.int().argmin())
                prefix = tokens[:, max(0, position - (window - count)) : position]
                tokens[:, position : position + count] = self.semantic_lm.generate_semantic_tokens(
                    mulan_tokens,
                    count,
                    prefix_tokens=prefix if prefix.shape[1] else None,
                    temperature=temperature,
                    top_k=top_k,
                    top_p=top_p,
                    guidance_scale=guidance_scale,
                    generator=generator,
                    callback=on_token,
                )
                position += count
        return tokens

    def prepare_latents(
        self, batch_size: int, num_frames: int, generator: list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Gaussian noise (B, L, D), each sample from its own generator."""
        shape = (batch_size, num_frames, self.vae.latent_dim)
        return randn_tensor(shape, generator, self._execution_device, self.dual_path.dtype)

    def denoise_latents(
        self,
        latents: torch.Tensor,
        semantic_tokens: torch.Tensor,
        *,
        unknown: torch.Tensor | None = None,
        num_inference_steps: int = 10,
        guidance_scale: float = 2.5,
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict] | None = None,
    ) -> torch.Tensor:
        """Render the plan: noise (B, L, D) and semantic tokens (B, S) -> latents (B, L, D).

        Args:
            unknown: bool, (L,): frames to render; `latents` holds clean latents in the others. By default all.
            (The other arguments are those of `__call__`.)
        """
        scheduler = deepcopy(self.scheduler)  # calls may run side by side with different numbers of steps
        scheduler.set_timesteps(num_inference_steps, device=latents.device)
        if unknown is None:
            unknown = torch.ones(latents.shape[1], dtype=torch.bool)
        timebase = self.timebase
        window = min(self.dual_path.config.num_frames, latents.shape[1])
        chunk = window - timebase.chunk_boundaries(window, min(self.dual_path.config.num_chunks, window))[-2]
        _CALL.num_timesteps = len(plan_windows(unknown, window, chunk)) * num_inference_steps
        _CALL.guidance_scale = guidance_scale
        with self.progress_bar(total=_CALL.num_timesteps) as bar:
            bar.set_description("diffusion steps")
            step = itertools.count()

            def on_step(angle: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                bar.update(1)
                if callback_on_step_end is not None:
                    z = (callback_on_step_end(self, next(step), angle, {"latents": z}) or {}).get("latents", z)
                return z

            latents = denoise(
                self.dual_path,
                scheduler,
                latents,
                semantic_tokens,
                unknown,
                timebase,
                lambda: _CALL.guidance_scale,
                attention_kwargs,
                on_step,
            )
        _require_finite(latents, "diffusion")
        return latents

    def decode_latents(
        self, latents: torch.Tensor, num_samples: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, L, D) -> waveform (B, 1, T) float32 within full scale, and the limiter's gains (B,)."""
        bound = self.vae.config.latent_scale * self.vae.config.latent_clip  # the range the decoder was trained on
        with self.progress_bar(total=1) as bar:
            bar.set_description("decoding")
            waveform = self.vae.decode(latents.clamp(-bound, bound).to(self.vae.dtype)).sample.float()
            bar.update(1)
        waveform = waveform[..., :num_samples]
        _require_finite(waveform, "decoder")
        level = rms_db(waveform)
        if (level < SILENCE_DB).any():
            logger.warning(f"A generated waveform is silent ({level.min():.0f} dB); try another seed or prompt.")
        return limit_peak(waveform)

    def _finish(
        self,
        latents: torch.Tensor,
        semantic_tokens: torch.Tensor,
        num_samples: int,
        output_type: OutputType,
        return_dict: bool,
    ) -> MeLoDyPipelineOutput | tuple:
        gains = None
        audios: np.ndarray | torch.Tensor = latents
        if output_type != "latent":
            audios, gains = self.decode_latents(latents, num_samples)
            if output_type == "np":
                audios = audios.cpu().numpy()
        self.maybe_free_model_hooks()
        output = MeLoDyPipelineOutput(audios=audios, gains=gains, semantic_tokens=semantic_tokens)
        return output if return_dict else (audios, gains, semantic_tokens)

    def _sampling(self, *values: float | None) -> dict[str, Any]:
        """The call's sampling arguments, the checkpoint's where None, checked."""
        given = dict(zip(SAMPLING_DEFAULTS, values, strict=True))
        defaults = SAMPLING_DEFAULTS | (self.config.sampling or {})
        sampling = {name: defaults[name] if value is None else value for name, value in given.items()}
        checks.check_number("num_inference_steps", sampling["num_inference_steps"], 1, 1000, integer=True)
        checks.check_number("guidance_scale", sampling["guidance_scale"], 0, 30)
        checks.check_number("temperature", sampling["temperature"], 0, 10)
        checks.check_number("top_p", sampling["top_p"], 0, 1, exclusive_low=True)
        checks.check_number("lm_guidance_scale", sampling["lm_guidance_scale"], 0, 30)
        if sampling["lm_guidance_scale"] != 1 and not self.semantic_lm.config.null_condition:
            allowed = "be 1 for this checkpoint, whose language model was trained without `null_condition`"
            raise MeLoDyInputError("lm_guidance_scale", sampling["lm_guidance_scale"], allowed)
        if sampling["top_k"] is not None:
            checks.check_number("top_k", sampling["top_k"], 1, 1_000_000, integer=True)
        return sampling

    def _check_outputs(self, output_type: object, tensor_inputs: object, num_waveforms_per_prompt: object) -> None:
        checks.check_choice("output_type", output_type, ("np", "pt", "latent"))
        if not checks.is_list(tensor_inputs) or any(name not in self._callback_tensor_inputs for name in tensor_inputs):
            allowed = f"name none but {self._callback_tensor_inputs}"
            raise MeLoDyInputError("callback_on_step_end_tensor_inputs", tensor_inputs, allowed, repr(tensor_inputs))
        checks.check_number("num_waveforms_per_prompt", num_waveforms_per_prompt, 1, 64, integer=True)

    def _check_condition(
        self,
        prompt: object,
        audio_prompt: Any,
        audio_prompt_sampling_rate: int | None,
        mulan_tokens: torch.Tensor | None,
        semantic_tokens: torch.Tensor | None,
    ) -> list | torch.Tensor:
        """The one condition that was given, in checked form; its length is the number of prompts."""
        given = {"prompt": prompt, "audio_prompt": audio_prompt, "mulan_tokens": mulan_tokens}
        given["semantic_tokens"] = semantic_tokens
        names = [name for name, value in given.items() if value is not None]
        if len(names) != 1:
            others = ", ".join(f"`{name}`" for name in given if name != "prompt")
            allowed = f"be given, or else one of {others}, and only one"
            raise MeLoDyInputError("prompt", prompt, allowed, " and ".join(names) or "none of them")
        if prompt is not None:
            return checks.check_prompt(prompt)
        if audio_prompt is not None:
            clips = audio_prompt if checks.is_list(audio_prompt) else [audio_prompt]
            if not 0 < len(clips) <= checks.MAX_PROMPTS:
                allowed = f"hold 1 to {checks.MAX_PROMPTS} clips"
                raise MeLoDyInputError("audio_prompt", audio_prompt, allowed, str(len(clips)))
            limit = checks.MAX_AUDIO_PROMPT_SECONDS
            rate = audio_prompt_sampling_rate
            return [checks.check_audio("audio_prompt", clip, rate, self.sample_rate, limit) for clip in clips]
        if mulan_tokens is not None:
            config = self.semantic_lm.config
            shape = (None, config.num_mulan_codebooks)
            checks.check_tensor("mulan_tokens", mulan_tokens, shape, config.mulan_codebook_size)
            return mulan_tokens
        return semantic_tokens


def _require_finite(tensor: torch.Tensor, stage: str) -> None:
    if not torch.isfinite(tensor).all():
        raise FloatingPointError(
            f"The {stage} produced NaN or infinity. Check the weights; in float16, try bfloat16 or float32."
        )


def _check_sizes(vae, mulan, mulan_quantizer, semantic_tokenizer, semantic_lm, dual_path) -> None:
    """Raise ValueError, naming both sides, where two components cannot be connected."""
    lm, dp, rq = semantic_lm.config, dual_path.config, mulan_quantizer.config
    pairs = [
        ("dual_path.latent_dim", dp.latent_dim, "vae.latent_dim", vae.latent_dim),
        ("mulan_quantizer.dim", rq.dim, "mulan.projection_dim", mulan.config.projection_dim),
        ("semantic_lm.num_mulan_codebooks", lm.num_mulan_codebooks, "mulan_quantizer.num_codebooks", rq.num_codebooks),
        ("semantic_lm.mulan_codebook_size", lm.mulan_codebook_size, "mulan_quantizer.codebook_size", rq.codebook_size),
        (
            "semantic_lm.semantic_codebook_size",
            lm.semantic_codebook_size,
            "dual_path.semantic_codebook_size",
            dp.semantic_codebook_size,
        ),
    ]
    if semantic_tokenizer is not None:
        centroids = semantic_tokenizer.config.num_centroids
        pairs.append(
            (
                "semantic_lm.semantic_codebook_size",
                lm.semantic_codebook_size,
                "semantic_tokenizer.num_centroids",
                centroids,
            )
        )
    for left, a, right, b in pairs:
        if a != b:
            raise ValueError(f"Components do not fit together: {left} is {a} but {right} is {b}.")
