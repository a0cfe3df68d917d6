"""Datasets of the training stages: clips of audio with a caption, and clips encoded as latents and tokens.

Crops, captions and conditions are drawn from (seed, epoch, item), so that they depend neither on the number of workers
nor on where a run was resumed. Both datasets work with torch's own collate function: tensors are stacked, captions
become a list.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..audio import load_audio, repeat_to
from ..timebase import Timebase

ENCODED_COLUMNS = ["latents", "semantic_tokens", "mulan_tokens_audio", "mulan_tokens_text"]
_TAG_COLUMNS = ("style", "mood", "tempo", "key", "meter", "instruments", "bpm", "tags")


def tags_of(row: dict[str, Any]) -> list[str]:
    """The tags of a row as short phrases, in the order of the columns; absent and empty columns are left out."""
    tags: list[str] = []
    for column in _TAG_COLUMNS:
        value = row.get(column)
        if value is None or value == "" or value == []:
            continue
        if column in ("instruments", "tags"):
            tags += value
        elif column == "key":
            tags.append(f"{value} {row.get('mode_word') or row.get('mode') or ''}".strip())
        elif column == "bpm":
            tags.append(f"{value} bpm")
        else:
            tags.append(str(value))
    return tags


def tag_list(row: dict[str, Any], random: np.random.Generator) -> str:
    """All tags of a row in random order, "slow, jazz swing, G minor, ..."; "" without tags."""
    return ", ".join(random.permutation(tags_of(row)).tolist())


def cache_folder(folder: Path) -> Path:
    """.cache beside a data set or, where nothing can be written there, a folder in the user's own cache."""
    beside = folder.absolute().parent / ".cache"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        place = hashlib.blake2b(os.fsencode(beside), digest_size=6).hexdigest()
        own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "melody_diffusers" / place
        own.mkdir(parents=True, exist_ok=True)
        return own


def read_folder(read: Callable[..., Any], folder: str | os.PathLike, **arguments: Any) -> Any:
    """What a function of `datasets` reads from a folder, with its cache in `cache_folder` if its own is read-only."""
    try:
        return read(str(folder), **arguments)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
        return read(str(folder), cache_dir=str(cache_folder(Path(folder)) / "datasets"), **arguments)


def split_names(folder: str | os.PathLike) -> list[str]:
    """The splits of a data set folder."""
    return read_folder(datasets.get_dataset_split_names, folder)


def _load_split(folder: str | os.PathLike, split: str) -> datasets.Dataset:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no data set folder at {folder}.")
    dataset = read_folder(datasets.load_dataset, folder, split=split)
    return dataset.cast_column("audio", datasets.Audio(decode=False))  # bytes; soundfile decodes them


def _decode(audio: dict[str, Any], sample_rate: int) -> np.ndarray:
    """A row's audio as (T,) int16."""
    waveform = load_audio(audio["path"] if audio["bytes"] is None else audio["bytes"], sample_rate)
    return np.clip(np.round(waveform[0].numpy() * 32768.0), -32768, 32767).astype(np.int16)


def _to_waveform(samples: np.ndarray) -> Tensor:
    return torch.from_numpy(samples.astype(np.float32) / 32768.0)[None]  # (1, T)


