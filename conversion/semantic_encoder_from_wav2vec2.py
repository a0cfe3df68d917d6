"""Starts the encoder of a SemanticTokenizer from a public Wav2Vec2-Conformer, in transformers' or fairseq's layout.

    python conversion/semantic_encoder_from_wav2vec2.py --source facebook/wav2vec2-conformer-rope-large \
        --out outputs/semantic_encoder_start

A --source that ends in .pt is a fairseq checkpoint (it needs --allow_pickle); anything else is a folder or the name of
a Wav2Vec2ConformerModel, or of one with a head, which stays behind.

Those encoders hear 16 kHz and give 50 frames a second; ours hears 24 kHz and gives 25 tokens. Here it hears every third
sample of the music, low-passed at 4 kHz, as if that were 16 kHz: to the encoder the music is twice as fast and an
octave higher, and its 50 frames a second become 25. That takes no new layer. Low-pass and decimation are convolutions,
and so is the encoder's first layer, so that all three are one: its kernel grows from 10 to 52 samples and its stride
from 5 to 15. Everything else is carried over as it is, and the result equals the source, on music so prepared.

At first next to nothing above 4 kHz is heard; the wider kernel can learn it. The source normalises each clip to unit
variance, which a tokenizer that hears parts of a clip cannot do; instead a level of --rms counts as 1, and the first
layer's own normalisation evens out the rest. The centroids are random until training/fit_semantic_kmeans.py sets them,
which takes the folder as its data.encoder and can leave out the layers above the one it chooses.
"""

import argparse
import math
import re
from pathlib import Path
from typing import Any

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

from melody_diffusers import SemanticTokenizer, SemanticTokenizerConfig
from melody_diffusers.conversion_utils import compare
from melody_diffusers.models.semantic_tokenizer import PAPER_ENCODER

SAMPLE_RATE, SAMPLES_PER_TOKEN = 24000, 960
SOURCE_RATE = 16000  # of every public Wav2Vec2-Conformer

FAIRSEQ_NAMES = (  # a pattern of fairseq's name, what transformers calls it
    (r"^w2v_encoder\.w2v_model\.", ""),  # of a fine-tuned model
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.2\.1\.", r"\1.layer_norm."),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"\.(ffn[12])\.w_1\.", r".\1.intermediate_dense."),
    (r"\.(ffn[12])\.w_2\.", r".\1.output_dense."),
    (r"\.(ffn[12])\.layer_norm\.", r".\1_layer_norm."),
)
FAIRSEQ_UNUSED = re.compile(r"^(quantizer|project_q|final_proj|target_glu|w2v_encoder\.proj)\.|\.rotary_emb\.")


def fairseq_config(model: dict[str, Any]) -> Wav2Vec2ConformerConfig:
    """transformers' configuration of a fairseq `cfg["model"]`."""
    convolutions = []  # fairseq evaluates "[(512, 10, 5)] + [(512, 3, 2)] * 4" as Python
    for group, times in re.findall(r"\[([^\]]*)\](?:\s*\*\s*(\d+))?", model["conv_feature_layers"]):
        triples = re.findall(r"\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)", group)
        convolutions += [tuple(map(int, triple)) for triple in triples] * int(times or 1)
    widths, kernels, strides = zip(*convolutions)
    return Wav2Vec2ConformerConfig(
        hidden_size=model["encoder_embed_dim"],
        intermediate_size=model["encoder_ffn_embed_dim"],
        num_hidden_layers=model["encoder_layers"],
        num_attention_heads=model["encoder_attention_heads"],
        hidden_act="swish",
        position_embeddings_type={"rel_pos": "relative", "rope": "rotary"}[model["pos_enc_type"]],
        conv_depthwise_kernel_size=model["depthwise_conv_kernel_size"],
        conv_dim=list(widths),
        conv_kernel=list(kernels),
        conv_stride=list(strides),
        conv_bias=model["conv_bias"],
        feat_extract_norm="layer" if model["extractor_mode"] == "layer_norm" else "group",
        num_conv_pos_embeddings=model["conv_pos"],
        num_conv_pos_embedding_groups=model["conv_pos_groups"],
    )


