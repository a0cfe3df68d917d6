"""Adapters load, mix, scale, fuse, swap and go again on both models; a wrong base and a broken folder are refused."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.hf.lora import base_digest

peft = pytest.importorskip("peft")

FILE = "pytorch_lora_weights.safetensors"
TARGETS = {
    "dual_path": ["to_q", "to_v", "to_out.0", "projection", "linear_1", "proj_in"],
    "semantic_lm": ["q_proj", "down_proj"],
}
LAYERS = {
    "dual_path": "blocks.0.coarse_layers.0.self_attention.to_q",
    "semantic_lm": "model.layers.0.self_attn.q_proj",
}


def outputs(pipe: MeLoDyPipeline, attention_kwargs: dict | None = None) -> dict[str, torch.Tensor]:
    """What each model says to a fixed input."""
    generator, config = torch.Generator().manual_seed(0), pipe.semantic_lm.config
    latents = torch.randn(2, 96, pipe.vae.latent_dim, generator=generator).to(pipe.dual_path.dtype)
    tokens = torch.randint(config.semantic_codebook_size, (2, 48), generator=generator)
    mulan_tokens = torch.randint(config.mulan_codebook_size, (2, config.num_mulan_codebooks), generator=generator)
    with torch.no_grad():
        angle = torch.full((96,), 0.5)  # of a single row MKL's product depends on where the weights lie
        velocity = pipe.dual_path(latents, angle, tokens, attention_kwargs=attention_kwargs).sample
        return {"dual_path": velocity, "semantic_lm": pipe.semantic_lm.semantic_logits(mulan_tokens, tokens)}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def assert_all_differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name in a:
        assert (a[name] - b[name]).abs().max() > 1e-2, name


def weights(pipe: MeLoDyPipeline) -> dict[str, torch.Tensor]:
    """One adapted weight of each model, as it is in the base layer."""
    layers = {name: getattr(pipe, name).get_submodule(layer) for name, layer in LAYERS.items()}
    return {name: getattr(layer, "base_layer", layer).weight.detach().clone() for name, layer in layers.items()}


def make_adapter(pipe: MeLoDyPipeline, folder: Path, seed: int, rank: int = 4, parts: tuple = tuple(TARGETS)) -> str:
    """A folder with an adapter that changes a lot, made as training makes one."""
    generator = torch.Generator().manual_seed(seed)
    for part in parts:
        model = getattr(pipe, part)
        model.add_adapter(peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS[part]))
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    pipe.save_lora_weights(folder)
    return str(folder)


@pytest.fixture(scope="module")
def new_pipeline(tiny_pipeline) -> Callable[[], MeLoDyPipeline]:
    """Makes one that the test may change."""

    def make() -> MeLoDyPipeline:
        pipe = MeLoDyPipeline(**deepcopy(tiny_pipeline.components))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture(scope="module")
def adapters(new_pipeline, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "warm": make_adapter(new_pipeline(), folder / "warm", 1),
        "cold": make_adapter(new_pipeline(), folder / "cold", 2),
        "wide": make_adapter(new_pipeline(), folder / "wide", 3, rank=6),
        "dual_path": make_adapter(new_pipeline(), folder / "dual_path", 4, parts=("dual_path",)),
    }


@pytest.fixture(scope="module")
def base(new_pipeline) -> dict[str, torch.Tensor]:
    return outputs(new_pipeline())


@pytest.fixture
def pipe(new_pipeline) -> MeLoDyPipeline:
    return new_pipeline()


def test_the_header_names_rank_alpha_targets_and_base(tiny_folder, tmp_path):
    pipe = MeLoDyPipeline.from_pretrained(tiny_folder)
    digests = {name: base_digest(getattr(pipe, name)) for name in TARGETS}
    pipe.dual_path.add_adapter(peft.LoraConfig(r=3, lora_alpha=5, target_modules=TARGETS["dual_path"]), "mine")
    pipe.save_lora_weights(tmp_path)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        text = file.metadata()["lora_adapter_metadata"]
    header = json.loads(text)
    assert (header["dual_path.r"], header["dual_path.lora_alpha"]) == (3, 5)
    assert header["dual_path.target_modules"] == sorted(TARGETS["dual_path"])
    assert header["base.model"] == Path(tiny_folder).name and str(Path(tiny_folder).parent) not in text
    assert header["base.dual_path"] == digests["dual_path"] and "base.semantic_lm" not in header
    assert {key.split(".")[0] for key in load_file(tmp_path / FILE)} == {"dual_path"}


def test_an_adapter_loads_from_folder_file_hub_and_dict(new_pipeline, adapters, base, tmp_path):
    """From the Hub: by repository name, out of the cache that its client keeps."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--style"
    shutil.copytree(adapters["warm"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    from_hub = {"weight_name": FILE, "cache_dir": tmp_path, "local_files_only": True}
    file = Path(adapters["warm"]) / FILE
    heard = []
    for source, arguments in [
        (adapters["warm"], {}),
        (file, {}),
        ("someone/style", from_hub),
    ]:
        pipe = new_pipeline()
        pipe.load_lora_weights(source, **arguments)
        assert pipe.get_active_adapters() == ["default_0"]
        heard.append(outputs(pipe))
        assert_same(heard[0], heard[-1])
    assert_all_differ(heard[0], base)
    pipe = new_pipeline()
    pipe.load_lora_weights(load_file(file), low_cpu_mem_usage=False)  # without a header alpha is the rank: half of ours
    pipe.set_adapters("default_0", 2.0)
    assert_same(heard[0], outputs(pipe), atol=1e-4)


def test_what_was_loaded_is_saved_alike(tmp_path, adapters, pipe):
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    pipe.save_lora_weights(tmp_path, weight_name="style.safetensors")
    (first, header), (again, header_again) = (
        MeLoDyPipeline.lora_state_dict(file, return_lora_metadata=True)
        for file in (Path(adapters["warm"]) / FILE, tmp_path / "style.safetensors")
    )
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)
    assert header == header_again


def test_scales_and_mixtures_add_up(adapters, base, pipe):
    """W + 0.5 d(warm) - 0.25 d(cold), with d = alpha / r B A from the files."""
    plain = weights(pipe)
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    pipe.load_lora_weights(adapters["cold"], adapter_name="cold")
    assert pipe.get_list_adapters() == {"dual_path": ["warm", "cold"], "semantic_lm": ["warm", "cold"]}
    assert pipe.get_active_adapters() == ["cold"]
    pipe.set_adapters(["warm", "cold"], [0.5, -0.25])
    assert pipe.get_active_adapters() == ["warm", "cold"]
    mixed = outputs(pipe)
    pipe.fuse_lora()
    assert pipe.fused_loras == {"warm", "cold"}
    assert_same(outputs(pipe), mixed, atol=1e-4)
    files = {name: load_file(Path(adapters[name]) / FILE) for name in ("warm", "cold")}
    for part, layer in LAYERS.items():
        delta = {
            n: 2 * f[f"{part}.{layer}.lora_B.weight"] @ f[f"{part}.{layer}.lora_A.weight"] for n, f in files.items()
        }
        expected = plain[part] + 0.5 * delta["warm"] - 0.25 * delta["cold"]
        torch.testing.assert_close(weights(pipe)[part], expected, rtol=0, atol=1e-5)
    pipe.unfuse_lora()
    assert pipe.num_fused_loras == 0
    assert_same(outputs(pipe), mixed, atol=1e-4)
    pipe.set_adapters("warm", {"dual_path": 0.0, "semantic_lm": 1.0})
    half = outputs(pipe)
    assert_same({"dual_path": half["dual_path"]}, {"dual_path": base["dual_path"]}, atol=1e-6)
    assert (half["semantic_lm"] - base["semantic_lm"]).abs().max() > 1e-2


def test_fusing_with_a_scale_equals_scaling(adapters, base, pipe):
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    pipe.set_adapters("warm", 0.4)
    scaled = outputs(pipe)
    assert_same({"dual_path": outputs(pipe, {"scale": 0.5})["dual_path"]}, {"dual_path": set_and_run(pipe, 0.2)})
    pipe.set_adapters("warm")
    pipe.fuse_lora(lora_scale=0.4)
    assert_same(outputs(pipe), scaled, atol=1e-4)
    pipe.unfuse_lora(["semantic_lm"])
    assert pipe.fused_loras == {"warm"}
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    assert_same(outputs(pipe), base, atol=1e-4)


def set_and_run(pipe: MeLoDyPipeline, scale: float) -> torch.Tensor:
    pipe.set_adapters("warm", scale)
    return outputs(pipe)["dual_path"]


def test_attention_kwargs_scale_the_diffusion_model_in_a_call(adapters, pipe):
    arguments = {"audio_duration": 10, "num_inference_steps": 2, "output_type": "latent"}
    arguments["semantic_tokens"] = torch.arange(250)[None] % 32

    def call(**more) -> torch.Tensor:
        return pipe(**arguments, **more, generator=torch.Generator().manual_seed(0)).audios

    plain = call()
    pipe.load_lora_weights(adapters["warm"])
    adapted = call()
    assert (adapted - plain).abs().max() > 1e-2
    torch.testing.assert_close(call(attention_kwargs={"scale": 0.0}), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(call(attention_kwargs={"scale": 1.0}), adapted, rtol=0, atol=0)
    pipe.disable_lora()
    torch.testing.assert_close(call(), plain, rtol=0, atol=0)
    pipe.enable_lora()
    torch.testing.assert_close(call(), adapted, rtol=0, atol=0)


def test_adapters_go_again(adapters, base, pipe):
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    only_warm = outputs(pipe)
    pipe.load_lora_weights(adapters["dual_path"], adapter_name="grainy")  # of one model: the other is as in the base
    assert pipe.get_list_adapters() == {"dual_path": ["warm", "grainy"], "semantic_lm": ["warm"]}
    assert_same({"semantic_lm": outputs(pipe)["semantic_lm"]}, {"semantic_lm": base["semantic_lm"]})
    pipe.delete_adapters("grainy")
    pipe.set_adapters("warm")
    assert_same(outputs(pipe), only_warm)
    pipe.disable_lora()
    assert_same(outputs(pipe), base)
    pipe.unload_lora_weights()
    assert_same(outputs(pipe), base)
    assert pipe.get_list_adapters() == {} and pipe.get_active_adapters() == []


def test_hot_swap_puts_one_adapter_in_the_place_of_another(adapters, pipe):
    pipe.load_lora_weights(adapters["cold"], adapter_name="cold")
    only_cold = outputs(pipe)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(adapters["warm"], adapter_name="style")
    layers = {part: getattr(pipe, part).get_submodule(layer) for part, layer in LAYERS.items()}
    pipe.load_lora_weights(adapters["cold"], adapter_name="style", hotswap=True)
    assert pipe.get_list_adapters() == {"dual_path": ["style"], "semantic_lm": ["style"]}
    assert_same(outputs(pipe), only_cold)
    for part, layer in LAYERS.items():
        assert getattr(pipe, part).get_submodule(layer) is layers[part]  # nothing for a compiled model to notice
    with pytest.raises(ValueError, match="hotswap.*semantic_lm.*another name"):
        pipe.load_lora_weights(adapters["dual_path"], adapter_name="style", hotswap=True)
    with pytest.raises(ValueError, match="hotswap.*'other' .of nothing"):
        pipe.load_lora_weights(adapters["cold"], adapter_name="other", hotswap=True)
    assert_same(outputs(pipe), only_cold)


def test_hot_swap_between_ranks(new_pipeline, adapters, pipe):
    pipe.load_lora_weights(adapters["wide"], adapter_name="wide")
    wide = outputs(pipe)
    pipe = new_pipeline()
    pipe.enable_lora_hotswap(target_rank=8)
    pipe.load_lora_weights(adapters["warm"], adapter_name="style")
    pipe.load_lora_weights(adapters["wide"], adapter_name="style", hotswap=True)
    assert_same(outputs(pipe), wide, atol=1e-5)


def test_names_are_given_or_refused(adapters, pipe, tmp_path):
    pipe.load_lora_weights(adapters["warm"])
    pipe.load_lora_weights(adapters["cold"])
    assert pipe.get_list_adapters()["dual_path"] == ["default_0", "default_1"]
    with pytest.raises(ValueError, match="adapter 'default_1' already.*hotswap=True"):
        pipe.load_lora_weights(adapters["warm"], adapter_name="default_1")
    with pytest.raises(ValueError, match=r"one of \['default_0', 'default_1'\]; got None"):
        pipe.save_lora_weights(tmp_path)
    with pytest.raises(ValueError, match="must end in .safetensors"):
        pipe.save_lora_weights(tmp_path, "default_0", weight_name="style.bin")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file"):
        pipe.save_lora_weights(tmp_path / "file", "default_0")


def test_another_base_is_refused_by_name(new_pipeline, adapters, base, tmp_path):
    components = new_pipeline().components
    with torch.no_grad():
        components["semantic_lm"].model.norm.weight[3] *= -1
    MeLoDyPipeline(**components).save_pretrained(tmp_path / "other")
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError, match="trained on 'an unnamed pipeline'.*this pipeline is 'other'.*allow_other_base"
    ):
        pipe.load_lora_weights(adapters["warm"])
    assert pipe.get_list_adapters() == {}
    pipe.load_lora_weights(adapters["dual_path"], adapter_name="grainy")  # which does not touch the other model
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm", allow_other_base=True)
    assert pipe.get_active_adapters() == ["warm"]

    weights = load_file(Path(adapters["warm"]) / FILE)
    save_file(weights, tmp_path / FILE)
    with pytest.raises(ValueError, match="does not say which base"):
        new_pipeline().load_lora_weights(tmp_path / FILE)


def test_fused_adapters_are_in_the_way_of_others(adapters, pipe, tmp_path):
    """PEFT would unfuse them in silence."""
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    pipe.fuse_lora()
    for attempt in (
        lambda: pipe.load_lora_weights(adapters["cold"], adapter_name="cold"),
        lambda: pipe.load_lora_weights(adapters["cold"], adapter_name="warm", hotswap=True),
        lambda: pipe.save_lora_weights(tmp_path),
    ):
        with pytest.raises(ValueError, match=r"fused into dual_path: call unfuse_lora\(\)"):
            attempt()
    pipe.unfuse_lora()
    pipe.save_lora_weights(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_base_in_every_precision(new_pipeline, adapters, base, dtype):
    pipe = new_pipeline()
    digests = {part: base_digest(getattr(pipe, part)) for part in TARGETS}
    pipe = pipe.to(dtype)
    assert digests == {part: base_digest(getattr(pipe, part)) for part in TARGETS}
    pipe.load_lora_weights(adapters["warm"])
    adapted = outputs(pipe)
    assert all(value.dtype == dtype for value in adapted.values())
    assert_all_differ({k: v.float() for k, v in adapted.items()}, base)


def test_an_adapter_that_does_not_fit_leaves_nothing_behind(adapters, base, pipe, tmp_path):
    weights = load_file(Path(adapters["warm"]) / FILE)
    name = f"semantic_lm.{LAYERS['semantic_lm']}.lora_A.weight"
    with pytest.raises(RuntimeError, match="size mismatch"):
        pipe.load_lora_weights(weights | {name: weights[name][:, :-1].contiguous()})
    assert pipe.get_list_adapters() == {}
    assert_same(outputs(pipe), base)
    pipe.save_pretrained(tmp_path / "clean")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dual_path.proj_in.lora_A.weight": torch.full((4, 8), torch.nan)}, "NaN or infinity"),
        ({"transformer.proj_in.lora_A.weight": torch.zeros(4, 8)}, "begin with dual_path. or semantic_lm."),
        ({"dual_path.proj_in.weight": torch.zeros(4, 8)}, "no adapter of a MeLoDy pipeline"),
    ],
)
def test_what_is_no_adapter_is_refused(adapters, pipe, tmp_path, change, message):
    save_file(load_file(Path(adapters["warm"]) / FILE) | change, tmp_path / FILE)
    with pytest.raises(ValueError, match=message):
        pipe.load_lora_weights(tmp_path)


