"""Trains AudioVAEGAN (section 4 of the paper), then fits the scale of its latents.

Discriminators are built and trained if `loss.adversarial` or `loss.feature_matching` is above 0. Both must be 0 for the
magnitude head: it is trained on magnitudes, which no discriminator hears. The phase_gradient head begins, with
`data.components_clips`, as the principal components of log magnitudes.

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
    phase_gradient_loss,
    stft_magnitude_pairs,
    waveform_loss,
)
from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig
from melody_diffusers.models.discriminators import MultiPeriodDiscriminator, MultiResolutionDiscriminator
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config, parse_args


@dataclass(kw_only=True)
class DataConfig:
    """Clips to train on, and how many the statistics and the held-out figures are taken from.

    Args:
        start: folder of an AudioVAEGAN to begin with: what it shares with this one, by name and shape, is taken over.
        freeze_encoder: keep its latents: encoder, scale and range stay as they are, and the decoder follows them.
        deviation_power: deviations of the scaled latents are their ratios of signal to noise, the noise being what the
            encoder lets the decoder put up with, to this power. 0 gives all numbers of a frame the same deviation, and
            the diffusion model as much to do for those that hardly matter.
        components_clips: clips whose principal components the phase_gradient head begins with, where `start` is not
            given; 0: none.
    """

    folder: str = "data/synthetic"
    crop_seconds: float = 1.0
    statistics_clips: int = 256
    heldout_clips: int = 64
    start: str | None = None
    freeze_encoder: bool = False
    deviation_power: float = 0.0
    components_clips: int = 0


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the losses, the paper's by default, and the STFTs that two of them compare.

    Args:
        magnitude, phase_gradient: for the phase_gradient head: log and plain error of its magnitudes before they become
            sound, and error of how their phases go on.
        mel: distance of log-mel spectrograms.
        corner_hz: in log magnitudes, phases and principal components, bins count as 1 / (frequency + corner_hz): above
            it each octave counts the same. Without it all bins do.
        gan_start_step: from this step on, what discriminators hear counts.
    """

    stft: float = 50.0
    log_stft: float = 0.0
    waveform: float = 0.0
    mel: float = 0.0
    magnitude: float = 1.0
    phase_gradient: float = 1.0
    kl: float = 5e-3
    feature_matching: float = 20.0
    adversarial: float = 1.0
    corner_hz: float | None = None
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
        resolutions_hear_phase: bool = False,
    ):
        super().__init__()
        self.period = MultiPeriodDiscriminator(periods, period_channels)
        self.resolution = MultiResolutionDiscriminator(
            resolutions, resolution_channels, hears_phase=resolutions_hear_phase
        )

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


def begin(vae: AudioVAEGAN, data: DataConfig, clips: AudioClips, corner_hz: float | None) -> None:
    """Weights to begin with: those of another VAE, principal components, or none."""
    if data.freeze_encoder and data.start is None:
        raise ValueError("data.freeze_encoder: there is no encoder to keep; name one as data.start.")
    if data.start is not None:
        given, own = AudioVAEGAN.from_pretrained(data.start).state_dict(), vae.state_dict()
        shared = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
        if not shared:
            raise ValueError(f"data.start: {data.start} shares no weight with this configuration.")
        vae.load_state_dict(shared, strict=False)
        print(f"{len(shared)} of {len(own)} tensors are those of {data.start}")
    elif data.components_clips:
        waveforms = (clip.unsqueeze(0) for clip in spread(clips, data.components_clips))
        vae.fit_components(waveforms, corner_hz=corner_hz)
    if data.freeze_encoder:
        vae.encoder.requires_grad_(False)


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
        if not (vae.has_phase or vae.estimates_phase):
            raise ValueError(
                f"loss.adversarial and loss.feature_matching must be 0 with the {vae.config.head} head, which is "
                f"trained on magnitudes; got {weights.adversarial} and {weights.feature_matching}."
            )
        discriminators = models["discriminators"] = Discriminators(**config.discriminators)
    clips = AudioClips(
        config.data.folder, "train", config.data.crop_seconds, sample_rate=vae.sample_rate, seed=config.run.seed
    )
    loader = DataLoader(clips, config.run.batch_size, shuffle=True, num_workers=config.run.num_workers, drop_last=True)
    begin(vae, config.data, clips, weights.corner_hz)
    run = TrainingRun(config.run, models, config, ema=["vae"])
    frozen, corner_hz = config.data.freeze_encoder, weights.corner_hz
    optimizer = run.optimizer([p for p in vae.parameters() if p.requires_grad], config.optim)
    if discriminators is not None:
        discriminator_optimizer = run.optimizer(discriminators.parameters(), config.discriminator_optim)

    for batch in run.steps(loader):
        waveform = batch["waveform"]  # (B, 1, T)
        with run.autocast():
            latent_dist = vae.encode(waveform).latent_dist
            latents = latent_dist.sample(run.generators("latents", len(waveform)))  # (B, L, D)
            if vae.has_phase:
                reconstruction = vae.decode(latents).sample.float()[..., : waveform.shape[-1]]  # (B, 1, T)
            elif vae.estimates_phase:
                made = vae.reconstruct(waveform, latents)
                reconstruction = made.sound
            else:
                pairs = [vae.magnitude_pair(waveform, latents)]
        losses, logs = {} if frozen else {"kl": latent_dist.kl()}, {}
        if vae.estimates_phase:
            decoded = [(made.magnitude, made.spectrum.abs())]
            losses["magnitude"] = log_magnitude_loss(decoded, corner_hz=corner_hz) + 5 * magnitude_loss(decoded)
            losses["phase_gradient"] = phase_gradient_loss(made.onward, made.spectrum, corner_hz)
        elif vae.has_phase:
            losses["waveform"] = waveform_loss(reconstruction, waveform)
        if vae.has_phase or vae.estimates_phase:
            if weights.mel > 0:
                losses["mel"] = mel_distance(reconstruction, waveform, vae.sample_rate, num_mels=80)
            pairs = stft_magnitude_pairs(
                reconstruction, waveform, weights.fft_sizes, weights.window_sizes, weights.hop_sizes
            )
        losses |= {"stft": magnitude_loss(pairs), "log_stft": log_magnitude_loss(pairs, corner_hz=corner_hz)}
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
        clipped = 0.0
        if not frozen:
            latent_dists = [
                vae.encode(clip.unsqueeze(0).to(run.device)).latent_dist
                for clip in spread(clips, config.data.statistics_clips)
            ]
            means = torch.cat([each.mean[0] for each in latent_dists])  # (L, D)
            noise = torch.cat([each.logvar[0].exp() for each in latent_dists]).mean(0).sqrt()  # (D,)
            deviations = (means.std(0) / noise) ** config.data.deviation_power
            clipped = vae.fit_latent_statistics(means, deviations)
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
