import math
import re
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2ConformerModel,
)

from melody_diffusers import SemanticTokenizer

SCRIPT = runpy.run_path(
    str(Path(__file__).parents[2] / "conversion" / "semantic_encoder_from_wav2vec2.py"), run_name="conversion"
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "hidden_act": "swish",
    "position_embeddings_type": "rotary",
    "conv_dim": [16] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "conv_depthwise_kernel_size": 7,
    "codevector_dim": 16,
    "proj_codevector_dim": 16,
    "num_codevectors_per_group": 8,
    "max_source_positions": 200,
    "vocab_size": 12,
    "pad_token_id": 0,
}


def make(model_class, **changes):
    torch.manual_seed(0)
    model = model_class(Wav2Vec2ConformerConfig(**SIZES | changes)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):  # as after training
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


def convert(source, out, *others):
    SCRIPT["main"](["--source", str(source), "--out", str(out), "--num_centroids", "8", *others])
    return SemanticTokenizer.from_pretrained(out).eval()


@torch.no_grad()
def assert_hears_what_the_source_hears(tokenizer, source):
    waveform = 0.1 * torch.randn(1, 24000, generator=torch.Generator().manual_seed(1))
    # low-pass, then every third sample, then the level: the definition, one step at a time
    smooth = torch.nn.functional.conv1d(waveform[:, None], SCRIPT["low_pass"](3)[None, None])[:, 0]
    theirs = source((smooth / 0.1)[:, ::3], output_hidden_states=True).hidden_states[1:]
    ours = tokenizer.encoder(waveform, output_hidden_states=True).hidden_states[1:]
    assert len(ours) == SIZES["num_hidden_layers"]
    for mine, other in zip(ours, theirs):
        assert mine.shape == other.shape
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "model_class", [Wav2Vec2ConformerModel, Wav2Vec2ConformerForPreTraining, Wav2Vec2ConformerForCTC]
)
def test_every_layer_of_a_transformers_checkpoint_is_carried_over(tmp_path, model_class):
    model = make(model_class)
    model.save_pretrained(tmp_path / "source")
    tokenizer = convert(tmp_path / "source", tmp_path / "out")
    assert_hears_what_the_source_hears(tokenizer, model.base_model)
    assert (tokenizer.samples_per_token, tokenizer.token_rate) == (960, 25.0)
    assert tokenizer.config.feature_layer == 2
    assert tokenizer.encode(torch.randn(1, 1, 24000)).shape == (1, 25)
    assert torch.equal(tokenizer.encoder.masked_spec_embed, model.base_model.masked_spec_embed)
    tokenizer.encode(torch.randn(1, 1, 9600), mask=torch.ones(1, 10, dtype=torch.bool))


