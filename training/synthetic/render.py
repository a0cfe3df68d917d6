"""A piece becomes sound: stems at set levels, ducking, reverb, echo, tone and a limiter."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soxr
from compose import Piece, Track
from scipy.fft import irfft, next_fast_len, rfft
from soundfont import SoundFont
from voices import lowpass, render_voice

RENDER_RATE = 32_000  # soundfonts interpolate linearly: at 24 kHz their treble would alias
SAMPLE_RATE = 24_000
TARGET_RMS_DB = -18.0
PEAK_CEILING = 0.89
LIMITER_KNEE = 0.6
TAIL_SECONDS = 2.5  # the longest reverb


@dataclass(frozen=True)
class Room:
    """A reverb: its decay time and how much of it is heard."""

    seconds: float
    level: float


def room_for(amount: float) -> Room:
    """The room for an amount of reverb: more of it also decays longer (four lengths, so that they cache)."""
    seconds = next(s for limit, s in ((0.1, 0.6), (0.25, 1.0), (0.5, 1.6), (9.9, TAIL_SECONDS)) if amount <= limit)
    return Room(seconds, min(amount, 0.9))


def render_stem(track: Track, beat_seconds: float, seconds: float, font: SoundFont, seed: int) -> np.ndarray:
    """One track at the render rate, scaled so that its sounding part has the track's level."""
    notes = [(n.start * beat_seconds, n.length * beat_seconds, n.pitch, n.velocity) for n in track.notes]
    instrument = track.instrument
    if instrument.voice is not None:
        stem = render_voice(instrument.voice, notes, seconds, RENDER_RATE, seed)
    else:
        stem = font.render(notes, seconds, program=instrument.program, kit=instrument.kit)
    magnitude = np.abs(stem)
    sounding = stem[magnitude > 0.02 * magnitude.max()]
    rms = np.sqrt(np.mean(np.square(sounding, dtype=np.float64))) if len(sounding) else 0.0
    return stem * np.float32(10 ** (track.level_db / 20) / max(rms, 1e-6))


@lru_cache(maxsize=8)
def _room_spectrum(seconds: float, num_samples: int) -> np.ndarray:
    """Spectrum of a decaying-noise impulse response of unit energy."""
    rng = np.random.default_rng(round(1000 * seconds))
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = lowpass(rng.standard_normal(len(time)) * np.exp(-6.9 * time / seconds), 5500, SAMPLE_RATE)
    response[: int(0.012 * SAMPLE_RATE)] = 0.0
    response /= np.sqrt(np.sum(response**2))
    return rfft(response.astype(np.float32), num_samples)


def _tone(num_samples: int, treble_db: float, lowpass_hz: float | None) -> np.ndarray:
    """Gain per frequency: a high shelf around 2.5 kHz and an optional gentle low-pass."""
    frequency = np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    blend = 1 / (1 + (2500 / np.maximum(frequency, 1.0)) ** 2)
    gain = 10 ** (treble_db / 20 * blend)
    if lowpass_hz is not None:
        gain = gain / np.sqrt(1 + (frequency / lowpass_hz) ** 4)
    return gain.astype(np.float32)


def _duck_gain(kick_seconds: list[float], depth: float, num_samples: int) -> np.ndarray:
    """1 with a dip of `depth` after each kick that recovers in a tenth of a second or so."""
    gain = np.ones(num_samples, dtype=np.float32)
    length = int(0.35 * RENDER_RATE)
    dip = (1 - depth * np.exp(-np.arange(length) / RENDER_RATE / 0.09)).astype(np.float32)
    for kick in kick_seconds:
        begin = round(kick * RENDER_RATE)
        if begin < num_samples:
            part = gain[begin : begin + length]
            np.minimum(part, dip[: len(part)], out=part)
    return gain


def limit(waveform: np.ndarray) -> np.ndarray:
    """Bends what exceeds the knee smoothly below the ceiling; the rest passes unchanged."""
    magnitude = np.abs(waveform)
    room = PEAK_CEILING - LIMITER_KNEE
    bent = LIMITER_KNEE + room * np.tanh((magnitude - LIMITER_KNEE) / room)
    return np.where(magnitude > LIMITER_KNEE, np.sign(waveform) * bent, waveform).astype(np.float32)


def render(piece: Piece, font: SoundFont, seconds: float = 20.0) -> np.ndarray:
    """Mono float32 at 24 kHz, about -18 dB RMS, peak at most 0.89."""
    style, mood = piece.style, piece.mood
    beat_seconds = 60 / piece.tags.bpm
    num_samples = round(seconds * RENDER_RATE)
    music = np.zeros(num_samples, dtype=np.float32)
    drums = np.zeros(num_samples, dtype=np.float32)
    kicks: list[float] = []
    for track in piece.tracks:
        stem = render_stem(track, beat_seconds, seconds, font, piece.tags.seed)
        if track.role == "drums":
            drums += stem
            kicks = [note.start * beat_seconds for note in track.notes if note.pitch in (35, 36)]
        else:
            music += stem
    if style.duck and kicks:
        music *= _duck_gain(kicks, style.duck, num_samples)
    music, drums = (soxr.resample(bus, RENDER_RATE, SAMPLE_RATE) for bus in (music, drums))

    send = music + 0.35 * drums
    if mood.echo:
        delay = round(0.75 * beat_seconds * SAMPLE_RATE)
        music[delay:] += mood.echo * 0.7 * music[:-delay].copy()
        send = music + 0.35 * drums
    num_samples = len(music)
    padded = next_fast_len(num_samples + int(TAIL_SECONDS * SAMPLE_RATE), real=True)
    room = room_for(style.reverb * mood.reverb)
    spectrum = rfft(music + drums, padded) + room.level * _room_spectrum(room.seconds, padded) * rfft(send, padded)
    mix = irfft(spectrum * _tone(padded, mood.treble_db, style.lowpass_hz), padded)[:num_samples]

    rms = np.sqrt(np.mean(np.square(mix, dtype=np.float64)))
    mix = mix * (10 ** (TARGET_RMS_DB / 20) / max(rms, 1e-6))
    if style.drive:
        amount = 1 + 6 * style.drive
        mix = np.tanh(amount * mix) / amount
        mix *= 10 ** (TARGET_RMS_DB / 20) / np.sqrt(np.mean(np.square(mix)))
    fade = round(0.008 * SAMPLE_RATE)
    mix[:fade] *= np.linspace(0, 1, fade)
    mix[-fade:] *= np.linspace(1, 0, fade)
    return limit(mix)
