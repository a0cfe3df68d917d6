"""The reverse process over a timeline of any length (paper, section 4.1 and Algorithms 1 and 2).

Each frame stands at an angle of its own, pi/2 where it is noise and 0 where it is known: so the same loop generates
from nothing, continues, and inpaints. What is longer than the model's window is rendered in one of two ways:

    windows    Algorithm 2: one chunk after the other, each in all steps within a window of known frames
    diagonal   chunk after chunk sets out while those before it are on their way, so that a window holds chunks at
               staggered angles, as in training, and each call of the network serves all of them

Shapes: B batch, F frames of the whole timeline, L frames of the model's window, D channels, S semantic tokens.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch

from ..graphs import Recording, state_of
from ..models.dual_path import DualPathDiffusionModel
from ..schedulers.angle import AngleScheduler
from ..timebase import Timebase, chunk_boundaries

Continuation = Literal["diagonal", "windows"]
Network = Callable[..., torch.Tensor]
"""The velocity (B, L, D) of latents, angles and a condition: semantic tokens and perhaps MuLan tokens, of which there
may be fewer samples."""

DIAGONAL_STEPS = 0.5
"""Steps of a chunk on the diagonal, as a share of those of a single window: the chunks before it, further on, lead it.
Measured in docs/experiments.md."""
NEAR = 1e-4  # radians by which an angle may miss the border of an interval


class Pass(NamedTuple):
    """One call of the network: the first frame of its window, and the angles of its frames before and after.

    A window that reaches past the end of the timeline goes around: the timeline is a circle (`loops.py`).
    """

    start: int
    before: torch.Tensor  # (L,)
    after: torch.Tensor


def window_and_chunk(config: Any, num_frames: int) -> tuple[int, int]:
    """Frames of a window of the model, L, and of the chunk by which a continuation moves it on, L - L_{M-1}."""
    window = min(config.num_frames, num_frames)
    return window, window - chunk_boundaries(window, min(config.num_chunks, window))[-2]


def plan_passes(
    unknown: torch.Tensor,
    window: int,
    chunk: int,
    scheduler: AngleScheduler,
    alignment: int = 1,
    continuation: Continuation = "diagonal",
) -> list[Pass]:
    """The calls of the network that turn every unknown frame into a known one, in the order in which they run.

    A run of unknown frames that leaves room for a chunk of context is rendered at once, a gap in the middle of a
    window. A longer run is continued from the left, on the diagonal or by Algorithm 2.

    Args:
        unknown: bool, (F,), F >= window.
        window: frames L of a window.
        chunk: new frames of a continuation, at most `window`; up to `alignment` - 1 fewer where it does not divide it.
        scheduler: with its timesteps set.
        alignment: windows start at multiples of so many frames, where a token starts with a frame as in training.
        continuation: how a long run is rendered.

    Raises:
        ValueError: the last window cannot start at such a multiple.
    """
    last = len(unknown) - window
    if last % alignment:
        raise ValueError(
            f"A timeline longer than the model's window of {window} frames has to exceed it by a multiple of "
            f"{alignment} frames, which are whole tokens; it has {len(unknown)} frames."
        )
    angles = math.pi / 2 * unknown.to(torch.float32)
    steps = scheduler.timesteps.tolist()
    passes: list[Pass] = []

    def go(start: int, after: torch.Tensor) -> None:
        frames = slice(start, start + window)
        passes.append(Pass(start, angles[frames].clone(), after[frames].clone()))
        angles.copy_(after)

    def start_of(frame: int) -> int:
        return min(max(frame // alignment * alignment, 0), last)

    while angles.any():
        first, stop = _next_run(angles > 0)
        fits = stop - first <= window - chunk
        if continuation == "diagonal" and not fits and last > 0:
            for start, after in _diagonal(angles, first, stop, window, chunk, len(steps), alignment):
                go(start_of(start), after)
            continue
        at_once = fits and (stop < len(unknown) or continuation == "diagonal")
        start = start_of(first + (stop - first - window) // 2 if at_once else first - (window - chunk))
        free = torch.zeros_like(unknown)
        free[start : start + window] = angles[start : start + window] > 0
        for angle in [*steps[1:], 0.0]:
            go(start, torch.where(free, angle, angles))
    return passes


def _next_run(unknown: torch.Tensor) -> tuple[int, int]:
    """The first run of unknown frames, from the first of them to the first that is known again."""
    first = int(unknown.int().argmax())
    rest = unknown[first:]
    return first, first + (len(rest) if rest.all() else int(rest.int().argmin()))


class Diagonal(NamedTuple):
    """How chunks follow one another on the diagonal, for as long as one likes.

    Args:
        window: frames L of the model's window.
        chunk: frames of a chunk, whole tokens.
        abreast: chunks on their way in a window; the rest of it is known.
        calls: of the network, from one chunk's setting out to the next one's.
    """

    window: int
    chunk: int
    abreast: int
    calls: int

    @classmethod
    def plan(cls, window: int, chunk: int, num_steps: int, alignment: int) -> "Diagonal":
        """The diagonal of chunks of about `chunk` frames, multiples of `alignment`, that replaces `num_steps` steps."""
        chunk = max(alignment, chunk // alignment * alignment)
        abreast = max(1, (window - chunk) // chunk)
        return cls(window, chunk, abreast, max(1, round(DIAGONAL_STEPS * num_steps / abreast)))

    @property
    def total(self) -> int:
        """Calls from a chunk's setting out to its end."""
        return self.abreast * self.calls

    def calls_until(self, num_chunks: int) -> int:
        """Calls after which so many chunks, 1 or more, are done."""
        return self.calls * (num_chunks - 1) + self.total

    def start(self, oldest: int) -> int:
        """First frame of the window while this chunk is the oldest on its way; below 0 in the beginning."""
        return oldest * self.chunk - (self.window - self.abreast * self.chunk)

    def angles(self, num_calls: int, start: int, num_frames: int) -> torch.Tensor:
        """Angles (num_frames,) float64, from frame `start` on, after so many calls."""
        index = torch.arange(start, start + num_frames) // self.chunk
        left = self.total - (num_calls - index * self.calls).clamp(0, self.total)
        return math.pi / 2 * left.double() / self.total


