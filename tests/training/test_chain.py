"""Every stage for two steps, each on the last one's output, then music: the scripts fit together."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertTokenizerFast, RobertaTokenizer

from melody_diffusers import AngleScheduler, DualPathDiffusionModel, MeLoDyPipeline, MuLanModel, ResidualQuantizer
from melody_diffusers.pipelines.denoise import Diagonal

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "training" / "configs"
Recipe = runpy.run_path(str(ROOT / "training" / "recipe.py"))["Recipe"]
pytest.importorskip("tinysoundfont._tinysoundfont", reason="renders the clips: pip install --no-deps tinysoundfont")


def run_script(monkeypatch, script: str | Path, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [*map(str, (script, *arguments))])
    monkeypatch.syspath_prepend(str((ROOT / "training" / script).parent))
    runpy.run_path(str(ROOT / "training" / script), run_name="__main__")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain") / "synthetic"
    with pytest.MonkeyPatch.context() as monkeypatch:
        build = ["--out", folder, "--hours", 0.2, "--workers", 0, "--test_font", "none"]
        run_script(monkeypatch, "synthetic/build.py", *build)
    # so few pieces all fall into the train split: cut it in three
    (built,) = folder.glob("data/train-*.parquet")
    clips = pyarrow.parquet.read_table(built)
    for split, (start, stop) in {"train": (0, 20), "validation": (20, 28), "test": (28, len(clips))}.items():
        pyarrow.parquet.write_table(clips[start:stop], folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def write_tokenizer(folder: Path) -> Path:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a with piano slow fast waltz house techno bright dark"
    BertTokenizerFast(vocab={word: i for i, word in enumerate(words.split())}, model_max_length=64).save_pretrained(
        folder
    )
    return folder


@pytest.mark.timeout(600)
def test_every_stage_trains_on_the_last_ones_output_and_the_whole_makes_music(dataset, tmp_path, monkeypatch, capsys):
    stages, tokenizer = tmp_path / "stages", write_tokenizer(tmp_path / "tokenizer")
    two_steps = ["run.max_steps=2", "run.batch_size=2", "run.budget_minutes=null", "run.log_every=1"]
    few = ["data.statistics_clips=4", "data.heldout_clips=2"]
    small = {
        "vae_gan": few,
        "mulan": [f"data.tokenizer={tokenizer}", "data.text_tower=null", "data.prompts=null"],
        "mulan_quantizer": ["run.num_iterations=2"],
        "semantic_encoder": few,
        "semantic_tokenizer": ["cluster.num_centroids=64"],
        "semantic_lm": ["model.semantic_codebook_size=64", "data.heldout_passes=1"],
        "dual_path": ["model.semantic_codebook_size=64", "data.validation_windows=2"],
        "distilled": ["data.validation_windows=2", "optim.learning_rate=0.0", "run.ema_decay=null"],
    }
    recipe = Recipe(str(dataset), str(stages), str(tmp_path / "pipeline"), two_steps)
    for stage in recipe.needed("pipeline"):
        if stage.name != "text_tower":  # has a teacher, whose package is large
            _, script, *arguments = recipe.command(stage)
            run_script(monkeypatch, Path(script).resolve(), *arguments, *small.get(stage.name, []))

    encoded = [f"data.folder={stages / 'encoded'}", "model.semantic_codebook_size=64"]
    quantizer = f"data.mulan_quantizer={stages / 'mulan_quantizer'}"
    unchanging = [*two_steps, *encoded, "optim.learning_rate=0.0", "run.ema_decay=null"]
    again = (
        ("semantic_lm", [], 64),  # the rows behind belong to MuLan tokens, which get new embeddings
        ("semantic_lm", [quantizer], 64),
        ("semantic_lm", [quantizer, "data.keep_mulan=true"], None),
        ("dual_path", [], None),
    )
    for number, (name, options, kept) in enumerate(again):
        out = tmp_path / f"again{number}"
        run = [*unchanging, f"run.output_dir={out}", f"data.start={stages / name}", *options]
        run_script(monkeypatch, f"train_{name}.py", "--config", CONFIGS / name / "tiny.yaml", "--set", *run)
        before, after = (load_file(next(folder.glob("*.safetensors"))) for folder in (stages / name, out))
        rows = {"model.embed_tokens.weight": kept}
        assert all(torch.equal(after[key][: rows.get(key)], before[key][: rows.get(key)]) for key in before)
        if options == [quantizer]:  # the distances between the tokens of a codebook are those of its centroids
            codebook = load_file(next((stages / "mulan_quantizer").glob("*.safetensors")))["codebooks"][0].float()
            embeddings = after["model.embed_tokens.weight"][64 : 64 + len(codebook), : codebook.shape[-1]]
            distances, expected = torch.cdist(embeddings, embeddings), torch.cdist(codebook, codebook)
            ratio = distances.mean() / expected.mean()
            assert ratio > 0 and torch.allclose(distances, ratio * expected, atol=1e-3 * float(distances.max()))

    student, teacher = (load_file(next((stages / name).glob("*.safetensors"))) for name in ("distilled", "dual_path"))
    assert student.keys() == teacher.keys() and all(torch.equal(student[key], teacher[key]) for key in student)
    earlier = DualPathDiffusionModel.from_pretrained(stages / "distilled")
    for parameter in earlier.parameters():
        parameter.data.mul_(0.5)
    earlier.save_pretrained(tmp_path / "earlier")
    run = [*two_steps, f"data.folder={stages / 'encoded'}", f"data.teacher={stages / 'dual_path'}", *small["distilled"]]
    run += [f"data.start={tmp_path / 'earlier'}", f"run.output_dir={tmp_path / 'later'}"]
    run_script(monkeypatch, "distill_dual_path.py", "--config", CONFIGS / "distilled" / "tiny.yaml", "--set", *run)
    before, after = (load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("earlier", "later"))
    assert all(torch.equal(before[key], after[key]) for key in before)

    for name in ("vae_gan", "mulan", "semantic_encoder", "semantic_lm", "dual_path"):
        recorded = yaml.safe_load((stages / name / "run.yaml").read_text())
        assert recorded["run"]["max_steps"] == 2
    pipe = MeLoDyPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    audio = pipe("a slow waltz", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).audios
    assert audio.shape == (1, 1, 240_000) and abs(audio).max() > 0
    assert "held-out" in capsys.readouterr().out


def test_a_diffusion_model_begins_as_another_that_hears_no_prompt_and_as_none_of_other_sizes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    from train_dual_path import begin

    sizes = dict(latent_dim=4, num_frames=40, semantic_codebook_size=8, hidden_size=16, segment_length=8)
    sizes |= dict(num_attention_heads=2, num_coarse_layers=1, mlp_size=24, angle_embedding_size=8)
    before = DualPathDiffusionModel(**sizes, num_blocks=2)
    before.save_pretrained(tmp_path)
    after = DualPathDiffusionModel(**sizes, num_blocks=2, num_mulan_codebooks=2, mulan_codebook_size=4, mulan_dim=6)
    with pytest.raises(ValueError, match="data.mulan_quantizer: a model with model.num_mulan_codebooks needs one"):
        begin(after, str(tmp_path), None)
    quantizer = ResidualQuantizer(2, 4, 6)
    torch.nn.init.normal_(quantizer.codebooks)
    quantizer.save_pretrained(tmp_path / "quantizer")
    begin(after, str(tmp_path), str(tmp_path / "quantizer"))
    assert torch.equal(after.mulan_embedding.codebooks, quantizer.codebooks)
    assert all(torch.equal(after.state_dict()[name], weight) for name, weight in before.state_dict().items())
    with pytest.raises(ValueError, match="is of other sizes than model; they do not share blocks.2"):
        begin(DualPathDiffusionModel(**sizes, num_blocks=3), str(tmp_path), None)


def test_a_student_goes_in_one_step_where_its_teacher_goes_in_two(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    from distill_dual_path import DataConfig, diagonal_angles, step_angles, teacher_velocity, two_steps

    generator = torch.Generator().manual_seed(0)
    angle = step_angles(torch.rand(64, 4, generator=generator), num_frames=8, num_steps=3, known_share=0.25)
    counts = torch.stack([(angle / (torch.pi / 6)).round() == step for step in range(4)]).float().mean((1, 2))
    torch.testing.assert_close(angle, (angle / (torch.pi / 6)).round() * torch.pi / 6)
    assert ((counts - 0.25).abs() < 0.08).all()

    diagonal = Diagonal(window=8, chunk=2, abreast=2, calls=1)
    along = diagonal_angles(torch.tensor([0.0, 0.21, 0.41, 0.61, 0.81]), diagonal)
    assert (along / (torch.pi / 4)).round().int().tolist() == [
        [2, 2, 2, 2, 2, 2, 2, 2],
        [1, 1, 2, 2, 2, 2, 2, 2],
        [0, 0, 1, 1, 2, 2, 2, 2],
        [0, 0, 0, 0, 1, 1, 2, 2],
        [0, 0, 0, 0, 1, 1, 2, 2],  # the window moves on
    ]

    music, noise = torch.randn(2, 64, 8, 5, generator=generator)
    noisy = AngleScheduler().add_noise(music, noise, angle)

    def velocity_of(factor: float) -> Callable:
        """Of a teacher that believes the music to be `factor` times as loud."""

        def velocity(z: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
            d = d[..., None]
            return (z * d.cos() - factor * music) / d.sin().clamp(min=1e-6)

        return velocity

    omega = torch.pi / 12
    true = AngleScheduler().get_velocity(music, noise, angle) * (angle > 0)[..., None]
    torch.testing.assert_close(two_steps(velocity_of(1.0), noisy, angle, omega), true, atol=1e-4, rtol=1e-4)

    learnt, d = two_steps(velocity_of(0.8), noisy, angle, omega), angle
    there = AngleScheduler().step(learnt, d, noisy, next_timestep=(d - 2 * omega).clamp(min=0)).prev_sample
    by_hand = noisy
    for _ in range(2):
        after = (d - omega).clamp(min=0)
        by_hand = AngleScheduler().step(velocity_of(0.8)(by_hand, d), d, by_hand, next_timestep=after).prev_sample
        d = after
    known = (angle == 0)[..., None]
    torch.testing.assert_close(there, torch.where(known, noisy, by_hand), atol=1e-4, rtol=1e-4)

    def network(z: torch.Tensor, d: torch.Tensor, tokens: torch.Tensor, prompt: torch.Tensor) -> SimpleNamespace:
        assert len(z) == len(d) and len(tokens) == len(prompt) == 2
        return SimpleNamespace(
            sample=torch.cat([torch.full_like(z[: len(tokens)], 2.0), torch.ones_like(z[len(tokens) :])])
        )

    scales = {"guidance_scale": 3.0, "guidance_interval": (0.0, 0.85), "guidance_rescale": 0.0}
    data = DataConfig(folder="", teacher="", **scales)
    angles = torch.tensor([[0.1, 1.5]])
    guided = teacher_velocity(network, (torch.zeros(2, 1), torch.zeros(2, 3)), data)(
        torch.zeros(2, 2, 1), angles.expand(2, 2)
    )
    assert guided[..., 0].tolist() == [[4.0, 2.0]] * 2  # 1 + 3 (2 - 1) within the interval


@pytest.fixture(scope="module")
def start(tmp_path_factory, make_components) -> Path:
    """A MuLan and its tokenizer, of another kind than BERT's, in one folder: what conversion/ writes."""
    folder = tmp_path_factory.mktemp("start")
    make_components()["mulan"].save_pretrained(folder)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=512).save_pretrained(folder / "tokenizer")
    return folder


