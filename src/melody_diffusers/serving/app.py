"""The endpoints of `melody serve`."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakValueDictionary

from fastapi import APIRouter, Depends, FastAPI, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.exceptions import HTTPException
from starlette.routing import Match

from .. import __version__
from ..pipelines.checks import MeLoDyInputError, check_prompt
from ..pipelines.text_to_music import MeLoDyPipeline
from ..plans import MusicPlan, PlanError
from .engine import Counted, Engine
from .guard import Guard
from .queue import Job, Limits, Overdue, Queue, Stopped
from .requests import (
    MEDIA_TYPES,
    ApiError,
    Edit,
    Error,
    GenerateRequest,
    Health,
    Knowledge,
    Model,
    Models,
    PlanRequest,
    Rendering,
    RenderRequest,
    SpeechRequest,
    StreamChange,
    StreamInfo,
    told,
    told_fields,
)

logger = logging.getLogger(__name__)
HERE = Path(__file__).parent
PAGE = HERE / "page"
PAGE_TYPES = {".js": "text/javascript"}  # whatever the system thinks of it
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": what}
    for status, what in {
        400: "the body cannot be read",
        401: "no token, or a wrong one",
        403: "a foreign page asks",
        408: "the body came too slowly",
        413: "the body is too long",
        422: "an argument is not as it must be",
        429: "the queue is full",
        500: "the music could not be made",
        503: "the deadline has passed",
    }.items()
}
SOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "sound",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in {*MEDIA_TYPES.values()}},
        "headers": {"X-Seed": {"description": "that makes it again", "schema": {"type": "string"}}},
    }
}

COUNTERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "counters", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
NO_STREAM: dict[int | str, dict[str, Any]] = {404: {"model": Error, "description": "there is no such stream"}}
NOT_LIVE: dict[int | str, dict[str, Any]] = {409: {"model": Error, "description": "the stream is not a live one"}}


def create_app(
    pipe: MeLoDyPipeline, token: str | None = None, limits: Limits | None = None, queue: Queue | None = None
) -> FastAPI:
    """The app: the API under /v1, /health, /metrics, and the page at /.

    Args:
        pipe: on its device; its other pipelines share its components.
        token: that requests under /v1 and for /metrics must bear. None: the app answers this machine alone, and no
            page of another site.
        limits: what is accepted.
        queue: who does the work; by default a thread of this process.
    """
    limits = limits or Limits()
    queue, engine = queue or Queue(limits), Engine(pipe, limits)
    streams: WeakValueDictionary[str, Job] = WeakValueDictionary()  # also without those that nobody has begun to read
    name = pipe._base_name()
    known = Knowledge(**json.loads((HERE / "knows.json").read_text()).get(name, {}))
    registry = CollectorRegistry()
    registry.register(Counted(queue, engine))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    app = FastAPI(
        title="melody serve",
        version=__version__,
        docs_url=None,  # which would be fetched from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    api = APIRouter(dependencies=[] if token is None else [Depends(HTTPBearer(auto_error=False))], responses=REFUSALS)
    app.state.queue, app.state.engine = queue, engine
    app.add_middleware(Guard, queue=queue, limits=limits, token=token)

    @app.exception_handler(ApiError)
    async def on_api_error(request: Request, error: ApiError) -> Response:
        content = {"code": error.code, "argument": error.argument, "message": error.message}
        return JSONResponse(content, error.status)

    @app.exception_handler(RequestValidationError)
    async def on_fields(request: Request, error: RequestValidationError) -> Response:
        return await on_api_error(request, told_fields(list(error.errors())))

    @app.exception_handler(MeLoDyInputError)
    @app.exception_handler(PlanError)
    async def on_input_error(request: Request, error: Exception) -> Response:
        return await on_api_error(request, told(error))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "invalid_request")
        message, headers = str(error.detail), dict(error.headers or {})
        if code == "not_found":
            message = "There is nothing here. GET /openapi.json lists what there is."
        if code == "not_allowed":
            headers["allow"] = ", ".join(sorted(_methods(app, request)))
            message = f"{request.method} is not for this address, which takes {headers['allow']}."
        response = await on_api_error(request, ApiError(error.status_code, code, None, message))
        response.headers.update(headers)
        return response

    @app.exception_handler(Exception)
    async def on_fault(request: Request, error: Exception) -> Response:
        return await on_api_error(request, told(error))

    async def answered(job: Job, request: Request) -> AsyncGenerator[Any, None]:
        """The parts of a job, which is stopped when this ends early or the client leaves before the first."""
        queue.add(job)
        parts = job.parts(limits.deadline_seconds)
        try:
            first = asyncio.ensure_future(anext(parts))
            gone = asyncio.ensure_future(_disconnected(request))
            await asyncio.wait({first, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
            if not first.done():
                first.cancel()
                raise Stopped
            yield first.result()
            async for part in parts:
                yield part
        except Overdue:
            message = f"The music was not there within {limits.deadline_seconds:g} s. Ask for less, or try again later."
            raise ApiError(503, "overdue", None, message) from None
        except Stopped:
            raise ApiError(499, "stopped", None, "The request was stopped.") from None
        except ApiError:
            raise
        except Exception as error:
            if not isinstance(error, (MeLoDyInputError, PlanError)):
                logger.exception("a job failed")
            raise told(error) from None
        finally:
            queue.stop(job)

    async def only(job: Job, request: Request) -> Any:
        """The one part of a job that has no more."""
        async with contextlib.aclosing(answered(job, request)) as parts:
            return await anext(parts)

    async def whole(job: Job, request: Request, headers: dict[str, str]) -> Response:
        part = await only(job, request)
        return Response(part, media_type=MEDIA_TYPES[job.arguments["format"]], headers=headers)

    async def streamed(job: Job, request: Request, headers: dict[str, str]) -> Response:
        stream_id = headers["X-Stream-Id"]
        parts = answered(job, request)
        first = await anext(parts)
        streams[stream_id] = job

        async def body() -> AsyncIterator[bytes]:
            try:
                yield first
                async for part in parts:
                    yield part
            except ApiError as error:
                if error.code != "stopped":  # too late for another answer: the connection breaks off
                    raise
            finally:
                streams.pop(stream_id, None)
                await parts.aclose()

        return StreamingResponse(body(), media_type=MEDIA_TYPES[job.arguments["format"]], headers=headers)

    @api.post("/v1/audio/generate", responses=SOUND, response_class=Response)
    async def generate(body: GenerateRequest, request: Request) -> Response:
        """A piece of music as a file that holds its plan, or as a stream."""
        seed = _seed(body)
        job = engine.job(body, seed, _client(request), name)
        headers = {"X-Seed": str(seed), "X-Sample-Rate": str(pipe.sample_rate)}
        if not body.stream:
            return await whole(job, request, headers)
        return await streamed(job, request, headers | {"X-Stream-Id": secrets.token_urlsafe(12)})

    @api.post("/v1/audio/speech", responses=SOUND, response_class=Response)
    async def speech(body: SpeechRequest, request: Request) -> Response:
        """`/v1/audio/generate` for OpenAI's clients: `input` is the prompt, `voice` and `model` change nothing."""
        return await generate(body.model_copy(update={"model": None}), request)

    @api.post("/v1/audio/plan")
    async def plan(body: PlanRequest, request: Request) -> dict[str, Any]:
        """The plan of a piece, not rendered: what /v1/audio/plan/render makes the piece of."""
        seed = _seed(body)
        made = await only(engine.plan_job(body, seed, _client(request), name), request)
        return json.loads(made.to_text())

    @api.post("/v1/audio/plan/render", responses=SOUND, response_class=Response)
    async def render(body: RenderRequest, request: Request) -> Response:
        """A plan as sound: as it was, or with other steps, guidance or noise."""
        job = engine.render_job(body, _client(request))
        return await whole(job, request, {"X-Seed": str(job.arguments["plan"].seed)})

    @api.post("/v1/audio/plan/read")
    async def read_plan(audio: UploadFile) -> dict[str, Any]:
        """The plan that a sound file holds."""
        found = MusicPlan.from_sound_file(await audio.read())
        return json.loads(found.to_text())

    @api.post("/v1/audio/edits", responses=SOUND, response_class=Response)
    async def edits(form: Annotated[Edit, Form()], request: Request) -> Response:
        """A recording with a region made anew, continued, looped or varied."""
        seed = _seed(form)
        job = await asyncio.to_thread(engine.edit_job, form, await form.audio.read(), seed, _client(request))
        return await whole(job, request, {"X-Seed": str(seed)})

    def live(stream_id: str) -> Job:
        job = streams.get(stream_id)
        if job is None:
            raise ApiError(404, "not_found", "stream_id", "There is no such stream; it may have ended.")
        return job

    def info(stream_id: str, job: Job) -> StreamInfo:
        return StreamInfo(
            id=stream_id, made_seconds=job.arguments["made_seconds"], input=job.arguments["call"]["prompt"]
        )

    @api.get("/v1/audio/streams/{stream_id}", responses=NO_STREAM)
    async def look_at_stream(stream_id: str) -> StreamInfo:
        """How far a stream is."""
        return info(stream_id, live(stream_id))

    @api.post("/v1/audio/streams/{stream_id}", responses=NO_STREAM | NOT_LIVE)
    async def change_stream(stream_id: str, body: StreamChange) -> StreamInfo:
        """Another prompt for a live stream: heard from the part on that is made next."""
        job = live(stream_id)
        if "next" not in job.arguments:
            message = "A piece of a given length keeps its prompt. Ask for a live one: leave out `audio_length`."
            raise ApiError(409, "not_live", "stream_id", message)
        check_prompt(body.input)
        queue.change(job, body.input, body.crossfade)
        job.arguments["call"]["prompt"] = body.input
        return info(stream_id, job)

    @api.delete("/v1/audio/streams/{stream_id}", responses=NO_STREAM)
    async def stop_stream(stream_id: str) -> StreamInfo:
        """Ends a stream before the next pass of a network. So does closing its connection."""
        job = live(stream_id)
        queue.stop(job)
        return info(stream_id, job)

    @api.get("/v1/models")
    async def models() -> Models:
        """The model that is served."""
        return Models(data=[Model(id=name)])

    @api.get("/v1/prompts")
    async def prompts() -> Knowledge:
        """Words that the model knows, to suggest prompts with."""
        return known

    @app.get("/health")
    async def health() -> Health:
        """Whether it works, how many requests wait, and how fast this machine is."""
        return Health(
            model=name,
            device=str(pipe.device),
            sample_rate=pipe.sample_rate,
            waiting=queue.num_waiting,
            running=queue.num_running,
            speed=None if engine.speed is None else round(engine.speed, 2),
        )

    @api.get("/metrics", response_class=Response, responses=COUNTERS)
    async def metrics() -> Response:
        """Counters in Prometheus's text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    app.include_router(api)
    schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for model in schema["components"]["schemas"].values():
        for field, most in (("audio_length", limits.max_seconds), ("num_inference_steps", limits.max_steps)):
            for kind in model.get("properties", {}).get(field, {}).get("anyOf", ()):
                if kind["type"] != "null":
                    kind["maximum"] = most
    app.openapi = lambda: schema  # type: ignore[method-assign]

    for file in PAGE.rglob("*"):
        if file.is_file():
            place = file.relative_to(PAGE).as_posix()
            app.add_route(f"/{'' if place == 'index.html' else place}", _page(file), include_in_schema=False)
    return app


def _page(file: Path) -> Callable[[Request], Response]:
    def send(_: Request) -> Response:
        return FileResponse(file, media_type=PAGE_TYPES.get(file.suffix), headers={"cache-control": "no-cache"})

    return send


def _methods(app: FastAPI, request: Request) -> set[str]:
    """What the address of a request can be asked by."""
    matching = (route for route in app.routes if route.matches(request.scope)[0] != Match.NONE)
    return {method for route in matching for method in getattr(route, "methods", None) or ()}


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


def _seed(asked: Rendering | Edit) -> int:
    return secrets.randbelow(2**31) if asked.seed is None else asked.seed


def _client(request: Request) -> str:
    return request.client.host if request.client else ""
