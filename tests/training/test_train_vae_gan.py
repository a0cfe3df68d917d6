"""Discriminators are there if a loss hears them, and judge each waveform once."""

import io
import runpy
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from melody_diffusers import AudioVAEGAN, training_utils
from melody_diffusers.models import discriminators

TRAINING = Path(__file__).parents[2] / "training"
STEPS = 2
SETTINGS = [
    "model.head=magnitude",
    "model.istft_hop=480",
    "model.latent_dim=4",
    "model.istft_width=8",
    "model.istft_encoder_layers=1",
    "model.istft_decoder_layers=1",
    "discriminators.periods=[2, 3]",
    "discriminators.period_channels=[4, 4]",
    "discriminators.resolutions=[[256, 64, 256]]",
    "discriminators.resolution_channels=4",
    "data.crop_seconds=0.25",
    "data.statistics_clips=2",
    "data.heldout_clips=1",
    "data.components_clips=0",
    *("loss.stft=5.0", "loss.log_stft=1.0", "loss.waveform=0.0", "loss.mel=0.0", "loss.magnitude=1.0", "loss.kl=5e-3"),
    *("loss.adversarial=0.0", "loss.feature_matching=0.0", "loss.gan_start_step=0"),
    "run.budget_minutes=null",
    "run.batch_size=2",
    f"run.max_steps={STEPS}",
    "run.mixed_precision=no",
    "run.trackers=[]",
]
GAN = ["model.head=istft", "loss.adversarial=0.1", "loss.feature_matching=1.0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data set of noise."""
    place = tmp_path_factory.mktemp("noise")
    random = np.random.default_rng(0)
    (place / "data").mkdir()
    for split, count in {"train": 4, "validation": 1}.items():
        rows = []
        for index in range(count):
            buffer = io.BytesIO()
            soundfile.write(buffer, random.uniform(-0.5, 0.5, 12000), 24000, format="WAV")
            rows.append({"audio": {"bytes": buffer.getvalue(), "path": f"{index}.wav"}, "captions": ["noise"]})
        datasets.Dataset.from_list(rows).to_parquet(place / "data" / f"{split}-00000-of-00001.parquet")
    return place


@pytest.fixture
def train(folder, tmp_path, monkeypatch):
    """Runs the script; what it logged at each step, and the models it gave to its run."""
    logged, runs = [], []
    finish_step = training_utils.TrainingRun.finish_step

    def listen(run, **scalars):
        logged.append({name: value.item() for name, value in scalars.items()})
        runs.append(run)
        finish_step(run, **scalars)

    def train(*settings: str) -> tuple[list[dict[str, float]], dict[str, torch.nn.Module]]:
        settings = (*SETTINGS, f"data.folder={folder}", f"run.output_dir={tmp_path / 'vae'}", *settings)
        config = str(TRAINING / "configs" / "vae_gan" / "tiny.yaml")
        monkeypatch.setattr(sys, "argv", ["train_vae_gan.py", "--config", config, "--set", *settings])
        runpy.run_path(str(TRAINING / "train_vae_gan.py"), run_name="__main__")
        return logged, runs[0].models

    monkeypatch.setattr(training_utils.TrainingRun, "finish_step", listen)
    return train


@pytest.mark.parametrize("head", ["magnitude", "istft"])
def test_what_no_loss_hears_is_not_built(train, monkeypatch, tmp_path, head):
    def build(*_):
        raise AssertionError("a discriminator is built")

    monkeypatch.setattr(discriminators.PeriodDiscriminator, "__init__", build)
    monkeypatch.setattr(discriminators.SpectrogramDiscriminator, "__init__", build)
    logged, models = train(f"model.head={head}")
    assert list(models) == ["vae"]
    assert len(logged) == STEPS and not {"adversarial", "feature_matching", "discriminator"} & logged[0].keys()
    assert AudioVAEGAN.from_pretrained(tmp_path / "vae").config.head == head


def test_discriminators_learn_and_judge_real_and_reconstructed_waveforms_once_a_step(train, monkeypatch):
    calls = []
    forward = discriminators.MultiPeriodDiscriminator.forward
    monkeypatch.setattr(
        discriminators.MultiPeriodDiscriminator,
        "forward",
        lambda self, waveform: calls.append(waveform.detach().clone()) or forward(self, waveform),
    )
    build, first = discriminators.MultiPeriodDiscriminator.__init__, []

    def built(self, *arguments):
        build(self, *arguments)
        first.extend(parameter.detach().clone() for parameter in self.parameters())

    monkeypatch.setattr(discriminators.MultiPeriodDiscriminator, "__init__", built)
    logged, models = train(*GAN, "discriminator_optim.learning_rate=1e-3")
    assert len(calls) == 3 * STEPS  # the real waveform, and the other without and with gradients for the decoder
    assert torch.equal(calls[1], calls[2]) and not torch.equal(calls[0], calls[1])
    for scalars in logged:
        weights = {
            "stft": 5.0,
            "log_stft": 1.0,
            "waveform": 0.0,
            "kl": 5e-3,
            "adversarial": 0.1,
            "feature_matching": 1.0,
        }
        assert scalars["loss"] == pytest.approx(sum(weight * scalars[name] for name, weight in weights.items()))
        assert scalars["discriminator"] > 0 and scalars["adversarial"] > 0 and scalars["feature_matching"] > 0
    learnt = models["discriminators"].period.parameters()
    assert all(not torch.equal(before, after.cpu()) for before, after in zip(first, learnt, strict=True))


def test_discriminators_wait_for_their_first_step(train, tmp_path):
    logged, _ = train(*GAN, "loss.gan_start_step=1")
    assert ["adversarial" in scalars for scalars in logged] == [False, True]
    (checkpoint,) = (tmp_path / "vae" / "checkpoints").glob("*2")
    assert load_file(checkpoint / "model.discriminators.safetensors")


PHASES = ["model.head=phase_gradient", "data.components_clips=2", "discriminators.resolutions_hear_phase=true"]


def test_the_sound_of_estimated_phases_is_judged_too(train, tmp_path):
    logged, models = train(*PHASES, "loss.adversarial=0.1", "loss.feature_matching=1.0", "loss.mel=2.0")
    assert set(models) == {"vae", "discriminators"}
    weights = {"stft": 5.0, "log_stft": 1.0, "mel": 2.0, "magnitude": 1.0, "phase_gradient": 1.0, "kl": 5e-3}
    weights |= {"adversarial": 0.1, "feature_matching": 1.0}
    for scalars in logged:
        assert scalars["loss"] == pytest.approx(sum(weight * scalars[name] for name, weight in weights.items()))
    assert all(layer.layers[0].weight.shape[1] == 2 for layer in models["discriminators"].resolution.discriminators)
    assert AudioVAEGAN.from_pretrained(tmp_path / "vae").decoder.linear.weight.any()


def test_a_decoder_follows_latents_that_stay(train, tmp_path):
    train("model.head=magnitude")
    (tmp_path / "vae").rename(tmp_path / "before")
    before = AudioVAEGAN.from_pretrained(tmp_path / "before")
    assert before.latent_std.ne(1).all()
    start = [f"data.start={tmp_path / 'before'}", "data.freeze_encoder=true"]
    logged, _ = train("model.head=phase_gradient", *start)
    assert "kl" not in logged[-1]
    after, waveform = AudioVAEGAN.from_pretrained(tmp_path / "vae"), torch.randn(1, 1, 4800)
    with torch.no_grad():
        latents, same = (vae.encode(waveform).latent_dist.mode() for vae in (before, after))
    assert torch.equal(latents, same) and torch.equal(before.latent_std, after.latent_std)
    assert not torch.equal(before.decoder.last.weight, after.decoder.last.weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.freeze_encoder=true"], "name one as data.start"),
        (["data.components_clips=2"], "the magnitude head has no linear path"),
    ],
)
def test_a_start_that_cannot_be_is_refused(train, settings, message):
    with pytest.raises(ValueError, match=message):
        train(*settings)


def test_a_head_without_phase_takes_no_discriminators(train):
    with pytest.raises(ValueError, match="must be 0 with the magnitude head.*got 0.1 and 0.0"):
        train("loss.adversarial=0.1")
