import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toy import DATA, train
from transformers import BertConfig, PretrainedConfig

from melody_diffusers.models.residual_quantizer import ResidualQuantizer
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun, load_config
from melody_diffusers.training_utils.config import learning_rate
from melody_diffusers.training_utils.finite import FiniteCheck, read_numbers
from melody_diffusers.training_utils.velocity import chunk_angles, multi_chunk_loss


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2, "mixed_precision": "bf16"}])
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, settings):
    whole, run, _ = train(tmp_path / "whole", 11, **settings)
    for stop in (1, 4, 10):
        train(tmp_path / f"{stop}", 11, stop_after=stop, **settings)
        resumed, again, _ = train(tmp_path / f"{stop}", 11, **settings)
        assert torch.equal(resumed, whole)
        for key, average in run._averages.tensors["model"].items():
            assert torch.equal(average, again._averages.tensors["model"][key])
    assert torch.equal(train(tmp_path / "whole", 11, **settings)[0], whole)  # done: nothing left to do


def test_the_bar_of_a_run_with_a_budget_shows_the_time_that_the_budget_leaves(tmp_path):
    totals = {}

    def wait(run):
        time.sleep(0.02)
        totals[run.step] = run._bar.total

    train(tmp_path, 10**9, on_step=wait, budget_minutes=0.5 / 60)
    steps = max(totals)
    assert steps / 2 < totals[steps // 2] < 2 * steps and totals[steps] <= steps + 2


def test_the_order_of_data_is_one_permutation_per_epoch_for_any_number_of_workers(tmp_path):
    class Numbered(Dataset):
        epoch = 0

        def __len__(self):
            return 10

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __getitem__(self, index):
            return torch.full((4,), float(index)), torch.full((4,), float(self.epoch))

    def order(folder, workers):
        seen = []
        run = TrainingRun(RunConfig(output_dir=str(folder), max_steps=10, batch_size=2), {"model": nn.Linear(1, 1)})
        for x, y in run.steps(DataLoader(Numbered(), batch_size=2, shuffle=True, num_workers=workers)):
            seen += list(zip(x[:, 0].int().tolist(), y[:, 0].int().tolist(), strict=True))
            run.finish_step()
        return seen

    seen = order(tmp_path / "0", 0)
    assert sorted(seen) == [(index, epoch) for index in range(10) for epoch in (0, 1)]
    assert [epoch for _, epoch in seen] == [0] * 10 + [1] * 10
    assert [index for index, _ in seen[:10]] != [index for index, _ in seen[10:]]
    assert order(tmp_path / "2", 2) == seen

    Numbered.order = lambda self, generator: sorted(
        torch.randperm(10, generator=generator).tolist(), key=lambda i: i % 2
    )
    alike = [index for index, _ in order(tmp_path / "own", 0)]
    assert [index % 2 for index in alike] == [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5 and alike[:10] != alike[10:]


def test_a_broken_newest_checkpoint_is_passed_over(tmp_path):
    whole, _, _ = train(tmp_path / "whole", 12)
    for damage in ("truncate", "delete", "manifest"):
        folder = tmp_path / damage
        train(folder, 12, stop_after=8, keep_checkpoints=2)
        names = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert names == ["step-00000003", "step-00000006"]
        newest = folder / "checkpoints" / "step-00000006"
        if damage == "truncate":
            os.truncate(newest / "optimizer.1.safetensors", 100)
        elif damage == "delete":
            (newest / "model.critic.safetensors").unlink()
        else:
            (newest / "manifest.json").write_text("{")
        steps = []
        resumed, _, _ = train(folder, 12, on_step=lambda run, steps=steps: steps.append(run.step))
        assert steps[0] == 3 and torch.equal(resumed, whole)


def test_checkpoints_hold_no_pickle_and_a_foreign_one_is_refused(tmp_path):
    train(tmp_path, 6)
    for path in (tmp_path / "checkpoints" / "step-00000006").iterdir():
        assert path.suffix in (".safetensors", ".json")
    run = TrainingRun(RunConfig(output_dir=str(tmp_path), max_steps=9, batch_size=4), {"model": nn.Linear(3, 3)})
    with pytest.raises(ValueError, match=r"step-00000006 does not fit.*run\.resume=false"):
        next(run.steps(DataLoader(DATA, batch_size=4)))
    steps = []
    train(tmp_path, 2, on_step=lambda run: steps.append(run.step), resume=False)
    assert steps == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_leaves(tmp_path, capsys, number):
    whole, _, _ = train(tmp_path / "whole", 8)

    def kill(run):
        if run.step == 4:
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as stopped:
        train(tmp_path / "killed", 8, on_step=kill)
    assert stopped.value.code == 0
    assert "Stopped at step 5. To resume: python " in capsys.readouterr().out
    steps = []
    resumed, _, _ = train(tmp_path / "killed", 8, on_step=lambda run: steps.append(run.step))
    assert steps == [5, 6, 7] and torch.equal(resumed, whole)


def test_a_step_that_is_not_finite_is_skipped_and_told(tmp_path):
    model = nn.Linear(4, 4)
    run = TrainingRun(RunConfig(output_dir=str(tmp_path / "vae"), max_steps=3, batch_size=4), {"model": model})
    optimizer = run.optimizer(model.parameters(), OptimConfig(learning_rate=1.0))
    for step, (x, _) in enumerate(run.steps(DataLoader(DATA, batch_size=4))):
        before = model.weight.detach().clone()
        kl = model(x).mean() * (float("nan") if step == 1 else 1.0)
        run.backward(kl + 2, optimizer)
        if step == 1:
            with pytest.warns(UserWarning, match=r"vae, step 1: grad_norm, kl, loss not finite.*rows \[4, 5, 6, 7\]"):
                run.finish_step(kl=kl)
        else:
            run.finish_step(kl=kl)
        assert torch.equal(model.weight, before) == (step == 1)
    assert json.loads((tmp_path / "vae/diagnostics/step-00000001-process-0.json").read_text())["values"]["kl"] == "nan"


def test_numbers_are_a_sample_s_own(tmp_path):
    """However many samples come with it, and in whatever number of steps they were counted."""

    def draws(batch_size):
        config = RunConfig(
            output_dir=str(tmp_path / str(batch_size)), max_steps=24 // batch_size, batch_size=batch_size
        )
        run, seen = TrainingRun(config, {"model": nn.Linear(1, 1)}), []
        for x, _ in run.steps(DataLoader(DATA, batch_size=batch_size)):
            seen.append(run.randn("noise", len(x), 2, 3))
            assert torch.equal(seen[-1], run.randn("noise", len(x), 2, 3))
            assert not torch.equal(seen[-1], run.randn("other", len(x), 2, 3))
            assert run.rand("noise", len(x)).shape == (len(x),) and 0 <= run.rand("noise", len(x)).min() < 1
            run.finish_step()
        return torch.cat(seen)

    whole = draws(12)
    assert torch.equal(whole, draws(4)) and len(whole.unique()) == whole.numel() == 24 * 6
    assert abs(float(whole.mean())) < 0.3 and 0.8 < float(whole.std()) < 1.2


def test_one_loss_moves_only_the_weights_of_its_optimiser(tmp_path):
    model, critic = nn.Linear(4, 4), nn.Linear(4, 1)
    run = TrainingRun(
        RunConfig(output_dir=str(tmp_path), max_steps=1, batch_size=4), {"model": model, "critic": critic}
    )
    optimizer = run.optimizer(model.parameters(), OptimConfig(learning_rate=1.0))
    run.optimizer(critic.parameters(), OptimConfig(learning_rate=1.0))
    before = critic.weight.detach().clone(), model.weight.detach().clone()
    for x, _ in run.steps(DataLoader(DATA, batch_size=4)):
        run.backward(critic(model(x)).mean(), optimizer)
        run.finish_step()
    assert critic.weight.grad is None and torch.equal(critic.weight, before[0])
    assert not torch.equal(model.weight, before[1])


def test_accumulated_gradients_equal_those_of_the_whole_batch(tmp_path):
    def weights(folder, batch_size, accumulation):
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
        settings = {"batch_size": batch_size, "gradient_accumulation_steps": accumulation}
        run = TrainingRun(RunConfig(output_dir=str(folder), max_steps=5, **settings), {"model": model})
        optimizer = run.optimizer(model.parameters(), OptimConfig(learning_rate=0.1))
        for x, y in run.steps(DataLoader(DATA, batch_size=batch_size)):
            run.backward((model(x) - y).pow(2).mean(), optimizer)
            run.finish_step()
        return model.weight.detach()

    assert torch.allclose(weights(tmp_path / "a", 6, 1), weights(tmp_path / "b", 2, 3), atol=1e-6)


def test_schedules_in_closed_form():
    cosine = OptimConfig(learning_rate=2.0, schedule="cosine", warmup_steps=4, min_lr_ratio=0.1)
    assert learning_rate(cosine, 0, 0.0) == pytest.approx(0.5)
    assert learning_rate(cosine, 9, 0.5) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert learning_rate(cosine, 9, 1.0) == pytest.approx(0.2)
    assert learning_rate(OptimConfig(learning_rate=2.0, schedule="linear"), 5, 0.25) == pytest.approx(
        2.0 * (1 - 0.95 * 0.25)
    )
    assert learning_rate(OptimConfig(learning_rate=2.0), 5, 0.9) == 2.0


def test_time_ends_a_run_like_steps_do(tmp_path):
    steps = []
    _, run, _ = train(tmp_path, 10**9, on_step=lambda run: steps.append(run.step), budget_minutes=0.2 / 60)
    assert 0 < run.step == len(steps) < 10**6
    assert (
        json.loads(next((tmp_path / "checkpoints").glob(f"*{run.step}/state.json")).read_text())["minutes"] > 0.2 / 60
    )


def test_saving_writes_the_averaged_weights(tmp_path):
    quantizer = ResidualQuantizer(2, 3, 4)
    quantizer.scale = nn.Parameter(torch.zeros(3))
    config = RunConfig(output_dir=str(tmp_path), max_steps=12, batch_size=4, ema_decay=0.5)
    run = TrainingRun(config, {"quantizer": quantizer, "critic": nn.Linear(1, 1)}, ema=["quantizer"])
    average = torch.zeros(3)
    for step, _ in enumerate(run.steps(DataLoader(DATA, batch_size=4))):
        with torch.no_grad():
            quantizer.scale.add_(1.0)
        run.finish_step()
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * (step + 1)
        with run.averaged_weights():
            assert torch.allclose(quantizer.scale, average)
        assert torch.equal(quantizer.scale.detach(), torch.full((3,), step + 1.0))
    run.save()
    assert (tmp_path / "config.json").is_file()  # the only model that can be saved goes into the folder itself
    assert torch.allclose(quantizer.scale, average)


def test_sounds_and_spectrograms_are_logged(tmp_path):
    config = RunConfig(output_dir=str(tmp_path), max_steps=1, batch_size=4)
    run = TrainingRun(config, {"model": nn.Linear(1, 1)})
    tone = torch.sin(torch.arange(24000) * 2 * math.pi * 440 / 24000).unsqueeze(0)
    for _ in run.steps(DataLoader(DATA, batch_size=4)):
        run.finish_step(loss=1.5)
        run.log_audio("tone", tone, 24000)
        run.log(heldout=2.0)
    run.accelerator.end_training()
    events = EventAccumulator(str(tmp_path / "logs" / "melody"))
    events.Reload()
    (audio,) = events.Audio("tone")
    assert audio.sample_rate == 24000 and audio.encoded_audio_string[:4] == b"RIFF"
    (image,) = events.Images("tone/spectrogram")
    assert (image.height, image.width) == (128, 100)
    assert events.Scalars("heldout")[0].value == 2.0


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = RunConfig(output_dir=str(tmp_path), max_steps=1, batch_size=4, trackers=["trackio"])
    with pytest.raises(ValueError, match="trackio, which is not installed: pip install trackio"):
        TrainingRun(config, {"model": nn.Linear(1, 1)})


def test_time_is_counted_from_the_start_of_the_process(tmp_path):
    """Which imports, and reads data, before there is a run: this one is older than two seconds."""
    while time.time() - psutil.Process().create_time() < 2.0:
        time.sleep(0.1)
    steps = []
    with pytest.raises(SystemExit):
        train(tmp_path, 1000, on_step=lambda run: steps.append(run.step), max_minutes=2.0 / 60)
    assert steps == [0]


def test_no_step_asks_for_float64(tmp_path, monkeypatch):
    """Apple's devices have none."""

    def refuse(*_, **__):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch.Tensor, "double", refuse)
    _, run, losses = train(tmp_path, 4)
    assert run.step == 4 and all(math.isfinite(loss) for loss in losses)


def test_numbers_are_read_as_they_are():
    accelerator = Accelerator()
    values = {"a": 3.0, "b": torch.tensor(0.5), "c": torch.tensor([2.0]), "d": 1e-9, "e": torch.tensor(7)}
    assert read_numbers(values, accelerator) == {"a": 3.0, "b": 0.5, "c": 2.0, "d": 1e-9, "e": 7.0}
    assert list(read_numbers(values, accelerator)) == list(values) and read_numbers({}, accelerator) == {}
    check = FiniteCheck()
    check.note(fine=1.0, loss=torch.tensor(math.inf), gan=math.nan)
    check.note(fine=torch.tensor(2.0), loss=torch.tensor(1.0))
    assert read_numbers(check.flags(), accelerator) == {"fine": 0.0, "gan": 1.0, "loss": 1.0}


def test_every_chunk_has_an_angle_of_its_own():
    draws = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]])
    angle = chunk_angles(draws, 10)  # borders floor(10 m / 3): 0, 3, 6, 10
    expected = draws[:, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]] * math.pi / 2
    assert torch.equal(angle, expected)