def test_the_names_that_weight_normalisation_had(tmp_path):
    model = make(Wav2Vec2ConformerModel)
    model.save_pretrained(tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    weights = load_file(file)
    for new_name, old_name in old.items():
        weights = {name.replace(new_name, old_name): weight for name, weight in weights.items()}
    assert any(name.endswith("weight_g") for name in weights)
    save_file(weights, file, metadata={"format": "pt"})
    assert_hears_what_the_source_hears(convert(tmp_path / "source", tmp_path / "out"), model)


def fairseq_layout(model: Wav2Vec2ConformerModel, prefix: str = "") -> dict:
    """The same weights under fairseq's names, and what only fairseq's checkpoint holds."""
    inverse = (
        (r"^masked_spec_embed$", "mask_emb"),
        (r"^feature_projection\.projection\.", "post_extract_proj."),
        (r"^feature_projection\.layer_norm\.", "layer_norm."),
        (r"^(feature_extractor\.conv_layers\.\d+)\.conv\.", r"\1.0."),
        (r"^(feature_extractor\.conv_layers\.\d+)\.layer_norm\.", r"\1.2.1."),
        (r"^encoder\.pos_conv_embed\.conv\.bias", "encoder.pos_conv.0.bias"),
        (r"^encoder\.pos_conv_embed.*original0$", "encoder.pos_conv.0.weight_g"),
        (r"^encoder\.pos_conv_embed.*original1$", "encoder.pos_conv.0.weight_v"),
        (r"\.(ffn[12])\.intermediate_dense\.", r".\1.w_1."),
        (r"\.(ffn[12])\.output_dense\.", r".\1.w_2."),
        (r"\.(ffn[12])_layer_norm\.", r".\1.layer_norm."),
    )
    weights = {}
    for name, weight in model.state_dict().items():
        if "inv_freq" in name:
            continue
        for pattern, theirs in inverse:
            name = re.sub(pattern, theirs, name)
        weights[prefix + name] = weight.half() if weight.is_floating_point() else weight
    return weights


def fairseq_checkpoint(model: Wav2Vec2ConformerModel, fine_tuned: bool) -> dict:
    config = {
        "_name": "wav2vec2",
        "extractor_mode": "layer_norm",
        "encoder_layers": 3,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 48,
        "encoder_attention_heads": 2,
        "conv_feature_layers": "[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16,2,2)] + [(16,2,2)]",
        "conv_bias": True,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "layer_type": "conformer",
        "pos_enc_type": {"relative": "rel_pos", "rotary": "rope"}[model.config.position_embeddings_type],
        "depthwise_conv_kernel_size": 7,
    }
    if not fine_tuned:
        heads = {"quantizer.vars": torch.randn(1, 8, 4), "final_proj.weight": torch.randn(4, 4)}
        heads["encoder.layers.0.self_attn.rotary_emb.inv_freq"] = torch.randn(8)
        return {"args": None, "cfg": {"model": config}, "model": fairseq_layout(model) | heads}
    weights = fairseq_layout(model, "w2v_encoder.w2v_model.") | {"w2v_encoder.proj.weight": torch.randn(12, 32)}
    return {"args": None, "cfg": {"model": {"_name": "wav2vec_ctc", "w2v_args": {"model": config}}}, "model": weights}


@pytest.mark.parametrize(("positions", "fine_tuned"), [("rotary", False), ("relative", True)])
def test_a_fairseq_checkpoint_gives_the_same_encoder(tmp_path, positions, fine_tuned):
    model = make(Wav2Vec2ConformerModel, position_embeddings_type=positions)
    model.half().float()  # fairseq's files hold half precision
    torch.save(fairseq_checkpoint(model, fine_tuned), tmp_path / "source.pt")
    with pytest.raises(ValueError, match="--allow_pickle"):
        convert(tmp_path / "source.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    tokenizer = convert(tmp_path / "source.pt", tmp_path / "out", "--allow_pickle", "--feature_layer", "3")
    assert_hears_what_the_source_hears(tokenizer, model)
    assert tokenizer.config.feature_layer == 3


def test_a_pickle_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"cfg": Evil(), "model": {}}, tmp_path / "source.pt")
    with pytest.raises(Exception, match="[Uu]nsupported"):
        convert(tmp_path / "source.pt", tmp_path / "out", "--allow_pickle")
    assert not (tmp_path / "ran").exists()


def test_the_music_is_heard_an_octave_higher_and_without_what_is_above_four_kilohertz():
    time = torch.arange(24000) / 24000
    for hertz, gain in ((440.0, 1.0), (2000.0, 1.0), (6000.0, 0.0), (9000.0, 0.0)):
        tone = torch.sin(2 * math.pi * hertz * time)[None]
        heard = SCRIPT["decimate"](tone, 3)[0]
        assert heard.std() / tone.std() == pytest.approx(gain, abs=0.05)
        if gain:
            peak = torch.fft.rfft(heard).abs().argmax() * 16000 / len(heard)  # as if it were 16 kHz
            assert peak == pytest.approx(2 * hertz, rel=0.01)


def test_an_encoder_that_does_not_fit_is_refused(tmp_path):
    make(Wav2Vec2ConformerModel, conv_stride=[7, 2, 2, 2, 2, 2, 2]).save_pretrained(tmp_path / "source")
    with pytest.raises(ValueError, match="divides 960"):
        convert(tmp_path / "source", tmp_path / "out")
