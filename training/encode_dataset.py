"""Encodes the training set with the frozen VAE-GAN, MuLan, its quantiser and the semantic tokenizer."""

from dataclasses import dataclass
from typing import Literal

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
from transformers import AutoTokenizer

from melody_diffusers.data.datasets import EncodedClips
from melody_diffusers.data.encode import ClipEncoder, encode_dataset, process_state
from melody_diffusers.models.audio_vae import AudioVAEGAN
from melody_diffusers.models.mulan import MuLanModel
from melody_diffusers.models.residual_quantizer import ResidualQuantizer
from melody_diffusers.models.semantic_tokenizer import SemanticTokenizer
from melody_diffusers.training_utils import load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """What is encoded; `splits: null` takes all."""

    folder: str
    splits: list[str] | None = None


@dataclass(kw_only=True)
class ParentsConfig:
    """Folders of the frozen components."""

    vae: str
    mulan: str
    tokenizer: str
    mulan_quantizer: str
    semantic_tokenizer: str


@dataclass(kw_only=True)
class EncodeConfig:
    """How it is encoded (see `ClipEncoder`), and where the result goes."""

    output_dir: str
    batch_size: int = 8
    rows_per_part: int = 256
    mixed_precision: Literal["no", "bf16"] = "no"
    window_seconds: float = 10.0
    window_stride_seconds: float = 2.5
    tag_lists: int = 0


def main() -> None:
    args = parse_args(__doc__)
    sections = {"data": DataConfig, "parents": ParentsConfig, "encode": EncodeConfig}
    config = load_config(args.config, sections, args.set)
    state = process_state()
    device = state.device
    parents = config.parents
    encoder = ClipEncoder(
        vae=AudioVAEGAN.from_pretrained(parents.vae, dtype=torch.float32).to(device),
        mulan=MuLanModel.from_pretrained(parents.mulan, dtype=torch.float32).to(device),
        mulan_quantizer=ResidualQuantizer.from_pretrained(parents.mulan_quantizer).to(device),
        semantic_tokenizer=SemanticTokenizer.from_pretrained(parents.semantic_tokenizer, dtype=torch.float32).to(
            device
        ),
        tokenizer=AutoTokenizer.from_pretrained(parents.tokenizer),
        window_seconds=config.encode.window_seconds,
        window_stride_seconds=config.encode.window_stride_seconds,
        mixed_precision=config.encode.mixed_precision,
        tag_lists=config.encode.tag_lists,
    )
    output_dir, splits = config.encode.output_dir, config.data.splits
    encode_dataset(
        config.data.folder, encoder, output_dir, splits, config.encode.batch_size, config.encode.rows_per_part
    )

    if not state.is_main_process:
        return
    bound = encoder.vae.config.latent_scale * encoder.vae.config.latent_clip
    first = "train" if splits is None else splits[0]
    clips = EncodedClips(output_dir, first, num_tokens=None)
    latents = torch.cat([clips[index]["latents"] for index in range(min(len(clips), 200))])
    tokens = torch.cat([clips[index]["semantic_tokens"] for index in range(len(clips))])
    print(
        f"encoded: {first} has {len(clips)} clips; latents mean {latents.mean():.3f}, std {latents.std():.3f}, "
        f"{(latents.abs() > 0.999 * bound).float().mean():.2%} clipped; {len(tokens.unique())} semantic tokens in use"
    )


if __name__ == "__main__":
    main()
