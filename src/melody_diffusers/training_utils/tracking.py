"""Where a training's figures, sounds and spectrograms go: tensorboard, wandb and trackio."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from torch import Tensor

from ..spectra import spectrogram_image
from .finite import read_numbers


def check_trackers(trackers: Sequence[str]) -> None:
    """Raises ValueError for a tracker that is not installed."""
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(f"run.trackers names {tracker}, which is not installed: pip install {tracker}")


def log_audio(accelerator: Accelerator, name: str, waveform: Tensor, sample_rate: int, step: int) -> None:
    """Hands a waveform (1, T) and its spectrogram to all trackers."""
    samples = waveform.detach().float().cpu().clamp(-1, 1)
    image = spectrogram_image(samples, sample_rate)
    for tracker in accelerator.trackers if accelerator.is_main_process else ():
        if tracker.name == "tensorboard":
            tracker.writer.add_audio(name, samples, step, sample_rate)
            tracker.writer.add_image(f"{name}/spectrogram", image, step, dataformats="HWC")
        else:  # wandb and trackio, whose interface is the same
            library = importlib.import_module(tracker.name)
            audio = library.Audio(samples[0].numpy(), sample_rate=sample_rate)
            tracker.log({name: audio, f"{name}/spectrogram": library.Image(image)}, step=step)


class RunningMeans:
    """Means of figures over the steps since they were last read."""

    def __init__(self) -> None:
        self._totals: dict[str, list[float | Tensor]] = {}

    def add(self, scalars: Mapping[str, float | Tensor]) -> None:
        for name, value in scalars.items():
            total = self._totals.setdefault(name, [0.0, 0])
            total[0] = total[0] + (value.detach().float() if isinstance(value, Tensor) else value)
            total[1] += 1

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """The means, over processes too; starts anew."""
        means = {name: total / count for name, (total, count) in self._totals.items()}
        self._totals.clear()
        return read_numbers(means, accelerator)
