"""Strict configuration of the training scripts: a YAML file with sections, every key of which is checked."""

import argparse
import dataclasses
import inspect
import json
import math
import os
import re
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

STRICT = ConfigDict(extra="forbid", strict=True)


@pydantic.dataclasses.dataclass(kw_only=True, config=STRICT)
class RunConfig:
    """How long a run lasts, what it writes and where.

    Args:
        batch_size: items per process and micro-batch; `gradient_accumulation_steps` of these make one step.
        ema_decay: decay of the moving average of the weights (paced up over the first steps); None keeps none.
        budget_minutes: ends training after this time too; the learning rate then follows whichever of step and time is
            further on. Such a run depends on the machine's speed; all others repeat exactly.
        max_minutes: of this process, from its start: it then saves and leaves, and the same command goes on.
        resume: continue from the newest valid checkpoint; False starts over and removes earlier checkpoints.
        trackers: where figures, sounds and spectrograms go; wandb and trackio have to be installed.
        fsdp: split parameters, gradients and optimiser states over the processes (FSDP2), for a model that one device
            cannot hold.
        gradient_checkpointing: compute the blocks of a model again in the backward pass instead of keeping what they
            computed: a third more operations, a fraction of the memory. The gradients are the same.
        timeout_minutes: a process that waits this long for the others gives up, with an error.
    """

    output_dir: str
    max_steps: PositiveInt
    batch_size: PositiveInt
    seed: int = 0
    num_workers: NonNegativeInt = 0
    mixed_precision: Literal["no", "bf16"] = "no"
    gradient_accumulation_steps: PositiveInt = 1
    checkpoint_every: PositiveInt = 500
    keep_checkpoints: PositiveInt = 2
    log_every: PositiveInt = 20
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    budget_minutes: PositiveFloat | None = None
    max_minutes: PositiveFloat | None = None
    resume: bool = True
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = dataclasses.field(
        default_factory=lambda: ["tensorboard"]
    )
    fsdp: bool = False
    gradient_checkpointing: bool = False
    timeout_minutes: PositiveFloat = 10.0


@pydantic.dataclasses.dataclass(kw_only=True, config=STRICT)
class OptimConfig:
    """AdamW with warm-up and a learning-rate schedule; weight decay acts on matrices and kernels only."""

    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    clip: float = 1.0
    min_lr_ratio: float = 0.05


def learning_rate(config: OptimConfig, step: int, progress: float) -> float:
    """Learning rate of a step: linear warm-up times a schedule over `progress` in [0, 1]."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps > 0 else 1.0
    decay = {"constant": 0.0, "linear": progress, "cosine": 0.5 - 0.5 * math.cos(math.pi * progress)}[config.schedule]
    return config.learning_rate * warmup * (1.0 - (1.0 - config.min_lr_ratio) * decay)


class Config(types.SimpleNamespace):
    """A loaded configuration: one attribute per section, a dataclass object or a dict of constructor arguments."""


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-4 as a number and "no" as a word (YAML 1.1 does not), and refuses a key given twice."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} given twice, in line {node.start_mark.line + 1} or below")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _section(target: Callable, values: dict[str, Any], where: str) -> Any:
    """The section as an object of a dataclass, or as the checked constructor arguments of a model."""
    if not dataclasses.is_dataclass(target) or hasattr(target, "model_type"):  # a config of transformers is one, too
        _check_arguments(target, values, where)
        return values
    if not is_pydantic_dataclass(target):
        target = pydantic.dataclasses.dataclass(target, config=STRICT)
    try:  # as JSON, in which a list may become a tuple and nothing else changes its type
        return TypeAdapter(target).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        allowed = [field.name for field in dataclasses.fields(target)]
        problems = [_describe(problem, allowed) for problem in error.errors()]
        raise ValueError("\n".join(f"{where}: {problem}" for problem in problems)) from None


def _describe(problem: Mapping[str, Any], allowed: Iterable[str]) -> str:
    """One problem that pydantic found, in a line."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] in ("unexpected_keyword_argument", "missing"):
        kind = "missing" if problem["type"] == "missing" else "unknown"
        return f"{kind} key {key}. Allowed: {', '.join(allowed)}."
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should")
    return f"{key} must{message}, got {problem['input']!r}." if problem["msg"].startswith("Input") else message


