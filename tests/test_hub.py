"""Loaders of diffusers and transformers find our classes, on folders and on the Hub, whatever is imported first."""

import json
import os
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import diffusers
import pytest
import transformers
from diffusers.pipelines import auto_pipeline, pipeline_loading_utils
from transformers.models.auto import configuration_auto, modeling_auto

import melody_diffusers
from melody_diffusers import MeLoDyPipeline, hub

REPOSITORY = "someone/melody"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

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

LOAD_EVERYTHING = """
folder, name = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(name)
assert type(pipe).__module__ == "melody_diffusers.pipelines.text_to_music", type(pipe)
assert type(AutoPipelineForText2Audio.from_pretrained(name)) is type(pipe)
assert type(diffusers.AutoModel.from_pretrained(folder, subfolder="dual_path")).__name__ == "DualPathDiffusionModel"
for component in "vae", "mulan", "semantic_tokenizer", "semantic_lm":
    auto = AutoModelForCausalLM if component == "semantic_lm" else AutoModel
    assert type(AutoConfig.from_pretrained(f"{folder}/{component}")).__module__.startswith("melody_diffusers.models.")
    assert type(auto.from_pretrained(f"{folder}/{component}")) is type(pipe.components[component]), component
"""
THEIR_IMPORTS = """
import diffusers
from diffusers import AutoPipelineForText2Audio, DiffusionPipeline
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
"""


def run_script(code: str, *arguments: str, **environment: str) -> None:
    script = "import sys, warnings\nwarnings.simplefilter('error', RuntimeWarning)\n" + code
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def hub_server(tiny_folder):
    """A Hub on this machine that holds the tiny pipeline as someone/melody; gives its address and what was asked."""
    files = {str(f.relative_to(tiny_folder)): f.read_bytes() for f in Path(tiny_folder).rglob("*") if f.is_file()}
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/{REPOSITORY}/resolve/"):
                name = path.split("/", 5)[-1]
                self.reply(files.get(name), "application/octet-stream", name)
            elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                tree = [{"type": "file", "path": n, "size": len(b), "oid": COMMIT} for n, b in files.items()]
                self.reply(json.dumps(tree).encode(), "application/json")
            elif path.startswith(f"/api/models/{REPOSITORY}"):
                siblings = [{"rfilename": name} for name in files]
                info = {"_id": COMMIT, "id": REPOSITORY, "sha": COMMIT, "private": False, "siblings": siblings}
                self.reply(json.dumps(info).encode(), "application/json")
            else:
                self.reply(None, "text/plain")

        do_HEAD = do_GET

        def reply(self, body: bytes | None, kind: str, name: str | None = None) -> None:
            self.send_response(404 if body is None else 200)
            body = body or b""
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            if name is not None:
                self.send_header("ETag", f'"{abs(hash(name)):x}"')
                asked.append((self.command, name))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_from_the_hub_after_a_plain_import_of_ours_before_theirs(hub_server, tiny_folder, tmp_path):
    endpoint, asked = hub_server
    code = "import melody_diffusers\n" + THEIR_IMPORTS + LOAD_EVERYTHING
    offline = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    run_script(code, tiny_folder, REPOSITORY, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path), **offline)
    fetched = {name for command, name in asked if command == "GET"}
    assert "semantic_tokenizer/model.safetensors" in fetched and "model_index.json" in fetched


def test_from_a_folder_after_a_plain_import_of_ours_after_theirs(tiny_folder):
    code = THEIR_IMPORTS + "import melody_diffusers\n" + LOAD_EVERYTHING
    run_script(code, tiny_folder, tiny_folder, HF_HUB_OFFLINE="1")


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
    assert {k: v for k, v in index.items() if k != "_name_or_path"} == GOLDEN_INDEX


def test_upstream_still_has_every_name_we_hold_on_to():
    """When this fails after an upgrade, hub.py needs a new way in; until then only a warning tells users."""
    assert pipeline_loading_utils.LOADABLE_CLASSES["melody_diffusers"] == {}
    assert "melody_diffusers" in pipeline_loading_utils.LOADABLE_CLASSES
    assert auto_pipeline.AUTO_TEXT2AUDIO_PIPELINES_MAPPING["melody"] is MeLoDyPipeline
    for name in hub.DIFFUSERS_CLASSES:
        assert getattr(diffusers, name) is getattr(melody_diffusers, name)
    for model_type, (config_name, model_name, table_name) in hub.AUTO_MODELS.items():
        config_class, model_class = getattr(melody_diffusers, config_name), getattr(melody_diffusers, model_name)
        assert config_class.model_type == model_type
        assert configuration_auto.CONFIG_MAPPING[model_type] is config_class
        table = getattr(modeling_auto, table_name)
        assert config_class in table and table[config_class] is model_class
    assert isinstance(modeling_auto.AutoModel._model_mapping, type(modeling_auto.MODEL_MAPPING))


def test_the_root_answers_for_every_base_class_the_loader_may_ask_for():
    for name, library in hub.BASE_CLASSES.items():
        assert getattr(melody_diffusers, name) is getattr(sys.modules[library], name)
    asked = set(pipeline_loading_utils.ALL_IMPORTABLE_CLASSES)
    others = {"OnnxRuntimeModel", "ORTModule", "BaseGuidance", "ImageProcessingMixin"}  # no class of ours is one
    assert asked - others == set(hub.BASE_CLASSES)


def test_our_subpackages_are_not_taken_for_pipelines_of_diffusers():
    for module in melody_diffusers._MODULES.values():
        assert not hasattr(diffusers.pipelines, module.split(".")[1]), module
    assert not hasattr(diffusers.pipelines, "melody_diffusers")


def test_registering_again_changes_nothing():
    attribute = vars(diffusers)["__getattr__"]
    finders, libraries = list(sys.meta_path), dict(pipeline_loading_utils.LOADABLE_CLASSES)
    hub.register()
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
        hub._try(hub._add_library, renamed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hub._try(hub._add_library, pipeline_loading_utils)


def test_a_class_that_the_table_lacks_is_not_found_in_transformers():
    with pytest.raises(ValueError, match="melody_nothing"):
        transformers.AutoConfig.for_model("melody_nothing")
