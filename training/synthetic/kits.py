"""Drum kits of single samples: the drums of Sonic Pi, all CC0, from Debian's package sonic-pi-samples.

A kit says for a MIDI drum key which recordings may play it. Each choice is a tuple of files from soft to hard; a piece
draws one choice per key, so the electronic kit alone is hundreds of kits. Keys that a kit leaves out are played by what
the piece's own drums are (a soundfont's kit or a drum machine).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from compose import generator
from voices import lowpass

SAMPLE_FOLDER = Path("/usr/share/sonic-pi/samples")
SHARE = 0.5  # of the pieces whose drums have a sampled kit
HATS = (42, 44, 46)  # one stand: a hit ends the one before

_HAT, _PEDAL, _OPEN = (("drum_cymbal_closed",),), (("drum_cymbal_pedal",),), (("drum_cymbal_open",),)
_CRASH = (("drum_splash_soft", "drum_splash_hard"),)
_RIDE = (("drum_cymbal_soft", "drum_cymbal_hard"),)
_LOW_TOM, _MID_TOM, _HIGH_TOM = ((tuple(f"drum_tom_{n}_{s}" for s in ("soft", "hard")),) for n in ("lo", "mid", "hi"))
_KICKS = ("808", "ada", "boom", "fat", "gas", "haus", "klub", "pure", "sone", "tek", "zum")


@dataclass(frozen=True)
class Kit:
    """The choices of recordings per MIDI drum key."""

    choices: dict[int, tuple[tuple[str, ...], ...]]
    cutoff_hz: float | None = None


_ACOUSTIC = Kit(
    {
        35: (("drum_bass_soft", "drum_bass_hard"),),
        36: (("drum_bass_soft", "drum_bass_hard"), ("drum_heavy_kick",)),
        38: (("drum_snare_soft", "drum_snare_hard"),),
        41: _LOW_TOM,
        45: _MID_TOM,
        48: _HIGH_TOM,
        42: _HAT,
        44: _PEDAL,
        46: _OPEN,
        49: _CRASH,
        51: _RIDE,
    }
)
KITS = {
    "drum kit": _ACOUSTIC,
    "rock drums": _ACOUSTIC,
    "drum machine": Kit(
        {
            36: tuple((f"bd_{name}",) for name in _KICKS) + (("elec_hollow_kick",), ("elec_soft_kick",)),
            38: (("sn_dub",), ("sn_dolf",), ("elec_snare",), ("elec_hi_snare",), ("elec_mid_snare",)),
            41: _LOW_TOM,
            45: _MID_TOM + (("elec_fuzz_tom",),),
            48: _HIGH_TOM,
            37: (("elec_tick",), ("elec_wood",), ("elec_pop",)),
            42: _HAT,
            44: _PEDAL,
            46: _OPEN,
        }
    ),
    "dusty drums": Kit(
        {
            36: (("bd_zome",), ("bd_sone",), ("drum_bass_soft", "drum_bass_hard"), ("drum_heavy_kick",)),
            38: (("sn_dolf",), ("sn_zome",), ("drum_snare_soft", "drum_snare_hard")),
            41: _LOW_TOM,
            45: _MID_TOM,
            48: _HIGH_TOM,
            42: _HAT,
            44: _PEDAL,
            46: _OPEN,
        },
        cutoff_hz=6000,
    ),
}  # the instruments of styles.py that these can stand for
FILES = sorted({f for kit in KITS.values() for choices in kit.choices.values() for files in choices for f in files})

_GAIN_DB = {37: -3, 38: 1, 41: -2, 42: -6, 44: -8, 45: -2, 46: -7, 48: -2, 49: -5, 51: -8}  # kicks at 0


def has_samples(folder: Path) -> bool:
    """Whether every recording of the kits is in the folder."""
    return all((folder / f"{name}.flac").is_file() for name in FILES)


@lru_cache(maxsize=1024)
def _sample(folder: Path, name: str, semitones: int, cutoff_hz: float | None, rate: int) -> np.ndarray:
    """One recording as mono at the rate, tuned, from its first sound on, with a peak of 1."""
    wave, file_rate = soundfile.read(folder / f"{name}.flac", dtype="float32", always_2d=True)
    wave = soxr.resample(wave.mean(axis=1), file_rate * 2 ** (semitones / 12), rate).astype(np.float32)
    peak = np.abs(wave).max()
    wave = wave[int(np.argmax(np.abs(wave) > 0.05 * peak)) :]
    if cutoff_hz is not None:
        wave = lowpass(wave, cutoff_hz, rate).astype(np.float32)
    return wave / np.abs(wave).max()


def draws_samples(seed: int) -> bool:
    """Whether the piece with this seed plays its drums with samples where it has the choice."""
    return bool(generator(seed, "drums").random() < SHARE)


def render_kit(
    notes: Iterable[tuple[float, float, int, float]], seconds: float, kit: Kit, folder: Path, rate: int, seed: int
) -> np.ndarray:
    """Notes (start seconds, length seconds, MIDI drum key, velocity 0..1) of the keys that the kit has."""
    rng = generator(seed, "kit")
    semitones = int(rng.integers(-2, 3))
    drawn = {key: choices[int(rng.integers(len(choices)))] for key, choices in kit.choices.items()}
    notes = sorted(note for note in notes if note[2] in drawn)
    hats = [round(start * rate) for start, _, key, _ in notes if key in HATS]
    num_samples = round(seconds * rate)
    waveform = np.zeros(num_samples, dtype=np.float32)
    fade = round(0.01 * rate)
    for start, _, key, velocity in notes:
        begin = round(start * rate)
        if begin >= num_samples:
            continue
        layers = drawn[key]
        layer = min(int(velocity > 0.68), len(layers) - 1)
        sound = _sample(folder, layers[layer], semitones, kit.cutoff_hz, rate)
        if key in HATS:
            following = next((hit for hit in hats if hit > begin), None)
            if following is not None and following - begin + fade < len(sound):
                sound = sound[: following - begin + fade].copy()
                sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        gain = np.float32(velocity**1.3 * 10 ** (_GAIN_DB.get(key, 0) / 20))
        part = waveform[begin : begin + len(sound)]
        part += gain * sound[: len(part)]
    return waveform
