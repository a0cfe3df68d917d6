"""The notes of a MIDI file beside those that were written."""

import io
import re
import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melody_diffusers.evaluation.listeners import has_listener

TRAINING = Path(__file__).parents[2] / "training"
RATE = 24000


@pytest.fixture
def evaluate_midi():
    return runpy.run_path(str(TRAINING / "evaluate_midi.py"))


def test_figures_of_notes_whose_count_is_known(evaluate_midi):
    pytest.importorskip("mir_eval")
    written = np.array([[0.0, 0.4, 60], [0.5, 0.9, 64], [1.0, 1.4, 67], [1.5, 1.9, 72]])
    heard = np.array([[0.04, 0.4, 60], [0.5, 0.9, 65]])  # one is right, one starts right
    figures = evaluate_midi["figures"](heard, written)
    expected = {"F1": 1 / 3, "right": 1 / 2, "found": 1 / 4, "F1 of starts": 2 / 3}
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    nothing = evaluate_midi["figures"](heard[:0], written)
    assert [nothing[name] for name in expected] == [0, 0, 0, 0]


@pytest.mark.skipif(not has_listener("notes"), reason="needs the extra midi, and basic-pitch")
def test_a_piece_played_by_sines_is_read_back(tmp_path, monkeypatch, capsys):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(TRAINING / "synthetic"))
    from compose import compose
    from score import written_notes

    row = asdict(compose("solo piano", 3, 10.0).tags)
    waveform = np.zeros(10 * RATE)
    for start, end, pitch in written_notes(row, 10.0):
        time = np.arange(round((end - start) * RATE)) / RATE
        tone = 0.1 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time) * np.exp(-3 * time)
        part = waveform[round(start * RATE) :][: len(tone)]
        part += tone[: len(part)]
    flac = io.BytesIO()
    soundfile.write(flac, waveform, RATE, format="FLAC")
    columns = {"piece_id": ["a piece"], **{name: [value] for name, value in row.items()}}
    data = datasets.Dataset.from_dict({"audio": [{"bytes": flac.getvalue(), "path": "a.flac"}], **columns})
    (tmp_path / "data").mkdir()
    data.cast_column("audio", datasets.Audio(RATE)).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    monkeypatch.setattr(sys, "argv", ["evaluate_midi.py", "--data", str(tmp_path)])
    runpy.run_path(str(TRAINING / "evaluate_midi.py"), run_name="__main__")
    out = capsys.readouterr().out
    f1, right, found = map(float, re.search(r"\| all \| 1 \| ([\d.]+) \| ([\d.]+) \| ([\d.]+)", out).groups())
    assert f1 > 0.6 and right > 0.5 and found > 0.5
    assert "| through the VAE | clips |" in out and "| with drums | 0 |" in out
