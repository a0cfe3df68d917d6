"""The key of a clip: which tonic, and major or minor, by a small net that a transposition cannot surprise.

`KeyJudge` folds the semitones of each octave into the twelve pitch classes, a circle, and convolves around it with all
pitch classes in reach. Music a semitone higher turns the circle by one, and the answers with it: every key is learned
from the clips of all twelve. It is trained by `training/train_judges.py` beside `ClipJudge` and is as independent.

Shapes: B clips, T samples, F frames, O octaves, W channels.
"""

import re

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from melody_diffusers.spectra import semitone_spectrogram

PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in PITCH_CLASSES)
NAMED_KEY = re.compile(
    r"\b([A-G])(#|b| sharp| flat)? (?:natural |harmonic )?(major|minor|dorian|phrygian|mixolydian|lydian)\b"
    r"(?! (?:key|scale))"  # "A minor key is sad" names none
)
MODE_WORDS = {"dorian": "minor", "phrygian": "minor", "mixolydian": "major", "lydian": "major"}


def named_key(text: str) -> str | None:
    """The first key that a text names, as one of `KEYS`; a church mode counts as major or minor by its third."""
    found = NAMED_KEY.search(text)
    if found is None:
        return None
    letter, accidental, mode = found.groups()
    shift = {None: 0, "#": 1, " sharp": 1, "b": -1, " flat": -1}[accidental]
    return f"{PITCH_CLASSES[(PITCH_CLASSES.index(letter) + shift) % 12]} {MODE_WORDS.get(mode, mode)}"


def relative_key(key: str) -> str:
    """The key of the other mode with the same notes: A minor for C major, and the other way round."""
    tonic, mode = key.split()
    shift, other = (9, "minor") if mode == "major" else (3, "major")
    return f"{PITCH_CLASSES[(PITCH_CLASSES.index(tonic) + shift) % 12]} {other}"


class KeyJudge(ModelMixin, ConfigMixin):
    """Convolutions around the circle of pitch classes, a mean over time, and a score for each of the 24 `KEYS`.

    Args:
        width: channels.
        hop_length: samples between two frames at `sample_rate`; the default gives 10 frames a second.
        octaves: from C2 up.
        dropout: of channels, in training.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 24,
        hop_length: int = 2400,
        octaves: int = 6,
        sample_rate: int = 24000,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.frames = nn.Sequential(
            PitchClassConv(octaves, width, frames=1), nn.ReLU(), PitchClassConv(width, width, frames=5), nn.ReLU()
        )
        self.drop = nn.Dropout2d(dropout)
        self.clip = nn.Sequential(PitchClassConv(2 * width, width, frames=1), nn.ReLU())
        self.head = PitchClassConv(width, 2, frames=1)

    def log_semitones(self, waveform: torch.Tensor) -> torch.Tensor:
        """What the judge sees of (B, 1, T): natural-log magnitudes of semitones (B, F, 12 O)."""
        config = self.config
        return semitone_spectrogram(waveform, config.sample_rate, config.hop_length, 12 * config.octaves)

    def forward(self, log_semitones: torch.Tensor) -> torch.Tensor:
        """Logits (B, 24) of `KEYS`, from (B, F, 12 O)."""
        x = log_semitones.unflatten(-1, (-1, 12)).transpose(1, 2)  # (B, O, F, 12)
        x = x - x.mean(dim=(2, 3), keepdim=True)  # the level of an octave says nothing about the key
        x = self.drop(self.frames(x))  # (B, W, F, 12)
        x = torch.cat([x.mean(dim=2, keepdim=True), x.amax(dim=2, keepdim=True)], dim=1)  # (B, 2 W, 1, 12)
        return self.head(self.clip(x)).flatten(1)  # (B, 2 modes x 12)

    @torch.no_grad()
    def judge(self, waveform: torch.Tensor) -> list[str]:
        """The most likely key of every clip of (B, 1, T), at the judge's sample rate."""
        return [KEYS[i] for i in self(self.log_semitones(waveform)).argmax(dim=-1).tolist()]


class PitchClassConv(nn.Module):
    """(B, C, F, 12) -> (B, W, F, 12): over `frames` frames and around all pitch classes, and normalised."""

    def __init__(self, inputs: int, outputs: int, frames: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=(frames, 12), padding=(frames // 2, 0), bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(torch.cat([x, x[..., :11]], dim=-1)))  # a circle of twelve
