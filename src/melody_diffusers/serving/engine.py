"""The work itself: calls of the pipelines, and what they made as files. Its generators run in the queue's thread."""

import inspect
import io
import json
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..audio import crop_or_pad, patched_format, pcm16, resample, save_audio, save_patched, to_mono, wav_header
from ..pipelines.inpaint import MeLoDyInpaintPipeline
from ..pipelines.loops import LONGEST_SECONDS, SHORTEST_SECONDS
from ..pipelines.plan import check_plan, draw_plan, model_digest, plan_of, render_plan, rendered_by
from ..pipelines.progressive import play
from ..pipelines.recording import Recording, check_recording
from ..pipelines.request import GenerationRequest, InpaintRequest
from ..pipelines.stages import Stages
from ..pipelines.stream import MeLoDyStreamPipeline, StreamRequest, StreamState
from ..pipelines.text_to_music import MeLoDyPipeline
from ..pipelines.vary import MeLoDyVariationPipeline, VariationRequest
from ..plans import MusicPlan, PlanError
from ..sound_files import MAX_OPUS_COMMENT_BYTES, open_sound
from .queue import Job, Limits, Queue
from .requests import STREAMED, ApiError, Edit, GenerateRequest, PlanRequest, RenderRequest

Work = Generator[None, None, None]
LARGEST_RATE = 96_000  # samples a second of all channels together, of the longest recording
BATCH_SECONDS = 480.0  # of music that are rendered at once, at most


