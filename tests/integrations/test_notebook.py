"""The notebook runs from top to bottom, and what it plays is the music that it says."""

import base64
import io
import re
from pathlib import Path

import pytest
import soundfile

NOTEBOOK = Path(__file__).parents[2] / "integrations" / "notebook" / "melody.ipynb"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
SOUND = re.compile(r'src="data:audio/wav;base64,([^"]+)"')


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_what_a_run_left(stored):
    nbformat.validate(stored)
    for cell in stored.cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


@pytest.mark.slow
def test_it_runs_and_plays(stored, tmp_path):
    ran = nbclient.NotebookClient(
        stored.copy(), timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()  # the first cell that fails ends it by an error
    outputs = [output for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    sounds = [
        soundfile.read(io.BytesIO(base64.b64decode(match[1])))
        for output in outputs
        for match in SOUND.finditer(output.get("data", {}).get("text/html", ""))
    ]
    assert [(round(len(samples) / rate, 2), rate) for samples, rate in sounds] == [
        (5.0, 24000),
        (5.0, 24000),
        (7.0, 24000),
        (7.0, 24000),
        (round(3 * 2 * 4 * 60 / 124, 2), 24000),
    ]
    assert all(abs(samples).max() > 0.05 for samples, _ in sounds)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("125 tokens" in output.get("text", "") for output in outputs)
    assert not list(tmp_path.iterdir())
