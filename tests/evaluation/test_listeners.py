"""Listeners that others have trained: that they can be absent, and what they say of sounds whose quality is known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from melody_diffusers.evaluation import listeners
from melody_diffusers.evaluation.embeddings import load_embedding
from melody_diffusers.evaluation.listeners import heard_notes, missing_listeners, notes_f1, notes_figures, visqol
from melody_diffusers.evaluation.reconstruction import reconstruction_figures


def piano(*pitches: int, seconds: float = 0.5) -> torch.Tensor:
    """Decaying tones of six harmonics, one after the other, (1, 1, T) at 24 kHz."""
    time = torch.arange(round(seconds * 24000)) / 24000
    tones = []
    for pitch in pitches:
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        tones.append(
            sum(0.2 / k * torch.sin(2 * torch.pi * k * hertz * time) * (-3 * k * time).exp() for k in range(1, 7))
        )
    return torch.cat(tones)[None, None]


def test_what_is_not_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert len(missing_listeners()) == len(listeners.LISTENERS)
    assert "visqol (`pip install " in missing_listeners()[0]
    figures = reconstruction_figures(piano(60), piano(60))
    assert "chroma_correlation" in figures and not {"visqol", "notes_f1"} & figures.keys()


def test_visqol_of_a_copy_and_of_noise() -> None:
    pytest.importorskip("visqol")
    clip = piano(60, 64, 67, 72, 67, 64, 60, 55)
    noisy = clip + 0.1 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
    copy, worse = visqol(torch.cat([clip, noisy]), clip.expand(2, -1, -1)).tolist()
    assert copy == pytest.approx(4.73, abs=0.01) and worse < 4
    assert visqol(torch.zeros_like(clip), clip).isnan().all()


def test_notes_count_once_by_pitch_and_start() -> None:
    pytest.importorskip("mir_eval")
    notes = np.array([[0.0, 0.4, 60], [0.5, 0.9, 64], [1.0, 1.4, 67], [1.5, 1.9, 72]])
    assert notes_f1(notes, notes) == 1
    assert notes_f1(notes + [0.04, 2.0, 0], notes) == 1  # ends do not matter
    assert notes_f1(notes + [0.06, 0, 0], notes) == notes_f1(notes + [0, 0, 1], notes) == 0
    assert notes_f1(notes[:2], notes) == pytest.approx(2 / 3)  # all right, half found
    assert notes_f1(notes[:0], notes) == 0 and np.isnan(notes_f1(notes, notes[:0]))


def test_basic_pitch_hears_what_was_played() -> None:
    if not listeners.has_listener("notes"):
        pytest.skip("needs basic-pitch")
    played = [60, 64, 67, 72]
    notes = heard_notes(piano(*played))[0]
    assert set(played) <= set(notes[:, 2].astype(int))
    written = np.array([[0.5 * i, 0.5 * i + 0.4, pitch] for i, pitch in enumerate(played)])
    figures = notes_figures(piano(61, 65, 68, 73), piano(*played), written=[written])
    assert figures["notes_f1"].item() < 0.4 and figures["written_notes_f1"].item() < 0.4
    assert notes_figures(piano(*played), piano(*played), written=[written])["written_notes_f1"].item() > 0.7


def test_cdpam_embeds_a_second_each_two_and_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "conversion")
    embed = load_embedding("cdpam_embedding:embed")
    if importlib.util.find_spec("cdpam") is None:
        with pytest.raises(ValueError, match="pip install --no-deps cdpam"):
            embed(piano(60), 24000)
        return
    clip = torch.cat([piano(60, 64, 67, 72, 60, 64, 67, 72), 0.1 * piano(60, 64, 67, 72, 60, 64, 67, 72)])
    vectors = embed(clip, 24000)
    assert vectors.shape == (2 * 2, 512) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors[2:], embed(clip[1:], 24000), rtol=0.05, atol=0.05)


def test_a_file_of_weights_names_tensors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "conversion")
    read_weights = importlib.import_module("cdpam_embedding").read_weights
    numbers = torch.arange(12.0)
    saved = {"state": {"a": numbers.reshape(3, 4), "b": numbers[2:8:2], "c": torch.tensor([5, 6])}, "epoch": 3}
    torch.save(saved, tmp_path / "good.pth", _use_new_zipfile_serialization=False)
    read = read_weights(tmp_path / "good.pth")
    assert read["epoch"] == 3 and all(torch.equal(read["state"][name], saved["state"][name]) for name in "abc")
    torch.save({"state": Path("x")}, tmp_path / "bad.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(Exception, match="may not name pathlib"):
        read_weights(tmp_path / "bad.pth")