class Engine:
    """The pipelines of a server, which share their components.

    Args:
        pipe: on its device. limits: `lead_seconds` and `max_live_seconds` count here.
    """

    def __init__(self, pipe: MeLoDyPipeline, limits: Limits) -> None:
        self.pipe, self.limits = pipe, limits
        self.stream_pipe = MeLoDyStreamPipeline.from_pipe(pipe)
        self.inpaint_pipe = MeLoDyInpaintPipeline.from_pipe(pipe)
        self.vary_pipe = MeLoDyVariationPipeline.from_pipe(pipe)
        for each in (self.pipe, self.stream_pipe, self.inpaint_pipe, self.vary_pipe):
            each.set_progress_bar_config(disable=True)
        self.made_seconds = self.work_seconds = 0.0
        self._lately = 0.0, 0.0  # the same two, of which what is longer ago counts less

    @property
    def speed(self) -> float | None:
        """Seconds of music that were made in a second, lately; None before any were."""
        made, work = self._lately
        return made / work if work else None

    def warm_up(self) -> float:
        """Makes the first, slower pieces, one of them part by part, and measures the speed with the last one."""
        first = {"prompt": "music", "audio_duration": 10.0, "generator": torch.Generator().manual_seed(0)}
        for _ in play(self.pipe, GenerationRequest.check(self.pipe, **(_defaults(MeLoDyPipeline) | first))):
            pass
        for seconds in (1.0, 10.0):
            started = time.perf_counter()
            audios = self.pipe("music", audio_duration=seconds, output_type="pt").audios
        self._count(audios, started)
        return self.speed or 0.0

    def job(self, body: GenerateRequest, seed: int, client: str, model: str) -> Job:
        """The job that a request asks for.

        Raises:
            ApiError: it cannot be had.
            MeLoDyInputError: an argument is out of range.
        """
        if body.model not in (None, model):
            raise ApiError(422, "invalid_argument", "model", f"`model` must be {model!r} here, or null.")
        self._check_size("audio_length", body.audio_length, body.num_inference_steps)
        call = {
            "prompt": body.input,
            "num_inference_steps": body.num_inference_steps,
            "guidance_scale": body.guidance_scale,
            "negative_prompt": body.negative_prompt,
            "lm_guidance_scale": body.lm_guidance_scale,
        }
        arguments: dict[str, Any] = {"seed": seed, "format": body.response_format, "made_seconds": 0.0, "call": call}
        if body.stream and body.response_format not in STREAMED:
            message = "`response_format` must be wav or pcm for a stream."
            raise ApiError(422, "invalid_argument", "response_format", message)
        if body.stream and body.audio_length is None:
            if body.loop or body.bars is not None or body.bpm is not None:
                raise ApiError(422, "invalid_argument", "loop", "`loop` must be false for a stream.")
            StreamRequest.check(self.stream_pipe, **(_defaults(MeLoDyStreamPipeline) | call))
            return Job(self.live, client, arguments | {"next": None})
        call |= {"audio_duration": body.audio_length, "loop": body.loop, "bars": body.bars, "bpm": body.bpm}
        call |= {"beats_per_bar": body.beats_per_bar, "ending": body.ending}
        request = GenerationRequest.check(self.pipe, **(_defaults(MeLoDyPipeline) | call))
        seconds = request.num_samples / self.pipe.sample_rate
        self._check_size("audio_length" if body.bars is None else "bars", seconds, body.num_inference_steps)
        if body.stream:
            if body.loop:
                raise ApiError(422, "invalid_argument", "loop", "`loop` must be false for a stream.")
            return Job(self.played, client, arguments)
        alike = tuple(repr(value) for name, value in call.items() if name != "prompt")
        return Job(self.pieces, client, arguments, alike, seconds / BATCH_SECONDS)

    def _check_size(self, argument: str, seconds: float | None, steps: int | None) -> None:
        if seconds is not None and seconds > self.limits.max_seconds:
            message = f"Music here lasts at most {self.limits.max_seconds:g} s; got {seconds:g}."
            raise ApiError(422, "invalid_argument", argument, message)
        if steps is not None and steps > self.limits.max_steps:
            message = f"`num_inference_steps` must be at most {self.limits.max_steps} here; got {steps}."
            raise ApiError(422, "invalid_argument", "num_inference_steps", message)

    def pieces(self, jobs: list[Job]) -> Work:
        """Whole pieces, of arguments that differ in prompt and seed alone; gives each as a file."""
        started = time.perf_counter()
        arguments = {name: value for name, value in jobs[0].arguments["call"].items() if name != "prompt"}
        output = self.pipe(
            prompt=[job.arguments["call"]["prompt"] for job in jobs],
            generator=[torch.Generator().manual_seed(job.arguments["seed"]) for job in jobs],
            output_type="pt",
            **arguments,
            **_watched(jobs),
        )
        self._count(output.audios, started)
        for row, job in enumerate(jobs):
            plan = plan_of(self.pipe, output, row)
            comment = f"seed {job.arguments['seed']}: {job.arguments['call']['prompt']}"
            job.give(encoded(output.audios[row], self.pipe.sample_rate, job.arguments["format"], comment, plan))
        yield

    def played(self, jobs: list[Job]) -> Work:
        """A piece that is heard while it is made, the same that `pieces` makes of these arguments."""
        (job,) = jobs
        rate, generator = self.pipe.sample_rate, torch.Generator().manual_seed(job.arguments["seed"])
        arguments = _defaults(MeLoDyPipeline) | job.arguments["call"] | {"generator": generator} | _watched(jobs)
        request = GenerationRequest.check(self.pipe, **arguments)
        header = wav_header(rate, request.num_samples) if job.arguments["format"] == "wav" else b""
        parts, started = play(self.pipe, request), time.perf_counter()
        for sound in parts:
            self._count(sound, started)
            job.arguments["made_seconds"] += sound.shape[1] / rate
            job.give(header + pcm16(sound).tobytes())
            header = b""
            yield
            started = time.perf_counter()

    def live(self, jobs: list[Job]) -> Work:
        """A stream without an end, whose prompt may change: `job.arguments["next"]` is (prompt, crossfade) then."""
        (job,) = jobs
        rate, wanted = self.pipe.sample_rate, job.arguments
        generator = torch.Generator().manual_seed(wanted["seed"])
        chunks = self.stream_pipe(generator=generator, output_type="pt", **wanted["call"], **_watched(jobs))
        state: StreamState | None = None
        header = wav_header(rate) if wanted["format"] == "wav" else b""
        begun = None
        while state is None or state.num_samples < self.limits.max_live_seconds * rate:
            if wanted["next"] is not None and state is not None:
                prompt, crossfade = wanted["next"]
                wanted["next"] = None
                chunks = self.stream_pipe(
                    prompt, state=state, crossfade_seconds=crossfade, output_type="pt", **_watched(jobs)
                )
            started = time.perf_counter()
            chunk = next(chunks)
            self._count(chunk.audio, started)
            state = chunk.state
            wanted["made_seconds"] = state.num_samples / rate
            job.give(header + pcm16(chunk.audio.cpu()).tobytes())
            header = b""
            begun = begun or time.monotonic()
            job.not_before = begun + state.num_samples / rate - self.limits.lead_seconds
            yield

    def plan_job(self, body: PlanRequest, seed: int, client: str, model: str) -> Job:
        """The job that plans what `job` would render. Raises as that."""
        job = self.job(GenerateRequest(**body.model_dump()), seed, client, model)
        job.run, job.alike = self.planned, None
        return job

    def planned(self, jobs: list[Job]) -> Work:
        (job,) = jobs
        generator = torch.Generator().manual_seed(job.arguments["seed"])
        arguments = _defaults(MeLoDyPipeline) | job.arguments["call"] | {"generator": generator} | _watched(jobs)
        job.give(draw_plan(self.pipe, GenerationRequest.check(self.pipe, **arguments)))
        yield

    def render_job(self, body: RenderRequest, client: str) -> Job:
        """The job that renders a plan.

        Raises:
            PlanError: it is none, or of another model.
            ApiError: it is too long.
        """
        plan = MusicPlan.from_text(json.dumps(body.plan))
        self._check_size("plan", plan.seconds, body.num_inference_steps)
        check_plan(self.pipe, plan)
        names = ("num_inference_steps", "guidance_scale")
        changes = {name: value for name in names if (value := getattr(body, name)) is not None}
        plan = replace(plan, rendering={**plan.rendering, **changes})
        self._check_size("plan", None, plan.rendering.get("num_inference_steps"))
        if body.seed is not None:
            plan = replace(plan, seed=body.seed, drawn_tokens=0)
        return Job(self.rendered, client, {"format": body.response_format, "plan": plan})

    def rendered(self, jobs: list[Job]) -> Work:
        (job,) = jobs
        started, plan = time.perf_counter(), job.arguments["plan"]
        output = render_plan(self.pipe, plan, output_type="pt", **_watched(jobs))
        self._count(output.audios, started)
        plan = replace(plan, **rendered_by(self.pipe))
        comment = f"seed {plan.seed}: {plan.prompt or 'a plan without a prompt'}"
        job.give(encoded(output.audios[0], self.pipe.sample_rate, job.arguments["format"], comment, plan))
        yield

    def edit_job(self, body: Edit, audio: bytes, seed: int, client: str) -> Job:
        """The job that edits a recording.

        Raises:
            ApiError: what is asked does not go together, or is too much.
            MeLoDyInputError: an argument is out of range, or the recording cannot be read.
        """
        self._check_size("seconds", body.seconds, body.num_inference_steps)
        recording = check_recording(audio, None, self.pipe.sample_rate, self.limits.max_seconds)
        seconds, most = recording.num_samples / recording.rate, self.limits.max_seconds * LARGEST_RATE
        if recording.num_samples * recording.channels > most:
            message = f"A recording here has at most {most:.0f} samples in all of its channels. Shorten it."
            raise ApiError(422, "invalid_argument", "audio", message)
        start, end = 0.0 if body.start is None else body.start, seconds if body.end is None else body.end
        if body.edit == "inpaint" and (body.start is None or body.end is None):
            raise ApiError(422, "invalid_argument", "start", "`start` and `end` must name the region to make anew.")
        if body.edit == "vary" and (body.start, body.end) != (None, None):
            raise ApiError(422, "invalid_argument", "start", "`start` and `end` must be left out: all of it is varied.")
        if not 0 <= start < end <= seconds + 0.001:
            message = f"`start` and `end` must lie in this order within the recording, 0 to {seconds:g} s."
            raise ApiError(422, "invalid_argument", "start" if start >= seconds else "end", message)
        common = {
            "prompt": body.input,
            "num_inference_steps": body.num_inference_steps,
            "guidance_scale": body.guidance_scale,
        }
        arguments: dict[str, Any] = {"format": body.response_format, "seed": seed, "audio": audio}
        arguments["comment"] = f"seed {seed}: {body.edit}, {body.input or 'like the recording'}"
        if body.edit == "loop":
            return Job(self.looped, client, arguments | self._loop_of(recording, audio, start, end, common))
        if body.edit == "vary":
            plan = self._plan_within(audio)
            call = common | {"audio": audio, "strength": body.strength, "plan_strength": body.plan_strength}
            if plan is not None:
                call |= {"prompt": body.input or plan.prompt, "semantic_tokens": [list(plan.tokens)]}
            VariationRequest.check(self.vary_pipe, **(_defaults(MeLoDyVariationPipeline) | call))
            return Job(self.varied, client, arguments | {"call": call})
        call = common | {"audio": audio}
        if body.edit == "inpaint":
            call["regions"] = [(start, min(end, seconds))]
            self._check_size("end", end - start, None)
        else:
            call["extend_seconds"] = body.seconds
            if (body.start, body.end) != (None, None):
                first, last = round(start * recording.rate), min(round(end * recording.rate), recording.num_samples)
                call["audio"] = (recording.rate, recording.read([(first, last)])[0])
        InpaintRequest.check(self.inpaint_pipe, **(_defaults(MeLoDyInpaintPipeline) | call))
        _check_fits(recording, body.response_format)
        return Job(self.filled, client, arguments | {"call": call})

    def filled(self, jobs: list[Job]) -> Work:
        """A recording with a region made anew, or continued, at its own rate and with its own channels."""
        (job,) = jobs
        started, asked, call = time.perf_counter(), job.arguments, job.arguments["call"]
        is_file = call["audio"] is asked["audio"]
        output = self.inpaint_pipe(
            **call,
            generator=torch.Generator().manual_seed(asked["seed"]),
            output_type="patches" if is_file else "pt",
            **_watched(jobs),
        )
        if is_file:
            patches = [(start, waveform[0]) for start, waveform in output.audios]
            self._count(patches[0][1], started, output.sampling_rate)
            file = io.BytesIO()
            save_patched(file, asked["audio"], patches, format=asked["format"], comment=asked["comment"])
            job.give(file.getvalue())
        else:
            self._count(output.audios[0, :1], started, output.sampling_rate)
            job.give(encoded(output.audios[0], output.sampling_rate, asked["format"], asked["comment"]))
        yield

    def varied(self, jobs: list[Job]) -> Work:
        (job,) = jobs
        started, generator = time.perf_counter(), torch.Generator().manual_seed(job.arguments["seed"])
        output = self.vary_pipe(**job.arguments["call"], generator=generator, output_type="pt", **_watched(jobs))
        self._count(output.audios, started)
        asked = job.arguments
        job.give(encoded(output.audios[0], self.pipe.sample_rate, asked["format"], asked["comment"]))
        yield

    def looped(self, jobs: list[Job]) -> Work:
        """The plan of a region, rendered as a loop."""
        (job,) = jobs
        started, asked, call = time.perf_counter(), job.arguments, dict(job.arguments["call"])
        if "semantic_tokens" not in call:
            tokenizer = self.pipe.semantic_tokenizer
            sound = call["audio_prompt"][1][None].to(self.pipe.device, tokenizer.dtype)  # (1, 1, T)
            call["semantic_tokens"] = tokenizer.encode(sound)[:, : asked["num_tokens"]]
        if {"prompt", "mulan_tokens"} & set(call):
            call.pop("audio_prompt", None)
        generator = torch.Generator().manual_seed(asked["seed"])
        output = self.pipe(**call, loop=True, generator=generator, output_type="pt", **_watched(jobs))
        self._count(output.audios, started)
        plan = plan_of(self.pipe, output)
        job.give(encoded(output.audios[0], self.pipe.sample_rate, asked["format"], asked["comment"], plan))
        yield

    def _loop_of(
        self, recording: Recording, audio: bytes, start: float, end: float, common: dict[str, Any]
    ) -> dict[str, Any]:
        """Arguments of `looped`: the region's plan as the file holds it, or the sound to read it from."""
        timebase, rate = self.pipe.timebase, self.pipe.sample_rate
        alignment = timebase.token_alignment
        first = round(start * timebase.token_rate / alignment) * alignment
        count = round((end - start) * timebase.token_rate / alignment) * alignment
        seconds = count / timebase.token_rate
        if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
            message = f"A loop must last {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s; got {end - start:g}."
            raise ApiError(422, "invalid_argument", "end", message)
        call = {name: value for name, value in common.items() if value is not None} | {"audio_duration": seconds}
        plan = self._plan_within(audio)
        if plan is not None and first + count <= len(plan.tokens):
            call["semantic_tokens"] = [list(plan.tokens[first : first + count])]
            if "prompt" not in call and plan.mulan_tokens is not None:
                call["mulan_tokens"] = [list(plan.mulan_tokens)]
        else:
            if self.pipe.semantic_tokenizer is None:
                raise ApiError(
                    422, "invalid_argument", "audio", "This model reads no plan from a recording without one."
                )
            begin = round(start * recording.rate)
            stop = min(recording.num_samples, begin + round(seconds * recording.rate))
            (sound,) = recording.read([(begin, stop)])
            mono = resample(to_mono(sound), recording.rate, rate)
            call["audio_prompt"] = (rate, crop_or_pad(mono, round(seconds * rate)))
        return {"call": call, "num_tokens": count}

    def _plan_within(self, audio: bytes) -> MusicPlan | None:
        """The plan in a sound file, if it is of this model."""
        try:
            plan = MusicPlan.from_sound_file(audio)
            check_plan(self.pipe, plan)
        except PlanError:
            return None
        return plan if plan.digest == model_digest(self.pipe) else None

    def _count(self, audio: torch.Tensor, started: float, rate: int | None = None) -> None:
        work = time.perf_counter() - started
        made = audio.shape[-1] * (len(audio) if audio.ndim == 3 else 1) / (rate or self.pipe.sample_rate)
        self.made_seconds, self.work_seconds = self.made_seconds + made, self.work_seconds + work
        self._lately = 0.8 * self._lately[0] + made, 0.8 * self._lately[1] + work


