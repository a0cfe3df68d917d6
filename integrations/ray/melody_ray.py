"""The app of `melody serve` on Ray Serve: one front answers requests, replicas on many machines make the music.

`serve run melody_ray:build` starts it: README.md.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

import melody_diffusers
from melody_diffusers import MeLoDyPipeline
from melody_diffusers.devices import default_device, fast_dtypes
from melody_diffusers.serving.app import create_app
from melody_diffusers.serving.engine import Engine
from melody_diffusers.serving.queue import Job, Limits, Queue, Stopped
from melody_diffusers.serving.requests import ApiError

LIMITS = Limits()
MAX_REPLICAS_TRIED = 3  # by one request; one that ends its replica shall not end them all
GATHER_SECONDS = 0.02  # within which requests for whole pieces become one batch, besides those that wait

logger = logging.getLogger(__name__)


class Arguments(BaseModel):
    """What follows `serve run melody_ray:build`, as name=value.

    Args:
        model: folder of a pipeline, or its name on the Hub.
        replicas: that make music.
        num_cpus, num_gpus: of each replica, as Ray counts them.
        dtype: "auto" takes what is faster where a replica runs.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = str(melody_diffusers.MELODY_TINY)
    replicas: int = 2
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    dtype: Literal["float32", "auto"] = "float32"


@serve.deployment(
    max_ongoing_requests=LIMITS.max_batch + LIMITS.max_playing,
    graceful_shutdown_timeout_s=LIMITS.deadline_seconds,  # what a replica has begun, it ends before it goes
)
class Maker:
    """A replica: it makes the music, with the queue and the engine of `melody serve`."""

    def __init__(self, model: str, dtype: str) -> None:
        device = default_device()
        dtypes = {} if dtype == "float32" else {"dtype": fast_dtypes(device)}
        self.engine = Engine(MeLoDyPipeline.from_pretrained(model, **dtypes).to(device), LIMITS)
        self.queue = Queue(LIMITS)
        self.jobs: dict[str, Job] = {}
        self.engine.warm_up()

    async def work(
        self, name: str, kind: str, arguments: dict[str, Any], alike: Any, size: float
    ) -> AsyncIterator[Any]:
        """None once the job is taken; then its parts, each with how many seconds have been made of a stream."""
        yield None
        job = self.jobs[name] = Job(getattr(self.engine, kind), name, arguments, alike, size)
        try:
            await self.add(job)
            async for part in job.parts(LIMITS.deadline_seconds):
                yield part, arguments.get("made_seconds")
        finally:
            del self.jobs[name]
            self.queue.stop(job)

    @serve.batch(max_batch_size=LIMITS.max_batch, batch_wait_timeout_s=GATHER_SECONDS)
    async def add(self, jobs: list[Job]) -> list[None]:
        """Jobs that came together wait together: the queue renders those that are alike at once."""
        self.queue.add(*jobs)
        return [None] * len(jobs)

    async def report(self) -> dict[str, Any]:
        """The process; what it works at, by kind; and how many batches it made of how many requests."""
        kinds = sorted(job.run.__name__ for job in self.jobs.values())
        return {"pid": os.getpid(), "jobs": kinds, "batches": dict(self.queue.batches)}

    async def change(self, name: str, prompt: str, crossfade: float) -> None:
        """Another prompt for a live stream, where this replica is the one that plays it."""
        if name in self.jobs:
            self.queue.change(self.jobs[name], prompt, crossfade)


class Makers(Queue):
    """The queue of the front: replicas do its jobs.

    Args:
        handle: of `Maker`.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        super().__init__(LIMITS)
        self.handle = handle
        self._tasks: dict[Job, asyncio.Task] = {}
        self._taken: set[Job] = set()
        self._changes: set[asyncio.Future] = set()  # without a reference they might be collected

    @property
    def num_waiting(self) -> int:
        return len(self._tasks) - len(self._taken)

    @property
    def num_running(self) -> int:
        return len(self._taken)

    def add(self, *jobs: Job) -> None:
        for job in jobs:
            job.bind(lambda: None)
            job.arguments["name"] = secrets.token_hex(8)
            self._tasks[job] = asyncio.ensure_future(self._follow(job))

    def stop(self, job: Job) -> None:
        job.is_stopped = True
        self._taken.discard(job)
        task = self._tasks.pop(job, None)
        if task is not None:
            task.cancel()
            job.end(Stopped())

    def change(self, job: Job, prompt: str, crossfade: float) -> None:
        told = self.handle.broadcast("change", job.arguments["name"], prompt, crossfade)
        task = asyncio.ensure_future(told.results_async(return_exceptions=True))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    def close(self) -> None:
        for job in list(self._tasks):
            self.stop(job)

    async def _follow(self, job: Job) -> None:
        """Has a replica do a job, and another one if that dies before the first part was there.

        Ray sends a request anew only where a replica dies before it takes it. Made again from the same seed, music is
        the same, so nothing is lost by asking again. Of a stream that has begun the rest might not fit, since another
        kind of machine rounds otherwise: it breaks off.
        """
        for _ in range(MAX_REPLICAS_TRIED):
            is_begun = False
            try:
                async for part in self._parts(job):
                    is_begun = True
                    job.give(part)
                job.end()
                return
            except RayActorError as error:
                logger.warning("a replica died while it worked: %s", error)
                if is_begun:
                    break
            except Exception as error:
                job.end(getattr(error, "cause", None) or error)
                return
        what = (
            "in the middle of this stream" if is_begun else f"of this request, {MAX_REPLICAS_TRIED} one after another"
        )
        job.end(ApiError(500, "failed", None, f"What made the music died {what}. The server's log says why."))

    async def _parts(self, job: Job) -> AsyncIterator[bytes]:
        method = self.handle.options(method_name="work", stream=True)
        answer = method.remote(job.arguments["name"], job.run.__name__, job.arguments, job.alike, job.size)
        try:
            async for part in answer:
                if part is None:
                    self._taken.add(job)
                    continue
                if part[1] is not None:
                    job.arguments["made_seconds"] = part[1]
                yield part[0]
        finally:
            self._taken.discard(job)
            answer.cancel()


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Front:
    """The API and the page. It holds the pipeline to check requests with, on the CPU, and makes no music."""

    def __init__(self, model: str, token: str, handle: DeploymentHandle) -> None:
        self.pipe, self.token, self.queue = MeLoDyPipeline.from_pretrained(model), token, Makers(handle)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.pipe, self.token, LIMITS, self.queue)


def build(arguments: Arguments) -> Application:
    """The application that `serve run` and `serve deploy` start.

    Raises:
        ValueError: there is no token.
    """
    token = os.environ.get("MELODY_TOKEN")
    if not token:
        raise ValueError("A cluster is reached by others, so it needs a token: set MELODY_TOKEN to a secret.")
    resources = {"num_cpus": arguments.num_cpus, "num_gpus": arguments.num_gpus}
    makers = Maker.options(num_replicas=arguments.replicas, ray_actor_options=resources)
    return Front.bind(arguments.model, token, makers.bind(arguments.model, arguments.dtype))
