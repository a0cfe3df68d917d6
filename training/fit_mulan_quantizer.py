"""Fits the residual quantizer that turns MuLan embeddings into tokens (section 3.1 of the paper).

    python training/fit_mulan_quantizer.py --config training/configs/mulan_quantizer/tiny.yaml

The paper fits it to music; here captions count as well, because the two towers do not quite meet: fitted to one of them
alone, the quantizer would serve the other badly, and prompts arrive as text or as music.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.devices import default_device
from melody_diffusers.models.mulan import MuLanModel
from melody_diffusers.models.residual_quantizer import ResidualQuantizer
from melody_diffusers.training_utils import load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """What is clustered: `crops_per_clip` random crops of each training clip, more where clips are few, and all of its
    captions.

    Args:
        start: folder of a quantizer to refine, whose tokens keep about their meaning: what was trained on them goes on
            from where it was. Its sizes have to be those of `model`.
    """

    folder: str
    mulan: str
    tokenizer: str
    start: str | None = None
    crop_seconds: float = 10.0
    crops_per_clip: int = 2


@dataclass(kw_only=True)
class RunConfig:
    """Where the quantizer is written, and how long each codebook is refined."""

    output_dir: str
    seed: int = 0
    batch_size: int = 32
    num_iterations: int = 30


@torch.no_grad()
def embed_split(
    mulan: MuLanModel, tokenizer: PreTrainedTokenizerBase, clips: AudioClips, crops_per_clip: int, batch_size: int
) -> tuple[Tensor, list[str | None], Tensor, list[str | None]]:
    """Audio embeddings (A, E) and caption embeddings (C, E) of a split, each with its style where that is known."""
    audio, audio_styles = [], []
    for epoch in range(crops_per_clip):
        clips.set_epoch(epoch)
        for batch in tqdm(DataLoader(clips, batch_size), desc=f"embed {clips.split}", unit="batch", mininterval=10):
            audio.append(mulan.get_audio_features(batch["waveform"].to(mulan.device)).cpu())
            audio_styles += [clips.rows[i].get("style") for i in batch["index"].tolist()]
    captions = [(caption, row.get("style")) for row in clips.rows for caption in row.get("captions") or []]
    texts = mulan.embed_texts(tokenizer, [caption for caption, _ in captions]).cpu()
    return torch.cat(audio), audio_styles, texts, [style for _, style in captions]


def style_accuracy(
    texts: Tensor, text_styles: list[str | None], audio: Tensor, audio_styles: list[str | None]
) -> float:
    """Share of texts of known style whose nearest clip has the same; NaN if there are none."""
    if not any(text_styles):
        return math.nan
    nearest = (F.normalize(texts, dim=-1) @ F.normalize(audio, dim=-1).T).argmax(dim=1).tolist()
    hits = [style == audio_styles[n] for style, n in zip(text_styles, nearest, strict=True) if style]
    return sum(hits) / len(hits)


def main() -> None:
    args = parse_args(__doc__)
    sections = {"model": ResidualQuantizer, "data": DataConfig, "run": RunConfig}
    config = load_config(args.config, sections, args.set)
    data, run = config.data, config.run
    device = default_device()
    mulan = MuLanModel.from_pretrained(data.mulan, dtype=torch.float32).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(data.tokenizer)
    quantizer = ResidualQuantizer(**config.model)
    if data.start is not None:
        quantizer.load_state_dict(ResidualQuantizer.from_pretrained(data.start, dtype=torch.float32).state_dict())

    train = AudioClips(data.folder, "train", data.crop_seconds, mulan.sample_rate, run.seed)
    crops = max(data.crops_per_clip, min(32, -(-2 * quantizer.config.codebook_size // max(len(train), 1))))
    audio, _, texts, _ = embed_split(mulan, tokenizer, train, crops, run.batch_size)
    points = torch.cat([audio, texts])
    generator = torch.Generator().manual_seed(run.seed)
    errors = quantizer.fit(points, generator, run.num_iterations, refine=data.start is not None)
    Path(run.output_dir).mkdir(parents=True, exist_ok=True)
    quantizer.save_pretrained(run.output_dir)

    test = AudioClips(data.folder, "test", data.crop_seconds, mulan.sample_rate, run.seed)
    audio, audio_styles, texts, text_styles = embed_split(mulan, tokenizer, test, 1, run.batch_size)
    decoded_audio, decoded_texts = (quantizer.decode(quantizer.encode(embeds)) for embeds in (audio, texts))
    print(
        f"MuLan quantizer, {len(points)} points: squared error by codebook "
        + " ".join(f"{error:.3f}" for error in errors.tolist())
        + f"; test split: error of audio {(audio - decoded_audio).square().sum(-1).mean():.3f}, of captions "
        f"{(texts - decoded_texts).square().sum(-1).mean():.3f}; style accuracy of captions "
        f"{style_accuracy(texts, text_styles, audio, audio_styles):.3f}, from tokens "
        f"{style_accuracy(decoded_texts, text_styles, decoded_audio, audio_styles):.3f}"
    )


if __name__ == "__main__":
    main()
