"""What music should sound like, and how that mixes: texts and clips with weights, and what it should not be.

    "a waltz"                               one text
    {"a waltz": 2, "techno": 1}             texts that mix, by weights of which the ratio alone counts
    prompt, audio_prompt                    a text, or such a mixture, that mixes with a clip: `audio_prompt_weight`
    negative_prompt                         what the language model's guidance leads away from

MuLan puts texts and music on one sphere. A mixture is the point on it under the weighted mean of its parts.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F

from .checks import (
    MAX_PROMPT_CHARACTERS,
    MAX_PROMPTS,
    MeLoDyInputError,
    check_audio,
    check_number,
    check_prompt,
    split_clips,
)

if TYPE_CHECKING:
    from .stages import Stages

Prompt: TypeAlias = str | Mapping[str, float]
"""A text, or texts that mix, each with its weight."""

MAX_CLIP_SECONDS = 3600.0
EVEN = 0.5
"""Weight of a clip beside a text where none is given."""


def as_text(prompt: Prompt) -> str:
    """The prompt for people to read: of a mixture `"a waltz" x 2 + "techno" x 1`, of which the end may be cut off."""
    if isinstance(prompt, str):
        return prompt
    parts = [f'"{text}" x {float(weight):g}' for text, weight in prompt.items()]
    return " + ".join(parts)[:MAX_PROMPT_CHARACTERS]


def mix(embeddings: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """The unit embedding (E,) under the weighted mean of unit embeddings (K, E); a single one is left as it is."""
    if len(embeddings) == 1:
        return embeddings[0]
    share = torch.tensor([float(weight) for weight in weights], device=embeddings.device)
    return F.normalize(share @ embeddings.float(), dim=-1)


def check_conditions(
    pipe: "Stages",
    *,
    prompt: Any,
    audio_prompt: Any,
    audio_prompt_sampling_rate: Any,
    audio_prompt_weight: Any,
) -> dict[str, Any]:
    """These arguments, checked, with one entry for each prompt of the batch; None where there is none.

    Of texts and clips that mix, a single one serves for all of the others.

    Raises:
        MeLoDyInputError: names the argument, what came and what is allowed.
    """
    texts = None if prompt is None else check_prompt(prompt)
    clips = None
    if audio_prompt is not None:
        clips = split_clips(audio_prompt, pipe.sample_rate)
        if not 0 < len(clips) <= MAX_PROMPTS:
            raise MeLoDyInputError("audio_prompt", audio_prompt, f"hold 1 to {MAX_PROMPTS} clips", str(len(clips)))
        places = (audio_prompt_sampling_rate, pipe.sample_rate, MAX_CLIP_SECONDS)
        clips = [check_audio("audio_prompt", clip, *places) for clip in clips]
    if audio_prompt_weight is not None:
        if texts is None or clips is None:
            allowed = "be left out unless a text, `prompt`, and a clip, `audio_prompt`, mix"
            raise MeLoDyInputError("audio_prompt_weight", audio_prompt_weight, allowed)
        audio_prompt_weight = check_number("audio_prompt_weight", audio_prompt_weight, 0, 1)
    if texts is not None and clips is not None:
        count = max(len(texts), len(clips))
        if {len(texts), len(clips)} - {1, count}:
            allowed = f"hold one clip, or one for each of {len(texts)} texts"
            raise MeLoDyInputError("audio_prompt", audio_prompt, allowed, str(len(clips)))
        texts, clips = texts * (count // len(texts)), clips * (count // len(clips))
    return {
        "prompt": texts,
        "audio_prompt": clips,
        "audio_prompt_weight": EVEN if audio_prompt_weight is None else audio_prompt_weight,
    }


def check_negative(
    pipe: "Stages", negative_prompt: Any, num_prompts: int, lm_guidance_scale: float
) -> list[Prompt] | None:
    """The negative prompt of each prompt, where the language model's guidance of this scale may have one.

    Raises:
        MeLoDyInputError: it may not, or has nothing to lead away from.
    """
    if negative_prompt is None:
        if lm_guidance_scale != 1 and not pipe.semantic_lm.config.null_condition:
            allowed = "be 1 for this checkpoint, whose language model was trained without `null_condition`"
            advice = " Or give a `negative_prompt`."
            raise MeLoDyInputError("lm_guidance_scale", lm_guidance_scale, allowed, advice=advice)
        return None
    negative = check_prompt(negative_prompt, "negative_prompt")
    if len(negative) not in (1, num_prompts):
        allowed = f"be one, or one for each of {num_prompts} prompts"
        raise MeLoDyInputError("negative_prompt", negative_prompt, allowed, str(len(negative)))
    if lm_guidance_scale == 1:
        allowed = "be left out where `lm_guidance_scale` is 1, which is off"
        advice = " Give `lm_guidance_scale` a value above 1, such as 3."
        raise MeLoDyInputError("negative_prompt", negative_prompt, allowed, advice=advice)
    return negative * (num_prompts // len(negative))
