import ast
import inspect
import os
import statistics
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import melody_diffusers
from melody_diffusers.hf.registry import CLASSES

ROOT = Path(__file__).parents[1]

PUBLIC = """
    AngleScheduler AudioVAEGAN AudioVAEGANConfig DualPathDiffusionModel MELODY_TINY MeLoDyInpaintPipeline
    MeLoDyInputError MeLoDyPipeline MeLoDyStreamPipeline MeLoDyVariationPipeline MuLanConfig MuLanModel
    MultiPeriodDiscriminator MultiResolutionDiscriminator MusicPlan ResidualQuantizer SemanticLM SemanticLMConfig
    SemanticTokenizer SemanticTokenizerConfig StreamState Timebase __version__ register
"""


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_public_names_are_these_and_all_resolve():
    assert sorted(melody_diffusers.__all__) == sorted(PUBLIC.split())
    assert dir(melody_diffusers) == sorted(PUBLIC.split())
    for name in melody_diffusers.__all__:
        value = getattr(melody_diffusers, name)
        if not isinstance(value, str):
            assert value.__name__ == name
            assert inspect.getdoc(value), f"{name} has no docstring"


def test_the_names_for_type_checkers_are_the_same():
    tree = ast.parse(Path(melody_diffusers.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    checked = {alias.name: "." * node.level + node.module for node in block.body for alias in node.names}
    assert checked == {name: entry.module for name, entry in CLASSES.items()}


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'MeLodyPipeline'"):
        melody_diffusers.MeLodyPipeline  # noqa: B018


def test_import_is_quick_and_brings_nothing_heavy():
    code = "import melody_diffusers, sys; print(*({'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)))"
    assert run_python(code).stdout.strip() == ""

    def seconds(code: str) -> float:
        started = time.perf_counter()
        run_python(code)
        return time.perf_counter() - started

    bare, ours = ([seconds(code) for _ in range(3)] for code in ("pass", "import melody_diffusers"))
    assert statistics.median(ours) - statistics.median(bare) < 0.3


@pytest.mark.parametrize("state", ["enable", "disable"])
def test_a_class_is_imported_without_collecting_garbage_which_goes_on_as_before(state):
    code = (
        f"import gc, melody_diffusers; gc.{state}(); seen = []; gc.callbacks.append(lambda *_: seen.append(1)); "
        "melody_diffusers.SemanticLMConfig; print(len(seen), gc.isenabled())"
    )
    assert run_python(code).stdout.split() == ["0", str(state == "enable")]


def test_the_version_is_that_of_the_installed_package():
    assert melody_diffusers.__version__ == version("melody-diffusers")


def test_the_wheel_holds_the_package_with_its_checkpoint_and_nothing_else(tmp_path):
    pytest.importorskip("hatchling")
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as wheel:
        names = wheel.namelist()
    source = ROOT / "src"
    package = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    package = {name for name in package if "__pycache__" not in name and "/." not in name}
    assert {name for name in names if ".dist-info/" not in name} == package
    assert "melody_diffusers/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_shipped_checkpoint_is_small_and_complete():
    folder = Path(melody_diffusers.MELODY_TINY)
    assert (folder / "model_index.json").is_file() and (folder / "README.md").is_file()
    weights = list(folder.rglob("*.safetensors"))
    teacher = folder / "dual_path" / "diffusion_pytorch_model.teacher.safetensors"  # by which adapters learn
    assert teacher in weights and len(weights) == 6 + 1
    assert sum(os.path.getsize(file) for file in weights) <= 40e6


@pytest.fixture
def project() -> dict:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_metadata_names_the_pythons_that_are_allowed(project):
    versions = [c.rsplit(" ", 1)[1] for c in project["classifiers"] if c.startswith("Programming Language")]
    assert versions == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert project["requires-python"] == ">=3.10,<3.15"


def test_constraints_pin_every_direct_dependency_exactly(project):
    wanted = [*project["dependencies"]]
    for extra in ("data", "train", "eval", "midi", "judges", "formats", "docs"):
        wanted += project["optional-dependencies"][extra]
    pins = (ROOT / "constraints.txt").read_text()
    own = f"{project['name']}["  # an extra within an extra
    for requirement in wanted:
        name = requirement.split(">=")[0]
        assert name.startswith(own) or f"\n{name.partition('[')[0]}==" in pins, (
            f"{name} is not pinned in constraints.txt"
        )
