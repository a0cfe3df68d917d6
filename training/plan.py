"""What a training costs: parameters, memory and floating-point operations of each stage, and a plan for a corpus.

    python training/plan.py --size paper --hours 257000

Operations are counted by PyTorch's own counter while a stage's model hears ten seconds once; a training step takes
three times as many, backward pass included. The scan of the SRU, norms and activations are not counted. Bytes kept for
the backward pass are those of the tensors that autograd saves, in float32. Days assume that one GPU does --tflops,
which is for you to measure. Prints Markdown.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from recipe import STAGES
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from melody_diffusers import (
    AudioVAEGAN,
    AudioVAEGANConfig,
    DualPathDiffusionModel,
    MuLanConfig,
    MuLanModel,
    SemanticLM,
    SemanticLMConfig,
    SemanticTokenizer,
    SemanticTokenizerConfig,
)
from melody_diffusers.data.build import CLIPS_PER_SHARD

SECONDS, CLIP_SECONDS, TOKEN_RATE, TEXT_TOKENS = 10.0, 20.0, 25, 64
BYTES_PER_PARAMETER = 20  # float32: the weight, its gradient, AdamW's two moments, the moving average
FLAC_BYTES_PER_SECOND = 33_000  # measured on the synthetic set, 16-bit mono at 24 kHz


@dataclass
class Cost:
    """Of one model: parameters, operations of one forward pass over ten seconds, bytes that autograd saves of it."""

    parameters: int
    operations: int
    saved_bytes: int


def measure(model: nn.Module, forward: Callable[[], Tensor]) -> Cost:
    """Counts while `forward` runs the model once."""
    saved: dict[int, int] = {}
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    del output
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops(), sum(saved.values()))


def training_configs(size: str) -> dict[str, dict[str, Any]]:
    """The configuration of every stage of the recipe that trains a model of the pipeline."""
    trainings = [stage for stage in STAGES if stage.is_training and stage.name not in ("judges", "distilled")]
    return {stage.name: yaml.safe_load(stage.config_file(size).read_text(encoding="utf-8")) for stage in trainings}


def stage_costs(size: str) -> dict[str, Cost]:
    """Of every stage that trains a model of the pipeline, with its configuration of that size."""
    configs = training_configs(size)

    def section(name: str) -> dict[str, Any]:
        return configs[name]["model"] or {}

    costs = {}
    with torch.device("meta"):  # nothing in these two asks for a value, so that nothing need be computed
        vae = AudioVAEGAN(AudioVAEGANConfig(**section("vae_gan")))
        waveform = torch.zeros(1, 1, round(SECONDS * vae.sample_rate))
        frames = waveform.shape[-1] // vae.hop_samples
        costs["vae_gan"] = measure(vae, lambda: vae(waveform).sample)
        costs["vae_gan, encoder"] = measure(vae, lambda: vae.encode(waveform).latent_dist.mean)
        dual_path = DualPathDiffusionModel(**section("dual_path"))
        latents, angles = torch.zeros(1, frames, vae.latent_dim), torch.zeros(1, frames)
        tokens = torch.zeros(1, round(SECONDS * TOKEN_RATE), dtype=torch.long)
        costs["dual_path"] = measure(dual_path, lambda: dual_path(latents, angles, tokens).sample)
    waveform, tokens = torch.zeros(waveform.shape), torch.zeros(tokens.shape, dtype=torch.long)
    text = {"vocab_size": 30522} | (section("mulan").get("text_config") or {})
    mulan = MuLanModel(MuLanConfig(**section("mulan") | {"text_config": text}))
    ids = torch.zeros(1, TEXT_TOKENS, dtype=torch.long)
    costs["mulan"] = measure(
        mulan, lambda: mulan.get_audio_features(waveform) @ mulan.get_text_features(ids, torch.ones_like(ids)).T
    )
    costs["mulan, audio tower"] = measure(mulan, lambda: mulan.get_audio_features(waveform))
    tokenizer = SemanticTokenizer(SemanticTokenizerConfig(**section("semantic_encoder")))
    costs["semantic_encoder"] = measure(tokenizer, lambda: tokenizer(waveform).last_hidden_state)
    lm = SemanticLM(SemanticLMConfig(**section("semantic_lm")))
    mulan_tokens = torch.zeros(1, lm.config.num_mulan_codebooks, dtype=torch.long)
    costs["semantic_lm"] = measure(lm, lambda: lm.semantic_logits(mulan_tokens, tokens))
    return costs


def count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("paper", "tiny"), default="paper", help="which configurations")
    parser.add_argument("--hours", type=float, default=257_000, help="of music (default: the paper's)")
    parser.add_argument("--tflops", type=float, default=200, help="bf16 operations a second of one GPU, in 10^12")
    args = parser.parse_args(arguments)
    if not args.hours > 0 or not args.tflops > 0:
        parser.error("--hours and --tflops must be above 0")

    costs = stage_costs(args.size)
    print("| stage | parameters | weights and optimiser | saved for 10 s | forward, 10 s |\n|---|---|---|---|---|")
    for stage, cost in costs.items():
        state = "" if "," in stage else f"{count(cost.parameters * BYTES_PER_PARAMETER / 1e9)} GB"
        saved = "" if "," in stage else f"{count(cost.saved_bytes / 1e9)} GB"
        print(
            f"| {stage} | {count(cost.parameters / 1e6)} M | {state} | {saved} | {count(cost.operations / 1e9)} GFLOP |"
        )

    print("\n| stage | steps | 10 s examples a step | hours heard | EFLOP | GPU days |\n|---|---|---|---|---|---|")
    for stage, config in training_configs(args.size).items():
        cost = costs[stage]
        seconds = config["data"].get("crop_seconds") or config["data"]["num_tokens"] / TOKEN_RATE
        examples = config["run"]["batch_size"] * seconds / SECONDS
        total = config["run"]["max_steps"] * examples
        operations = 3 * cost.operations * total
        print(
            f"| {stage} | {config['run']['max_steps']:,} | {count(examples)} | {count(total * SECONDS / 3600)} | "
            f"{count(operations / 1e18)} | {count(operations / (args.tflops * 1e12) / 86400)} |"
        )

    encoding = costs["vae_gan, encoder"].operations + costs["semantic_encoder"].operations
    encoding += 4 * costs["mulan, audio tower"].operations  # a window every 2.5 s
    seconds, clips = args.hours * 3600, args.hours * 3600 / CLIP_SECONDS
    rate = args.tflops * 1e12 / (encoding / SECONDS)  # seconds of music a second
    frames = 2500 * 16 * 2 / SECONDS if args.size == "paper" else 500 * 16 * 2 / SECONDS
    print(f"\n| {count(args.hours)} hours | |\n|---|---|")
    print(f"| clips of {CLIP_SECONDS:g} s | {count(clips / 1e6)} M |")
    print(f"| as FLAC | {count(seconds * FLAC_BYTES_PER_SECOND / 1e12)} TB |")
    print(f"| Parquet shards of {CLIPS_PER_SHARD} clips | {count(clips / CLIPS_PER_SHARD)} |")
    print(f"| latents and tokens | {count(seconds * (frames + TOKEN_RATE * 4) / 1e12)} TB |")
    print(f"| encoding, one GPU | {count(rate)} hours an hour, {count(args.hours / rate / 24)} days |")


if __name__ == "__main__":
    main()
