"""Independent judges of a clip: which style, which family of instruments leads it, how fast it is.

`ClipJudge` is a small convolutional net over log-mel frames, trained by `training/train_judges.py` on rendered
training clips only. It shares nothing with the models it judges: not MuLan, not the VAE, not the semantic tokens.
It has to hear music and not the renderer, so it is trained on spectrograms whose level, tone, noise floor, band-width
and sharpness are changed at random (`augment_log_mel`): the colour of a vocoder should neither help nor hurt.

Tempo needs no training: `estimate_bpm` is an autocorrelation of onsets.

Shapes: B clips, T samples, F mel frames, M mel bands.
"""

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from melody_diffusers.spectra import log_mel_spectrogram

OCTAVE_RATIOS = (1 / 2, 1, 2)
TRIPLE_RATIOS = (1 / 3, 1 / 2, 1, 2, 3)
LOG_FLOOR = 1e-3  # as white noise at -57 dB: quieter detail is the renderer's, not the music's


class ClipJudge(ModelMixin, ConfigMixin):
    """One trunk over log-mel frames and one linear head per question.

    Args:
        labels: question -> its possible answers, for example {"style": ["rock", "waltz", ...], "family": [...]}.
        width: channels of the first block; they grow to 4 x `width`.
        num_mels, hop_length, n_fft, sample_rate: the spectrogram; the defaults give 50 frames a second.
        dropout: on the pooled features, in training.
        context_layers: convolutions over time before the pooling, each twice as wide as the one before it. A frame of
            the trunk has heard 0.6 s, after two of them 4.5 s: a bar or more, for styles differ in their rhythm.
    """

    @register_to_config
    def __init__(
        self,
        labels: dict[str, list[str]],
        width: int = 24,
        num_mels: int = 64,
        hop_length: int = 480,
        n_fft: int = 1024,
        sample_rate: int = 24000,
        dropout: float = 0.2,
        context_layers: int = 0,
    ):
        super().__init__()
        channels = [1, width, 2 * width, 3 * width, 4 * width]
        blocks: list[nn.Module] = []
        for inputs, outputs in zip(channels[:-1], channels[1:], strict=True):
            blocks += [
                nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*blocks)
        # pitch matters to timbre, so the bands that are left are folded into channels and mixed before pooling
        bands = -(-num_mels // 16)
        self.mix = nn.Sequential(nn.Conv1d(channels[-1] * bands, 8 * width, 1, bias=False), nn.BatchNorm1d(8 * width))
        self.context = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(8 * width, 8 * width, 5, padding=2 * 2**i, dilation=2**i, bias=False),
                nn.BatchNorm1d(8 * width),
                nn.ReLU(),
            )
            for i in range(context_layers)
        )
        self.drop = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({question: nn.Linear(16 * width, len(names)) for question, names in labels.items()})

    def log_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """What the judge sees of (B, 1, T): natural-log mel amplitudes (B, F, M), not below `LOG_FLOOR`."""
        config = self.config
        return log_mel_spectrogram(
            waveform[:, 0],
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            num_mels=config.num_mels,
            floor=LOG_FLOOR,
        )

    def forward(self, log_mel: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (B, answers) for each question, from log-mel frames (B, F, M) of any length from 16 up."""
        x = log_mel - log_mel.mean(dim=(1, 2), keepdim=True)  # the level of a clip says nothing about it
        x = self.trunk(0.3 * x.unsqueeze(1))  # (B, 4 width, F / 16, M / 16)
        x = F.relu(self.mix(x.permute(0, 1, 3, 2).flatten(1, 2)))  # (B, 8 width, F / 16)
        for layer in self.context:
            x = x + layer(x)
        x = self.drop(torch.cat([x.mean(dim=-1), x.amax(dim=-1)], dim=-1))  # (B, 16 width)
        return {question: head(x) for question, head in self.heads.items()}

    @torch.no_grad()
    def judge(self, waveform: torch.Tensor) -> dict[str, list[str]]:
        """The most likely answer to each question for every clip of (B, 1, T), at the judge's sample rate."""
        logits = self(self.log_mel(waveform))
        return {
            question: [self.config.labels[question][i] for i in logits[question].argmax(dim=-1).tolist()]
            for question in self.config.labels
        }


def augment_log_mel(log_mel: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same music through another chain: (B, F, M) log-mel frames -> (B, F, M), each clip changed in its own way.

    Always: a gain of +-6 dB and a smooth equaliser of up to +-9 dB. In half of the clips each: a blur over time and
    frequency, as of a vocoder that smears; a flutter of each bin by up to 4 dB; the clip's own mean spectrum 8 to 30 dB
    down, as of a model that fills the gaps between notes; a noise floor 35 to 75 dB below full scale. In a third: a
    low-pass somewhere in the upper half of the bands.
    """
    batch, frames, mels = log_mel.shape
    device = log_mel.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator, device=generator.device).to(device)

    def in_half(values: torch.Tensor, otherwise: float) -> torch.Tensor:
        return torch.where(uniform(0, 1, 1, 1) < 0.5, values, otherwise)

    def normal() -> torch.Tensor:
        return torch.randn(log_mel.shape, generator=generator, device=generator.device).to(device)

    def add_powers(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.logaddexp(2 * a, 2 * b) / 2

    decibel = math.log(10) / 20
    gain = uniform(-6, 6, 1, 1) * decibel
    knots = uniform(-9, 9, 1, 5) * decibel * uniform(0, 1, 1, 1)
    equaliser = F.interpolate(knots, size=mels, mode="linear", align_corners=True)  # (B, 1, M)
    x = log_mel + gain + equaliser

    cutoff = torch.where(uniform(0, 1, 1, 1) < 1 / 3, uniform(0.5, 1.0, 1, 1), 2.0) * mels
    x = x - 0.5 * (torch.arange(mels, device=device) - cutoff).clamp(min=0)  # 4 dB a band beyond the cutoff
    blurred = F.avg_pool2d(x.unsqueeze(1), 3, stride=1, padding=1, count_include_pad=False).squeeze(1)
    x = torch.lerp(x, blurred, in_half(uniform(0, 1, 1, 1), 0.0))
    x = x + in_half(uniform(0, 4, 1, 1), 0.0) * decibel * normal()
    mean_spectrum = torch.logsumexp(2 * x, dim=1, keepdim=True) / 2 - math.log(frames) / 2  # (B, 1, M)
    x = add_powers(x, mean_spectrum + in_half(uniform(-30, -8, 1, 1), -200.0) * decibel)
    x = add_powers(x, in_half(uniform(-75, -35, 1, 1), -200.0) * decibel + 0.4 * normal())
    return x.clamp(min=math.log(LOG_FLOOR))


def estimate_bpm(waveform: torch.Tensor, *, sample_rate: int = 24000) -> float:
    """The tempo of one clip (1, T) in beats per minute, between 50 and 240; 0.0 for a clip without onsets.

    Onset strength (the rise of the log-mel spectrum, a hundred times a second) is correlated with itself; a tempo
    scores the mean correlation at 1, 2, 3, 4 and 8 of its beats, as far as the clip holds them, weighed by how usual it
    is: a bell over octaves, centred on 120.
    """
    log_mel = log_mel_spectrogram(waveform[0], sample_rate=sample_rate, hop_length=sample_rate // 100, floor=LOG_FLOOR)
    onsets = log_mel.diff(dim=0).clamp(min=0).mean(dim=-1).cpu().double()  # (frames - 1,)
    frames = len(onsets)
    if frames < 400 or not onsets.any():  # two beats at 50 bpm and a second to compare
        return 0.0
    smooth = F.avg_pool1d(onsets[None], 101, stride=1, padding=50, count_include_pad=False)[0]
    onsets = (onsets - smooth).clamp(min=0)
    power = torch.fft.rfft(onsets - onsets.mean(), n=2 * frames).abs().square()
    correlation = torch.fft.irfft(power)[:frames] / torch.arange(frames, 0, -1)  # the same weight for every lag
    correlation = F.avg_pool1d(correlation[None], 3, stride=1, padding=1)[0]  # onsets come a frame early or late

    tempos = 50 * 2 ** torch.linspace(0, math.log2(240 / 50), 600, dtype=torch.float64)
    lags = 6000 / tempos[:, None] * torch.tensor([1, 2, 3, 4, 8])  # (tempos, 5) in frames
    held = lags < frames - 100
    below = lags.long().clamp(max=frames - 2)
    comb = torch.lerp(correlation[below], correlation[below + 1], (lags - below).clamp(max=1))
    comb = (comb * held).sum(dim=1) / held.sum(dim=1)  # (tempos,)
    usual = torch.exp(-0.5 * (torch.log2(tempos / 120) / 0.8).square())
    return tempos[(comb * usual).argmax()].item()


def tempo_matches(estimated: float, named: float, *, tolerance: float = 0.08, ratios: tuple[float, ...] = (1,)) -> bool:
    """True where an estimated tempo is within `tolerance` of one of the metrical levels of the named tempo.

    A listener who taps half or twice as fast hears the same tempo: `OCTAVE_RATIOS` allows that, and `TRIPLE_RATIOS`
    also one tap in three, for waltzes and swing. Each ratio makes a hit by luck likelier: read the hit rate beside
    that of shuffled prompts.
    """
    return any(abs(estimated - ratio * named) <= tolerance * ratio * named for ratio in ratios)
