"""What a machine with one GPU is asked, in one command and at most ten minutes: tests, benchmarks, then training.

    make gpu                            or, with another Python that has torch:
    python training/gpu.py --out outputs/gpu --minutes 9.5

Nothing is fetched. Packages that this Python lacks may lie as wheels in --wheels (`make gpu-wheels` fetches them). The
training renders music, encodes it with the parts of melody-tiny if the --stage trains on codes, and goes on from its
weights: the diffusion model, which is the teacher that the shipped one was distilled from, the language model or, with
--stage vae_gan, the VAE-GAN against discriminators. Each part has a time of its own, and what fails or runs out of it
is noted and costs the others nothing. --device cpu rehearses it all.

--out then holds at most eight files: summary.json, tests.txt, benchmark.txt, training.txt and the newest weights, in 16
bits.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src/melody_diffusers/checkpoints/melody-tiny"
ENCODERS = ("vae", "mulan", "tokenizer", "mulan_quantizer", "semantic_tokenizer")
PACKAGES = "import accelerate, datasets, diffusers, einops, peft, pydantic, safetensors, soundfile, soxr, transformers"
BENCHMARK = """
import sys, torch
from transformers import BertTokenizerFast
import melody_diffusers as m
from melody_diffusers import graphs
from melody_diffusers.devices import synchronize
from melody_diffusers.evaluation.speed import measure_speed
from melody_diffusers.models import sru
from melody_diffusers.models.semantic_lm import Sampling
device, dtype = torch.device(sys.argv[1]), torch.bfloat16
fused_scan, devices = sru.fused_scan, graphs.DEVICES
def launches(function):
    with torch.profiler.profile() as profile:
        function()
        synchronize(device)
    names = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
    return sum(event.count for event in profile.key_averages() if event.key.startswith(names))
def measure(name, pipe, kernel=True, graph=True, batch=1, duration=10.0):
    sru.fused_scan = fused_scan if kernel else lambda projected: None
    graphs.DEVICES = devices if graph else ()
    settings = dict(audio_duration=duration, num_waveforms_per_prompt=batch, num_inference_steps=5, num_runs=2)
    speed = measure_speed(pipe, **settings)
    stages = {key.removeprefix("seconds_"): round(value, 3) for key, value in speed.items() if "seconds" in key}
    print(f"{name}, kernel {kernel}, graphs {graph}, batch {batch}, {duration} s:", stages, flush=True)
    plan = torch.zeros(batch, 250, dtype=torch.long)
    noise = torch.zeros(batch, pipe.dual_path.config.num_frames, pipe.dual_path.config.latent_dim)
    one, two = (launches(lambda: pipe.denoise_latents(noise, plan, num_inference_steps=n)) for n in (10, 20))
    codes = plan[:, : pipe.semantic_lm.config.num_mulan_codebooks]
    guided = Sampling(guidance_scale=5.0)
    few, many = (launches(lambda: pipe.generate_semantic_tokens(codes, n, sampling=guided)) for n in (10, 30))
    print(f"  launches: {(two - one) / 10} a diffusion step, {(many - few) / 20} a token", flush=True)
tiny = m.MeLoDyPipeline.from_pretrained(m.MELODY_TINY).to(device)
tiny.set_progress_bar_config(disable=True)
for choice in ({}, {"graph": False}, {"graph": False, "kernel": False}):
    measure("melody-tiny, float32", tiny, **choice)
measure("melody-tiny, float32", tiny, duration=30.0)
with torch.device(device):
    config = m.SemanticLMConfig(null_condition=True)
    parts = dict(vae=m.AudioVAEGAN(m.AudioVAEGANConfig()), mulan=m.MuLanModel(m.MuLanConfig()))
    parts |= dict(mulan_quantizer=m.ResidualQuantizer(), semantic_tokenizer=None, semantic_lm=m.SemanticLM(config))
    parts |= dict(dual_path=m.DualPathDiffusionModel())
parts = {name: part if part is None else part.to(dtype).eval() for name, part in parts.items()}
tokenizer = BertTokenizerFast.from_pretrained(m.MELODY_TINY, subfolder="tokenizer")
pipe = m.MeLoDyPipeline(**parts, tokenizer=tokenizer, scheduler=m.AngleScheduler())
pipe.set_progress_bar_config(disable=True)
for choice in ({}, {"batch": 8}, {"graph": False}, {"graph": False, "kernel": False}):
    measure("the paper's size, untrained, timing only, bfloat16", pipe, **choice)
if device.type == "cuda":
    print("GB at most:", torch.cuda.max_memory_allocated() / 1e9)
