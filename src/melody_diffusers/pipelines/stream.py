"""Music that never ends, chunk by chunk, on the diagonal of `denoise.py`.

A step of the stream moves the model's window on by a chunk: the language model continues the plan by as much, new
noise comes in at the end, `denoise` takes the passes that finish the oldest chunk on its way, and the decoder gives its
sound. Where the prompt begins to change, no chunk on its way is kept: plan and noise begin anew there, after what is
done if it goes over slowly, and with nothing before them if it changes at once. All that one step leaves to the next is
a `StreamState`, a value of constant size.

Shapes: L frames of the model's window, D channels, S semantic tokens of it, E width of MuLan's embeddings, T samples.
"""

import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..audio import AudioInput
from ..models.semantic_lm import Sampling
from .checks import (
    MeLoDyInputError,
    as_list,
    check_choice,
    check_generators,
    check_number,
    check_prompt,
    check_tensor,
    names_others_arguments,
)
from .conditions import Prompt, check_conditions, mix
from .denoise import Diagonal, Pass, window_and_chunk
from .request import check_sampling
from .stages import Stages, require_finite

Timeline = Sequence[tuple[float, Prompt]]
"""Seconds of music from which on a prompt holds, and the prompt; in the order of time."""

FORMAT = "melody-stream-1"
SETTINGS = (  # arguments of a call that a stream keeps
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "prompt_guidance_scale",
    "guidance_interval",
    "temperature",
    "top_k",
    "top_p",
    "lm_guidance_scale",
)
CEILING = 0.977
FALL_SECONDS = 0.02  # in which the limiter's gain falls to what a chunk needs
RECOVERY = 1.06  # by which it may rise from one chunk to the next, half a decibel
MAX_SECONDS = 1e9
ALIKE = 0.9  # cosine of two prompts from which on the plan for one continues that for the other


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class StreamState:
    """Everything a stream remembers between two chunks: a value of constant size, on the CPU, that nothing changes.

    Attributes:
        chunk: number of the chunk that comes next.
        num_samples: samples that have been given.
        seed: of all draws; those of a chunk follow from it and the chunk's number.
        gain: the limiter's, at the end of what has been given.
        times, embeddings: (K,) seconds and (K, E), the prompt's embedding at these times; in between it goes over from
            one to the next. Two for each change of the prompt, where it begins and ends, after those of the beginning.
        latents: (1, L, D), the window: known frames, chunks on their way, noise.
        semantic_tokens: (1, S), its plan.
        decoder: what `AudioVAEGAN.decode_next` needs of the frames before.
        settings: arguments of the call, by name.
    """

    chunk: int
    num_samples: int
    seed: int
    gain: float
    times: torch.Tensor
    embeddings: torch.Tensor
    latents: torch.Tensor
    semantic_tokens: torch.Tensor
    decoder: dict[str, torch.Tensor]
    settings: dict[str, Any]

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file, all or nothing."""
        tensors = {
            "counters": torch.tensor([self.chunk, self.num_samples, self.seed]),
            "gain": torch.tensor(self.gain, dtype=torch.float64),
            "times": self.times,
            "embeddings": self.embeddings,
            "latents": self.latents,
            "semantic_tokens": self.semantic_tokens,
            **{f"decoder.{name}": tensor for name, tensor in self.decoder.items()},
        }
        place = Path(path)
        aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
        try:
            save_file(tensors, aside, {"format": FORMAT, "settings": json.dumps(self.settings)})
            os.replace(aside, place)
        finally:
            aside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "StreamState":
        """What `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no stream.
        """
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise ValueError("its notes do not say so")
                settings = dict(json.loads(about["settings"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            chunk, num_samples, seed = tensors.pop("counters").tolist()
            gain = float(tensors.pop("gain"))
            parts = {name: tensors.pop(name) for name in ("times", "embeddings", "latents", "semantic_tokens")}
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} is no stream that `StreamState.save` wrote in this version: {error}."
            ) from error
        decoder = {name.removeprefix("decoder."): tensor for name, tensor in tensors.items()}
        return cls(
            chunk=chunk, num_samples=num_samples, seed=seed, gain=gain, decoder=decoder, settings=settings, **parts
        )

    def embedding_at(self, seconds: float, before: bool = False) -> torch.Tensor:
        """The prompt's embedding (E,) at this time, or just before it."""
        passed = int(torch.searchsorted(self.times, seconds, right=not before))
        if passed in (0, len(self.times)):
            return self.embeddings[min(passed, len(self.times) - 1)]
        begin, end = self.times[passed - 1 : passed + 1].tolist()
        share = (seconds - begin) / (end - begin)
        return mix(self.embeddings[passed - 1 : passed + 1], [1 - share, share])

    def led_to(self, embedding: torch.Tensor, seconds: float, crossfade_seconds: float) -> "StreamState":
        """The same, but that from this time on the prompt goes over to an embedding (E,); what was to come is off."""
        kept, now = int(torch.searchsorted(self.times, seconds)), self.embedding_at(seconds, before=True)
        points = [(seconds, now)] * (1 - kept % 2)  # the end of a change that is under way, or the beginning of all
        if not torch.allclose(now, embedding):
            points += [(seconds, now), (seconds + crossfade_seconds, embedding)]
        times = torch.tensor([time for time, _ in points], dtype=torch.float64)
        return replace(
            self,
            times=torch.cat([self.times[:kept], times]),
            embeddings=torch.cat([self.embeddings[:kept], *(each[None] for _, each in points)]),
        )

    def between(self, earliest: float, latest: float) -> "StreamState":
        """The same without the changes of the prompt that are over by `earliest` or begin after `latest`."""
        kept = slice(2 * int((self.times[2::2] <= earliest).sum()), 1 + 2 * int((self.times[1::2] <= latest).sum()))
        return replace(self, times=self.times[kept].clone(), embeddings=self.embeddings[kept].clone())


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamChunk:
    """A chunk of music.

    Attributes:
        audio: (1, T) float32 in [-1, 1], NumPy or PyTorch.
        start_seconds: where in the stream it begins.
        semantic_tokens: (1, S'), the part of the plan that was made for it, some chunks ahead of its sound; where the
            prompt begins to change it takes the place of as much that was planned before.
        state: from which the stream goes on after it.
    """

    audio: np.ndarray | torch.Tensor
    start_seconds: float
    semantic_tokens: torch.Tensor
    state: StreamState


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """What `MeLoDyStreamPipeline` is asked, checked; the arguments of its call, defaults filled in.

    Attributes:
        starts: seconds from which on each prompt holds.
        prompt, audio_prompt: one for each of these; None if nothing changes.
        settings: as a `StreamState` has them.
    """

    starts: list[float]
    prompt: list[Prompt] | None
    audio_prompt: list[torch.Tensor] | None
    audio_prompt_weight: float
    negative_prompt: list[Prompt] | None
    state: StreamState | None
    crossfade_seconds: float
    num_inference_steps: int
    guidance_scale: float
    prompt_guidance_scale: float
    guidance_interval: tuple[float, float]
    sampling: Sampling
    settings: dict[str, Any]
    generator: torch.Generator | None
    output_type: str
    callback_on_step_end: Callable[..., dict] | None
    callback_on_token_end: Callable[..., None] | None
    attention_kwargs: dict[str, Any] | None

    @classmethod
    def check(
        cls,
        pipe: "MeLoDyStreamPipeline",
        *,
        prompt: Any,
        audio_prompt: Any,
        audio_prompt_sampling_rate: Any,
        audio_prompt_weight: Any,
        state: Any,
        crossfade_seconds: Any,
        generator: Any,
        output_type: Any,
        callback_on_step_end: Any,
        callback_on_token_end: Any,
        attention_kwargs: Any,
        **settings: Any,
    ) -> "StreamRequest":
        """The request that the arguments of `MeLoDyStreamPipeline.__call__` make, or the error that names one."""
        if state is not None:
            _check_state(pipe, state, settings["num_inference_steps"], generator)
            settings = {name: state.settings.get(name) if value is None else value for name, value in settings.items()}
        elif prompt is None and audio_prompt is None:
            allowed = "be given, or `audio_prompt`, or the `state` of a stream that goes on"
            raise MeLoDyInputError("prompt", prompt, allowed, "none of them")
        timeline = [] if prompt is None else _check_timeline(prompt)
        prompts = check_conditions(
            pipe,
            prompt=[text for _, text in timeline] or None,
            audio_prompt=audio_prompt,
            audio_prompt_sampling_rate=audio_prompt_sampling_rate,
            audio_prompt_weight=audio_prompt_weight,
        )
        if len(prompts["audio_prompt"] or []) > max(1, len(timeline)):
            raise MeLoDyInputError("audio_prompt", audio_prompt, "be one clip", str(len(prompts["audio_prompt"])))
        chosen = check_sampling(pipe, 1, continuation=None, **settings)
        del chosen["continuation"]
        sampling = chosen["sampling"]
        negative = settings["negative_prompt"]
        settings = {
            "negative_prompt": dict(negative) if isinstance(negative, Mapping) else negative,
            "num_inference_steps": chosen["num_inference_steps"],
            "guidance_scale": chosen["guidance_scale"],
            "prompt_guidance_scale": chosen["prompt_guidance_scale"],
            "guidance_interval": list(chosen["guidance_interval"]),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k or 0,
            "top_p": sampling.top_p,
            "lm_guidance_scale": sampling.guidance_scale,
        }
        check_choice("output_type", output_type, ("np", "pt"))
        generators = check_generators(generator, 1)
        callbacks = {"callback_on_step_end": callback_on_step_end, "callback_on_token_end": callback_on_token_end}
        for name, callback in callbacks.items():
            if callback is not None and not callable(callback):
                raise MeLoDyInputError(name, callback, "be a function or None")
        return cls(
            starts=[seconds for seconds, _ in timeline] or [0.0],
            state=state,
            crossfade_seconds=check_number("crossfade_seconds", crossfade_seconds, 0, 3600),
            settings=settings,
            generator=None if generators is None else generators[0],
            output_type=output_type,
            attention_kwargs=attention_kwargs,
            **prompts,
            **chosen,
            **callbacks,
        )


class MeLoDyStreamPipeline(Stages):
    """Plays on and on; the prompt may change at any chunk. `Stages` lists the components; `from_pipe` shares them."""

    @names_others_arguments
    def __call__(
        self,
        prompt: Prompt | Timeline | None = None,
        audio_prompt: AudioInput | None = None,
        audio_prompt_sampling_rate: int | None = None,
        audio_prompt_weight: float | None = None,
        negative_prompt: Prompt | None = None,
        state: StreamState | None = None,
        crossfade_seconds: float = 0.0,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        prompt_guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        lm_guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "np",
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_token_end: Callable[..., None] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Iterator[StreamChunk]:
        """An iterator of `StreamChunk`s of about a quarter of the model's window each, 2.5 s; it has no end.

        The first is shorter, by what the decoder has to see ahead. Nothing is computed before a chunk is asked for.

        Args:
            prompt: what to play: a text, texts that mix, or a timeline, `[(0, "a waltz"), (30, "techno")]`, in seconds
                of the music.
            state: of an earlier chunk: the stream goes on after it. A prompt that comes with it takes over from the
                next chunk on, and replaces what a timeline still had. One of a timeline takes over from the chunk that
                begins nearest to its time.
            crossfade_seconds: in which one prompt goes over into the next: the condition is mixed, not the sound. With
                0 the models see nothing of what was played, which would hold them back; the decoder joins both.
            generator: where the stream's seed comes from; not with a `state`, which has one.
            output_type: "np" or "pt".
            callback_on_step_end: as in `MeLoDyPipeline`. `pipe._interrupt = True` on what it is given, or on this
                pipeline, ends the stream before the next pass of a network. The chunk under way is lost, and the last
                state makes it again.
            (The other arguments are those of `MeLoDyPipeline.__call__`. With a state, those left out are as they were;
            `num_inference_steps` cannot change.)

        Raises:
            MeLoDyInputError: an argument out of range; a ValueError that names it, what came and what is allowed.
            FloatingPointError: a model produced NaN or infinity; names the stage.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        if not hasattr(self.vae, "decode_next"):
            raise ValueError(
                f"A stream needs a `vae` that decodes part by part, by `decode_next`; got {type(self.vae)}."
            )
        request = StreamRequest.check(self, **arguments)
        self._interrupt = False
        return self._chunks(request)

    def _chunks(self, request: StreamRequest) -> Iterator[StreamChunk]:
        with torch.no_grad():
            state = self._first_state(request)
            negative = None if request.negative_prompt is None else self.encode_prompt(request.negative_prompt)
        call = copy(self)  # of this stream alone: how far it is interrupted, and no bars
        call.set_progress_bar_config(disable=True)
        try:
            while True:
                with torch.no_grad():
                    chunk = self._next_chunk(call, request, state, negative)
                if chunk is None:
                    return
                yield chunk
                state = chunk.state
        finally:
            self.maybe_free_model_hooks()

    def _diagonal(self, num_inference_steps: int) -> Diagonal:
        config = self.dual_path.config
        window, chunk = window_and_chunk(config, config.num_frames)
        return Diagonal.plan(window, chunk, num_inference_steps, self.timebase.frame_alignment)

    def _window_start(self, state: StreamState, diagonal: Diagonal, chunk: int) -> int:
        """First frame of the window in which this chunk is finished: none from before the last change at once."""
        begins, ends = state.times[1::2], state.times[2::2]
        cuts = begins[(begins == ends) & (begins <= self._seconds_before(diagonal, chunk))]
        first = round(float(cuts[-1]) / self._seconds_before(diagonal, 1)) * diagonal.chunk if len(cuts) else 0
        alignment = self.timebase.frame_alignment
        return max(first, diagonal.start(chunk)) // alignment * alignment

    def _seconds_before(self, diagonal: Diagonal, chunk: int) -> float:
        """Of music, before this chunk begins."""
        return self.timebase.frames_to_seconds(chunk * diagonal.chunk)

    def _tokens_to_continue(self, state: StreamState, position: int, count: int, step: int) -> int:
        """Tokens of the plan before this position that the next `count` continue.

        A language model that reads what was planned for another prompt goes on with that, whatever it is asked for. So
        it reads as far back as the prompt was nearly the same, which is looked at every `step` tokens.
        """
        rate = self.timebase.token_rate
        now = state.embedding_at((position + count / 2) / rate)
        for alike in range(0, min(position, state.semantic_tokens.shape[1]), step):
            then = state.embedding_at((position - alike - step / 2) / rate)
            if torch.cosine_similarity(then, now, dim=0) < ALIKE:
                return alike
        return position

    def _first_state(self, request: StreamRequest) -> StreamState:
        """That of the request, or of a new stream, led along the request's prompts."""
        embeddings: Any = None  # (K, E), of the prompts that are given
        if request.prompt is not None or request.audio_prompt is not None:
            embeddings = self.embed_prompt(request.prompt, request.audio_prompt, request.audio_prompt_weight)
            require_finite(embeddings, "MuLan embedding")
            embeddings = embeddings.float().cpu()
        diagonal, state, starts = self._diagonal(request.num_inference_steps), request.state, request.starts
        if state is None:
            generator = request.generator
            device = "cpu" if generator is None else generator.device
            state = StreamState(
                chunk=0,
                num_samples=0,
                seed=int(torch.randint(2**62, (), generator=generator, device=device)),
                gain=1.0,
                times=torch.zeros(1, dtype=torch.float64),
                embeddings=embeddings[:1],
                latents=torch.zeros(1, diagonal.window, self.vae.latent_dim, dtype=self.dual_path.dtype),
                semantic_tokens=torch.zeros(1, self.timebase.frames_to_tokens(diagonal.window), dtype=torch.long),
                decoder={},
                settings=request.settings,
            )
            embeddings, starts = embeddings[1:], starts[1:]
        else:
            state = replace(state, settings=request.settings)
        for seconds, embedding in zip(starts, () if embeddings is None else embeddings):
            chunk = max(state.chunk, round(seconds / self._seconds_before(diagonal, 1)))
            state = state.led_to(embedding, self._seconds_before(diagonal, chunk), request.crossfade_seconds)
        return state

    def _next_chunk(
        self, call: "MeLoDyStreamPipeline", request: StreamRequest, state: StreamState, negative: torch.Tensor | None
    ) -> StreamChunk | None:
        """The chunk that follows a state; None where it was interrupted."""

        def on_token(pipe: Stages, step: int, num_tokens: int) -> None:
            if request.callback_on_token_end is not None:
                request.callback_on_token_end(pipe, step, num_tokens)
            call._interrupt |= self._interrupt

        def on_step(pipe: Stages, step: int, angle: torch.Tensor, tensors: dict) -> dict:
            changed = None
            if request.callback_on_step_end is not None:
                changed = request.callback_on_step_end(pipe, step, angle, tensors)
            call._interrupt |= self._interrupt or pipe._interrupt
            return changed or {}

        call._interrupt |= self._interrupt
        if call._interrupt:
            return None
        timebase, diagonal = self.timebase, self._diagonal(request.num_inference_steps)
        generator = [torch.Generator().manual_seed((state.seed + state.chunk) % 2**63)]
        start, before = (self._window_start(state, diagonal, max(0, state.chunk - back)) for back in (0, 1))
        now, past = self._seconds_before(diagonal, state.chunk), timebase.frames_to_seconds(diagonal.window)
        state = state.between(now - past, math.inf)
        led = state.between(0, now)  # which knows of no change to come, as nobody does who gives prompts as he listens
        is_new = state.chunk == 0 or now in state.times[1::2].tolist()  # nothing of the chunks on their way is kept
        planned = state.chunk * diagonal.chunk if is_new else before + diagonal.window

        num_tokens, first = state.semantic_tokens.shape[1], timebase.frame_to_token(planned)
        stop = timebase.frame_to_token(start) + num_tokens
        tokens = state.semantic_tokens[:, : first - timebase.frame_to_token(before)]
        at_once = timebase.frames_to_tokens(diagonal.chunk)
        parts: list[tuple[int, torch.Tensor]] = []  # tokens to plan, and the prompt they follow, as MuLan tokens
        for position in range(first, stop, at_once):
            count = min(at_once, stop - position)
            prompt = self.quantize_prompt(led.embedding_at((position + count / 2) / timebase.token_rate)[None])
            if parts and torch.equal(prompt, parts[-1][1]):  # one call for both, so that no prefix is read twice
                count += parts.pop()[0]
            parts.append((count, prompt))
        position = first
        for count, prompt in parts:
            known = self._tokens_to_continue(led, position, count, at_once)
            known = min(known, num_tokens - count, tokens.shape[1])
            made = call.generate_semantic_tokens(
                prompt,
                known + count,
                known_tokens=F.pad(tokens[:, tokens.shape[1] - known :], (0, count)),
                known=torch.arange(known + count) < known,
                sampling=request.sampling,
                generator=generator,
                callback_on_token_end=on_token,
                negative_tokens=negative,
            )
            if call._interrupt:
                return None
            tokens = torch.cat([tokens, made[:, known:].cpu()], dim=1)[:, -num_tokens:]
            position += count

        num_known = planned - start
        noise = call.prepare_latents(1, diagonal.window - num_known, generator)
        calls = range(
            diagonal.calls * state.chunk if is_new else diagonal.calls_until(state.chunk),
            diagonal.calls_until(state.chunk + 1),
        )
        angles = [diagonal.angles(n, start, diagonal.window).float() for n in (*calls, calls.stop)]
        if is_new:
            for each in angles:
                each[:num_known] = 0
        middle = start + diagonal.window - diagonal.abreast * diagonal.chunk // 2  # of the chunks on their way
        latents = call.denoise_latents(
            torch.cat([state.latents[:, start - before :][:, :num_known].to(noise), noise], dim=1),
            tokens,
            mulan_tokens=self.quantize_prompt(led.embedding_at(timebase.frames_to_seconds(middle))[None]),
            passes=[Pass(0, *pair) for pair in zip(angles, angles[1:])],
            guidance_scale=request.guidance_scale,
            prompt_guidance_scale=request.prompt_guidance_scale,
            guidance_interval=request.guidance_interval,
            attention_kwargs=request.attention_kwargs,
            callback_on_step_end=on_step,
        )
        if call._interrupt:
            return None

        begin = state.chunk * diagonal.chunk - start
        done = latents[:, begin : begin + diagonal.chunk].to(self.vae.dtype)
        memory = {name: tensor.to(done.device) for name, tensor in state.decoder.items()}
        sound, memory = self.vae.decode_next(done, memory)
        require_finite(sound, "decoder")
        sound, gain = limit_chunk(sound[0].float(), state.gain, timebase.seconds_to_samples(FALL_SECONDS))
        following = replace(
            state,
            chunk=state.chunk + 1,
            num_samples=state.num_samples + sound.shape[1],
            gain=gain,
            latents=latents.cpu().clone(),
            semantic_tokens=tokens.clone(),
            decoder={name: tensor.cpu().clone() for name, tensor in memory.items()},
        )
        return StreamChunk(
            audio=sound.cpu().numpy() if request.output_type == "np" else sound,
            start_seconds=state.num_samples / self.sample_rate,
            semantic_tokens=tokens[:, num_tokens - (stop - first) :].clone(),
            state=following,
        )


def limit_chunk(sound: torch.Tensor, gain: float, num_falling: int) -> tuple[torch.Tensor, float]:
    """A chunk (1, T) within full scale, and the gain it ends with, after one that ended with `gain`.

    The gain falls over `num_falling` samples to what the chunk's peak needs, and comes back over the next chunks.
    """
    peak = float(sound.abs().amax()) if sound.numel() else 0.0
    wanted = min(1.0, gain * RECOVERY, CEILING / max(peak, CEILING))
    num_changing = min(sound.shape[1], num_falling) if wanted < gain else sound.shape[1]
    gains = sound.new_full((sound.shape[1],), wanted)
    gains[:num_changing] = torch.linspace(gain, wanted, num_changing, device=sound.device)
    return (sound * gains).clamp(-CEILING, CEILING), wanted


def _check_timeline(prompt: Any) -> list[tuple[float, Prompt]]:
    """A prompt that holds from the beginning, or prompts with the seconds from which on each holds."""
    if isinstance(prompt, (str, Mapping)):
        return [(0.0, check_prompt(prompt)[0])]
    pairs = as_list(prompt)
    if not pairs:
        allowed = "be a text, texts with weights, or a timeline, [(seconds, prompt), ...]"
        raise MeLoDyInputError("prompt", prompt, allowed, None if pairs is None else "an empty list")
    timeline, earliest = [], 0.0
    for i, pair in enumerate(pairs):
        place, item = f"prompt[{i}]", as_list(pair)
        if item is None or len(item) != 2 or not isinstance(item[1], (str, Mapping)):
            advice = " A stream plays one piece; for several, make several."
            raise MeLoDyInputError(place, pair, "be (seconds, prompt), as in a timeline", repr(pair)[:80], advice)
        earliest = check_number(f"{place}[0]", item[0], earliest, MAX_SECONDS)
        timeline.append((earliest, check_prompt(item[1], f"{place}[1]")[0]))
    return timeline


def _check_state(pipe: MeLoDyStreamPipeline, state: Any, num_inference_steps: Any, generator: Any) -> None:
    """An error unless a stream of this pipeline can go on from there, with these arguments beside it."""
    if not isinstance(state, StreamState):
        raise MeLoDyInputError("state", state, "be a StreamState: of a chunk, or by StreamState.load(path)")
    if set(state.settings) != set(SETTINGS):
        raise MeLoDyInputError("state", state, f"have the settings {', '.join(SETTINGS)}", str(sorted(state.settings)))
    frames = pipe.dual_path.config.num_frames
    check_tensor("state.latents", state.latents, (1, frames, pipe.vae.latent_dim))
    shape = (1, pipe.timebase.frames_to_tokens(frames))
    check_tensor("state.semantic_tokens", state.semantic_tokens, shape, pipe.semantic_lm.config.semantic_codebook_size)
    check_tensor("state.embeddings", state.embeddings, (len(state.times), pipe.mulan_quantizer.config.dim))
    steps = state.settings["num_inference_steps"]
    if num_inference_steps not in (None, steps):
        allowed = f"be left out, or {steps}, since chunks of the stream are on their way"
        raise MeLoDyInputError("num_inference_steps", num_inference_steps, allowed)
    if generator is not None:
        raise MeLoDyInputError("generator", generator, "be left out with a `state`, which has a seed of its own")
