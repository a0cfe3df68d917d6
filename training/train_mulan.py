"""Trains MuLanModel: clips and texts of one embedding space (section 3.1 of the paper).

    python training/train_mulan.py --config training/configs/mulan/tiny.yaml

Each clip is paired at random with one of its captions or with its tags. At the end the script says how well captions of
unseen clips find their clip, and how well prompts in other words find clips of their style. `data.start` goes on from a
whole MuLan, such as conversion/ writes.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import ASTModel, AutoTokenizer, BertModel, PreTrainedTokenizerBase

from melody_diffusers import MELODY_TINY
from melody_diffusers.audio import repeat_to
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.losses import contrastive_loss
from melody_diffusers.models.mulan import MuLanConfig, MuLanModel
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """Clips, and what the towers start from.

    Args:
        start: folder or name of a MuLanModel to go on from; its sizes are taken over, and `model` has to be empty.
        tokenizer: folder or name of a tokenizer; None takes that in the folder `tokenizer` of `start`. Copied to
            OUTPUT_DIR/tokenizer.
        text_tower, audio_tower: folder or name of a BertModel and an ASTModel to start from; None starts at random, or
            with those of `start`.
        train_word_vectors: False keeps the word vectors of `text_tower`, so that words that no caption uses keep their
            place among those that some do.
        train_audio_tower: False keeps the audio tower, whose embeddings of each clip's windows are then computed once:
            only the text tower learns (Zhai et al. 2022, LiT), in a small part of the time. Needs `cache_spectrograms`.
        word_dropout: share of words that become [MASK] in training.
        band_jitter: deviation of a random gain per clip and mel band (smooth over bands, in units of the normalised
            log-mel), and of white noise per value; without it the tower listens to traits of the renderer.
        cache_spectrograms: compute the spectrogram of each clip once and keep them all in memory; crops are then the
            audio tower's window, and a small model's step takes a third less time.
        group_by: a column of the data set, "style" say: half of each epoch's batches hold clips that are alike in it,
            where a caption has to find its clip by the tempo, key and instruments it names; needs `cache_spectrograms`.
            A data set without this column is shuffled.
        tag_columns: columns, ["key", "bpm"] say, that a linear layer has to read from the embeddings of clip and
            caption alike (`TagReader`); those that the data set lacks are left out.
        tag_weight: of that loss beside the contrastive one.
        tag_noise: length of the noise that is added to an embedding before its tags are read: that of the error of the
            quantizer, say, which otherwise takes away what the embedding tells in small differences.
        prompts: YAML file of styles, each with prompts to judge by; None judges by captions only.
    """

    folder: str
    start: str | None = None
    tokenizer: str | None = None
    crop_seconds: float = 10.0
    tag_share: float = 0.25
    text_tower: str | None = None
    audio_tower: str | None = None
    train_word_vectors: bool = True
    train_audio_tower: bool = True
    word_dropout: float = 0.0
    band_jitter: float = 0.0
    cache_spectrograms: bool = False
    group_by: str | None = None
    tag_columns: list[str] = field(default_factory=list)
    tag_weight: float = 0.0
    tag_noise: float = 0.0
    prompts: str | None = None

    def __post_init__(self) -> None:
        if self.start is None and self.tokenizer is None:
            raise ValueError("tokenizer must name a folder or repository, or start one with a tokenizer of its own.")
        if self.start is not None and (self.text_tower, self.audio_tower) != (None, None):
            raise ValueError("text_tower and audio_tower must be null where start names a whole MuLan.")
        if not self.train_audio_tower and not self.cache_spectrograms:
            raise ValueError("train_audio_tower=false needs cache_spectrograms=true.")


class SpectrogramClips(AudioClips):
    """AudioClips whose items hold one window of their clip's spectrogram, "log_mel" (1, F, M), and no waveform."""

    def __init__(
        self, folder: str, split: str, mulan: MuLanModel, seed: int, tag_share: float, group_by: str | None
    ) -> None:
        super().__init__(folder, split, None, mulan.sample_rate, seed, tag_share=tag_share, described_only=True)
        self.groups = None if group_by not in self.features else [row[group_by] or "" for row in self.rows]
        self.num_frames = mulan.config.audio_config.max_length
        self.log_mels = []
        for index in tqdm(range(len(self)), desc="spectrograms", unit="clip", mininterval=10):
            clip = self.clip(index)  # (1, T)
            clip = repeat_to(clip, mulan.window_samples)
            self.log_mels.append(mulan.whole_log_mel(clip).half())  # (1, F, M)

    def order(self, generator: torch.Generator) -> list[int]:
        """An epoch's order: shuffled; with groups, its second half group by group, the groups in random order."""
        order = torch.randperm(len(self), generator=generator).tolist()
        if self.groups is None:
            return order
        grouped = order[len(order) // 2 :]
        rank = {group: place for place, group in enumerate(dict.fromkeys(self.groups[i] for i in grouped))}
        return order[: len(order) // 2] + sorted(grouped, key=lambda i: rank[self.groups[i]])

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, self.epoch, index])
        log_mel = self.log_mels[index]  # (1, F, M)
        start = int(random.integers(log_mel.shape[1] - self.num_frames + 1))
        crop = log_mel[:, start : start + self.num_frames].float()
        return {"log_mel": crop, "caption": self._caption(index, random), "index": index}