"""

HALVE = """
import sys
from safetensors.torch import load_file, save_file
weights = load_file(sys.argv[1])
save_file({name: w.half() if w.is_floating_point() else w for name, w in weights.items()}, sys.argv[2])
"""


class Stage(NamedTuple):
    """A training: the name of its model, what it goes on from, what else is set, and whether it trains on an encoded
    data set or on the music itself."""

    model: str
    start: Path
    sets: tuple[str, ...] = ()
    is_encoded: bool = True


STAGES = {
    "dual_path": Stage("dual_path", WEIGHTS / "dual_path", sets=("run.batch_size=64",)),
    "semantic_lm": Stage("semantic_lm", WEIGHTS / "semantic_lm", sets=("run.batch_size=64", "data.keep_mulan=true")),
    "vae_gan": Stage(
        "vae",
        WEIGHTS / "vae",
        sets=("loss.gan_start_step=0", "run.batch_size=32", "run.num_workers=4"),
        is_encoded=False,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"), help="folder for the results")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything (default: 9.5)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--wheels", type=Path, help="folder of wheels for what this Python lacks")
    parser.add_argument("--stage", choices=STAGES, default="dual_path", help="what to train (default: dual_path)")
    parser.add_argument("--start", type=Path, help="folder of a model to go on from (default: in melody-tiny)")
    parser.add_argument("--parts", type=Path, default=WEIGHTS, help="folder of a pipeline that encodes the music")
    parser.add_argument(
        "--encoded", type=Path, help="encoded data set to train on (default: rendered and encoded here)"
    )
    parser.add_argument("--hours", type=float, default=20.0, help="of music to render (default: 20)")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="for the training")
    parser.add_argument("--train_only", action="store_true", help="leave out tests and benchmarks")
    args = parser.parse_args()
    started, parts = time.monotonic(), {}
    args.out.mkdir(parents=True, exist_ok=True)
    site = Path(os.environ.get("TMPDIR", "/tmp")) / "melody-gpu-site"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{site}", "MELODY_GPU_DEVICE": args.device}
    environment |= {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}

    def left() -> float:
        return 60 * args.minutes - (time.monotonic() - started)

    def part(name: str, share: float, *command: object, log: str) -> bool:
        """Runs a command for at most a share of the time that is left; its output is added to the log."""
        limit, begun = share * left(), time.monotonic()
        with open(args.out / log, "a", encoding="utf-8") as file:
            try:
                done = subprocess.run(
                    [sys.executable, *map(str, command)],
                    cwd=ROOT,
                    env=environment,
                    stdout=file,
                    stderr=file,
                    timeout=limit,
                )
                outcome = "passed" if done.returncode == 0 else f"exit status {done.returncode}"
            except subprocess.TimeoutExpired:
                outcome = f"stopped after {limit:.0f} s"
        parts[name] = {"outcome": outcome, "seconds": round(time.monotonic() - begun, 1), "log": log}
        print(f"{name}: {outcome}, {parts[name]['seconds']} s", flush=True)
        (args.out / "summary.json").write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
        return outcome == "passed"

    if args.wheels is not None and any(args.wheels.glob("*.whl")):
        pip = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--upgrade", "--target", site]
        part("wheels", 0.3, *pip, *sorted(args.wheels.glob("*.whl")), log="tests.txt")
    if not part("packages", 0.3, "-c", PACKAGES, log="tests.txt"):
        raise SystemExit(f"This Python lacks a package: see {args.out / 'tests.txt'}, and --wheels.")
    if not args.train_only:
        pytest = ["-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider", "--durations=20"]
        part("tests", 0.55, *pytest, log="tests.txt")
        tiny = ["-m", "melody_diffusers.cli", "benchmark", "--device", args.device, "--runs", "3"]
        part("benchmark, melody-tiny, 10 s", 0.3, *tiny, log="benchmark.txt")
        part("benchmark, melody-tiny, 30 s", 0.3, *tiny, "--duration", "30", log="benchmark.txt")
        part("benchmark, kernel and graphs", 0.5, "-c", BENCHMARK, args.device, log="benchmark.txt")
    stage, run, music = STAGES[args.stage], args.out / "training", site.with_name("melody-gpu-music")
    data = args.encoded if args.encoded is not None and stage.is_encoded else music
    if data == music:
        build = ["training/synthetic/build.py", "--out", music, "--hours", args.hours, "--test_font", "none"]
        part("music", 0.4, *build, log="training.txt")
        if stage.is_encoded and any(music.glob("*")):
            data = site.with_name("melody-gpu-encoded")
            sets = [f"data.folder={music}", "data.splits=[train]", f"encode.output_dir={data}"]
            sets += [f"parents.{name}={args.parts / name}" for name in ENCODERS]
            sets += ["encode.batch_size=32"]
            encode = ["training/encode_dataset.py", "--config", "training/configs/encode/tiny.yaml", "--set", *sets]
            part("encoding", 0.5, *encode, log="training.txt")
    if any(data.glob("*")) and left() > 45:
        command = [f"training/train_{args.stage}.py", "--config", f"training/configs/{args.stage}/tiny.yaml"]
        command += ["--max_minutes", f"{(left() - 30) / 60:.2f}", "--set", f"data.folder={data}"]
        command += [f"run.output_dir={run}", "run.max_steps=1000000", "run.keep_checkpoints=1", "run.trackers=[]"]
        command += [f"data.start={args.start or stage.start}", *stage.sets, *args.set]
        part("training", 1.0, *command, log="training.txt")
        for file in sorted(run.glob("checkpoints/step-*"))[-1:]:
            for name in (f"ema.{stage.model}.safetensors", f"model.{stage.model}.safetensors"):
                part(name, 0.5, "-c", HALVE, file / name, args.out / name, log="training.txt")
            shutil.copy(file / "state.json", args.out)


if __name__ == "__main__":
    main()
