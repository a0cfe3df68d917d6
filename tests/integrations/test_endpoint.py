"""The handler as Hugging Face's toolkit loads and asks it: by its file within the repository, with JSON in and out."""

import base64
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from melody_diffusers import MeLoDyInputError, MeLoDyPipeline, MusicPlan
from melody_diffusers.audio import load_audio
from melody_diffusers.devices import default_device, fast_dtypes
from melody_diffusers.pipelines.plan import render_plan

HANDLER = Path(__file__).parents[2] / "integrations" / "endpoint" / "handler.py"


@pytest.fixture(scope="module")
def handler(tiny_folder, tmp_path_factory):
    """The repository of an endpoint: a pipeline with the handler and a requirements.txt beside it."""
    repository = tmp_path_factory.mktemp("endpoint") / "repository"
    shutil.copytree(tiny_folder, repository)
    shutil.copy(HANDLER, repository)
    (repository / "requirements.txt").write_text("/repository/melody_diffusers-0.1.0-py3-none-any.whl\n")
    spec = importlib.util.spec_from_file_location("handler", repository / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.EndpointHandler(str(repository))
    sys.modules.pop("handler", None)


def ask(handler, body: dict) -> list[dict]:
    return json.loads(json.dumps(handler(json.loads(json.dumps(body)))))


def samples_of(answer: dict) -> torch.Tensor:
    return load_audio(io.BytesIO(base64.b64decode(answer["audio"])), answer["sampling_rate"])


def test_a_text_becomes_a_sound_file_with_its_plan(handler, tmp_path):
    parameters = {"audio_duration": 2.5, "seed": 7, "num_inference_steps": 2}
    (answer,) = ask(handler, {"inputs": "a waltz", "parameters": parameters})
    assert (answer["format"], answer["sampling_rate"], answer["seed"]) == ("wav", 24000, 7)
    samples = samples_of(answer)
    assert samples.shape == (1, 60000) and samples.abs().max() > 0
    (tmp_path / "music.wav").write_bytes(base64.b64decode(answer["audio"]))
    plan = MusicPlan.load(tmp_path / "music.wav")
    again = torch.from_numpy(render_plan(handler.pipe, plan).audios[0])
    assert (again - samples).abs().max() < 2 / 32768  # of 16 bits


def test_it_makes_what_the_pipeline_makes(handler, tiny_folder):
    parameters = {"audio_duration": 2.5, "num_inference_steps": 2, "lm_guidance_scale": 3, "negative_prompt": "techno"}
    (answer,) = ask(handler, {"inputs": "a waltz", "parameters": {**parameters, "seed": 3}})
    pipe = MeLoDyPipeline.from_pretrained(tiny_folder, dtype=fast_dtypes(default_device())).to(default_device())
    alone = pipe("a waltz", **parameters, generator=torch.Generator().manual_seed(3), output_type="pt").audios[0]
    assert (samples_of(answer) - alone.cpu()).abs().max() < 2 / 32768


def test_each_text_gets_a_file_of_its_own(handler, tmp_path):
    texts = ["a waltz", "rock"]
    answers = ask(handler, {"inputs": texts, "parameters": {"audio_duration": 1.0, "num_inference_steps": 1}})
    for text, answer in zip(texts, answers):
        (tmp_path / "music.wav").write_bytes(base64.b64decode(answer["audio"]))
        assert MusicPlan.load(tmp_path / "music.wav").prompt == text


@pytest.mark.parametrize(("file_format", "container"), [("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3")])
def test_formats(handler, file_format, container):
    parameters = {"audio_duration": 1.0, "num_inference_steps": 1, "response_format": file_format}
    (answer,) = ask(handler, {"inputs": "rock", "parameters": parameters})
    assert soundfile.info(io.BytesIO(base64.b64decode(answer["audio"]))).format == container


def test_a_loop_and_any_seed(handler):
    parameters = {"loop": True, "bars": 1, "bpm": 120, "num_inference_steps": 1}
    first, second = (ask(handler, {"inputs": "rock", "parameters": parameters})[0] for _ in range(2))
    assert samples_of(first).shape == (1, 48000)
    assert first["seed"] != second["seed"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "`inputs` must be a text, or a list of 1 to 8 texts; got NoneType"),
        ({"inputs": []}, "got 0 of them"),
        ({"inputs": ["rock"] * 9}, "got 9 of them"),
        ({"inputs": {"text": "rock"}}, "got dict"),
        ({"inputs": [1]}, "prompt"),
        ({"inputs": ""}, "prompt"),
        ({"inputs": "rock", "parameters": []}, "`parameters` must be an object .* got 0 of them"),
        ({"inputs": "rock", "parameters": {"audio_prompt": "/etc/passwd"}}, "`parameters` must .* got audio_prompt"),
        ({"inputs": "rock", "parameters": {"response_format": "exe"}}, "`response_format` must be one of wav"),
        ({"inputs": "rock", "parameters": {"seed": -1}}, "`seed` must be a whole number from 0"),
        ({"inputs": "rock", "parameters": {"seed": True}}, "`seed` must be a whole number from 0"),
        ({"inputs": "rock", "parameters": {"audio_duration": 301}}, "at most 300 seconds here; got 301"),
        ({"inputs": "rock", "parameters": {"audio_duration": "long"}}, "audio_duration"),
        ({"inputs": "rock", "parameters": {"num_inference_steps": 0}}, "num_inference_steps"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_runs(handler, body, said, monkeypatch):
    monkeypatch.setattr(handler.pipe, "generate_semantic_tokens", lambda *_, **__: pytest.fail("a model ran"))
    with pytest.raises(ValueError, match=said) as raised:
        handler(body)
    assert type(raised.value) in (ValueError, MeLoDyInputError)
