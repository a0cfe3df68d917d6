"""Trains AudioVAEGAN (section 4 of the paper), then fits the scale of its latents.

Discriminators are built and trained if `loss.adversarial` or `loss.feature_matching` is above 0. Both must be 0 for a
head whose latents hold no phase: it is trained on magnitudes, which no discriminator hears.

    python training/train_vae_gan.py --config training/configs/vae_gan/tiny.yaml

Loss names in the logs are the names of the weights in the `loss` section of the configuration.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.evaluation.reconstruction import si_sdr
from melody_diffusers.losses import (
    STFT_FFT_SIZES,
    STFT_HOP_SIZES,
    STFT_WINDOW_SIZES,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    log_magnitude_loss,
    magnitude_loss,
    mel_distance,
    multi_resolution_stft_loss,
    stft_magnitude_pairs,
    waveform_loss,
)
from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig
from melody_diffusers.models.discriminators import MultiPeriodDiscriminator, MultiResolutionDiscriminator
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """Clips to train on, and how many the statistics and the held-out figures are taken from."""

    folder: str = "data/synthetic"
    crop_seconds: float = 1.0
    statistics_clips: int = 256
    heldout_clips: int = 64


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the losses, the paper's by default, and the STFTs that two of them compare.

    Args:
        gan_start_step: from this step on, what discriminators hear counts.
    """

    stft: float = 50.0
    log_stft: float = 0.0
    waveform: float = 0.0
    kl: float = 5e-3
    feature_matching: float = 20.0
    adversarial: float = 1.0
    gan_start_step: int = 0
    fft_sizes: list[int] = dataclasses.field(default_factory=lambda: list(STFT_FFT_SIZES))
    window_sizes: list[int] = dataclasses.field(default_factory=lambda: list(STFT_WINDOW_SIZES))
    hop_sizes: list[int] = dataclasses.field(default_factory=lambda: list(STFT_HOP_SIZES))


@dataclass(kw_only=True)
class DiscriminatorOptimConfig(OptimConfig):
    """The paper's settings of HiFi-GAN."""

    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.8, 0.99)


