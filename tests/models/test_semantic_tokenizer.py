import copy
import math

import pytest
import torch

from melody_diffusers.losses import masked_prediction_loss
from melody_diffusers.models.semantic_tokenizer import SemanticTokenizer, SemanticTokenizerConfig

ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "position_embeddings_type": "rotary",
    "conv_dim": [16, 16, 16],
    "conv_stride": [12, 10, 8],
    "conv_kernel": [25, 15, 9],
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "conv_depthwise_kernel_size": 5,
    "num_conv_pos_embeddings": 1,
    "mask_time_prob": 0.5,
}
ON_SPECTRA = {"conv_dim": [32], "conv_stride": [201], "conv_kernel": [201]}


@pytest.fixture(params=["waveform", "spectra"], scope="module")
def tokenizer(request) -> SemanticTokenizer:
    torch.manual_seed(0)
    spectra = request.param == "spectra"
    config = SemanticTokenizerConfig(
        encoder_config={**ENCODER, **(ON_SPECTRA if spectra else {})},
        feature_layer=1,
        num_centroids=16,
        spectrum_hop=960 if spectra else None,
    )
    return SemanticTokenizer(config).eval()


def noise(batch: int, num_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, 1, num_samples, generator=torch.Generator().manual_seed(seed))


def test_default_is_the_papers_size_and_rate():
    with torch.device("meta"):
        tokenizer = SemanticTokenizer(SemanticTokenizerConfig())
    count = sum(parameter.numel() for parameter in tokenizer.encoder.parameters())
    assert abs(count / 199.5e6 - 1) < 0.01
    assert tokenizer.token_rate == 25.0 and tokenizer.samples_per_token == 960
    assert tokenizer.centroids.shape == (1024, 768)


@pytest.mark.parametrize("num_samples", [1, 400, 959, 960, 961, 1919, 1920, 1921, 7003, 24000])
def test_one_token_for_each_40_ms_begun(tokenizer, num_samples):
    tokens = tokenizer.encode(noise(1, num_samples))
    assert tokens.shape == (1, math.ceil(num_samples / 960)) and tokens.dtype == torch.int64


