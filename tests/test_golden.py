"""The shipped melody-tiny makes the music it has always made: the same tokens, and the same sound within rounding.

`python tests/test_golden.py` writes golden.json anew; do so only where the music is meant to change.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from melody_diffusers import MELODY_TINY, MeLoDyInpaintPipeline, MeLoDyPipeline

FILE = Path(__file__).with_name("golden.json")
RATE = 24000
CLIP = (0.3 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE) / RATE)).astype(np.float32)
CALLS = {  # the arguments, and whether a region of a recording is filled
    "text": ({"prompt": "a cheerful solo piano waltz", "audio_duration": 3.0}, False),
    "clip": ({"audio_prompt": CLIP, "audio_prompt_sampling_rate": RATE, "audio_duration": 3.0}, False),
    "plan": ({"semantic_tokens": torch.arange(75)[None] * 13, "audio_duration": 3.0}, False),
    "inpainting": ({"audio": CLIP, "audio_sampling_rate": RATE, "regions": [(1.0, 2.0)]}, True),
}


def make(pipe: MeLoDyPipeline, name: str) -> dict[str, list]:
    """The plan, and the level of each quarter of a second in dB."""
    arguments, fills = CALLS[name]
    pipe = MeLoDyInpaintPipeline.from_pipe(pipe) if fills else pipe
    pipe.set_progress_bar_config(disable=True)
    generator, cut = torch.Generator().manual_seed(11), {} if fills else {"ending": None}
    output = pipe(**arguments, num_inference_steps=3, generator=generator, fade_seconds=0, **cut, output_type="pt")
    parts = output.audios[0, 0].double().unflatten(0, (-1, RATE // 4))
    levels = 10 * parts.square().mean(1).clamp_min(1e-12).log10()
    return {"tokens": output.semantic_tokens[0].tolist(), "levels_db": [round(x, 3) for x in levels.tolist()]}


@pytest.fixture(scope="module")
def pipe() -> MeLoDyPipeline:
    return MeLoDyPipeline.from_pretrained(MELODY_TINY)


@pytest.mark.parametrize("name", CALLS)
def test_the_music_is_as_it_was(pipe, name):
    golden, made = json.loads(FILE.read_text())[name], make(pipe, name)
    assert made["tokens"] == golden["tokens"]
    assert made["levels_db"] == pytest.approx(golden["levels_db"], abs=0.3)  # one thread or two: 0.13


if __name__ == "__main__":
    tiny = MeLoDyPipeline.from_pretrained(MELODY_TINY)
    FILE.write_text(json.dumps({name: make(tiny, name) for name in CALLS}))