class Discriminators(torch.nn.Module):
    """Both families, judged together: constructor arguments are the `discriminators` section."""

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        period_channels: Sequence[int] = (32, 128, 512, 1024, 1024),
        resolutions: Sequence[Sequence[int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        resolution_channels: int = 32,
    ):
        super().__init__()
        self.period = MultiPeriodDiscriminator(periods, period_channels)
        self.resolution = MultiResolutionDiscriminator(resolutions, resolution_channels)

    def forward(self, waveform: torch.Tensor) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        return self.period(waveform) + self.resolution(waveform)


SECTIONS = {
    "model": AudioVAEGANConfig,
    "discriminators": Discriminators,
    "data": DataConfig,
    "loss": LossConfig,
    "optim": OptimConfig,
    "discriminator_optim": DiscriminatorOptimConfig,
    "run": RunConfig,
}


def spread(clips: AudioClips, count: int) -> list[torch.Tensor]:
    """At most `count` whole clips (1, T), evenly spaced over the split so that every style is among them."""
    count = min(count, len(clips))
    return [clips.clip(index * len(clips) // count) for index in range(count)]


@torch.no_grad()
def heldout_figures(vae: AudioVAEGAN, clips: list[torch.Tensor]) -> dict[str, float]:
    """Means over clips of what reconstruction (from the mean latents, as scaled and clipped) loses."""
    totals = {"stft_distance": 0.0, "mel_distance": 0.0, "si_sdr": 0.0}
    for clip in clips:
        waveform = clip.unsqueeze(0).to(vae.device)  # (1, 1, T)
        reconstruction = vae(waveform).sample
        totals["stft_distance"] += float(multi_resolution_stft_loss(reconstruction, waveform)) / len(clips)
        totals["mel_distance"] += float(mel_distance(reconstruction, waveform, vae.sample_rate)) / len(clips)
        totals["si_sdr"] += float(si_sdr(reconstruction, waveform).mean()) / len(clips)
    return totals


def main() -> None:
    args = parse_args(__doc__)
    config = load_config(args.config, SECTIONS, args.set)
    torch.manual_seed(config.run.seed)
    vae = AudioVAEGAN(AudioVAEGANConfig(**config.model))
    weights = config.loss
    models: dict[str, torch.nn.Module] = {"vae": vae}
    discriminators = None
    if weights.adversarial > 0 or weights.feature_matching > 0:
        if not vae.has_phase:
            raise ValueError(
                f"loss.adversarial and loss.feature_matching must be 0 with the {vae.config.head} head, which is "
                f"trained on magnitudes; got {weights.adversarial} and {weights.feature_matching}."
            )
        discriminators = models["discriminators"] = Discriminators(**config.discriminators)
    clips = AudioClips(
        config.data.folder, "train", config.data.crop_seconds, sample_rate=vae.sample_rate, seed=config.run.seed
    )
    loader = DataLoader(clips, config.run.batch_size, shuffle=True, num_workers=config.run.num_workers, drop_last=True)
    run = TrainingRun(config.run, models, config, ema=["vae"])
    optimizer = run.optimizer(vae.parameters(), config.optim)
    if discriminators is not None:
        discriminator_optimizer = run.optimizer(discriminators.parameters(), config.discriminator_optim)

    for batch in run.steps(loader):
        waveform = batch["waveform"]  # (B, 1, T)
        with run.autocast():
            latent_dist = vae.encode(waveform).latent_dist
            latents = latent_dist.sample(run.generators("latents", len(waveform)))  # (B, L, D)
            if vae.has_phase:
                reconstruction = vae.decode(latents).sample.float()[..., : waveform.shape[-1]]  # (B, 1, T)
            else:
                pairs = [vae.magnitude_pair(waveform, latents)]
        losses, logs = {"kl": latent_dist.kl()}, {}
        if vae.has_phase:
            losses["waveform"] = waveform_loss(reconstruction, waveform)
            pairs = stft_magnitude_pairs(
                reconstruction, waveform, weights.fft_sizes, weights.window_sizes, weights.hop_sizes
            )
        losses |= {"stft": magnitude_loss(pairs), "log_stft": log_magnitude_loss(pairs)}
        if discriminators is not None and run.step >= weights.gan_start_step:
            with run.autocast():
                real, fake = discriminators(waveform), discriminators(reconstruction.detach())
            logs["discriminator"] = discriminator_loss(real, fake)
            run.backward(logs["discriminator"], discriminator_optimizer)
            with run.autocast():
                fake = discriminators(reconstruction)  # this time with gradients for the decoder
            losses["adversarial"] = generator_loss(fake)
            losses["feature_matching"] = feature_matching_loss(real, fake)
        loss = sum(getattr(weights, name) * value for name, value in losses.items())
        run.backward(loss, optimizer)
        run.finish_step(loss=loss, **losses, **logs)

    vae.eval()
    with run.averaged_weights(), torch.no_grad():
        raw_means = [
            vae.encode(clip.unsqueeze(0).to(run.device)).latent_dist.mean[0]  # (L, D)
            for clip in spread(clips, config.data.statistics_clips)
        ]
        clipped = vae.fit_latent_statistics(torch.cat(raw_means))
        heldout = AudioClips(config.data.folder, "validation", None, sample_rate=vae.sample_rate)
        heldout_clips = spread(heldout, config.data.heldout_clips)
        figures = heldout_figures(vae, heldout_clips)
        for i, clip in enumerate(heldout_clips[:3]):
            run.log_audio(f"heldout_{i}/real", clip, vae.sample_rate)
            run.log_audio(f"heldout_{i}/reconstructed", vae(clip[None].to(run.device)).sample[0], vae.sample_rate)
    run.save()
    run.log(latents_clipped=clipped, **figures)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    print(f"vae_gan: {run.step} steps; held out: {shown} (dB); {100 * clipped:.3f} % of latents clipped")


if __name__ == "__main__":
    main()
