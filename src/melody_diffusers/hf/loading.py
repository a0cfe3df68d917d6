"""Loading what somebody else wrote: a repository is data. None of it is run, and all of it is checked before use.

diffusers and transformers refuse much themselves: pickles with `use_safetensors=True`, code without
`trust_remote_code`, damaged safetensors, names and shapes that differ. What they let through is refused here, before
memory is allocated: other classes in a pipeline's slots; files outside the repository; configurations that choose code,
or sizes that no model has; weights that are not those of the configuration, or not finite.

A pipeline calls `check_pipeline` and `check_index`. A model or scheduler has `CheckedLoading` first among its bases,
and a transformers configuration `CheckedConfig`, so that the loaders of both libraries come by here, too.
"""

import inspect
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from ..files import MOVING
from .registry import PACKAGE, SLOTS, classes_for

logger = logging.get_logger(__name__)

TOKENIZERS = (  # of transformers
    "BertTokenizer",
    "BertTokenizerFast",
    "PreTrainedTokenizerFast",
    "RobertaTokenizer",
    "RobertaTokenizerFast",
    "TokenizersBackend",
)

MAX_JSON_BYTES, MAX_TOKENIZER_BYTES, MAX_HEADER_BYTES = 2**20, 2**22, 2**22
MAX_NUMBER = 2**20  # in a configuration
MAX_ITEMS = 256  # of a list in a configuration
MAX_DEPTH = 256  # layers, blocks, iterations
MAX_OPERATIONS = 5_000  # to build a model without its memory; the paper's largest takes 2,500

CHOOSES_CODE = re.compile(
    r"__.*|auto_map|trust_remote_code|configuration_files|transformers_weights|quantization_config|fusion_config"
    r"|_?(attn|experts)_implementation(_internal)?|custom_pipelines?|use_kernels|kernel_config"
)
TOKENIZER_TEXT = re.compile(  # keys of a tokenizer's configuration that may hold more than a number
    r".*_token|.*_side|added_tokens_decoder|(additional|extra|model_specific)_special_tokens|backend|chat_template"
    r"|model_input_names|processor_class|tokenizer_class|truncation_strategy|name_or_path"
)
OTHER_WEIGHTS = re.compile(r"adapter_config\.json|shard-\d+-model-.*")  # transformers would load them as well
_links_allowed: ContextVar[bool] = ContextVar("links_allowed", default=False)
STORED = {"F32": "float", "F16": "float", "BF16": "float", "I64": "int64"}


@contextmanager
def links_allowed(allowed: bool) -> Iterator[None]:
    """Within the context, files of weights may be links to files outside their repository: to another disk, say."""
    token = _links_allowed.set(allowed or _links_allowed.get())
    try:
        yield
    finally:
        _links_allowed.reset(token)


