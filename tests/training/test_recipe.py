"""The recipe makes what is not there and what has changed, and nothing else."""

import json
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TRAINING = Path(__file__).parents[2] / "training"
RECIPE = runpy.run_path(str(TRAINING / "recipe.py"))
Stage, Recipe = RECIPE["Stage"], RECIPE["Recipe"]

SCRIPT = """
import hashlib, sys
from pathlib import Path
settings = dict(word.split("=", 1) for word in sys.argv[sys.argv.index("--set") + 1 :])
out = Path(settings.pop("run.output_dir"))
(out / "checkpoints").mkdir(parents=True, exist_ok=True)
with open(out.parent / "log", "a") as log:
    log.write(out.name + "\\n")
kept = out / "checkpoints" / "progress"
if (out.parent / "stop").exists():  # as a training that was told to stop: without an error
    kept.write_text("half")
    sys.exit(0)
content = kept.read_text() if kept.exists() else "from nothing"
for key, value in settings.items():
    files = sorted(Path(value).glob("*.*")) if key.startswith("data.") else []
    content += key + "".join(file.read_text() for file in files) or value
content += Path(sys.argv[sys.argv.index("--config") + 1]).read_text().partition("log_every")[0].rstrip()
(out / "config.json").write_text(content)
(out / "run.yaml").write_text("not for others")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data set of one song, three scripts and their configurations."""
    for name in ("vae", "encoded", "lm"):
        write_config(tmp_path, name)
        script = f"train_{name}.py" if name != "encoded" else "encode.py"
        (tmp_path / script).write_text(SCRIPT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_text("song")
    return tmp_path


def write_config(place: Path, name: str, **run) -> None:
    folder = place / "configs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"run": {"max_steps": 3, **run}}, sort_keys=False))


def make(place: Path, *overrides: str) -> int:
    def stage(name: str, script: str, sets: str):
        config = str(place / "configs" / name)
        return Stage(name, name, str(place / script), config, sets=f"{sets} run.output_dir={{out}}")

    stages = [
        stage("vae", "train_vae.py", "data.folder={data}"),
        stage("encoded", "encode.py", "data.vae={vae} data.folder={data}"),
        stage("lm", "train_lm.py", "data.folder={encoded}"),
    ]
    recipe = Recipe(str(place / "data"), str(place / "out"), str(place / "model"), overrides, stages=stages)
    return recipe.make("lm")


def log(place: Path) -> list[str]:
    """Which scripts have run since the last look."""
    file = place / "out" / "log"
    names = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return names


@pytest.fixture
def made(place: Path) -> Path:
    assert make(place) == 0 and log(place) == ["vae", "encoded", "lm"]
    return place


def test_nothing_changed_and_nothing_runs(made, capsys):
    assert make(made) == 0 and log(made) == []
    assert "lm: nothing to be done" in capsys.readouterr().out


def test_a_copy_elsewhere_is_as_done_as_the_original(made, tmp_path):
    shutil.copytree(made / "out", tmp_path / "moved" / "out")
    for name in ("data", "configs"):
        shutil.copytree(made / name, tmp_path / "moved" / name, copy_function=shutil.copyfile)
    for script in made.glob("*.py"):
        shutil.copy(script, tmp_path / "moved")
    notes = tmp_path / "moved" / "out" / ".recipe"
    for note in notes.glob("*.json"):  # the toy scripts alone are named by their whole path
        note.write_text(note.read_text().replace(str(made), str(tmp_path / "moved")))
    assert make(tmp_path / "moved") == 0 and log(tmp_path / "moved") == []


def test_added_songs_are_heard(made, capsys):
    (made / "data" / "more.parquet").write_text("another song")
    assert make(made) == 0 and log(made) == ["vae", "encoded", "lm"]
    printed = capsys.readouterr().out
    assert "vae: again, because data changed" in printed and "lm: again, because parent encoded changed" in printed


def test_a_song_may_change_and_keep_its_length(made):
    (made / "data" / "train.parquet").write_text("gong")
    assert make(made) == 0 and log(made) == ["vae", "encoded", "lm"]


def test_a_changed_configuration_is_named(made, capsys):
    write_config(made, "lm", max_steps=5)
    assert make(made) == 0 and log(made) == ["lm"]
    assert "lm: again, because config (run.max_steps) changed" in capsys.readouterr().out
    write_config(made, "lm", max_steps=5, log_every=7)  # changes what is printed, and nothing that is learnt
    assert make(made) == 0 and log(made) == []


def test_numbers_of_the_user_are_configuration_of_trainings(made):
    assert make(made, "run.max_steps=5") == 0 and log(made) == ["vae", "encoded", "lm"]
    assert make(made, "run.max_steps=5") == 0 and log(made) == []
    assert make(made) == 0 and log(made) == ["vae", "encoded", "lm"]


def test_a_parent_that_was_trained_by_hand_is_noticed(made, capsys):
    (made / "out" / "vae" / "config.json").write_text("other weights")
    (made / "out" / "vae" / "run.yaml").write_text("which do not count")
    assert make(made) == 0 and log(made) == ["encoded", "lm"]
    assert "encoded: again, because parent vae changed" in capsys.readouterr().out


def test_children_of_what_came_out_the_same_are_left_alone(made):
    """The VAE is trained again, as its configuration says otherwise, and gives the same."""
    file = made / "configs" / "vae" / "tiny.yaml"
    text = file.read_text()
    write_config(made, "vae", log_every=3, weight_decay=0.0)
    assert file.read_text().partition("log_every")[0].rstrip() == text.rstrip()
    assert make(made) == 0 and log(made) == ["vae"]


def test_what_was_interrupted_goes_on(place, capsys):
    (place / "out").mkdir()
    (place / "out" / "stop").touch()
    assert make(place) == 0 and log(place) == ["vae"]
    assert "vae is not done, nor what comes after it: the same command goes on" in capsys.readouterr().out
    (place / "out" / "stop").unlink()
    assert make(place) == 0 and log(place) == ["vae", "encoded", "lm"]
    assert "vae: go on, because it was interrupted" in capsys.readouterr().out
    assert (place / "out" / "vae" / "config.json").read_text().startswith("half")


def test_checkpoints_of_another_training_are_not_continued(made):
    """And its weights, which lie there until there are new ones, are not taken for them."""
    weights, progress = (made / "out" / "vae" / name for name in ("config.json", "checkpoints/progress"))
    old = weights.read_text()
    progress.write_text("another training")
    write_config(made, "vae", max_steps=5)
    (made / "out" / "stop").touch()
    assert make(made) == 0 and log(made) == ["vae"]
    assert weights.read_text() == old and progress.read_text() == "half"
    (made / "out" / "stop").unlink()
    assert make(made) == 0 and log(made) == ["vae", "encoded", "lm"]
    assert weights.read_text().startswith("half") and "max_steps: 5" in weights.read_text()
    progress.write_text("another training")
    write_config(made, "vae", max_steps=7)
    assert make(made) == 0 and weights.read_text().startswith("from nothing")


def test_stages_without_notes_are_taken_as_they_are(made, capsys):
    shutil.rmtree(made / "out" / ".recipe")
    assert make(made) == 0 and log(made) == []
    assert "vae: found in" in capsys.readouterr().out
    write_config(made, "lm", max_steps=5)
    assert make(made) == 0 and log(made) == ["lm"]
    shutil.rmtree(made / "out" / ".recipe")
    shutil.rmtree(made / "out" / "vae")
    assert make(made) == 0 and log(made) == ["vae", "encoded", "lm"]  # which were built on another


def test_a_stage_that_fails_ends_it(made, capsys):
    (made / "train_lm.py").write_text("raise SystemExit(3)")
    write_config(made, "lm", max_steps=5)
    assert make(made) == 3 and "lm failed" in capsys.readouterr().out
    (made / "train_lm.py").write_text(SCRIPT)
    assert make(made) == 0 and log(made) == ["lm"]


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_command_that_is_told_to_stop_may_save_first(tmp_path):
    """SIGTERM to the recipe reaches the training, and the recipe waits for it."""
    child = "import signal, sys, time\n" + "def stop(*_):\n    time.sleep(0.5); print('saved'); sys.exit(7)\n"
    child += "signal.signal(signal.SIGTERM, stop); print('begun', flush=True); time.sleep(60)"
    code = "import sys, recipe; sys.exit(recipe.run([sys.executable, '-c', sys.argv[1]]))"
    process = subprocess.Popen([sys.executable, "-c", code, child], cwd=TRAINING, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    process.terminate()
    assert process.communicate(timeout=30)[0] == "saved\n" and process.returncode == 7


def test_a_data_set_that_is_not_there_is_asked_for(place, capsys):
    shutil.rmtree(place / "data")
    assert make(place) == 2
    assert "`melody data build`" in capsys.readouterr().out


def test_the_readme_has_the_same_stages():
    """Each with its command, less what its configuration says already."""
    recipe, rows = Recipe(), ["| step | command | writes |", "|---|---|---|"]
    for stage in recipe.stages.values():
        command = recipe.command(stage)
        if stage.config is not None:
            said = RECIPE["flatten"](yaml.safe_load(stage.config_file().read_text()))
            start = command.index("--set") + 1
            new = [setting for setting in command[start:] if str(said.get((kv := setting.split("="))[0])) != kv[1]]
            command = [*command[: start if new else start - 1], *new]
        rows.append(f"| {stage.title} | `{shlex.join(command)}` | {recipe.places[stage.name]} |")
    assert "\n".join(rows) in (TRAINING / "README.md").read_text(encoding="utf-8")


def test_every_stage_has_a_script_and_parents_that_come_before_it():
    seen = set()
    for stage in RECIPE["STAGES"]:
        assert stage.script.startswith("melody ") or (TRAINING / stage.script).is_file()
        assert stage.reads - {"data"} <= seen
        if stage.config is not None:
            sections = yaml.safe_load(stage.config_file().read_text())
            assert all(setting.split(".")[0] in sections for setting in stage.sets.split())
        seen.add(stage.name)


def test_what_would_run_is_listed(capsys, tmp_path):
    arguments = ["--list", "--stages", str(tmp_path), "--until", "semantic_encoder", "--max_minutes", "9"]
    assert RECIPE["main"]([*arguments, "--set", "run.max_steps=7"]) == 0
    *_, why, command = capsys.readouterr().out.splitlines()
    assert why == "# semantic_encoder: start, because it is not there"
    assert command.startswith("python") and "--max_minutes 9 --set data.folder=data/synthetic" in command
    assert command.endswith("run.max_steps=7") and not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("given", [{}, {"VIRTUAL_ENV": "/somewhere"}, {"VENV": "/elsewhere"}])
def test_make_calls_the_recipe_in_the_right_environment(given):
    environment = {"PATH": os.environ["PATH"]} | given
    command = ["make", "-n", "model", "DATA=my songs", "MINUTES=9", "SET=run.max_steps=3 run.batch_size=4"]
    printed = subprocess.run(command, cwd=TRAINING.parent, env=environment, capture_output=True, text=True, check=True)
    words = shlex.split(printed.stdout.splitlines()[-1])
    assert words[0] == f"{given.get('VENV') or given.get('VIRTUAL_ENV') or '.venv'}/bin/python"
    assert words[1:4] == ["training/recipe.py", "--data", "my songs"]
    assert words[-7:] == ["--max_minutes", "9", "--set", "run.max_steps=3", "run.batch_size=4", "--until", "pipeline"]


def test_a_song_set_of_one_s_own_needs_no_synthetic_one(tmp_path):
    (tmp_path / "songs").mkdir()
    recipe = Recipe(str(tmp_path / "songs"), str(tmp_path / "out"), str(tmp_path / "model"))
    names = [stage.name for stage in recipe.needed("pipeline")]
    assert names == [s.name for s in RECIPE["STAGES"] if s.name not in ("synthetic", "judges", "evaluation")]
    assert Recipe().needed("vae_gan")[0].name == "synthetic"
    assert json.dumps(recipe.facts(recipe.stages["dual_path"]))


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_ctrl_c_ends_a_stage_that_saves_nothing_without_an_error(place):
    """Neither a traceback nor an exit code that make would call an error; and nothing is called done."""
    (place / "train_vae.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(TRAINING)]}\n"
    code += "from pathlib import Path; import test_recipe; sys.exit(test_recipe.make(Path(sys.argv[1])))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.stdout.readline() != "begun\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in errors
    assert "vae is not done, nor what comes after it: the same command goes on" in printed and ": done" not in printed
    (place / "train_vae.py").write_text(SCRIPT)
    assert make(place) == 0 and log(place) == ["vae", "encoded", "lm"]


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_minutes_end_the_encoding_which_goes_on(tmp_path, capsys):
    (tmp_path / "encode.py").write_text("import time\ntime.sleep(60)\n")
    stage = Stage("encoded", "encoding", str(tmp_path / "encode.py"), keeps_parts=True, arguments="{data}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_text("song")
    places = [str(tmp_path / name) for name in ("data", "out", "model")]
    assert Recipe(*places, minutes=0.01, stages=[stage]).make("encoded") == 0
    assert "encoded is not done" in capsys.readouterr().out
    assert Recipe(*places, stages=[stage]).state(stage) == ("go on", "it was interrupted")
