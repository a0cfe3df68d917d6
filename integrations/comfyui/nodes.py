"""MeLoDy as nodes of ComfyUI: music from text, parts of a recording made anew or added, loops.

ComfyUI's AUDIO is {"waveform": (B, C, T) float32, "sample_rate"}: B pieces, C channels, T samples.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

import melody_diffusers  # whose classes are imported when they are used, so that ComfyUI starts as fast as before
from melody_diffusers.devices import default_device

SHIPPED = "melody-tiny"
OWN = "0 takes the model's own."


def _text(tooltip: str, default: str = "") -> tuple[str, dict]:
    return "STRING", {"default": default, "multiline": True, "dynamicPrompts": True, "tooltip": tooltip}


def _seconds(tooltip: str, default: float = 0.0, least: float = 0.0) -> tuple[str, dict]:
    return "FLOAT", {"default": default, "min": least, "max": 3600.0, "step": 0.1, "tooltip": tooltip}


PROMPT = _text("What to play: a style and the instruments in it.", "a slow solo piano piece")
SEED = (
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": 2**64 - 1,
        "control_after_generate": True,
        "tooltip": "The same seed gives the same sound.",
    },
)
STEPS = "INT", {"default": 0, "min": 0, "max": 1000, "tooltip": f"Steps of the renderer: more is finer. {OWN}"}
GUIDANCE = (
    "FLOAT",
    {"default": 0.0, "min": 0.0, "max": 30.0, "step": 0.1, "tooltip": f"How closely it keeps to its plan. {OWN}"},
)
OPTIONAL = {
    "negative_prompt": _text("What the music should not be."),
    "model": (
        "STRING",
        {"default": SHIPPED, "tooltip": "melody-tiny comes along. Else a folder, or a name on the Hugging Face Hub."},
    ),
}


class _Node:
    CATEGORY = "audio/MeLoDy"
    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "make"


class MeLoDyGenerate(_Node):
    DESCRIPTION = "Music from a text. It fades out at its end."

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        seconds = _seconds("How long it is.", default=10.0, least=0.1)
        required = {"prompt": PROMPT, "seed": SEED, "seconds": seconds, "steps": STEPS, "guidance": GUIDANCE}
        return {"required": required, "optional": OPTIONAL}

    def make(
        self,
        prompt: str,
        seed: int,
        seconds: float,
        steps: int,
        guidance: float,
        negative_prompt: str = "",
        model: str = SHIPPED,
    ) -> tuple[dict]:
        pipe = _pipeline(model)
        output = pipe(prompt, audio_duration=seconds, **_options(seed, steps, guidance, negative_prompt))
        return (_audio(output.audios, pipe.sample_rate),)


class MeLoDyLoop(_Node):
    DESCRIPTION = "Music whose end runs into its beginning, so many bars long."

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        required = {
            "prompt": PROMPT,
            "bars": ("INT", {"default": 4, "min": 1, "max": 1000}),
            "bpm": ("FLOAT", {"default": 120.0, "min": 20.0, "max": 400.0, "step": 0.1, "tooltip": "Beats a minute."}),
            "beats_per_bar": ("INT", {"default": 4, "min": 1, "max": 32}),
            "seed": SEED,
            "steps": STEPS,
            "guidance": GUIDANCE,
        }
        return {"required": required, "optional": OPTIONAL}

    def make(
        self,
        prompt: str,
        bars: int,
        bpm: float,
        beats_per_bar: int,
        seed: int,
        steps: int,
        guidance: float,
        negative_prompt: str = "",
        model: str = SHIPPED,
    ) -> tuple[dict]:
        pipe = _pipeline(model)
        length = {"loop": True, "bars": bars, "bpm": bpm, "beats_per_bar": beats_per_bar}
        output = pipe(prompt, **length, **_options(seed, steps, guidance, negative_prompt))
        return (_audio(output.audios, pipe.sample_rate),)


class MeLoDyEdit(_Node):
    DESCRIPTION = "Makes a part of a recording anew, or adds music after or before it. The rest stays as it is."

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        required = {
            "audio": ("AUDIO",),
            "start": _seconds("Where the part to make anew starts, in seconds."),
            "end": _seconds("Where it ends. 0 and 0 make nothing anew."),
            "after": _seconds("Seconds to add at the end.", default=5.0),
            "before": _seconds("Seconds to add at the beginning."),
            "seed": SEED,
            "steps": STEPS,
            "guidance": GUIDANCE,
        }
        prompt = _text("What the new parts should be. Empty: like the recording.")
        return {"required": required, "optional": {"prompt": prompt, **OPTIONAL}}

    def make(
        self,
        audio: dict,
        start: float,
        end: float,
        after: float,
        before: float,
        seed: int,
        steps: int,
        guidance: float,
        prompt: str = "",
        negative_prompt: str = "",
        model: str = SHIPPED,
    ) -> tuple[dict]:
        inpaint = melody_diffusers.MeLoDyInpaintPipeline.from_pipe(_pipeline(model))
        made = [
            inpaint(
                waveform,  # (C, T)
                audio_sampling_rate=audio["sample_rate"],
                regions=[(start, end)] if start or end else [],
                extend_seconds=after,
                prepend_seconds=before,
                prompt=prompt.strip() or None,
                **_options((seed + row) % 2**64, steps, guidance, negative_prompt),
            ).audios
            for row, waveform in enumerate(audio["waveform"])
        ]
        return (_audio(torch.cat(made), audio["sample_rate"]),)


@lru_cache(maxsize=1)
def _pipeline(model: str) -> "melody_diffusers.MeLoDyPipeline":
    """The model on ComfyUI's device, loaded once for all nodes."""
    folder = melody_diffusers.MELODY_TINY if model in ("", SHIPPED) else model
    with torch.inference_mode(False):  # ComfyUI's mode would stay in the weights for good
        pipe = melody_diffusers.MeLoDyPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(_device())


def _device() -> torch.device:
    try:
        from comfy.model_management import get_torch_device
    except ImportError:
        return default_device()
    return get_torch_device()


def _stop() -> Callable[[], None]:
    """What raises when ComfyUI's stop button was pressed."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
    except ImportError:
        return lambda: None
    return throw_exception_if_processing_interrupted


def _options(seed: int, steps: int, guidance: float, negative_prompt: str) -> dict[str, Any]:
    stop = _stop()

    def on_step(pipe: Any, step: int, angle: Any, tensors: dict) -> dict:
        stop()
        return tensors

    return {
        "generator": torch.Generator().manual_seed(seed),
        "num_inference_steps": steps or None,
        "guidance_scale": guidance or None,
        "negative_prompt": negative_prompt.strip() or None,
        "output_type": "pt",
        "callback_on_step_end": on_step,
        "callback_on_token_end": lambda *_: stop(),
    }


def _audio(waveform: torch.Tensor, sample_rate: int) -> dict:
    return {"waveform": waveform.cpu().float(), "sample_rate": sample_rate}