class AudioClips(Dataset):
    """Random crops of the clips of a data set folder, each paired at random with a caption or with its tags.

    Item i is {"waveform": (1, T) float32, "caption": str, "index": i}. `rows` holds all other columns, row by row, and
    `features` their types.

    Args:
        folder: a folder that `datasets.load_dataset` reads, with a column `audio` and, if there are any, `captions`.
        split: one of its splits.
        crop_seconds: length of the crop; shorter clips, loops say, are repeated. None gives whole clips.
        preload: decode all clips once into one file of 16-bit samples, which every process that trains from it maps
            and shares; False decodes each clip when it is asked for.
        tag_share: probability that the caption is the list of tags in random order.
        described_only: leave out clips that have neither captions nor tags.

    A clip that cannot be decoded is noted in quarantine.jsonl. It is left out, or, without preloading, the next one
    takes its place; more than one in a hundred raise ValueError. Notes and samples lie in the folder .cache beside the
    data set, or, where that cannot be written, in ~/.cache/melody_diffusers ($XDG_CACHE_HOME/melody_diffusers).
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        split: str,
        crop_seconds: float | None,
        sample_rate: int = 24000,
        seed: int = 0,
        preload: bool = True,
        tag_share: float = 0.25,
        described_only: bool = False,
    ) -> None:
        self.folder, self.split, self.sample_rate, self.seed = Path(folder), split, sample_rate, seed
        self.crop_samples = None if crop_seconds is None else round(crop_seconds * sample_rate)
        if self.crop_samples is not None and self.crop_samples < 1:
            raise ValueError(f"crop_seconds must be above 0, got {crop_seconds}.")
        if not 0.0 <= tag_share <= 1.0:
            raise ValueError(f"tag_share must lie in [0, 1], got {tag_share}.")
        self.tag_share, self.epoch = tag_share, 0
        self._dataset = _load_split(folder, split)
        self.features = {name: kind for name, kind in self._dataset.features.items() if name != "audio"}
        self.rows: list[dict[str, Any]] = self._dataset.remove_columns("audio").to_list()
        if not self.rows:  # a dataset of audio alone has no other column to list
            self.rows = [{} for _ in range(len(self._dataset))]
        self._samples: np.ndarray | None = None
        self._starts = self._ends = np.zeros(0, np.int64)
        self._bad: set[int] = set()
        if preload:
            self._samples, self._ends = self._map_samples()
            self._starts = np.append(0, self._ends[:-1]).astype(np.int64)
            self._keep(self._ends > self._starts)  # clips that could not be decoded take no room
        if described_only:
            self._keep(np.array([bool(row.get("captions") or tags_of(row)) for row in self.rows], bool))

    def _keep(self, wanted: np.ndarray) -> None:
        if not wanted.all():
            self.rows = [row for row, is_wanted in zip(self.rows, wanted) if is_wanted]
            self._dataset = self._dataset.select(np.flatnonzero(wanted))
            if self._samples is not None:
                self._starts, self._ends = self._starts[wanted], self._ends[wanted]

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        mapped = self._samples  # a worker maps the file itself: as bytes, each would be sent a copy of all samples
        return self.__dict__ | {"_samples": mapped.filename if isinstance(mapped, np.memmap) else mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if isinstance(self._samples, (str, os.PathLike)):
            self._samples = np.memmap(self._samples, dtype=np.int16, mode="r")

    def set_epoch(self, epoch: int) -> None:
        """Other crops and captions for each epoch."""
        self.epoch = epoch

    def fingerprint(self) -> str:
        """Changes when a file of the folder changes, and with split and sample rate."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        stamps = [(str(path.relative_to(self.folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        key = json.dumps([self.folder.name, self.split, self.sample_rate, stamps]).encode()
        return hashlib.blake2b(key, digest_size=12).hexdigest()

    def clip(self, index: int) -> Tensor:
        """The whole clip, (1, T)."""
        return _to_waveform(self._clip_samples(index))

    def windows(self, seconds: float) -> list[dict[str, Any]]:
        """All whole windows of the clips, one after the other: their rows, with `start_seconds` and `samples`.

        The samples are (T,) int16; a clip that is shorter than a window gives one, as long as it is.
        """
        length, windows = round(seconds * self.sample_rate), []
        for index, row in enumerate(self.rows):
            samples = self._clip_samples(index)
            for number in range(max(len(samples) // length, 1)):
                part = samples[number * length : (number + 1) * length]
                windows.append({**row, "start_seconds": seconds * number, "samples": part})
        return windows

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]  # IndexError ends iteration; negative indices count from the end
        random = np.random.default_rng([self.seed, self.epoch, index])
        samples = None
        while samples is None:
            try:
                samples = self._clip_samples(index)
            except ValueError as error:
                self._quarantine(index, error)
                index = (index + 1) % len(self)
        length = len(samples) if self.crop_samples is None else self.crop_samples
        start = int(random.integers(max(0, len(samples) - length) + 1))
        waveform = repeat_to(_to_waveform(samples[start : start + length]), length)
        return {"waveform": waveform, "caption": self._caption(index, random), "index": index}

    def _clip_samples(self, index: int) -> np.ndarray:
        if self._samples is None:
            return _decode(self._dataset[index]["audio"], self.sample_rate)
        return self._samples[self._starts[index] : self._ends[index]]

    def _quarantine(self, index: int, error: ValueError) -> None:
        """Notes a clip that cannot be decoded; raises when there are too many."""
        if index in self._bad:
            return
        self._bad.add(index)
        notes = cache_folder(self.folder) / "quarantine.jsonl"
        line = {"folder": self.folder.name, "split": self.split, "row": index, "error": str(error)}
        with open(notes, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if len(self._bad) > len(self) // 100:
            raise ValueError(
                f"{len(self._bad)} of {len(self)} clips of {self.split} in {self.folder} cannot be decoded, which is "
                f"more than one in a hundred; the first is row {min(self._bad)} ({error}), see {notes}."
            ) from error

    def _caption(self, index: int, random: np.random.Generator) -> str:
        row = self.rows[index]
        captions = row.get("captions") or []
        if tags_of(row) and (random.random() < self.tag_share or not captions):
            return tag_list(row, random)
        return captions[int(random.integers(len(captions)))] if captions else ""

    def _map_samples(self) -> tuple[np.memmap, np.ndarray]:
        """All clips end to end as int16, and where each ends; decoded once for the data as they are now."""
        folder, name = cache_folder(self.folder), f"{self.folder.name}-{self.split}-{self.sample_rate}"
        samples_file = folder / f"{name}-{self.fingerprint()}.i16"
        ends_file = samples_file.with_suffix(".npy")
        with FileLock(folder / f"{name}.lock"):  # one process decodes; the system frees the lock when it dies
            if not samples_file.is_file():
                for old in folder.iterdir():  # of the data as they were, or left by a process that died
                    of_this_split = re.fullmatch(re.escape(name) + r"-[0-9a-f]{24}\.(i16|npy|tmp)", old.name)
                    if of_this_split:
                        with contextlib.suppress(OSError):  # on Windows: in use
                            old.unlink()
                aside = samples_file.with_suffix(".tmp")
                np.save(ends_file, np.cumsum(self._decode_to(aside), dtype=np.int64))
                os.replace(aside, samples_file)  # last: who sees it finds the ends as well
        return np.memmap(samples_file, dtype=np.int16, mode="r"), np.load(ends_file)

    def _decode_to(self, path: Path) -> list[int]:
        """Writes the samples of all clips to a file, and gives their numbers: 0 for a clip that cannot be decoded."""
        lengths = []
        with open(path, "wb") as file:
            rows = tqdm(self._dataset.select_columns("audio"), desc=f"decode {self.split}", unit="clip")
            for index, row in enumerate(rows):
                samples = np.zeros(0, np.int16)
                try:
                    samples = _decode(row["audio"], self.sample_rate)
                except ValueError as error:
                    self._quarantine(index, error)
                lengths.append(len(samples))
                samples.tofile(file)
        return lengths


def _column_of_tensors(dataset: datasets.Dataset, name: str) -> list[Tensor]:
    """One tensor per row, (n,) or (n, width), cut out of the column's memory: row by row it would take minutes.

    That memory is the mapped file itself, which processes share and the system reads when it is looked at.
    """
    rows: list[Tensor] = []
    for chunk in dataset.with_format("arrow")[:].column(name).chunks:
        lists = getattr(chunk, "storage", chunk)  # of a 2-D column, of which the values lie inside
        lengths = lists.value_lengths().to_numpy()
        values, width = lists.flatten(), None
        if hasattr(values, "flatten") and hasattr(values, "value_lengths"):
            width = int(values.value_lengths().to_numpy()[0]) if len(values) else 0
            values = values.flatten()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor does anybody write
            tensor = torch.from_numpy(values.to_numpy(zero_copy_only=False))
        # not reshape(-1, width): the width is 0 where no row holds anything, as without captions
        rows += (tensor if width is None else tensor.reshape(int(lengths.sum()), width)).split(lengths.tolist())
    return rows


def encoded_plans(folder: str | os.PathLike, split: str) -> list[np.ndarray]:
    """The semantic tokens (S,) of each clip of a folder that `encode_dataset` wrote.

    Raises:
        FileNotFoundError: there is no such split.
    """
    place = Path(folder) / split
    if not place.is_dir():
        raise FileNotFoundError(f"There is no encoded split {split!r} in {folder}; `melody data encode` writes one.")
    return [tokens.numpy() for tokens in _column_of_tensors(datasets.load_from_disk(str(place)), "semantic_tokens")]


class EncodedClips(Dataset):
    """Crops of the clips that `encode_dataset` wrote: latents and semantic tokens of one stretch, and a condition.

    Item i is {"latents": (L, D) float32, "semantic_tokens": (S,), "mulan_tokens": (N,), "index": i}. A crop starts at a
    token that starts with a frame, and holds the frames of exactly its tokens; a token that the end of the clip cuts is
    left out. Its MuLan tokens come from one of the clip's captions or tag lists with probability `text_share`, else
    from the audio window whose centre is nearest to the crop's. Latents are read from the mapped files, all else stays
    in memory. `rows` holds all other columns.

    Args:
        folder: an output folder of `encode_dataset`; its rates are in `timebase`.
        num_tokens: length S of the crop in semantic tokens; None gives whole clips.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        split: str,
        num_tokens: int | None,
        seed: int = 0,
        text_share: float = 0.5,
    ) -> None:
        self._arguments = (folder, split, num_tokens, seed, text_share)
        folder = Path(folder)
        if not (folder / split).is_dir() or not (folder / "encoding.json").is_file():
            raise FileNotFoundError(f"There is no encoded split {split!r} in {folder}.")
        if not 0.0 <= text_share <= 1.0:
            raise ValueError(f"text_share must lie in [0, 1], got {text_share}.")
        settings = json.loads((folder / "encoding.json").read_text(encoding="utf-8"))
        self.timebase = Timebase(**settings["timebase"])
        self.num_tokens, self.seed, self.text_share = num_tokens, seed, text_share
        self._window_seconds = settings["window_seconds"]
        self._window_stride_seconds = settings["window_stride_seconds"]

        encoded = datasets.load_from_disk(str(folder / split))
        self._latents = _column_of_tensors(encoded, "latents")
        self._semantic = [tokens.long() for tokens in _column_of_tensors(encoded, "semantic_tokens")]
        self._audio = [tokens.long() for tokens in _column_of_tensors(encoded, "mulan_tokens_audio")]
        self._text = [tokens.long() for tokens in _column_of_tensors(encoded, "mulan_tokens_text")]
        self.rows: list[dict[str, Any]] = encoded.remove_columns(ENCODED_COLUMNS).to_list()
        self._alignment = self.timebase.token_alignment
        for i, latents in enumerate(self._latents):  # a clip may end within a token, of which it has not all frames
            units = min(len(latents) // self.timebase.frame_alignment, len(self._semantic[i]) // self._alignment)
            self._latents[i] = latents[: units * self.timebase.frame_alignment]
            self._semantic[i] = self._semantic[i][: units * self._alignment]
        shortest = min((len(tokens) for tokens in self._semantic), default=0)
        if num_tokens is not None and (num_tokens % self.timebase.token_alignment or not 0 < num_tokens <= shortest):
            raise ValueError(
                f"num_tokens must be a multiple of {self.timebase.token_alignment} from 1 to {shortest} (the shortest "
                f"clip of {split}), got {num_tokens}."
            )

        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self._semantic)

    def __reduce__(self):
        # a worker maps the files itself: as bytes, each would be sent a copy of all latents
        return type(self), self._arguments, {"_draws": self._draws}

    def set_epoch(self, epoch: int) -> None:
        """Other crops and conditions for each epoch."""
        # one table for all items: a generator for each would take longer than all the rest
        self._draws = np.random.default_rng([self.seed, epoch]).random((len(self), 3)).tolist()

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        tokens, latents = self._semantic[index], self._latents[index]
        draw_start, draw_source, draw_text = self._draws[index]
        start, end = 0, len(tokens)
        if self.num_tokens is not None:
            start = self._alignment * int(draw_start * ((end - self.num_tokens) // self._alignment + 1))
            end = start + self.num_tokens
            latents = latents[self.timebase.tokens_to_frames(start) : self.timebase.tokens_to_frames(end)]
        texts, windows = self._text[index], self._audio[index]
        if len(texts) and draw_source < self.text_share:
            mulan_tokens = texts[int(draw_text * len(texts))]
        else:
            centre_seconds = (start + end) / 2 / self.timebase.token_rate
            nearest = round((centre_seconds - self._window_seconds / 2) / self._window_stride_seconds)
            mulan_tokens = windows[min(max(nearest, 0), len(windows) - 1)]
        return {
            "latents": latents.float(),
            "semantic_tokens": tokens[start:end],
            "mulan_tokens": mulan_tokens,
            "index": index,
        }