class EmbeddedClips(SpectrogramClips):
    """SpectrogramClips whose items hold the embedding of one of their clip's windows, "audio_embeds" (E,), instead.

    The windows follow one another at half of their length.
    """

    def __init__(self, folder: str, split: str, mulan: MuLanModel, *args: Any) -> None:
        super().__init__(folder, split, mulan, *args)
        self.embeds: list[Tensor] = []
        for log_mel in tqdm(self.log_mels, desc="embeddings", unit="clip", mininterval=10):
            windows = log_mel[0].float().unfold(0, self.num_frames, self.num_frames // 2).mT  # (windows, F, M)
            with torch.no_grad():
                self.embeds.append(mulan.embed_log_mel(windows[:, None].to(mulan.device)).cpu())
        self.log_mels = []

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = np.random.default_rng([self.seed, self.epoch, index])
        embeds = self.embeds[index]
        chosen = embeds[int(random.integers(len(embeds)))]
        return {"audio_embeds": chosen, "caption": self._caption(index, random), "index": index}


class TagReader(nn.Module):
    """A linear layer from embeddings to the values of some columns of a data set.

    The contrastive loss alone lets the towers agree to ignore what few captions name and few batches turn on: the key,
    the exact tempo. Numbers are sorted into bins of 4 %, of which the neighbours of the true one count in part; a row
    without a value is not asked.

    Args:
        rows: of the data set.
        columns: of strings, of truth values, or of numbers above 0.
        width: E of the embeddings.
    """

    def __init__(self, rows: list[dict[str, Any]], columns: list[str], width: int) -> None:
        super().__init__()
        targets = []
        for column in columns:
            values = [row[column] for row in rows]
            known = torch.tensor([value is not None for value in values])
            first = next((value for value in values if value is not None), None)
            if isinstance(first, (int, float)) and not isinstance(first, bool):
                bins = torch.tensor([value or 1.0 for value in values]).log() / math.log(1.04)
                centres = torch.arange(int(bins[known].min()), int(bins[known].max()) + 2)
                near = torch.softmax(-0.5 * (bins[:, None] - centres).square(), dim=1)
                targets.append(near * known[:, None])
            else:
                kinds = sorted(set(values) - {None})
                targets.append(torch.tensor([[float(value == kind) for kind in kinds] for value in values]))
        self.scale = math.sqrt(width)  # of unit-length embeddings
        self.sizes = [target.shape[1] for target in targets]
        self.register_buffer("targets", torch.cat(targets, dim=1), persistent=False)  # (rows, classes of all columns)
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, embeds: Tensor, index: Tensor) -> Tensor:
        """Cross-entropy, summed over columns, of embeddings (B, E) of the rows `index` (B,)."""
        scores = self.linear(self.scale * embeds).split(self.sizes, dim=1)
        targets = self.targets[index].split(self.sizes, dim=1)
        return torch.stack([F.cross_entropy(s, t) for s, t in zip(scores, targets, strict=True)]).sum()


def jitter_bands(log_mel: Tensor, deviation: float, run: TrainingRun) -> Tensor:
    """Log-mel windows (B, W, F, M) with a random smooth gain per clip and band, and a little noise."""
    coarse = run.randn("gain", len(log_mel), 1, 5)
    gain = torch.nn.functional.interpolate(coarse, log_mel.shape[-1], mode="linear", align_corners=True)  # (B, 1, M)
    return log_mel + deviation * (gain.unsqueeze(2) + 0.5 * run.randn("bands", *log_mel.shape))


def drop_words(tokens: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, share: float, run: TrainingRun) -> Tensor:
    """Token ids with `share` of those that are not special replaced by [MASK]."""
    input_ids = tokens["input_ids"]
    special = torch.tensor(tokenizer.all_special_ids, device=input_ids.device)
    drop = run.rand("words", *input_ids.shape) < share
    return input_ids.masked_fill(drop & ~torch.isin(input_ids, special), tokenizer.mask_token_id)


