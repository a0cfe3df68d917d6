"""Every training stage at the smallest size, on clips of noise: what test_resume.py stops and resumes.

As a program, on one process of several, python stages.py WORKSPACE JOBS calls the functions that JOBS, a JSON list of
[function, stage, arguments ...], names and prints what they give as JSON.
"""

import contextlib
import io
import json
import runpy
import shutil
import sys
import warnings
from pathlib import Path

import datasets
import numpy as np
import soundfile
import torch
from datasets import Features, List, Value
from transformers import BertTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import EMBEDDING_DIM, MULAN_CODEBOOKS, MULAN_CODES, make_tiny_components

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.data.encode import ClipEncoder, encode_dataset

TRAINING = Path(__file__).parents[2] / "training"
STEPS = 40
TOWER = ["hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=16"]
OVERRIDES = {
    "vae_gan": [  # with discriminators from the start
        "model.head=istft",
        "model.istft_hop=480",
        "model.latent_dim=4",
        "model.istft_width=8",
        "model.istft_encoder_layers=1",
        "model.istft_decoder_layers=1",
        "discriminators.periods=[2]",
        "discriminators.period_channels=[4, 4]",
        "discriminators.resolutions=[[256, 64, 256]]",
        "discriminators.resolution_channels=4",
        "data.crop_seconds=0.25",
        "data.statistics_clips=2",
        "data.heldout_clips=1",
        "data.components_clips=0",
        "loss.gan_start_step=0",
        "loss.fft_sizes=[256]",
        "loss.window_sizes=[256]",
        "loss.hop_sizes=[64]",
    ],
    "mulan": [
        *(f"model.{tower}_config.{setting}" for tower in ("audio", "text") for setting in TOWER),
        "model.projection_dim=8",
        "data.text_tower=null",
        "data.prompts=null",
        "data.group_by=null",
    ],
    "semantic_encoder": [
        "model.feature_layer=1",
        "model.encoder_config.num_conv_pos_embedding_groups=2",
        *(f"model.encoder_config.{setting}" for setting in TOWER),
        "data.crop_seconds=1.0",
        "data.statistics_clips=2",
        "data.heldout_clips=2",
    ],
    "semantic_lm": [
        *(f"model.{setting}" for setting in TOWER),
        "model.num_mulan_codebooks=3",
        "model.mulan_codebook_size=16",
        "model.semantic_codebook_size=32",
        "data.num_tokens=50",
        "data.heldout_passes=1",
    ],
    "dual_path": [
        "model.latent_dim=8",
        "model.semantic_codebook_size=32",
        "model.hidden_size=16",
        "model.num_blocks=2",
        "model.num_attention_heads=2",
        "model.mlp_size=16",
        "model.angle_embedding_size=8",
        "model.num_frames=100",
        "model.segment_length=16",
        f"model.num_mulan_codebooks={MULAN_CODEBOOKS}",
        f"model.mulan_codebook_size={MULAN_CODES}",
        f"model.mulan_dim={EMBEDDING_DIM}",
        "data.num_tokens=50",
        "data.validation_windows=1",
    ],
    "lora": [],
}


def make_workspace(folder: Path) -> None:
    """Noise as a data set, encoded, and as recordings; a pipeline and a tokenizer."""
    random = np.random.default_rng(0)
    features = Features(
        {
            "audio": {"bytes": Value("binary"), "path": Value("string")},
            "captions": List(Value("string")),
            "style": Value("string"),
        }
    )
    for split, count in {"train": 16, "validation": 2, "test": 2}.items():
        rows = []
        for index in range(count):
            buffer = io.BytesIO()
            soundfile.write(buffer, random.uniform(-0.5, 0.5, 24000 * 6), 24000, format="WAV")
            audio = {"bytes": buffer.getvalue(), "path": f"{index}.wav"}
            rows.append({"audio": audio, "captions": ["a slow waltz", "sad piano"], "style": f"style {index % 3}"})
        place = folder / "set" / "data" / f"{split}-00000-of-00001.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(place)
    pipe = MeLoDyPipeline(**make_tiny_components(), sampling={"num_inference_steps": 1})
    pipe.save_pretrained(folder / "pipeline")
    pipe.tokenizer.save_pretrained(folder / "tokenizer")
    names = ("vae", "mulan", "mulan_quantizer", "semantic_tokenizer", "tokenizer")
    encoder = ClipEncoder(**{name: getattr(pipe, name) for name in names}, window_seconds=1.0)
    encode_dataset(folder / "set", encoder, folder / "encoded")
    (folder / "recordings").mkdir()
    for name in ("one", "two", "three", "four", "five"):
        soundfile.write(folder / "recordings" / f"{name}.wav", random.uniform(-0.5, 0.5, 15 * 24000), 24000)
    (folder / "prompts.yaml").write_text("[a slow waltz, sad piano solo]")
    assert isinstance(pipe.tokenizer, BertTokenizerFast)


