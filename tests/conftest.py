"""Fixtures: a tiny pipeline, a folder of it, a Hub on this machine, and a small data set."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from tiny import make_tiny_components

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.audio import save_audio

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background, as with nohup, ignores Ctrl-C


@pytest.fixture(scope="session")
def make_components() -> Callable[[], dict[str, Any]]:
    """Makes the components of a tiny pipeline, the same each time."""
    return make_tiny_components


@pytest.fixture
def tiny_components() -> dict[str, Any]:
    """Components that the test may change."""
    return make_tiny_components()


@pytest.fixture(scope="session")
def tiny_pipeline() -> MeLoDyPipeline:
    """One pipeline for the whole session; a test that changes it puts it back."""
    return MeLoDyPipeline(**make_tiny_components())


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline: MeLoDyPipeline, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pipeline of `tiny_pipeline`, saved; to be read only."""
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    tiny_pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def hub_server() -> Iterator[HubServer]:
    """A Hub on this machine, empty at first, for the users alice (token hf_alice) and bob (hf_bob)."""
    with HubServer({"hf_alice": "alice", "hf_bob": "bob"}) as hub:
        yield hub


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of noises to judge: three clips of 20 s for each of two classes, in three splits."""
    datasets = pytest.importorskip("datasets")
    rows = []
    for i, (style, family) in enumerate([("rock", "guitar"), ("waltz", "piano")] * 3):
        noise = 0.1 * torch.randn(1, 480000, generator=torch.Generator().manual_seed(i))
        save_audio(tmp_path / "noise.flac", noise)
        audio = {"bytes": (tmp_path / "noise.flac").read_bytes(), "path": f"{i}.flac"}
        tags = {"piece_id": str(i), "style": style, "family": family, "bpm": 100 + 10 * i, "meter": "4/4"}
        tags |= {"key": "Eb", "mode_word": "minor"}
        captions = [f"a {style} {i}", f"the {family} at {100 + 10 * i} bpm", f"{family}, E flat minor"]
        rows.append({"audio": audio, "captions": captions, **tags})
    for split in ("train", "validation", "test"):
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "data"
