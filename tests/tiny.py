"""Real components at the smallest sizes that still fit together, with random weights from fixed seeds."""

from typing import Any

import torch
from torch import nn
from transformers import BertTokenizerFast

from melody_diffusers import (
    AngleScheduler,
    AudioVAEGAN,
    AudioVAEGANConfig,
    DualPathDiffusionModel,
    MuLanConfig,
    MuLanModel,
    ResidualQuantizer,
    SemanticLM,
    SemanticLMConfig,
    SemanticTokenizer,
    SemanticTokenizerConfig,
)

LATENT_DIM, EMBEDDING_DIM, CENTROIDS, MULAN_CODEBOOKS, MULAN_CODES = 8, 16, 32, 3, 16
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a the and slow fast happy sad waltz rock techno piano violin solo".split()


@torch.no_grad()
def make_attentive(components: dict[str, Any]) -> dict[str, Any]:
    """The same, with weights that let words decide the MuLan tokens, and those what the language model draws."""
    components["mulan"].get_input_embeddings().weight.mul_(50)
    for weight in components["semantic_lm"].parameters():
        weight.mul_(10 if weight.ndim == 2 else 1)
    return components


@torch.no_grad()
def make_quiet(components: dict[str, Any]) -> dict[str, Any]:
    """The same, with sound that stays within full scale, so that no limiter acts."""
    decoder = components["vae"].decoder
    decoder.magnitude.bias -= 2.0
    decoder.linear.weight.mul_(0.1)
    return components


def make_hearing(dual_path: DualPathDiffusionModel, **sizes: Any) -> DualPathDiffusionModel:
    """A model like `dual_path` that hears the prompt as well, with random weights."""
    mulan = dict(num_mulan_codebooks=MULAN_CODEBOOKS, mulan_codebook_size=MULAN_CODES, mulan_dim=EMBEDDING_DIM)
    model = DualPathDiffusionModel.from_config(dual_path.config, **mulan | sizes).eval()
    nn.init.normal_(model.mulan_embedding.codebooks)
    nn.init.ones_(model.mulan_embedding.mlp.norm.weight)
    return model


def make_tiny_components() -> dict[str, Any]:
    """A new set of a pipeline's components: 24 kHz, hop 480, windows of 10 s; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vocabulary = {word: i for i, word in enumerate([*WORDS, *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")])}
        components = {
            "vae": AudioVAEGAN(
                AudioVAEGANConfig(
                    head="istft",
                    latent_dim=LATENT_DIM,
                    istft_hop=480,
                    istft_n_fft=960,
                    istft_width=16,
                    istft_encoder_layers=1,
                    istft_decoder_layers=1,
                )
            ),
            "mulan": MuLanModel(
                MuLanConfig(
                    audio_config={
                        "hidden_size": 16,
                        "num_hidden_layers": 1,
                        "num_attention_heads": 2,
                        "intermediate_size": 32,
                        "patch_size": 16,
                        "frequency_stride": 16,
                        "time_stride": 16,
                        "max_length": 64,
                        "num_mel_bins": 32,
                    },
                    text_config={
                        "vocab_size": len(vocabulary),
                        "hidden_size": 16,
                        "num_hidden_layers": 1,
                        "num_attention_heads": 2,
                        "intermediate_size": 32,
                        "max_position_embeddings": 32,
                    },
                    projection_dim=EMBEDDING_DIM,
                    hop_length=480,
                )
            ),
            "tokenizer": BertTokenizerFast(vocab=vocabulary, model_max_length=32),
            "mulan_quantizer": ResidualQuantizer(MULAN_CODEBOOKS, MULAN_CODES, EMBEDDING_DIM),
            "semantic_tokenizer": SemanticTokenizer(
                SemanticTokenizerConfig(
                    encoder_config={
                        "hidden_size": 16,
                        "num_hidden_layers": 1,
                        "num_attention_heads": 2,
                        "intermediate_size": 32,
                        "position_embeddings_type": "rotary",
                        "feat_extract_norm": "layer",
                        "conv_dim": [8, 16],
                        "conv_stride": [30, 32],
                        "conv_kernel": [30, 32],
                    },
                    feature_layer=1,
                    num_centroids=CENTROIDS,
                )
            ),
            "semantic_lm": SemanticLM(
                SemanticLMConfig(
                    num_mulan_codebooks=MULAN_CODEBOOKS,
                    mulan_codebook_size=MULAN_CODES,
                    semantic_codebook_size=CENTROIDS,
                    hidden_size=16,
                    intermediate_size=32,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    max_position_embeddings=512,
                )
            ),
            "dual_path": DualPathDiffusionModel(
                latent_dim=LATENT_DIM,
                num_frames=500,
                semantic_codebook_size=CENTROIDS,
                hidden_size=16,
                num_blocks=2,
                segment_length=32,
                num_attention_heads=2,
                num_coarse_layers=1,
                mlp_size=32,
                angle_embedding_size=8,
            ),
            "scheduler": AngleScheduler(),
        }
        nn.init.normal_(components["mulan_quantizer"].codebooks, std=EMBEDDING_DIM**-0.5)
    for component in components.values():
        if isinstance(component, nn.Module):
            component.eval()
    return components