def run_stage(workspace: Path, stage: str, output: Path | str, *settings: str) -> None:
    """The stage's script; a run that stops early is no error."""
    data = {
        "semantic_lm": [f"data.folder={workspace / 'encoded'}"],
        "dual_path": [
            f"data.folder={workspace / 'encoded'}",
            f"data.mulan_quantizer={workspace / 'pipeline' / 'mulan_quantizer'}",
        ],
        "mulan": [f"data.folder={workspace / 'set'}", f"data.tokenizer={workspace / 'tokenizer'}"],
        "lora": [f"data.model={workspace / 'pipeline'}", f"data.prompts={workspace / 'prompts.yaml'}"],
    }.get(stage, [f"data.folder={workspace / 'set'}"])
    common = ["run.budget_minutes=null", "run.batch_size=2", "run.ema_decay=0.9", f"run.max_steps={STEPS}"]
    common += ["run.checkpoint_every=1", f"run.keep_checkpoints={STEPS + 1}", "run.trackers=[]"]
    arguments = ["--set", *OVERRIDES[stage], *data, *common, *settings]
    if stage == "lora":
        arguments = ["--data", str(workspace / "recordings"), "--output", str(output), *arguments]
    else:
        arguments = [
            "--config",
            str(TRAINING / "configs" / stage / "tiny.yaml"),
            *arguments,
            f"run.output_dir={output}",
        ]
    before = sys.argv
    sys.argv = [f"train_{stage}.py", *arguments]
    try:
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(TRAINING / f"train_{stage}.py"), run_name="__main__")
    finally:
        sys.argv = before


def content(checkpoint: Path) -> dict[str, object]:
    """Digests of all tensors, and the counters; not the clock."""
    digests = json.loads((checkpoint / "manifest.json").read_text())
    state = json.loads((checkpoint / "state.json").read_text())
    return digests | {"state.json": state | {"minutes": None}}


def differences(workspace: Path, stage: str, out: Path | str, workers: int, every: int = 1) -> list[int]:
    """Steps k after which a run that stopped and went on differs from one that did not.

    The run goes on from checkpoint k for one step; that its checkpoint k + 1 is the same for every k is, by induction,
    that all of them are.
    """
    out, settings = Path(out), [f"run.num_workers={workers}"]
    run_stage(workspace, stage, out / "whole", *settings)
    main = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    found = []
    for step in range(1, STEPS, every):
        folder, name = out / f"from-{step}", f"step-{step:08d}"
        if main:
            shutil.copytree(out / "whole" / "checkpoints" / name, folder / "checkpoints" / name)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        run_stage(workspace, stage, folder, *settings, "run.max_minutes=1e-9")
        after = f"step-{step + 1:08d}"
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if main:
            same = content(folder / "checkpoints" / after) == content(out / "whole" / "checkpoints" / after)
            found += [] if same else [step]
            shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    functions = {function.__name__: function for function in (differences, run_stage)}
    jobs = [(functions[name], stage, rest) for name, stage, *rest in json.loads(sys.argv[2])]
    print(json.dumps([function(Path(sys.argv[1]), stage, *rest) for function, stage, rest in jobs]))
