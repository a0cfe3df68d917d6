"""Soundfont playback through TinySoundFont: deterministic, in process, no system library."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

try:
    import tinysoundfont._tinysoundfont as tinysoundfont  # the binding alone; the package's front end wants pyaudio
except ImportError as error:
    raise ImportError(
        "The synthetic data set is rendered with TinySoundFont. Install its binding without the audio player it "
        "would otherwise pull in: pip install --no-deps tinysoundfont==0.3.7"
    ) from error

DRUM_CHANNEL = 9


class SoundFont:
    """One decoded font that renders one instrument at a time to mono float32."""

    def __init__(self, path: Path, sample_rate: int):
        if not Path(path).is_file():
            raise FileNotFoundError(f"no soundfont at {path}")
        self.sample_rate = sample_rate
        self._font = tinysoundfont.SoundFont(str(path))
        self._font.set_output(tinysoundfont.OutputMode.Mono, sample_rate, 0.0)
        self._font.set_max_voices(256)
        self._discard = np.zeros(sample_rate // 2, dtype=np.float32)

    def render(
        self,
        notes: Iterable[tuple[float, float, int, float]],
        seconds: float,
        program: int | None = None,
        kit: int | None = None,
    ) -> np.ndarray:
        """Notes (start seconds, length seconds, MIDI pitch, velocity 0..1) played by a program or a drum kit."""
        font = self._font
        font.reset()
        self._render_into(self._discard)  # lets voices of the last call die, or they would leak into this one
        channel = 0 if kit is None else DRUM_CHANNEL
        if kit is None:
            font.channel_set_bank(channel, 0)
        font.channel_set_preset_number(channel, program if kit is None else kit, kit is not None)
        font.channel_set_volume(channel, 1.0)
        font.channel_set_pan(channel, 0.5)
        num_samples = round(seconds * self.sample_rate)
        events = []
        for start, length, pitch, velocity in notes:
            begin = round(start * self.sample_rate)
            if begin < num_samples:
                end = max(begin + 1, round((start + length) * self.sample_rate))
                events += [(begin, 1, pitch, velocity), (min(end, num_samples), 0, pitch, 0.0)]
        events.sort()  # at equal times a note ends before the next begins
        waveform = np.zeros(num_samples, dtype=np.float32)
        position = 0
        for time, is_start, pitch, velocity in events:
            if time > position:
                self._render_into(waveform[position:time])
                position = time
            if is_start:
                font.channel_note_on(channel, pitch, velocity)
            else:
                font.channel_note_off(channel, pitch)
        if position < num_samples:
            self._render_into(waveform[position:])
        return waveform

    def _render_into(self, buffer: np.ndarray) -> None:
        self._font.render(memoryview(buffer).cast("B"))
