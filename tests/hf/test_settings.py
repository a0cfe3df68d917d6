"""A setting that is given when a pipeline is loaded changes that setting, and no other."""

import json
import shutil

import diffusers
import pytest
import torch

from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyPipeline

STORED = {"num_inference_steps": 10, "lm_guidance_scale": 5.0}
LOADERS = [MeLoDyPipeline, diffusers.DiffusionPipeline, diffusers.AutoPipelineForText2Audio]


@pytest.fixture(scope="module")
def folder(tiny_pipeline, tmp_path_factory) -> str:
    """A pipeline whose checkpoint has sampling defaults of its own, and 25 tokens a second."""
    folder = str(tmp_path_factory.mktemp("settings") / "pipeline")
    MeLoDyPipeline(**tiny_pipeline.components, sampling=STORED).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("loader", LOADERS)
def test_fewer_steps_leave_the_guidance_of_the_checkpoint_as_it_is(folder, loader, tmp_path):
    pipe = loader.from_pretrained(folder, sampling={"num_inference_steps": 20})
    assert pipe.config.sampling == {"num_inference_steps": 20, "lm_guidance_scale": 5.0}
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["sampling"] == pipe.config.sampling
    assert "stored_sampling" not in pipe.config


@pytest.mark.parametrize("options", [{}, {"dtype": torch.float32}], ids=["as they are", "dtype"])
@pytest.mark.parametrize("cls", [MeLoDyPipeline, MeLoDyInpaintPipeline])
def test_a_pipeline_made_from_another_keeps_the_settings_that_are_not_given(folder, cls, options):
    pipe = MeLoDyPipeline.from_pretrained(folder)
    other = cls.from_pipe(pipe, sampling={"top_k": 7}, **options)
    assert other.config.sampling == {**STORED, "top_k": 7} and other.config.token_rate == 25
    assert cls.from_pipe(pipe, **options).config.sampling == STORED == pipe.config.sampling


def test_none_takes_one_setting_or_all_of_them_back_to_the_library(folder):
    load = MeLoDyPipeline.from_pretrained
    assert load(folder, sampling={"lm_guidance_scale": None}).config.sampling == {"num_inference_steps": 10}
    assert load(folder, sampling=None).config.sampling is None
    assert load(folder, sampling={}).config.sampling == STORED


def test_another_token_rate_leaves_the_sampling_as_it_is(folder):
    pipe = MeLoDyPipeline.from_pretrained(folder, token_rate=50)
    assert pipe.config.token_rate == 50 and pipe.config.sampling == STORED


def test_a_folder_cannot_say_what_its_own_settings_are_laid_over(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "pipeline")
    index = tmp_path / "pipeline/model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"stored_sampling": {"top_k": 3}}))
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "pipeline", sampling={"top_p": 0.5})
    assert pipe.config.sampling == {"top_p": 0.5}
