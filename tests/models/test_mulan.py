import math

import pytest
import torch
import torch.nn.functional as F
from transformers import ASTModel, BertModel

from melody_diffusers.losses import contrastive_loss
from melody_diffusers.models.mulan import MuLanConfig, MuLanModel

AUDIO = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=50, num_mel_bins=32,
    patch_size=16, frequency_stride=16, time_stride=16,
)  # fmt: skip
TEXT = dict(
    vocab_size=40, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=12,
)  # fmt: skip


@pytest.fixture
def mulan() -> MuLanModel:
    torch.manual_seed(0)
    config = MuLanConfig(audio_config=AUDIO, text_config=TEXT, projection_dim=8, hop_length=480)
    return MuLanModel(config).eval()


def random_waveform(num_samples: int, batch_size: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(batch_size, 1, num_samples, generator=torch.Generator().manual_seed(1))


def test_default_is_the_papers_size():
    with torch.device("meta"):
        mulan = MuLanModel(MuLanConfig())
    count = {name: sum(p.numel() for p in module.parameters()) for name, module in mulan.named_children()}
    assert count["audio_tower"] == 86_187_264
    assert count["text_tower"] == 108_891_648
    assert sum(count.values()) == 195_275_520
    assert sum(p.numel() for p in mulan.parameters()) == 195_275_520 + 1  # the temperature
    assert sum(p.numel() for p in mulan.parameters()) == pytest.approx(195.3e6, rel=0.01)


def test_towers_are_those_of_transformers(mulan):
    assert type(mulan.audio_tower) is ASTModel
    assert type(mulan.text_tower) is BertModel


def test_embeddings_have_unit_length(mulan):
    audio = mulan.get_audio_features(random_waveform(10_000))
    text = mulan.get_text_features(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    for embeds in (audio, text):
        assert embeds.shape == (2, 8)
        torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2))


def test_short_audio_equals_audio_followed_by_silence(mulan):
    waveform = random_waveform(mulan.window_samples - 5_000)
    padded = F.pad(waveform, (0, 5_000))
    assert torch.equal(mulan.get_audio_features(waveform), mulan.get_audio_features(padded))


