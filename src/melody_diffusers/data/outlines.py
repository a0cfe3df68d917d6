"""Which recordings are the same music, whatever their bytes and names.

The process that decodes imports this: it needs nothing but numpy.
"""

from typing import Any

import numpy as np

MIN_OUTLINE = 12  # frames, of an eighth of a second
MIN_CORRELATION = 0.75  # other encodings of a recording reach 0.99, other loops of its rhythm 0.65
_COMPARED = 512  # recordings at a time


class Outline:
    """How the spectrum of a recording moves, in numbers that survive encoding, resampling and a change of level: the
    logarithms of the energies of nine bands, eight times a second, over the first two minutes. Below a thousandth of
    the mean energy a band counts as empty: what a codec leaves there differs from codec to codec."""

    BANDS, MAX_FRAMES = 9, 960

    def __init__(self, rate: int) -> None:
        self._length, self._pending = rate // 8, np.zeros(0, np.float32)
        self._window = np.hanning(self._length).astype(np.float32)
        self._edges = np.round(np.geomspace(100, 4000, self.BANDS + 1) * self._length / rate).astype(int)
        self._energies = np.zeros((0, self.BANDS))

    def add(self, samples: np.ndarray) -> None:
        """More of the recording, in mono."""
        if len(self._energies) >= self.MAX_FRAMES:
            return
        samples = np.concatenate([self._pending, samples])
        whole = len(samples) // self._length * self._length
        frames, self._pending = samples[:whole].reshape(-1, self._length) * self._window, samples[whole:]
        power = np.square(np.abs(np.fft.rfft(frames)[:, : self._edges[-1] + 1]))
        energies = np.add.reduceat(power, self._edges, axis=1)[:, :-1]
        self._energies = np.concatenate([self._energies, energies])[: self.MAX_FRAMES]

    def hex(self) -> str:
        """A byte for each frame and band, frame by frame."""
        floor = 1e-3 * max(float(self._energies.sum(axis=1).mean()) if len(self._energies) else 0.0, 1e-9)
        return np.minimum(np.round(24 * np.log1p(self._energies / floor)), 255).astype(np.uint8).tobytes().hex()


def same_music(lines: list[dict[str, Any]], outlines: dict[str, np.ndarray]) -> dict[str, str]:
    """sha256 of each recording -> the lowest sha256 of all that are the same music: encoded otherwise, or cut a little.

    Their lengths differ by less than a second, and their outlines (`Outline`) correlate.
    """
    ordered = sorted(lines, key=lambda line: line["seconds"])
    names, seconds = [line["sha256"] for line in ordered], np.array([line["seconds"] for line in ordered])
    first = {name: name for name in names}

    def lowest(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    for start in range(0, len(names), _COMPARED):  # block against block: recordings may all be of one length
        mine, end = slice(start, start + _COMPARED), int(np.searchsorted(seconds, seconds[start:][:_COMPARED][-1] + 1))
        for other in range(start, end, _COMPARED):
            theirs = slice(other, other + _COMPARED)
            near = np.abs(seconds[mine, None] - seconds[theirs]) < 1
            for i, j in np.argwhere(near & _alike(*([outlines[name] for name in names[x]] for x in (mine, theirs)))):
                pair = lowest(names[start + i]), lowest(names[other + j])
                first[max(pair)] = min(pair)
    return {name: lowest(name) for name in names}


def _alike(mine: list[np.ndarray], theirs: list[np.ndarray]) -> np.ndarray:
    """(mine, theirs) bool: the outlines are long enough, and correlate."""
    width = max(map(len, mine + theirs))

    def vectors(outlines: list[np.ndarray]) -> np.ndarray:  # of length 1, or 0 where nothing moves
        stacked = np.zeros((len(outlines), width), np.float32)
        for row, outline in zip(stacked, outlines):
            bands = outline.reshape(-1, Outline.BANDS).astype(np.float32)
            if len(bands) >= MIN_OUTLINE:
                row[: len(outline)] = (bands - bands.mean(axis=0)).ravel()
        return stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-9)

    return vectors(mine) @ vectors(theirs).T > MIN_CORRELATION
