"""Trains the judges of `melody evaluate`: which style a clip has, and which family of instruments leads it.

    python training/train_judges.py --config training/configs/judges/tiny.yaml

The net sees rendered training clips only, changed at random so that it hears music and not the renderer
(`augment_log_mel`). Prints, for every held-out split, the share of ten-second clips it gets right and the pairs of
classes it confuses most, and writes the shares to accuracy.json beside the weights.
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

from melody_diffusers.audio import load_audio
from melody_diffusers.evaluation.clips import QUESTIONS, read_windows, window_audio
from melody_diffusers.evaluation.judges import ClipJudge, augment_log_mel
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """Where the clips are, how long a training crop is, and how many clips to hold in memory."""

    folder: str
    crop_seconds: float = 5.0
    max_train_clips: int = 3000


def training_spectrograms(judge: ClipJudge, dataset: Dataset) -> TensorDataset:
    """All clips as half-precision log-mel frames (clips, F, M) with one column of answers per question."""
    log_mels, answers = [], []
    for row in tqdm(dataset, desc="spectrograms"):
        waveform = load_audio(row["audio"]["bytes"], sample_rate=judge.config.sample_rate)
        log_mels.append(judge.log_mel(waveform.unsqueeze(0))[0].half())
        answers.append([judge.config.labels[question].index(row[question]) for question in QUESTIONS])
    frames = min(len(log_mel) for log_mel in log_mels)
    return TensorDataset(torch.stack([log_mel[:frames] for log_mel in log_mels]), torch.tensor(answers))


def random_crops(log_mel: torch.Tensor, frames: int, draws: torch.Tensor) -> torch.Tensor:
    """One stretch of `frames` frames from each of (B, F, M), where uniform draws (B, 1) say."""
    device = log_mel.device
    starts = (draws * (log_mel.shape[1] - frames + 1)).long()
    index = starts + torch.arange(frames, device=device)  # (B, frames)
    return log_mel[torch.arange(len(log_mel), device=device)[:, None], index]


def accuracy(judge: ClipJudge, rows: list[dict], name: str) -> dict[str, float]:
    """The share of the rows' ten-second windows that the judge gets right, for each question."""
    rate = judge.config.sample_rate
    heard = {question: [] for question in QUESTIONS}
    for start in tqdm(range(0, len(rows), 16), desc=name):
        batch = torch.stack([window_audio(row, rate) for row in rows[start : start + 16]])
        for question, answers in judge.judge(batch).items():
            heard[question] += answers
    shares = {}
    for question, answers in heard.items():
        wrong = Counter((row[question], a) for row, a in zip(rows, answers, strict=True) if row[question] != a)
        shares[question] = 1 - wrong.total() / len(rows)
        worst = ", ".join(f"{asked} as {answer} {count}" for (asked, answer), count in wrong.most_common(8))
        print(f"{name}: {question} {shares[question]:.1%} of {len(rows)} right; heard {worst or 'nothing'} wrongly")
    return shares


def main() -> None:
    args = parse_args(__doc__)
    sections = {
        "model": partial(ClipJudge, labels={}),  # the answers come from the data
        "data": DataConfig,
        "optim": OptimConfig,
        "run": RunConfig,
    }
    config = load_config(args.config, sections, args.set)
    train = load_dataset(config.data.folder, split="train").cast_column("audio", Audio(decode=False))
    train = train.shuffle(seed=config.run.seed).take(config.data.max_train_clips)
    labels = {question: sorted(set(train[question])) for question in QUESTIONS}
    torch.manual_seed(config.run.seed)
    judge = ClipJudge(**{**config.model, "labels": labels})
    dataset = training_spectrograms(judge, train)
    frames = round(config.data.crop_seconds * judge.config.sample_rate / judge.config.hop_length)

    run = TrainingRun(config.run, models={"judge": judge}, config=config)
    optimizer = run.optimizer(judge.parameters(), config.optim)
    loader = DataLoader(dataset, batch_size=config.run.batch_size, shuffle=True, drop_last=True)
    for log_mel, answers in run.steps(loader):
        log_mel = random_crops(log_mel, frames, run.rand("crop", len(log_mel), 1)).float()
        with run.autocast():
            logits = judge(augment_log_mel(log_mel, run.generators("augment", 1)[0]))
        losses = {
            question: F.cross_entropy(logits[question].float(), answers[:, i]) for i, question in enumerate(QUESTIONS)
        }
        run.backward(sum(losses.values()), optimizer, clip=config.optim.clip)
        run.finish_step(**losses)
    run.save()

    judge.eval().cpu()
    shares = {
        split: accuracy(judge, read_windows(config.data.folder, split), split)
        for split in get_dataset_split_names(config.data.folder)
        if split != "train"
    }
    (Path(config.run.output_dir) / "accuracy.json").write_text(json.dumps(shares, indent=1))
    summary = ", ".join(f"{split} style {s['style']:.1%} family {s['family']:.1%}" for split, s in shares.items())
    print(f"judges: {summary}")


if __name__ == "__main__":
    main()
