"""Repositories that mean harm, or are broken: refused at once, whatever loads them, and nothing of theirs is run.

Each case changes a copy of the tiny pipeline. One process loads them all, with an audit hook that sees every file
Python opens, all code it runs, and processes and sockets; for files that native code opens, the times of last access of
what lies outside the repository tell. This file is also that process's program.
"""

import ast
import inspect
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODELS = ("vae", "mulan", "mulan_quantizer", "semantic_tokenizer", "semantic_lm", "dual_path")
PIPELINES = ("MeLoDyPipeline", "DiffusionPipeline", "AutoPipelineForText2Audio")
AUTO_MODELS = {"vae": "AutoModel", "semantic_lm": "AutoModelForCausalLM"}
MAX_SECONDS, MAX_BYTES = 1.0, 64 * 2**20

Change = Callable[[Path, Path], None]
CASES: dict[str, tuple[Change, str, str, bool]] = {}


def case(slot: str, what: str, says: str, change: Change, generic: bool = True) -> None:
    """Adds a case.

    Args:
        slot: what the change concerns.
        what: tells the cases of a slot apart.
        says: a part of the message.
        change: called with the copy of the pipeline and a folder outside it.
        generic: whether our checks come before `DiffusionPipeline` (of an index) or `AutoModel` (of a configuration)
            reads what is changed.
    """
    assert f"{slot}: {what}" not in CASES, what
    CASES[f"{slot}: {what}"] = (change, slot, says, generic)


# --- the hostile repositories -----------------------------------------------------------------------------------------


def edit(file: str, **changes: object) -> Change:
    """Sets keys of a JSON file; `a__in__b` is the key a of the section b."""

    def change(folder: Path, outside: Path) -> None:
        content = json.loads((folder / file).read_text())
        for key, value in changes.items():
            name, _, section = key.partition("__in__")
            value = str(outside / value.removeprefix("OUTSIDE/")) if str(value).startswith("OUTSIDE/") else value
            (content[section] if section else content)[name] = value
        (folder / file).write_text(json.dumps(content))

    return change


def config(slot: str, **changes: object) -> Change:
    return edit(f"{slot}/{'scheduler_' if slot == 'scheduler' else ''}config.json", **changes)


def text(file: str, content: str) -> Change:
    return lambda folder, _: (folder / file).write_text(content)


def link(file: str, target: str) -> Change:
    """Replaces a file or folder by a link to one outside."""

    def change(folder: Path, outside: Path) -> None:
        path = folder / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(outside / target)

    return change


def weights_file(folder: Path, slot: str) -> Path:
    (file,) = (folder / slot).glob("*.safetensors")
    return file


def tensors(slot: str, change_tensors: Callable[[dict], object]) -> Change:
    def change(folder: Path, _: Path) -> None:
        from safetensors.torch import load_file, save_file

        content = load_file(weights_file(folder, slot))
        change_tensors(content)
        save_file({name: tensor.clone() for name, tensor in content.items()}, weights_file(folder, slot))

    return change


def raw(slot: str, change_bytes: Callable[[bytes], bytes]) -> Change:
    def change(folder: Path, _: Path) -> None:
        file = weights_file(folder, slot)
        file.write_bytes(change_bytes(file.read_bytes()))

    return change


def index(slot: str, shard: str, keep: bool = False) -> Change:
    """Puts an index of shards in the place of the weights; `shard` may lie outside."""

    def change(folder: Path, outside: Path) -> None:
        from safetensors import safe_open

        file = weights_file(folder, slot)
        with safe_open(file, "pt") as content:
            names = list(content.keys())
        target = shard.replace("OUTSIDE", str(outside)).replace("UP", os.path.relpath(outside, folder / slot))
        weight_map = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, target)}
        (folder / slot / f"{file.name}.index.json").write_text(json.dumps(weight_map))
        if not keep:
            file.unlink()

    return change


class Payload:
    """What a pickle of it runs when it is read."""

    def __init__(self, sentinel: Path):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


