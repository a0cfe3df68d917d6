"""A space that nobody here trained, for Frechet and kernel distances: the encoder of CDPAM (Manocha et al. 2021).

    pip install --no-deps cdpam==0.0.6
    PYTHONPATH=conversion melody evaluate --embedding cdpam_embedding:embed

It learnt what people hear as different, and comes under MIT in the package cdpam, 102 MB. Its weights are in
a format of PyTorch that `weights_only` refuses; they are read here by an unpickler that knows nothing but tensors.
"""

import importlib.util
import pickle
import runpy
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from melody_diffusers.audio import resample

HOP_SECONDS = 2.5  # from one second that is heard to the next: each takes a CPU core about a second


class WeightsUnpickler(pickle.Unpickler):
    """Reads tensors in dictionaries, and refuses every other class. A tensor's numbers follow later in the file: it
    comes as a view of a storage that `read_weights` fills."""

    def __init__(self, file: Any):
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: storage.as_strided(
                size, stride, offset
            ),
            ("torch", "FloatStorage"): torch.float32,
            ("torch", "LongStorage"): torch.int64,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"a file of weights may not name {module}.{name}")
        return known[module, name]

    def persistent_load(self, identity: Any) -> torch.Tensor:
        _, dtype, key, _, count, *_ = identity
        return self.storages.setdefault(key, torch.empty(count, dtype=dtype))


def read_weights(path: Path) -> Any:
    """What `torch.save` wrote in its old format: magic number, version, machine, the object, and its storages."""
    with path.open("rb") as file:
        for _ in range(3):
            WeightsUnpickler(file).load()
        reader = WeightsUnpickler(file)
        saved = reader.load()
        for key in WeightsUnpickler(file).load():
            storage = reader.storages[key]
            if int.from_bytes(file.read(8), "little") != len(storage):
                raise ValueError(f"{path} is damaged: a storage has another length than its tensors say")
            storage.numpy().data.cast("B")[:] = file.read(storage.nbytes)
    return saved


@lru_cache(maxsize=1)
def _encoder() -> torch.nn.Module:
    spec = importlib.util.find_spec("cdpam")
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError("this embedding needs a package: pip install --no-deps cdpam==0.0.6")
    folder = Path(spec.submodule_search_locations[0])
    models = runpy.run_path(str(folder / "models.py"))  # alone: the package imports much that this does not need
    state = read_weights(folder / "CDPAM_trained/scratchJNDdefault_best_model.pth")["state"]
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
