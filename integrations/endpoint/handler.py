"""MeLoDy behind a Hugging Face Inference Endpoint, by its contract: `EndpointHandler(path)`, then `handler(data)`."""

import base64
import io
import secrets
import threading
from typing import Any

import torch

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.audio import save_audio
from melody_diffusers.devices import default_device, fast_dtypes
from melody_diffusers.pipelines.plan import plan_of

MAX_TEXTS = 8
MAX_SECONDS = 300.0
FORMATS = ("wav", "flac", "ogg", "mp3")
FORWARDED = (
    *("audio_duration", "loop", "bars", "bpm", "beats_per_bar", "ending"),
    *("num_inference_steps", "guidance_scale", "lm_guidance_scale", "temperature", "negative_prompt"),
)
PARAMETERS = (*FORWARDED, "seed", "response_format")


class EndpointHandler:
    """Holds the pipeline of the repository that the endpoint was made of.

    Args:
        path: folder of the pipeline.
    """

    def __init__(self, path: str = "") -> None:
        device = default_device()
        self.pipe = MeLoDyPipeline.from_pretrained(path, dtype=fast_dtypes(device)).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self._turn = threading.Lock()  # requests come in threads; one after the other is as fast, and takes less memory

    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """Music for each text.

        Args:
            data: "inputs", a text or up to 8 of them; "parameters", a dict of what is in `PARAMETERS`: arguments of
                `MeLoDyPipeline`, a "seed" (any by default), and a "response_format", one of `FORMATS` ("wav").

        Returns:
            For each text "audio", a sound file in base64, which holds its own plan; its "format"; its "sampling_rate";
            and the "seed" that makes it again.

        Raises:
            ValueError: what came, what is allowed. The endpoint answers it with status 400.
        """
        texts, parameters = data.get("inputs"), data.get("parameters")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_TEXTS:
            raise ValueError(f"`inputs` must be a text, or a list of 1 to {MAX_TEXTS} texts; got {_named(texts)}.")
        parameters = {} if parameters is None else parameters
        if not isinstance(parameters, dict) or set(parameters) - set(PARAMETERS):
            got = ", ".join(map(str, parameters)) if isinstance(parameters, dict) else _named(parameters)
            raise ValueError(f"`parameters` must be an object with any of {', '.join(PARAMETERS)}; got {got}.")
        file_format = parameters.get("response_format", "wav")
        if file_format not in FORMATS:
            raise ValueError(f"`response_format` must be one of {', '.join(FORMATS)}; got {file_format!r}.")
        seed = parameters.get("seed")
        seed = secrets.randbits(32) if seed is None else seed
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
            raise ValueError(f"`seed` must be a whole number from 0 to 2^64 - 1; got {seed!r}.")
        duration = parameters.get("audio_duration")
        if isinstance(duration, int | float) and duration > MAX_SECONDS:
            raise ValueError(f"`audio_duration` must be at most {MAX_SECONDS:g} seconds here; got {duration:g}.")
        with self._turn:
            output = self.pipe(
                texts,
                **{name: value for name, value in parameters.items() if name in FORWARDED},
                generator=[torch.Generator().manual_seed(seed) for _ in texts],
                output_type="pt",
            )
        made = []
        for row, text in enumerate(texts):
            file, comment = io.BytesIO(), f"seed {seed}: {' '.join(text.split())}"
            comment = f"{comment}\n{plan_of(self.pipe, output, row).to_text()}"
            save_audio(file, output.audios[row].cpu(), self.pipe.sample_rate, format=file_format, comment=comment)
            audio = base64.b64encode(file.getvalue()).decode("ascii")
            made.append({"audio": audio, "format": file_format, "sampling_rate": self.pipe.sample_rate, "seed": seed})
        return made


def _named(value: object) -> str:
    return f"{len(value)} of them" if isinstance(value, list) else type(value).__name__
