"""What compare.py times: ours, and peers built at their published sizes by the libraries that ship them.

A system is a function that takes a dtype and gives a `System`. Peers have random weights, which take the same time as
trained ones: every step, layer and head is there. Shapes: B batch, C channels, T samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

RANDOM = "random weights, timing only"
PROMPT = "a slow solo piano piece"
TOKENS = 16  # of a prompt in the text encoder of a peer


@dataclass
class System:
    """A loaded model: `generate(seconds, batch)` gives waveforms (B, C, T) at `sample_rate`."""

    generate: Callable[[float, int], torch.Tensor]
    sample_rate: int
    models: list[nn.Module]
    note: str
    longest: float = math.inf  # seconds that it was made for
    stages: object = None  # the pipeline, where `stage_clock` knows its stages: ours


def ours(pipe, note: str, **arguments) -> System:
    """One of our pipelines; the arguments are those of its call."""
    pipe.set_progress_bar_config(disable=True)

    def generate(seconds: float, batch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        prompts = [PROMPT] * batch
        return pipe(prompts, audio_duration=seconds, generator=generator, output_type="pt", **arguments).audios

    models = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return System(generate, pipe.sample_rate, models, note, stages=pipe)


def melody_tiny(dtype: torch.dtype) -> System:
    """melody-tiny as it is shipped, with the steps and the guidance of its checkpoint."""
    from melody_diffusers import MELODY_TINY, MeLoDyPipeline

    pipe = MeLoDyPipeline.from_pretrained(MELODY_TINY, dtype=dtype, semantic_tokenizer=None)
    return ours(pipe, "shipped weights, steps and guidance of its checkpoint")


def melody_paper(dtype: torch.dtype) -> System:
    """MeLoDy at the paper's size: 5 steps, guidance in both models."""
    from transformers import BertTokenizerFast

    import melody_diffusers as m

    parts = {
        "vae": m.AudioVAEGAN(m.AudioVAEGANConfig()),
        "mulan": m.MuLanModel(m.MuLanConfig()),
        "mulan_quantizer": m.ResidualQuantizer(),
        "semantic_lm": m.SemanticLM(m.SemanticLMConfig(null_condition=True)),
        "dual_path": m.DualPathDiffusionModel(),
    }
    parts = {name: part.to(dtype).eval() for name, part in parts.items()}
    tokenizer = BertTokenizerFast.from_pretrained(m.MELODY_TINY, subfolder="tokenizer")
    scheduler = m.AngleScheduler()
    pipe = m.MeLoDyPipeline(**parts, semantic_tokenizer=None, tokenizer=tokenizer, scheduler=scheduler)
    note = f"{RANDOM}; 5 steps, guidance 2.5; without the semantic tokenizer, which generation does not use"
    return ours(pipe, note, num_inference_steps=5, guidance_scale=2.5)


def musicgen_small(dtype: torch.dtype) -> System:
    """facebook/musicgen-small in transformers: T5-base, 24 layers 1024 wide, EnCodec at 32 kHz; guidance 3."""
    from transformers import (
        EncodecConfig,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        T5Config,
    )

    config = MusicgenConfig(
        text_encoder=T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12).to_dict(),
        audio_encoder=EncodecConfig(
            sampling_rate=32_000,
            num_filters=64,
            upsampling_ratios=[8, 5, 4, 4],
            codebook_size=2048,
            target_bandwidths=[2.2],
            use_causal_conv=False,
            use_conv_shortcut=False,
        ).to_dict(),
        decoder=MusicgenDecoderConfig().to_dict(),
    )
    model = MusicgenForConditionalGeneration(config).to(dtype).eval()
    settings = model.generation_config
    settings.decoder_start_token_id = settings.pad_token_id = settings.bos_token_id = 2048

    def generate(seconds: float, batch: int) -> torch.Tensor:
        frames = math.ceil(50 * seconds) + 3  # the four codebooks come one step after another
        prompt = torch.ones(batch, TOKENS, dtype=torch.long)
        return model.generate(prompt, max_new_tokens=frames, min_new_tokens=frames, do_sample=True, guidance_scale=3.0)

    return System(generate, 32_000, [model], f"{RANDOM}; guidance 3, sampling", longest=30)


def stable_audio_3_small(dtype: torch.dtype) -> System:
    """stabilityai/stable-audio-3-small-music in diffusers: 20 layers 1024 wide, SAME-S; 8 steps without guidance."""
    from diffusers import AutoencoderSAME, FlowMatchEulerDiscreteScheduler, StableAudio3DiTModel, StableAudio3Pipeline
    from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

    parts = {
        "vae": AutoencoderSAME(),  # its defaults are SAME-S
        "duration_embedder": StableAudio3DurationEmbedder(),
        "transformer": StableAudio3DiTModel(embed_dim=1024, depth=20, num_heads=16, use_differential_attention=False),
    }
    parts = {name: part.to(dtype).eval() for name, part in parts.items()}
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, stochastic_sampling=True)
    pipe = StableAudio3Pipeline(**parts, scheduler=scheduler, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)

    def generate(seconds: float, batch: int) -> torch.Tensor:
        text = torch.randn(batch, 256, 768, dtype=dtype)
        return pipe(prompt_embeds=text, duration=seconds, num_inference_steps=8).audios

    note = f"{RANDOM}; 8 steps, stereo; without its text encoder"
    return System(generate, 44_100, list(parts.values()), note, longest=120)


def ace_step_turbo(dtype: torch.dtype) -> System:
    """ACE-Step 1.5 turbo in diffusers: 24 layers 2048 wide, its condition encoder, Oobleck; 8 steps, no guidance."""
    from diffusers import (
        AceStepConditionEncoder,
        AceStepPipeline,
        AceStepTransformer1DModel,
        AutoencoderOobleck,
        FlowMatchEulerDiscreteScheduler,
    )

    parts = {
        "vae": AutoencoderOobleck(downsampling_ratios=[2, 4, 4, 6, 10], sampling_rate=48_000),
        "transformer": AceStepTransformer1DModel(is_turbo=True, model_version="turbo"),
        "condition_encoder": AceStepConditionEncoder(),
    }
    parts = {name: part.to(dtype).eval() for name, part in parts.items()}
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0)
    pipe = AceStepPipeline(**parts, scheduler=scheduler, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)

    def encode_prompt(prompt, **_):
        words = torch.randn(len(prompt), 64, 1024, dtype=dtype)  # its template makes a prompt long
        lyrics = torch.randn(len(prompt), TOKENS, 1024, dtype=dtype)
        masks = [torch.ones(part.shape[:2], dtype=torch.bool) for part in (words, lyrics)]
        return words, masks[0], lyrics, masks[1]

    object.__setattr__(pipe, "encode_prompt", encode_prompt)

    def generate(seconds: float, batch: int) -> torch.Tensor:
        return pipe([PROMPT] * batch, audio_duration=seconds, guidance_scale=1.0).audios

    note = f"{RANDOM}; 8 steps, stereo; without its text encoder"
    return System(generate, 48_000, list(parts.values()), note, longest=600)


SYSTEMS = {
    f"{name}-{dtype}": (build, getattr(torch, dtype))
    for name, build, dtypes in (
        ("melody-tiny", melody_tiny, ("float32", "bfloat16")),
        ("melody-paper", melody_paper, ("bfloat16", "float32")),
        ("musicgen-small", musicgen_small, ("float32", "bfloat16")),
        ("stable-audio-3-small", stable_audio_3_small, ("float32", "bfloat16")),
        ("ace-step-1.5-turbo", ace_step_turbo, ("bfloat16",)),
    )
    for dtype in dtypes
}