def pickled(slot: str, name: str) -> Change:
    def change(folder: Path, outside: Path) -> None:
        weights_file(folder, slot).unlink()
        (folder / slot / name).write_bytes(pickle.dumps(Payload(outside / "sentinel")))

    return change


def with_code(change: Change, *files: str) -> Change:
    """Also puts a Python file with a payload in these places."""

    def both(folder: Path, outside: Path) -> None:
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(f"import os\nos.mkdir({str(outside / 'sentinel')!r})\nclass Evil: pass\n")
        change(folder, outside)

    return both


def largest(content: dict) -> str:
    return max(
        (name for name, tensor in content.items() if tensor.is_floating_point()), key=lambda n: content[n].numel()
    )


def put(make: Callable) -> Callable:
    """Replaces the largest tensor by what is made of it."""
    return lambda content: content.update({largest(content): make(content[largest(content)])})


def spoil(value: float) -> Callable:
    def make(tensor):
        tensor.view(-1)[0] = value
        return tensor

    return make


def in_index(**changes: object) -> Change:
    return with_code(edit("model_index.json", **changes), "evil.py", "pipeline.py", "vae/evil.py")


for what, entry in {
    "a function": ["os", "system"],
    "a process": ["subprocess", "Popen"],
    "eval": ["builtins", "eval"],
    "a file of its own": ["evil", "Evil"],
    "a file elsewhere": ["../../evil", "Evil"],
    "another model": ["diffusers", "UNet1DModel"],
    "another of our models": ["melody_diffusers", "MuLanModel"],
    "a module of ours": ["melody_diffusers.models.audio_vae", "AudioVAEGAN"],
    "one of our other classes": ["melody_diffusers", "MeLoDyPipeline"],
    "text": "AudioVAEGAN",
    "nothing": [None, None],
    "three names": ["melody_diffusers", "AudioVAEGAN", "x"],
}.items():
    case("model_index", f"{what} for a model", "`vae` must be", in_index(vae=entry))
case("model_index", "auto class", "`tokenizer`", in_index(tokenizer=["transformers", "AutoTokenizer"]))
case("model_index", "another scheduler", "`scheduler`", in_index(scheduler=["diffusers", "DDIMScheduler"]))
case("model_index", "a slot more", "`extra`", in_index(extra=["os", "system"]))
case("model_index", "a pipeline of its own", "", in_index(_class_name=["evil", "Evil"]))
for what, content in {"large": " " * 2**21, "deep": "[" * 100_000, "a list": "[]"}.items():
    case("model_index", what, "model_index.json", text("model_index.json", content), generic=False)

for slot in MODELS:
    stem = "diffusion_pytorch_model" if slot in ("mulan_quantizer", "dual_path") else "model"
    bin_file = "pytorch_model.bin" if stem == "model" else f"{stem}.bin"
    case(slot, "shard above", "beside it", index(slot, f"UP/{slot}.safetensors"))
    case(slot, "shard at an absolute path", "beside it", index(slot, f"OUTSIDE/{slot}.safetensors"))
    case(slot, "weights link out", "leads out", link(f"{slot}/{stem}.safetensors", f"{slot}.safetensors"))
    case(slot, "folder links out", "leads out", link(slot, f"parts/{slot}"), generic=False)
    case(slot, "a weight too few", "do not fit", tensors(slot, lambda all_: all_.pop(next(iter(all_)))))
    case(slot, "a weight too many", "do not fit", tensors(slot, lambda all_: all_.update(x=torch.zeros(1))))
    case(slot, "not a number", "finite", tensors(slot, put(spoil(float("nan")))))
    case(slot, "int8", "do not fit", tensors(slot, put(lambda tensor: tensor.char())))
    case(slot, "truncated", "damaged", raw(slot, lambda content: content[:-100]))
    case(slot, "pickle", "missing", pickled(slot, bin_file))
for slot in ("vae", "dual_path"):
    case(slot, "renamed weight", "", tensors(slot, lambda all_: all_.update(x=all_.pop(largest(all_)))))