@pytest.mark.parametrize("drops", [[False, True, False, True], [False] * 4, [True] * 4])
@pytest.mark.parametrize("is_split", [False, True])
def test_samples_without_tokens_come_last_and_count_alike(drops, is_split):
    generator = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 4, 6, 3, generator=generator)
    tokens, angle = torch.arange(8).view(4, 2), torch.rand(4, 6, generator=generator)
    heard = []

    def model(noisy, angles, tokens):
        heard.append(tokens)
        return SimpleNamespace(sample=0.5 * noisy + angles[..., None])

    loss = multi_chunk_loss(model, z, tokens, noise, angle, torch.tensor(drops), is_split=is_split)
    d = angle[..., None]
    prediction = 0.5 * (d.cos() * z + d.sin() * noise) + d
    assert loss.item() == pytest.approx((prediction - (d.cos() * noise - d.sin() * z)).square().mean().item())
    kept = [row for row, drop in zip(tokens.tolist(), drops) if not drop]
    assert heard[0].tolist() == (kept or ([[0, 0]] if is_split else []))


LOSSES = {
    "dual_path": lambda model: (
        model(torch.ones(2, 100, 8), torch.full((2, 100), 0.4), torch.arange(50).expand(2, -1) % 32).sample
    ),
    "semantic_lm": lambda model: model.semantic_logits(
        torch.zeros(2, model.config.num_mulan_codebooks, dtype=torch.long), torch.arange(20).expand(2, -1) % 32
    ),
    "mulan": lambda model: (
        model.get_text_features(torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.long))
        * model.get_audio_features(torch.linspace(-1, 1, 24000 * 10).sin()[None, None])
    ),
    "semantic_tokenizer": lambda model: (
        model(torch.linspace(-1, 1, 24000)[None, None], torch.zeros(1, 25) > 0).last_hidden_state
    ),
}


