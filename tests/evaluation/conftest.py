"""A small data set for the tests of judges and report."""

from pathlib import Path

import pytest
import torch

from melody_diffusers.audio import save_audio


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of noises: three clips of 20 s for each of two classes, in three splits."""
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
