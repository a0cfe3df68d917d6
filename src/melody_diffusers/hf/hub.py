"""Tells diffusers and transformers our classes' names, so that their own loaders find them.

After `import melody_diffusers`, before or after theirs, all of these work on folders and on the Hub alike:

    diffusers.DiffusionPipeline.from_pretrained(...)          diffusers.AutoPipelineForText2Audio.from_pretrained(...)
    diffusers.AutoModel.from_pretrained(...)                  transformers.AutoModel.from_pretrained(...)

and a saved pipeline's model_index.json says `["melody_diffusers", "AudioVAEGAN"]`, not where in the package the class
lives. Only names are registered: nothing of ours is imported before it is used, and nothing of theirs is imported here.
Each registration runs as soon as the module it concerns is there. Some of it needs names that are not public; where an
upgrade has changed one, a warning says what no longer works, and the rest goes on. tests/hf/test_hub.py then fails.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from . import upstream
from .registry import PACKAGE

BASE_CLASSES = {
    "ModelMixin": "diffusers",
    "SchedulerMixin": "diffusers",
    "DiffusionPipeline": "diffusers",
    "PreTrainedModel": "transformers",
    "PreTrainedTokenizer": "transformers",
    "PreTrainedTokenizerFast": "transformers",
    "FeatureExtractionMixin": "transformers",
    "ProcessorMixin": "transformers",
}
"""The loader asks the library that a class comes from for these, and takes the class's loading method from them."""


def connect() -> None:
    """Register with what has been imported already, and with the rest when it will be. May be called again."""
    upstream.silence_noise()
    for name, add in _REGISTRATIONS.items():
        if name in sys.modules:
            _try(add, sys.modules[name])
    if not any(isinstance(finder, _RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegisterAfterImport())


class _RegisterAfterImport:
    """Import hook that leaves the import of a module alone and runs our registration right after it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in _REGISTRATIONS else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _try(_REGISTRATIONS[name], sys.modules[name])  # diffusers puts another object in its own place

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _try(add: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        add(module)
    except Exception as error:  # whatever upstream changed, its import must go on
        warnings.warn(
            f"{PACKAGE} could not register its classes with {module.__name__} ({type(error).__name__}: {error}); "
            f"use {PACKAGE}.MeLoDyPipeline.from_pretrained on a local folder, and see which versions are supported.",
            RuntimeWarning,
            stacklevel=2,
        )


_REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "diffusers": upstream.add_attributes,
    "diffusers.pipelines.pipeline_loading_utils": upstream.add_library,
    "diffusers.pipelines.auto_pipeline": upstream.add_auto_pipeline,
    "transformers.models.auto.configuration_auto": upstream.add_auto_configs,
    "transformers.models.auto.modeling_auto": upstream.add_auto_models,
}
