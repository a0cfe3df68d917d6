"""Embeddings of clips, for Frechet and kernel distances: functions from waveforms to vectors.

An embedding takes waveforms (B, 1, T) with their sample rate and gives (B * W, E): W vectors for each clip, clip after
clip. `log_mel_statistics` needs no trained model, `mulan_embedding` uses the one inside a pipeline, `clap_embedding`
any CLAP that transformers loads, `cdpam_embedding` the weights in the package cdpam; `load_embedding` finds those and a
user's own function by name.

Shapes: B clips, T samples, W vectors of a clip, E embedding width.
"""

import importlib
import importlib.util
import runpy
from collections.abc import Callable
from pathlib import Path

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


def cdpam_embedding(device: str = "cpu", *, hop_seconds: float = 2.5) -> Embedding:
    """Vectors of 512 numbers by the encoder of CDPAM (Manocha et al. 2021), the half that hears quality, not content.

    Trained on what people hear as different, and on nothing of ours; MIT, in the package cdpam. One second each
    `hop_seconds`: each takes a CPU core about a second.
    """
    spec = importlib.util.find_spec("cdpam")
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError("the embedding cdpam needs its package: pip install --no-deps cdpam==0.0.6")
    folder = Path(spec.submodule_search_locations[0])
    # its module of models alone: the package imports much that this does not need
    models = runpy.run_path(str(folder / "models.py"))
    # not weights_only: the file is of a format that this refuses. It comes with the code that has just run.
    state = torch.load(folder / "CDPAM_trained/scratchJNDdefault_best_model.pth", "cpu", weights_only=False)["state"]
    encoder = models["base_encoder"](n_layers=16, nefilters=64)
    prefix = "base_encoder."
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    encoder.eval().to(device)

    @torch.no_grad()
    def embed(waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        clips = (resample(waveform, sample_rate, 22050) * 32768).round()  # (B, 1, T), on the scale of 16-bit samples
        seconds = clips.unfold(-1, 22050, round(22050 * hop_seconds))  # (B, 1, W, 22050)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            vectors = [encoder(second[:, None].to(device))[1] for second in seconds.flatten(0, 2).split(4)]
        return torch.cat(vectors).float().cpu()

    return embed


def load_embedding(name: str, device: str = "cpu") -> Embedding:
    """The embedding that `melody evaluate --embedding NAME` means: `cdpam`, `clap:FOLDER_OR_REPO` or `module:function`.

    A module is imported as by `import`: one in the working folder needs PYTHONPATH=. on the command line.
    """
    if name == "cdpam":
        return cdpam_embedding(device)
    module, separator, attribute = name.partition(":")
    if not separator or not attribute:
        raise ValueError(f"an embedding is cdpam, clap:FOLDER_OR_REPO or module:function, got {name!r}")
    if module == "clap":
        return clap_embedding(attribute, device)
    function = getattr(importlib.import_module(module), attribute, None)
    if not callable(function):
        raise ValueError(f"{module} has no function {attribute!r}")
    return function
