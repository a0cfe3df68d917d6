"""Saving: all of it or nothing, over what was there, and without touching what somebody else put beside it."""

import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from melody_diffusers import AudioVAEGAN, DualPathDiffusionModel, MeLoDyPipeline
from melody_diffusers.files import MOVING, WRITING


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A saved pipeline of its own for each test."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "pipeline"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(pipe) -> None:
    """Other weights in every model, as after training."""
    for model in pipe.components.values():
        if isinstance(model, torch.nn.Module):
            for weight in model.parameters():
                weight.data = weight.data + 0.5


def assert_same_weights(pipe, other) -> None:
    for name, model in pipe.components.items():
        if isinstance(model, torch.nn.Module):
            torch.testing.assert_close(model.state_dict(), getattr(other, name).state_dict(), rtol=0, atol=0)


def interrupt_at(monkeypatch, *numbers: int) -> list:
    """From now on the moves of these numbers, counted from 1, are interrupted; gives the list of all moves."""
    move, moves = shutil.move, []

    def move_some(source, target):
        moves.append((source, target))
        if len(moves) in numbers:
            raise KeyboardInterrupt
        return move(source, target)

    monkeypatch.setattr(shutil, "move", move_some)
    return moves


def test_a_model_saved_alone_in_other_shards_takes_the_place_of_itself(tiny_components, tmp_path):
    for name, cls in ("dual_path", DualPathDiffusionModel), ("vae", AudioVAEGAN):
        model = tiny_components[name]
        for size in ("2KB", "10GB", "4KB"):
            model.save_pretrained(tmp_path / name, max_shard_size=size)
            again = cls.from_pretrained(tmp_path / name)
            torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_what_is_trained_on_goes_back_into_its_own_folder(folder):
    pipe = MeLoDyPipeline.from_pretrained(folder)
    before = [weight.clone() for weight in pipe.dual_path.parameters()]
    pipe.save_pretrained(folder)  # as it is, with its weights still mapped
    change(pipe)
    pipe.save_pretrained(folder)
    assert_same_weights(MeLoDyPipeline.from_pretrained(folder), pipe)
    assert all(torch.equal(old + 0.5, weight) for old, weight in zip(before, pipe.dual_path.parameters()))


def test_adapters_copies_and_shards_of_another_precision_beside_it_stay(tiny_pipeline, folder):
    others = {
        "vae/model.backup.safetensors": b"mine",
        "pytorch_lora_weights.safetensors": b"style",
        "older/vae/model.safetensors": b"a copy",
    }
    for name, content in others.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    tiny_pipeline.save_pretrained(folder, variant="fp16", max_shard_size="2KB")
    half = {name: content for name, content in contents(folder).items() if "fp16" in name}
    tiny_pipeline.save_pretrained(folder, max_shard_size="3KB")
    found = contents(folder)
    assert {name: found[name] for name in (*others, *half)} == others | half and half
    for variant in None, "fp16":
        assert_same_weights(MeLoDyPipeline.from_pretrained(folder, variant=variant), tiny_pipeline)


@pytest.mark.parametrize("number", [1, 2, 10])
@pytest.mark.parametrize("phase", ["old files go", "new ones come"])
def test_an_interrupt_while_files_change_places_leaves_the_folder_as_it_was(folder, monkeypatch, phase, number):
    pipe = MeLoDyPipeline.from_pretrained(folder)
    change(pipe)
    before, move, moves = contents(folder), shutil.move, []

    def move_some(source, target):
        into = folder / MOVING if phase == "old files go" else folder
        is_here = str(target).startswith(f"{into}{os.sep}") and WRITING not in str(target)
        if is_here and (MOVING in str(target)) == (phase == "old files go"):
            moves.append(target)
        if len(moves) == number and moves[-1] == target:
            raise KeyboardInterrupt
        return move(source, target)

    monkeypatch.setattr(shutil, "move", move_some)
    with pytest.raises(KeyboardInterrupt):
        pipe.save_pretrained(folder, max_shard_size="4KB")
    assert contents(folder) == before and len(moves) >= number


def test_a_second_interrupt_costs_no_file_and_is_told_when_loading(folder, monkeypatch):
    pipe = MeLoDyPipeline.from_pretrained(folder)
    before = contents(folder / "vae")
    moves = interrupt_at(monkeypatch)
    pipe.vae.save_pretrained(folder / "vae")
    count = len(moves)
    interrupt_at(monkeypatch, count, count + 1)
    with pytest.raises(KeyboardInterrupt):
        pipe.vae.save_pretrained(folder / "vae")
    monkeypatch.undo()
    assert {**contents(folder / "vae"), **contents(folder / "vae" / MOVING)}.items() >= before.items()
    with pytest.raises(OSError, match="Save the folder again"):
        MeLoDyPipeline.from_pretrained(folder)
    pipe.save_pretrained(folder)
    pipe.vae.save_pretrained(folder / "vae")
    assert_same_weights(MeLoDyPipeline.from_pretrained(folder), pipe)


def test_an_adapter_that_cannot_be_written_leaves_the_one_of_that_name(tiny_components, tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")
    pipe = MeLoDyPipeline(**tiny_components)
    pipe.dual_path.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]))
    pipe.save_lora_weights(tmp_path)
    (tmp_path / "other.safetensors").write_bytes(b"another adapter")
    before = contents(tmp_path)

    def write_half(tensors, filename, metadata=None):
        Path(filename).parent.mkdir(exist_ok=True)
        Path(filename).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", write_half)
    with pytest.raises(KeyboardInterrupt):
        pipe.save_lora_weights(tmp_path)
    assert contents(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tiny_pipeline, tmp_path):
    (tmp_path / "file").write_text("mine")
    for part in tiny_pipeline, tiny_pipeline.vae, tiny_pipeline.scheduler:
        with pytest.raises(ValueError, match="`save_directory` must be a folder"):
            part.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_the_place_of_a_file_is_refused_and_kept(tiny_pipeline, folder):
    (folder / "vae/model.safetensors").unlink()
    (folder / "vae/model.safetensors").mkdir()
    (folder / "vae/model.safetensors/take.wav").write_bytes(b"mine")
    before = contents(folder)
    with pytest.raises(OSError, match="model.safetensors is a folder"):
        tiny_pipeline.save_pretrained(folder)
    assert contents(folder) == before


def test_a_part_that_is_a_link_to_another_disk_is_saved_there(tiny_pipeline, tmp_path):
    disk = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path  # a file system of its own, on Linux
    disk = disk / f"melody-{os.getpid()}"
    disk.mkdir()
    try:
        (tmp_path / "pipeline").mkdir()
        (tmp_path / "pipeline/vae").symlink_to(disk)
        for _ in range(2):
            tiny_pipeline.save_pretrained(tmp_path / "pipeline")
            assert (tmp_path / "pipeline/vae").is_symlink()
            again = AudioVAEGAN.from_pretrained(disk)
            torch.testing.assert_close(again.state_dict(), tiny_pipeline.vae.state_dict(), rtol=0, atol=0)
    finally:
        shutil.rmtree(disk)
