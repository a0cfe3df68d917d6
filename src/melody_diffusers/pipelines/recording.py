"""A recording as it is, at its own rate and with its own channels, and the windows of it that are worked on.

Shapes: C channels, T samples of the recording.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..audio import BLOCK_SAMPLES, MAX_PEAK, SILENCE_DB, AudioInput, file_within, is_encoded
from ..sound_files import SoundFile, open_sound
from ..timebase import Timebase
from .checks import MeLoDyInputError, as_list, check_array, check_number

LEVEL_DB = -19.0  # RMS of the music that the shipped models make, as of what they learned from: they know level as well
BLOCK_SECONDS = 0.4
MIN_KNOWN_SECONDS = 0.04  # of the recording, which are not to be filled


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording of which stretches are read when they are needed.

    Attributes:
        source: a file, by its path, its bytes or open for reading; or a waveform (C, T).
        rate: samples a second. channels: C. num_samples: T.
    """

    source: Any
    rate: int
    channels: int
    num_samples: int

    def read(self, stretches: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """Waveforms (C, stop - start) float32 of stretches (start, stop) of samples, in the order of time.

        Raises:
            MeLoDyInputError: the file cannot be decoded, ends early, or holds NaN or infinity.
        """
        if isinstance(self.source, torch.Tensor):
            return [self.source[:, start:stop] for start, stop in stretches]
        found = []
        with _decoded(self.source) as sound:
            for group in [[each] for each in stretches] if sound.is_exact else [list(stretches)]:
                found += _read(sound, group)
        for waveform, (start, stop) in zip(found, stretches):
            if waveform.shape[1] < stop - start:
                got = f"one that ends before sample {stop} of {self.num_samples}"
                raise MeLoDyInputError("audio", self.source, "be an audio file that is whole", got)
            peak = float(waveform.abs().max()) if waveform.numel() else 0.0
            if not peak <= MAX_PEAK:  # nor NaN
                got = "NaN or infinity" if not np.isfinite(peak) else f"a peak of {peak:g}"
                raise MeLoDyInputError("audio", self.source, "hold samples near [-1, 1]", got)
        return found


def _read(sound: SoundFile, stretches: list[tuple[int, int]]) -> list[torch.Tensor]:
    """The stretches, in one pass from the first to the last; what a file lacks is missing at their ends."""
    position, parts = stretches[0][0] if sound.is_exact else 0, [list[np.ndarray]() for _ in stretches]
    for block in sound.blocks(BLOCK_SAMPLES, position):
        for mine, (start, stop) in zip(parts, stretches):
            mine.append(block[max(0, start - position) : max(0, stop - position)].copy())
        position += len(block)
        if position >= stretches[-1][1]:
            break
    empty = np.zeros((0, sound.channels), np.float32)
    return [torch.from_numpy(np.ascontiguousarray(np.concatenate([empty, *mine]).T)) for mine in parts]


@contextmanager
def _decoded(source: Any, allowed: str = "be an audio file that can be read") -> Iterator[SoundFile]:
    """The file, open; whatever it shows the decoder is an error that names it."""
    try:
        with open_sound(source) as sound:
            yield sound
    except MeLoDyInputError:
        raise
    except FileNotFoundError:
        raise MeLoDyInputError("audio", source, allowed, f"none: there is no audio file at {source}") from None
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        got = f"one that cannot be decoded: {getattr(error, 'error_string', error)}".rstrip(".")
        raise MeLoDyInputError("audio", source, allowed, got) from error


def check_recording(audio: AudioInput, sampling_rate: int | None, sample_rate: int, max_seconds: float) -> Recording:
    """A recording, of which nothing is read yet but how long it is.

    Args:
        audio, sampling_rate: the arguments `audio` and `audio_sampling_rate` of a call.
        sample_rate: the pipeline's own, for the advice of an error.
    """
    audio = file_within(audio)
    if not is_encoded(audio):
        waveform, rate = check_array("audio", audio, sampling_rate, sample_rate, max_seconds)
        return Recording(waveform, rate, *waveform.shape)
    if sampling_rate is not None:
        allowed = "be left out for a file, which states its own rate"
        raise MeLoDyInputError("audio_sampling_rate", sampling_rate, allowed)
    if hasattr(audio, "read") and not audio.seekable():
        audio = audio.read()  # for it is read more than once
    allowed = f"be an audio file that can be read and lasts at most {max_seconds:g} s"
    with _decoded(audio, allowed) as sound:
        num_samples, most = sound.frames or 0, max_seconds * sound.rate
        if not sound.is_exact and num_samples <= most:
            num_samples = 0
            for block in sound.blocks(BLOCK_SAMPLES):
                num_samples += len(block)
                if num_samples > most:
                    break
        if not 0 < num_samples <= most:
            got = f"one of {num_samples / sound.rate:.1f} s" if num_samples else "one that holds no samples"
            raise MeLoDyInputError("audio", audio, allowed, got)
        return Recording(audio, sound.rate, sound.channels, num_samples)


class Window(NamedTuple):
    """A part of the timeline that the models see at once: what is to be filled, and what is known around it.

    Attributes:
        start, stop: its samples, at the recording's rate.
        runs: (start, stop) within it, from its own start on, of what is to be filled.
    """

    start: int
    stop: int
    runs: list[tuple[int, int]]

    def num_frames(self, rate: int, timebase: Timebase) -> int:
        """Latent frames that cover it, whole tokens."""
        num_samples = round((self.stop - self.start) * timebase.sample_rate / rate)
        return timebase.whole_token_frames(timebase.samples_to_frames(num_samples))


def runs_to_fill(
    regions: Any, recording: Recording, prepend_seconds: float, extend_seconds: float
) -> tuple[list[tuple[int, int]], int, int]:
    """The samples of the timeline that are to be filled, (start, stop) in order, none of which touch; how many come
    before the recording; and how many samples the timeline has."""
    rate, num_samples = recording.rate, recording.num_samples
    before, after, duration = round(prepend_seconds * rate), round(extend_seconds * rate), num_samples / rate
    pairs = as_list(regions)
    if pairs is None:
        raise MeLoDyInputError("regions", regions, "be a list of (start, end) in seconds")
    found = [(0, before), (before + num_samples, before + num_samples + after)]
    for i, region in enumerate(pairs):
        pair = as_list(region)
        if pair is None or len(pair) != 2:
            raise MeLoDyInputError(f"regions[{i}]", region, "be (start, end) in seconds", repr(region)[:80])
        start = check_number(f"regions[{i}][0]", pair[0], 0, duration)
        end = check_number(f"regions[{i}][1]", pair[1], start, duration, exclusive_low=True)
        found.append((before + round(start * rate), before + round(end * rate)))
    runs: list[tuple[int, int]] = []
    for start, stop in sorted(each for each in found if each[0] < each[1]):
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(stop, runs[-1][1]))
        else:
            runs.append((start, stop))
    if not runs:
        allowed = "name something to fill, or `extend_seconds` or `prepend_seconds` be above 0"
        raise MeLoDyInputError("regions", regions, allowed, "none of these")
    num_known = before + num_samples + after - sum(stop - start for start, stop in runs)
    if num_known < min(MIN_KNOWN_SECONDS * rate, num_samples):
        allowed = f"leave a part of the recording, {MIN_KNOWN_SECONDS:g} s at least"
        raise MeLoDyInputError("regions", regions, allowed, "all of it", " To make all anew use MeLoDyPipeline.")
    return runs, before, before + num_samples + after


