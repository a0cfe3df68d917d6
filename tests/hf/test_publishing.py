"""What is pushed can be loaded by its name: the same music, a card that says how, and no path of this machine."""

import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import ModelCard
from transformers import Wav2Vec2ConformerConfig

import melody_diffusers
from melody_diffusers import (
    MeLoDyInpaintPipeline,
    MeLoDyPipeline,
    SemanticTokenizerConfig,
)
from melody_diffusers.hf.publishing import METRICS, model_card

DOCS = Path(__file__).parents[2] / "docs/loading.md"
COMPONENTS = {  # name -> loader of their own library
    "vae": "AutoModel",
    "mulan": "AutoModel",
    "semantic_tokenizer": "AutoModel",
    "semantic_lm": "AutoModelForCausalLM",
    "dual_path": "diffusers.AutoModel",
    "mulan_quantizer": "diffusers.AutoModel",
    "scheduler": "melody_diffusers.AngleScheduler",
}
PUSH = """
import melody_diffusers
from huggingface_hub.errors import HfHubHTTPError
tiny_folder, here = sys.argv[1:3]
pipe = melody_diffusers.MeLoDyPipeline.from_pretrained(melody_diffusers.MELODY_TINY)
commit = pipe.push_to_hub("melody-tiny", private=True)
assert commit.oid and commit.commit_message == "Upload MeLoDyPipeline", commit

import torch
from peft import LoraConfig
torch.manual_seed(0)
for model, target in (pipe.dual_path, "to_q"), (pipe.semantic_lm, "q_proj"):
    model.add_adapter(LoraConfig(r=4, target_modules=[target]))
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
pipe.save_lora_weights(here + "/style", push_to_hub=True, repo_id="alice/melody-style", private=True)

pipe = melody_diffusers.MeLoDyPipeline.from_pretrained(tiny_folder)
pipe.save_pretrained(here + "/saved", push_to_hub=True)
pipe.save_pretrained(here + "/card", push_to_hub=True, repo_id="alice/with-card", commit_message="Mine")
pipe.push_to_hub("alice/with-card")
pipe.push_to_hub("alice/branches", revision="half", variant="half")
pipe.vae.save_pretrained(here + "/codec", push_to_hub=True, private=True)
pipe.dual_path.save_pretrained(here + "/renderer", push_to_hub=True)
for name in sys.argv[3:]:
    getattr(pipe, name).push_to_hub(f"alice/{name}", tags=["part"])
    getattr(pipe, name).push_to_hub("alice/parts", subfolder=name)
for token in "hf_bob", False:
    try:
        pipe.push_to_hub("alice/taken", token=token)
    except HfHubHTTPError as error:
        assert error.response.status_code in (401, 403), error
    else:
        raise AssertionError(f"pushed with token {token}")
pipe.push_to_hub("bob/melody", token="hf_bob")
pipe.register_to_config(sampling={"top_k": 7})
proposal = pipe.push_to_hub("bob/melody", create_pr=True)
assert proposal.pr_url.endswith("bob/melody/discussions/1"), proposal
"""
LOAD = """
import torch
import melody_diffusers, diffusers
from diffusers import DiffusionPipeline
from transformers import AutoModel, AutoModelForCausalLM
pipe = DiffusionPipeline.from_pretrained("alice/saved")
for name, loader in (pair.split("=") for pair in sys.argv[1:]):
    for source, arguments in (f"alice/{name}", {}), ("alice/parts", {"subfolder": name}):
        part, own = eval(loader).from_pretrained(source, **arguments), getattr(pipe, name)
        assert type(part) is type(own), name
        if hasattr(own, "state_dict"):
            weights, others = own.state_dict(), part.state_dict()
            assert weights.keys() == others.keys(), name
            assert all(torch.equal(weights[key], others[key]) for key in weights), name
DiffusionPipeline.from_pretrained("alice/branches", revision="half", variant="half")
"""
PLAY = """
import torch
import melody_diffusers
from diffusers import DiffusionPipeline
torch.set_num_threads(int(sys.argv[2]))
generator = torch.Generator().manual_seed(7)
pipe = DiffusionPipeline.from_pretrained("alice/melody-tiny")
if len(sys.argv) > 3:
    pipe.load_lora_weights(sys.argv[3])
output = pipe(PROMPT, audio_duration=2.0, num_inference_steps=2, generator=generator, output_type="pt")
assert torch.equal(output.audios, torch.load(sys.argv[1]))
"""
PROMPT = "a slow solo piano piece"
REPORT = {  # what `melody evaluate` writes, without what no card needs
    "settings": {"model": "/home/me/outputs/melody-tiny", "data": "/home/me/data/synthetic", "seed": 0},
    "rows": {
        "generated": {
            "style": {"share": 0.74375, "clips": 160},
            "family": {"share": 0.56, "clips": 100},
            "tempo": {"share": 0.36, "exact": 0.3, "shuffled": 0.26, "clips": 64},
            "mcc": {"matched": 0.5, "shuffled": 0.1, "margin": 0.4},
            "frechet": {"log_mel": 5.5, "mulan": math.nan},
        }
    },
    "reconstruction": {"si_sdr_db": -20.5, "log_mel_db": 4.25, "clips": 112},
    "speed": {"real_time_factor": 7.4},
}


