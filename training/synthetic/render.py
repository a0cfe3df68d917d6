"""A piece becomes sound: stems at set levels, ducking, reverb, echo, tone and a limiter."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import rooms
import soxr
from compose import Piece, Track
from kits import KITS, draws_samples, render_kit
from mastering import Master, compress, draw_master, equaliser, saturate, set_level
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, sosfilt
from soundfont import SoundFont
from voices import lowpass, render_voice

RENDER_RATE = 32_000  # soundfonts interpolate linearly: at 24 kHz their treble would alias
SAMPLE_RATE = 24_000
TARGET_RMS_DB = -18.0
PEAK_CEILING = 0.89
LIMITER_KNEE = 0.6
LEAD_ABOVE_DB = 5.0
MAX_LEAD_GAIN_DB = 8.0
LEVEL_FRAME = 1600  # samples
TAIL_SECONDS = 2.5  # the longest reverb


_BASS_CUT = butter(1, 300, "high", fs=RENDER_RATE, output="sos").astype(np.float32)


@dataclass(frozen=True)
class Room:
    """A reverb: its decay time and how much of it is heard."""

    seconds: float
    level: float


def room_for(amount: float) -> Room:
    """The room for an amount of reverb: more of it also decays longer (four lengths, so that they cache)."""
    seconds = next(s for limit, s in ((0.1, 0.6), (0.25, 1.0), (0.5, 1.6), (9.9, TAIL_SECONDS)) if amount <= limit)
    return Room(seconds, min(amount, 0.9))


def render_stem(
    track: Track, beat_seconds: float, seconds: float, font: SoundFont, seed: int, drum_samples: Path | None = None
) -> np.ndarray:
    """One track at the render rate, scaled so that its sounding part has the track's level."""
    notes = [(n.start * beat_seconds, n.length * beat_seconds, n.pitch, n.velocity) for n in track.notes]
    instrument = track.instrument
    stem = np.zeros(round(seconds * RENDER_RATE), dtype=np.float32)
    if drum_samples is not None and instrument.name in KITS and draws_samples(seed):
        kit = KITS[instrument.name]
        stem += render_kit(notes, seconds, kit, drum_samples, RENDER_RATE, seed)
        notes = [note for note in notes if note[2] not in kit.choices]
    voice = instrument.voice
    if instrument.program is not None and instrument.stand_in is not None and not font.has_program(instrument.program):
        voice = instrument.stand_in
    if voice is not None:
        stem += render_voice(voice, notes, seconds, RENDER_RATE, seed)
    elif notes:
        stem += font.render(notes, seconds, program=instrument.program, kit=instrument.kit)
    magnitude = np.abs(stem)
    sounding = stem[magnitude > 0.02 * magnitude.max()]
    rms = np.sqrt(np.mean(np.square(sounding, dtype=np.float64))) if len(sounding) else 0.0
    return stem * np.float32(10 ** (track.level_db / 20) / max(rms, 1e-6))


def lead_gain(lead: np.ndarray, rest: np.ndarray) -> np.float32:
    """The gain that lifts the lead above what plays with it by LEAD_ABOVE_DB, if it is not there already.

    Levels are medians of the moments in which the lead sounds, without the bass, where loudness is heard less.
    """
    levels = []
    for stem in (lead, rest):
        heard = sosfilt(_BASS_CUT, stem)
        frames = heard[: len(heard) // LEVEL_FRAME * LEVEL_FRAME].reshape(-1, LEVEL_FRAME)
        levels.append(np.sqrt(np.einsum("ij,ij->i", frames, frames) / LEVEL_FRAME))
    sounding = levels[0] > 0.05 * levels[0].max()
    if not sounding.any():
        return np.float32(1)
    lead_level, rest_level = (np.median(level[sounding]) for level in levels)
    wanted = rest_level * 10 ** (LEAD_ABOVE_DB / 20) / max(lead_level, 1e-9)
    return np.float32(min(max(wanted, 1.0), 10 ** (MAX_LEAD_GAIN_DB / 20)))


@lru_cache(maxsize=4 * (1 + rooms.ROOMS_PER_LENGTH))
def _room_spectrum(seconds: float, num_samples: int, number: int | None = None) -> np.ndarray:
    """Spectrum of an impulse response of unit energy: a numbered room's, or decaying noise."""
    if number is not None:
        return rfft(rooms.room_response(seconds, number, SAMPLE_RATE), num_samples)
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


def render(
    piece: Piece,
    font: SoundFont,
    seconds: float = 20.0,
    drum_samples: Path | None = None,
    variety: bool = False,
) -> np.ndarray:
    """Mono float32 at 24 kHz, peak at most 0.89.

    The level is about -18 dB RMS. With `variety` the piece's seed draws level, equaliser, dynamics and saturation (see
    mastering.py), and a simulated room where pyroomacoustics is installed. `drum_samples` is the folder of the
    recordings of kits.py, which then play the drums of some pieces.
    """
    style, mood, seed = piece.style, piece.mood, piece.tags.seed
    master = draw_master(seed) if variety else Master()
    room_number = rooms.draw_room(seed) if variety and rooms.is_available() else None
    beat_seconds = 60 / piece.tags.bpm
    num_samples = round(seconds * RENDER_RATE)
    music = np.zeros(num_samples, dtype=np.float32)
    drums = np.zeros(num_samples, dtype=np.float32)
    lead = None
    kicks: list[float] = []
    for track in piece.tracks:
        stem = render_stem(track, beat_seconds, seconds, font, seed, drum_samples)
        if track.role == "drums":
            drums += stem
            kicks = [note.start * beat_seconds for note in track.notes if note.pitch in (35, 36)]
        elif track.role == "lead":
            lead = stem
        else:
            music += stem
    if lead is not None:
        music += lead_gain(lead, music) * lead
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
    wet = _room_spectrum(room.seconds, padded, room_number)
    spectrum = rfft(music + drums, padded) + room.level * wet * rfft(send, padded)
    spectrum *= _tone(padded, mood.treble_db, style.lowpass_hz)
    if variety:
        spectrum *= equaliser(master, np.fft.rfftfreq(padded, 1 / SAMPLE_RATE))
    mix = set_level(irfft(spectrum, padded)[:num_samples], TARGET_RMS_DB)
    if style.drive:
        mix = set_level(saturate(mix, style.drive), TARGET_RMS_DB)
    if master.ratio > 1:
        mix = set_level(
            compress(mix, master.ratio, master.threshold_db, master.release_seconds, SAMPLE_RATE), TARGET_RMS_DB
        )
    if master.saturation:
        mix = saturate(mix, master.saturation)
    mix = set_level(mix, master.level_db)
    fade = round(0.008 * SAMPLE_RATE)
    mix[:fade] *= np.linspace(0, 1, fade)
    mix[-fade:] *= np.linspace(1, 0, fade)
    return limit(mix)