def check_files(folder: Path, repository: Path) -> None:
    """Raise unless the folder and what lies in it are files and folders of the repository, links followed.

    The Hub's cache keeps what it has fetched in `models--*/blobs`; a repository in that cache may link there. Within
    `links_allowed`, safetensors may link anywhere.
    """
    if not folder.is_dir():
        raise OSError(f"{folder} is missing. Download or save the repository again.")
    for place in (folder, repository):
        if (place / MOVING).exists():
            raise OSError(
                f"Saving into {place} was ended while files took their places: some are new, some old. Save the folder "
                f"again; the files that were there before are in {place / MOVING}."
            )
    root, path = os.path.realpath(repository), os.path.abspath(folder)
    cache = re.match(r"(.*[/\\]models--[^/\\]+)[/\\]snapshots[/\\]", path)
    blobs = os.path.join(os.path.realpath(cache[1]), "blobs") if cache else None
    for entry in (folder, *folder.iterdir()):
        real = os.path.realpath(entry)
        is_within = os.path.commonpath([real, root]) == root or os.path.dirname(real) == blobs
        is_allowed = _links_allowed.get() and entry.suffix == ".safetensors" and real.endswith(".safetensors")
        if not is_within and not is_allowed:
            weights = ", or pass allow_links=True if it is yours" if entry.suffix == ".safetensors" else ""
            advice = f"Put a copy in the place of the link{weights}."
            raise ValueError(f"{entry} leads out of its repository, to {real}. {advice}")
        if entry.is_symlink() and not entry.exists():
            raise OSError(f"{entry} is a link to {real}, which is not there. Mount that disk, or mend the link.")
        if not (entry.is_file() or entry.is_dir()):
            raise ValueError(f"{entry} is neither a file nor a folder. Remove it.")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of at most 1 MiB; ValueError for anything else."""
    if not file.is_file():
        raise OSError(f"{file} is missing. Download or save the repository again.")
    _check_size(file, MAX_JSON_BYTES)
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object; got a {type(content).__name__}.")
    return content


def _check_size(file: Path, limit: int) -> None:
    if file.is_file() and file.stat().st_size > limit:
        raise ValueError(f"{file} has {file.stat().st_size} bytes; allowed are {limit}.")


def check_config(known: Mapping[str, Any], config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The part of a configuration that this version knows, each value checked against its default in `known`.

    Keys it does not know are left out and named in a warning; keys that choose code are a ValueError.
    """
    checked = {}
    for key, value in config.items():
        if CHOOSES_CODE.fullmatch(key) and value is not None:
            raise ValueError(f"{where}: `{key}` chooses code, which is the caller's to choose. Remove it.")
        if key in ("dtype", "torch_dtype"):
            if str(value).removeprefix("torch.") not in ("None", "float32", "bfloat16", "float16"):
                raise ValueError(f"{where}: `{key}` must be float32, bfloat16 or float16; got {value!r:.80}.")
        elif key == "model_type":
            if value != known.get(key):
                raise ValueError(f"{where}: `{key}` must be {known.get(key)!r}; got {value!r:.80}.")
        elif key not in known:
            if not key.startswith("_"):
                logger.warning_once(f"{where}: `{key:.80}` is left out; this version does not know it.")
            continue
        elif isinstance(known[key], dict) and "model_type" in known[key] and isinstance(value, dict):
            value = check_config(known[key], value, f"{where}: {key}")
        else:
            _check_value(f"{where}: `{key}`", key, value, known[key])
        checked[key] = value
    return checked


def _check_value(where: str, key: str, value: Any, default: Any) -> None:
    """Raise ValueError unless the value is None, or of the default's type (None: any) and an ordinary size."""
    kind = list if isinstance(default, tuple) else type(default)
    if value is None:
        return
    if default is not None and type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{where} must be of type {kind.__name__}; got {value!r:.80} ({type(value).__name__}).")
    if isinstance(value, (int, float)):
        high = MAX_DEPTH if re.search("layers|blocks|iterations", key) else MAX_NUMBER
        low = 0 if kind is int and not key.endswith("_id") else -high
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"{where} must lie in {low} to {high}; got {value!r:.80}.")
    elif isinstance(value, (list, dict)):
        if len(value) > MAX_ITEMS:
            raise ValueError(f"{where} must have at most {MAX_ITEMS} items; got {len(value)}.")
        for item in value.values() if isinstance(value, dict) else value:
            _check_value(f"An item of {where}", key, item, default[0] if default and kind is list else None)


def _known(cls: Any) -> Mapping[str, Any]:
    """What a configuration may hold, with defaults: that of a transformers configuration, or of a diffusers class."""
    if hasattr(cls, "to_dict"):
        return cls().to_dict() | (cls.known_options() if hasattr(cls, "known_options") else {})
    parameters = inspect.signature(cls).parameters.values()
    return {each.name: None if each.default is each.empty else each.default for each in parameters}


class CheckedConfig:
    """First among the bases of a transformers configuration: what comes from a file is checked."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """As upstream's; ValueError for a key that chooses code and for absurd values."""
        return super().from_dict(check_config(_known(cls), config_dict, cls.__name__), **kwargs)  # type: ignore