def test_long_audio_is_the_mean_of_its_windows(mulan):
    window = mulan.window_samples
    waveform = random_waveform(2 * window + 2_000)
    starts = [0, (window + 2_000) // 2, window + 2_000]  # evenly spaced, the last window ends with the audio
    parts = torch.stack([mulan.get_audio_features(waveform[..., s : s + window]) for s in starts])
    torch.testing.assert_close(mulan.get_audio_features(waveform), F.normalize(parts.mean(dim=0), dim=-1))


def test_periodic_audio_has_one_embedding_at_any_length(mulan):
    second_half = random_waveform(mulan.window_samples)
    once = mulan.get_audio_features(second_half)
    torch.testing.assert_close(mulan.get_audio_features(second_half.repeat(1, 1, 2)), once)


def test_padding_does_not_change_a_text(mulan):
    alone = mulan.get_text_features(torch.tensor([[7, 8, 9]]))
    padded = mulan.get_text_features(torch.tensor([[7, 8, 9, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]]))
    torch.testing.assert_close(alone, padded)


def test_batch_equals_single_samples(mulan):
    waveform = random_waveform(70_000)
    single = torch.cat([mulan.get_audio_features(w[None]) for w in waveform])
    torch.testing.assert_close(mulan.get_audio_features(waveform), single)


def test_initialisation_is_that_of_the_towers(mulan):
    config = mulan.config
    assert mulan.logit_scale.item() == pytest.approx(-math.log(config.initial_temperature))
    words = mulan.text_tower.embeddings.word_embeddings.weight
    assert words[0].abs().max() == 0  # padding
    assert words[1:].std().item() == pytest.approx(config.text_config.initializer_range, rel=0.1)
    fc1 = mulan.audio_tower.layers[0].mlp.fc1
    assert fc1.weight.std().item() == pytest.approx(config.audio_config.initializer_range, rel=0.2)
    assert fc1.bias.abs().max() == 0
    assert mulan.audio_projection.weight.std().item() == pytest.approx(16**-0.5, rel=0.2)
    assert (mulan.audio_tower.layernorm.weight == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_save_and_load_round_trip_is_bit_equal(mulan, tmp_path, dtype):
    mulan = mulan.to(dtype)
    mulan.save_pretrained(tmp_path)
    loaded = MuLanModel.from_pretrained(tmp_path, dtype=dtype).eval()
    for name, tensor in mulan.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    # buffers outside the state dict come back from loading as uninitialised memory unless they are rebuilt
    buffers, loaded_buffers = dict(mulan.named_buffers()), dict(loaded.named_buffers())
    assert buffers.keys() == loaded_buffers.keys() and len(buffers) == 2
    for name, tensor in buffers.items():
        assert torch.equal(loaded_buffers[name], tensor), name
    waveform, input_ids = random_waveform(20_000), torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert torch.equal(loaded.get_audio_features(waveform), mulan.get_audio_features(waveform))
    assert torch.equal(loaded.get_text_features(input_ids), mulan.get_text_features(input_ids))
    for name in ("audio_config", "text_config"):
        ours, theirs = getattr(mulan.config, name).to_dict(), getattr(loaded.config, name).to_dict()
        assert {k: v for k, v in ours.items() if k not in ("dtype", "_name_or_path")}.items() <= theirs.items()


def test_words_can_be_added(mulan, tmp_path):
    input_ids = torch.tensor([[3, 1, 4]])
    before, old_size = mulan.get_text_features(input_ids), mulan.config.text_config.vocab_size
    mulan.resize_token_embeddings(old_size + 2)
    mulan.save_pretrained(tmp_path)
    larger = MuLanModel.from_pretrained(tmp_path)
    assert larger.config.text_config.vocab_size == len(larger.get_input_embeddings().weight) == old_size + 2
    torch.testing.assert_close(larger.get_text_features(input_ids), before)
    assert larger.get_text_features(torch.tensor([[old_size + 1]])).isfinite().all()


def loss_of(mulan: MuLanModel, waveform: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    embeds = mulan.get_audio_features(waveform), mulan.get_text_features(input_ids)
    return contrastive_loss(*embeds, mulan.logit_scale)[0]


def test_gradient_checkpointing_changes_no_gradient(mulan):
    waveform, input_ids = random_waveform(24_000), torch.tensor([[3, 1, 4], [1, 5, 9]])
    mulan.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            mulan.gradient_checkpointing_enable()
        torch.manual_seed(0)  # of the dropout
        loss_of(mulan, waveform, input_ids).backward()
        gradients.append({name: weight.grad for name, weight in mulan.named_parameters() if weight.grad is not None})
        mulan.zero_grad(set_to_none=True)
    assert mulan.audio_tower.is_gradient_checkpointing and mulan.text_tower.is_gradient_checkpointing
    torch.testing.assert_close(*gradients)


def test_loss_falls_when_pairs_are_learnt(mulan):
    mulan.train()
    waveform = random_waveform(24_000, batch_size=4) * torch.tensor([0.1, 0.5, 2.0, 8.0])[:, None, None]
    input_ids = torch.arange(1, 13).reshape(4, 3)
    optimizer = torch.optim.AdamW(mulan.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = loss_of(mulan, waveform, input_ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_wrong_shapes_are_refused(mulan):
    with pytest.raises(ValueError, match=r"\(B, 1, T\)"):
        mulan.get_audio_features(torch.zeros(2, 24_000))
    with pytest.raises(ValueError, match="1 to 12 tokens"):
        mulan.get_text_features(torch.ones(1, 13, dtype=torch.long))


def test_contrastive_loss_closed_forms():
    scale = torch.tensor(math.log(5.0))
    same = F.normalize(torch.ones(6, 4), dim=-1)
    loss, logits = contrastive_loss(same, same, scale)
    assert loss.item() == pytest.approx(math.log(6))
    torch.testing.assert_close(logits, torch.full((6, 6), 5.0))
    # orthonormal pairs: the match scores e^s, the other five score 0
    basis = torch.eye(6)
    loss, _ = contrastive_loss(basis, basis, scale)
    assert loss.item() == pytest.approx(math.log(1 + 5 * math.exp(-5.0)), rel=1e-5)
    # the learnt scale is held at 100
    assert contrastive_loss(basis, basis, torch.tensor(99.0))[1].max() == 100.0
    # symmetric in the two modalities
    a, t = (F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(i)), dim=-1) for i in (0, 1))
    torch.testing.assert_close(contrastive_loss(a, t, scale)[0], contrastive_loss(t, a, scale)[0])