def test_tokens_are_the_nearest_standardised_centroids(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    waveform = noise(1, 16 * 960)
    features = tokenizer.features(waveform).detach()[0]  # (16, H)
    tokenizer.feature_mean.copy_(features.mean(0))
    tokenizer.feature_std.copy_(features.std(0))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    tokenizer.centroids.copy_(((features - features.mean(0)) / features.std(0))[order])
    assert torch.equal(order[tokenizer.encode(waveform)[0]], torch.arange(16))


def test_a_sample_does_not_depend_on_its_batch(tokenizer):
    waveform = torch.cat([noise(1, 20000), 8 * noise(1, 20000, seed=1), torch.zeros(1, 1, 20000)])
    together = tokenizer.features(waveform)
    alone = torch.cat([tokenizer.features(sample[None]) for sample in waveform])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.equal(tokenizer.encode(waveform), torch.cat([tokenizer.encode(w[None]) for w in waveform]))


def test_a_mask_hides_what_is_under_it(tokenizer):
    waveform = noise(1, 40 * 960)
    other = waveform.clone()
    other[..., 15 * 960 : 25 * 960] = noise(1, 10 * 960, seed=1)
    # wider than the change, by as far as the longest analysis window reaches beyond its token
    mask = torch.zeros(1, 40, dtype=torch.bool)
    mask[:, 12:28] = True
    assert torch.allclose(tokenizer.features(waveform, mask), tokenizer.features(other, mask), atol=1e-5)
    assert not torch.allclose(tokenizer.features(waveform), tokenizer.features(other), atol=1e-2)


def test_saving_and_loading_keeps_features_to_the_bit(tokenizer, tmp_path):
    waveform = noise(2, 300 * 960)  # long enough that rotary tables matter
    tokenizer.save_pretrained(tmp_path)
    loaded = SemanticTokenizer.from_pretrained(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded.features(waveform), tokenizer.features(waveform))
    assert torch.equal(loaded.encode(waveform), tokenizer.encode(waveform))
    for name, buffer in tokenizer.named_buffers():
        assert torch.equal(loaded.get_buffer(name), buffer), name


def test_a_half_precision_checkpoint_keeps_the_rotary_table_exact(tokenizer, tmp_path):
    exact = tokenizer.encoder.encoder.embed_positions.inv_freq.clone()
    copy.deepcopy(tokenizer).half().save_pretrained(tmp_path)
    loaded = SemanticTokenizer.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(loaded.encoder.encoder.embed_positions.inv_freq, exact)


def test_rotary_table_follows_dtype_and_inference_mode(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    waveform = noise(1, 9600)
    expected = tokenizer.features(waveform)
    with torch.inference_mode():
        tokenizer.features(waveform)
    tokenizer.features(waveform).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        tokenizer.features(waveform)
    assert torch.equal(tokenizer.features(waveform), expected)
    assert tokenizer.bfloat16().features(waveform).dtype == torch.bfloat16


def test_weighed_features_find_the_centroid_nearest_after_the_map(tokenizer, tmp_path):
    config = copy.deepcopy(tokenizer.config)
    config.weigh_features = True
    weighed = SemanticTokenizer(config).eval()
    weighed.load_state_dict({**weighed.state_dict(), **tokenizer.state_dict()})
    waveform = noise(1, 30 * 960)
    assert torch.equal(weighed.encode(waveform), tokenizer.encode(waveform))  # the map starts as the identity
    weighed.feature_map.copy_(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    distance = torch.cdist(weighed.features(waveform) @ weighed.feature_map, weighed.centroids)
    assert torch.equal(weighed.encode(waveform), distance.argmin(-1))
    weighed.save_pretrained(tmp_path)
    assert torch.equal(SemanticTokenizer.from_pretrained(tmp_path).encode(waveform), weighed.encode(waveform))


def test_attention_may_be_chosen_and_changes_little(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    waveform, heard = noise(1, 9600), []
    for choice in ("sdpa", "eager"):
        loaded = SemanticTokenizer.from_pretrained(tmp_path, attn_implementation=choice)
        assert loaded.encoder.config._attn_implementation == choice
        heard.append(loaded.features(waveform))
    torch.testing.assert_close(*heard, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_changes_no_gradient(tokenizer):
    tokenizer = copy.deepcopy(tokenizer).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            tokenizer.gradient_checkpointing_enable()
        torch.manual_seed(0)  # of dropout and dropped layers
        tokenizer(noise(1, 9600)).last_hidden_state.square().mean().backward()
        gradients.append(
            {name: weight.grad for name, weight in tokenizer.named_parameters() if weight.grad is not None}
        )
        tokenizer.zero_grad(set_to_none=True)
    assert tokenizer.encoder.is_gradient_checkpointing
    torch.testing.assert_close(*gradients)


def test_layers_above_the_feature_layer_change_no_token(tokenizer):
    config = copy.deepcopy(tokenizer.config)
    config.encoder_config.num_hidden_layers = config.feature_layer
    trimmed = SemanticTokenizer(config).eval()
    state = tokenizer.state_dict()
    trimmed.load_state_dict({name: state[name] for name in trimmed.state_dict()})
    waveform = noise(2, 30 * 960)
    assert torch.equal(trimmed.features(waveform), tokenizer.features(waveform))
    assert torch.equal(trimmed.encode(waveform), tokenizer.encode(waveform))


def test_bad_input_is_refused(tokenizer):
    for bad in (torch.zeros(2, 960), torch.zeros(1, 2, 960), torch.zeros(1, 1, 0)):
        with pytest.raises(ValueError, match="waveform must have shape"):
            tokenizer.encode(bad)
    with pytest.raises(ValueError, match="conv_kernel"):
        SemanticTokenizerConfig(encoder_config={**ENCODER, "conv_kernel": [4, 15, 9]})
    with pytest.raises(ValueError, match="feature_layer"):
        SemanticTokenizerConfig(encoder_config=ENCODER, feature_layer=3)
    with pytest.raises(ValueError, match="201"):
        SemanticTokenizerConfig(encoder_config=ENCODER, feature_layer=1, spectrum_hop=960)


def test_masked_prediction_loss_counts_each_kind_of_frame_by_itself():
    target = torch.zeros(1, 4, 3)
    prediction = torch.tensor([1.0, 2.0, 3.0, 3.0])[None, :, None].expand(1, 4, 3)
    mask = torch.tensor([[True, True, False, False]])
    assert masked_prediction_loss(prediction, target, mask) == (1 + 4) / 2
    assert masked_prediction_loss(prediction, target, ~mask) == 9
    assert masked_prediction_loss(prediction, target, mask & False) == 0
