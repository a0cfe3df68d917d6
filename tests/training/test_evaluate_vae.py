"""A VAE on its own, judged on recordings; and the notes of composed pieces, window by window."""

import json
import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from melody_diffusers.audio import save_audio
from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig

TRAINING = Path(__file__).parents[2] / "training"


def test_a_vae_is_judged_on_a_folder_of_recordings(tmp_path: Path, monkeypatch, capsys) -> None:
    torch.manual_seed(0)
    config = AudioVAEGANConfig(
        head="magnitude", istft_width=8, istft_encoder_layers=1, istft_decoder_layers=1, latent_dim=4
    )
    AudioVAEGAN(config).save_pretrained(tmp_path / "pipeline" / "vae")
    (tmp_path / "songs").mkdir()
    for i in range(2):
        save_audio(tmp_path / "songs" / f"{i}.wav", 0.1 * torch.randn(1, 60000), 24000)
    arguments = ["--vae", tmp_path / "pipeline", "--data", tmp_path / "songs", "--seconds", 1, "--clips", 3, "--quick"]
    monkeypatch.setattr(sys, "argv", ["evaluate_vae.py", *map(str, arguments), "--out", str(tmp_path / "out.json")])
    runpy.run_path(str(TRAINING / "evaluate_vae.py"), run_name="__main__")
    report = json.loads((tmp_path / "out.json").read_text())
    names = ["through the VAE", "Griffin-Lim on the decoded magnitudes", "Griffin-Lim on true magnitudes"]
    assert list(report["rows"]) == names and report["clips"] == 3
    assert report["rows"][names[0]] == report["rows"][names[1]]
    assert report["rows"][names[2]]["log_mel_db"] < 2 < report["rows"][names[0]]["log_mel_db"]
    out = capsys.readouterr().out
    assert "3 clips of 1 s" in out and all(f"| {name} | " in out for name in names)


def test_written_notes_are_those_of_the_composer(monkeypatch) -> None:
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(TRAINING / "synthetic"))
    from compose import compose
    from score import written_notes

    row = asdict(compose("waltz", 3, 20.0).tags)
    notes = written_notes(row, 20.0)
    assert notes.shape[1] == 3 and len(notes) > 40 and (np.diff(notes[:, 0]) >= 0).all()
    assert (notes[:, 1] > notes[:, 0]).all() and notes[:, 0].max() > 15
    assert ((notes[:, 2] >= 21) & (notes[:, 2] <= 108)).all()
    assert written_notes({**row, "bpm": row["bpm"] + 1}, 20.0) is None  # a row of another composer


def test_recordings_are_twenty_and_their_files_have_names_of_their_own() -> None:
    excerpts = runpy.run_path(str(TRAINING / "real_recordings.py"))["EXCERPTS"]
    assert len({(excerpt.package, Path(excerpt.path).stem) for excerpt in excerpts}) == len(excerpts) == 20
    assert all(excerpt.licence and excerpt.author for excerpt in excerpts)
