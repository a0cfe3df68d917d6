"""Loaders of diffusers and transformers find our classes, on folders and on the Hub, whatever is imported first."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import diffusers
import pytest
import transformers
from diffusers.pipelines import auto_pipeline, pipeline_loading_utils
from huggingface_hub import HfApi
from transformers.models.auto import configuration_auto, modeling_auto

import melody_diffusers
from melody_diffusers import MeLoDyPipeline
from melody_diffusers.hf import hub
from melody_diffusers.hf.registry import CLASSES

GOLDEN_INDEX = {
    "_class_name": "MeLoDyPipeline",
    "_diffusers_version": diffusers.__version__,
    "dual_path": ["melody_diffusers", "DualPathDiffusionModel"],
    "mulan": ["melody_diffusers", "MuLanModel"],
    "mulan_quantizer": ["melody_diffusers", "ResidualQuantizer"],
    "sampling": None,
    "scheduler": ["melody_diffusers", "AngleScheduler"],
    "semantic_lm": ["melody_diffusers", "SemanticLM"],
    "semantic_tokenizer": ["melody_diffusers", "SemanticTokenizer"],
    "token_rate": 25,
    "tokenizer": ["transformers", "BertTokenizer"],
    "vae": ["melody_diffusers", "AudioVAEGAN"],
}

THEIR_IMPORTS = """
import diffusers
from diffusers import AutoPipelineForText2Audio, DiffusionPipeline
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
"""
LOAD_EVERYTHING = """
name = sys.argv[1]
pipe = DiffusionPipeline.from_pretrained(name)
assert type(pipe).__module__ == "melody_diffusers.pipelines.text_to_music", type(pipe)
assert type(AutoPipelineForText2Audio.from_pretrained(name)) is type(pipe)
for component in "vae", "mulan", "semantic_tokenizer", "semantic_lm":
    auto = AutoModelForCausalLM if component == "semantic_lm" else AutoModel
    config = AutoConfig.from_pretrained(name, subfolder=component)
    assert type(config).__module__.startswith("melody_diffusers.models."), config
    assert type(auto.from_pretrained(name, subfolder=component)) is type(pipe.components[component]), component
for component in "dual_path", "mulan_quantizer", "vae":
    assert type(diffusers.AutoModel.from_pretrained(name, subfolder=component)) is type(pipe.components[component])
"""


def run_script(code: str, *arguments: str, **environment: str) -> None:
    script = "import sys, warnings\nwarnings.simplefilter('error', RuntimeWarning)\n" + code
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr


def test_from_the_hub_after_a_plain_import_of_ours_before_theirs(hub_server, tiny_folder, tmp_path):
    """Then the same from the cache alone, in a process that is told to stay offline."""
    hub_server.add("alice/melody", tiny_folder)
    code = "import melody_diffusers\n" + THEIR_IMPORTS + LOAD_EVERYTHING
    hub_server.run(code, "alice/melody", cache=tmp_path)
    fetched = hub_server.downloads()
    assert "semantic_tokenizer/model.safetensors" in fetched and "model_index.json" in fetched
    hub_server.requests.clear()
    hub_server.run(code, "alice/melody", cache=tmp_path, HF_HUB_OFFLINE="1")
    assert hub_server.requests == []


def test_a_revision_is_a_commit_a_tag_or_a_branch(hub_server, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "pipeline")
    first = hub_server.add("alice/revised", folder)
    api = HfApi(endpoint=hub_server.endpoint, token="hf_alice")
    api.create_tag("alice/revised", tag="v1")
    api.create_branch("alice/revised", branch="old/one")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"sampling": {"top_k": 7}}))
    config = json.loads((folder / "dual_path/config.json").read_text())
    (folder / "dual_path/config.json").write_text(json.dumps(config | {"num_chunks": 5}))
    second = hub_server.add("alice/revised", folder)
    code = """
import melody_diffusers
from diffusers import AutoModel, DiffusionPipeline
from huggingface_hub.errors import RevisionNotFoundError
first, second = sys.argv[1:]
for revision in first, "v1", "old/one", second, "main":
    is_new = revision in (second, "main")
    pipe = DiffusionPipeline.from_pretrained("alice/revised", revision=revision)
    assert pipe.config.sampling == ({"top_k": 7} if is_new else None), revision
    model = AutoModel.from_pretrained("alice/revised", subfolder="dual_path", revision=revision)
    assert (model.config.num_chunks == 5) is (pipe.dual_path.config.num_chunks == 5) is is_new, revision
try:
    DiffusionPipeline.from_pretrained("alice/revised", revision="v9")
except OSError as error:
    assert isinstance(error.__cause__, RevisionNotFoundError) and "v9" in str(error.__cause__), error
else:
    raise AssertionError("a revision that is not there was loaded")
"""
    hub_server.run(code, first, second, cache=tmp_path / "cache")


def test_a_private_repository_opens_with_its_owners_token_only(hub_server, tiny_folder, tmp_path):
    hub_server.add("alice/secret", tiny_folder, private=True)
    code = """
import melody_diffusers
from diffusers import DiffusionPipeline
from transformers import AutoModel
for token in False, "hf_bob", "hf_of_nobody", "hf_alice":
    for loader, arguments in (DiffusionPipeline, {}), (AutoModel, {"subfolder": "vae"}):
        try:
            loader.from_pretrained("alice/secret", token=token, **arguments)
        except OSError as error:
            assert token != "hf_alice" and "alice/secret" in str(error), error
        else:
            assert token == "hf_alice", f"loaded with token {token}"
