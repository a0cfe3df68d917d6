"""Every training script on a device that refuses to mix with the CPU: forward, backward, validation, saving."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from fake_device import FakeDevice
from small import make_pipe

import melody_diffusers.devices
import melody_diffusers.pipelines.request
from melody_diffusers.data.datasets import AudioClips
from melody_diffusers.data.encode import ClipEncoder, encode_dataset
from melody_diffusers.evaluation.velocity import velocity_figures
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "faults"))
import stages  # noqa: E402

PLAIN = "run.mixed_precision=no"  # the emulation knows no autocast


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    stages.make_workspace(folder)
    pipe = make_pipe()
    pipe.register_to_config(sampling={"num_inference_steps": 1})
    pipe.save_pretrained(folder / "small")
    return folder


@pytest.fixture
def device(monkeypatch):
    fake = torch.device("fake:0")
    monkeypatch.setattr(Accelerator, "device", property(lambda self: fake))
    monkeypatch.setattr(melody_diffusers.devices, "default_device", lambda: fake)
    with FakeDevice() as device:
        yield device


@pytest.mark.parametrize("stage", ["vae_gan", "mulan", "semantic_encoder", "semantic_lm", "dual_path", "lora"])
def test_a_stage_trains_validates_and_saves(workspace, device, tmp_path, stage, monkeypatch):
    monkeypatch.setattr(melody_diffusers.pipelines.request, "DEFAULT_SECONDS", 0.5)  # of before.wav and after.wav
    of_stage = {"lora": [f"data.model={workspace / 'small'}", "data.clip_seconds=5.0", "data.stride_seconds=5.0"]}
    stages.run_stage(workspace, stage, tmp_path / stage, "run.max_steps=2", PLAIN, *of_stage.get(stage, []))
    written = {path.name for path in (tmp_path / stage).rglob("*")}
    wanted = {"pytorch_lora_weights.safetensors", "before.wav", "after.wav"} if stage == "lora" else {"config.json"}
    assert wanted <= written and device.launches


def run_script(monkeypatch, name: str, *settings: str) -> None:
    config = {"fit_semantic_kmeans": "semantic_kmeans", "fit_mulan_quantizer": "mulan_quantizer"}[name]
    arguments = ["--config", str(ROOT / "training" / "configs" / config / "tiny.yaml"), "--set", *settings]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(ROOT / "training" / f"{name}.py"), run_name="__main__")


def test_the_tokenizers_are_fitted(workspace, device, tmp_path, monkeypatch):
    parts, out = workspace / "pipeline", tmp_path / "out"
    data = [f"data.folder={workspace / 'set'}", "data.crop_seconds=1.0"]
    sizes = ["cluster.feature_layers=[1]", "cluster.num_centroids=8", f"run.output_dir={out / 'tokens'}"]
    opened, init = [], AudioClips.__init__
    monkeypatch.setattr(AudioClips, "__init__", lambda self, *a: opened.append(a[1]) or init(self, *a))
    run_script(monkeypatch, "fit_semantic_kmeans", *data, f"data.encoder={parts / 'semantic_tokenizer'}", *sizes)
    assert opened == ["train", "validation"]  # the layer is not chosen by the clips that judge the whole model
    towers = [f"data.mulan={parts / 'mulan'}", f"data.tokenizer={workspace / 'tokenizer'}"]
    sizes = ["model.dim=16", "model.codebook_size=4", "run.num_iterations=1", f"run.output_dir={out / 'mulan'}"]
    run_script(monkeypatch, "fit_mulan_quantizer", *data, *towers, *sizes)
    assert (out / "tokens" / "probes.json").is_file() and (out / "mulan" / "config.json").is_file()


def test_a_data_set_is_encoded(workspace, device, tmp_path):
    pipe = make_pipe().to("fake")
    names = ("vae", "mulan", "mulan_quantizer", "semantic_tokenizer", "tokenizer")
    encoder = ClipEncoder(**{name: getattr(pipe, name) for name in names}, window_seconds=1.0)
    encode_dataset(workspace / "set", encoder, tmp_path, splits=["test"])
    assert (tmp_path / "test" / "source.json").is_file()


def test_velocities_are_measured_by_angle(device):
    model = make_pipe().dual_path.to("fake")
    batch = {"latents": torch.randn(1, 40, 8), "semantic_tokens": torch.zeros(1, 20, dtype=torch.long)}
    batch = {name: tensor.to("fake") for name, tensor in batch.items()}
    assert velocity_figures(model, [batch], num_angles=2)["velocity_mse"] > 0


def train(folder: Path, steps: int, has_float64: bool = True) -> int:
    """Waits for the device in a training of so many steps."""
    data = torch.utils.data.TensorDataset(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))
    with FakeDevice(has_float64) as device:
        model = torch.nn.Linear(4, 4)
        run = TrainingRun(
            RunConfig(output_dir=str(folder), max_steps=steps, batch_size=4, trackers=[], log_every=1000), {"m": model}
        )
        optimizer = run.optimizer(model.parameters(), OptimConfig(learning_rate=1e-3))
        for (x,) in run.steps(torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)):
            loss = model(x).square().mean()
            run.backward(loss, optimizer)
            run.finish_step(loss=loss)
        return sum(device.syncs.values())


@pytest.fixture
def on_fake(monkeypatch):
    monkeypatch.setattr(Accelerator, "device", property(lambda self: torch.device("fake:0")))


def test_a_step_waits_for_its_batch_and_for_what_is_finite(on_fake, tmp_path):
    few, many = train(tmp_path / "few", 2), train(tmp_path / "many", 6)
    assert many - few <= 4 * 3  # the batch goes there, and one vector of what is finite comes back


def test_training_asks_for_no_float64(on_fake, tmp_path):
    train(tmp_path, 2, has_float64=False)
