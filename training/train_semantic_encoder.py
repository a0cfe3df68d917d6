"""Trains the encoder of SemanticTokenizer on music without labels, by masked prediction.

    python training/train_semantic_encoder.py --config training/configs/semantic_encoder/tiny.yaml

The paper names the model, Wav2Vec2-Conformer, and not its objective on music. Here spans of the encoder's input are
masked, and a linear layer reads the missing spectra (timbre, pitch and onsets) from its output: the masked prediction
of wav2vec with the constant-Q teacher of MERT, and no quantizer to keep from collapsing.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader

from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.losses import masked_prediction_loss
from melody_diffusers.models.semantic_tokenizer import SemanticTokenizer, SemanticTokenizerConfig
from melody_diffusers.spectra import spectral_frames
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """Clips to train on. `visible_weight` is the weight of the loss where nothing was masked."""

    folder: str
    crop_seconds: float = 10.0
    visible_weight: float = 0.0
    statistics_clips: int = 128
    heldout_clips: int = 64


class Predictor(nn.Module):
    """Linear from the encoder's output (B, S, H) to standardised targets (B, S, P), with the targets' statistics."""

    def __init__(self, width: int, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.linear = nn.Linear(width, len(mean))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.linear(hidden_states)

    def targets(self, waveform: torch.Tensor, sample_rate: int, hop_size: int) -> torch.Tensor:
        return (spectral_frames(waveform, sample_rate, hop_size) - self.mean) / self.std


def spread(clips: AudioClips, count: int) -> list[int]:
    """At most `count` indices, evenly spaced over the split."""
    count = min(count, len(clips))
    return [index * len(clips) // count for index in range(count)]


def span_mask(draws: torch.Tensor, share: float, length: int) -> torch.Tensor:
    """(B, S) bool: spans of `length` frames at random places, which may overlap, covering `share` on average; from
    uniform draws (B, S + length - 1)."""
    start_probability = 1.0 - (1.0 - share) ** (1.0 / length)
    covered = nn.functional.max_pool1d((draws < start_probability).float().unsqueeze(1), length, stride=1)
    return covered[:, 0] > 0


@torch.no_grad()
def settle_batch_norm(tokenizer: SemanticTokenizer, clips: AudioClips, batch_size: int) -> None:
    """Takes the statistics of the batch normalisation again, from unmasked audio: training only saw it masked."""
    kind = nn.modules.batchnorm._BatchNorm  # on several GPUs they are SyncBatchNorm
    norms = [module for module in tokenizer.modules() if isinstance(module, kind)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over what follows
    tokenizer.train()
    indices = spread(clips, 16 * batch_size)
    batch_size = min(batch_size, len(indices))
    for start in range(0, len(indices) - batch_size + 1, batch_size):
        waveform = torch.stack([clips[i]["waveform"] for i in indices[start : start + batch_size]])
        hidden = waveform.to(tokenizer.device)
        tokenizer(hidden, mask=torch.zeros(batch_size, -(-hidden.shape[-1] // tokenizer.samples_per_token)) > 0)
    tokenizer.eval()


def main() -> None:
    args = parse_args(__doc__)
    sections = {"model": SemanticTokenizerConfig, "data": DataConfig, "optim": OptimConfig, "run": RunConfig}
    config = load_config(args.config, sections, args.set)
    data = config.data
    torch.manual_seed(config.run.seed)
    tokenizer = SemanticTokenizer(SemanticTokenizerConfig(**config.model))
    rate, hop = tokenizer.config.sample_rate, tokenizer.samples_per_token
    masking = tokenizer.config.encoder_config
    clips = AudioClips(data.folder, "train", data.crop_seconds, rate, config.run.seed)
    loader = DataLoader(clips, config.run.batch_size, shuffle=True, num_workers=config.run.num_workers, drop_last=True)
    sample = torch.stack([clips[i]["waveform"] for i in spread(clips, data.statistics_clips)])
    targets = spectral_frames(sample, rate, hop).flatten(0, 1)
    predictor = Predictor(masking.hidden_size, targets.mean(0), targets.std(0).clamp_min(1e-3))
    if tokenizer.config.spectrum_hop is not None:
        tokenizer.spectrum_mean.copy_(predictor.mean)
        tokenizer.spectrum_std.copy_(predictor.std)
    run = TrainingRun(config.run, {"semantic_encoder": tokenizer, "predictor": predictor}, config)
    optimizer = run.optimizer([*tokenizer.parameters(), *predictor.parameters()], config.optim)

    def losses(waveform: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error of the masked and of the visible frames, in units of the targets' variance."""
        target = predictor.targets(waveform, rate, hop)  # (B, S, P)
        draws = run.rand(name, len(target), target.shape[1] + masking.mask_time_length - 1)
        mask = span_mask(draws, masking.mask_time_prob, masking.mask_time_length)
        with run.autocast():
            prediction = predictor(tokenizer(waveform, mask).last_hidden_state)
        return masked_prediction_loss(prediction, target, mask), masked_prediction_loss(prediction, target, ~mask)

    for batch in run.steps(loader):
        masked, visible = losses(batch["waveform"], "mask")
        loss = masked + data.visible_weight * visible
        run.backward(loss, optimizer)
        run.finish_step(loss=loss, masked=masked, visible=visible)

    with run.averaged_weights():
        settle_batch_norm(tokenizer, clips, config.run.batch_size)
        heldout = AudioClips(data.folder, "validation", data.crop_seconds, rate, config.run.seed)
        waveform = torch.stack([heldout[i]["waveform"] for i in spread(heldout, data.heldout_clips)]).to(run.device)
        with torch.no_grad():
            masked, visible = losses(waveform, "heldout")
    run.save()
    run.log(heldout_masked=masked, heldout_visible=visible)
    print(
        f"semantic_encoder: {run.step} steps; held out, squared error in units of the targets' variance: masked frames "
        f"{masked:.4f}, visible frames {visible:.4f}"
    )


if __name__ == "__main__":
    main()