"""
    hub_server.run(code, cache=tmp_path)


def test_from_a_folder_after_a_plain_import_of_ours_after_theirs(tiny_folder):
    code = THEIR_IMPORTS + "import melody_diffusers\n" + LOAD_EVERYTHING
    run_script(code, tiny_folder, HF_HUB_OFFLINE="1")


def test_importing_one_of_our_files_registers_all_classes(tiny_folder):
    code = """
from melody_diffusers.models.semantic_lm import SemanticLM
import diffusers
from transformers import AutoModel, AutoModelForCausalLM
assert type(AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/semantic_lm")) is SemanticLM
assert type(AutoModel.from_pretrained(sys.argv[1] + "/vae")).__name__ == "AudioVAEGAN"
assert diffusers.MeLoDyPipeline.__module__ == "melody_diffusers.pipelines.text_to_music"
"""
    run_script(code, tiny_folder, HF_HUB_OFFLINE="1")


def test_model_index_names_the_package_and_no_path_within_it(tiny_folder):
    index = json.loads((Path(tiny_folder) / "model_index.json").read_text())
    assert index == GOLDEN_INDEX


def test_a_checkpoint_written_today_loads_and_is_written_the_same_again(tiny_folder, tmp_path):
    pipe = MeLoDyPipeline.from_pretrained(tiny_folder)
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index == GOLDEN_INDEX


def test_upstream_still_has_every_name_we_hold_on_to():
    """When this fails after an upgrade, hub.py needs a new way in; until then only a warning tells users."""
    assert pipeline_loading_utils.LOADABLE_CLASSES["melody_diffusers"] == {}
    assert "melody_diffusers" in pipeline_loading_utils.LOADABLE_CLASSES
    assert auto_pipeline.AUTO_TEXT2AUDIO_PIPELINES_MAPPING["melody"] is MeLoDyPipeline
    for name in [name for name, entry in CLASSES.items() if entry.library == "diffusers"]:
        assert getattr(diffusers, name) is getattr(melody_diffusers, name)
    for name, entry in CLASSES.items():
        if entry.library != "transformers":
            continue
        config_class, model_class = getattr(melody_diffusers, entry.config), getattr(melody_diffusers, name)
        assert config_class.model_type == entry.model_type
        assert configuration_auto.CONFIG_MAPPING[entry.model_type] is config_class
        table = getattr(modeling_auto, entry.auto_table)
        assert config_class in table and table[config_class] is model_class
    assert isinstance(modeling_auto.AutoModel._model_mapping, type(modeling_auto.MODEL_MAPPING))


def test_the_root_answers_for_every_base_class_the_loader_may_ask_for():
    for name, library in hub.BASE_CLASSES.items():
        assert getattr(melody_diffusers, name) is getattr(sys.modules[library], name)
    asked = set(pipeline_loading_utils.ALL_IMPORTABLE_CLASSES)
    others = {"OnnxRuntimeModel", "ORTModule", "BaseGuidance", "ImageProcessingMixin"}  # no class of ours is one
    assert asked - others == set(hub.BASE_CLASSES)


def test_our_subpackages_are_not_taken_for_pipelines_of_diffusers():
    for entry in CLASSES.values():
        assert not hasattr(diffusers.pipelines, entry.module.split(".")[1]), entry.module
    assert not hasattr(diffusers.pipelines, "melody_diffusers")


def test_registering_again_changes_nothing():
    attribute = vars(diffusers)["__getattr__"]
    finders, libraries = list(sys.meta_path), dict(pipeline_loading_utils.LOADABLE_CLASSES)
    hub.connect()
    assert sys.meta_path == finders
    assert pipeline_loading_utils.LOADABLE_CLASSES == libraries
    assert vars(diffusers)["__getattr__"] is attribute


def test_other_names_of_diffusers_are_still_found_or_refused():
    assert diffusers.DDIMScheduler.__name__ == "DDIMScheduler"
    with pytest.raises(AttributeError, match="MeLodyPipeline"):
        diffusers.MeLodyPipeline  # noqa: B018


def test_a_changed_upstream_is_a_warning_that_says_what_no_longer_works():
    renamed = type(sys)("diffusers.pipelines.pipeline_loading_utils")
    with pytest.warns(RuntimeWarning, match="could not register its classes with diffusers.pipelines.pipeline_load"):
        hub._try(hub.upstream.add_library, renamed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub._try(hub.upstream.add_library, pipeline_loading_utils)


def test_one_lost_name_of_upstream_is_a_loud_warning_and_the_rest_goes_on(tiny_folder):
    code = """
from diffusers import DiffusionPipeline
from diffusers.pipelines import auto_pipeline
del auto_pipeline.AUTO_TEXT2AUDIO_PIPELINES_MAPPING
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import melody_diffusers
(warning,) = [w for w in caught if w.category is RuntimeWarning]
assert "could not register its classes with diffusers.pipelines.auto_pipeline" in str(warning.message)
assert type(DiffusionPipeline.from_pretrained(sys.argv[1])) is melody_diffusers.MeLoDyPipeline
"""
    run_script(code, tiny_folder, HF_HUB_OFFLINE="1")


def test_a_class_that_the_table_lacks_is_not_found_in_transformers():
    with pytest.raises(ValueError, match="melody_nothing"):
        transformers.AutoConfig.for_model("melody_nothing")
