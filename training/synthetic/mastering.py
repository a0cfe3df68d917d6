"""The last step of a mix, as varied as records are: equaliser, compressor, saturation and level, drawn by the seed.

Everything is drawn within what a listener would call a normal recording, so that tags about the notes stay true: no
choice hides an instrument or a beat.
"""

from dataclasses import dataclass

import numpy as np
from compose import generator
from scipy.signal import lfilter

HOP_SECONDS = 0.005
LEVELS_DB = (-28.0, -14.0)  # the quietest and loudest RMS of a master


@dataclass(frozen=True)
class Master:
    """What one master does. Equaliser gains are in dB, a ratio of 1 leaves dynamics as they are."""

    tilt_db: float = 0.0  # per octave around 700 Hz
    bass_db: float = 0.0
    bass_hz: float = 120.0
    treble_db: float = 0.0
    treble_hz: float = 5000.0
    bell_db: float = 0.0
    bell_hz: float = 1000.0
    lowest_hz: float | None = None  # what a small loudspeaker or an old recording leaves out
    highest_hz: float | None = None
    ratio: float = 1.0
    threshold_db: float = -22.0
    release_seconds: float = 0.15
    saturation: float = 0.0
    level_db: float = -18.0


def draw_master(seed: int) -> Master:
    """The master of the piece with this seed."""
    rng = generator(seed, "master")
    limited = rng.random() < 0.12
    return Master(
        tilt_db=float(rng.uniform(-0.9, 0.9)),
        bass_db=float(np.clip(2.5 * rng.standard_normal(), -5, 5)),
        bass_hz=float(rng.uniform(80, 220)),
        treble_db=float(np.clip(2.5 * rng.standard_normal(), -5, 5)),
        treble_hz=float(rng.uniform(2500, 7000)),
        bell_db=float(np.clip(2 * rng.standard_normal(), -4, 4)),
        bell_hz=float(np.exp(rng.uniform(np.log(250), np.log(4000)))),
        lowest_hz=float(rng.uniform(60, 180)) if limited and rng.random() < 0.5 else None,
        highest_hz=float(rng.uniform(4000, 9000)) if limited else None,
        ratio=float(rng.uniform(1.3, 4.0)) if rng.random() < 0.6 else 1.0,
        threshold_db=float(rng.uniform(-26, -17)),
        release_seconds=float(rng.uniform(0.08, 0.35)),
        saturation=float(rng.uniform(0.05, 0.4)) if rng.random() < 0.35 else 0.0,
        level_db=float(rng.uniform(-20, -15) if rng.random() < 0.7 else rng.uniform(*LEVELS_DB)),
    )


def equaliser(master: Master, frequency: np.ndarray) -> np.ndarray:
    """Gain per frequency: tilt, two shelves, a bell, and the band limits of some masters."""
    f = np.maximum(frequency, 1.0)
    octaves = np.log2(np.clip(f, 40, 11_000) / 700)
    gain_db = master.tilt_db * octaves
    gain_db += master.bass_db / (1 + (f / master.bass_hz) ** 2)
    gain_db += master.treble_db / (1 + (master.treble_hz / f) ** 2)
    gain_db += master.bell_db * np.exp(-0.5 * np.log2(f / master.bell_hz) ** 2 / 0.6**2)
    gain = 10 ** (gain_db / 20)
    if master.highest_hz is not None:
        gain /= np.sqrt(1 + (f / master.highest_hz) ** 6)
    if master.lowest_hz is not None:
        gain /= np.sqrt(1 + (master.lowest_hz / f) ** 4)
    return gain.astype(np.float32)


def compress(waveform: np.ndarray, ratio: float, threshold_db: float, release_seconds: float, rate: int) -> np.ndarray:
    """Turns loud passages down by what they exceed the threshold, divided by the ratio; no hop is turned up."""
    hop = round(HOP_SECONDS * rate)
    num_hops = -(-len(waveform) // hop)
    padded = np.pad(waveform, (0, num_hops * hop - len(waveform)))
    power_db = 10 * np.log10(np.mean(padded.reshape(num_hops, hop).astype(np.float64) ** 2, axis=1) + 1e-10)
    decay = np.exp(-HOP_SECONDS / release_seconds)
    excess = np.maximum(0.0, power_db - threshold_db)
    reduction_db = (1 - 1 / ratio) * lfilter([1 - decay], [1, -decay], excess)
    times = (np.arange(num_hops) + 0.5) * hop
    gain_db = np.interp(np.arange(len(waveform)), times, -reduction_db)
    return waveform * (10 ** (gain_db / 20)).astype(waveform.dtype)


def saturate(waveform: np.ndarray, amount: float) -> np.ndarray:
    """Bends peaks softly, more of them the larger the amount (0..1)."""
    drive = 1 + 6 * amount
    return np.tanh(drive * waveform) / drive


def set_level(waveform: np.ndarray, level_db: float) -> np.ndarray:
    rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
    return waveform * (10 ** (level_db / 20) / max(rms, 1e-6))
