"""The plan of a piece as a file, or within a sound file: all it takes to render the piece again.

A plan is JSON text, in a `.melody` file by itself or as the last line of a sound file's comment. One text serves both,
the standard library of any language reads it, and it holds numbers and words alone. As JSON a token takes five bytes at
most, where ten bits would do: two thousandths of a WAV, a fiftieth of an Ogg.

A plan that is read may come from anyone. Its text is bounded before it is parsed and each value is checked; it names a
model, but nothing is loaded because of it.
"""

import contextlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import soundfile

from .sound_files import MAX_COMMENT_BYTES, read_comment

FORMAT = "melody plan 1"
SUFFIX = ".melody"
MAX_TOKENS = 100_000  # an hour has 90,000
MAX_MULAN_TOKENS = 64
DTYPES = ("float32", "bfloat16", "float16")


class PlanError(ValueError):
    """There is no plan, or none that can be used; says what came, what is allowed and what to do."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300


def _number(low: float, high: float) -> tuple[str, Callable[[Any], bool]]:
    return f"be a number from {low:g} to {high:g}", lambda value: _is_number(value) and low <= value <= high


def _whole(low: int, high: int) -> tuple[str, Callable[[Any], bool]]:
    return (
        f"be a whole number from {low} to {high}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high,
    )


def _text(most: int) -> tuple[str, Callable[[Any], bool]]:
    return f"be a text of at most {most} characters", lambda value: isinstance(value, str) and len(value) <= most


def _or_none(check: tuple[str, Callable[[Any], bool]]) -> tuple[str, Callable[[Any], bool]]:
    return f"{check[0]}, or null", lambda value: value is None or check[1](value)


_SAMPLING = {  # how the language model drew the plan
    "temperature": _number(0, 10),
    "top_k": _or_none(_whole(0, 1_000_000)),
    "top_p": _number(0, 1),
    "lm_guidance_scale": _number(0, 30),
}
_RENDERING = {  # how the plan becomes sound
    "num_inference_steps": _whole(1, 1000),
    "guidance_scale": _number(0, 30),
    "prompt_guidance_scale": _number(0, 30),
    "guidance_interval": (
        "be two numbers from 0 to 1, the first at most the second",
        lambda value: (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and all(map(_is_number, value))
            and 0 <= value[0] <= value[1] <= 1
        ),
    ),
    "continuation": _text(20),
    "fade_seconds": _number(0, 60),
    "ending": ("be 'fade' or null", lambda value: value in (None, "fade")),
    "loop": ("be true or false", lambda value: isinstance(value, bool)),
    "adapter_scale": _or_none(_number(-100, 100)),
}
_FIELDS = {
    "prompt": _or_none(_text(2000)),
    "mulan_tokens": (
        f"be a list of 1 to {MAX_MULAN_TOKENS} whole numbers below 65536, or null",
        lambda value: (
            value is None
            or isinstance(value, (list, tuple))
            and 1 <= len(value) <= MAX_MULAN_TOKENS
            and all(map(_whole(0, 65535)[1], value))
        ),
    ),
    "seed": _or_none(_whole(0, 2**64 - 1)),
    "drawn_tokens": _whole(0, MAX_TOKENS),
    "seconds": _number(1e-9, 3600),
    "token_rate": _whole(1, 1000),
    "codebook_size": _whole(1, 65536),
    "model": _text(200),
    "digest": _text(64),
    "dtype": _text(40),
    "device": _text(40),
}


@dataclass(frozen=True, kw_only=True)
class MusicPlan:
    """A piece before it is rendered, and how it was rendered. Equal plans give equal sound on one machine.

    `pipelines.plan` makes one of a pipeline's output and renders it.

    Args:
        tokens: S semantic tokens, each covering 1 / `token_rate` seconds.
        seconds: of music; the last tokens may lie past them, for nothing shorter than a chunk is planned. A loop is
            fitted to them, and may be a little longer than its tokens.
        token_rate: tokens a second.
        codebook_size: tokens are below it.
        prompt: that the plan was made for, as it reads; None where that was no text.
        mulan_tokens: what MuLan made of prompt or clip, for a diffusion model that hears it; None where there was none.
        seed: of the generator on the CPU that drew the plan and then the noise; None where that is not known.
        drawn_tokens: how many tokens the language model drew from that generator before the noise, a uniform number for
            each entry of the codebook.
        sampling: temperature, top_k, top_p and lm_guidance_scale of the language model.
        rendering: num_inference_steps, guidance_scale, prompt_guidance_scale, guidance_interval, continuation,
            fade_seconds, ending, loop, and adapter_scale (the "scale" of `attention_kwargs`, or None).
        model: name of the pipeline. digest: of the parts that render (`pipelines.plan.model_digest`).
        dtype: of those parts. device: its type, such as "cuda"; of a CPU with the number of threads.
        versions: of the libraries, by their names.

    Raises:
        PlanError: a field is not as it must be; names it.
    """

    tokens: tuple[int, ...]
    seconds: float
    codebook_size: int
    token_rate: int = 25
    prompt: str | None = None
    mulan_tokens: tuple[int, ...] | None = None
    seed: int | None = None
    drawn_tokens: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    rendering: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    digest: str = ""
    dtype: str = "float32"
    device: str = "cpu"
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (allowed, is_allowed) in _FIELDS.items():
            value = getattr(self, name)
            if not is_allowed(value):
                _refuse(name, allowed, value)
        for name, checks in (("sampling", _SAMPLING), ("rendering", _RENDERING)):
            table = getattr(self, name)
            if not isinstance(table, Mapping) or not set(table) <= set(checks):
                _refuse(
                    name, f"be a table of {', '.join(checks)}", list(table) if isinstance(table, Mapping) else table
                )
            for key, value in table.items():
                if not checks[key][1](value):
                    _refuse(f"{name}.{key}", checks[key][0], value)
        is_table = isinstance(self.versions, Mapping) and len(self.versions) <= 20
        if not is_table or not all(_text(60)[1](text) for pair in self.versions.items() for text in pair):
            _refuse("versions", "be a table of at most 20 libraries and their versions", self.versions)
        tokens, high = self.tokens, self.codebook_size
        if not isinstance(tokens, (list, tuple)) or not 1 <= len(tokens) <= MAX_TOKENS:
            got = f"{len(tokens)} of them" if isinstance(tokens, (list, tuple)) else tokens
            _refuse("tokens", f"be a list of 1 to {MAX_TOKENS} tokens", got)
        wrong = next((token for token in tokens if type(token) is not int or not 0 <= token < high), None)
        if wrong is not None or None in tokens:
            _refuse("tokens", f"hold whole numbers from 0 to {high - 1}", wrong)
        if self.seconds * self.token_rate > len(tokens) * (1.5 if self.rendering.get("loop") else 1) + 1e-6:
            _refuse("seconds", f"be covered by {len(tokens)} tokens, {len(tokens) / self.token_rate:g} s", self.seconds)
        object.__setattr__(self, "tokens", tuple(tokens))
        if self.mulan_tokens is not None:
            object.__setattr__(self, "mulan_tokens", tuple(self.mulan_tokens))
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.rendering.items()}
        object.__setattr__(self, "rendering", plain)  # as JSON gives it back

    @classmethod
    def from_text(cls, text: str) -> "MusicPlan":
        """The plan that `to_text` or a plan file holds."""
        if len(text) > MAX_COMMENT_BYTES:
            raise PlanError(f"A plan has at most {MAX_COMMENT_BYTES} characters; got {len(text)}.")
        try:
            values = json.loads(text, parse_int=_read_int, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            reason = "too many brackets" if isinstance(error, RecursionError) else shown(str(error))
            raise PlanError(f"A plan must be JSON text, as `melody plan edit` writes it; got none: {reason}.") from None
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise PlanError(
                f'A plan must say "format": "{FORMAT}"; this does not. A newer melody-diffusers may know its format.'
            )
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise PlanError(f"A plan has the fields {', '.join(sorted(known))}; got {shown(', '.join(unknown))}, too.")
        if missing := sorted({"tokens", "seconds", "codebook_size"} - set(values)):
            raise PlanError(f"A plan must have the fields tokens, seconds and codebook_size; {missing[0]} is missing.")
        return cls(**values)

    def to_text(self) -> str:
        """One line of JSON in ASCII."""
        return json.dumps({"format": FORMAT} | asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "MusicPlan":
        """The plan in a plan file or in a sound file.

        Raises:
            FileNotFoundError: there is no such file.
            PlanError: it holds no plan.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no file {os.fspath(path)!r} to read a plan from.")
        with open(path, "rb") as file:
            head = file.read(MAX_COMMENT_BYTES + 1)
        if Path(path).suffix.lower() != SUFFIX and not head.lstrip()[:1] == b"{":
            return cls.from_sound_file(path)
        with _naming(path):
            if len(head) > MAX_COMMENT_BYTES:
                raise PlanError(f"A plan file has at most {MAX_COMMENT_BYTES} bytes.")
            try:
                text = head.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise PlanError("A plan file is text in UTF-8; this is none.") from None
            return cls.from_text(text)

    @classmethod
    def from_sound_file(cls, source: str | os.PathLike | bytes | BinaryIO) -> "MusicPlan":
        """The plan in the comment of a sound file: a path, bytes, or open for reading.

        Raises:
            PlanError: it is no sound file, or holds no plan.
        """
        with _naming(source):
            try:
                comment = read_comment(source)
            except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
                reason = shown(str(getattr(error, "error_string", error)))
                raise PlanError(f"It is no plan, and no sound file that can be read: {reason}") from None
            text = comment.rstrip("\0\r\n ").rpartition("\n")[2]
            if not text.startswith("{"):
                raise PlanError(
                    "Its comment holds no plan. `melody generate` writes one, and programs that convert or edit sound "
                    "may drop it: keep the file it wrote, or the plan alone, melody plan edit song.wav -o song.melody"
                )
            return cls.from_text(text)

    def save(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """Writes a plan file, all or nothing.

        Raises:
            PlanError: the name does not end in .melody.
            FileExistsError: there is such a file, and `overwrite` was not asked for.
        """
        place = Path(path)
        if place.suffix.lower() != SUFFIX:
            raise PlanError(f"A plan is saved as {SUFFIX}; got {place.name!r}. For sound, render it.")
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in json.loads(self.to_text()).items()]
        if os.path.lexists(place) and not overwrite:
            raise FileExistsError(f"{str(place)!r} is there already; choose another name, or ask to overwrite it.")
        aside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
        try:
            aside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
            os.replace(aside, place)
        finally:
            aside.unlink(missing_ok=True)

    def cut(self, start: float, end: float) -> "MusicPlan":
        """Without what lies from `start` to `end`, in seconds, each taken to the nearest token."""
        tokens, first, last = self._stretch(start, end)
        return self._of(tokens[:first] + tokens[last:])

    def keep(self, start: float, end: float) -> "MusicPlan":
        """What lies from `start` to `end`, in seconds, alone."""
        tokens, first, last = self._stretch(start, end)
        return self._of(tokens[first:last])

    def repeat(self, start: float, end: float, times: int) -> "MusicPlan":
        """With what lies from `start` to `end`, in seconds, heard `times` times one after the other."""
        tokens, first, last = self._stretch(start, end)
        if not _whole(1, MAX_TOKENS)[1](times) or len(tokens) + (times - 1) * (last - first) > MAX_TOKENS:
            raise PlanError(
                f"`times` must be a whole number from 1 on, for at most an hour of music; got {times!r:.20}."
            )
        return self._of(tokens[:last] + (times - 1) * tokens[first:last] + tokens[last:])

    def splice(self, at: float, other: "MusicPlan") -> "MusicPlan":
        """With all of another plan, of the same model, put in at `at` seconds."""
        if (self.digest, self.codebook_size, self.token_rate) != (other.digest, other.codebook_size, other.token_rate):
            raise PlanError(
                f"Plans that are spliced must be of one model; got {shown(self.model)!r} ({shown(self.digest)}) and "
                f"{shown(other.model)!r} ({shown(other.digest)}). Generate both with the same model."
            )
        tokens = self._audible()
        place = self._token(at, len(tokens))
        return self._of(tokens[:place] + other._audible() + tokens[place:])

    def _audible(self) -> tuple[int, ...]:
        return self.tokens[: math.ceil(self.seconds * self.token_rate - 1e-6)]

    def _token(self, seconds: float, most: int) -> int:
        # halves go up: stretches of one length then hold as many tokens, wherever they are
        place = math.floor(seconds * self.token_rate + 0.5) if _is_number(seconds) else -1
        if not 0 <= place <= most:
            raise PlanError(f"A time must lie from 0 to {most / self.token_rate:g} s, within the plan; got {seconds}.")
        return place

    def _stretch(self, start: float, end: float) -> tuple[tuple[int, ...], int, int]:
        tokens = self._audible()
        first, last = self._token(start, len(tokens)), self._token(end, len(tokens))
        if first >= last:
            allowed = f"A stretch must end a token, {1000 / self.token_rate:g} ms, after its start or later"
            raise PlanError(f"{allowed}; got {start:g} to {end:g} s.")
        return tokens, first, last

    def _of(self, tokens: tuple[int, ...]) -> "MusicPlan":
        if not 1 <= len(tokens) <= min(MAX_TOKENS, 3600 * self.token_rate):
            raise PlanError(f"An edited plan must last above 0 s and at most an hour; got {len(tokens)} tokens.")
        return replace(self, tokens=tokens, seconds=len(tokens) / self.token_rate)


def shown(text: str, most: int = 200) -> str:
    """The text as it may be printed: what would steer a terminal is replaced, what is too long is left out."""
    plain = "".join(character if character.isprintable() else "�" for character in text[:most])
    return plain if len(text) <= most else f"{plain} ..."


@contextlib.contextmanager
def _naming(source: Any) -> Iterator[None]:
    """Puts the name of a file before what is wrong with the plan in it."""
    try:
        yield
    except PlanError as error:
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the given file"
        raise PlanError(f"Cannot read a plan from {name}: {error}") from None


def _refuse(name: str, allowed: str, value: Any) -> NoReturn:
    got = shown(repr(value) if not isinstance(value, (list, tuple)) else str(value[:5]), 60)
    raise PlanError(f"The plan's `{name}` must {allowed}; got {got}. Render it from an unchanged file.")


def _read_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
