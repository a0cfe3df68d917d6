"""Assembly replaces a pipeline that it finds, and nothing else."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from melody_diffusers import DualPathDiffusionModel, MeLoDyPipeline

SCRIPT = Path(__file__).parents[2] / "training" / "assemble_pipeline.py"
STAGES = {"vae": "vae_gan"} | {
    name: name for name in ("mulan", "mulan_quantizer", "semantic_tokenizer", "semantic_lm", "dual_path")
}


@pytest.fixture(scope="module")
def stages(tiny_folder, tmp_path_factory) -> Path:
    """The folders of the stages, from a pipeline."""
    folder = tmp_path_factory.mktemp("stages")
    for part, stage in STAGES.items():
        shutil.copytree(Path(tiny_folder, part), folder / stage)
    shutil.copytree(Path(tiny_folder, "tokenizer"), folder / "mulan" / "tokenizer")
    return folder


def assemble(monkeypatch, stages: Path, out: Path, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["assemble_pipeline.py", "--stages", str(stages), "--out", str(out), *options])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_a_pipeline_is_replaced_and_keeps_its_card(stages, tmp_path, monkeypatch):
    out = tmp_path / "models" / "mine"
    assemble(monkeypatch, stages, out)
    (out / "README.md").write_text("my words")
    (out / "dual_path" / "left.safetensors").write_text("of an older version")
    assemble(monkeypatch, stages, out, "--steps", "3")
    assert (out / "README.md").read_text() == "my words" and not (out / "dual_path" / "left.safetensors").exists()
    assert MeLoDyPipeline.from_pretrained(out).config.sampling["num_inference_steps"] == 3
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def test_the_teacher_of_a_distilled_model_stays_beside_it(stages, tmp_path, monkeypatch):
    teacher = DualPathDiffusionModel.from_pretrained(stages / "dual_path")
    student = DualPathDiffusionModel.from_pretrained(stages / "dual_path")
    with torch.no_grad():
        student.proj_out.weight.mul_(-1)
    student.save_pretrained(tmp_path / "student")
    assemble(monkeypatch, stages, tmp_path / "mine", "--distilled", str(tmp_path / "student"))
    for expected, variant in ((student, None), (teacher, "teacher")):
        found = DualPathDiffusionModel.from_pretrained(tmp_path / "mine", subfolder="dual_path", variant=variant)
        assert torch.equal(found.proj_out.weight, expected.proj_out.weight.half().float())


@pytest.mark.parametrize("foreign", ["songs/one.wav", "notes.txt"])
@pytest.mark.parametrize("is_pipeline", [True, False])
def test_what_is_no_pipeline_is_refused(stages, tiny_folder, tmp_path, monkeypatch, capsys, foreign, is_pipeline):
    if is_pipeline:
        shutil.copytree(tiny_folder, tmp_path / "out")
    (tmp_path / "out" / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / foreign).write_text("mine")
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(SystemExit):
        assemble(monkeypatch, stages, tmp_path / "out")
    assert f"holds {Path(foreign).parts[0]}" in capsys.readouterr().err
    assert {path for path in tmp_path.rglob("*")} == before


def test_a_folder_beside_it_is_left_alone(stages, tmp_path, monkeypatch):
    for name in ("mine.tmp", "mine.old"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine").mkdir()  # empty, and so no loss
    assemble(monkeypatch, stages, tmp_path / "mine")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "mine.tmp", "mine.old"}
