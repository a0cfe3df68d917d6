"""Trains the judges of `melody evaluate`: which style a clip has, which family of instruments leads it, in which key.

    python training/train_judges.py --config training/configs/judges/tiny.yaml

The nets, one for style and family and one for keys, see rendered training clips only, changed at random so that they
hear music and not the renderer (`augment_log_mel`). Prints, for every held-out split, the share of ten-second clips
they get right and the pairs of classes they confuse most, and writes the shares to accuracy.json beside the weights.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Audio, Dataset, get_dataset_split_names, load_dataset
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from melody_diffusers.audio import load_audio, resample
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.evaluation.clips import CLIP_SECONDS, GRID_QUESTIONS, answer, key_of, window_audio
from melody_diffusers.evaluation.judges import ClipJudge, augment_log_mel
from melody_diffusers.evaluation.key import KEYS, KeyJudge, relative_key
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """Where the clips are, how long a training crop is, and how many clips to hold in memory."""

    folder: str
    crop_seconds: float = 5.0
    max_train_clips: int = 3000


def training_spectrograms(judge: ClipJudge, key_judge: KeyJudge, dataset: Dataset) -> TensorDataset:
    """All clips as half-precision frames for either judge, (clips, F, M) and (clips, F', 12 O), and the right answers:
    one column per question, and the key last, -1 where the data set does not say."""
    log_mels, log_semitones, answers = [], [], []
    for row in tqdm(dataset, desc="spectrograms"):
        waveform = load_audio(row["audio"]["bytes"], sample_rate=judge.config.sample_rate)
        log_mels.append(judge.log_mel(waveform.unsqueeze(0))[0].half())
        waveform = resample(waveform, judge.config.sample_rate, key_judge.config.sample_rate)
        log_semitones.append(key_judge.log_semitones(waveform.unsqueeze(0))[0].half())
        key = key_of(row)
        said = [(answer(row, question), names) for question, names in judge.config.labels.items()]
        answers.append([-1 if a is None else names.index(a) for a, names in (*said, (key, KEYS))])
    stacked = [torch.stack([x[: min(map(len, frames))] for x in frames]) for frames in (log_mels, log_semitones)]
    return TensorDataset(*stacked, torch.tensor(answers))


def random_crops(log_mel: torch.Tensor, frames: int, draws: torch.Tensor) -> torch.Tensor:
    """One stretch of `frames` frames from each of (B, F, M), where uniform draws (B, 1) say."""
    device = log_mel.device
    starts = (draws * (log_mel.shape[1] - frames + 1)).long()
    index = starts + torch.arange(frames, device=device)  # (B, frames)
    return log_mel[torch.arange(len(log_mel), device=device)[:, None], index]


def accuracy(judge: ClipJudge, key_judge: KeyJudge, folder: str, name: str) -> dict[str, float]:
    """The share of the ten-second windows of a split that the judges get right, for each question."""
    rate = judge.config.sample_rate
    rows = AudioClips(folder, name, None, rate).windows(CLIP_SECONDS)
    heard: dict[str, list[str]] = {question: [] for question in [*judge.config.labels, "key"]}
    for start in tqdm(range(0, len(rows), 16), desc=name):
        batch = torch.stack([window_audio(row, rate) for row in rows[start : start + 16]])
        for question, answers in judge.judge(batch).items():
            heard[question] += answers
        heard["key"] += key_judge.judge(resample(batch, rate, key_judge.config.sample_rate))
    right = {question: [answer(row, question) for row in rows] for question in judge.config.labels}
    right["key"] = [key_of(row) for row in rows]
    shares = {}
    for question, answers in heard.items():
        asked = [pair for pair in zip(right[question], answers, strict=True) if pair[0] is not None]
        wrong = Counter(pair for pair in asked if pair[0] != pair[1])
        shares[question] = 1 - wrong.total() / len(asked) if asked else float("nan")
        worst = ", ".join(f"{asked} as {answer} {count}" for (asked, answer), count in wrong.most_common(8))
        print(f"{name}: {question} {shares[question]:.1%} of {len(asked)} right; heard {worst or 'nothing'} wrongly")
    in_key = [answer in (key, relative_key(key)) for key, answer in zip(right["key"], heard["key"], strict=True) if key]
    shares["key_or_relative"] = sum(in_key) / len(in_key) if in_key else float("nan")
    return shares


def main() -> None:
    args = parse_args(__doc__)
    sections = {
        "model": partial(ClipJudge, labels={}),  # the answers come from the data
        "key_model": KeyJudge,
        "data": DataConfig,
        "optim": OptimConfig,
        "run": RunConfig,
    }
    config = load_config(args.config, sections, args.set)
    train = load_dataset(config.data.folder, split="train").cast_column("audio", Audio(decode=False))
    train = train.shuffle(seed=config.run.seed).take(config.data.max_train_clips)
    said = {q: {answer(row, q) for row in train.remove_columns("audio")} - {None} for q in GRID_QUESTIONS}
    labels = {question: sorted(answers) for question, answers in said.items() if answers}
    torch.manual_seed(config.run.seed)
    judge = ClipJudge(**{**config.model, "labels": labels})
    key_judge = KeyJudge(**config.key_model)
    dataset = training_spectrograms(judge, key_judge, train)
    frames, key_frames = (
        round(config.data.crop_seconds * model.config.sample_rate / model.config.hop_length)
        for model in (judge, key_judge)
    )

    run = TrainingRun(config.run, models={"clip": judge, "key": key_judge}, config=config)
    optimizer = run.optimizer([*judge.parameters(), *key_judge.parameters()], config.optim)
    loader = DataLoader(dataset, batch_size=config.run.batch_size, shuffle=True, drop_last=True)
    for log_mel, log_semitones, answers in run.steps(loader):
        log_mel = random_crops(log_mel, frames, run.rand("crop", len(log_mel), 1)).float()
        log_semitones = random_crops(log_semitones, key_frames, run.rand("key crop", len(log_mel), 1)).float()
        with run.autocast():
            logits = judge(augment_log_mel(log_mel, run.generators("augment", 1)[0]))
            key_logits = key_judge(augment_log_mel(log_semitones, run.generators("key augment", 1)[0]))
        heard = {**logits, "key": key_logits}
        losses = {
            question: F.cross_entropy(heard[question].float(), answers[:, i], ignore_index=-1, reduction="sum")
            / len(answers)
            for i, question in enumerate((*labels, "key"))
        }
        run.backward(sum(losses.values()), optimizer)
        run.finish_step(**losses)
    run.save()

    judge.eval().cpu()
    key_judge.eval().cpu()
    shares = {
        split: accuracy(judge, key_judge, config.data.folder, split)
        for split in get_dataset_split_names(config.data.folder)
        if split != "train"
    }
    (Path(config.run.output_dir) / "accuracy.json").write_text(json.dumps(shares, indent=1))
    summary = "; ".join(
        f"{split}: " + ", ".join(f"{question} {share:.1%}" for question, share in of_split.items())
        for split, of_split in shares.items()
    )
    print(f"judges: {summary}")


if __name__ == "__main__":
    main()
