import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTModel,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    BertTokenizerFast,
)

from melody_diffusers import MuLanModel

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "conversion" / "mulan_from_ast_bert.py"), run_name="conversion")
AST = ASTConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_length=128,
    num_mel_bins=64,
    num_labels=7,
)
BERT = BertConfig(
    vocab_size=40,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    max_position_embeddings=20,
    layer_norm_eps=1e-6,
)


def write_sources(folder: Path, audio_class=ASTForAudioClassification, text_class=BertForPreTraining) -> list[str]:
    torch.manual_seed(0)
    audio_class(AST).save_pretrained(folder / "ast")
    ASTFeatureExtractor(num_mel_bins=AST.num_mel_bins, max_length=AST.max_length).save_pretrained(folder / "ast")
    text_class(BERT).save_pretrained(folder / "bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(35))]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder / "bert")
    return ["--audio", str(folder / "ast"), "--text", str(folder / "bert"), "--out", str(folder / "out")]


@pytest.mark.parametrize(
    ("audio_class", "text_class"),
    [(ASTForAudioClassification, BertForPreTraining), (ASTModel, BertForMaskedLM), (ASTModel, BertModel)],
)
def test_both_towers_are_those_of_the_sources(tmp_path, capsys, audio_class, text_class):
    SCRIPT["main"](write_sources(tmp_path, audio_class, text_class))
    mulan = MuLanModel.from_pretrained(tmp_path / "out")
    assert "text tower: largest difference 0.00e+00" in capsys.readouterr().out
    for tower, source in ((mulan.audio_tower, ASTModel), (mulan.text_tower, BertModel)):
        name = "ast" if source is ASTModel else "bert"
        theirs = source.from_pretrained(tmp_path / name).state_dict()
        for key, value in tower.state_dict().items():
            torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)
    assert mulan.config.text_config.layer_norm_eps == 1e-6
    assert mulan.config.audio_config.num_mel_bins == 64
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path / "out" / "tokenizer")
    assert tokenizer.model_max_length == BERT.max_position_embeddings
    assert tokenizer("w3 w4")["input_ids"] == [2, 8, 9, 3]
    assert mulan.get_text_features(torch.tensor([[2, 8, 9, 3]])).norm().item() == pytest.approx(1.0)


def test_pink_noise_enters_the_tower_as_it_enters_ast(tmp_path):
    SCRIPT["main"](write_sources(tmp_path))
    mulan = MuLanModel.from_pretrained(tmp_path / "out")
    noise = SCRIPT["pink_noise"](mulan.window_samples * 2, torch.Generator().manual_seed(5))
    ours = mulan.log_mel(noise[None, None, : mulan.window_samples])
    theirs = SCRIPT["ast_log_mel"](ASTFeatureExtractor.from_pretrained(tmp_path / "ast"), noise)
    assert abs(ours.mean() - theirs.mean()) < 0.02
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)


def test_the_projections_come_from_the_seed_and_no_config_names_a_path(tmp_path):
    arguments = write_sources(tmp_path)
    weights = []
    for seed in ("3", "3", "4"):
        SCRIPT["main"]([*arguments, "--seed", seed])
        weights.append(MuLanModel.from_pretrained(tmp_path / "out").text_projection.weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    for file in (tmp_path / "out").rglob("*.json"):
        assert str(tmp_path) not in file.read_text()


def test_the_names_that_berts_first_checkpoints_have(tmp_path):
    arguments = write_sources(tmp_path)
    file = tmp_path / "bert" / "model.safetensors"
    weights = load_file(file)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, weight in weights.items():
        for new_name, old_name in old.items():
            name = name.replace(new_name, old_name)
        renamed[name] = weight + 0.5 if "gamma" in name or "beta" in name else weight
    assert sum("gamma" in name for name in renamed) > 3
    save_file(renamed, file, metadata={"format": "pt"})
    SCRIPT["main"](arguments)
    tower = MuLanModel.from_pretrained(tmp_path / "out").text_tower
    torch.testing.assert_close(tower.embeddings.LayerNorm.bias, torch.full((24,), 0.5))


def test_missing_weights_and_pickles_are_refused(tmp_path):
    arguments = write_sources(tmp_path)
    file = tmp_path / "bert" / "model.safetensors"
    weights = load_file(file)
    dropped = {key: value for key, value in weights.items() if "layer.1.attention.self.query" not in key}
    save_file(dropped, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="layer.1.attention.self.query"):
        SCRIPT["main"](arguments)

    file.unlink()
    torch.save(weights, tmp_path / "bert" / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        SCRIPT["main"](arguments)
    SCRIPT["main"]([*arguments, "--allow_pickle"])