def test_mulan_goes_on_from_a_whole_one(dataset, start, tmp_path, monkeypatch):
    """With a learning rate of 0 it is the one it started from, sizes and weights, and so is its tokenizer."""
    data, output = f"data.folder={dataset}", f"run.output_dir={tmp_path / 'mulan'}"
    without_towers = [
        f"data.start={start}",
        *(f"data.{name}=null" for name in ("tokenizer", "text_tower", "audio_tower")),
    ]
    run = ["run.max_steps=2", "run.batch_size=2", "run.num_workers=0", 'run.mixed_precision="no"']
    run += ["optim.learning_rate=0.0", "data.word_dropout=0.5", output]
    config = CONFIGS / "mulan" / "paper.yaml"
    run_script(monkeypatch, "train_mulan.py", "--config", config, "--set", data, *without_towers, *run)

    before, after = MuLanModel.from_pretrained(start), MuLanModel.from_pretrained(tmp_path / "mulan")
    assert before.config.to_diff_dict() == after.config.to_diff_dict()
    assert all(torch.equal(after.state_dict()[name], weight) for name, weight in before.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "mulan" / "tokenizer")
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab")["input_ids"]) == ["<s>", "a", "b", "</s>"]
    assert tokenizer.model_max_length == before.config.text_config.max_position_embeddings

    quantizer = [f"data.mulan={tmp_path / 'mulan'}", f"data.tokenizer={tmp_path / 'mulan' / 'tokenizer'}"]
    quantizer += [f"model.dim={before.config.projection_dim}", "model.codebook_size=8", "run.num_iterations=1"]
    quantizer += [f"run.output_dir={tmp_path / 'mulan_quantizer'}", data]
    config = CONFIGS / "mulan_quantizer" / "tiny.yaml"
    run_script(monkeypatch, "fit_mulan_quantizer.py", "--config", config, "--set", *quantizer)
    quantizer += [f"data.start={tmp_path / 'mulan_quantizer'}", "run.num_iterations=0"]
    quantizer += [f"run.output_dir={tmp_path / 'refined'}"]
    run_script(monkeypatch, "fit_mulan_quantizer.py", "--config", config, "--set", *quantizer)
    fitted, refined = (ResidualQuantizer.from_pretrained(tmp_path / name) for name in ("mulan_quantizer", "refined"))
    assert torch.equal(fitted.codebooks, refined.codebooks) and fitted.codebooks.unique(dim=1).shape[1] > 1