for slot in ("mulan", "dual_path"):
    case(slot, "other shape", "", tensors(slot, put(lambda tensor: tensor.reshape(-1, 2))))
case("semantic_lm", "other size", "do not fit", tensors("semantic_lm", put(lambda tensor: tensor[1:])))
case("dual_path", "infinity", "finite", tensors("dual_path", put(spoil(float("inf")))))
case("vae", "float64", "do not fit", tensors("vae", put(lambda tensor: tensor.double() * 1e300)))


def too_large_for_float16(folder: Path, outside: Path) -> None:
    config("vae", dtype="float16")(folder, outside)
    tensors("vae", put(spoil(1e10)))(folder, outside)


case("vae", "too large for its dtype", "finite", too_large_for_float16)
case("dual_path", "no bytes", "damaged", raw("dual_path", lambda content: b""))
case("vae", "bytes at the end", "damaged", raw("vae", lambda content: content + b"x" * 64))
case("vae", "huge header", "header of", raw("vae", lambda content: struct.pack("<Q", 2**60) + content[8:]))
header = json.dumps({"x": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
case("vae", "huge shape", "damaged", raw("vae", lambda content: struct.pack("<Q", len(header)) + header + b"0000"))
case("vae", "shard and file", "there is also", index("vae", "model.safetensors", keep=True))
case("dual_path", "shard is missing", "missing", index("dual_path", "a.safetensors"))
case("mulan", "shard of another folder", "beside it", index("mulan", "../vae/model.safetensors"))
case("vae", "planted adapter", "adapter_config", text("vae/adapter_config.json", '{"base_model_name_or_path": "x"}'))
case("vae", "planted shard", "would change", text("vae/shard-00000-model-00001-of-00001.safetensors", ""))

case("vae", "configuration links out", "leads out", link("vae/config.json", "secret.json"), generic=False)
case("scheduler", "links out", "leads out", link("scheduler/scheduler_config.json", "secret.json"))
case("tokenizer", "links out", "leads out", link("tokenizer/tokenizer.json", "secret.json"))
case("tokenizer", "folder links out", "leads out", link("tokenizer", "parts/tokenizer"))
case("tokenizer", "large", "allowed are", text("tokenizer/tokenizer.json", " " * 2**23))
for key, value in {
    "vocab": "OUTSIDE/secret.json",
    "tokenizer_file": "OUTSIDE/secret.json",
    "fast_tokenizer_files": ["../../../outside/tokenizer.1.0.json"],
    "init_inputs": ["/etc/hostname"],
    "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
}.items():
    case("tokenizer", key, key, with_code(edit("tokenizer/tokenizer_config.json", **{key: value}), "tokenizer/evil.py"))


def named_pipe(folder: Path, outside: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    os.mkfifo(folder / "vae" / "config.json")


case("vae", "a named pipe", "neither a file", named_pipe, generic=False)

for key, value in {
    "auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"},
    "attn_implementation": "evil/kernels",
    "_attn_implementation": "evil/kernels",
    "_attn_implementation_internal": "evil/kernels",
    "experts_implementation": "evil/kernels",
    "quantization_config": {"quant_method": "evil", "modules_to_not_convert": ["os.system"]},
    "transformers_weights": "../secret.safetensors",
    "configuration_files": ["config.4.0.0.json"],
    "trust_remote_code": True,
    "fusion_config": {"patch_embeddings": True},
    "__class__": "evil.Evil",
}.items():
    for slot in ("semantic_lm", "dual_path"):
        change = with_code(config(slot, **{key: value}), f"{slot}/evil.py")
        case(slot, key, key, change, generic=key != "configuration_files")
    section = config("mulan", **{f"{key}__in__text_config": value})
    case("mulan", f"{key} in a section", key, section)

WIDTHS = {
    "vae": "istft_width",
    "mulan": "hidden_size__in__text_config",
    "mulan_quantizer": "dim",
    "semantic_tokenizer": "hidden_size__in__encoder_config",
    "semantic_lm": "hidden_size",
    "dual_path": "hidden_size",
}
DEPTHS = {
    "vae": "istft_decoder_layers",
    "mulan": "num_hidden_layers__in__audio_config",
    "semantic_tokenizer": "num_hidden_layers__in__encoder_config",
    "semantic_lm": "num_hidden_layers",
    "dual_path": "num_blocks",
}
for slot, width in WIDTHS.items():
    for value in (10**9, 30_000, -1, float("nan"), "8"):
        says = slot if value == 30_000 else width.partition("__")[0]
        case(slot, f"width {value}", says, config(slot, **{width: value}))
for slot, depth in DEPTHS.items():
    case(slot, "a million layers", depth.partition("__")[0], config(slot, **{depth: 10**6}))
    case(slot, "250 layers", slot, config(slot, **{depth: 250}))
layers = config("dual_path", num_blocks=13, segment_length=64, num_coarse_layers=250)
case("dual_path", "layers of layers", "operations", layers)
lists = config("vae", head="hifigan", residual_kernels=[3] * 250, encoder_dilations=[1] * 250)
case("vae", "lists of lists", "operations", lists)
case("vae", "a long list", "at most", config("vae", encoder_rates=[2] * 100_000))
case("vae", "true for a number", "istft_hop", config("vae", istft_hop=True))
case("vae", "no hop", "config.json", config("vae", istft_hop=0), generic=False)
case("vae", "a module for a dtype", "dtype", config("vae", dtype="os"))
case("vae", "another model's", "model_type", config("vae", model_type="bert"), generic=False)
for what, content in {
    "infinity": '{"latent_scale": 1e999}',
    "no keys": "{}",
    "not JSON": "import os",
    "deep JSON": '{"a":' * 50_000,
    "large JSON": '{"a": "' + "x" * 2**21 + '"}',
}.items():
    case("vae", what, "vae", text("vae/config.json", content), generic=False)
case("vae", "no configuration", "config.json", lambda folder, _: (folder / "vae/config.json").unlink(), generic=False)
case("dual_path", "another class's", "_class_name", config("dual_path", _class_name="UNet1DModel"))
case("scheduler", "another class's", "_class_name", config("scheduler", _class_name="DDIMScheduler"))
case("scheduler", "unknown schedule", "schedule", config("scheduler", schedule="__import__('os')"))
rope = {"rope_type": "default", "rope_theta": 0.0}
case("semantic_lm", "rotary base 0", "", config("semantic_lm", rope_parameters=rope))


# --- the process that loads them --------------------------------------------------------------------------------------


def entries(slot: str, generic: bool) -> list[tuple[str, str]]:
    """(loader, folder within the repository) of what a case should stop. The generic loaders of both libraries end in
    ours; each is tried where it has something to read first."""
    loads = [("MeLoDyPipeline", "")]
    if slot in (*MODELS, "scheduler"):
        loads.append(("own", slot))
    if slot in ("tokenizer", "scheduler", "vae") or (generic and slot == "model_index"):
        loads.append(("DiffusionPipeline", ""))
    if generic and slot == "model_index":
        loads.append(("AutoPipelineForText2Audio", ""))
    if generic and slot in AUTO_MODELS:
        loads.append((AUTO_MODELS[slot], slot))
    return loads


def load_all() -> None:
    """Loads what standard input names, line by line, and prints what came of it."""
    import diffusers
    import torch
    import transformers

    import melody_diffusers
    from melody_diffusers.hf import loading

    torch.set_num_threads(1)
    diffusers.utils.logging.disable_progress_bar()
    allowed = [os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, ROOT / "src", "/proc", "/sys", "/dev")]
    seen: list[str] = []
    repository = "/"

    def within(path: object) -> bool:
        real = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        return any(os.path.commonpath([real, root]) == root for root in (*allowed, os.path.realpath(repository)))

    def hook(event: str, arguments: tuple) -> None:
        if repository == "/":
            return
        if event == "open" and not isinstance(arguments[0], int) and not within(arguments[0]):
            seen.append(f"opened {arguments[0]}")
        elif event == "exec" and "evil" in arguments[0].co_filename:
            seen.append(f"ran {arguments[0].co_filename}")
        elif event == "import" and ("evil" in arguments[0] or str(arguments[1]).startswith(repository)):
            seen.append(f"imported {arguments[0]}")
        elif event.startswith(("subprocess", "os.exec", "os.system", "os.posix_spawn", "os.fork", "socket", "pickle")):
            seen.append(f"{event} {arguments}")
        elif event in ("builtins.input", "os.startfile", "os.putenv"):
            seen.append(event)

    def load(loader: str, folder: str) -> None:
        name = os.path.basename(folder)
        cls = getattr(melody_diffusers, loading.SLOTS[name]) if loader == "own" else None
        for library in (melody_diffusers, diffusers, transformers):
            cls = cls or getattr(library, loader, None)
        cls.from_pretrained(folder)

    def out_of_time(*_: object) -> None:
        raise KeyboardInterrupt  # which nobody catches

    def peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

    sys.addaudithook(hook)
    signal.signal(signal.SIGALRM, out_of_time)
    for line in sys.stdin:
        loader, folder, here = json.loads(line)
        seen.clear()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, cpu, refused = peak(), time.process_time(), None
        repository = here
        signal.alarm(100)
        try:
            load(loader, folder)
        except BaseException as error:
            refused = [type(error).__name__, [base.__name__ for base in type(error).__mro__], str(error)]
        signal.alarm(0)
        repository = "/"
        result = {"refused": refused, "seen": seen, "seconds": time.process_time() - cpu, "bytes": peak() - before}
        print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (2**35, 2**35))
    load_all()
    sys.exit()