@pytest.fixture(scope="module")
def published(hub_server, tiny_folder, tmp_path_factory):
    """The Hub after everything was pushed, and the folder it was pushed from."""
    here = tmp_path_factory.mktemp("published")
    (here / "card").mkdir()
    (here / "card/README.md").write_text("---\nlicense: mit\n---\n\n# mine\n")
    (here / "card/waltz.wav").write_bytes(b"RIFF")
    hub_server.run(PUSH, tiny_folder, str(here), *COMPONENTS, cache=here / "cache", token="hf_alice")
    return hub_server, here


def card_of(hub, repo_id: str) -> ModelCard:
    return ModelCard(hub.files(repo_id)["README.md"].decode())


def code_of(card: ModelCard) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    return code


@pytest.mark.timeout(600)  # the fixture counts, too
@pytest.mark.parametrize("adapter", [[], ["alice/melody-style"]], ids=["base", "adapter"])
def test_melody_tiny_and_an_adapter_by_name_in_a_new_process_play_the_same_bits(published, adapter):
    hub, here = published
    pipe = MeLoDyPipeline.from_pretrained(melody_diffusers.MELODY_TINY)
    for _ in adapter:
        pipe.load_lora_weights(here / "style")
    generator = torch.Generator().manual_seed(7)
    output = pipe(PROMPT, audio_duration=2.0, num_inference_steps=2, generator=generator, output_type="pt")
    torch.save(output.audios, here / "audio.pt")
    code, threads = PLAY.replace("PROMPT", repr(PROMPT)), str(torch.get_num_threads())
    hub.run(code, str(here / "audio.pt"), threads, *adapter, cache=here / "another cache", token="hf_alice")


def test_a_pushed_adapter_is_one_file_and_a_card_that_loads_it(published):
    hub, here = published
    files = hub.files("alice/melody-style")
    assert set(files) == {".gitattributes", "README.md", "pytorch_lora_weights.safetensors"}
    assert hub.repositories["alice/melody-style"].private
    card = card_of(hub, "alice/melody-style")
    assert "lora" in card.data.tags and card.data.pipeline_tag == "text-to-audio"
    code = (
        code_of(card)
        .replace("music.wav", str(here / "music.wav"))
        .replace("output = pipe(", "output = pipe(audio_duration=1.0, prompt=")
    )
    hub.run(code, cache=here / "another cache", token="hf_alice")


def test_all_that_was_pushed_loads_by_name_and_so_says_the_card(published):
    hub, here = published
    code = code_of(card_of(hub, "alice/saved")).replace("music.wav", str(here / "music.wav"))
    assert code.startswith("import melody_diffusers") and 'from_pretrained("alice/saved")' in code
    arguments = [f"{name}={loader}" for name, loader in COMPONENTS.items()]
    hub.run(LOAD + code, *arguments, cache=here / "new cache")
    assert (here / "music.wav").stat().st_size > 44