def test_the_text_tower_learns_alone(dataset, start, tmp_path, monkeypatch):
    run = ["run.max_steps=2", "run.batch_size=2", "run.budget_minutes=null", f"run.output_dir={tmp_path / 'mulan'}"]
    run += [f"data.folder={dataset}", f"data.start={start}", "data.prompts=null"]
    run_script(monkeypatch, "train_mulan.py", "--config", CONFIGS / "mulan" / "text.yaml", "--set", *run)
    before, after = (MuLanModel.from_pretrained(place).state_dict() for place in (start, tmp_path / "mulan"))
    same = {name for name, weight in before.items() if torch.equal(after[name], weight)}
    assert {name for name in before if name.startswith("audio")} <= same
    assert "text_projection.weight" not in same and "text_tower.embeddings.word_embeddings.weight" in same


def test_mulan_trains_on_recordings_without_words(dataset, start, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    (bare / "data").mkdir(parents=True)
    for file in (dataset / "data").glob("*.parquet"):
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(file, columns=["audio"]), bare / "data" / file.name)
    mulan, tokenizer = tmp_path / "mulan", tmp_path / "mulan" / "tokenizer"
    run = ["run.max_steps=2", "run.batch_size=2", "run.budget_minutes=null", f"run.output_dir={mulan}"]
    run += [f"data.folder={bare}", f"data.start={start}", "data.text_tower=null", "data.tokenizer=null"]
    config = yaml.safe_load((CONFIGS / "mulan" / "tiny.yaml").read_text()) | {"model": {}}
    (tmp_path / "mulan.yaml").write_text(yaml.safe_dump(config))
    run_script(monkeypatch, "train_mulan.py", "--config", tmp_path / "mulan.yaml", "--set", *run)
    width = MuLanModel.from_pretrained(mulan).config.projection_dim
    quantizer = [f"data.folder={bare}", f"data.mulan={mulan}", f"data.tokenizer={tokenizer}", f"model.dim={width}"]
    quantizer += ["model.codebook_size=8", "run.num_iterations=1", f"run.output_dir={tmp_path / 'quantizer'}"]
    config = CONFIGS / "mulan_quantizer" / "tiny.yaml"
    run_script(monkeypatch, "fit_mulan_quantizer.py", "--config", config, "--set", *quantizer)