import torch  # noqa: E402 (the process above imports in its own time)
from diffusers import DiffusionPipeline  # noqa: E402

import melody_diffusers  # noqa: E402
from melody_diffusers import AudioVAEGAN, MeLoDyPipeline  # noqa: E402
from melody_diffusers.hf import loading  # noqa: E402

# --- the tests --------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def results(tiny_folder, tmp_path_factory):
    """Case -> loader -> result; and the paths outside the repositories that were read."""
    base = tmp_path_factory.mktemp("hostile")
    outside = base / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text("{}")
    shutil.copytree(tiny_folder, outside / "parts")
    shutil.copy(outside / "parts/tokenizer/tokenizer.json", outside / "tokenizer.1.0.json")
    for slot in MODELS:
        shutil.copy(weights_file(Path(tiny_folder), slot), outside / f"{slot}.safetensors")
    jobs = [(None, loader, tiny_folder, tiny_folder) for loader in PIPELINES]  # warms up, and has to work
    for number, (name, (change, slot, _, generic)) in enumerate(CASES.items()):
        folder = base / str(number) / "repository"
        shutil.copytree(tiny_folder, folder)
        change(folder, outside)
        jobs += [(name, loader, str(folder / part), str(folder)) for loader, part in entries(slot, generic)]
    for path in outside.rglob("*"):
        os.utime(path, (1, time.time()))  # read, it gets a time of access
    lines = "".join(json.dumps(job[1:]) + "\n" for job in jobs)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(base / "home"), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, __file__], input=lines, capture_output=True, text=True, env=environment, cwd=base
    )
    replies = [json.loads(line[7:]) for line in process.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(replies) == len(jobs), process.stderr[-5000:]
    found: dict = {"read outside": [str(p) for p in outside.rglob("*") if p.is_file() and p.stat().st_atime > 2]}
    found["sentinel"] = (outside / "sentinel").exists()
    for (name, loader, *_), reply in zip(jobs, replies):
        found.setdefault(name, {})[loader] = reply
    return found


def test_what_is_not_hostile_is_loaded(results):
    for loader, result in results[None].items():
        assert result["refused"] is None and result["seen"] == [], (loader, result)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_repository_is_refused(results, name):
    _, _, says, _ = CASES[name]
    assert results[name]
    intact = min(result["seconds"] for result in results[None].values())  # a second or so; more on a slow machine
    for loader, result in results[name].items():
        assert result["refused"] is not None, f"{loader} loaded it"
        kind, bases, message = result["refused"]
        assert {"ValueError", "OSError", "RuntimeError"} & set(bases), (loader, kind, message)
        assert says in message, (loader, kind, message)
        assert result["seen"] == [], (loader, result["seen"])
        assert result["seconds"] <= max(MAX_SECONDS, intact) and result["bytes"] <= MAX_BYTES, (loader, result)


def test_nothing_was_read_outside_and_nothing_was_run(results):
    assert results["read outside"] == []
    assert not results["sentinel"]


def test_every_slot_of_the_pipeline_has_its_class():
    parameters = inspect.signature(MeLoDyPipeline).parameters
    slots = {name: each.annotation for name, each in parameters.items() if name in loading.SLOTS}
    slots["semantic_tokenizer"] = typing.get_args(slots["semantic_tokenizer"])[0]
    assert {name: cls.__name__ for name, cls in slots.items()} == loading.SLOTS
    assert set(parameters) - set(slots) == {"tokenizer", "token_rate", "sampling", "stored_sampling"}


@pytest.mark.parametrize("cls", [getattr(melody_diffusers, loading.SLOTS[slot]) for slot in MODELS])
def test_the_papers_sizes_are_far_within_the_limits(cls):
    config = loading._known(getattr(cls, "config_class", None) or cls)
    assert loading.check_config(config, config, "") == config
    assert sum(loading.expected_numbers(cls, dict(config)).values()) > 1e6


# --- what has to be loaded --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    shutil.copytree(tiny_folder, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def assert_same_weights(pipe, other, **tolerances: float) -> None:
    for slot in MODELS:
        state, other_state = getattr(pipe, slot).state_dict(), getattr(other, slot).state_dict()
        assert state.keys() == other_state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(
                tensor.float(), other_state[name].float(), **(tolerances or {"rtol": 0, "atol": 0})
            )


def test_the_hub_caches_own_links_are_followed_and_no_others(folder, tiny_pipeline, tmp_path):
    cache = tmp_path / "models--someone--melody"
    snapshot, blobs = cache / "snapshots" / ("0" * 40), cache / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        linked = snapshot / file.relative_to(folder)
        linked.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        linked.symlink_to(os.path.relpath(blobs / str(number), linked.parent))
    assert_same_weights(MeLoDyPipeline.from_pretrained(snapshot), tiny_pipeline)
    assert_same_weights(DiffusionPipeline.from_pretrained(snapshot), tiny_pipeline)
    AudioVAEGAN.from_pretrained(snapshot, subfolder="vae")
    AudioVAEGAN.from_pretrained(snapshot / "vae")
    (snapshot / "vae" / "config.json").unlink()
    (snapshot / "vae" / "config.json").symlink_to(folder / "vae" / "config.json")
    with pytest.raises(ValueError, match="leads out"):
        AudioVAEGAN.from_pretrained(snapshot / "vae")


def test_a_component_of_a_repository_on_the_hub(folder, hub_server, tmp_path):
    (folder / "vae" / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    hub_server.add("alice/parts", folder)
    code = """
from melody_diffusers import AngleScheduler, AudioVAEGAN, DualPathDiffusionModel
for subfolder, cls in {"vae": AudioVAEGAN, "dual_path": DualPathDiffusionModel}.items():
    model = cls.from_pretrained("alice/parts", subfolder=subfolder)
    assert model.config._name_or_path == "alice/parts", model.config
AngleScheduler.from_pretrained("alice/parts", subfolder="scheduler")
"""
    hub_server.run(code, cache=tmp_path / "cache")
    fetched = {path.split("/")[0] for path in hub_server.downloads()}
    assert fetched == {"vae", "dual_path", "scheduler"}, fetched


def test_keys_of_a_newer_version_are_left_out(folder, tiny_pipeline, tmp_path):
    for slot in MODELS:
        config(slot, new_size=10**12, to_dict="x", num_labels=10**9, new_section={"a": [1, "b"]})(folder, tmp_path)
    config("mulan", new_option__in__text_config=True)(folder, tmp_path)
    edit("model_index.json", new_option=[1, 2, 3], another={"a": 1})(folder, tmp_path)
    edit("tokenizer/tokenizer_config.json", new_option=True)(folder, tmp_path)
    pipe = MeLoDyPipeline.from_pretrained(folder)
    assert_same_weights(pipe, tiny_pipeline)
    assert not hasattr(pipe.semantic_lm.config, "new_size")
    assert callable(pipe.semantic_lm.config.to_dict)


def test_float16_files_and_variants_are_loaded_in_float32(folder, tiny_pipeline):
    half = MeLoDyPipeline.from_pretrained(folder, dtype=torch.float16)
    half.save_pretrained(folder, variant="fp16")
    for loaded in (folder, folder.parent / "half"):
        half.save_pretrained(folder.parent / "half")
        pipe = MeLoDyPipeline.from_pretrained(loaded, variant="fp16" if loaded == folder else None, dtype=torch.float32)
        assert pipe.vae.dtype == pipe.dual_path.dtype == torch.float32
        assert_same_weights(pipe, tiny_pipeline, rtol=1e-3, atol=1e-3)


def test_sharded_files_are_loaded(folder, tiny_pipeline):
    tiny_pipeline.save_pretrained(folder.parent / "sharded", max_shard_size="20KB")
    assert len(list((folder.parent / "sharded").glob("*/*-00001-of-*.safetensors"))) >= 4
    assert_same_weights(MeLoDyPipeline.from_pretrained(folder.parent / "sharded"), tiny_pipeline)


def test_components_that_the_caller_gives_need_not_be_there(folder, tiny_pipeline):
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "tokenizer")
    pipe = MeLoDyPipeline.from_pretrained(folder, vae=tiny_pipeline.vae, tokenizer=tiny_pipeline.tokenizer)
    assert pipe.vae is tiny_pipeline.vae
    edit("model_index.json", semantic_tokenizer=[None, None])(folder, folder)
    pipe = MeLoDyPipeline.from_pretrained(folder, vae=tiny_pipeline.vae, tokenizer=tiny_pipeline.tokenizer)
    assert pipe.semantic_tokenizer is None


@pytest.mark.parametrize("argument", [{"use_safetensors": False}, {"use_flashpack": True}, {"gguf_file": "x.gguf"}])
def test_the_caller_cannot_ask_for_other_kinds_of_weights(folder, argument):
    with pytest.raises(ValueError, match="safetensors only"):
        AudioVAEGAN.from_pretrained(folder / "vae", **argument)


# --- our own code -----------------------------------------------------------------------------------------------------


def test_nothing_of_ours_can_run_what_it_reads():
    """No pickles, no `eval`, no code from the Hub. In conversion/, which reads foreign checkpoints, `torch.load` takes
    weights only, and an unpickler is one that says what it may find."""
    files = [file for part in ("src", "training", "conversion") for file in (ROOT / part).rglob("*.py")]
    assert len(files) > 40
    for file in files:
        conversion = file.is_relative_to(ROOT / "conversion")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                banned = {"joblib", "dill", "cloudpickle", "marshal", "shelve"} | (set() if conversion else {"pickle"})
                assert not {name.split(".")[0] for name in names} & banned, (file, node.lineno)
            elif isinstance(node, ast.Call):
                function, keys = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
                assert function not in ("eval", "exec", "compile", "__import__", "os.system"), (file, node.lineno)
                assert function not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), (file, node.lineno)
                assert keys.get("trust_remote_code", "False") == "False", (file, node.lineno)
                assert keys.get("allow_pickle", "False") == "False", (file, node.lineno)
                assert keys.get("weights_only", "True") == "True", (file, node.lineno)
                assert function != "torch.load" or (conversion and "weights_only" in keys), (file, node.lineno)