def test_a_pushed_pipeline_has_a_card_and_no_code_of_its_own(published):
    hub, _ = published
    files = hub.files("alice/saved")
    assert not any(path.endswith((".py", ".bin", ".pt")) for path in files)
    card = card_of(hub, "alice/saved").data
    assert (card.library_name, card.pipeline_tag) == ("melody-diffusers", "text-to-audio")
    assert {"music", "text-to-music"} <= set(card.tags) and "diffusers" not in card.tags
    assert card.license is None  # nobody said
    assert "alice/taken" not in hub.repositories  # neither a stranger nor nobody could make it
    assert hub.repositories["alice/melody-tiny"].private and not hub.repositories["alice/saved"].private
    proposed, kept = (json.loads(hub.files("bob/melody", ref)["model_index.json"]) for ref in ("refs/pr/1", "main"))
    assert proposed["sampling"] == {"top_k": 7} and kept["sampling"] is None


def test_a_component_pushed_alone_has_a_card_with_the_code_that_loads_it(published):
    hub, _ = published
    for name in COMPONENTS:
        card = card_of(hub, f"alice/{name}")
        assert card.data.pipeline_tag is None and card.data.tags == ["music", "melody", "part"]
        assert f'.from_pretrained("alice/{name}")' in code_of(card)
    for name, repo_id in ("AudioVAEGAN", "alice/codec"), ("DualPathDiffusionModel", "alice/renderer"):
        assert f'{name}.from_pretrained("{repo_id}")' in code_of(card_of(hub, repo_id))
    assert hub.repositories["alice/codec"].private
    assert {path.split("/")[0] for path in hub.files("alice/parts")} == {".gitattributes", *COMPONENTS}


def test_the_card_in_the_folder_or_the_repository_is_kept(published):
    hub, here = published
    mine = (here / "card/README.md").read_text()
    assert hub.files("alice/with-card")["README.md"].decode() == mine  # after a second push, too
    assert hub.files("alice/with-card")["waltz.wav"] == b"RIFF"
    first = list(hub.repositories["alice/with-card"].commits.values())[1]
    assert first["README.md"].decode() == mine and "model_index.json" in first


def test_a_branch_gets_the_variant_and_the_main_one_stays_empty(published):
    hub, _ = published
    assert list(hub.files("alice/branches")) == [".gitattributes"]
    weights = [path for path in hub.files("alice/branches", "half") if path.endswith(".safetensors")]
    assert len(weights) == 6 and all(".half." in path for path in weights)


def test_nothing_published_or_saved_names_a_path_of_this_machine(published, tiny_folder):
    hub, here = published
    secrets = [str(here), str(Path(tiny_folder).parent), os.path.expanduser("~"), melody_diffusers.MELODY_TINY]
    published = {f"{name}/{path}": content for name in hub.repositories for path, content in hub.files(name).items()}
    texts = {path: content.decode() for path, content in published.items() if path.endswith((".json", ".md"))}
    assert len(texts) > 50
    for path, text in texts.items():
        assert "_name_or_path" not in text, path
        assert not [secret for secret in secrets if secret in text], path


def test_a_config_taken_over_from_another_checkpoint_leaves_its_path_behind(tmp_path):
    Wav2Vec2ConformerConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1).save_pretrained(tmp_path / "w")
    encoder = Wav2Vec2ConformerConfig.from_pretrained(tmp_path / "w")
    encoder._name_or_path = str(tmp_path / "w")
    SemanticTokenizerConfig(encoder_config=encoder.to_dict(), feature_layer=1).save_pretrained(tmp_path / "s")
    assert str(tmp_path) not in (tmp_path / "s" / "config.json").read_text()


def test_metrics_examples_and_the_authors_words_go_into_the_card(tiny_pipeline, tmp_path):
    text = "---\nlicense: mit\ndatasets:\n- me/loops\ntags:\n- techno\n---\n\n# Loops\n\nMade from my loops.\n"
    examples = {"audio/waltz.wav": "a slow waltz", "audio/rock.wav": "fast rock"}
    model_card(tiny_pipeline, "me/loops-model", text=text, report=REPORT, examples=examples).save(
        tmp_path / "README.md"
    )
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit" and card.data.datasets == ["me/loops"]
    assert card.data.tags == ["techno", "music", "melody", "text-to-music"]
    assert card.text.startswith("\n# Loops\n\nMade from my loops.\n")
    assert '<audio controls src="https://huggingface.co/me/loops-model/resolve/main/audio/waltz.wav">' in card.text
    assert card.data.widget[1] == {"text": "fast rock", "output": {"url": "audio/rock.wav"}}
    results = {result.metric_name: result for result in card.data.eval_results}
    assert len(results) == len(METRICS) - 1  # a figure that isn't finite is left out
    style = results["style recognised"]
    assert (style.metric_value, style.metric_type, style.task_type) == (0.7438, "accuracy", "text-to-audio")
    assert (style.dataset_name, style.dataset_split, card.data.model_name) == ("synthetic", "test", "loops-model")
    assert "/home/me" not in card.content


