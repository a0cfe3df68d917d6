"""What goes to the Hub besides the weights: a card that says how to load them, and no path of the machine they left.

`push_to_hub` and `save_pretrained(push_to_hub=True)` of our pipelines and models, and `save_lora_weights` of adapters,
write a card, unless one lies in the repository or in the saved folder. `model_card` makes it, and takes what only the
author knows: data, licence, training, measurements and examples.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from functools import partial
from inspect import getdoc, signature
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitInfo,
    EvalResult,
    ModelCard,
    constants,
    create_branch,
    create_repo,
    file_exists,
    upload_folder,
)
from torch import nn

from ..files import MOVING, WRITING, all_or_nothing
from .registry import MELODY_TINY

LIBRARY = "melody-diffusers"
"""`library_name` of our cards. Under the name diffusers the Hub would show code that does not import our classes."""

PAPER = "[MeLoDy](https://arxiv.org/abs/2305.15719)"

METRICS = (
    # where in the report, type, name
    ("rows.generated.style.share", "accuracy", "style recognised"),
    ("rows.generated.family.share", "accuracy", "family of the lead instrument recognised"),
    ("rows.generated.tempo.share", "accuracy", "tempo met at a metrical level"),
    ("rows.generated.mcc.margin", "mulan_cycle_consistency", "MuLan cycle consistency above shuffled prompts"),
    ("rows.generated.frechet.log_mel", "frechet_distance", "Frechet distance of log-mel statistics"),
    ("rows.generated.frechet.mulan", "frechet_distance", "Frechet distance of MuLan embeddings"),
    ("reconstruction.log_mel_db", "log_mel_distance", "log-mel distance of the VAE-GAN, dB"),
    ("reconstruction.si_sdr_db", "si_sdr", "SI-SDR of the VAE-GAN, dB"),
    ("speed.real_time_factor", "real_time_factor", "seconds of audio a second"),
)


def model_card(
    model: Any,
    repo_id: str,
    *,
    text: str | None = None,
    report: Mapping[str, Any] | None = None,
    examples: Mapping[str, str] | None = None,
    adapter: bool = False,
) -> ModelCard:
    """The card of a pipeline, of one of its models, or of a LoRA adapter.

    Args:
        model: what the repository holds; for an adapter, the pipeline it belongs to.
        repo_id: "name" or "owner/name", the name to load it by.
        text: the page in Markdown, with the author's metadata (licence, data sets, language) in front matter if any.
            By default a page that says what this is and how to load it, with a place for what only the author knows.
        report: of `melody evaluate` (report.json); its main figures become the metrics in the metadata.
        examples: path of an audio file within the repository -> the prompt it was made from.
        adapter: the repository holds an adapter of `model`, written by `save_lora_weights`.

    Returns:
        The card: `.text` and `.data` may be changed, `.save(path)` writes it, `.push_to_hub(repo_id)` publishes it.
    """
    base = _hub_name(model)
    base = None if base == repo_id else base
    page = _page(model, repo_id, base, adapter) if text is None else text
    card = ModelCard(page if page.startswith("---\n") else "---\n{}\n---\n" + page)
    data: Any = card.data
    is_pipeline = hasattr(model, "components")
    data.library_name = data.library_name or LIBRARY
    data.pipeline_tag = data.pipeline_tag or ("text-to-audio" if is_pipeline else None)
    ours = ["music", "melody", *(["text-to-music"] if is_pipeline else []), *(["lora"] if adapter else [])]
    data.tags = list(dict.fromkeys([*(data.tags or []), *ours]))
    data.base_model = data.base_model or base
    if adapter and data.base_model:
        data.base_model_relation = "adapter"
    if report is not None:
        data.model_name = repo_id.rpartition("/")[2]
        data.eval_results = _results(report)
    if examples:
        data.widget = [{"text": prompt, "output": {"url": path}} for path, prompt in examples.items()]
        folder = f"{constants.ENDPOINT}/{repo_id}/resolve/main/" if "/" in repo_id else ""
        players = [f'{prompt}\n\n<audio controls src="{folder}{path}"></audio>' for path, prompt in examples.items()]
        card.text = "\n\n".join([card.text.rstrip(), "## Examples", *players]) + "\n"
    return card


class PublishMixin:
    """Pushing with a card of ours, the same for pipelines and for models of diffusers and of transformers."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *args,
        push_to_hub: bool = False,
        variant: str | None = None,  # a pipeline of diffusers passes on these two where it finds their names
        max_shard_size: int | str | None = None,
        **kwargs,
    ):
        """The class's own `save_pretrained`, all or nothing: the files take their places when all of them are complete.

        Weights that lay there in other shards go; other variants and all other files in the folder stay. With
        `push_to_hub`, everything in the folder is then uploaded, a card that lies there included; `repo_id` is the
        folder's name by default, and the rest is as in `push_to_hub`.

        Raises:
            OSError: a file could not be written; the folder is as it was.
            ValueError: a model is quantized or holds LoRA layers, or `save_directory` is a file; nothing has been
                written then.
        """
        if os.path.isfile(save_directory):
            raise ValueError(f"`save_directory` must be a folder; {os.fspath(save_directory)} is a file.")
        components = getattr(self, "components", {type(self).__name__: self})
        _refuse_adapters(components)
        _refuse_quantized(components)
        options = {name: kwargs.pop(name) for name in signature(upload).parameters if push_to_hub and name in kwargs}
        named = {"variant": variant, "max_shard_size": max_shard_size}
        kwargs |= {name: value for name, value in named.items() if value is not None}
        with all_or_nothing(Path(save_directory), partial(_is_weights, variant=variant)) as folder:
            super().save_pretrained(str(folder), *args, **kwargs)  # type: ignore[misc]
        if push_to_hub:
            upload(self, save_directory, **({"repo_id": Path(save_directory).name} | options))

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        *,
        commit_description: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        tags: list[str] | None = None,
        **save_arguments,
    ) -> CommitInfo:
        """Upload in one commit, with a card if the repository has none.

        Args:
            repo_id: "owner/name", or "name" in the user's own space; made if it isn't there.
            private: of a new repository; by default what the user's settings say.
            token: by default the one of `hf auth login`.
            create_pr: propose the commit instead of making it.
            revision: branch to commit to, made if it isn't there; by default the main one.
            subfolder: folder within the repository; then no card is written.
            tags: more of them for a new card.
            **save_arguments: for `save_pretrained`, for example `variant` or `max_shard_size`.

        Raises:
            HfHubHTTPError: the Hub refused: no token, no permission, or a name it does not allow.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **save_arguments)
            return upload(
                self,
                folder,
                repo_id,
                commit_message=commit_message,
                commit_description=commit_description,
                private=private,
                token=token,
                create_pr=create_pr,
                revision=revision,
                subfolder=subfolder,
                tags=tags,
            )


class PortableConfigMixin:
    """For whatever writes a configuration: the file does not say where on this machine anything was loaded from."""

    def to_json_string(self, *args, **kwargs) -> str:
        config = json.loads(super().to_json_string(*args, **kwargs))  # type: ignore[misc]
        return json.dumps(_without_paths(config), indent=2, sort_keys=True) + "\n"


def _is_weights(file: Path, variant: str | None) -> bool:
    """Whether a file holds weights of this variant, whole or a shard of them, or says which shards there are."""
    name = file.name
    if variant is not None:
        if f".{variant}" not in name:
            return False
        name = name.replace(f".{variant}", "", 1)
    return bool(re.fullmatch(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?", name))


def _refuse_adapters(components: Mapping[str, Any]) -> None:
    """Raise ValueError if a model among `components` holds LoRA layers: saved as it is, it could not be loaded."""
    for name, model in components.items():
        if isinstance(model, nn.Module) and any(hasattr(module, "base_layer") for module in model.modules()):
            adapters = ", ".join(getattr(model, "peft_config", {})) or "none is left"
            raise ValueError(
                f"{name} holds LoRA layers (adapters: {adapters}), with which save_pretrained would write a folder "
                "that cannot be loaded. To save an adapter, call pipe.save_lora_weights(folder). To save the base, "
                "call pipe.unload_lora_weights() first; to save both as one, pipe.fuse_lora() and then that."
            )


def _refuse_quantized(components: Mapping[str, Any]) -> None:
    """Raise ValueError if a model among `components` is quantized: the folder would say so, and be refused as data."""
    for name, model in components.items():
        weights = model.parameters() if hasattr(model, "parameters") else ()
        by_loading = getattr(getattr(model, "config", None), "quantization_config", None) is not None
        if by_loading or any(type(weight).__module__.split(".")[0] == "torchao" for weight in weights):
            raise ValueError(
                f"{name} is quantized, and a folder with quantized weights cannot be loaded: how they are quantized is "
                "chosen when loading. Load it without `quantization_config` and save that; whoever loads the copy "
                "passes `quantization_config` to from_pretrained."
            )


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items() if key != "_name_or_path"}
    return value


def upload(
    model: Any,
    folder: str | os.PathLike,
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    subfolder: str | None = None,
    tags: list[str] | None = None,
    adapter: bool = False,
) -> CommitInfo:
    """Upload a saved folder in one commit, with a card if neither it nor the repository has one.

    `adapter`: the folder holds an adapter of the pipeline `model`. The other arguments are those of `push_to_hub`.
    """
    repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    if revision is not None:
        create_branch(repo_id, branch=revision, token=token, exist_ok=True)
    has_card = file_exists(repo_id, "README.md", revision=revision, token=token)
    path = Path(folder, "README.md")
    if not (has_card or path.exists() or subfolder):
        card = model_card(model, repo_id, adapter=adapter)
        card.data["tags"] += tags or []
        card.save(path)
    unfinished = [f"{name}*" for name in (WRITING, f"*/{WRITING}", MOVING, f"*/{MOVING}")]  # if one was killed
    return upload_folder(
        repo_id=repo_id,
        folder_path=Path(folder),
        path_in_repo=subfolder,
        commit_message=commit_message or f"Upload {'an adapter of ' if adapter else ''}{type(model).__name__}",
        commit_description=commit_description,
        token=token,
        create_pr=create_pr,
        revision=revision,
        ignore_patterns=unfinished + (["README.md"] if has_card and not subfolder else []),
    )


def _hub_name(model: Any) -> str | None:
    """The repository that `model` was loaded from; None if it was made here or loaded from a folder."""
    name = getattr(model.config, "_name_or_path", None) or ""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not os.path.exists(name) else None


def _results(report: Mapping[str, Any]) -> list[EvalResult]:
    data = Path(report["settings"]["data"]).name
    results = []
    for path, metric_type, name in METRICS:
        value: Any = report
        for key in path.split("."):
            value = value[key]
        if math.isfinite(value):
            results.append(
                EvalResult(
                    task_type="text-to-audio",
                    dataset_type=data,
                    dataset_name=data,
                    dataset_split="test",
                    metric_type=metric_type,
                    metric_name=name,
                    metric_value=round(value, 4),
                )
            )
    return results


def _page(model: Any, repo_id: str, base: str | None, adapter: bool) -> str:
    class_name = type(model).__name__
    summary = (getdoc(type(model)) or "").split("\n\n")[0].replace("\n", " ")
    lines = [
        f"# {repo_id.rpartition('/')[2]}",
        "",
        f"A LoRA adapter for a `{class_name}`." if adapter else summary,
        f"For `{LIBRARY}`, an implementation of {PAPER} on diffusers and transformers.",
        *([f"Made from [{base}]({constants.ENDPOINT}/{base})."] if base else []),
        "",
        "## Use",
        "",
        f"Install `{LIBRARY}`, then:",
        "",
        "```python",
        *_code(model, repo_id, base, adapter),
        "```",
        "",
    ]
    if hasattr(model, "components") and not adapter:
        lines += ["## Parts", "", "| part | class | numbers |", "|---|---|---|"]
        for name, part in sorted(model.components.items()):
            if hasattr(part, "state_dict"):
                count = sum(tensor.numel() for tensor in part.state_dict().values())
                lines.append(f"| `{name}` | {type(part).__name__} | {count / 1e6:.2f} M |")
        lines.append("")
    lines += [
        "## Data, training and licence",
        "",
        "The author has not yet said what this was trained on and how, how good it is, and under which licence it may "
        "be used.",
        "",
    ]
    return "\n".join(lines)


def _code(model: Any, repo_id: str, base: str | None, adapter: bool) -> list[str]:
    class_name = type(model).__name__
    if not hasattr(model, "components"):
        return [f"from melody_diffusers import {class_name}", "", f'model = {class_name}.from_pretrained("{repo_id}")']
    source = f'"{base or "the pipeline it was trained on"}"' if adapter else f'"{repo_id}"'
    if adapter and model.name_or_path and os.path.realpath(model.name_or_path) == os.path.realpath(MELODY_TINY):
        source = "melody_diffusers.MELODY_TINY"
    regions = "regions" in signature(type(model).__call__).parameters
    call = '"recording.wav", regions=[(3.0, 4.5)]' if regions else '"a slow solo piano piece"'
    return [
        "import melody_diffusers  # tells diffusers and transformers where its classes are",
        "from diffusers import DiffusionPipeline",
        "from melody_diffusers.audio import save_audio",
        "",
        f"pipe = DiffusionPipeline.from_pretrained({source})",
        *([f'pipe.load_lora_weights("{repo_id}")'] if adapter else []),
        f'output = pipe({call}, output_type="pt")',
        f'save_audio("music.wav", output.audios[0], {"output.sampling_rate" if regions else "pipe.sample_rate"})',
    ]