@torch.no_grad()
def log_mels(mulan: MuLanModel, batch: dict[str, Any], data: DataConfig, run: TrainingRun) -> Tensor:
    """Log-mel windows (B, W, F, M) of the batch's clips, jittered; in full precision, so outside of `autocast`."""
    log_mel = batch["log_mel"] if data.cache_spectrograms else mulan.log_mel(batch["waveform"])
    return jitter_bands(log_mel, data.band_jitter, run) if data.band_jitter > 0 else log_mel


def with_noise(embeds: Tensor, length: float, run: TrainingRun) -> Tensor:
    """Embeddings (B, E) with noise of about this length."""
    return embeds + length / math.sqrt(embeds.shape[1]) * run.randn("tags", *embeds.shape) if length else embeds


@torch.no_grad()
def embed_clips(mulan: MuLanModel, clips: AudioClips) -> Tensor:
    """Embeddings (clips, E) of whole clips, on the CPU."""
    return torch.cat([mulan.get_audio_features(clips.clip(i)[None].to(mulan.device)).cpu() for i in range(len(clips))])


def retrieval_figures(audio: Tensor, texts: Tensor, owner: Tensor, styles: list[str | None]) -> dict[str, float]:
    """How captions (texts (C, E), caption c of clip owner[c]) find clips (audio (N, E)), and those of their style."""
    cosine = texts @ audio.T  # (C, N)
    true = cosine.gather(1, owner[:, None])  # (C, 1)
    rank = (cosine > true).sum(dim=1) + 1
    nearest = cosine.argmax(dim=1).tolist()
    same_style = [styles[n] == styles[o] for n, o in zip(nearest, owner.tolist(), strict=True) if styles[o] is not None]
    figures = {
        "recall_at_1": (rank <= 1).float().mean().item(),
        "recall_at_5": (rank <= 5).float().mean().item(),
        "mean_rank": rank.float().mean().item(),
        "matched_cosine": true.mean().item(),
        "shuffled_cosine": ((cosine.sum() - true.sum()) / (cosine.numel() - true.numel())).item(),
    }
    return figures | ({"style_accuracy": sum(same_style) / len(same_style)} if same_style else {})


def judge(
    mulan: MuLanModel, tokenizer: PreTrainedTokenizerBase, clips: AudioClips, prompts: str | None
) -> dict[str, float]:
    """Figures on held-out clips: retrieval by their captions, and style of the clip nearest to each prompt."""
    mulan.eval()
    audio, styles = embed_clips(mulan, clips), [row.get("style") for row in clips.rows]
    captions = [(caption, i) for i, row in enumerate(clips.rows) for caption in row.get("captions") or []]
    if not captions:
        return {}
    texts = mulan.embed_texts(tokenizer, [caption for caption, _ in captions]).cpu()
    figures = retrieval_figures(audio, texts, torch.tensor([i for _, i in captions]), styles)
    if prompts is not None and any(styles):
        written = yaml.safe_load(Path(prompts).read_text(encoding="utf-8"))
        pairs = [(prompt, style) for style, group in written.items() for prompt in group]
        asked = mulan.embed_texts(tokenizer, [prompt for prompt, _ in pairs]).cpu()
        nearest = (asked @ audio.T).argmax(dim=1).tolist()
        hits = [styles[n] == style for n, (_, style) in zip(nearest, pairs, strict=True)]
        figures["prompt_style_accuracy"] = sum(hits) / len(hits)
    return figures


def shipped_mulan(mulan: MuLanModel, folder: str) -> tuple[MuLanModel, PreTrainedTokenizerBase]:
    """melody-tiny's MuLan and its tokenizer: without texts there is nothing that music could be paired with.

    Raises:
        ValueError: it has another width than the model that was to be trained.
    """
    shipped = MuLanModel.from_pretrained(MELODY_TINY, subfolder="mulan", dtype=torch.float32)
    widths = (shipped.config.projection_dim, mulan.config.projection_dim)
    if widths[0] != widths[1]:
        raise ValueError(
            f"{folder} has captions or tags for fewer than two clips, and the MuLan that comes with the package makes "
            f"embeddings of {widths[0]} numbers, not {widths[1]}. Describe some clips, or name a MuLan by data.start."
        )
    return shipped, AutoTokenizer.from_pretrained(MELODY_TINY, subfolder="tokenizer")


