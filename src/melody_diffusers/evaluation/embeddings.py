"""Embeddings of clips, for Frechet and kernel distances: functions from waveforms to vectors.

An embedding takes waveforms (B, 1, T) with their sample rate and gives (B * W, E): W vectors for each clip, clip after
clip. `log_mel_statistics` needs no trained model, `mulan_embedding` uses the one inside a pipeline, `clap_embedding`
any CLAP that transformers loads; `load_embedding` finds those and a user's own function by name.

Shapes: B clips, T samples, W vectors of a clip, E embedding width.
"""

import importlib
from collections.abc import Callable

import torch
from transformers import AutoFeatureExtractor, ClapModel

from melody_diffusers.audio import resample
from melody_diffusers.models.mulan import MuLanModel
from melody_diffusers.spectra import log_mel_spectrogram

Embedding = Callable[[torch.Tensor, int], torch.Tensor]


def log_mel_statistics(
    waveform: torch.Tensor, sample_rate: int = 24000, *, num_mels: int = 32, window_seconds: float = 1.0
) -> torch.Tensor:
    """Untrained embeddings: the mean and deviation of each log-mel band in every whole window.

    Args:
        waveform: (B, 1, T), at least one window long.

    Returns:
        (B * W, 2 * num_mels) float32: natural-log units, one row per window of `window_seconds`.
    """
    hop_length = sample_rate // 100
    log_mel = log_mel_spectrogram(
        waveform[:, 0], sample_rate=sample_rate, n_fft=1024, hop_length=hop_length, num_mels=num_mels
    )  # (B, frames, num_mels)
    frames = round(window_seconds * sample_rate / hop_length)
    if log_mel.shape[1] < frames:
        raise ValueError(f"waveform is shorter than one window of {window_seconds} s: {waveform.shape[-1]} samples")
    windows = log_mel.unfold(1, frames, frames).flatten(0, 1)  # (B * W, num_mels, frames)
    return torch.cat([windows.mean(dim=-1), windows.std(dim=-1)], dim=-1)  # (B * W, 2 * num_mels)


def mulan_embedding(mulan: MuLanModel) -> Embedding:
    """One vector of unit length for each clip, at the rate the model was trained for."""

    def embed(waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        waveform = resample(waveform, sample_rate, mulan.config.sample_rate)
        return mulan.get_audio_features(waveform.to(mulan.device, mulan.dtype)).float().cpu()

    return embed


def clap_embedding(model: str, device: str = "cpu") -> Embedding:
    """One vector of unit length for each clip, by a CLAP from a folder or the Hub, such as laion/clap-htsat-unfused."""
    clap = ClapModel.from_pretrained(model).eval().to(device)
    extractor = AutoFeatureExtractor.from_pretrained(model)

    @torch.no_grad()
    def embed(waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        clips = resample(waveform, sample_rate, extractor.sampling_rate)[:, 0]
        inputs = extractor(list(clips.numpy()), sampling_rate=extractor.sampling_rate, return_tensors="pt").to(device)
        return clap.get_audio_features(**inputs).pooler_output.float().cpu()

    return embed


def load_embedding(name: str, device: str = "cpu") -> Embedding:
    """The embedding that `melody evaluate --embedding NAME` means: `clap:FOLDER_OR_REPO`, or `module:function`.

    A module is imported as by `import`: one in the working folder needs PYTHONPATH=. on the command line.
    """
    module, separator, attribute = name.partition(":")
    if not separator or not attribute:
        raise ValueError(f"an embedding is clap:FOLDER_OR_REPO or module:function, got {name!r}")
    if module == "clap":
        return clap_embedding(attribute, device)
    function = getattr(importlib.import_module(module), attribute, None)
    if not callable(function):
        raise ValueError(f"{module} has no function {attribute!r}")
    return function
