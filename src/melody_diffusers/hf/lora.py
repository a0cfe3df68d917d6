"""LoRA adapters of a pipeline (Hu et al. 2021), by PEFT, with the methods that diffusers' users know.

An adapter is one file, `pytorch_lora_weights.safetensors`. Its tensors begin with `dual_path.` or `semantic_lm.`; its
header names rank, alpha and target modules of each, and the base it was trained on: the name, and a digest of the
weights of each model.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE, LoraBaseMixin, _fetch_state_dict
from diffusers.utils import logging
from torch import nn

from ..files import all_or_nothing
from .peft_folders import COMPONENTS, CONFIG_FIELDS, check_settings, read_peft_folders
from .publishing import upload

logger = logging.get_logger(__name__)


def base_digest(model: nn.Module) -> str:
    """A digest of a model's names, shapes and signs of weights, adapters aside; 16 hexadecimal digits.

    Signs survive a change of dtype, so that a checkpoint has one digest in float32, bfloat16 and float16. They do not
    survive int8, where small weights become 0: a quantized model has a digest of its own.
    """
    weights = {
        name.replace(".base_layer.", "."): weight
        for name, weight in model.named_parameters()
        if not any(part.startswith("lora_") for part in name.split("."))
    }
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        plain = weight.detach() if type(weight.data) is torch.Tensor else weight.detach().dequantize()
        digest.update(np.packbits(torch.signbit(plain).cpu().numpy()).tobytes())
    return digest.hexdigest()


class LoraPipelineMixin(LoraBaseMixin):
    """Adapters on `dual_path` and `semantic_lm`: load, mix, fuse, swap, save.

    The methods that are not here are those of `diffusers.loaders.lora_base.LoraBaseMixin`.
    """

    _lora_loadable_modules = COMPONENTS

    @classmethod
    def lora_state_dict(
        cls,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        force_download: bool = False,
        proxies: dict[str, str] | None = None,
        local_files_only: bool | None = None,
        return_lora_metadata: bool = False,
    ) -> Any:
        """The tensors of an adapter, by name, and with `return_lora_metadata` what its header says (None for a dict).

        Raises:
            ValueError: the file is not safetensors, is no adapter for our models, or holds NaN or infinity.
        """
        if weight_name is not None and not weight_name.endswith(".safetensors"):
            raise ValueError(f"`weight_name` must end in .safetensors, the only format read; got {weight_name}.")
        source = pretrained_model_name_or_path_or_dict
        state_dict, metadata = _fetch_state_dict(
            dict(source) if isinstance(source, Mapping) else os.fspath(source),
            weight_name=weight_name,
            use_safetensors=True,
            local_files_only=local_files_only,
            cache_dir=cache_dir,
            force_download=force_download,
            proxies=proxies,
            token=token,
            revision=revision,
            subfolder=subfolder,
            user_agent={"file_type": "attn_procs_weights", "framework": "pytorch"},
            allow_pickle=False,
        )
        foreign = [key for key in state_dict if key.split(".")[0] not in COMPONENTS or ".lora_" not in key]
        if foreign or not state_dict:
            raise ValueError(
                f"{_show(source)} is no adapter of a MeLoDy pipeline: its tensors must be LoRA weights whose names "
                f"begin with {' or '.join(f'{name}.' for name in COMPONENTS)}; got {foreign[:2] or 'none'}."
            )
        if not all(torch.isfinite(weight).all() for weight in state_dict.values()):
            raise ValueError(f"{_show(source)} holds NaN or infinity; it must have been damaged, or its training was.")
        return (state_dict, metadata) if return_lora_metadata else state_dict

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        allow_other_base: bool = False,
        low_cpu_mem_usage: bool = True,
        **kwargs,
    ) -> None:
        """Load an adapter and make it the active one.

        Args:
            pretrained_model_name_or_path_or_dict: a folder, a file or a repository of the Hub; or tensors by name; or
                a folder that PEFT wrote for one of the models, or one with such a folder for each. Of the last two
                the base cannot be checked.
            adapter_name: its name from now on; by default default_0, default_1 and so on.
            hotswap: put the weights in the place of those of the adapter `adapter_name`, which a compiled model
                survives. For other ranks, call `enable_lora_hotswap(target_rank=...)` before the first is loaded.
            allow_other_base: load it although this pipeline's weights are not those that it was trained on.
            low_cpu_mem_usage: make no random weights that the file's will replace.
            **kwargs: `weight_name`, `subfolder`, `revision`, `token`, `cache_dir`, `force_download`, `proxies` and
                `local_files_only`, as everywhere in diffusers.

        Raises:
            ValueError: not an adapter, trained on another base, the name is taken (with `hotswap`: is not there), or
                an adapter is fused.
        """
        source = pretrained_model_name_or_path_or_dict
        of_peft = read_peft_folders(self.components, source, kwargs.get("subfolder"), kwargs.get("weight_name"))
        if of_peft is None:
            state_dict, metadata = self.lora_state_dict(source, return_lora_metadata=True, **kwargs)
        else:
            state_dict, metadata = of_peft
            logger.warning(f"{_show(source)} does not say which base it was trained on; it is taken to be this one.")
        check_settings(_show(source), metadata or {})
        parts = [name for name in COMPONENTS if any(key.startswith(f"{name}.") for key in state_dict)]
        present = self.get_list_adapters()
        if adapter_name is None:
            taken = {name for names in present.values() for name in names}
            adapter_name = next(name for i in range(len(taken) + 1) if (name := f"default_{i}") not in taken)
        holders = [name for name in COMPONENTS if adapter_name in present.get(name, ())]
        if hotswap and holders != parts:
            raise ValueError(
                f"hotswap puts {_show(source)} (for {_listed(parts)}) in the place of the adapter {adapter_name!r} "
                f"(of {_listed(holders)}): both must adapt the same models. Load it under another name."
            )
        if holders and not hotswap:
            raise ValueError(
                f"There is an adapter {adapter_name!r} already. Choose another `adapter_name`, replace it with "
                f"hotswap=True, or call delete_adapters({adapter_name!r}) first."
            )
        with self._without_offloading():
            digests = {name: self._base_digest(name) for name in parts}
            if not (allow_other_base or isinstance(source, Mapping) or of_peft is not None):
                self._check_base(_show(source), digests, metadata or {})
            try:
                for name in parts:
                    getattr(self, name).load_lora_adapter(
                        state_dict,
                        prefix=name,
                        adapter_name=adapter_name,
                        hotswap=hotswap,
                        metadata=_config_of(name, metadata),
                        low_cpu_mem_usage=low_cpu_mem_usage,
                        _pipeline=self,
                    )
            except Exception:
                if not hotswap:
                    self.delete_adapters(adapter_name)
                    if not any(self.get_list_adapters().values()):
                        self.unload_lora_weights()
                raise
        if not hotswap:
            self.set_adapters(adapter_name)

    def save_lora_weights(
        self,
        save_directory: str | os.PathLike,
        adapter_name: str | None = None,
        weight_name: str | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
    ) -> None:
        """Write an adapter as one file into a folder, whole or not at all.

        A method of the pipeline, unlike upstream's class methods, since the file says what base it belongs to.

        Args:
            save_directory: is made if it isn't there.
            adapter_name: which one; may be left out if there is only one.
            weight_name: of the file, `pytorch_lora_weights.safetensors` by default.
            push_to_hub: then upload the folder, with a card if there is none.
            repo_id, private, token: as in `pipe.push_to_hub`; the repository has the folder's name by default.
        """
        from peft import get_peft_model_state_dict

        present = self.get_list_adapters()
        names = sorted({name for names in present.values() for name in names})
        if adapter_name is None and len(names) == 1:
            adapter_name = names[0]
        if adapter_name is None or adapter_name not in names:
            raise ValueError(f"`adapter_name` must be one of {names}; got {adapter_name!r}.")
        if os.path.isfile(save_directory):
            raise ValueError(f"`save_directory` must be a folder; {os.fspath(save_directory)} is a file.")
        if weight_name is not None and not weight_name.endswith(".safetensors"):
            raise ValueError(f"`weight_name` must end in .safetensors; got {weight_name}.")
        state_dict: dict[str, torch.Tensor] = {}
        metadata: dict[str, Any] = {"base.model": self._base_name()}
        with self._without_offloading():
            for part, adapters in present.items():
                if adapter_name not in adapters:
                    continue
                model = getattr(self, part)
                metadata[f"base.{part}"] = self._base_digest(part)
                config = model.peft_config[adapter_name].to_dict()
                targets = config["target_modules"]
                config["target_modules"] = targets if isinstance(targets, str) else sorted(targets)
                metadata |= {f"{part}.{field}": config[field] for field in CONFIG_FIELDS}
                weights = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
                state_dict |= {f"{part}.{key}": weight.detach().cpu() for key, weight in weights.items()}
        with all_or_nothing(Path(save_directory)) as folder:
            self.write_lora_layers(
                state_dict,
                str(folder),
                is_main_process=True,
                weight_name=weight_name or LORA_WEIGHT_NAME_SAFE,
                save_function=None,
                safe_serialization=True,
                lora_adapter_metadata=metadata,
            )
        if push_to_hub:
            name = Path(save_directory).name if repo_id is None else repo_id
            upload(self, save_directory, name, private=private, token=token, adapter=True)

    def fuse_lora(
        self,
        components: list[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
    ) -> None:
        """Add the active adapters, or those named, to the weights of `components` (by default both models)."""
        super().fuse_lora(
            components=COMPONENTS if components is None else components,
            lora_scale=lora_scale,
            safe_fusing=safe_fusing,
            adapter_names=adapter_names,
        )

    def unfuse_lora(self, components: list[str] | None = None) -> None:
        """Subtract what `fuse_lora` added."""
        super().unfuse_lora(components=COMPONENTS if components is None else components)

    def _check_base(self, source: str, digests: dict[str, str], metadata: dict[str, Any]) -> None:
        if all(metadata.get(f"base.{part}") == digest for part, digest in digests.items()):
            return
        if "base.model" not in metadata:
            trained_on = "does not say which base it was trained on"
        else:
            stated = {part: metadata.get(f"base.{part}") for part in digests}
            trained_on = f"was trained on {metadata['base.model']!r} ({_listed(stated)})"
        raise ValueError(
            f"{source} {trained_on}, and this pipeline is {self._base_name()!r} ({_listed(digests)}). Load it into its "
            "own base, or pass allow_other_base=True if you know that it fits this one."
        )

    def _base_digest(self, part: str) -> str:
        model = getattr(self, part)
        if any(getattr(module, "merged", False) for module in model.modules()):
            raise ValueError(
                f"An adapter is fused into {part}: call unfuse_lora() first, and fuse again afterwards; or "
                "unload_lora_weights(), which makes the fused weights a base of their own."
            )
        return base_digest(model)

    def _base_name(self) -> str:
        """The repository the pipeline came from, or the last name of the folder, so that no file tells a local path."""
        name = self.name_or_path or "an unnamed pipeline"
        return Path(name).name if os.path.isdir(name) or os.path.isabs(name) else name

    @contextmanager
    def _without_offloading(self) -> Iterator[None]:
        """Weights where they can be read: offloading to the CPU ends, and begins again after the context."""
        whole_models, sequential, _ = self._optionally_disable_offloading(self)
        try:
            yield
        finally:
            device = getattr(self, "_offload_device", None)
            if whole_models:
                self.enable_model_cpu_offload(device=device)
            elif sequential:
                self.enable_sequential_cpu_offload(device=device)


def _config_of(part: str, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """What `load_lora_adapter` is to know of one model; None lets it read the ranks off the tensors."""
    config = {f"{part}.{name}": (metadata or {}).get(f"{part}.{name}") for name in CONFIG_FIELDS}
    config = {name: value for name, value in config.items() if value is not None}
    return config or None


def _listed(values: list[str] | Mapping[str, str | None]) -> str:
    if isinstance(values, Mapping):
        values = [f"{name} {value}" for name, value in values.items()]
    return ", ".join(values) or "nothing"


def _show(source: Any) -> str:
    return "The given dict" if isinstance(source, Mapping) else str(source)
