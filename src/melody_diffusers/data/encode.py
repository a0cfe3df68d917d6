"""Encodes a data set once, so that language model and diffusion model train from latents and tokens alone.

Shapes: B batch, T samples, L latent frames, D latent width, S semantic tokens, N MuLan tokens, W windows.
"""

import atexit
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Array2D, List, Value
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..audio import repeat_to
from ..files import put_in_place
from ..models.audio_vae import AudioVAEGAN
from ..models.mulan import MuLanModel
from ..models.residual_quantizer import ResidualQuantizer
from ..models.semantic_tokenizer import SemanticTokenizer
from ..timebase import Timebase
from .datasets import AudioClips, split_names, tag_list


@dataclass
class ClipEncoder:
    """The frozen components, and what they make of waveforms and captions.

    Args:
        window_seconds: length of the windows the audio tower hears, one every `window_stride_seconds`; a shorter clip,
            a loop say, is repeated to fill one.
        mixed_precision: "bf16" runs the components under autocast.
        tag_lists: how many lists of a clip's tags, each in another order, are encoded beside its captions. A caption
            may say little, and sound tells a key less surely than words do: from tag lists a language model learns
            what to make of a prompt that names one.
    """

    vae: AudioVAEGAN
    mulan: MuLanModel
    mulan_quantizer: ResidualQuantizer
    semantic_tokenizer: SemanticTokenizer
    tokenizer: PreTrainedTokenizerBase
    window_seconds: float = 10.0
    window_stride_seconds: float = 2.5
    mixed_precision: Literal["no", "bf16"] = "no"
    tag_lists: int = 0

    def __post_init__(self) -> None:
        for name in ("window_seconds", "window_stride_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        if self.tag_lists < 0:
            raise ValueError(f"tag_lists must be at least 0, got {self.tag_lists}.")
        rates = {"vae": self.vae.sample_rate, "mulan": self.mulan.config.sample_rate}
        rates["semantic_tokenizer"] = self.semantic_tokenizer.config.sample_rate
        if len(set(rates.values())) > 1:
            raise ValueError(f"All components need one sample rate, got {rates}.")
        token_rate = self.vae.sample_rate // self.semantic_tokenizer.samples_per_token
        self.timebase = Timebase(self.vae.sample_rate, self.vae.hop_samples, token_rate)
        for component in self.components().values():
            component.eval()

    def components(self) -> dict[str, nn.Module]:
        """The models by name."""
        names = ("vae", "mulan", "mulan_quantizer", "semantic_tokenizer")
        return {name: getattr(self, name) for name in names}

    def settings(self) -> dict[str, Any]:
        """Everything that the codes depend on: rates, windows, precision, a digest of each component's weights."""
        return {
            "timebase": asdict(self.timebase),
            "window_seconds": self.window_seconds,
            "window_stride_seconds": self.window_stride_seconds,
            "mixed_precision": self.mixed_precision,
            "tag_lists": self.tag_lists,
            "components": {name: _digest(component) for name, component in self.components().items()},
        }

    @torch.inference_mode()
    def encode_audio(self, waveform: Tensor) -> dict[str, Tensor]:
        """Latents (B, L, D), semantic tokens (B, S) and MuLan tokens (B, W, N) of clips (B, 1, T)."""
        waveform, num_samples = waveform.to(self.vae.device), waveform.shape[-1]
        length = self.timebase.seconds_to_samples(self.window_seconds)
        stride = self.timebase.seconds_to_samples(self.window_stride_seconds)
        starts = range(0, max(num_samples - length, 0) + 1, stride)
        with torch.autocast(waveform.device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16"):
            latents = self.vae.encode(waveform).latent_dist.mode()
            semantic_tokens = self.semantic_tokenizer.encode(waveform)
            embeddings = [self.mulan.get_audio_features(waveform[..., start : start + length]) for start in starts]
        expected = (self.timebase.samples_to_frames(num_samples), self.timebase.samples_to_tokens(num_samples))
        if (latents.shape[1], semantic_tokens.shape[1]) != expected:
            raise ValueError(
                f"{num_samples} samples make {expected[0]} frames and {expected[1]} tokens, but the components gave "
                f"{latents.shape[1]} and {semantic_tokens.shape[1]}."
            )
        mulan_tokens = [self.mulan_quantizer.encode(embedding.float()) for embedding in embeddings]  # W x (B, N)
        return {
            "latents": latents.half().cpu(),
            "semantic_tokens": semantic_tokens.cpu(),
            "mulan_tokens_audio": torch.stack(mulan_tokens, dim=1).cpu(),
        }

    @torch.inference_mode()
    def encode_texts(self, texts: list[str]) -> Tensor:
        """MuLan tokens (B, N) of captions, all padded to one fixed length."""
        with torch.autocast(self.mulan.device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16"):
            embeddings = self.mulan.embed_texts(self.tokenizer, texts)
        return self.mulan_quantizer.encode(embeddings.float()).cpu()

    def _texts(self, row: dict[str, Any], index: int) -> list[str]:
        """The captions of a row and its tag lists."""
        random = np.random.default_rng(index)
        lists = [tag_list(row, random) for _ in range(self.tag_lists)]
        return [*(row.get("captions") or []), *filter(None, lists)]

    def encode_rows(self, clips: AudioClips, rows: range, batch_size: int) -> Iterator[dict[str, Any]]:
        """The encoded rows, in order."""
        texts_of = {index: self._texts(clips.rows[index], index) for index in rows}
        texts = list(itertools.chain.from_iterable(texts_of.values()))
        starts = range(0, len(texts), 4 * batch_size)
        tokens = [token for start in starts for token in self.encode_texts(texts[start : start + 4 * batch_size])]
        unread = iter(tokens)
        window = self.timebase.seconds_to_samples(self.window_seconds)
        waveforms = ((index, repeat_to(clips.clip(index), window)) for index in rows)
        # one length to a batch: no clip is padded for the sake of another, so that none depends on its neighbours
        for _, group in itertools.groupby(waveforms, key=lambda item: item[1].shape):
            while batch := list(itertools.islice(group, batch_size)):
                encoded = self.encode_audio(torch.stack([waveform for _, waveform in batch]))
                for position, (index, _) in enumerate(batch):
                    row = {name: codes[position].numpy() for name, codes in encoded.items()}
                    own = itertools.islice(unread, len(texts_of[index]))
                    yield clips.rows[index] | row | {"mulan_tokens_text": [token.tolist() for token in own]}


def process_state() -> PartialState:
    """Which of the processes of `accelerate launch` or `torchrun` this is, if there are several, and its device."""
    state = PartialState(cpu=not torch.cuda.is_available())
    atexit.register(state.destroy_process_group)  # a process that exits within its group aborts, now and then
    return state


def encode_dataset(
    folder: str | os.PathLike,
    encoder: ClipEncoder,
    output_folder: str | os.PathLike,
    splits: Sequence[str] | None = None,
    batch_size: int = 8,
    rows_per_part: int = 256,
) -> None:
    """Writes every clip as latents, semantic tokens, and MuLan tokens of its windows and of its texts.

    Each split becomes output_folder/<split> (`datasets.load_from_disk`) with the columns `latents` (L, D) float16 (the
    mean of the VAE's Gaussian), `semantic_tokens` (S,), `mulan_tokens_audio` (W, N), `mulan_tokens_text` (texts, N)
    and all columns of the data set but the audio; rates and settings go to output_folder/encoding.json. Work is kept
    every `rows_per_part` rows: a run that was stopped goes on where it was, unless data, weights or settings have
    changed; then it starts over. The processes of `accelerate launch` share the parts among themselves.

    Args:
        folder: a folder that `AudioClips` reads.
        splits: all splits of the folder by default.

    Raises:
        ValueError: `output_folder` lies within `folder`, or a number is below 1.
    """
    if batch_size < 1 or rows_per_part < 1:
        raise ValueError(f"batch_size and rows_per_part must be at least 1, got {batch_size} and {rows_per_part}.")
    if Path(output_folder).resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"{output_folder} lies within {folder}, which it would become part of: choose another folder.")
    state, output, settings = process_state(), Path(output_folder), json.dumps(encoder.settings(), indent=1)
    written = output / "encoding.json"
    if state.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        if not written.is_file() or written.read_text(encoding="utf-8") != settings:
            for outdated in [path.parent for path in output.glob("*/source.json")] + list(output.glob(".parts-*")):
                shutil.rmtree(outdated)
            written.write_text(settings, encoding="utf-8")
    state.wait_for_everyone()  # what is outdated is gone before anybody looks
    for split in split_names(folder) if splits is None else splits:
        clips = AudioClips(folder, split, None, encoder.timebase.sample_rate)
        _encode_split(clips, encoder, output, batch_size, rows_per_part, state)


def _encode_split(
    clips: AudioClips, encoder: ClipEncoder, output: Path, batch_size: int, rows_per_part: int, state: PartialState
) -> None:
    source = json.dumps({"fingerprint": clips.fingerprint(), "rows": len(clips)})
    finished = output / clips.split
    if finished.is_dir() and (finished / "source.json").read_text(encoding="utf-8") == source:
        state.print(f"{clips.split}: {len(clips)} clips are encoded already, in {finished}")
        return
    features = clips.features | {
        "latents": Array2D((None, encoder.vae.latent_dim), "float16"),
        "semantic_tokens": List(Value("int32")),
        "mulan_tokens_audio": List(List(Value("int32"))),
        "mulan_tokens_text": List(List(Value("int32"))),
    }
    parts_folder = output / f".parts-{clips.split}-{clips.fingerprint()}-{rows_per_part}"
    parts = {parts_folder / f"{start:09d}": start for start in range(0, len(clips), rows_per_part)}
    missing = [part for part in parts if not part.is_dir()]
    state.wait_for_everyone()  # all have seen the same parts before one is added
    parts_folder.mkdir(exist_ok=True)
    began, seconds = time.monotonic(), 0.0
    mine = missing[state.process_index :: state.num_processes]
    total = sum(min(rows_per_part, len(clips) - parts[part]) for part in mine)
    with tqdm(total=total, desc=f"encode {clips.split}", unit="clip", disable=not state.is_main_process) as bar:
        for part in mine:
            rows = range(parts[part], min(parts[part] + rows_per_part, len(clips)))
            encoded = []
            for row in encoder.encode_rows(clips, rows, batch_size):
                encoded.append(row)
                seconds += encoder.timebase.frames_to_seconds(len(row["latents"]))
                bar.update()
            _save_aside(datasets.Dataset.from_list(encoded, features=datasets.Features(features)), part, source)
    hours = sum(gather_object([seconds])) / 3600  # and waits until all parts are there
    if state.is_main_process:
        whole = datasets.concatenate_datasets([datasets.load_from_disk(str(part)) for part in parts])
        _save_aside(whole, finished, source)
        shutil.rmtree(parts_folder)
        rate = hours / ((time.monotonic() - began) / 3600)
        print(f"{clips.split}: {len(clips)} clips, {hours:.3g} h encoded at {rate:.0f} h per hour")
    state.wait_for_everyone()


def _save_aside(dataset: datasets.Dataset, folder: Path, source: str) -> None:
    """Writes a data set beside its place and then renames it, so that a folder is there whole or not at all."""
    aside = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    datasets.disable_progress_bars()
    try:
        dataset.save_to_disk(str(aside))
    finally:
        datasets.enable_progress_bars()
    (aside / "source.json").write_text(source, encoding="utf-8")
    put_in_place(aside, folder)


def _digest(model: nn.Module) -> str:
    """A digest of all weights and buffers."""
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