def test_only_safetensors_are_read(pipe, tmp_path):
    torch.save({}, tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(ValueError, match="must end in .safetensors"):
        pipe.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.bin")
    with pytest.raises(Exception, match="(?i)header|safetensors"):
        pipe.load_lora_weights(tmp_path / "pytorch_lora_weights.bin")


def test_a_header_cannot_name_modules_to_import(adapters, pipe, tmp_path):
    """PEFT imports the module that `megatron_core` names."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    with safe_open(Path(adapters["warm"]) / FILE, framework="pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
    for part in TARGETS:
        header |= {f"{part}.megatron_config": {"a": 1}, f"{part}.megatron_core": "evil"}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(header)}
    save_file(load_file(Path(adapters["warm"]) / FILE), tmp_path / FILE, metadata)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(tmp_path))
        pipe.load_lora_weights(tmp_path)
    assert all(getattr(pipe, part).peft_config["default_0"].megatron_core != "evil" for part in TARGETS)


def test_no_broken_folder_is_ever_written(adapters, base, pipe, tmp_path):
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    for saved in (pipe, pipe.dual_path, pipe.semantic_lm):
        with pytest.raises(ValueError, match=r"adapters: warm\).*save_lora_weights.*unload_lora_weights.*fuse_lora"):
            saved.save_pretrained(tmp_path / "broken")
    pipe.delete_adapters("warm")  # leaves layers in which an adapter could be put
    with pytest.raises(ValueError, match="none is left"):
        pipe.save_pretrained(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()

    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "base")
    assert_same(outputs(MeLoDyPipeline.from_pretrained(tmp_path / "base")), base)


def test_fused_weights_are_saved_once_the_layers_are_gone(adapters, pipe, tmp_path):
    pipe.load_lora_weights(adapters["warm"])
    pipe.fuse_lora()
    with pytest.raises(ValueError, match="unload_lora_weights"):
        pipe.save_pretrained(tmp_path / "fused")
    pipe.unload_lora_weights()
    fused = outputs(pipe)
    pipe.save_pretrained(tmp_path / "fused")
    assert_same(outputs(MeLoDyPipeline.from_pretrained(tmp_path / "fused")), fused)
    with pytest.raises(ValueError, match="trained on"):  # the base is another now
        pipe.load_lora_weights(adapters["cold"])


@pytest.mark.parametrize("offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_adapters_come_and_go_while_weights_are_offloaded(adapters, pipe, tmp_path, offload):
    """Sequential offloading leaves no weights in the modules: they are put back for as long as it takes."""
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    adapted = outputs(pipe)
    pipe.unload_lora_weights()
    getattr(pipe, offload)(device="cpu")
    hooks = [hasattr(getattr(pipe, part), "_hf_hook") for part in TARGETS]
    pipe.load_lora_weights(adapters["warm"], adapter_name="warm")
    pipe.save_lora_weights(tmp_path)
    assert [hasattr(getattr(pipe, part), "_hf_hook") for part in TARGETS] == hooks
    pipe.remove_all_hooks()  # a sequential forward pass needs a GPU
    assert_same(outputs(pipe), adapted)
    saved, first = load_file(tmp_path / FILE), load_file(Path(adapters["warm"]) / FILE)
    assert all(torch.equal(saved[key], first[key]) for key in first)