def main() -> None:
    args = parse_args(__doc__)
    sections = {"model": MuLanConfig, "data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    config = load_config(args.config, sections, args.set)
    data = config.data
    torch.manual_seed(config.run.seed)
    if data.start is not None and config.model:
        raise ValueError(f"{args.config}: section model must be empty ({{}}) where data.start names a whole MuLan.")
    if data.tokenizer is None:
        tokenizer = AutoTokenizer.from_pretrained(data.start, subfolder="tokenizer")
    else:
        tokenizer = AutoTokenizer.from_pretrained(data.tokenizer)
    if data.start is None:
        text_config = {"vocab_size": len(tokenizer)} | (config.model.get("text_config") or {})
        mulan = MuLanModel(MuLanConfig(**config.model | {"text_config": text_config}))
    else:
        mulan = MuLanModel.from_pretrained(data.start, dtype=torch.float32)
    tokenizer.model_max_length = mulan.config.text_config.max_position_embeddings
    if data.text_tower is not None:
        tower = BertModel.from_pretrained(data.text_tower, add_pooling_layer=False)
        mulan.text_tower.load_state_dict(tower.state_dict())
    if data.audio_tower is not None:
        mulan.audio_tower.load_state_dict(ASTModel.from_pretrained(data.audio_tower).state_dict())
    mulan.get_input_embeddings().weight.requires_grad_(data.train_word_vectors)
    for part in (mulan.audio_tower, mulan.audio_projection):
        part.requires_grad_(data.train_audio_tower)

    if data.cache_spectrograms:
        kind = SpectrogramClips if data.train_audio_tower else EmbeddedClips
        clips = kind(data.folder, "train", mulan, config.run.seed, data.tag_share, data.group_by)
    else:
        clips = AudioClips(
            data.folder,
            "train",
            data.crop_seconds,
            mulan.sample_rate,
            config.run.seed,
            tag_share=data.tag_share,
            described_only=True,
        )
    if len(clips) < 2:
        if data.start is None:
            mulan, tokenizer = shipped_mulan(mulan, data.folder)
        mulan.save_pretrained(config.run.output_dir)
        tokenizer.save_pretrained(Path(config.run.output_dir) / "tokenizer")
        print(
            f"MuLan: {data.folder} describes fewer than two clips. {data.start or 'melody-tiny'}'s own MuLan is taken: "
            "prompts mean to your model what they mean there, and clips serve as prompts as ever."
        )
        return
    loader = DataLoader(clips, config.run.batch_size, shuffle=True, num_workers=config.run.num_workers, drop_last=True)
    columns = [name for name in data.tag_columns if any(row.get(name) is not None for row in clips.rows)]
    tags = TagReader(clips.rows, columns, mulan.config.projection_dim) if columns else None
    run = TrainingRun(config.run, {"mulan": mulan} | ({"tags": tags} if tags is not None else {}), config)
    optimizer = run.optimizer([p for model in run.models.values() for p in model.parameters()], config.optim)

    for batch in run.steps(loader):
        tokens = mulan.tokenize(tokenizer, batch["caption"])
        input_ids = drop_words(tokens, tokenizer, data.word_dropout, run)
        log_mel = log_mels(mulan, batch, data, run) if data.train_audio_tower else None
        with run.autocast():
            audio_embeds = batch["audio_embeds"] if log_mel is None else mulan.embed_log_mel(log_mel)  # (B, E)
            text_embeds = mulan.get_text_features(input_ids, tokens["attention_mask"])  # (B, E)
        loss, logits = contrastive_loss(run.gather(audio_embeds), run.gather(text_embeds), mulan.logit_scale)
        figures = {"contrastive": loss}
        if tags is not None:
            figures["audio_tags"], figures["text_tags"] = (
                tags(with_noise(embeds, data.tag_noise, run), batch["index"]) for embeds in (audio_embeds, text_embeds)
            )
            loss = loss + data.tag_weight * (figures["audio_tags"] + figures["text_tags"])
        run.backward(loss, optimizer)
        hits = logits.argmax(dim=1) == torch.arange(len(logits), device=logits.device)
        run.finish_step(**figures, recall_at_1=hits.float().mean(), temperature=(-mulan.logit_scale).exp())

    run.save()
    if not run.accelerator.is_main_process:
        return
    tokenizer.save_pretrained(Path(config.run.output_dir) / "tokenizer")
    figures = judge(mulan, tokenizer, AudioClips(data.folder, "test", None, mulan.sample_rate), data.prompts)
    print(
        f"MuLan, {run.step} steps, test split: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    )


if __name__ == "__main__":
    main()
