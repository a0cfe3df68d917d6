"""The four stages of which every task is made, and the components they work with.

    encode_prompt             prompts          -> MuLan tokens      mulan, mulan_quantizer
    generate_semantic_tokens  MuLan tokens     -> semantic tokens   semantic_lm
    denoise_latents           semantic tokens  -> latents           dual_path, scheduler
    decode_latents            latents          -> waveform          vae

Each takes tensors from any device to the pipeline's own.

Shapes: B batch, N MuLan tokens, S semantic tokens, L latent frames, D latent channels, T samples.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedTokenizerBase

from ..audio import SILENCE_DB, fit_loop, limit_peak, rms_db
from ..hf.bases import Pipeline
from ..hf.registry import classes_for
from ..models.audio_vae import AudioVAEGAN
from ..models.dual_path import DualPathDiffusionModel
from ..models.mulan import MuLanModel
from ..models.residual_quantizer import ResidualQuantizer
from ..models.semantic_lm import Sampling, SemanticLM
from ..models.semantic_tokenizer import SemanticTokenizer
from ..schedulers.angle import AngleScheduler
from ..timebase import Timebase
from .checks import check_prompt
from .conditions import EVEN, Prompt, mix
from .denoise import Continuation, Pass, denoise, plan_passes, window_and_chunk
from .loops import circular_passes
from .request import SAMPLING_DEFAULTS, Request

logger = logging.get_logger(__name__)

FITTING = (  # sizes that have to be equal for one component to read what the other writes
    ("dual_path.latent_dim", "vae.latent_dim"),
    ("mulan_quantizer.dim", "mulan.projection_dim"),
    ("semantic_lm.num_mulan_codebooks", "mulan_quantizer.num_codebooks"),
    ("semantic_lm.mulan_codebook_size", "mulan_quantizer.codebook_size"),
    ("semantic_lm.semantic_codebook_size", "dual_path.semantic_codebook_size"),
    ("dual_path.num_mulan_codebooks", "mulan_quantizer.num_codebooks"),
    ("dual_path.mulan_codebook_size", "mulan_quantizer.codebook_size"),
    ("dual_path.mulan_dim", "mulan_quantizer.dim"),
    ("semantic_lm.semantic_codebook_size", "semantic_tokenizer.num_centroids"),
)


@dataclass
class MeLoDyPipelineOutput(BaseOutput):
    """What a MeLoDy pipeline returns.

    Attributes:
        audios: (B, 1, T) float32 in [-1, 1], NumPy or PyTorch; the latents (B, L, D) for `output_type="latent"`.
        gains: (B,) gain the limiter applied to each waveform, 1 where it did nothing; None for latents.
        semantic_tokens: (B, S) the plan that was rendered; give it back to render the same piece again.
        mulan_tokens: (B, N) what the prompt became, to be given back beside it; None where there was no prompt.

    `plan.plan_of` makes a plan to save of it, with what was asked, which is kept in `asked`.
    """

    audios: np.ndarray | torch.Tensor
    gains: torch.Tensor | None
    semantic_tokens: torch.Tensor
    mulan_tokens: torch.Tensor | None

    asked = cast(dict[str, Any] | None, None)  # no field, for outputs are unpacked into four


class Stages(Pipeline):
    """The components of a MeLoDy pipeline, and the four stages that every task is made of.

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
        sampling: this checkpoint's own defaults for the arguments named in `SAMPLING_DEFAULTS`. When loading, those
            given are laid over the stored ones: what is not named stays, None takes one back to ours, or, in place of
            the whole, all of them.
        stored_sampling: what `sampling` is laid over; the loaders fill it in.

    Raises:
        ValueError: components that do not fit together, or a scheduler that knows no angles.
    """

    # A model sends the one before it back to the CPU. `semantic_tokenizer` runs in inpainting alone and would, after
    # mulan, keep it on the device. accelerate cannot offload a model that has buffers only: mulan_quantizer stays.
    model_cpu_offload_seq = "semantic_tokenizer->mulan->semantic_lm->dual_path->vae"
    _exclude_from_cpu_offload = ["mulan_quantizer"]
    _optional_components = ["semantic_tokenizer"]
    _callback_tensor_inputs = ["latents"]
    _not_by_forward = ["vae", "mulan", "mulan_quantizer", "semantic_tokenizer"]
    _guidance_scale: float = 1.0
    _num_timesteps: int = 0
    _interrupt: bool = False

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
        stored_sampling: dict[str, Any] | None = None,
    ):
        super().__init__()
        name = type(scheduler).__name__
        if not isinstance(scheduler, AngleScheduler | None) and name not in classes_for("scheduler"):
            raise ValueError(
                f"`scheduler` must be an AngleScheduler; got {name}. The network predicts the velocity at per-frame "
                "angles, which the schedules of other schedulers do not describe. One of your own that knows angles "
                'joins by melody_diffusers.register(cls, slot="scheduler").'
            )
        sampling = {} if sampling is None else {**(stored_sampling or {}), **sampling}
        unknown_keys = set(sampling) - set(SAMPLING_DEFAULTS)
        if unknown_keys:
            raise ValueError(f"`sampling` allows {sorted(SAMPLING_DEFAULTS)}; got {sorted(unknown_keys)}.")
        sampling = {name: value for name, value in sampling.items() if value is not None}
        components = {
            "vae": vae,
            "mulan": mulan,
            "tokenizer": tokenizer,
            "mulan_quantizer": mulan_quantizer,
            "semantic_tokenizer": semantic_tokenizer,
            "semantic_lm": semantic_lm,
            "dual_path": dual_path,
            "scheduler": scheduler,
        }
        _check_sizes(components)
        self.register_modules(**components)
        self.register_to_config(token_rate=token_rate, sampling=sampling or None)

    @property
    def sample_rate(self) -> int:
        """Samples a second of the generated waveform."""
        return self.vae.sample_rate

    @property
    def timebase(self) -> Timebase:
        """Rates of samples, latent frames and semantic tokens."""
        return Timebase(self.vae.sample_rate, self.vae.hop_samples, self.config.token_rate)

    @property
    def guidance_scale(self) -> float:
        """Of the diffusion: within a callback that of its call, which may set `_guidance_scale`; else the last one."""
        return self._guidance_scale

    @property
    def interrupt(self) -> bool:
        """Whether the call under way is to end: set `_interrupt` on the pipeline, or on what a callback is given.

        The call then computes nothing more and returns what there is: music up to the window under way, however far
        that is; or none, and a plan as far as it was made. The next call starts afresh.
        """
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Reverse steps of all windows together: within a callback those of its call; else of the last one."""
        return self._num_timesteps

    def encode_prompt(
        self,
        prompt: Prompt | Sequence[Prompt] | None = None,
        audio_prompt: list[torch.Tensor] | None = None,
        audio_prompt_weight: float = EVEN,
    ) -> torch.Tensor:
        """MuLan tokens (B, N) of what `embed_prompt` takes."""
        return self.quantize_prompt(self.embed_prompt(prompt, audio_prompt, audio_prompt_weight))

    def encode_asked(self, request: Request) -> torch.Tensor | None:
        """MuLan tokens (B, N) of the request's prompts and clips; None without any."""
        if request.prompt is None and request.audio_prompt is None:
            return None
        return self.encode_prompt(request.prompt, request.audio_prompt, request.audio_prompt_weight)

    def encode_negative(self, request: Request) -> torch.Tensor | None:
        """MuLan tokens (B, N) of the request's negative prompts, one row a waveform; None without any."""
        if request.negative_prompt is None:
            return None
        return self.encode_prompt(request.negative_prompt).repeat_interleave(request.num_waveforms_per_prompt, 0)

    def quantize_prompt(self, embeddings: torch.Tensor) -> torch.Tensor:
        """MuLan embeddings (B, E) -> MuLan tokens (B, N)."""
        require_finite(embeddings, "MuLan embedding")
        return self.mulan_quantizer.encode(embeddings.to(self.mulan_quantizer.dtype))

    def embed_prompt(
        self,
        prompt: Prompt | Sequence[Prompt] | None = None,
        audio_prompt: list[torch.Tensor] | None = None,
        audio_prompt_weight: float = EVEN,
    ) -> torch.Tensor:
        """MuLan embeddings (B, E), of length 1, of texts that may be mixtures, of clips (1, T) at the pipeline's sample
        rate, or of each text with its clip, which counts `audio_prompt_weight`, 0 to 1."""
        parts, weights = [], [1 - audio_prompt_weight, audio_prompt_weight]
        if prompt is not None or audio_prompt is None:
            prompts = check_prompt(prompt)
            texts = [list(each) if isinstance(each, Mapping) else [each] for each in prompts]
            embeddings = self._embed_texts([text for several in texts for text in several])
            pieces = embeddings.split([len(several) for several in texts])
            mixed = [mix(p, list(of.values()) if isinstance(of, Mapping) else [1.0]) for p, of in zip(pieces, prompts)]
            parts.append(torch.stack(mixed))
        if audio_prompt is not None:
            clips = [clip[None].to(self._execution_device, self.mulan.dtype) for clip in audio_prompt]
            parts.append(torch.cat([self.mulan.get_audio_features(clip) for clip in clips]))
        return torch.stack([mix(torch.stack(each), weights) for each in zip(*parts)])

    def _embed_texts(self, prompts: list[str]) -> torch.Tensor:
        """MuLan embeddings (B, E) of texts; warns of words that do not count."""
        for text, lost in zip(prompts, self.mulan.lost_words(self.tokenizer, prompts)):
            if lost.unread:
                logger.warning(
                    f"The prompt {_short(text)} is too long for the text model, which does not read its "
                    f"end, {_short(lost.unread)}: put what matters first."
                )
            if lost.mostly_strange:
                logger.warning(
                    f"The text model does not know most words of the prompt {_short(text)}: "
                    f"{_listed(lost.strange)}. Describe the music by its style, instrument, mood or tempo, in "
                    "English, as in 'a slow solo piano piece'; else it may be any music."
                )
            elif lost.unknown:
                logger.warning(
                    f"Of the prompt {_short(text)} the text model knows no part of "
                    f"{_listed(lost.unknown)}, and the music will not follow that."
                )
        inputs = self.mulan.tokenize(self.tokenizer, prompts)
        tensors = {name: tokens.to(self._execution_device) for name, tokens in inputs.items()}
        return self.mulan.get_text_features(**tensors)

    def generate_semantic_tokens(
        self,
        mulan_tokens: torch.Tensor,
        num_tokens: int,
        *,
        known_tokens: torch.Tensor | None = None,
        known: torch.Tensor | None = None,
        sampling: Sampling = Sampling(),
        generator: list[torch.Generator] | None = None,
        callback_on_token_end: Callable[..., None] | None = None,
        negative_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The plan, (B, num_tokens), of any length: past the first window the oldest tokens are dropped and
        ceil(window / M) new ones follow (Algorithm 2). When it is interrupted, the plan as far as it is.

        Args:
            mulan_tokens: (B, N).
            num_tokens: S, tokens of the whole timeline.
            known_tokens: (B, S), kept where `known`.
            known: bool, (S,); the language model continues whatever precedes an unknown run.
            sampling: how the language model draws.
            generator, callback_on_token_end: as in `__call__`.
            negative_tokens: (B, N), MuLan tokens in place of the absent condition of the language model's guidance.
        """
        device = self._execution_device
        mulan_tokens = mulan_tokens.to(device)
        negative_tokens = None if negative_tokens is None else negative_tokens.to(device)
        window = self.timebase.frames_to_tokens(self.dual_path.config.num_frames)
        step = -(-window // self.dual_path.config.num_chunks)
        tokens = torch.zeros(len(mulan_tokens), num_tokens, dtype=torch.long, device=device)
        unknown = torch.ones(num_tokens, dtype=torch.bool)
        if known is not None and known_tokens is not None:
            tokens, unknown = known_tokens.to(device).clone(), ~known.cpu()
        position, num_unknown, step_number = 0, int(unknown.sum()), itertools.count(1)
        with self.progress_bar(total=num_unknown) as bar:
            bar.set_description("semantic tokens")

            def on_token(*_) -> bool:
                bar.update(1)
                if callback_on_token_end is not None:
                    callback_on_token_end(self, next(step_number), num_unknown)
                return self._interrupt

            while unknown[position:].any():
                position += int(unknown[position:].int().argmax())
                count = max(step, window - position)
                run = unknown[position : position + count]
                count = len(run) if run.all() else int(run.int().argmin())
                prefix = tokens[:, max(0, position - (window - count)) : position]
                made = self.semantic_lm.generate_semantic_tokens(
                    mulan_tokens,
                    count,
                    prefix_tokens=prefix if prefix.shape[1] else None,
                    sampling=sampling,
                    generator=generator,
                    callback=on_token,
                    negative_tokens=negative_tokens,
                )
                tokens[:, position : position + made.shape[1]] = made
                position += made.shape[1]
                if self._interrupt:
                    return tokens[:, :position]
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
        mulan_tokens: torch.Tensor | None = None,
        unknown: torch.Tensor | None = None,
        num_inference_steps: int = 10,
        guidance_scale: float = 2.5,
        prompt_guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        continuation: Continuation = "diagonal",
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict] | None = None,
        passes: list[Pass] | None = None,
        loop: bool = False,
    ) -> torch.Tensor:
        """Render the plan: noise (B, L, D) and semantic tokens (B, S) -> latents (B, L, D).

        Args:
            mulan_tokens: (B, N), for a diffusion model that hears the prompt as well; others leave them unheard.
            unknown: bool, (L,): frames to render; `latents` holds clean latents in the others. By default all.
            passes: of the network, in place of those that render all of the unknown frames.
            loop: the last frame is followed by the first, and the last token by the first; L is whole tokens.
            (The other arguments are those of `__call__`.)
        """
        device, call = self._execution_device, copy(self)  # what a callback sets on its pipeline stays in this call
        scheduler = deepcopy(self.scheduler)  # and calls side by side may take different numbers of steps
        scheduler.set_timesteps(num_inference_steps)
        unknown = torch.ones(latents.shape[1], dtype=torch.bool) if unknown is None else unknown.cpu()
        window, chunk = window_and_chunk(self.dual_path.config, len(unknown))
        if loop:
            full = self.dual_path.config.num_frames
            chunk = window_and_chunk(self.dual_path.config, full)[1]
            passes = circular_passes(len(unknown), full, chunk, scheduler, self.timebase.frame_alignment)
        elif passes is None:
            passes = plan_passes(unknown, window, chunk, scheduler, self.timebase.frame_alignment, continuation)
        call._guidance_scale, call._num_timesteps = guidance_scale, len(passes)
        step, hears_prompt = itertools.count(), getattr(self.dual_path.config, "num_mulan_codebooks", 0) > 0
        with self.progress_bar(total=call._num_timesteps) as bar:
            bar.set_description("diffusion steps")

            def on_step(angle: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                bar.update(1)
                if callback_on_step_end is not None:
                    z = (callback_on_step_end(call, next(step), angle, {"latents": z}) or {}).get("latents", z)
                return z

            latents = denoise(
                self.dual_path,
                scheduler,
                latents.to(device, self.dual_path.dtype),
                semantic_tokens.to(device),
                passes,
                self.timebase,
                lambda: call._guidance_scale,
                guidance_interval,
                attention_kwargs,
                on_step,
                lambda: self._interrupt or call._interrupt,
                mulan_tokens.to(device) if mulan_tokens is not None and hears_prompt else None,
                prompt_guidance_scale,
            )
        self._guidance_scale, self._num_timesteps = call._guidance_scale, call._num_timesteps
        require_finite(latents, "diffusion")
        return latents

    def decode_latents(
        self, latents: torch.Tensor, num_samples: int | None = None, loop: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, L, D) -> waveform (B, 1, T) float32 within full scale, and the limiter's gains (B,).

        Of more samples than `num_samples` the rest is left out; a loop is fitted to that length.
        """
        return limit_peak(self.decode_unlimited(latents, num_samples, loop))

    def decode_unlimited(
        self, latents: torch.Tensor, num_samples: int | None = None, loop: bool = False
    ) -> torch.Tensor:
        """`decode_latents` before its limiter: (B, 1, T) float32, which may exceed full scale."""
        with self.progress_bar(total=1) as bar:
            bar.set_description("decoding")
            decode = self.vae.decode_loop if loop else self.vae.decode
            waveform = decode(latents.to(self._execution_device, self.vae.dtype)).sample.float()
            bar.update(1)
        if loop and num_samples is not None:
            waveform = fit_loop(waveform, num_samples)
        waveform = waveform[..., :num_samples]
        require_finite(waveform, "decoder")
        level = rms_db(waveform)
        if (level < SILENCE_DB).any():
            logger.warning(f"A generated waveform is silent ({level.min():.0f} dB); try another seed or prompt.")
        return waveform

    def _nothing(self, request: Request) -> torch.Tensor:
        """Music of no length, (B, 1, 0), or its latents, (B, 0, D)."""
        shape = (0, self.vae.latent_dim) if request.output_type == "latent" else (1, 0)
        return torch.zeros(request.batch_size, *shape, device=self._execution_device)

    def _output(
        self,
        request: Request,
        audios: torch.Tensor,
        gains: torch.Tensor | None,
        semantic_tokens: torch.Tensor,
        mulan_tokens: torch.Tensor | None,
    ) -> MeLoDyPipelineOutput | tuple:
        """The answer in the form that was asked for; models that were offloaded go back."""
        self.maybe_free_model_hooks()
        made = audios.cpu().numpy() if request.output_type == "np" else audios
        output = MeLoDyPipelineOutput(
            audios=made, gains=gains, semantic_tokens=semantic_tokens, mulan_tokens=mulan_tokens
        )
        output.asked = request.record()
        return output if request.return_dict else (made, gains, semantic_tokens, mulan_tokens)


def _check_sizes(components: Mapping[str, Any]) -> None:
    """Raise ValueError, naming both sides, where two components cannot be connected."""

    def size(name: str) -> int | None:
        component, _, attribute = name.partition(".")
        part = components[component]  # None, as from_pretrained(..., vae=None) leaves it
        value = getattr(getattr(part, "config", None), attribute, None)
        return getattr(part, attribute, None) if value is None else value

    for left, right in FITTING:
        if size(left) and size(right) and size(left) != size(right):  # 0 where a model does without
            raise ValueError(f"Components do not fit together: {left} is {size(left)} but {right} is {size(right)}.")


def _short(text: str) -> str:
    """The text in quotes, in at most 80 characters, those of its middle left out."""
    return repr(text if len(text) <= 80 else f"{text[:50]} ... {text[-25:]}")


def _listed(words: list[str], most: int = 10) -> str:
    """The words in quotes; of many the first only."""
    return ", ".join(map(repr, words[:most])) + (f" and {len(words) - most} more" if len(words) > most else "")


def require_finite(tensor: torch.Tensor, stage: str) -> None:
    """A FloatingPointError that names the stage, where it made NaN or infinity."""
    if not torch.isfinite(torch.stack(tensor.aminmax())).all():  # which keep NaN, and need no copy of a long piece
        raise FloatingPointError(
            f"The {stage} produced NaN or infinity. Check the weights; in float16, try bfloat16 or float32."
        )
