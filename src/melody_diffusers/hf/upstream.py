"""Every name that diffusers and transformers do not promise to keep and that we use, in one place.

`NAMES` lists those that our classes override or read, and tests/hf/test_upstream.py says which of them an upgrade has
taken away. The functions below touch the rest. Nothing of theirs is imported before a function needs it.
"""

import logging
import re
from importlib import import_module
from types import ModuleType
from typing import Any

from .registry import CLASSES, PACKAGE

NAMES = {
    "diffusers.pipelines.pipeline_loading_utils:LOADABLE_CLASSES": "libraries whose classes a pipeline may name",
    "diffusers.pipelines.pipeline_loading_utils:ALL_IMPORTABLE_CLASSES": "base classes the loader asks a library for",
    "diffusers.pipelines.auto_pipeline:AUTO_TEXT2AUDIO_PIPELINES_MAPPING": "AutoPipelineForText2Audio",
    "diffusers.loaders.lora_base:_fetch_state_dict": "an adapter's tensors from a folder, a file or the Hub",
    "diffusers.loaders.lora_base:LORA_WEIGHT_NAME_SAFE": "the file they lie in",
    "diffusers.loaders.lora_base:LoraBaseMixin._optionally_disable_offloading": "weights back where they can be read",
    "diffusers:DiffusionPipeline._execution_device": "the device of a pipeline, offloaded or not",
    "diffusers:DiffusionPipeline._exclude_from_cpu_offload": "components that stay on the device",
    "diffusers:DiffusionPipeline._optional_components": "components that may be None",
    "diffusers:DiffusionPipeline._get_signature_keys": "a pipeline's configuration",
    "diffusers:DiffusionPipeline.extract_init_dict": "comes between the index and what it names",
    "diffusers:DiffusionPipeline.model_cpu_offload_seq": "the order of the models",
    "diffusers:ModelMixin._supports_gradient_checkpointing": "that a model may be checkpointed",
    "diffusers:ModelMixin._no_split_modules": "blocks that stay on one device",
    "diffusers:ModelMixin._repeated_blocks": "blocks that are compiled once",
    "diffusers:ModelMixin._skip_layerwise_casting_patterns": "layers that keep their precision",
    "diffusers:ModelMixin._set_gradient_checkpointing": "sets `_gradient_checkpointing_func` on a model",
    "diffusers.models.attention:AttentionModuleMixin._default_processor_cls": "how attention is computed",
    "diffusers.models.attention_dispatch:dispatch_attention_fn": "the attention backends",
    "transformers.models.auto.configuration_auto:CONFIG_MAPPING_NAMES": "AutoConfig",
    "transformers.models.auto.configuration_auto:CONFIG_MAPPING._modules": "AutoConfig",
    "transformers.models.auto.modeling_auto:MODEL_MAPPING._reverse_config_mapping": "AutoModel",
    "transformers.models.auto.modeling_auto:MODEL_MAPPING._model_mapping": "AutoModel",
    "transformers.models.auto.modeling_auto:MODEL_MAPPING._modules": "AutoModel",
    "transformers.models.auto.modeling_auto:MODEL_FOR_CAUSAL_LM_MAPPING._model_mapping": "AutoModelForCausalLM",
    "transformers.cache_utils:DynamicLayer.update": "a language model's keys and values",
    "transformers:PreTrainedModel._init_weights": "weights of a model that is made anew",
    "transformers:PreTrainedModel._supports_sdpa": "PyTorch's attention",
    "transformers.initialization:normal_": "which spares weights that were loaded",
}
"""module:attribute -> what it is for."""


NOISE = {  # logger -> what it says at every import where torchao is installed, and what is no concern of anybody's
    "torchao": r"Failed to load .*_C_\w+[\w.-]*\.so: .*",
    "torch.utils._pytree": r".* is an Enum subclass and is now natively supported by torch\.compile .*",
    "diffusers.quantizers.torchao.torchao_quantizer": r"Unable to import `torchao` Tensor objects\. .*",
}


def silence_noise() -> None:
    """Leave out the messages of `NOISE`, and none besides. May be called again."""
    for name, pattern in NOISE.items():
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Without) for each in logger.filters):
            logger.addFilter(_Without(pattern))


class _Without(logging.Filter):
    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._pattern = re.compile(pattern, re.DOTALL)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self._pattern.fullmatch(record.getMessage())


def _ours(name: str) -> Any:
    return getattr(import_module(PACKAGE), name)


def add_attributes(diffusers: ModuleType) -> None:
    previous = vars(diffusers).get("__getattr__")
    if getattr(previous, "__module__", None) == __name__:
        return

    def __getattr__(name: str) -> Any:
        if name in CLASSES and CLASSES[name].library == "diffusers":
            return _ours(name)
        if previous is not None:
            return previous(name)
        raise AttributeError(f"module {diffusers.__name__!r} has no attribute {name!r}")

    diffusers.__getattr__ = __getattr__  # type: ignore[method-assign]


def add_library(pipeline_loading_utils: ModuleType) -> None:
    pipeline_loading_utils.LOADABLE_CLASSES.setdefault(PACKAGE, {})


def add_auto_pipeline(auto_pipeline: ModuleType) -> None:
    auto_pipeline.AUTO_TEXT2AUDIO_PIPELINES_MAPPING.setdefault("melody", _ours("MeLoDyPipeline"))


def add_auto_configs(configuration_auto: ModuleType) -> None:
    for entry in CLASSES.values():
        if entry.model_type is not None:
            configuration_auto.CONFIG_MAPPING_NAMES.setdefault(entry.model_type, entry.config)
            configuration_auto.CONFIG_MAPPING._modules[entry.model_type] = import_module(PACKAGE)


def add_auto_models(modeling_auto: ModuleType) -> None:
    for name, entry in CLASSES.items():
        if entry.auto_table is not None:
            table = getattr(modeling_auto, entry.auto_table)
            table._reverse_config_mapping.setdefault(entry.config, entry.model_type)
            table._model_mapping.setdefault(entry.model_type, name)
            table._modules[entry.model_type] = import_module(PACKAGE)


def forget_rotary_table(encoder: Any) -> None:
    """Make a Wav2Vec2-Conformer compute its rotary table anew: it keeps one per length, whatever dtype it was made in.

    Raises:
        AttributeError: transformers calls the table's length by another name now.
    """
    positions = encoder.encoder.embed_positions
    positions.cached_sequence_length  # noqa: B018 (raises where an assignment would do nothing)
    positions.cached_sequence_length = None