def test_a_card_names_the_repository_that_the_model_was_made_from(tiny_components):
    pipe = MeLoDyPipeline(**tiny_components)
    pipe.register_to_config(_name_or_path="alice/base")
    card = model_card(pipe, "me/tuned")
    assert card.data.base_model == "alice/base" and "[alice/base]" in card.text
    assert model_card(pipe, "alice/base").data.base_model is None
    pipe.register_to_config(_name_or_path="/home/me/base")
    card = model_card(pipe, "me/tuned")
    assert card.data.base_model is None and "/home/me" not in card.content


@pytest.mark.parametrize(
    "base, source",
    [
        ("alice/base", '"alice/base"'),
        (melody_diffusers.MELODY_TINY, "melody_diffusers.MELODY_TINY"),
        ("/home/me/base", '"the pipeline it was trained on"'),
    ],
)
def test_the_card_of_an_adapter_loads_it_onto_its_base(tiny_components, base, source):
    pipe = MeLoDyPipeline(**tiny_components)
    pipe.register_to_config(_name_or_path=base)
    card = model_card(pipe, "me/style", adapter=True)
    assert f'from_pretrained({source})\npipe.load_lora_weights("me/style")' in code_of(card)
    assert "lora" in card.data.tags and "/home/me" not in card.content
    assert getattr(card.data, "base_model_relation", None) == ("adapter" if base == "alice/base" else None)


def test_the_card_of_an_inpainting_pipeline_calls_it_as_one(tiny_pipeline, tmp_path):
    pipe = MeLoDyInpaintPipeline.from_pipe(tiny_pipeline)
    code = code_of(model_card(pipe, "me/inpaint"))
    assert 'pipe("recording.wav", regions=[(3.0, 4.5)]' in code and "output.sampling_rate)" in code
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "MeLoDyInpaintPipeline"
    assert type(MeLoDyPipeline.from_pretrained(tmp_path)) is MeLoDyPipeline


def test_from_pipe_keeps_precision_and_config_and_components_build_the_same_pipeline(tiny_components):
    pipe = MeLoDyPipeline(**tiny_components, token_rate=25, sampling={"top_k": 7})
    pipe.dual_path.to(torch.bfloat16)
    other = MeLoDyInpaintPipeline.from_pipe(pipe)
    assert other.dual_path is pipe.dual_path and other.dual_path.dtype == torch.bfloat16
    assert other.vae.dtype == torch.float32 and other.config.sampling == {"top_k": 7}
    assert MeLoDyPipeline.from_pipe(other, sampling=None).config.sampling is None
    assert MeLoDyPipeline.from_pipe(other, semantic_tokenizer=None).components["semantic_tokenizer"] is None
    again = MeLoDyPipeline(**other.components)
    assert again.components == pipe.components and again.components.keys() == tiny_components.keys()
    assert MeLoDyPipeline.from_pipe(pipe, torch_dtype=torch.float16).vae.dtype == torch.float16


@pytest.mark.timeout(600)
def test_the_blocks_about_the_hub_in_the_docs_run_in_order(tmp_path):
    blocks = re.findall(r"^```python hub\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    report = tmp_path / "outputs/evaluation/report.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps(REPORT))
    with HubServer({"hf_me": "me"}) as hub:
        hub.run("import os; os.chdir(sys.argv[1])\n" + "".join(blocks), str(tmp_path), cache=tmp_path, token="hf_me")
        card = card_of(hub, "me/my-melody")
        assert hub.repositories["me/melody"].private and "config.json" in hub.files("me/melody-vae")
        assert card.data.license == "cc-by-4.0" and card.data.eval_results and "## Examples" in card.text
        assert hub.files("me/my-melody")["audio/waltz.wav"][:4] == b"RIFF"
