"""`make docs`: the site builds without a warning, shows what GitHub shows, plays the samples and asks nobody else."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import melody_diffusers

ROOT = Path(__file__).parents[1]
COUNTED = ("h1", "h2", "h3", "h4", "li", "tr", "pre", "img", "p", "strong", "em", "blockquote")

pytest.importorskip("material", reason="needs the extra docs")


class Elements(HTMLParser):
    """How many of each kind are within <article>, or everywhere in what has none; what is fetched; what plays."""

    def __init__(self, html: str):
        super().__init__()
        self.counts = dict.fromkeys(COUNTED, 0)
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.players: list[dict[str, str | None]] = []
        self._counts = "<article" not in html
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self._counts = self._counts or tag == "article"
        if self._counts and tag in self.counts:
            self.counts[tag] += 1
        if tag == "audio":
            self.players.append(values)
        if tag == "link" and values["rel"] not in ("prev", "next", "canonical"):
            self.fetched.append(values["href"])
        self.fetched += [values[name] for name in ("src", "srcset") if values.get(name)]
        self.ids.add(values.get("id"))

    def handle_endtag(self, tag):
        self._counts = self._counts and tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr  # a link or an anchor that leads nowhere is a warning, and that an error
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Elements]:
    return {str(path.relative_to(site)): Elements(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_shows_what_github_shows(pages):
    from markdown_it import MarkdownIt

    github = MarkdownIt("gfm-like", {"linkify": False})
    sources = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for source in sources:
        name = "index.html" if source.name == "README.md" else str(source.relative_to(ROOT).with_suffix(".html"))
        assert pages[name].counts == Elements(github.render(source.read_text("utf-8"))).counts, name


def test_each_sample_is_played_in_the_page(site, pages):
    players = pages["docs/samples.html"].players
    assert {player["src"] for player in players} == {f"samples/{f.name}" for f in ROOT.glob("docs/samples/*.ogg")}
    for player in players:
        assert (site / "docs" / player["src"]).read_bytes()[:4] == b"OggS"
        assert "controls" in player and player["preload"] == "none"
    assert "Tender solo piano at 72 bpm" in [player["aria-label"] for player in players]


def test_nothing_is_fetched_from_elsewhere(site, pages):
    for name, page in pages.items():
        for address in page.fetched:
            assert not re.match(r"(https?:)?//", address), f"{name} fetches {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8")), style


def test_every_public_class_is_in_the_reference(pages):
    shown = pages["docs/api/pipelines.html"].ids | pages["docs/api/models.html"].ids
    shown |= {name.replace("hf.registry.", "") for name in pages["docs/api/functions.html"].ids if name}
    wanted = {f"melody_diffusers.{name}" for name in melody_diffusers.__all__}
    assert wanted - shown == {"melody_diffusers.MELODY_TINY", "melody_diffusers.__version__"}


def test_the_search_finds_pages_and_functions(site):
    entries = json.loads((site / "search" / "search_index.json").read_text("utf-8"))["docs"]
    found = {entry["location"] for entry in entries if "audio_prompt_weight" in entry["text"]}
    assert any(location.startswith("docs/api/pipelines.html#") for location in found)
    assert any(location.startswith("docs/choose.html") for location in (entry["location"] for entry in entries))
