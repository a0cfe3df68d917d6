"""Sound whose end runs into its beginning: a circle of tokens, latents and samples in place of a line.

    length   as many tokens as come nearest to what was asked; the finished circle is fitted to it (`audio.fit_loop`)
    plan     a second more is drawn, and the loop taken from where its beginning is likeliest to follow its end
    latents  windows go around the circle; in each step they begin somewhere else, so that no place is a seam
    sound    the decoder reads past the end what stands at the beginning (`AudioVAEGAN.decode_loop`)

Shapes: B batch, F frames of the circle, L frames of the model's window, N MuLan tokens, S semantic tokens.
"""

import math
import re
from typing import Any

import torch

from ..models.semantic_lm import SemanticLM
from ..schedulers.angle import AngleScheduler
from .checks import MAX_PROMPT_CHARACTERS, MeLoDyInputError, check_number
from .conditions import Prompt
from .denoise import Pass

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 300.0
TEMPO = re.compile(r"\d\s*(bpm|beats (per|a) minute)\b", re.IGNORECASE)

GOLDEN = (math.sqrt(5) - 1) / 2
"""Share of the circle by which its windows move on from step to step: their borders never come to lie on old ones."""


def check_length(loop: Any, bars: Any, bpm: Any, beats_per_bar: Any, audio_duration: Any) -> Any:
    """The duration that these arguments of `MeLoDyPipeline.__call__` ask for, in seconds; None where none does.

    Raises:
        MeLoDyInputError: they do not go together, or one is out of range.
    """
    if not isinstance(loop, bool):
        raise MeLoDyInputError("loop", loop, "be True or False")
    for name, value, other in (("bars", bars, "bpm"), ("bpm", bpm, "bars")):
        if value is None:
            continue
        if not loop:
            raise MeLoDyInputError(name, value, "be left out unless `loop` is True")
        if {"bars": bars, "bpm": bpm}[other] is None:
            raise MeLoDyInputError(other, None, f"be given with `{name}`: both say how long the loop is")
        if audio_duration is not None:
            raise MeLoDyInputError("audio_duration", audio_duration, "be left out where `bars` and `bpm` say it")
    if bars is not None:
        bars = check_number("bars", bars, 1, 1000, integer=True)
        bpm = check_number("bpm", bpm, 20, 400)
        beats = bars * check_number("beats_per_bar", beats_per_bar, 1, 32, integer=True)
        audio_duration = 60 * beats / bpm
        if not SHORTEST_SECONDS <= audio_duration <= LONGEST_SECONDS:
            allowed = f"last {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s"
            raise MeLoDyInputError("bars", bars, allowed, f"{beats} beats at {bpm:g} bpm, {audio_duration:g} s")
    return audio_duration


def with_tempo(prompt: Prompt, bpm: float) -> Prompt:
    """The prompt with its tempo in words, as captions have it; where it names one, as it is."""

    def told(text: str) -> str:
        longer = f"{text.rstrip(' .')}, {bpm:g} bpm"
        return text if TEMPO.search(text) or len(longer) > MAX_PROMPT_CHARACTERS else longer

    return told(prompt) if isinstance(prompt, str) else {told(text): weight for text, weight in prompt.items()}


@torch.no_grad()
def close_plan(
    semantic_lm: SemanticLM, mulan_tokens: torch.Tensor, semantic_tokens: torch.Tensor, num_tokens: int, window: int
) -> torch.Tensor:
    """Of each plan (B, S) the `num_tokens` that follow one another, (B, num_tokens), which make the best loop: of all
    places to begin, the language model finds their beginning likeliest after their end.

    Args:
        mulan_tokens: (B, N).
        window: tokens that the language model has seen at once. A twentieth of it, half a second, is judged.
    """
    judged = min(num_tokens, max(1, window // 20))
    chosen = []
    for mulan, plan in zip(mulan_tokens.to(semantic_tokens.device), semantic_tokens):
        loops = plan.unfold(0, num_tokens, 1)  # (places, num_tokens)
        around = torch.cat([loops[:, -(window - judged) :], loops[:, :judged]], dim=1)
        scores = semantic_lm.semantic_logits(mulan.expand(len(loops), -1), around)[:, -judged:].float().log_softmax(-1)
        likelihood = scores.gather(-1, loops[:, :judged, None]).sum((1, 2))
        chosen.append(loops[likelihood.argmax()])
    return torch.stack(chosen)


def circular_passes(
    num_frames: int, window: int, chunk: int, scheduler: AngleScheduler, alignment: int = 1
) -> list[Pass]:
    """The calls of the network that turn a circle of noise into music, in the order in which they run.

    In each step stretches that make up the circle go down by one angle, one after the other, each in the middle of a
    window. A window longer than the circle hears it several times over.

    Args:
        num_frames: F, a multiple of `alignment`; at least that.
        window: frames L of a window.
        chunk: frames of a window that are heard around its stretch and do not move, half of them on each side.
        scheduler: with its timesteps set.
        alignment: windows and stretches start at multiples of so many frames.
    """
    blocks = num_frames // alignment
    count = -(-num_frames // max(alignment, window - chunk))
    angles = [*scheduler.timesteps.tolist(), 0.0]
    timeline = torch.full((num_frames,), angles[0])
    passes = []
    for step, angle in enumerate(angles[1:]):
        offset = round(step * GOLDEN % 1 * blocks)
        borders = [(offset + number * blocks // count) * alignment for number in range(count + 1)]
        for first, stop in zip(borders, borders[1:]):
            margin = (window - (stop - first)) // 2 // alignment * alignment
            before = timeline[torch.arange(first - margin, first - margin + window) % num_frames]
            after = before.clone()
            after[margin : margin + stop - first] = angle
            passes.append(Pass((first - margin) % num_frames, before, after))
            timeline[torch.arange(first, stop) % num_frames] = angle
    return passes
