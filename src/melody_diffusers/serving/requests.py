"""What a request may say, and how it is told what is wrong with it."""

import re
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from ..pipelines.checks import MAX_PROMPT_CHARACTERS, MeLoDyInputError
from ..plans import PlanError

Format = Literal["wav", "flac", "ogg", "opus", "mp3", "pcm"]
MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
    "pcm": "audio/pcm",
}
STREAMED = ("wav", "pcm")
NAMES = {  # argument of a pipeline -> what says it here
    "prompt": "input",
    "audio_duration": "audio_length",
    "generator": "seed",
    "crossfade_seconds": "crossfade",
    "extend_seconds": "seconds",
    "prepend_seconds": "seconds",
    "regions": "start",
    "regions[0]": "start",
    "regions[0][0]": "start",
    "regions[0][1]": "end",
    "semantic_tokens": "plan",
    "mulan_tokens": "plan",
}

Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS, description="What to play, in words.")]
Steps = Annotated[int | None, Field(ge=1, description="Reverse steps of the diffusion; null: the model's own.")]
Scale = Annotated[float | None, Field(ge=0, le=30, allow_inf_nan=False, description="null: the model's own.")]
Seed = Annotated[
    int | None, Field(ge=0, lt=2**63, description="The same seed gives the same music; null: any, told in X-Seed.")
]


class ApiError(Exception):
    """An answer other than the one that was asked for: a status, and what a client reads."""

    def __init__(self, status: int, code: str, argument: str | None, message: str) -> None:
        self.status, self.code, self.argument, self.message = status, code, argument, message
        super().__init__(message)


class Error(BaseModel):
    """What went wrong: a word for programs, the argument that is to be changed if it is one, and a sentence."""

    code: str
    argument: str | None
    message: str


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Rendering(_Strict):
    """How music is rendered and sent."""

    num_inference_steps: Steps = None
    guidance_scale: Scale = None
    seed: Seed = None
    response_format: Format = Field("wav", description="A file, or `pcm`: 16-bit samples alone, 24 kHz, mono.")


class Request(Rendering):
    """A piece of music."""

    input: Prompt
    audio_length: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds. null: 10; with `bars` and `bpm` what they say; with `stream` music without an end.",
    )
    negative_prompt: Prompt | None = Field(None, description="What the music should not be.")
    lm_guidance_scale: Scale = None
    model: str | None = Field(None, max_length=200, description="null, or a name from /v1/models.")


class PlanRequest(Request):
    """A piece of music, to be planned and not rendered."""

    loop: bool = Field(False, description="The end runs into the beginning.")
    bars: int | None = Field(None, ge=1, le=1000, description="Of a loop, with `bpm`, instead of `audio_length`.")
    bpm: float | None = Field(None, ge=20, le=400, allow_inf_nan=False)
    beats_per_bar: int = Field(4, ge=1, le=32)
    ending: Literal["fade"] | None = Field("fade", description="null leaves the piece cut off at its end.")


class GenerateRequest(PlanRequest):
    """A piece of music, or a stream of it."""

    stream: bool = Field(False, description="Send sound while it is being made: `wav` or `pcm`, no loop.")


class SpeechRequest(GenerateRequest):
    """The same in the words of OpenAI's clients; `model` and `voice` may be anything and change nothing."""

    voice: str | dict[str, Any] | None = None
    response_format: Format = "mp3"
    speed: float = Field(1.0, ge=1, le=1, description="1: music has the tempo that its prompt names.")
    stream_format: Literal["audio"] = "audio"


class RenderRequest(Rendering):
    """A plan, to be rendered: by default as it was, to the sample."""

    plan: dict[str, Any] = Field(description="As /v1/audio/plan and files hold it: docs/plans.md.")


class StreamChange(_Strict):
    """What a live stream should play from now on."""

    input: Prompt
    crossfade: float = Field(0.0, ge=0, le=60, allow_inf_nan=False, description="Seconds to go over in.")


class StreamInfo(BaseModel):
    """A live stream: how many seconds of music have been made, and the prompt that holds or is being gone over to."""

    id: str
    made_seconds: float
    input: str


class Edit(_Strict):
    """The fields of a form."""

    model_config = ConfigDict(strict=False)  # a form has texts alone

    audio: UploadFile = Field(description="The recording, a sound file of any kind.")
    edit: Literal["inpaint", "continue", "loop", "vary"]
    start: float | None = Field(None, ge=0, allow_inf_nan=False, description="Seconds; of the region.")
    end: float | None = Field(None, gt=0, allow_inf_nan=False)
    seconds: float = Field(10.0, gt=0, allow_inf_nan=False, description="continue: of new music.")
    strength: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="vary: how far from the sound.")
    plan_strength: float = Field(0.0, ge=0, le=1, allow_inf_nan=False, description="vary: how far from the plan.")
    input: Prompt | None = Field(None, description="What the new part should be; by default like the recording.")
    num_inference_steps: Steps = None
    guidance_scale: Scale = None
    seed: Seed = None
    response_format: Literal["wav", "flac", "ogg", "opus", "mp3"] = "wav"


class Knowledge(BaseModel):
    """Words that a model was shown in its training, to suggest prompts with; empty lists where that is not known.

    Each list holds words of one kind, and `tempo_bpm` the slowest and the fastest tempo. A prompt joins a few of them.
    `examples` are prompts that it obeys.
    """

    examples: list[str] = []
    styles: list[str] = []
    leads: list[str] = []
    moods: list[str] = []
    tempo_bpm: list[int] = []
    keys: list[str] = []
    modes: list[str] = []


class Health(BaseModel):
    """Whether it works; how many requests wait and run; seconds of music that a second of work makes, if any were."""

    status: Literal["ok"] = "ok"
    model: str
    device: str
    sample_rate: int
    waiting: int
    running: int
    speed: float | None


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "melody-diffusers"


class Models(BaseModel):
    """As OpenAI's clients read it."""

    object: Literal["list"] = "list"
    data: list[Model]


def told(error: Exception) -> ApiError:
    """The answer to an error of a pipeline: its argument by the name it has here, and no path."""
    if isinstance(error, MeLoDyInputError):
        argument = NAMES.get(error.argument, error.argument)
        message = re.sub("`([^`]+)`", lambda name: f"`{NAMES.get(name[1], name[1])}`", str(error))
        return ApiError(422, "invalid_argument", argument, message)
    if isinstance(error, PlanError):
        return ApiError(422, "invalid_argument", "plan", str(error))
    return ApiError(500, "failed", None, "The music could not be made. The server's log says why.")


def told_fields(errors: list[Any]) -> ApiError:
    """The answer to a request whose fields are not as they must be: the first complaint, without what came."""
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    if first["type"] == "json_invalid":
        return ApiError(422, "invalid_request", None, "The body must be JSON: it is none.")
    argument = ".".join(place)[:100] or None
    what = first["msg"][:1].lower() + first["msg"][1:300]
    if first["type"] == "extra_forbidden":
        message = f"There is no argument `{argument}` here. Leave it out."
    elif first["type"] == "missing":
        message = f"`{argument}` is missing." if argument else "The body is missing."
    else:
        message = f"`{argument}`: {what}." if argument else f"The body: {what}."
    return ApiError(422, "invalid_argument", argument, message)