@pytest.mark.parametrize("part", LOSSES)
def test_gradients_of_blocks_computed_again_are_the_same(tmp_path, make_components, part):
    gradients, calls = [], []
    for again in (False, True):
        model = make_components()[part]
        config = RunConfig(output_dir=str(tmp_path), max_steps=1, batch_size=4, gradient_checkpointing=again)
        run = TrainingRun(config, {part: model, "beside": nn.Linear(1, 1)})
        optimizer = run.optimizer(model.parameters(), OptimConfig(learning_rate=0.0, clip=1e9))
        count = [0]
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.RMSNorm) or type(module).__name__.endswith("RMSNorm"):
                module.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        torch.manual_seed(0)
        output = LOSSES[part](model.train()).float()
        run.backward((output * torch.linspace(-1, 1, output.numel()).view_as(output).sin()).sum(), optimizer)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        calls.append(count[0])
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 5
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert calls[1] > calls[0] > 0  # it has computed them again


def test_a_model_that_cannot_compute_blocks_again_is_named(tmp_path, make_components):
    config = RunConfig(output_dir=str(tmp_path), max_steps=1, batch_size=4, gradient_checkpointing=True)
    models = {"vae": make_components()["vae"], "discriminators": nn.Linear(1, 1)}
    with pytest.raises(ValueError, match="gradient_checkpointing must be false: vae cannot"):
        TrainingRun(config, models)


