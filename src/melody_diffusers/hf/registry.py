"""The one table of our classes: where each lives, which slot of a pipeline it fills, by what name libraries ask for it.

Standard library only, since `import melody_diffusers` reads it.
"""

from dataclasses import dataclass
from pathlib import Path

PACKAGE = "melody_diffusers"

MELODY_TINY: str = str(Path(__file__).absolute().parents[1] / "checkpoints" / "melody-tiny")
"""Folder of the checkpoint that ships with the package; for `MeLoDyPipeline.from_pretrained`."""


@dataclass(frozen=True)
class Entry:
    """One public class.

    Args:
        module: where it is, relative to the package.
        slot: the component of a pipeline that it may be.
        library: "diffusers" looks its name up on itself; "transformers" finds it by `model_type`.
        config: name of its configuration class, of a transformers model.
        model_type: in config.json, which finds both.
        auto_table: of transformers, which maps that configuration to the model.
    """

    module: str
    slot: str | None = None
    library: str | None = None
    config: str | None = None
    model_type: str | None = None
    auto_table: str | None = None


CLASSES: dict[str, Entry] = {
    "AngleScheduler": Entry(".schedulers.angle", "scheduler", "diffusers"),
    "AudioVAEGAN": Entry(
        *(".models.audio_vae", "vae", "transformers"),
        *("AudioVAEGANConfig", "melody_audio_vae_gan", "MODEL_MAPPING"),
    ),
    "AudioVAEGANConfig": Entry(".models.audio_vae"),
    "DualPathDiffusionModel": Entry(".models.dual_path", "dual_path", "diffusers"),
    "MeLoDyInpaintPipeline": Entry(".pipelines.inpaint", library="diffusers"),
    "MeLoDyInputError": Entry(".pipelines.checks"),
    "MeLoDyPipeline": Entry(".pipelines.text_to_music", library="diffusers"),
    "MeLoDyStreamPipeline": Entry(".pipelines.stream", library="diffusers"),
    "MeLoDyVariationPipeline": Entry(".pipelines.vary", library="diffusers"),
    "MuLanConfig": Entry(".models.mulan"),
    "MuLanModel": Entry(
        *(".models.mulan", "mulan", "transformers"),
        *("MuLanConfig", "melody_mulan", "MODEL_MAPPING"),
    ),
    "MultiPeriodDiscriminator": Entry(".models.discriminators"),
    "MultiResolutionDiscriminator": Entry(".models.discriminators"),
    "MusicPlan": Entry(".plans"),
    "ResidualQuantizer": Entry(".models.residual_quantizer", "mulan_quantizer", "diffusers"),
    "SemanticLM": Entry(
        *(".models.semantic_lm", "semantic_lm", "transformers"),
        *("SemanticLMConfig", "semantic_lm", "MODEL_FOR_CAUSAL_LM_MAPPING"),
    ),
    "SemanticLMConfig": Entry(".models.semantic_lm"),
    "SemanticTokenizer": Entry(
        *(".models.semantic_tokenizer", "semantic_tokenizer", "transformers"),
        *("SemanticTokenizerConfig", "semantic_tokenizer", "MODEL_MAPPING"),
    ),
    "SemanticTokenizerConfig": Entry(".models.semantic_tokenizer"),
    "StreamState": Entry(".pipelines.stream"),
    "Timebase": Entry(".timebase"),
}
"""Public name -> entry."""

SLOTS: dict[str, str] = {entry.slot: name for name, entry in CLASSES.items() if entry.slot is not None}
"""Component of a pipeline -> our class for it."""

_ADDED: dict[str, tuple[str, type]] = {}  # name -> the slot and the class


def register(cls: type, slot: str) -> type:
    """Let a class of your own fill a slot of the pipelines: they take it, save it, publish it and load it again.

    Whoever loads such a pipeline has to register the class first: a repository never chooses code. A saved pipeline
    calls the class by its name alone.

    Args:
        cls: with `from_pretrained` and `save_pretrained`. What a slot asks of it, docs/extending.md says.
        slot: "vae", "scheduler" or any other component of `MeLoDyPipeline` but the tokenizer.

    Returns:
        `cls`, so that this also serves as a decorator: `@partial(register, slot="vae")`.

    Raises:
        ValueError: there is no such slot, or the name is that of another class.
    """
    if slot not in SLOTS:
        raise ValueError(f"slot must be one of {', '.join(SLOTS)}; got {slot!r}.")
    name = cls.__name__
    _, other = _ADDED.get(name, (slot, cls))
    same = (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)  # a notebook's cell, run again
    if name in CLASSES or not same:
        raise ValueError(f"There is another class called {name} already; a saved pipeline could not tell them apart.")
    _ADDED[name] = (slot, cls)
    return cls


def added_class(name: str) -> type | None:
    """The class that was registered under this name."""
    return _ADDED[name][1] if name in _ADDED else None


def classes_for(slot: str) -> list[str]:
    """Names of the classes that may fill a slot: ours first, then those that were registered."""
    return [SLOTS[slot], *(name for name, (of, _) in _ADDED.items() if of == slot)]
