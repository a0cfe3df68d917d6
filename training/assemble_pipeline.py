"""Assembles the trained stages into one pipeline folder that `MeLoDyPipeline.from_pretrained` loads.

Weights are stored in float16; every component's figures stay in its stage folder.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import melody_diffusers  # noqa: F401 (first, which keeps torchao quiet)  # isort: skip

import torch
from transformers import AutoTokenizer

from melody_diffusers import (
    AngleScheduler,
    AudioVAEGAN,
    DualPathDiffusionModel,
    MeLoDyPipeline,
    MuLanModel,
    ResidualQuantizer,
    SemanticLM,
    SemanticTokenizer,
)
from melody_diffusers.files import put_in_place


def not_of_a_pipeline(folder: Path) -> list[str]:
    """Names in a folder that are no part of a saved pipeline; nothing where there is no folder."""
    index = folder / "model_index.json"
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    parts = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    return sorted(names - parts.keys() - ({index.name, "README.md"} if parts else set()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=Path, required=True, help="folder that holds one folder for each stage")
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write")
    parser.add_argument(
        "--distilled",
        type=Path,
        help="a diffusion model that that of STAGES has become; the latter"
        " stays beside it as its variant `teacher`, by which adapters learn",
    )
    parser.add_argument("--steps", type=int, default=10, help="default number of diffusion steps")
    parser.add_argument("--schedule", choices=("linear", "uniform"), default="linear", help="of AngleScheduler")
    parser.add_argument("--guidance_scale", type=float, default=2.5)
    parser.add_argument("--prompt_guidance_scale", type=float, default=1.0)
    parser.add_argument("--guidance_interval", type=float, nargs=2, default=[0.0, 1.0])
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top_k", type=int)
    parser.add_argument("--lm_guidance_scale", type=float, default=1.0)
    args = parser.parse_args()
    if foreign := not_of_a_pipeline(args.out):
        parser.error(f"--out {args.out} would be replaced and holds {', '.join(foreign[:4])}: choose or empty another")
    teacher = DualPathDiffusionModel.from_pretrained(args.stages / "dual_path")
    pipe = MeLoDyPipeline(
        vae=AudioVAEGAN.from_pretrained(args.stages / "vae_gan"),
        mulan=MuLanModel.from_pretrained(args.stages / "mulan"),
        tokenizer=AutoTokenizer.from_pretrained(args.stages / "mulan" / "tokenizer"),
        mulan_quantizer=ResidualQuantizer.from_pretrained(args.stages / "mulan_quantizer"),
        semantic_tokenizer=SemanticTokenizer.from_pretrained(args.stages / "semantic_tokenizer"),
        semantic_lm=SemanticLM.from_pretrained(args.stages / "semantic_lm"),
        dual_path=teacher if args.distilled is None else DualPathDiffusionModel.from_pretrained(args.distilled),
        scheduler=AngleScheduler(schedule=args.schedule),
        sampling={
            "num_inference_steps": args.steps,
            "guidance_scale": args.guidance_scale,
            "prompt_guidance_scale": args.prompt_guidance_scale,
            "guidance_interval": args.guidance_interval,
            "temperature": args.temperature,
            "top_k": args.top_k,
            "lm_guidance_scale": args.lm_guidance_scale,
        },
    )
    pipe.to(dtype=torch.float16)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{args.out.name}-", dir=args.out.parent))
    aside = work / "new"
    pipe.save_pretrained(aside)
    if args.distilled is not None:
        teacher.to(torch.float16).save_pretrained(aside / "dual_path", variant="teacher")
    for file in aside.glob("*/config.json"):
        config = json.loads(file.read_text())
        if "dtype" in config:
            config["dtype"] = "float32"  # half the bytes on disk, full precision at work unless a caller asks otherwise
        file.write_text(json.dumps(config, indent=2) + "\n")
    if (args.out / "README.md").exists():
        shutil.copy(args.out / "README.md", aside / "README.md")
    put_in_place(aside, args.out)
    work.rmdir()
    size = sum(file.stat().st_size for file in args.out.rglob("*.safetensors"))
    print(f"{args.out}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
