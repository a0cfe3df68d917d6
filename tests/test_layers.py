"""Imports go one way: foundations, then models, then what uses them, then the commands (docs/architecture.md)."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "melody_diffusers"
SOURCE = ROOT / "src" / PACKAGE

LAYERS = {
    "sound_files": 0,
    "files": 0,
    "timebase": 1,
    "audio": 1,
    "spectra": 1,
    "devices": 1,
    "compiled": 1,
    "graphs": 1,
    "plans": 1,
    "hf": 1,
    "losses": 2,
    "schedulers": 2,
    "models": 2,
    "pipelines": 3,
    "data": 3,
    "evaluation": 3,
    "training_utils": 3,
    "conversion_utils": 3,
    "lora_training": 4,
    "midi": 4,
    "serving": 4,
    "cli": 5,
    "__main__": 6,
}
THIRD_PARTY = {  # what a layer may import besides what the layers below it may
    0: {"numpy", "soundfile"},
    1: {"torch", "soxr"},
    2: {"diffusers", "transformers", "einops"},
    3: {"tqdm", "yaml"},
    4: set(),
    5: {"PIL", "uvicorn"},
    6: set(),
}
BY_UNIT = {  # and a unit besides: it is there for that, or an extra installs it
    "compiled": {"numba"},
    "devices": {"numba"},
    "hf": {"diffusers", "huggingface_hub", "peft", "safetensors", "transformers"},
    "data": {"accelerate", "datasets", "filelock", "fsspec", "pyarrow"},
    "evaluation": {"basic_pitch", "librosa", "matplotlib", "mir_eval", "onnxruntime", "visqol"},
    "lora_training": {"peft", "safetensors"},
    "midi": {"pretty_midi"},
    "models": {"triton"},
    "pipelines": {"safetensors"},
    "serving": {"fastapi", "prometheus_client", "pydantic", "starlette"},
    "sound_files": {"av"},
    "spectra": {"transformers"},
    "training_utils": {"accelerate", "psutil", "pydantic", "safetensors"},
}
BLOCKS = {  # within these units a file imports only what it is built of
    "models": {
        "dual_path": {"dual_path_cpu", "segmentation", "sru"},
        "sru": {"sru_cpu", "sru_triton"},
        "semantic_lm": {"decoding_step"},
        "decoding_step": {"decoding_step_cpu"},
        "audio_vae": {"heads"},
        "residual_quantizer": {"clustering"},
        "semantic_tokenizer": {"clustering"},
        "heads": {"heads"},
    },
    "hf": {
        "upstream": {"registry"},
        "hub": {"registry", "upstream"},
        "loading": {"registry"},
        "publishing": {"registry"},
        "peft_folders": {"loading"},
        "lora": {"peft_folders", "publishing"},
        "bases": {"registry", "loading", "publishing", "lora"},
    },
}


def unit_of(module: str) -> str:
    """melody_diffusers.models.sru -> models"""
    return module.split(".")[1]


def imports_of(file: Path, module: str) -> list[str]:
    """Absolute names of everything the file imports, wherever the statement stands."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            in_package = source in (PACKAGE, package)  # `from . import checks` names modules
            found += [f"{source}.{alias.name}" for alias in node.names] if in_package else [source]
    return found


def modules() -> dict[str, Path]:
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = file.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = {name: file for name, file in modules().items() if name != PACKAGE}


def test_every_unit_has_a_layer():
    assert {unit_of(module) for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_keep_to_the_layers(module):
    unit = unit_of(module)
    layer = LAYERS[unit]
    for name in imports_of(MODULES[module], module):
        top = name.split(".")[0]
        if top != PACKAGE:
            allowed = set().union(*(THIRD_PARTY[i] for i in range(layer + 1)), BY_UNIT.get(unit, ()))
            assert top in sys.stdlib_module_names or top in allowed, f"{module} imports {name}"
            continue
        if name == PACKAGE or unit_of(name) not in LAYERS:
            assert layer >= 3, f"{module} imports the root, which knows every layer"
            continue
        other = unit_of(name)
        if other != unit:
            assert LAYERS[other] < layer, f"{module} imports {name}"
        elif unit in BLOCKS:
            allowed = BLOCKS[unit].get(module.split(".")[2], set())
            assert name.split(".")[2] in allowed, f"{module} imports {name}"


@pytest.mark.parametrize("folder", ["training", "conversion"])
def test_scripts_import_the_package_and_never_one_another(folder):
    scripts = sorted((ROOT / folder).glob("*.py"))
    names = {script.stem for script in scripts}
    for script in scripts:
        imported = {name.split(".")[0] for name in imports_of(script, script.stem)}
        shared = imported & names - {"recipe"}  # the table of the stages
        assert not shared, f"{script.name} imports {shared}"


LOUD = ("diffusers", "peft", "transformers")  # complain of torchao, unless the package has been imported before


@pytest.mark.parametrize(
    "script", [*ROOT.glob("training/*.py"), *ROOT.glob("conversion/*.py")], ids=lambda path: path.stem
)
def test_scripts_import_the_package_before_what_it_keeps_quiet(script):
    at_the_top = [node for node in ast.parse(script.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    texts = [ast.unparse(node).split()[1].split(".")[0] for node in at_the_top]
    first_loud = next((i for i, name in enumerate(texts) if name in LOUD), len(texts))
    assert PACKAGE in texts[:first_loud] or first_loud == len(texts)


def test_nothing_in_the_package_reads_pickles():
    for module, file in MODULES.items():
        assert not {"pickle", "joblib", "dill"} & {name.split(".")[0] for name in imports_of(file, module)}, module
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) != "torch.load", module
                risky = [key for key in node.keywords if key.arg in ("allow_pickle", "weights_only")]
                assert all(ast.unparse(key) == "allow_pickle=False" for key in risky), module