# -- configuration


@dataclass(kw_only=True)
class DataConfig:
    folder: str
    share: float = 0.5
    splits: list[str] | None = None
    betas: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share is a part of one, got {self.share}")


class NestedConfig(PretrainedConfig):
    model_type = "nested-for-test"
    sub_configs = {"text_config": BertConfig}

    def __init__(self, width: int = 3, text_config: dict | None = None, **kwargs):
        self.width, self.text_config = width, text_config
        super().__init__(**kwargs)


SECTIONS = {"model": NestedConfig, "data": DataConfig, "run": RunConfig}
GOOD = """
model: {width: 5, text_config: {hidden_size: 8}}
data:
  folder: somewhere
  share: 1e-4
run: {output_dir: out, max_steps: 10, batch_size: 2}
"""


def load(tmp_path, text, *overrides, sections=SECTIONS):
    (tmp_path / "c.yaml").write_text(text)
    return load_config(tmp_path / "c.yaml", sections, overrides)


def test_a_configuration_is_read_and_overridden(tmp_path):
    config = load(tmp_path, GOOD, "run.max_steps=2", "model.text_config.num_hidden_layers=1", "data.splits=[train]")
    assert config.model == {"width": 5, "text_config": {"hidden_size": 8, "num_hidden_layers": 1}}
    assert isinstance(config.data, DataConfig)
    assert vars(config.data) == vars(DataConfig(folder="somewhere", share=1e-4, splits=["train"]))
    assert config.run.max_steps == 2 and config.run.seed == 0
    assert load(tmp_path, GOOD, "run.mixed_precision=no", "run.resume=false").run.mixed_precision == "no"
    assert load(tmp_path, GOOD, "data.share=1").data.share == 1.0
    assert load(tmp_path, GOOD, "data.betas=[0, 1]").data.betas == (0.0, 1.0)
    assert load(tmp_path, "model:", sections={"model": ResidualQuantizer}).model == {}


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (GOOD, ["run.max_step=2"], ["section run", "max_step", "Allowed:", "max_steps"]),
        (GOOD, ["model.widht=2"], ["section model", "widht", "width"]),
        (GOOD, ["model.text_config.hiden_size=2"], ["section model.text_config", "hiden_size"]),
        (GOOD, ["data.share=much"], ["section data", "share", "valid number", "'much'"]),
        (GOOD, ["data.share=true"], ["share", "True"]),
        (GOOD, ["run.max_steps=2.5"], ["max_steps", "integer", "2.5"]),
        (GOOD, ["run.max_steps=0"], ["max_steps", "greater than 0", "got 0"]),
        (GOOD, ["run.mixed_precision=fp16"], ["mixed_precision", "bf16"]),
        (GOOD, ["run.trackers=[mlflow]"], ["trackers", "wandb"]),
        (GOOD, ["run.max_minutes=0"], ["max_minutes", "greater than 0"]),
        (GOOD, ["run.ema_decay=1.0"], ["ema_decay", "less than 1"]),
        (GOOD, ["run.budget_minutes=.nan"], ["budget_minutes", "greater than 0"]),
        (GOOD, ["data.betas=[1]"], ["betas"]),
        (GOOD, ["data.folder=2"], ["section data: folder must be a valid string, got 2."]),
        (GOOD, ["data.splits=train"], ["splits", "valid array", "'train'"]),
        (GOOD, ["data.share=2"], ["section data: share is a part of one, got 2.0"]),
        (GOOD, ["run.max_steps=0", "run.epochs=3"], ["max_steps must", "unknown key epochs"]),
        (GOOD, ["seed=1"], ["seed=1", "section.key=value"]),
        (GOOD, ["run.seed"], ["run.seed"]),
        (GOOD.replace("folder: somewhere", ""), [], ["section data", "missing", "folder"]),
        (GOOD + "other: {}", [], ["unknown section other", "Allowed: model, data, run"]),
        (GOOD.replace("model: {width: 5, text_config: {hidden_size: 8}}", ""), [], ["missing section model"]),
        (GOOD + "run: {}", [], ["run given twice"]),
        ("[1, 2]", [], ["must hold the sections"]),
        ("a: [", [], ["not valid YAML"]),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, text, overrides, words):
    with pytest.raises(ValueError) as error:
        load(tmp_path, text, *overrides)
    for word in words:
        assert word in str(error.value)