class Counted:
    """What Prometheus reads of a server."""

    def __init__(self, queue: Queue, engine: Engine) -> None:
        self.queue, self.engine = queue, engine

    def collect(self) -> Iterator[Metric]:
        queue, engine = self.queue, self.engine
        yield GaugeMetricFamily("melody_waiting", "requests that wait", value=queue.num_waiting)
        yield GaugeMetricFamily("melody_running", "requests that are being worked on", value=queue.num_running)
        yield CounterMetricFamily("melody_music_seconds", "seconds of music that were made", value=engine.made_seconds)
        yield CounterMetricFamily("melody_work_seconds", "seconds that this took", value=engine.work_seconds)
        yield CounterMetricFamily("melody_refused", "requests that found the queue full", value=queue.refused)
        batches = CounterMetricFamily("melody_batches", "pieces of work, by requests in one", labels=["requests"])
        for size, count in sorted(queue.batches.items()):
            batches.add_metric([str(size)], count)
        yield batches


def _check_fits(recording: Recording, format: str) -> None:
    """An error unless a file of this kind holds what the recording is."""
    try:
        with open_sound(recording.source) as file:
            patched_format(file, f".{format}")
    except ValueError as error:
        raise ApiError(422, "invalid_argument", "response_format", str(error)) from None


