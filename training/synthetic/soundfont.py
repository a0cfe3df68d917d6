"""Soundfont playback through TinySoundFont: deterministic, in process, no system library."""

import struct
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
_FILTER_ENVELOPE, _KEY_RANGE, _VELOCITY_RANGE = 11, 43, 44  # generators of the SoundFont 2 format
_VELOCITY_SOURCES = (0x002, 0x402)  # louder is more, linear and concave


def with_filters_opened(font: bytes) -> bytes:
    """The font with the filters of its presets as far open as modulators open them at each velocity layer.

    TinySoundFont ignores modulators. The piano of MuseScore General, whose filter opens with velocity, would be muffled
    at all of them. The value at three quarters of a layer's range stands for the layer.
    """
    begin = font.rfind(b"pdtaphdr")
    if begin < 0:
        return font
    position = begin + 4
    chunks = {}
    while position + 8 <= len(font):
        name, size = font[position : position + 4], struct.unpack("<I", font[position + 4 : position + 8])[0]
        chunks[name] = font[position + 8 : position + 8 + size]
        position += 8 + size
    bags = np.frombuffer(chunks[b"pbag"], "<u2").reshape(-1, 2).tolist()
    generators = np.frombuffer(chunks[b"pgen"], "<i2").reshape(-1, 2).tolist()
    modulators = np.frombuffer(chunks[b"pmod"], "<i2").reshape(-1, 5).tolist()
    new_bags, new_generators = [], []
    for (first, first_modulator), (last, last_modulator) in zip(bags, bags[1:], strict=False):
        zone = generators[first:last]
        values = dict(zone)
        opening = [
            amount
            for source, target, amount, *_ in modulators[first_modulator:last_modulator]
            if source in _VELOCITY_SOURCES and target == _FILTER_ENVELOPE
        ]
        if opening:
            softest, loudest = values.get(_VELOCITY_RANGE, 127 << 8) & 0xFF, values.get(_VELOCITY_RANGE, 127 << 8) >> 8
            share = (0.25 * softest + 0.75 * loudest) / 127
            cents = min(round(values.get(_FILTER_ENVELOPE, 0) + share * opening[0]), 12_000)
            zone = [generator for generator in zone if generator[0] != _FILTER_ENVELOPE]
            num_ranges = sum(generator[0] in (_KEY_RANGE, _VELOCITY_RANGE) for generator in zone)  # they come first
            zone = [*zone[:num_ranges], [_FILTER_ENVELOPE, cents], *zone[num_ranges:]]
        new_bags.append([len(new_generators), first_modulator])
        new_generators += zone
    if new_generators == generators[: bags[-1][0]]:
        return font
    new_bags.append([len(new_generators), bags[-1][1]])
    new_generators += generators[bags[-1][0] :]
    chunks[b"pbag"] = np.array(new_bags, "<u2").tobytes()
    chunks[b"pgen"] = np.array(new_generators, "<i2").tobytes()
    body = b"pdta" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks.items())
    whole = font[: begin - 4] + struct.pack("<I", len(body)) + body
    return whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]


class SoundFont:
    """One decoded font that renders one instrument at a time to mono float32."""

    def __init__(self, path: Path, sample_rate: int):
        if not Path(path).is_file():
            raise FileNotFoundError(f"no soundfont at {path}")
        self.sample_rate = sample_rate
        self._font = tinysoundfont.SoundFont(with_filters_opened(Path(path).read_bytes()))
        self._font.set_output(tinysoundfont.OutputMode.Mono, sample_rate, 0.0)
        self._font.set_max_voices(256)
        self._discard = np.zeros(sample_rate // 2, dtype=np.float32)

    def has_program(self, program: int) -> bool:
        """Whether the font has an instrument for a program."""
        try:
            self._font.channel_set_bank(0, 0)
            self._font.channel_set_preset_number(0, program, False)
        except RuntimeError:
            return False
        return True

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