def test_cosine_falls_all_the_way_and_averages_one_half():
    config = OptimConfig(learning_rate=1.0, schedule="cosine", min_lr_ratio=0.0)
    rates = [learning_rate(config, step, step / 100) for step in range(101)]
    assert rates == sorted(rates, reverse=True) and math.isclose(sum(rates), 50.5, rel_tol=1e-9)


def written(place: Path, output: str, folder: str = "data/mine") -> Path:
    """A configuration two folders below a repository that has training/prompts.yaml."""
    (place / "training" / "configs").mkdir(parents=True)
    (place / "training" / "prompts.yaml").write_text("jazz: [swing]")
    data = {"folder": folder, "prompts": "training/prompts.yaml"}
    config = {"data": data, "run": {"output_dir": output, "max_steps": 1, "batch_size": 1}}
    (place / "training" / "configs" / "tiny.yaml").write_text(json.dumps(config))
    return place / "training" / "configs" / "tiny.yaml"


@dataclass(kw_only=True)
class Prompted:
    folder: str
    prompts: str


SECTIONS = {"data": Prompted, "run": RunConfig}


@pytest.mark.parametrize("output", ["data/mine", "data/mine/vae", "data/other/../mine/vae"])
def test_a_trainer_that_would_write_into_its_data_is_refused(tmp_path, output):
    file = written(tmp_path, output)
    with pytest.raises(ValueError, match="run.output_dir .* lies within data.folder data/mine"):
        load_config(file, SECTIONS)


def test_a_trainer_may_write_beside_its_data(tmp_path):
    assert load_config(written(tmp_path, "data/mine_vae"), SECTIONS).run.output_dir == "data/mine_vae"
