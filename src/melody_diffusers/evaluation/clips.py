"""The clips of an evaluation: which are chosen, what each is asked, and how their audio is made and read.

Each row of a report is a list of `Clip`s whose audio lies in FLAC files. `make_clips` writes all of them with a
manifest; whoever judges them reads the files alone, so that the same audio can be judged again.

Shapes: B clips, T samples.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from melody_diffusers.audio import crop_or_pad, load_audio, save_audio
from melody_diffusers.evaluation.key import named_key

QUESTIONS = ("style", "family")
GRID_QUESTIONS = (*QUESTIONS, "ensemble", "drums")
CLIP_SECONDS = 10.0
NAMED_BPM = re.compile(r"\b(\d{2,3})\s*(?:bpm|beats (?:per|a) minute)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Clip:
    """One clip to judge: where it lies, the words it belongs to, and what a judge should hear in it."""

    file: str
    text: str
    expected: dict[str, str]  # question -> answer, only for the questions this clip is asked
    bpm: int | None  # the tempo that the text or the score names
    key: str | None  # and the key, one of `KEYS`
    triple: bool  # beats in threes: a tap on every third beat counts as the same tempo
    source: str  # where the text comes from: "caption" of a test clip, or written by "hand"
    piece: str  # the piece of music that the audio or the caption is of
    seed: int
    seconds: float = field(default_factory=lambda: CLIP_SECONDS)


@dataclass
class Settings:
    """What was made, so that a report can be read on its own."""

    model: str
    data: str
    clips_per_class: int
    seed: int
    call_arguments: dict[str, Any] = field(default_factory=dict)


def choose_windows(windows: list[dict], clips_per_class: int, seed: int) -> list[tuple[dict, dict[str, str]]]:
    """Real clips with the questions each is asked: `clips_per_class` for every style, and at least as many a family.

    The clips of a style also answer for their families; families still short of clips get more, and those answer for
    the family alone, so that every style weighs the same. Classes with too few clips give what they have.
    """
    shuffled = random.Random(seed).sample(windows, len(windows))
    chosen: list[tuple[dict, dict[str, str]]] = []
    for style in sorted({window["style"] for window in windows}):
        of_style = [window for window in shuffled if answer(window, "style") == style][:clips_per_class]
        chosen += [(window, {question: window[question] for question in QUESTIONS}) for window in of_style]
    taken = {id(window) for window, _ in chosen}
    counts = Counter(window["family"] for window, _ in chosen)
    for family in sorted({window["family"] for window in windows}):
        spare = [window for window in shuffled if window["family"] == family and id(window) not in taken]
        missing = max(clips_per_class - counts[family], 0)
        chosen += [(window, {"family": family}) for window in spare[:missing]]
    return chosen


def choose_prompts(
    windows: list[dict], hand_written: dict[str, dict[str, dict]], clips_per_class: int, seed: int
) -> list[Clip]:
    """Held-out prompts: for each class half from captions of test clips that name it, half written by hand.

    A caption serves where it names its own class and no other class of the same question: "a waltz with piano and
    accordion" asks for no single family. No two prompts of a class come from one piece of music. Few of these name a
    key, so that `4 * clips_per_class` captions that do, of as many pieces, follow; they are asked nothing else.

    Args:
        hand_written: question -> class -> {"names": words that name it, "prompts": [...], "triple": bool}, all
            optional; a class without hand-written prompts takes captions only, and the other way round.

    Returns:
        `clips_per_class` prompts for each style and each family (fewer where there are not as many), then those for
        the key, not yet made: `file` says where each will be written, `seed` what it is made from.
    """
    shuffled = random.Random(seed).sample(windows, len(windows))
    clips: list[Clip] = []

    def add(text: str, expected: dict[str, str], triple: bool, source: str, piece: str) -> None:
        bpm = NAMED_BPM.search(text)
        clips.append(
            Clip(
                file=f"generated/{len(clips):04d}.flac",
                text=text,
                expected=expected,
                bpm=int(bpm.group(1)) if bpm else None,
                key=named_key(text),
                triple=triple or "waltz" in text.lower(),
                source=source,
                piece=piece,
                seed=seed + len(clips),
            )
        )

    for question in QUESTIONS:
        classes = sorted({window[question] for window in windows})
        about = {name: hand_written.get(question, {}).get(name, {}) for name in classes}
        for name in classes:
            captions: dict[str, tuple[str, bool, str, str]] = {}
            for window in (window for window in shuffled if answer(window, question) == name):
                usable = [caption for caption in window["captions"] if named_classes(caption, classes, about) == [name]]
                piece = window["piece_id"]
                if usable and piece not in captions:
                    text = random.Random(f"{seed} {piece}").choice(usable)
                    captions[piece] = (text, is_triple(window, hand_written), "caption", piece)
            written = [(text, about[name].get("triple", False), "hand", "") for text in about[name].get("prompts", [])]
            num_hand = min(clips_per_class // 2, len(written))
            texts = list(captions.values())[: clips_per_class - num_hand]
            texts += written[: clips_per_class - len(texts)]
            for text, triple, source, piece in texts:
                add(text, {question: name}, triple, source, piece)
    naming_a_key: dict[str, tuple[str, dict]] = {}
    for window in shuffled:
        for caption in window["captions"]:
            if named_key(caption):
                naming_a_key.setdefault(window["piece_id"], (caption, window))
    for piece, (text, window) in list(naming_a_key.items())[: 4 * clips_per_class]:
        add(text, {}, is_triple(window, hand_written), "caption", piece)
    return clips


def named_classes(text: str, classes: Iterable[str], about: Mapping[str, dict]) -> list[str]:
    """Those of the classes that a text names: by one of their `names` in the hand-written prompts, or their own."""
    return [name for name in classes if _naming(tuple(about.get(name, {}).get("names", [name]))).search(text)]


@lru_cache
def _naming(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")s?\b", re.IGNORECASE)


def answer(row: dict, question: str) -> str | None:
    """What is true of a row of the data set, or None where it does not say, or where nobody could hear its style."""
    if question == "style" and row.get("style_heard") is False:
        return None
    if question in QUESTIONS:
        return row[question]
    if row.get(question) is None:
        return None
    if question == "drums":
        return "drums" if row["drums"] else "no drums"
    return "solo" if row["ensemble"] == "solo" else "several players"


def is_triple(window: dict, hand_written: dict[str, dict[str, dict]]) -> bool:
    """True where a tap on every third beat, or three taps a beat, is the same tempo: triple metre, swing."""
    triple_styles = {style for style, about in hand_written.get("style", {}).items() if about.get("triple")}
    return window["meter"].startswith("3") or window["style"] in triple_styles


def key_of(row: dict) -> str | None:
    """The key of a row of the data set, one of `KEYS`, where it has one."""
    return named_key(f"{row['key']} {row['mode_word']}") if "key" in row else None


def window_audio(window: dict, sample_rate: int, seconds: float | None = None) -> torch.Tensor:
    """The audio of a window, (1, T) of so many seconds, by default those of a clip; silence after its end."""
    waveform = torch.from_numpy(window["samples"].astype(np.float32) / 32768)
    return crop_or_pad(waveform[None], round((seconds or CLIP_SECONDS) * sample_rate))


def make_clips(
    pipe: DiffusionPipeline,
    settings: Settings,
    hand_written: dict,
    folder: Path,
    test: list[dict],
    validation: list[dict],
    more_prompts: dict[str, list[Clip]],
    more_windows: dict[str, list[tuple[dict, Clip]]],
    batch_size: int = 8,
) -> dict[str, list[Clip]]:
    """Writes the audio of every row, and of the reference set for Frechet distances, and a manifest beside it.

    Args:
        test, validation: windows of ten seconds of these splits; the reference set is chosen from `validation`.
        more_prompts: rows that are made from prompts besides, the clips of a row of one length.
        more_windows: and rows of windows of the data set.
    """
    sample_rate = pipe.sample_rate
    chosen = choose_windows(test, settings.clips_per_class, settings.seed)
    reference = choose_windows(validation, settings.clips_per_class, settings.seed)

    def clips_of(name: str, pairs: list[tuple[dict, dict[str, str]]]) -> list[Clip]:
        return [
            Clip(
                file=f"{name}/{index:04d}.flac",
                text=random.Random(f"{settings.seed} {row['piece_id']}").choice(row["captions"]),
                expected=expected,
                bpm=row["bpm"],
                key=key_of(row),
                triple=is_triple(row, hand_written),
                source="caption",
                piece=row["piece_id"],
                seed=settings.seed + index,
            )
            for index, (row, expected) in enumerate(pairs)
        ]

    manifest = {name: clips_of(name, chosen) for name in ("real", "reconstructed", "from_tokens")}
    manifest["reference"] = clips_of("reference", reference)
    prompts = choose_prompts(test, hand_written, settings.clips_per_class, settings.seed)
    manifest["generated"] = prompts
    one_a_class = list({tuple(clip.expected.items()) or clip.key: clip for clip in prompts}.values())
    for name in ("silence", "noise"):
        manifest[name] = [Clip(**{**asdict(clip), "file": f"{name}/{Path(clip.file).name}"}) for clip in one_a_class]

    def write(clips: list[Clip], waveforms: torch.Tensor) -> None:
        for clip, waveform in zip(clips, waveforms, strict=True):
            (folder / clip.file).parent.mkdir(parents=True, exist_ok=True)
            save_audio(folder / clip.file, waveform.float().cpu(), sample_rate=sample_rate)

    manifest |= more_prompts
    windows = {"real": [row for row, _ in chosen], "reference": [row for row, _ in reference]}
    for name, pairs in more_windows.items():
        manifest[name] = [clip for _, clip in pairs]
        windows[name] = [row for row, _ in pairs]
    for name, of_row in windows.items():
        for clip, row in zip(manifest[name], tqdm(of_row, desc=name), strict=True):
            write([clip], window_audio(row, sample_rate, clip.seconds).unsqueeze(0))

    def generators(clips: list[Clip]) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(clip.seed) for clip in clips]

    def reconstruct(clips: list[Clip], waveforms: torch.Tensor) -> torch.Tensor:
        return pipe.vae.decode(pipe.vae.encode(waveforms.to(pipe.vae.dtype)).latent_dist.mode()).sample

    def render(clips: list[Clip], waveforms: torch.Tensor) -> torch.Tensor:
        return pipe(
            semantic_tokens=pipe.semantic_tokenizer.encode(waveforms.to(pipe.semantic_tokenizer.dtype)),
            audio_duration=CLIP_SECONDS,
            ending=None,
            generator=generators(clips),
            output_type="pt",
            **settings.call_arguments,
        ).audios

    makers: dict[str, Callable[[list[Clip], torch.Tensor], torch.Tensor]] = {
        "reconstructed": reconstruct,
        "from_tokens": render,
    }
    for name, maker in makers.items():
        for start in tqdm(range(0, len(chosen), batch_size), desc=name):
            batch = slice(start, start + batch_size)
            waveforms = read_clips(folder, manifest["real"][batch], sample_rate).to(pipe.device)
            write(manifest[name][batch], maker(manifest[name][batch], waveforms)[..., : waveforms.shape[-1]])

    for name in ("generated", *more_prompts):
        for start in tqdm(range(0, len(manifest[name]), batch_size), desc=name):
            clips = manifest[name][start : start + batch_size]
            audios = pipe(
                prompt=[clip.text for clip in clips],
                audio_duration=clips[0].seconds,
                ending=None,  # that of the models is judged
                generator=generators(clips),
                output_type="pt",
                **settings.call_arguments,
            ).audios
            write(clips, audios)

    num_samples = round(CLIP_SECONDS * sample_rate)
    for clip, generator in zip(manifest["noise"], generators(manifest["noise"]), strict=True):
        write([clip], 0.1 * torch.randn(1, 1, num_samples, generator=generator))
    write(manifest["silence"], torch.zeros(len(manifest["silence"]), 1, num_samples))

    rows = {name: [asdict(clip) for clip in clips] for name, clips in manifest.items()}
    (folder / "manifest.json").write_text(json.dumps({"settings": asdict(settings), "rows": rows}, indent=1))
    return manifest


def read_manifest(folder: Path) -> tuple[Settings, dict[str, list[Clip]]]:
    """The settings and clips of an earlier run."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(f"--reuse needs the clips of an earlier run, but {path} does not exist")
    content = json.loads(path.read_text())
    try:
        rows = {name: [Clip(**clip) for clip in clips] for name, clips in content["rows"].items()}
    except TypeError as error:
        raise ValueError(f"{path} is of another version: leave out --reuse to make new clips ({error})") from error
    return Settings(**content["settings"]), rows


def read_clips(folder: Path, clips: list[Clip], sample_rate: int) -> torch.Tensor:
    """The audio of some clips of one length, (B, 1, T)."""
    return torch.stack([load_audio(folder / clip.file, sample_rate=sample_rate) for clip in clips])


def in_batches(folder: Path, clips: list[Clip], sample_rate: int, batch_size: int = 16) -> Iterator[torch.Tensor]:
    """The audio of all clips in order, batch by batch."""
    for start in range(0, len(clips), batch_size):
        yield read_clips(folder, clips[start : start + batch_size], sample_rate)