class _CountOperations(TorchFunctionMode):
    """Ends the construction of a model that would go on and on."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count > MAX_OPERATIONS:
            raise ValueError(f"it takes more than {MAX_OPERATIONS} operations to build")
        return func(*args, **(kwargs or {}))


def expected_numbers(cls: Any, config: dict[str, Any]) -> Counter[str]:
    """How many numbers of each kind the weights of a class have with this configuration; allocates none of them.

    Names and shapes are left to upstream's loaders, which know what older files call each weight.
    """
    with torch.device("meta"), _CountOperations():
        if issubclass(cls, PreTrainedModel):
            model = cls(cls.config_class.from_dict(config))
        else:
            model = cls.from_config(config)
    numbers: Counter[str] = Counter()
    for name, tensor in model.state_dict().items():
        if name not in getattr(model, "all_tied_weights_keys", ()):  # those are stored under another name
            kind = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
            numbers[kind] += tensor.numel()
    return numbers


def stored_numbers(folder: Path, weights_name: str, variant: str | None) -> Counter[str]:
    """How many numbers of each kind a component's safetensors hold, from their headers.

    Raises:
        FileNotFoundError: a file is missing.
        OSError: one is damaged.
        ValueError: the index of the shards names a file elsewhere, or does not fit the files.
    """
    stem, dot_variant = weights_name.removesuffix(".safetensors"), f".{variant}" if variant else ""
    single, index = f"{stem}{dot_variant}.safetensors", folder / f"{weights_name}.index{dot_variant}.json"
    shard_of = read_json(index).get("weight_map") if index.is_file() else {}
    if not isinstance(shard_of, dict) or (index.is_file() and (folder / single).is_file()):
        raise ValueError(f"{index} has no `weight_map`, or there is also {single}. Save the folder again.")
    numbers: Counter[str] = Counter()
    found = {}
    for shard in sorted({str(shard) for shard in shard_of.values()} or {single}):
        file = folder / shard
        if not re.fullmatch(r"[\w.-]+\.safetensors", shard):
            raise ValueError(f"{index} must name safetensors files beside it; got {shard!r:.80}.")
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing; weights of other kinds are not read. Save or download the folder again."
            )
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise OSError(f"{file} is damaged: a header of {length} bytes; allowed are {MAX_HEADER_BYTES}.")
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():
                    found[name], part = shard, tensors.get_slice(name)
                    numbers[STORED.get(part.get_dtype(), part.get_dtype())] += math.prod(part.get_shape())
        except SafetensorError as error:
            raise OSError(f"{file} is damaged: {error}. Save or download it again.") from None
    if index.is_file() and found != shard_of:
        raise ValueError(f"{index} does not say what is in the files beside it. Save or download the folder again.")
    return numbers


def check_component(cls: type, folder: Path, repository: Path, variant: str | None = None) -> None:
    """Raise ValueError or OSError unless the folder, of this repository, holds a whole component of this class."""
    if (folder.parent / "model_index.json").is_file():  # a part of a pipeline; its tokenizer's class does not ask us
        repository = folder.parent
        for place in filter(Path.is_dir, (repository, repository / "tokenizer")):
            check_tokenizer(place, repository)
    check_files(folder, repository)
    file = folder / getattr(cls, "config_name", "config.json")
    config = read_json(file)
    if config.get("_class_name", cls.__name__) not in [base.__name__ for base in cls.__mro__]:
        raise ValueError(f"{file}: `_class_name` must be {cls.__name__!r}; got {config['_class_name']!r:.80}.")
    config = check_config(_known(getattr(cls, "config_class", None) or cls), config, str(file))
    if not issubclass(cls, nn.Module):
        return
    _check_size(folder / "generation_config.json", MAX_JSON_BYTES)
    for name in filter(OTHER_WEIGHTS.fullmatch, os.listdir(folder)):
        raise ValueError(f"{folder / name} would change the weights beside it. Remove it.")
    stored = stored_numbers(folder, _weights_name(cls), variant)
    try:
        expected = expected_numbers(cls, config)
    except Exception as error:  # whatever a bad configuration sets off
        raise ValueError(f"{file} does not describe a {cls.__name__}: {error!s:.500}") from error
    if stored != expected:
        raise ValueError(
            f"The weights in {folder} do not fit its configuration, which asks for {dict(expected)} numbers; they are "
            f"{dict(stored)}. Floats may be float32, bfloat16 or float16. Save or download the folder again."
        )


def check_tokenizer(folder: Path, repository: Path) -> None:
    """Raise ValueError unless nothing in a tokenizer's folder is too large or leads to files elsewhere."""
    check_files(folder, repository)
    _check_size(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
    for file in filter(Path.exists, (folder / "tokenizer_config.json", folder / "special_tokens_map.json")):
        for key, value in read_json(file).items():
            if not isinstance(value, (bool, int, float, type(None))) and not TOKENIZER_TEXT.fullmatch(key):
                raise ValueError(f"{file}: `{key}` could name a file; got {value!r:.80}. Remove it.")


def check_index(index: Mapping[str, Any]) -> None:
    """Raise ValueError unless each slot in a pipeline's model_index.json names the one class that belongs there."""
    allowed: dict[str, list] = {slot: [[PACKAGE, name] for name in classes_for(slot)] for slot in SLOTS}
    allowed["tokenizer"] = [["transformers", name] for name in TOKENIZERS]
    allowed["semantic_tokenizer"].append([None, None])  # needed for inpainting only
    for key, value in index.items():
        names_class = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
        if (key in allowed or names_class) and value not in allowed.get(key, ()):
            choice = " or ".join(map(str, allowed.get(key, ["no class"])))
            advice = " A class of your own joins by melody_diffusers.register(cls, slot=...)." if key in SLOTS else ""
            raise ValueError(f"model_index.json: `{key}` must be {choice}; got {value!r:.80}.{advice}")


def check_pipeline(folder: str | os.PathLike, given: Mapping[str, Any]) -> None:
    """Raise ValueError or OSError, naming file and reason, unless the folder of a pipeline is safe and whole.

    `given` are the caller's arguments: a component among them is not read from the folder.
    """
    repository = Path(folder)
    check_files(repository, repository)
    index = read_json(repository / "model_index.json")
    check_index(index)
    for slot in SLOTS:
        _, name = index.get(slot) or (None, None)
        if name is not None and slot not in given:
            check_files(repository / slot, repository)
            variant = given.get("variant")
            if not any(f".{variant}" in file for file in os.listdir(repository / slot)):
                variant = None  # diffusers then takes the weights without it
            check_component(getattr(import_module(PACKAGE), name), repository / slot, repository, variant)
    if "tokenizer" not in given and not (repository / "tokenizer" / "tokenizer.json").is_file():
        raise OSError(f"{repository / 'tokenizer'} has no tokenizer.json. Save or download the repository again.")


def _weights_name(cls: type) -> str:
    return SAFE_WEIGHTS_NAME if issubclass(cls, PreTrainedModel) else SAFETENSORS_WEIGHTS_NAME


def _fetch(cls: type, repository: str, options: Mapping[str, Any]) -> str:
    """A folder as it is; for a repository on the Hub, a folder with what the component needs of it."""
    if os.path.isdir(repository):
        return repository
    stem, variant = _weights_name(cls).removesuffix(".safetensors"), options.get("variant")
    weights = [f"{stem}*.{variant}*"] if variant else [f"{stem}.safetensors*", f"{stem}-*.safetensors"]
    configs = [getattr(cls, "config_name", "config.json"), "generation_config.json"]
    folder = f"{options['subfolder']}/" if options.get("subfolder") else ""
    names = {"cache_dir", "force_download", "local_files_only", "revision", "token"}
    return snapshot_download(
        repository,
        allow_patterns=[folder + name for name in (*configs, *weights)],
        **{name: options[name] for name in names & set(options) if options[name] is not None},
    )


class CheckedLoading:
    """First among the bases of a model or scheduler: `from_pretrained` checks what it is about to load."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, allow_links: bool = False, **kwargs):
        """As upstream's, from safetensors only; a weight that is missing, unexpected or not finite is an error.

        Args:
            allow_links: the files of weights may be links that lead out of the folder, to another disk say.

        Raises:
            OSError: a file is missing or damaged.
            ValueError: what the folder holds is not a component of this class, or could do harm.
        """
        load = super().from_pretrained  # type: ignore[misc]
        if pretrained_model_name_or_path is None:  # transformers can take a `state_dict` instead
            return load(None, *args, **kwargs)
        if kwargs.get("use_safetensors") is False or kwargs.get("use_flashpack") or kwargs.get("gguf_file"):
            raise ValueError("Weights are read from safetensors only; leave out the argument that says otherwise.")
        source = str(pretrained_model_name_or_path)
        root = _fetch(cls, source, kwargs)
        folder = Path(root, kwargs.get("subfolder") or "")
        with links_allowed(allow_links):
            check_component(cls, folder, Path(root), kwargs.get("variant"))
        if not issubclass(cls, nn.Module):
            return load(root, *args, **kwargs)
        info_wanted = kwargs.pop("output_loading_info", False)
        model, info = load(root, *args, **kwargs | {"use_safetensors": True, "output_loading_info": True})
        for problem, names in info.items():
            if names:
                raise ValueError(f"The weights in {folder} do not fit: {problem} {sorted(map(str, names))[:3]}.")
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            plain = type(tensor.data) is torch.Tensor and not tensor.is_meta  # else quantized, or left on the disk
            if plain and tensor.is_floating_point() and tensor.element_size() > 1:
                if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
                    raise ValueError(f"The weights in {folder} are not finite as {tensor.dtype}: {name}.")
        if root != source:  # its card says what it was made from
            getattr(model, "register_to_config", vars(model.config).update)(_name_or_path=source)
        return (model, info) if info_wanted else model
