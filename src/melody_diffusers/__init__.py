"""MeLoDy: music from text or from music, on diffusers and transformers.

Every public name is imported when it is first used, so that `import melody_diffusers` takes milliseconds.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import hub

if TYPE_CHECKING:
    from .models.discriminators import MultiPeriodDiscriminator, MultiResolutionDiscriminator
    from .models.dual_path import DualPathDiffusionModel
    from .models.mulan import MuLanConfig, MuLanModel
    from .models.residual_quantizer import ResidualQuantizer
    from .models.semantic_lm import SemanticLM, SemanticLMConfig
    from .models.semantic_tokenizer import SemanticTokenizer, SemanticTokenizerConfig
    from .models.vae_gan import AudioVAEGAN, AudioVAEGANConfig
    from .pipelines.checks import MeLoDyInputError
    from .pipelines.inpaint import MeLoDyInpaintPipeline
    from .pipelines.text_to_music import MeLoDyPipeline
    from .schedulers.angle import AngleScheduler
    from .timebase import Timebase

__version__ = "0.1.0"

MELODY_TINY: str = os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoints", "melody-tiny")
"""Folder of the checkpoint that ships with the package; for `MeLoDyPipeline.from_pretrained`."""

_MODULES = {
    "AngleScheduler": ".schedulers.angle",
    "AudioVAEGAN": ".models.vae_gan",
    "AudioVAEGANConfig": ".models.vae_gan",
    "DualPathDiffusionModel": ".models.dual_path",
    "MeLoDyInputError": ".pipelines.checks",
    "MeLoDyInpaintPipeline": ".pipelines.inpaint",
    "MeLoDyPipeline": ".pipelines.text_to_music",
    "MuLanConfig": ".models.mulan",
    "MuLanModel": ".models.mulan",
    "MultiPeriodDiscriminator": ".models.discriminators",
    "MultiResolutionDiscriminator": ".models.discriminators",
    "ResidualQuantizer": ".models.residual_quantizer",
    "SemanticLM": ".models.semantic_lm",
    "SemanticLMConfig": ".models.semantic_lm",
    "SemanticTokenizer": ".models.semantic_tokenizer",
    "SemanticTokenizerConfig": ".models.semantic_tokenizer",
    "Timebase": ".timebase",
}

__all__ = [
    "MELODY_TINY",
    "AngleScheduler",
    "AudioVAEGAN",
    "AudioVAEGANConfig",
    "DualPathDiffusionModel",
    "MeLoDyInpaintPipeline",
    "MeLoDyInputError",
    "MeLoDyPipeline",
    "MuLanConfig",
    "MuLanModel",
    "MultiPeriodDiscriminator",
    "MultiResolutionDiscriminator",
    "ResidualQuantizer",
    "SemanticLM",
    "SemanticLMConfig",
    "SemanticTokenizer",
    "SemanticTokenizerConfig",
    "Timebase",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name], __name__), name)
    elif name in hub.BASE_CLASSES:
        value = getattr(import_module(hub.BASE_CLASSES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


hub.register()