def windows_around(
    runs: list[tuple[int, int]], num_samples: int, rate: int, timebase: Timebase, context_frames: int
) -> list[Window]:
    """The parts of a timeline of `num_samples` that hold the runs and, where there is so much, `context_frames` latent
    frames before and after each. They start and end with tokens. Those that would overlap are one."""
    context, alignment = timebase.frames_to_tokens(context_frames), timebase.token_alignment
    windows: list[Window] = []
    for start, stop in runs:
        first = (start * timebase.token_rate // rate - context) // alignment * alignment
        last = -((-stop * timebase.token_rate // rate - context) // alignment) * alignment
        begin = max(0, first) * rate // timebase.token_rate
        end = min(num_samples, last * rate // timebase.token_rate)
        others: list[tuple[int, int]] = []
        if windows and begin <= windows[-1].stop:
            begin, _, others = windows.pop()
        windows.append(Window(begin, end, [*others, (start - begin, stop - begin)]))
    return windows


def level_gain(sound: torch.Tensor, sample_rate: int) -> float:
    """The gain that brings (1, T), silent where it is to be filled, to `LEVEL_DB`; 1 for silence.

    Blocks more than 10 dB below the mean of all that are not silent do not count, as in ITU-R BS.1770.
    """
    block = round(BLOCK_SECONDS * sample_rate)
    powers = F.pad(sound, (0, -sound.shape[1] % block)).unflatten(1, (-1, block)).square().mean(2)[0]  # (N,)
    powers = powers[powers > 10 ** (SILENCE_DB / 10)]
    if not len(powers):
        return 1.0
    power = float(powers[powers > 0.1 * powers.mean()].mean())
    return 10 ** (LEVEL_DB / 20) / power**0.5
