"""Rooms to play in, computed by pyroomacoustics where it is installed (pip install --no-deps pyroomacoustics).

Twelve shoebox rooms for each of the four lengths of reverb, from booths to halls. An impulse response takes hundredths
of a second and is the same in every process, so a process computes those it needs and keeps them.
"""

import importlib.util
from functools import lru_cache

import numpy as np
from compose import generator
from voices import lowpass

ROOMS_PER_LENGTH = 12
SHARE = 0.6  # of the pieces are in such a room, the rest in decaying noise
_SIZES = {0.6: (3.0, 6.0), 1.0: (5.0, 10.0), 1.6: (9.0, 16.0), 2.5: (14.0, 24.0)}  # seconds of reverb: metres of length
_SOUND_SPEED = 343.0


@lru_cache
def is_available() -> bool:
    return importlib.util.find_spec("pyroomacoustics") is not None


def draw_room(seed: int) -> int | None:
    """The number of the room of the piece with this seed, None for decaying noise."""
    rng = generator(seed, "room")
    return int(rng.integers(ROOMS_PER_LENGTH)) if rng.random() < SHARE else None


@lru_cache(maxsize=len(_SIZES) * ROOMS_PER_LENGTH)
def room_response(seconds: float, number: int, rate: int) -> np.ndarray:
    """The reflections of a room that decays in about these seconds, from its first on, with unit energy."""
    import pyroomacoustics

    pyroomacoustics.constants.set("num_threads", 1)
    rng = np.random.default_rng([round(1000 * seconds), number])
    length = rng.uniform(*_SIZES[seconds])
    size = np.array([length, length * rng.uniform(0.6, 0.9), max(2.4, length * rng.uniform(0.3, 0.5))])
    # Sabine's formula, within what walls absorb
    surface = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    absorption = float(np.clip(0.161 * size.prod() / (surface * seconds * rng.uniform(0.7, 1.1)), 0.05, 0.6))
    order = int(min(40, np.ceil(seconds * _SOUND_SPEED / size.min())))
    room = pyroomacoustics.ShoeBox(
        size, fs=rate, materials=pyroomacoustics.Material(absorption), max_order=order, air_absorption=True
    )
    source, microphone = size * rng.uniform(0.2, 0.45, 3), size * rng.uniform(0.55, 0.8, 3)
    room.add_source(source)
    room.add_microphone(microphone)
    room.compute_rir()
    response = np.asarray(room.rir[0][0])
    delay = pyroomacoustics.constants.get("frac_delay_length") // 2
    direct = int(np.linalg.norm(source - microphone) / _SOUND_SPEED * rate) + delay
    response = response[direct + delay // 2 :][: round(seconds * rate)]
    response = lowpass(response, rng.uniform(3000, 8000), rate)  # walls absorb more of the treble
    return (response / np.sqrt(np.sum(response**2))).astype(np.float32)
