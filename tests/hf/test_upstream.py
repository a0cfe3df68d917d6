"""Names of other libraries that they may take away: each is still there, and still does what we need it for."""

from importlib import import_module

import pytest
import torch
from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

from melody_diffusers.hf.upstream import NAMES, forget_rotary_table


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_still_there(name):
    module, _, attributes = name.partition(":")
    value = import_module(module)
    for attribute in attributes.split("."):
        assert hasattr(value, attribute), f"{name} is gone; we use it for this: {NAMES[name]}"
        value = getattr(value, attribute)


def test_gradient_checkpointing_sets_the_function_that_our_forward_calls(make_components):
    model = make_components()["dual_path"]
    model.enable_gradient_checkpointing()
    assert callable(model._gradient_checkpointing_func) and model.gradient_checkpointing


def conformer() -> Wav2Vec2ConformerModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    shape = {"conv_dim": [8], "conv_stride": [4], "conv_kernel": [4], "feat_extract_norm": "layer"}
    return Wav2Vec2ConformerModel(Wav2Vec2ConformerConfig(**sizes, **shape, position_embeddings_type="rotary")).eval()


def test_the_rotary_table_is_forgotten_and_a_renamed_one_is_an_error():
    encoder = conformer()
    encoder(torch.zeros(1, 64))
    table = encoder.encoder.embed_positions
    assert table.cached_sequence_length is not None  # else there would be nothing to forget
    forget_rotary_table(encoder)
    assert table.cached_sequence_length is None
    del table.cached_sequence_length
    with pytest.raises(AttributeError, match="cached_sequence_length"):
        forget_rotary_table(encoder)


def test_the_rotary_frequencies_are_a_buffer_of_that_name():
    assert any(hasattr(module, "inv_freq") for module in conformer().modules())
