import json
import math
import pickle
import runpy
import sys
import types
from collections import OrderedDict
from enum import IntEnum
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

from melody_diffusers import DualPathDiffusionModel, SemanticLM
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun

SCRIPT = runpy.run_path(
    str(Path(__file__).parents[2] / "conversion" / "component_from_checkpoint.py"), run_name="conversion"
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory, make_components):
    """A folder with config.json of two components, and the same components with other weights, as after a training."""
    folder, components = tmp_path_factory.mktemp("parts"), make_components()
    trained = {}
    for name in ("dual_path", "semantic_lm"):
        components[name].save_pretrained(folder / name)
        trained[name] = changed(components[name])
    return folder, trained


def changed(model, seed=1):
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def convert(config, checkpoint, out, *others):
    SCRIPT["main"](["--config", str(config), "--checkpoint", str(checkpoint), "--out", str(out), *others])
    cls = SemanticLM if config.name == "semantic_lm" else DualPathDiffusionModel
    return cls.from_pretrained(out)


def assert_same(model, expected):
    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


# ---- our own runs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(parts, tmp_path_factory):
    """Three steps of a TrainingRun of two models with averages; its checkpoints, and the live and averaged weights."""
    folder, _ = parts
    model, other = DualPathDiffusionModel.from_pretrained(folder / "dual_path"), torch.nn.Linear(3, 3)
    model.proj_in.bias.requires_grad_(False)  # has no average
    output = tmp_path_factory.mktemp("run")
    settings = RunConfig(
        output_dir=str(output), max_steps=3, batch_size=2, checkpoint_every=2, ema_decay=0.9, keep_checkpoints=5
    )
    run = TrainingRun(settings, {"dual_path": model, "other": other})
    optimizer = run.optimizer([*model.parameters(), *other.parameters()], OptimConfig(learning_rate=1e-2))
    states = {}
    for (latents,) in run.steps(DataLoader(TensorDataset(torch.randn(12, 500, 8)), batch_size=2)):
        run.backward(model(latents, torch.ones(2, 500)).sample.square().mean(), optimizer)
        run.finish_step()
        states[run.step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with run.averaged_weights():
        averaged = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return output / "checkpoints", states, averaged


def test_the_newest_averages_of_a_training_run(parts, run, tmp_path, capsys):
    folder, (checkpoints, states, averaged) = parts[0], run
    model = convert(folder / "dual_path", checkpoints, tmp_path / "out")
    assert_same(model, averaged)
    assert not torch.equal(averaged["proj_in.weight"], states[3]["proj_in.weight"])
    assert "step-00000003" in capsys.readouterr().out


def test_the_live_weights_of_one_step(parts, run, tmp_path):
    folder, (checkpoints, states, _) = parts[0], run
    model = convert(folder / "dual_path", checkpoints / "step-00000002", tmp_path / "out", "--live")
    assert_same(model, states[2])


# ---- torch.distributed.checkpoint -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint(parts, tmp_path):
    folder, trained = parts
    model = trained["semantic_lm"]
    optimizer = {"exp_avg": torch.randn(5), "step": 3}
    dcp.save({"model": model.state_dict(), "optimizer": optimizer}, checkpoint_id=tmp_path / "dcp")
    with pytest.raises(ValueError, match="--allow_pickle"):
        convert(folder / "semantic_lm", tmp_path / "dcp", tmp_path / "out")
    assert_same(
        convert(folder / "semantic_lm", tmp_path / "dcp", tmp_path / "out", "--allow_pickle"), model.state_dict()
    )


def write_sharded(rank: int, folder: Path, model: torch.nn.Module, world_size: int) -> None:
    """What FSDP2 writes from one of `world_size` processes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    fully_shard(model, mesh=init_device_mesh("cpu", (world_size,)))
    dcp.save({"app": {"model": model.state_dict()}}, checkpoint_id=f"{folder}/fsdp")
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks, which spares the import of torch in each process")
def test_weights_that_fsdp_sharded_over_two_processes(parts, tmp_path):
    folder, trained = parts
    arguments = (tmp_path, trained["dual_path"], 2)
    torch.multiprocessing.start_processes(write_sharded, arguments, nprocs=2, start_method="fork")
    assert len(list((tmp_path / "fsdp").glob("*.distcp"))) == 2
    model = convert(folder / "dual_path", tmp_path / "fsdp", tmp_path / "out", "--allow_pickle")
    assert_same(model, trained["dual_path"].state_dict())


@pytest.mark.filterwarnings("ignore")
def test_the_metadata_of_a_distributed_checkpoint_runs_no_code(parts, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    folder, trained = parts
    dcp.save({"model": trained["dual_path"].state_dict()}, checkpoint_id=tmp_path / "dcp")
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(pickle.UnpicklingError, match="may not name"):
        convert(folder / "dual_path", tmp_path / "dcp", tmp_path / "out", "--allow_pickle")
    assert not (tmp_path / "ran").exists()


# ---- one file -------------------------------------------------------------------------------------------------------


def test_full_state_dicts_behind_prefixes_and_wrappers(parts, tmp_path):
    folder, trained = parts
    expected = trained["dual_path"].state_dict()
    wrapped = {f"_orig_mod._fsdp_wrapped_module.{name}": tensor for name, tensor in expected.items()}
    torch.save({"state_dict": {"module": wrapped}, "epoch": 3}, tmp_path / "full.bin")
    assert_same(convert(folder / "dual_path", tmp_path / "full.bin", tmp_path / "a", "--allow_pickle"), expected)
    save_file({f"net.{name}": tensor.contiguous() for name, tensor in expected.items()}, tmp_path / "full.safetensors")
    assert_same(convert(folder / "dual_path", tmp_path / "full.safetensors", tmp_path / "b"), expected)


def test_two_models_in_one_checkpoint_need_a_prefix(parts, tmp_path):
    folder, trained = parts
    live = trained["dual_path"].state_dict()
    both = {"net": live, "ema": {name: tensor + 1 for name, tensor in live.items()}}
    torch.save(both, tmp_path / "both.pt")
    with pytest.raises(ValueError, match=r"--prefix, one of \['ema.', 'net.'\]"):
        convert(folder / "dual_path", tmp_path / "both.pt", tmp_path / "out", "--allow_pickle")
    model = convert(folder / "dual_path", tmp_path / "both.pt", tmp_path / "out", "--allow_pickle", "--prefix", "ema.")
    assert_same(model, both["ema"])


@pytest.mark.parametrize("fault", ["missing", "more", "shape", "nan"])
def test_weights_that_are_not_those_of_the_config_are_refused(parts, tmp_path, fault):
    folder, trained = parts
    weights = dict(trained["dual_path"].state_dict())
    name = "blocks.0.coarse_layers.0.self_attention.to_q.weight"
    name = name if name in weights else sorted(weights)[5]
    if fault == "missing":
        del weights[name]
    elif fault == "more":
        weights["blocks.9.extra.weight"] = torch.ones(2)
    elif fault == "shape":
        weights[name] = weights[name][:1]
    else:
        weights[name] = torch.full_like(weights[name], math.nan)
    save_file(weights, tmp_path / "bad.safetensors")
    message = {"missing": "lacks", "more": "holds more", "shape": "must be", "nan": "NaN"}[fault]
    with pytest.raises(ValueError, match=message):
        convert(folder / "dual_path", tmp_path / "bad.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- DeepSpeed ------------------------------------------------------------------------------------------------------


def write_deepspeed(folder, model, stage, world_size, monkeypatch):
    """A ZeRO checkpoint as DeepSpeed's zero_to_fp32.py documents it, in which objects of DeepSpeed's classes lie.

    DeepSpeed needs not be installed: stand-ins under its names exist only while the files are written.
    """
    modules = ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", "deepspeed.runtime.zero.config")
    for name in (*modules, "deepspeed.runtime.fp16", "deepspeed.runtime.fp16.loss_scaler"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    config, scaler = (sys.modules[name] for name in (modules[-1], "deepspeed.runtime.fp16.loss_scaler"))
    config.ZeroStageEnum = IntEnum("ZeroStageEnum", {"one": 1, "two": 2, "three": 3}, module=modules[-1])
    scaler.LossScaler = type("LossScaler", (), {"__module__": scaler.__name__})

    tag = folder / "global_step7"
    tag.mkdir(parents=True)
    (folder / "latest").write_text("global_step7\n")
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    frozen = {name: tensor for name, tensor in parameters.items() if name.startswith("proj_in")}
    trained = [name for name in parameters if name not in frozen]
    groups = [trained[0::2], trained[1::2]]  # as optimiser groups with and without weight decay
    shapes = [OrderedDict((name, parameters[name].shape) for name in group) for group in groups]
    half = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }

    def cut(flat):  # equal parts, the last without its padding
        return flat.split(math.ceil(len(flat) / world_size))

    def cut_padded(tensor):
        size = math.ceil(tensor.numel() / world_size)
        return torch.nn.functional.pad(tensor.flatten(), (0, size * world_size - tensor.numel())).split(size)

    for rank in range(world_size):
        if stage == 3:
            weights = {"fp32_flat_groups": [torch.cat([cut_padded(parameters[n])[rank] for n in g]) for g in groups]}
        else:
            flats = [torch.cat([parameters[name].flatten() for name in group]) for group in groups]
            weights = {"single_partition_of_fp32_groups": [cut(flat)[rank].clone() for flat in flats]}
        loss_scaler = scaler.LossScaler()
        loss_scaler.cur_scale = 1.0
        state = {
            "loss_scaler": loss_scaler,
            "zero_stage": config.ZeroStageEnum(stage),
            "partition_count": world_size if stage == 3 else [world_size, world_size],
            "optimizer_state_dict": {"state": {0: {"exp_avg": torch.randn(4)}}, "param_groups": [{"lr": 1e-3}]},
            **weights,
        }
        prefix = "" if stage == 3 else "bf16_"
        torch.save({"optimizer_state_dict": state}, tag / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        if stage == 3 or rank == 0:
            name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt"
            empty = {name: torch.empty(0) if stage == 3 else tensor for name, tensor in half.items()}
            fragments = {name: cut_padded(tensor)[rank] if stage == 3 else tensor for name, tensor in frozen.items()}
            states = {
                "module": empty,
                "buffer_names": [],
                "param_shapes": shapes,
                "frozen_param_shapes": {name: tensor.shape for name, tensor in frozen.items()},
                "frozen_param_fragments": fragments,
                "shared_params": {},
                "ds_version": "0.17.0",
            }
            torch.save(states, tag / name)
    monkeypatch.undo()
    assert "deepspeed" not in sys.modules
    return frozen


@pytest.mark.parametrize(("stage", "world_size"), [(1, 1), (2, 3), (3, 3), (2, 11)])
def test_deepspeeds_parts_are_put_together_in_full_precision(parts, tmp_path, monkeypatch, stage, world_size):
    folder, trained = parts
    model = trained["dual_path"]
    frozen = write_deepspeed(tmp_path / "zero", model, stage, world_size, monkeypatch)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="--allow_pickle"):
        convert(folder / "dual_path", tmp_path / "zero", out)
    converted = convert(folder / "dual_path", tmp_path / "zero", out, "--allow_pickle")
    assert frozen
    assert_same(converted, model.state_dict())


def test_a_deepspeed_part_that_is_missing_or_of_another_step_is_noticed(parts, tmp_path, monkeypatch):
    folder, trained = parts
    write_deepspeed(tmp_path / "zero", trained["dual_path"], 2, 2, monkeypatch)
    write_deepspeed(
        tmp_path / "other", changed(DualPathDiffusionModel.from_pretrained(folder / "dual_path"), 9), 2, 2, monkeypatch
    )
    part = "global_step7/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    (tmp_path / "other" / part).replace(tmp_path / "zero" / part)
    with pytest.raises(ValueError, match="are not those of the model"):
        convert(folder / "dual_path", tmp_path / "zero", tmp_path / "out", "--allow_pickle")
    (tmp_path / "zero" / part).unlink()
    with pytest.raises(ValueError, match="all 2 processes; it holds 1"):
        convert(folder / "dual_path", tmp_path / "zero", tmp_path / "out", "--allow_pickle")


def test_a_pickle_of_weights_runs_no_code(parts, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(pickle.UnpicklingError):
        convert(parts[0] / "dual_path", tmp_path / "evil.pt", tmp_path / "out", "--allow_pickle")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_or_no_component_is_refused(parts, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        convert(parts[0] / "dual_path", tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ValueError, match="none of the layouts"):
        convert(parts[0] / "dual_path", tmp_path, tmp_path / "out", "--allow_pickle")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(ValueError, match="it names UNet2DModel"):
        convert(tmp_path, tmp_path, tmp_path / "out")