def _defaults(pipeline: type[Stages]) -> dict[str, Any]:
    """Arguments of a pipeline's call that its request takes, by their names."""
    parameters = inspect.signature(pipeline.__call__).parameters
    return {name: each.default for name, each in parameters.items() if name != "self"}


def _watched(jobs: list[Job]) -> dict[str, Any]:
    """Callbacks that end a call before the next pass of a network, once nobody waits for any of the jobs."""

    def check() -> None:
        if all(job.is_stopped for job in jobs):
            jobs[0].check()

    def on_step(pipe: Stages, step: int, angle: torch.Tensor, tensors: dict) -> dict:
        check()
        return {}

    return {"callback_on_step_end": on_step, "callback_on_token_end": lambda *_: check()}


def encoded(
    waveform: torch.Tensor, rate: int, format: str, comment: str | None = None, plan: MusicPlan | None = None
) -> bytes:
    """Sound (C, T) as a file, whose comment ends with the plan, or as 16-bit samples alone for "pcm"."""
    if format == "pcm":
        return pcm16(waveform.cpu()).tobytes()
    comment = " ".join((comment or "").split())
    if plan is not None:
        text = plan.to_text()
        if format != "opus" or len(text) + len(comment.encode()) < MAX_OPUS_COMMENT_BYTES - 100:
            comment = f"{comment}\n{text}"
    file = io.BytesIO()
    save_audio(file, waveform, rate, format=format, comment=comment)
    return file.getvalue()
