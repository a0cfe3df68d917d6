"""Every Python block of the README and the docs runs, every relative link leads somewhere, every name exists."""

import importlib
import re
from pathlib import Path

import pytest

import melody_diffusers
from melody_diffusers.evaluation.listeners import has_listener

ROOT = Path(__file__).parents[1]
CARD = Path(melody_diffusers.MELODY_TINY) / "README.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("training/*.md")),
    *sorted(ROOT.glob("conversion/*.md")),
    *sorted(ROOT.glob("integrations/*/*.md")),
    *filter(Path.is_file, [CARD]),
]

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The fragments that headings can be linked by, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(page.read_text())}


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=page_id)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    if page.name == "midi.md" and not has_listener("notes"):
        pytest.skip("needs the extra midi, and basic-pitch")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    for match in BLOCK.finditer(text):
        line = text[: match.start(1)].count("\n")
        exec(compile("\n" * line + match.group(1), page, "exec"), namespace)  # errors show the page's own lines


@pytest.mark.parametrize("page", LINKED, ids=page_id)
def test_relative_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = page if not path else (page.parent / path)
        assert target.exists(), f"{page.name}: {link}"
        if fragment:
            assert fragment in anchors(target), f"{page.name}: {link}"


def test_every_page_is_listed_in_the_index():
    listed = set(LINK.findall((ROOT / "docs" / "index.md").read_text()))
    assert {page.name for page in PAGES if page.parent.name == "docs"} - {"index.md"} <= listed


def test_every_function_and_test_the_paper_map_names_exists():
    """A row reads: paper | `path.py`: `name`, `name` | `tests/path.py`: `test_name`."""
    rows = [line for line in (ROOT / "docs" / "paper_map.md").read_text().splitlines() if line.startswith("| ")]
    checked = 0
    for row in rows:
        for path, names in re.findall(r"`([\w/]+\.py)`(?:: ((?:`[\w.]+`(?:, )?)+))?", row):
            source = ROOT / path if path.startswith(("tests/", "training/")) else ROOT / "src/melody_diffusers" / path
            assert source.is_file(), f"{path} in {row}"
            for name in re.findall(r"`([\w.]+)`", names):
                checked += 1
                if path.startswith(("tests/", "training/")):
                    assert re.search(rf"^(def|class) {name}\b", source.read_text(), re.MULTILINE), f"{path}: {name}"
                else:
                    value = importlib.import_module("melody_diffusers." + path.removesuffix(".py").replace("/", "."))
                    for part in name.split("."):
                        value = getattr(value, part)
    assert checked > 20


def test_the_readme_begins_with_the_two_commands():
    """The first screen has exactly two set-up commands."""
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    commands = "".join(re.findall(r"```bash\n(.*?)```", first_screen, re.DOTALL)).splitlines()
    assert [c.split()[:2] for c in commands] == [["make", "music"], ["make", "test"]]
