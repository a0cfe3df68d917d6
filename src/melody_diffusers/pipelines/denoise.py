"""The reverse process over a timeline of any length (paper, section 4.1 and Algorithms 1 and 2).

Frames already known keep angle 0 in every step: so the same loop generates from nothing, continues, and inpaints.

Shapes: B batch, F frames of the whole timeline, L frames of the model's window, D channels, S semantic tokens.
"""

from collections.abc import Callable
from typing import Any

import torch

from ..graphs import Recording, state_of
from ..models.dual_path import DualPathDiffusionModel
from ..schedulers.angle import AngleScheduler
from ..timebase import Timebase, chunk_boundaries


def window_and_chunk(config: Any, num_frames: int) -> tuple[int, int]:
    """Frames of a window of the model, L, and of the chunk by which a continuation moves it on, L - L_{M-1}."""
    window = min(config.num_frames, num_frames)
    return window, window - chunk_boundaries(window, min(config.num_chunks, window))[-2]


def plan_windows(unknown: torch.Tensor, window: int, chunk: int, alignment: int = 1) -> list[int]:
    """Starts of the windows that turn every unknown frame into a known one, in the order in which they run.

    A gap that leaves room for context is filled at once, in the middle of a window. A longer run, or one that reaches
    the end, is filled from the left, one chunk after another, each window keeping `window - chunk` known frames
    (Algorithm 2); where nothing is known before it, the first window fills itself.

    Args:
        unknown: bool, (F,), F >= window.
        window: frames L of a window.
        chunk: new frames of a continuation, at most `window`; up to `alignment` - 1 fewer where it does not divide it.
        alignment: windows start at multiples of so many frames, where a token starts with a frame as in training.

    Raises:
        ValueError: the last window cannot start at such a multiple.
    """
    last = len(unknown) - window
    if last % alignment:
        raise ValueError(
            f"A timeline longer than the model's window of {window} frames has to exceed it by a multiple of "
            f"{alignment} frames, which are whole tokens; it has {len(unknown)} frames."
        )
    unknown = unknown.clone()
    starts = []
    while unknown.any():
        first = int(unknown.int().argmax())
        rest = unknown[first:]
        gap = len(rest) if rest.all() else int(rest.int().argmin())
        if gap < len(rest) and gap <= window - chunk:
            start = first + (gap - window) // 2
        else:
            start = first - (window - chunk)
        start = min(max(start // alignment * alignment, 0), last)
        starts.append(start)
        unknown[start : start + window] = False
    return starts


def guided_velocity(
    network: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    latents: torch.Tensor,
    angle: torch.Tensor,
    semantic_tokens: torch.Tensor,
    guidance_scale: float,
) -> torch.Tensor:
    """Classifier-free guidance, v = v_uncond + s (v_cond - v_uncond), in one forward pass: (B, L, D).

    `network` gives the velocity of latents, angles and semantic tokens, as `DualPathDiffusionModel` does.
    """
    if guidance_scale == 1:
        return network(latents, angle, semantic_tokens)
    velocity = network(torch.cat([latents, latents]), angle, semantic_tokens)
    conditional, unconditional = velocity.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


def denoise(
    dual_path: DualPathDiffusionModel,
    scheduler: AngleScheduler,
    latents: torch.Tensor,
    semantic_tokens: torch.Tensor,
    unknown: torch.Tensor,
    timebase: Timebase,
    guidance_scale: float | Callable[[], float] = 2.5,
    attention_kwargs: dict | None = None,
    on_step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """Latents of the whole timeline, (B, F, D).

    Args:
        dual_path: predicts the velocity.
        scheduler: with its timesteps set.
        latents: (B, F, D): noise in the unknown frames, clean latents in the others; F whole tokens.
        semantic_tokens: (B, S), the plan of the whole timeline.
        unknown: bool, (F,) on the CPU, the same for the whole batch.
        timebase: ties frames to tokens.
        guidance_scale: s of classifier-free guidance; 1 switches it off and halves the work. A function is asked before
            each step.
        attention_kwargs: passed to the model.
        on_step: called after each step with the angle and the window's latents (B, L, D); returns the latents to go
            on with.
        is_stopped: asked before each step; where it says so, nothing more is computed, and the timeline ends with the
            window that is under way, however far it is.
    """
    window, chunk = window_and_chunk(dual_path.config, latents.shape[1])
    window_tokens = timebase.frames_to_tokens(window)
    latents, unknown = latents.clone(), unknown.clone()
    starts = plan_windows(unknown, window, chunk, timebase.frame_alignment)
    network = Recording(
        lambda *inputs: dual_path(*inputs, attention_kwargs=attention_kwargs).sample,
        num_calls=len(starts) * len(scheduler.timesteps),
        state=lambda: state_of(dual_path),
    )
    for start in starts:
        frames = slice(start, start + window)
        first_token = timebase.frame_to_token(start)
        tokens = semantic_tokens[:, first_token : first_token + window_tokens]
        known, free = latents[:, frames], unknown[frames].to(latents.device)
        z = known
        for angle in scheduler.timesteps:
            if is_stopped():
                latents[:, frames] = z
                return latents[:, : frames.stop]
            scale = guidance_scale() if callable(guidance_scale) else guidance_scale
            velocity = guided_velocity(network, z, torch.where(free, angle, 0.0), tokens, scale)
            stepped = scheduler.step(velocity.to(z.dtype), angle, z).prev_sample
            z = torch.where(free.unsqueeze(-1), stepped, known)
            if on_step is not None:
                z = on_step(angle, z)
        latents[:, frames] = z
        unknown[frames] = False
    return latents
