"""What mkdocs needs to know of this repository (a hook of mkdocs.yml).

The site is the repository's pages, each at its own path, with what they link to. Where GitHub shows a link to a sound,
the site plays it. The pages of the API are made of the table of public classes.
"""

import importlib.util
import logging
import re
from html import escape
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)")
FENCE = re.compile(r"^```(\w+) .*$", re.MULTILINE)  # with what only the tests read
HEADER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)  # of a model card, for the Hub
SOUND = re.compile(r'<a href="([^"]+\.(?:ogg|wav|mp3))">([^<]*)</a>')
ROW = re.compile(r"<tr>\n<td>(.*?)</td>.*?</tr>", re.DOTALL)

API = {  # page -> its title; the modules whose public classes it shows, and what else it shows
    "pipelines": (
        "Pipelines",
        (".pipelines.text", ".pipelines.", ".plans"),
        ["pipelines.stages.MeLoDyPipelineOutput", "pipelines.inpaint.MeLoDyInpaintOutput", "pipelines.stages.Stages"],
    ),
    "models": ("Models and scheduler", (".models.", ".schedulers.", ".timebase"), []),
    "functions": (
        "Functions",
        (),
        [
            *("audio.load_audio", "audio.save_audio", "audio.save_patched", "audio.AudioInput", "midi.write_midi"),
            *("pipelines.plan.plan_of", "pipelines.plan.render_plan", "devices.fast_dtypes"),
            *("hf.registry.register", "hf.publishing.model_card", "data.build.build_dataset"),
            *("evaluation.reconstruction.log_mel_distance", "evaluation.reconstruction.si_sdr"),
            *("evaluation.frechet.frechet_distance", "evaluation.kernel.kernel_audio_distance"),
            *("evaluation.embeddings.log_mel_statistics", "evaluation.cycle_consistency.mulan_cycle_consistency"),
            *(
                "evaluation.judges.estimate_bpm",
                "evaluation.plan_runs.longest_run",
                "evaluation.plan_runs.chance_of_run",
            ),
        ],
    ),
}
WHOLE = ("pipelines.stages.Stages",)  # shown with what it inherits: every pipeline has that

# `__all__` of the package is computed, which griffe, that only reads, cannot know and needs not.
logging.getLogger("mkdocs.plugins.griffe").addFilter(lambda record: "__all__" not in record.getMessage())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages at their paths in the repository, and the files that they link to or show."""
    theirs = [file for file in files if file.src_dir != config.docs_dir]  # what the theme brings
    made = {f"docs/api/{name}.md": api_page(name) for name in API}
    ours, waiting = {}, [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        uri = path.relative_to(ROOT).as_posix()
        if uri in ours:
            continue
        ours[uri] = File.generated(config, uri, abs_src_path=str(path))
        if path.suffix == ".md":
            links = (path.parent / link for link in LINK.findall(path.read_text(encoding="utf-8")))
            waiting += [link.resolve() for link in links if link.is_file()]
    added = [File.generated(config, uri, content=text) for uri, text in made.items()]
    return Files([*theirs, *ours.values(), *added])


def api_page(name: str) -> str:
    """The page of the API reference called so, in mkdocstrings' Markdown."""
    title, modules, names = API[name]
    shown: list[str] = []
    spec = importlib.util.spec_from_file_location("registry", ROOT / "src/melody_diffusers/hf/registry.py")
    registry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(registry)
    for module in modules:
        shown += [
            each for each, entry in registry.CLASSES.items() if entry.module.startswith(module) and each not in shown
        ]
    blocks = [f"::: melody_diffusers.{each}{_inherited(each)}" for each in [*shown, *names]]
    return "\n\n".join([f"# {title}", *blocks]) + "\n"


def _inherited(name: str) -> str:
    return "\n    options:\n      inherited_members: true" if name in WHOLE else ""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return FENCE.sub(r"```\1", HEADER.sub("", markdown))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a sound becomes a player; in a table it is called by the row's first cell."""
    html = ROW.sub(lambda row: _players(row[0], row[1]), html)
    return _players(html)


def _players(html: str, name: str | None = None) -> str:
    def player(link: re.Match) -> str:
        label = escape(re.sub(r"<[^>]+>", "", name if name is not None else link[2]))
        style = "max-width: 50vw"  # beside the words, on a phone, too
        return f'<audio controls preload="none" style="{style}" src="{link[1]}" aria-label="{label}"></audio>'

    return SOUND.sub(player, html)
