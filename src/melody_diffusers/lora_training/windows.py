"""Recordings as windows to train on: which are held out, what they are encoded to, and what is kept of it.

Shapes: T samples, W windows, L latent frames, D latent width, S semantic tokens, N MuLan tokens.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from .. import MeLoDyPipeline
from ..data.encode import ClipEncoder
from ..data.recordings import Accepted

TRAIN, HELD_OUT, END_HELD_OUT = "train", "held out", "its end held out"


def choose_sides(
    recordings: list[Accepted], window_seconds: float, share: float, before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Which recordings are trained on and which are held out, by their digests.

    A recording is held out if its digest, read as a number in [0, 1), is below `share`, so that none changes sides when
    others are added; in a data set folder its split decides. If that holds out none, it is the end of the first (in the
    order of the digests) that has two windows, or else the whole of the first.

    Args:
        before: sides that an earlier run has chosen, which stay.

    Raises:
        ValueError: there is nothing to train on beside what is held out.
    """
    long = [recording for recording in recordings if recording.seconds >= 2 * window_seconds]
    if len(recordings) == 1 and not long:
        raise ValueError(
            f"One recording of {recordings[0].seconds:.1f} s is too little, since some of the music is held out. "
            f"Give at least two recordings, or one of {2 * window_seconds:g} s."
        )
    sides, before = {}, before or {}
    for recording in sorted(recordings, key=lambda recording: recording.sha256):
        if recording.split is not None:
            sides[recording.sha256] = TRAIN if recording.split == "train" else HELD_OUT
        else:
            by_digest = HELD_OUT if int(recording.sha256[:8], 16) / 2**32 < share else TRAIN
            sides[recording.sha256] = before.get(recording.sha256, by_digest)
    first = min(long or recordings, key=lambda recording: recording.sha256).sha256
    if len(recordings) == 1 or set(sides.values()) == {TRAIN}:
        sides[first] = END_HELD_OUT if long else HELD_OUT
    elif set(sides.values()) == {HELD_OUT}:
        sides[max(sides)] = TRAIN
    return sides


class Windows:
    """The windows of recordings, encoded; what was encoded is kept in files, for a run that goes on later.

    Args:
        folder: of these files.
        window: samples of a window.
        stride: samples between the beginnings of windows to train on; those that are held out do not overlap.
        heldout_share: of a recording of which the end is held out.
    """

    def __init__(self, folder: Path, encoder: ClipEncoder, window: int, stride: int, heldout_share: float) -> None:
        self.folder, self.encoder, self.window, self.stride = folder, encoder, window, stride
        self.heldout_share, self._settings, self._used = heldout_share, encoder.settings(), set[Path]()
        self.sample_rate = encoder.timebase.sample_rate

    def encode(self, recordings: list[Accepted], sides: Mapping[str, str]) -> tuple[list[dict], list[dict]]:
        """Windows to train on, and those that are held out.

        Each has `latents` (L, D), `semantic_tokens` (S,), `mulan_tokens` (N,) of its sound, and `text_tokens` (N,) of
        one of the recording's captions in turn, or of its sound where there are none.
        """
        train: list[dict[str, Tensor]] = []
        heldout: list[dict[str, Tensor]] = []
        with tqdm(total=round(sum(recording.seconds for recording in recordings)), desc="encode", unit="s") as bar:
            for recording in recordings:
                captions, side = recording.row["captions"], sides[recording.sha256]
                texts = self.encoder.encode_texts(captions) if captions else None
                for is_heldout in {TRAIN: [False], HELD_OUT: [True], END_HELD_OUT: [False, True]}[side]:
                    stride = self.window if is_heldout else self.stride
                    key = [self._settings, self.window, stride, side, self.heldout_share, recording.sha256]
                    make = partial(self._encode, self._clips(recording, side, is_heldout), stride)
                    encoded = self.keep([*key, recording.clips], make)
                    for i in range(len(encoded["latents"])):
                        window = {name: tensor[i] for name, tensor in encoded.items()}
                        window["text_tokens"] = window["mulan_tokens"] if texts is None else texts[i % len(texts)]
                        (heldout if is_heldout else train).append(window)
                bar.update(round(recording.seconds))
        return train, heldout

    def keep(self, key: Any, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors that belong to the key, from their file or, where there is none, made and written."""
        digest = hashlib.blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()
        file = self.folder / f"{digest}.safetensors"
        self._used.add(file)
        try:
            return load_file(file)
        except (FileNotFoundError, SafetensorError):  # or damaged
            tensors = {name: tensor.contiguous().cpu() for name, tensor in make().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}")
        save_file(tensors, aside)
        os.replace(aside, file)
        return tensors

    def forget_others(self) -> None:
        """Removes the files of other recordings, settings or weights."""
        for file in set(self.folder.glob("*")) - self._used:
            file.unlink(missing_ok=True)

    def _clips(self, recording: Accepted, side: str, is_heldout: bool) -> Iterator[Tensor]:
        """(1, T) each; none is shorter than a window."""
        clips = recording.waveforms(self.sample_rate)
        is_short = max(seconds for *_, seconds in recording.clips) < self.window / self.sample_rate + 0.001
        if is_short or side == END_HELD_OUT:
            whole = torch.cat(list(clips), dim=-1)
            length = whole.shape[-1]
            if length < self.window:  # a loop
                whole = whole.repeat(1, -(-self.window // length))[:, : self.window]
            if side == END_HELD_OUT:
                end = min(max(self.window, round(self.heldout_share * length)), length - self.window)
                whole = whole[:, -end:] if is_heldout else whole[:, :-end]
            clips = iter([whole])
        for clip in clips:
            if clip.shape[-1] >= self.window:
                yield clip

    def _encode(self, clips: Iterator[Tensor], stride: int) -> dict[str, Tensor]:
        """`latents` (W, L, D), `semantic_tokens` (W, S), `mulan_tokens` (W, N)."""
        parts = []
        for clip in clips:
            for waveforms in clip.unfold(-1, self.window, stride).transpose(0, 1).split(8):  # (B, 1, T)
                encoded = self.encoder.encode_audio(waveforms.contiguous())
                encoded["mulan_tokens"] = encoded.pop("mulan_tokens_audio")[:, 0]
                parts.append(encoded)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def read_prompts(file: Path) -> list[str]:
    """The prompts of a YAML file: a list, or lists by name."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content if isinstance(content, list) else [text for texts in content.values() for text in texts]


@torch.no_grad()
def write_other_music(pipe: MeLoDyPipeline, texts: list[str], seed: int) -> dict[str, Tensor]:
    """What the base makes of the prompts: `latents` (W, L, D), `semantic_tokens` (W, S), `mulan_tokens` (W, N)."""
    parts = []
    with tqdm(total=len(texts), desc="other music", unit="prompt") as bar:
        for start in range(0, len(texts), 8):
            batch = texts[start : start + 8]
            made = pipe(
                batch,
                audio_duration=pipe.timebase.frames_to_seconds(pipe.dual_path.config.num_frames),
                guidance_scale=1.0,  # what the models themselves say
                prompt_guidance_scale=1.0,
                lm_guidance_scale=1.0,
                generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))],
                output_type="latent",
            )
            parts.append({"latents": made.audios, **{name: made[name] for name in ("semantic_tokens", "mulan_tokens")}})
            bar.update(len(batch))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