def load_fairseq(path: Path) -> Wav2Vec2ConformerModel:
    """The encoder of a fairseq checkpoint, pre-trained or fine-tuned; only tensors and plain values are unpickled."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    model = checkpoint["cfg"]["model"]
    model = model["w2v_args"]["model"] if model.get("w2v_args") else model
    encoder = Wav2Vec2ConformerModel(fairseq_config(model))
    # the rotary table follows from the sizes; fairseq's copies of it are in half precision
    weights = {name: table for name, table in encoder.state_dict().items() if name.endswith("inv_freq")}
    for name, weight in checkpoint["model"].items():
        if FAIRSEQ_UNUSED.search(name):
            continue
        for pattern, ours in FAIRSEQ_NAMES:
            name = re.sub(pattern, ours, name)
        weights[name] = weight.float() if weight.is_floating_point() else weight
    encoder.load_state_dict(weights)
    return encoder.eval()


def load_transformers(source: str, allow_pickle: bool) -> Wav2Vec2ConformerModel:
    encoder, report = Wav2Vec2ConformerModel.from_pretrained(
        source,
        dtype=torch.float32,
        use_safetensors=None if allow_pickle else True,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"] - {"masked_spec_embed"}):
        raise ValueError(f"{source} must hold every weight of the encoder; it lacks {', '.join(missing[:5])}.")
    return encoder.eval()


def low_pass(factor: int, num_zeros: int = 4) -> Tensor:
    """Taps of a windowed sinc of gain 1 that cuts at 1 / factor of the band, with `num_zeros` zeros on each side."""
    place = torch.arange(-num_zeros * factor, num_zeros * factor + 1, dtype=torch.float64)
    taps = torch.sinc(place / factor) * torch.hann_window(len(place) + 2, periodic=False, dtype=torch.float64)[1:-1]
    return (taps / taps.sum()).float()


def decimate(waveform: Tensor, factor: int) -> Tensor:
    """Every `factor`-th sample of a waveform (B, T), low-passed; without padding."""
    return F.conv1d(waveform[:, None], low_pass(factor)[None, None], stride=factor)[:, 0]


def tokenizer_from(
    source: Wav2Vec2ConformerModel, rms: float, feature_layer: int, num_centroids: int
) -> SemanticTokenizer:
    """The tokenizer whose encoder is `source` behind `decimate`, with `rms` for the level 1."""
    config = source.config
    factor, rest = divmod(SAMPLES_PER_TOKEN, math.prod(config.conv_stride))
    if rest or config.feat_extract_norm != "layer":
        raise ValueError(
            f"The source's convolutions must be layer-normalised, with strides whose product divides "
            f"{SAMPLES_PER_TOKEN}; got {config.feat_extract_norm!r} and {list(config.conv_stride)}."
        )
    taps = low_pass(factor)
    arguments = {name: getattr(config, name) for name in type(config).__annotations__}
    arguments |= {
        "conv_kernel": [(config.conv_kernel[0] - 1) * factor + len(taps), *config.conv_kernel[1:]],
        "conv_stride": [config.conv_stride[0] * factor, *config.conv_stride[1:]],
        "apply_spec_augment": True,
        "mask_time_prob": PAPER_ENCODER["mask_time_prob"],
        "mask_time_length": PAPER_ENCODER["mask_time_length"],
    }
    tokenizer = SemanticTokenizer(
        SemanticTokenizerConfig(arguments, feature_layer=feature_layer, num_centroids=num_centroids)
    ).eval()
    weights = source.state_dict()
    first = "feature_extractor.conv_layers.0.conv.weight"
    weights[first] = F.conv_transpose1d(weights[first], taps[None, None], stride=factor) / rms
    weights.pop("encoder.embed_positions.inv_freq", None)  # rebuilt, exactly
    weights.setdefault("masked_spec_embed", tokenizer.encoder.masked_spec_embed)
    tokenizer.encoder.load_state_dict(weights)
    return tokenizer


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="fairseq's .pt file, or folder or name of a checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--rms", type=float, default=0.1, help="level of music that counts as the source's level 1")
    parser.add_argument("--feature_layer", type=int, help="layer to cluster; half way up by default")
    parser.add_argument("--num_centroids", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0, help="of the centroids")
    parser.add_argument("--allow_pickle", action="store_true", help="read pickles, as plain weights only")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference of a layer")
    args = parser.parse_args(arguments)

    if not args.source.endswith(".pt"):
        source = load_transformers(args.source, args.allow_pickle)
    elif args.allow_pickle:
        source = load_fairseq(Path(args.source))
    else:
        raise ValueError(f"{args.source} is a pickle; give --allow_pickle to read plain weights from it.")
    layers = source.config.num_hidden_layers
    torch.manual_seed(args.seed)
    feature_layer = (layers + 1) // 2 if args.feature_layer is None else args.feature_layer
    tokenizer = tokenizer_from(source, args.rms, feature_layer, args.num_centroids)
    tokenizer.save_pretrained(args.out)

    tokenizer = SemanticTokenizer.from_pretrained(args.out, dtype=torch.float32).eval()
    waveform = args.rms * torch.randn(2, 2 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    factor = SAMPLES_PER_TOKEN // math.prod(source.config.conv_stride)
    ours = tokenizer.encoder(waveform, output_hidden_states=True).hidden_states[1:]
    theirs = source(decimate(waveform, factor) / args.rms, output_hidden_states=True).hidden_states[1:]
    print(
        f"hears up to {SAMPLE_RATE // factor // 2} Hz, {SOURCE_RATE * factor / SAMPLE_RATE:g} times as high and fast; "
        f"{tokenizer.token_rate:g} tokens a second; centroids drawn from seed {args.seed}, to be fitted"
    )
    compare(f"{layers} layers", ours, theirs, args.tolerance)
    print(f"{args.out}: {sum(p.numel() for p in tokenizer.parameters()) / 1e6:.1f} M parameters, layer {feature_layer}")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()  # what stays behind is meant to
    main()
