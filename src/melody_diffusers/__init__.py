"""MeLoDy: music from text or from music, on diffusers and transformers.

Every public name is imported when it is first used, so that `import melody_diffusers` takes milliseconds.
"""

import gc
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .hf import hub
from .hf.registry import CLASSES as _CLASSES
from .hf.registry import MELODY_TINY, added_class, register

if TYPE_CHECKING:  # for type checkers; a test holds it to the registry
    from .models.audio_vae import AudioVAEGAN as AudioVAEGAN
    from .models.audio_vae import AudioVAEGANConfig as AudioVAEGANConfig
    from .models.discriminators import MultiPeriodDiscriminator as MultiPeriodDiscriminator
    from .models.discriminators import MultiResolutionDiscriminator as MultiResolutionDiscriminator
    from .models.dual_path import DualPathDiffusionModel as DualPathDiffusionModel
    from .models.mulan import MuLanConfig as MuLanConfig
    from .models.mulan import MuLanModel as MuLanModel
    from .models.residual_quantizer import ResidualQuantizer as ResidualQuantizer
    from .models.semantic_lm import SemanticLM as SemanticLM
    from .models.semantic_lm import SemanticLMConfig as SemanticLMConfig
    from .models.semantic_tokenizer import SemanticTokenizer as SemanticTokenizer
    from .models.semantic_tokenizer import SemanticTokenizerConfig as SemanticTokenizerConfig
    from .pipelines.checks import MeLoDyInputError as MeLoDyInputError
    from .pipelines.inpaint import MeLoDyInpaintPipeline as MeLoDyInpaintPipeline
    from .pipelines.stream import MeLoDyStreamPipeline as MeLoDyStreamPipeline
    from .pipelines.stream import StreamState as StreamState
    from .pipelines.text_to_music import MeLoDyPipeline as MeLoDyPipeline
    from .pipelines.vary import MeLoDyVariationPipeline as MeLoDyVariationPipeline
    from .plans import MusicPlan as MusicPlan
    from .schedulers.angle import AngleScheduler as AngleScheduler
    from .timebase import Timebase as Timebase

__version__ = "0.1.0"

__all__ = ["MELODY_TINY", "__version__", "register", *_CLASSES]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        value = getattr(_import_at_once(_CLASSES[name].module), name)
    elif name in hub.BASE_CLASSES:
        value = getattr(import_module(hub.BASE_CLASSES[name]), name)
    elif (added := added_class(name)) is not None:
        return added
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _import_at_once(module: str) -> ModuleType:
    """The module, imported while no garbage is collected.

    diffusers and transformers bring half a million objects, all to stay: to go through them again and again as they
    come takes a quarter of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return import_module(module, __name__)
    finally:
        if was_enabled:
            gc.enable()


def __dir__() -> list[str]:
    return sorted(__all__)


hub.connect()