def _diagonal(
    angles: torch.Tensor, first: int, stop: int, window: int, chunk: int, num_steps: int, alignment: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Starts of windows and the angles (F,) after them, for the frames from `first` to `stop`."""
    diagonal = Diagonal.plan(window, chunk, num_steps, alignment)
    for call in range(diagonal.calls_until(-(-(stop - first) // diagonal.chunk))):
        oldest = max(0, (call - diagonal.total) // diagonal.calls + 1)
        after = angles.clone()
        after[first:stop] = diagonal.angles(call + 1, 0, stop - first)
        yield first + diagonal.start(oldest), after


def guided_velocity(
    network: Network,
    latents: torch.Tensor,
    angle: torch.Tensor,
    condition: Sequence[torch.Tensor],
    guidance_scale: float | torch.Tensor,
    prompt_guidance_scale: float | torch.Tensor = 1.0,
    rescale: float = 0.0,
) -> torch.Tensor:
    """Classifier-free guidance, v = v_uncond + s (v_cond - v_uncond) + (p - 1) (v_cond - v_plan), in one forward pass:
    (B, L, D). v_plan is that of the plan without the prompt (two scales, as Brooks et al. 2023 have for another pair).

    `network` gives the velocity of latents, angles and the condition, as `DualPathDiffusionModel` does: semantic tokens
    (B, S) and, if it hears the prompt, MuLan tokens (B, N). Angles are (1, L) or (B, L). A scale s or p for each frame
    is (1, L, 1) or (B, L, 1); a single 1 saves the rows that it would need.

    Guidance makes music louder than music is. `rescale`, 0 to 1, is how far the level of the music that v points to is
    brought back to what it is without guidance (Lin et al. 2023, eq. 15 and 16), for the frames of each angle alone.
    """
    is_guided = isinstance(guidance_scale, torch.Tensor) or guidance_scale != 1
    is_prompted = isinstance(prompt_guidance_scale, torch.Tensor) or prompt_guidance_scale != 1
    if is_prompted:
        tokens, prompt = condition
        condition = torch.cat([tokens, tokens]), torch.cat([prompt, torch.full_like(prompt, -1)])
    rows = 1 + is_guided + is_prompted
    angles = angle.repeat(rows, 1) if angle.ndim == 2 and len(angle) > 1 else angle
    conditional, *others = network(torch.cat([latents] * rows), angles, *condition).chunk(rows)
    velocity = conditional
    if is_guided:
        velocity = others[-1] + guidance_scale * (conditional - others[-1])
    if is_prompted:
        velocity = velocity + (prompt_guidance_scale - 1) * (conditional - others[0])
    if rescale and rows > 1:
        cos, sin = angle[..., None].cos(), angle[..., None].sin()
        plain, guided = (cos * latents - sin * v for v in (conditional, velocity))
        angles = angle.expand(latents.shape[:2])
        alike = (angles[:, :, None] == angles[:, None, :]).to(guided.dtype)  # (B, L, L)
        power, louder = (alike @ music.square().mean(dim=2, keepdim=True) for music in (plain, guided))  # (B, L, 1)
        gain = rescale * (power / louder).sqrt() + 1 - rescale
        velocity = gain * velocity + (1 - gain) * cos / sin.clamp(min=1e-6) * latents
    return velocity


@contextmanager
def side_by_side(network: Network) -> Iterator[Network]:
    """The network, the two halves of whose batch run in threads of their own, each with half of torch's.

    On a CPU, many of its operations are too small to be shared by threads; a sample shares nothing with another one.
    """
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def use(number: int) -> None:
        if torch.get_num_threads() != number:
            torch.set_num_threads(number)

    def run(latents: torch.Tensor, angle: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        use(threads // 2)
        with torch.inference_mode(inference), torch.no_grad():  # which hold for one thread
            return network(latents, angle, *condition)

    def both(latents: torch.Tensor, angle: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        half = (len(latents) + 1) // 2
        if half == len(latents):
            use(threads)
            return network(latents, angle, *condition)
        other = pool.submit(run, latents[half:], angle, *(each[half:] for each in condition))
        return torch.cat([run(latents[:half], angle, *(each[:half] for each in condition)), other.result()])

    with ThreadPoolExecutor(1) as pool:
        try:
            yield both
        finally:
            use(threads)


def _can_share(dual_path: DualPathDiffusionModel, device: torch.device) -> bool:
    """Whether `side_by_side` computes the same: the model is nothing but its weights, and autocast, which holds for one
    thread, is off."""
    if device.type != "cpu" or torch.get_num_threads() < 2 or torch.is_autocast_enabled("cpu"):
        return False
    return state_of(dual_path) is not None


def denoise(
    dual_path: DualPathDiffusionModel,
    scheduler: AngleScheduler,
    latents: torch.Tensor,
    semantic_tokens: torch.Tensor,
    passes: list[Pass],
    timebase: Timebase,
    guidance_scale: float | Callable[[], float] = 2.5,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    attention_kwargs: dict | None = None,
    on_step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    mulan_tokens: torch.Tensor | None = None,
    prompt_guidance_scale: float = 1.0,
) -> torch.Tensor:
    """Latents of the whole timeline, (B, F, D).

    Args:
        dual_path: predicts the velocity.
        scheduler: takes the steps.
        latents: (B, F, D): noise in the unknown frames, clean latents in the others; F whole tokens.
        semantic_tokens: (B, S), the plan of the whole timeline.
        passes: by `plan_passes`.
        timebase: ties frames to tokens.
        guidance_scale: s of classifier-free guidance; 1 switches it off and halves the work. A function is asked before
            each step.
        guidance_interval: where frames are guided, in shares of the way from music, 0, to noise, 1 (Kynkäänniemi et al.
            2024). A step none of whose frames lies within takes half the work.
        attention_kwargs: passed to the model.
        on_step: called after each step with the largest angle of the frames that moved and the window's latents
            (B, L, D); returns the latents to go on with, of which known frames stay as they were.
        is_stopped: asked before each step; where it says so, nothing more is computed, and the timeline ends with the
            frames that are done by then or, if there are none, with those under way, however far they are.
        mulan_tokens: (B, N), of the prompt, for a model that hears them.
        prompt_guidance_scale: p of guidance by the prompt, which such a model may have, in the same interval.
    """
    latents = latents.clone()
    prompt = () if mulan_tokens is None else (mulan_tokens,)
    recording = Recording(
        lambda *inputs: dual_path(*inputs, attention_kwargs=attention_kwargs).sample,
        num_calls=len(passes),
        state=lambda: state_of(dual_path),
    )
    is_circle = any(start + len(before) > latents.shape[1] for start, before, _ in passes)
    angles = torch.stack([torch.stack(each[1:]) for each in passes])  # (passes, 2, L)
    angles = angles.unsqueeze(2).to(latents.device)  # one angle a frame, for all samples; copied once
    lowest, highest = (share * math.pi / 2 for share in guidance_interval)
    with side_by_side(recording) if _can_share(dual_path, latents.device) else nullcontext(recording) as network:
        for number, (start, before, after) in enumerate(passes):
            if is_stopped():
                return latents if is_circle else latents[:, : _frames_reached(passes, number)]
            angle, next_angle = angles[number]
            first_token, num_tokens = timebase.frame_to_token(start), timebase.frames_to_tokens(len(before))
            place = _around if is_circle else _along
            frames = place(start, len(before), latents)
            tokens, z = semantic_tokens[:, place(first_token, num_tokens, semantic_tokens)], latents[:, frames]
            scale = guidance_scale() if callable(guidance_scale) else guidance_scale
            within = (before > after) & (before > lowest - NEAR) & (before < highest + NEAR)
            scales: list[float | torch.Tensor] = []
            for each in (scale, prompt_guidance_scale if prompt else 1.0):
                if not within.any():
                    each = 1.0
                elif each != 1 and not within[before > after].all():
                    each = torch.where(within, each, 1.0).to(z.device)[None, :, None]
                scales.append(each)
            velocity = guided_velocity(network, z, angle, (tokens, *prompt), *scales)
            stepped = scheduler.step(velocity.to(z.dtype), angle, z, next_timestep=next_angle).prev_sample
            if on_step is not None:
                largest = torch.where(angle > next_angle, angle, 0.0).amax()
                stepped = torch.where((angle > 0).unsqueeze(-1), on_step(largest, stepped), z)
            if is_circle:  # on which a frame may stand in the window several times, and moves once
                moved = (before > after).nonzero()[:, 0].to(z.device)
                frames, stepped = frames[moved], stepped[:, moved]
            latents[:, frames] = stepped
    return latents


def _along(first: int, count: int, timeline: torch.Tensor) -> Any:
    """An index of `count` places of a timeline (B, F, ...), from `first` on."""
    return slice(first, first + count)


def _around(first: int, count: int, timeline: torch.Tensor) -> Any:
    """The same where the last place is followed by the first; the timeline may be shorter than `count`."""
    return torch.arange(first, first + count, device=timeline.device) % timeline.shape[1]


def _frames_reached(passes: list[Pass], number: int) -> int:
    """Frames of the timeline before the pass of that number: those that are done, or else under way."""

    def first_unknown(each: Pass) -> int:
        return each.start + int((each.before > 0).int().argmax())

    now = passes[number]
    if first_unknown(now) > first_unknown(passes[0]):
        return first_unknown(now)
    under_way = (now.before < passes[0].before.max()).nonzero()
    return now.start + (int(under_way[-1]) + 1 if len(under_way) else len(now.before))
