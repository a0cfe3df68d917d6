"""A space that nobody here trained, for Frechet and kernel distances: the encoder of CDPAM (Manocha et al. 2021).

    pip install --no-deps cdpam==0.0.6
    PYTHONPATH=benchmarks melody evaluate --embedding cdpam_embedding:embed

It learnt what people hear as different, and comes under MIT in the package cdpam, 102 MB. Its weights are a pickle,
which nothing within melody_diffusers would read: who installs the package trusts it, and its code is run here as well.
"""

import importlib.util
import runpy
from functools import lru_cache
from pathlib import Path

import torch

from melody_diffusers.audio import resample

HOP_SECONDS = 2.5  # from one second that is heard to the next: each takes a CPU core about a second


@lru_cache(maxsize=1)
def _encoder() -> torch.nn.Module:
    spec = importlib.util.find_spec("cdpam")
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError("this embedding needs a package: pip install --no-deps cdpam==0.0.6")
    folder = Path(spec.submodule_search_locations[0])
    models = runpy.run_path(str(folder / "models.py"))  # alone: the package imports much that this does not need
    state = torch.load(folder / "CDPAM_trained/scratchJNDdefault_best_model.pth", "cpu", weights_only=False)["state"]
    encoder = models["base_encoder"](n_layers=16, nefilters=64)
    prefix = "base_encoder."
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return encoder.eval()


@torch.no_grad()
def embed(waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Vectors of 512 numbers by the half of the encoder that hears quality, not content: (B, 1, T) to (B * W, 512)."""
    encoder = _encoder()
    clips = (resample(waveform, sample_rate, 22050) * 32768).round()  # (B, 1, T), on the scale of 16-bit samples
    seconds = clips.unfold(-1, 22050, round(22050 * HOP_SECONDS))  # (B, 1, W, 22050)
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([encoder(second[:, None])[1] for second in seconds.flatten(0, 2).split(4)]).float()