def _check_arguments(target: Callable, values: dict[str, Any], where: str) -> None:
    """Raises ValueError for keys that are no arguments of a class, and for arguments that have to be there.

    A class whose arguments depend on one another (those of a decoder on its name, say) is asked here.
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in kinds and name != "self"
    }
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    known = target.known_options(values) if hasattr(target, "known_options") else parameters
    for kind, names in (("unknown", values.keys() - known.keys()), ("missing", required - values.keys())):
        if names:
            raise ValueError(f"{where}: {kind} key {', '.join(sorted(names))}. Allowed: {', '.join(known)}.")
    for name, part in getattr(target, "sub_configs", {}).items():  # these would swallow a misspelt key
        if isinstance(values.get(name), dict):
            _check_arguments(part, values[name], f"{where}.{name}")


def load_config(path: str | os.PathLike, sections: Mapping[str, Callable], overrides: Iterable[str] = ()) -> Config:
    """A YAML file as one object with an attribute per section; unknown, missing and mistyped keys are errors.

    Args:
        sections: section name -> a dataclass, which is built, or a model or config class, whose constructor arguments
            are checked by name and returned as a dict.
        overrides: "section.key=value" with a YAML value; applied before the checks. Nested keys have more dots.

    Raises:
        ValueError: names the file, the section, the key and what is allowed.
    """
    try:
        document = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}.") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} must hold the sections {', '.join(sections)}.")
    document = _found(document, Path(path))
    for override in overrides:
        keys, equals, value = override.partition("=")
        *parents, last = keys.split(".")
        if not equals or not parents or parents[0] not in sections:
            raise ValueError(
                f"An override reads section.key=value (sections: {', '.join(sections)}), got {override!r}."
            )
        place = document
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                raise ValueError(f"Cannot apply {override!r}: {parent} holds {place!r}, not further keys.")
        place[last] = yaml.load(value, Loader=_Loader)
    for problem, names in (("unknown", document.keys() - sections.keys()), ("missing", sections.keys() - document)):
        if names:
            raise ValueError(f"{path}: {problem} section {', '.join(sorted(names))}. Allowed: {', '.join(sections)}.")
    config = Config()
    for name, target in sections.items():
        values = {} if document[name] is None else document[name]
        if not isinstance(values, dict):
            raise ValueError(f"{path}, section {name}: must hold keys, got {values!r}.")
        setattr(config, name, _section(target, values, f"{path}, section {name}"))
    _check_places(config)
    return config


def _found(value: Any, path: Path) -> Any:
    """A document in which the names of YAML files that lie beside the configuration, or beside a folder around it, lead
    there from wherever the script was started."""
    if isinstance(value, dict):
        return {key: _found(item, path) for key, item in value.items()}
    if not isinstance(value, str) or not value.endswith(".yaml") or Path(value).exists():
        return value
    around = [folder / value for folder in path.absolute().parents if (folder / value).is_file()]
    return str(around[0]) if around else value


def _check_places(config: Config) -> None:
    """Raises ValueError where a run would read what it writes, or reads a file that is not there."""
    data = getattr(config, "data", None)
    folder = getattr(data, "folder", None)
    for section in ("run", "encode"):
        output = getattr(getattr(config, section, None), "output_dir", None)
        if folder and output and Path(output).resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"{section}.output_dir {output} lies within data.folder {folder}: what is written there would be read "
                "as data the next time. Choose another folder."
            )
    for name, value in vars(data).items() if data is not None and hasattr(data, "__dict__") else ():
        if isinstance(value, str) and value.endswith(".yaml") and not Path(value).is_file():
            raise ValueError(f"data.{name} names {value}, and there is no such file.")


def parse_args(description: str) -> argparse.Namespace:
    """The command line of every script: `.config` (path of the YAML file) and `.set` (list of overrides)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="YAML file, e.g. training/configs/<stage>/tiny.yaml")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override single values"
    )
    parser.add_argument("--max_minutes", type=float, help="save and leave after this time; the same command goes on")
    args = parser.parse_args()
    if args.max_minutes is not None:
        args.set.append(f"run.max_minutes={args.max_minutes}")
    return args
