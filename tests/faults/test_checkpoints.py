"""A checkpoint is there whole or not at all, whatever happens while it is written or after."""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from melody_diffusers.training_utils.checkpoint import find_damage, newest_checkpoint, read_checkpoint, write_checkpoint

HERE = Path(__file__).parent
FILES = {
    "model.vae": {"w": torch.ones(50)},
    "ema.vae": {"w": torch.zeros(50)},
    "optimizer.0": {"0.step": torch.ones(1)},
}


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler")
def test_every_write_of_a_save_may_fail_or_be_the_last(tmp_path):
    library, root = tmp_path / "crash_points.so", tmp_path / "saves"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "crash_points.c", "-ldl"], check=True)
    root.mkdir()
    environment = os.environ | {"LD_PRELOAD": str(library), "CRASH_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "crash_saves.py"), str(library)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    outcomes = json.loads(result.stdout)
    assert not [outcome for outcome in outcomes if outcome[3] not in ("old", "new")]
    counts = collections.Counter((mode, outcome) for _, mode, _, outcome in outcomes)
    assert len(outcomes) > 100 and all(counts[mode, "old"] > 20 for mode in ("SIGKILL", "ENOSPC", "EIO"))
    assert counts["SIGKILL", "new"] > 0  # the renaming comes before the tidying


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0 if file.name == "manifest.json" else len(content) * 3 // 4] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, lambda file: os.truncate(file, file.stat().st_size - 1), Path.unlink])
@pytest.mark.parametrize("name", [*(f"{name}.safetensors" for name in FILES), "state.json", "manifest.json"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(tmp_path, name, damage):
    for step in (3, 6):
        write_checkpoint(tmp_path, step, FILES, {"step": step}, keep=2)
    damage(tmp_path / "step-00000006" / name)
    with pytest.warns(UserWarning, match=rf"step-00000006 is passed over, .*damaged-step-00000006: {name}"):
        assert newest_checkpoint(tmp_path) == tmp_path / "step-00000003"
    write_checkpoint(tmp_path, 6, FILES, {"step": 6}, keep=2)  # the run goes on; what was damaged is still there
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000006"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-00000003", "step-00000006", "damaged-step-00000006"}


def test_what_was_written_is_read(tmp_path):
    write_checkpoint(tmp_path, 1, FILES, {"step": 1, "minutes": 0.5}, keep=1)
    files, state = read_checkpoint(tmp_path / "step-00000001")
    assert state == {"step": 1, "minutes": 0.5} and files.keys() == FILES.keys()
    assert torch.equal(files["model.vae"]["w"], torch.ones(50))
    assert find_damage(tmp_path / "step-00000001") is None
    assert "manifest.json cannot be read" in str(find_damage(tmp_path / "step-00000002"))


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    write_checkpoint(tmp_path, 1, FILES, {"step": 1}, keep=1)
    with pytest.raises(OSError, match="step-00000002 could not be written"):
        write_checkpoint(tmp_path, 2, {"no such folder/model": {"w": torch.ones(3)}}, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