def test_tags_are_asked_of_the_rows_that_have_them(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    from train_mulan import TagReader

    assert TagReader([{"drums": True}, {"drums": False}], ["drums"], width=4).targets.tolist() == [[0, 1], [1, 0]]
    rows = [{"key": "A", "bpm": 100}, {"key": "B", "bpm": 104}, {"key": None, "bpm": None}, {"key": "A", "bpm": 150}]
    reader = TagReader(rows, ["key", "bpm"], width=4)
    keys, tempi = reader.targets.split(reader.sizes, dim=1)
    assert keys.tolist() == [[1, 0], [0, 1], [0, 0], [1, 0]]
    assert torch.allclose(tempi.sum(1), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert tempi[0].argmax() + 1 == tempi[1].argmax()  # a bin is 4 % wide
    with torch.no_grad():
        reader.linear.weight.zero_()
        reader.linear.bias.copy_(torch.cat([torch.tensor([9.0, -9.0]), 9 * tempi[0]]))
    embeds = torch.full((1, 4), 0.5)
    assert reader(embeds, torch.tensor([0])) < reader(embeds, torch.tensor([3])) < reader(embeds, torch.tensor([1]))
    assert reader(embeds, torch.tensor([2])) == 0


@pytest.mark.parametrize(
    "config, overrides, says",
    [
        ("paper", ["data.audio_tower=null"], "text_tower and audio_tower must be null"),
        ("tiny", ["data.text_tower=null"], "section model must be empty"),
        (
            "tiny",
            ["data.text_tower=null", "data.train_audio_tower=false", "data.cache_spectrograms=false"],
            "train_audio_tower=false needs cache_spectrograms=true",
        ),
        ("tiny", ["data.start=null", "data.text_tower=null", "data.tokenizer=null"], "tokenizer must name"),
    ],
)
def test_what_a_start_replaces_is_refused(start, monkeypatch, config, overrides, says):
    file = CONFIGS / "mulan" / f"{config}.yaml"
    with pytest.raises(ValueError, match=says):
        run_script(monkeypatch, "train_mulan.py", "--config", file, "--set", f"data.start={start}", *overrides)


@pytest.mark.parametrize(
    "stage, name",
    [
        ("vae_gan", "AudioVAEGANConfig"),
        ("mulan", "MuLanConfig"),
        ("semantic_encoder", "SemanticTokenizerConfig"),
        ("semantic_lm", "SemanticLMConfig"),
        ("dual_path", "DualPathDiffusionModel"),
    ],
)
def test_the_papers_configuration_builds_the_papers_model(stage, name):
    """`model` of paper.yaml holds constructor arguments whose values are the constructors' defaults."""
    import melody_diffusers

    build, path = getattr(melody_diffusers, name), CONFIGS / stage / "paper.yaml"
    with torch.device("meta"):
        given, default = build(**(yaml.safe_load(path.read_text())["model"] or {})), build()
    sizes = []
    for built in (given, default):
        config = getattr(built, "config", built)
        config = dict(config) if isinstance(config, dict) else config.to_dict()
        sizes.append({key: value for key, value in config.items() if not key.startswith("_")})
    assert sizes[0] == sizes[1]
