"""What our classes derive from, so that each names its own family once: safe loading, saving, publishing, adapters.

A model of diffusers is a `DiffusersModel`; one of transformers names `TransformersModel` before the class of that
library that it extends, and its configuration `TransformersConfig`.
"""

import os
from collections.abc import Mapping
from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.autoencoders.vae import AutoencoderMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from .loading import CheckedConfig, CheckedLoading, check_index, check_pipeline, links_allowed
from .lora import LoraPipelineMixin
from .publishing import PortableConfigMixin, PublishMixin
from .registry import PACKAGE, added_class


class DiffusersModel(
    CheckedLoading, PublishMixin, PortableConfigMixin, ModelMixin, ConfigMixin, AttentionMixin, PeftAdapterMixin
):
    """A model that loads and saves as diffusers' do, is checked as it is loaded, and may hold adapters."""


class DiffusersScheduler(CheckedLoading, PublishMixin, PortableConfigMixin, SchedulerMixin, ConfigMixin):
    """A scheduler that loads and saves as diffusers' do, checked as it is loaded."""


class TransformersModel(CheckedLoading, PublishMixin, PeftAdapterMixin):
    """Before `PreTrainedModel`, or a class that derives from it: checked as it is loaded, adapters as in diffusers."""


class TransformersAutoencoder(TransformersModel, AutoencoderMixin):
    """The same for an autoencoder, which may also work in slices and tiles."""


class TransformersConfig(PortableConfigMixin, CheckedConfig):
    """Before `PreTrainedConfig`, or a class that derives from it: what comes from a file is checked."""


class Pipeline(LoraPipelineMixin, PublishMixin, PortableConfigMixin, DiffusionPipeline):
    """A pipeline of diffusers whose repository is checked before anything in it is loaded.

    Its components may be any class that `registry.register` has been told of.
    """

    _not_by_forward: list[str] = []  # components that are asked by `encode` and the like, never by `forward`

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *, allow_links: bool = False, **kwargs):
        """`DiffusionPipeline.from_pretrained`, which refuses a folder that is not safe and whole (see `loading`).

        Args:
            allow_links: the files of weights may be links that lead out of the folder, to another disk say.
        """
        with links_allowed(allow_links):
            if os.path.isdir(pretrained_model_name_or_path):
                check_pipeline(pretrained_model_name_or_path, kwargs)
            # upstream lets a component stand in for one of its own library only, so registered ones join afterwards
            added = {slot: part for slot, part in kwargs.items() if added_class(type(part).__name__) is type(part)}
            pipe = super().from_pretrained(pretrained_model_name_or_path, **kwargs | dict.fromkeys(added))
        return cls.from_pipe(pipe, **added) if added else pipe

    @classmethod
    def download(cls, pretrained_model_name, **kwargs):
        """`DiffusionPipeline.download`, which refuses a repository that is not safe and whole (see `loading`)."""
        folder = super().download(pretrained_model_name, **kwargs)
        check_pipeline(folder, kwargs)
        return folder

    @classmethod
    def extract_init_dict(cls, config_dict, **kwargs):
        """As upstream's. `DiffusionPipeline.from_pretrained`, too, calls it before it loads what the index names."""
        if kwargs.pop("allow_links", False):  # comes here from another loader, which has no place for it
            raise ValueError(f"Only {cls.__name__}.from_pretrained takes allow_links=True; load the folder by that.")
        check_index(config_dict)
        slots, *others = super().extract_init_dict({**config_dict, **cls._stored(config_dict)}, **kwargs)
        return dict(sorted(slots.items(), key=lambda slot: slot[0] == "tokenizer")), *others  # after what checks it

    @classmethod
    def from_pipe(cls, pipeline, **kwargs):
        """`DiffusionPipeline.from_pipe`; without a `dtype`, it leaves the shared components in theirs.

        `sampling` is laid over that of the pipeline, as when loading.
        """
        if not isinstance(pipeline, Pipeline):
            return super().from_pipe(pipeline, **kwargs)
        kwargs = cls._stored(pipeline.config) | kwargs
        if {"dtype", "torch_dtype"} & set(kwargs):
            return super().from_pipe(pipeline, **kwargs)
        config = {name: value for name, value in pipeline.config.items() if name in cls._get_signature_keys(cls)[1]}
        new = cls(**(pipeline.components | config | kwargs))
        new.register_to_config(_name_or_path=pipeline.name_or_path)
        return new

    @classmethod
    def _stored(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """`sampling` under another name: under its own, upstream lets what the caller gives take the place of it."""
        expected = "stored_sampling" in cls._get_signature_keys(cls)[1]
        return {"stored_sampling": config.get("sampling")} if expected else {}

    def register_modules(self, **components) -> None:
        """As upstream's; a registered class goes into model_index.json as one of this package, by its name."""
        super().register_modules(**components)
        for slot, component in components.items():
            name = type(component).__name__
            if added_class(name) is type(component):
                self.register_to_config(**{slot: (PACKAGE, name)})

    def enable_group_offload(self, *args, exclude_modules: str | list[str] | None = None, **kwargs) -> None:
        """`DiffusionPipeline.enable_group_offload` for the components that work by `forward`.

        Group offloading brings weights back at `forward`. The others, which are asked by `encode`, `decode` and the
        like, go to the onload device and stay there.
        """
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else list(exclude_modules or ())
        super().enable_group_offload(*args, exclude_modules=self._not_by_forward + excluded, **kwargs)
