"""Synthesiser voices and drum machines in numpy, for the sounds no soundfont does well.

A voice is a function (frequency in Hz, length in seconds, velocity 0..1, sample rate) -> samples; it may ring on after
the length. A drum sound is a function of the kit, the MIDI drum key, the velocity and the rate.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.signal import butter, sosfilt

DETUNED_THREE = (-8, 0, 8)  # cents
DETUNED_FOUR = (-9, -3, 4, 11)
DETUNED_SEVEN = (-18, -11, -5, 0, 6, 12, 19)


def envelope(
    time: np.ndarray, attack: float, decay: float, sustain: float, release: float, length: float
) -> np.ndarray:
    """Linear attack, exponential decay towards `sustain`, exponential release after `length` (all in seconds)."""
    body = np.minimum(1.0, time / attack) * (sustain + (1 - sustain) * np.exp(-np.maximum(0, time - attack) / decay))
    return body * np.exp(-np.maximum(0.0, time - length) / release)


def saw(frequency: float, num_samples: int, rate: int, phase: float = 0.0) -> np.ndarray:
    """A sawtooth whose jumps are smoothed by polyBLEP."""
    increment = frequency / rate
    position = (phase + increment * np.arange(num_samples)) % 1.0
    wave = 2 * position - 1
    after = position < increment
    x = position[after] / increment
    wave[after] -= 2 * x - x * x - 1
    before = position > 1 - increment
    x = (position[before] - 1) / increment
    wave[before] -= x * x + 2 * x + 1
    return wave


def detuned_saws(frequency: float, num_samples: int, rate: int, cents: tuple[int, ...]) -> np.ndarray:
    """The mean of sawtooths a few cents apart, each at its own phase."""
    phases = np.random.default_rng(len(cents)).random(len(cents))
    waves = [saw(frequency * 2 ** (c / 1200), num_samples, rate, p) for c, p in zip(cents, phases, strict=True)]
    return np.mean(waves, axis=0)


def pulse(frequency: float, num_samples: int, rate: int, width: float) -> np.ndarray:
    """A pulse wave as the difference of two sawtooths."""
    return saw(frequency, num_samples, rate) - saw(frequency, num_samples, rate, width)


def lowpass(wave: np.ndarray, cutoff_hz: float, rate: int) -> np.ndarray:
    return sosfilt(butter(2, min(cutoff_hz, 0.45 * rate), fs=rate, output="sos"), wave)


def highpass(wave: np.ndarray, cutoff_hz: float, rate: int) -> np.ndarray:
    return sosfilt(butter(2, cutoff_hz, "high", fs=rate, output="sos"), wave)


def swept_lowpass(wave: np.ndarray, start_hz: float, end_hz: float, fall: float, resonance: float, rate: int):
    """A resonant low-pass whose cutoff falls from `start_hz` to `end_hz` at `fall` per second, in short blocks."""
    block = 256
    out = np.empty_like(wave)
    state = np.zeros((1, 2))
    for begin in range(0, len(wave), block):
        cutoff = end_hz + (start_hz - end_hz) * np.exp(-fall * begin / rate)
        omega = 2 * np.pi * min(cutoff, 0.45 * rate) / rate
        alpha = np.sin(omega) * (1 - resonance) * 0.9 + 1e-3
        cosine = np.cos(omega)
        gain = (1 - cosine) / 2
        section = np.array([[gain, 2 * gain, gain, 1 + alpha, -2 * cosine, 1 - alpha]]) / (1 + alpha)
        section[0, 3] = 1.0
        out[begin : begin + block], state = sosfilt(section, wave[begin : begin + block], zi=state)
    return out


def _timeline(length: float, tail: float, rate: int) -> np.ndarray:
    return np.arange(int((length + tail) * rate)) / rate


def pad(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 1.5, rate)
    wave = lowpass(detuned_saws(frequency, len(time), rate, DETUNED_FOUR), 700 + 900 * velocity, rate)
    return wave * envelope(time, 0.4, 5, 0.8, 0.5, length)


def supersaw(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.6, rate)
    wave = lowpass(detuned_saws(frequency, len(time), rate, DETUNED_SEVEN), 2500 + 3000 * velocity, rate)
    return wave * envelope(time, 0.02, 3, 0.8, 0.15, length)


def stab(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.25, rate)
    wave = lowpass(detuned_saws(frequency, len(time), rate, DETUNED_THREE), 2200, rate)
    return wave * envelope(time, 0.003, 0.18, 0.2, 0.08, length)


def sub(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.1, rate)
    wave = np.sin(2 * np.pi * frequency * time) + 0.2 * np.sin(4 * np.pi * frequency * time)
    return wave * envelope(time, 0.008, 2, 0.8, 0.03, length)


def saw_bass(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.1, rate)
    wave = 0.7 * saw(frequency, len(time), rate) + 0.4 * pulse(1.003 * frequency, len(time), rate, 0.5)
    wave = swept_lowpass(wave, 300 + 1300 * velocity, 220, 12, 0.3, rate)
    return wave * envelope(time, 0.004, 0.6, 0.6, 0.03, length)


def acid(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.1, rate)
    wave = swept_lowpass(saw(frequency, len(time), rate), 500 + 4500 * velocity**2, 300, 14, 0.88, rate)
    return np.tanh(1.8 * wave) * envelope(time, 0.003, 0.4, 0.6, 0.02, length)


def pluck(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.4, rate)
    wave = saw(frequency, len(time), rate) + 0.5 * saw(1.005 * frequency, len(time), rate, 0.3)
    wave = swept_lowpass(wave, 1500 + 5000 * velocity, 350, 10, 0.3, rate)
    return wave * envelope(time, 0.002, 0.25, 0.08, 0.12, length)


def square(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.1, rate)
    return 0.5 * pulse(frequency, len(time), rate, 0.5) * envelope(time, 0.002, 0.4, 0.7, 0.02, length)


def narrow_pulse(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.1, rate)
    return 0.5 * pulse(frequency, len(time), rate, 0.2) * envelope(time, 0.002, 0.4, 0.7, 0.02, length)


def triangle(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    """The stepped triangle of early game consoles."""
    time = _timeline(length, 0.05, rate)
    wave = 4 * np.abs(frequency * time % 1 - 0.5) - 1
    return np.round(8 * wave) / 8 * envelope(time, 0.002, 5, 0.9, 0.01, length)


def fm_bell(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 1.8, rate)
    modulation = (1 + 2 * velocity) * np.exp(-2.5 * time) * np.sin(2 * np.pi * 3.5 * frequency * time)
    return np.sin(2 * np.pi * frequency * time + modulation) * envelope(time, 0.004, 1.2, 0.05, 0.5, length + 0.4)


def saw_lead(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    time = _timeline(length, 0.25, rate)
    vibrato = 1 + 0.005 * np.sin(2 * np.pi * 5.5 * time) * np.minimum(1, 3 * time)
    wave = 2 * (np.cumsum(frequency * vibrato) / rate % 1) - 1
    wave = lowpass(wave + 0.5 * saw(1.006 * frequency, len(time), rate), 2200 + 3000 * velocity, rate)
    return wave * envelope(time, 0.015, 1, 0.8, 0.08, length)


def reeds(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    """A harmonica or a reed organ, where a soundfont has none."""
    time = _timeline(length, 0.2, rate)
    wave = pulse(frequency, len(time), rate, 0.3) + 0.5 * pulse(1.002 * frequency, len(time), rate, 0.4)
    wave = lowpass(highpass(wave, 300, rate), 2500 + 1500 * velocity, rate)
    return wave * (1 + 0.12 * np.sin(2 * np.pi * 5 * time)) * envelope(time, 0.04, 3, 0.9, 0.06, length)


def plucked_string(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    """Strings plucked by several players."""
    time = _timeline(0.5, 0, rate)
    wave = detuned_saws(frequency, len(time), rate, DETUNED_THREE)
    wave = swept_lowpass(wave, 1200 + 2500 * velocity, 250, 14, 0.1, rate)
    return wave * np.exp(-7 * time) * np.minimum(1, time / 0.003)


def muted_brass(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    """A trumpet behind a harmon mute: thin and nasal."""
    time = _timeline(length, 0.15, rate)
    vibrato = 1 + 0.004 * np.sin(2 * np.pi * 5 * time) * np.minimum(1, 2 * time)
    wave = 2 * (np.cumsum(frequency * vibrato) / rate % 1) - 1
    band = butter(2, [900, 3200], "band", fs=rate, output="sos")
    wave = sosfilt(band, wave) + 0.15 * lowpass(wave, 900, rate)
    return wave * envelope(time, 0.03, 2, 0.85, 0.05, length)


def vowels(frequency: float, length: float, velocity: float, rate: int) -> np.ndarray:
    """A synthetic choir that sings ah: sawtooths through three formants."""
    time = _timeline(length, 0.6, rate)
    source = detuned_saws(frequency, len(time), rate, DETUNED_SEVEN)
    wave = 0.2 * lowpass(source, 600, rate)
    for centre, gain in ((700, 1.0), (1150, 0.6), (2700, 0.25)):
        band = butter(1, [0.88 * centre, 1.12 * centre], "band", fs=rate, output="sos")
        wave = wave + gain * sosfilt(band, source)
    return wave * envelope(time, 0.12, 5, 0.9, 0.25, length)


VOICES: dict[str, Callable[[float, float, float, int], np.ndarray]] = {
    "pad": pad,
    "supersaw": supersaw,
    "stab": stab,
    "sub": sub,
    "saw_bass": saw_bass,
    "acid": acid,
    "pluck": pluck,
    "square": square,
    "pulse": narrow_pulse,
    "triangle": triangle,
    "fm_bell": fm_bell,
    "saw_lead": saw_lead,
    "reeds": reeds,
    "plucked_string": plucked_string,
    "muted_brass": muted_brass,
    "vowels": vowels,
}


@lru_cache(maxsize=768)
def _note(voice: str, pitch: int, length_20ms: int, velocity_tenths: int, rate: int) -> np.ndarray:
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    velocity = velocity_tenths / 10
    return (velocity * VOICES[voice](frequency, length_20ms / 50, velocity, rate)).astype(np.float32)


@dataclass(frozen=True)
class Kick:
    seconds: float
    base_hz: float
    sweep_hz: float
    sweep_rate: float
    decay: float


@dataclass(frozen=True)
class DrumMachine:
    kick: Kick
    snare_decay: float
    cutoff_hz: float | None = None  # dulls snare and cymbals
    levels: int | None = None  # quantises the wave, as a game console does


DRUM_MACHINES = {
    "machine_kit": DrumMachine(Kick(0.35, 50, 180, 40, 9), 18),
    "dusty_kit": DrumMachine(Kick(0.3, 52, 110, 35, 11), 18, cutoff_hz=5000),
    "console_kit": DrumMachine(Kick(0.15, 60, 200, 30, 20), 25, levels=8),
}
TOM_HZ = {41: 80, 45: 110, 48: 150}


@lru_cache(maxsize=256)
def _drum(kit: str, key: int, velocity_tenths: int, rate: int) -> np.ndarray:
    """One hit: kick (35, 36), snare, clap, toms, rim, hats and shakers, or a cymbal for any other key."""
    machine = DRUM_MACHINES[kit]
    rng = np.random.default_rng(key)
    if key in (35, 36):
        kick = machine.kick
        time = _timeline(kick.seconds, 0, rate)
        phase = 2 * np.pi * np.cumsum(kick.base_hz + kick.sweep_hz * np.exp(-kick.sweep_rate * time)) / rate
        click = 0.3 * rng.standard_normal(len(time)) * np.exp(-400 * time)
        wave = np.tanh(1.5 * (np.sin(phase) * np.exp(-kick.decay * time) + click))
    elif key == 38:
        time = _timeline(0.25, 0, rate)
        body = 0.6 * np.sin(2 * np.pi * 185 * time) * np.exp(-25 * time)
        wave = body + 0.5 * rng.standard_normal(len(time)) * np.exp(-machine.snare_decay * time)
    elif key == 39:
        time = _timeline(0.25, 0, rate)
        claps = [np.exp(-120 * np.maximum(0, time - delay)) * (time >= delay) for delay in (0, 0.011, 0.022)]
        tail = 0.6 * np.exp(-18 * np.maximum(0, time - 0.03)) * (time > 0.03)
        band = butter(2, [900, 2800], "band", fs=rate, output="sos")
        wave = 0.7 * sosfilt(band, rng.standard_normal(len(time))) * (sum(claps) + tail)
    elif key in TOM_HZ:
        time = _timeline(0.3, 0, rate)
        phase = 2 * np.pi * np.cumsum(TOM_HZ[key] * (1 + 0.5 * np.exp(-20 * time))) / rate
        wave = np.sin(phase) * np.exp(-9 * time)
    elif key == 37:
        time = _timeline(0.05, 0, rate)
        noise = 0.4 * rng.standard_normal(len(time))
        wave = 0.6 * (np.sin(2 * np.pi * 1700 * time) + noise) * np.exp(-90 * time)
    else:
        seconds, decay, cutoff = {
            46: (0.4, 9, 7000),
            42: (0.08, 55, 7000),
            44: (0.08, 55, 7000),
            82: (0.1, 40, 6000),
        }.get(key, (1.2, 3, 4000))
        time = _timeline(seconds, 0, rate)
        wave = 0.5 * highpass(rng.standard_normal(len(time)), cutoff, rate) * np.exp(-decay * time)
    if machine.cutoff_hz is not None and key not in (35, 36):
        wave = lowpass(wave, machine.cutoff_hz, rate)
    if machine.levels is not None:
        wave = np.round(machine.levels * wave) / machine.levels
    return (velocity_tenths / 10 * wave).astype(np.float32)


def vinyl_crackle(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Surface noise with about fourteen clicks a second."""
    rng = np.random.default_rng(seed)
    num_samples = round(seconds * rate)
    noise = 0.02 * rng.standard_normal(num_samples)
    clicks = rng.integers(0, num_samples, int(14 * seconds))
    noise[clicks] += 0.8 * rng.standard_normal(len(clicks))
    return lowpass(noise, 6000, rate).astype(np.float32)


def render_voice(
    voice: str, notes: Iterable[tuple[float, float, int, float]], seconds: float, rate: int, seed: int
) -> np.ndarray:
    """Notes (start seconds, length seconds, MIDI pitch, velocity 0..1) played by a voice or a drum machine."""
    if voice == "vinyl":
        return vinyl_crackle(seconds, rate, seed)
    num_samples = round(seconds * rate)
    waveform = np.zeros(num_samples, dtype=np.float32)
    for start, length, pitch, velocity in notes:
        begin = round(start * rate)
        if begin >= num_samples:
            continue
        tenths = max(1, round(10 * velocity))
        if voice in DRUM_MACHINES:
            sound = _drum(voice, pitch, tenths, rate)
        else:
            sound = _note(voice, pitch, max(1, round(50 * length)), tenths, rate)
        waveform[begin : begin + len(sound)] += sound[: num_samples - begin]
    return waveform
