"""Embeddings: vectors clip after clip, each of the clip alone, found by name."""

from pathlib import Path

import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from melody_diffusers.evaluation.embeddings import load_embedding, log_mel_statistics, mulan_embedding


def test_log_mel_statistics_gives_one_row_per_whole_window() -> None:
    noise = 0.1 * torch.randn(2, 1, 60000, generator=torch.Generator().manual_seed(0))  # 2.5 s
    rows = log_mel_statistics(noise)
    assert rows.shape == (4, 64)
    louder = log_mel_statistics(2 * noise)
    torch.testing.assert_close(louder[:, :32] - rows[:, :32], torch.full((4, 32), 2.0).log())  # a gain moves the means
    torch.testing.assert_close(louder[:, 32:], rows[:, 32:], atol=1e-4, rtol=0)  # and no deviation
    with pytest.raises(ValueError, match="shorter than one window"):
        log_mel_statistics(noise[..., :1000])


def test_mulan_embeds_at_its_own_rate(tiny_components: dict) -> None:
    mulan = tiny_components["mulan"]
    noise = 0.1 * torch.randn(2, 1, 24000, generator=torch.Generator().manual_seed(0))
    embed = mulan_embedding(mulan)
    with torch.no_grad():
        assert torch.equal(embed(noise, 24000), mulan.get_audio_features(noise))
        assert embed(noise.repeat_interleave(2, -1), 48000).shape == (2, 16)


def test_clap_from_a_folder(tmp_path: Path) -> None:
    audio = {
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "projection_dim": 12,
        "spec_size": 64,
        "num_mel_bins": 16,
    }
    text = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=12)).save_pretrained(tmp_path)
    ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc").save_pretrained(tmp_path)
    embed = load_embedding(f"clap:{tmp_path}")
    noise = 0.1 * torch.randn(3, 1, 24000, generator=torch.Generator().manual_seed(0))
    together = embed(noise, 24000)
    assert together.shape == (3, 12)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(together[1:2], embed(noise[1:2], 24000), atol=1e-5, rtol=0)


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_embeddings.py").write_text("def energy(waveform, sample_rate): return waveform.square().mean(-1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    embed = load_embedding("my_embeddings:energy")
    assert embed(torch.full((2, 1, 10), 3.0), 24000).tolist() == [[9.0], [9.0]]
    for name, message in {"energy": "got 'energy'", "my_embeddings:power": "no function 'power'"}.items():
        with pytest.raises(ValueError, match=message):
            load_embedding(name)
