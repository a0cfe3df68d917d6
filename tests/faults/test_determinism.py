"""The same request and seed give the same music, whatever else goes on around it."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from melody_diffusers import MELODY_TINY, MeLoDyPipeline, SemanticLM
from melody_diffusers.evaluation.reconstruction import log_mel_distance

PROMPTS = [f"{speed} {kind}" for speed in ("slow", "fast", "bright", "dark") for kind in ("waltz", "techno")]
QUICK = {"num_inference_steps": 2, "audio_duration": 2.0, "output_type": "pt"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


@pytest.fixture(scope="module")
def alone(pipe):
    return [pipe(prompt, generator=seeded(i), **QUICK) for i, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("size", [2, 8])
def test_a_request_in_a_batch_gets_what_it_gets_alone(pipe, alone, size):
    batch = pipe(PROMPTS[:size], generator=[seeded(i) for i in range(size)], **QUICK)
    for i in range(size):
        assert torch.equal(batch.semantic_tokens[i], alone[i].semantic_tokens[0])
        torch.testing.assert_close(batch.audios[i], alone[i].audios[0], rtol=0, atol=1e-5)


def test_again_after_other_requests_of_other_lengths(pipe, alone):
    pipe("rock", audio_duration=12.5, num_inference_steps=1, generator=seeded(9))
    again = pipe(PROMPTS[3], generator=seeded(3), **QUICK)
    assert torch.equal(again.audios, alone[3].audios)


def test_in_a_new_process(tiny_folder, alone, tmp_path):
    code = (
        "import sys, numpy, torch, melody_diffusers\n"
        "torch.set_num_threads(int(sys.argv[4]))\n"
        "pipe = melody_diffusers.MeLoDyPipeline.from_pretrained(sys.argv[1])\n"
        "audio = pipe(sys.argv[2], generator=torch.Generator().manual_seed(5), num_inference_steps=2,\n"
        "             audio_duration=2.0).audios\n"
        "numpy.save(sys.argv[3], audio)\n"
    )
    file = tmp_path / "audio.npy"
    threads = str(torch.get_num_threads())
    subprocess.run([sys.executable, "-c", code, tiny_folder, PROMPTS[5], str(file), threads], check=True)
    assert np.array_equal(np.load(file), alone[5].audios.numpy())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_plans_of_the_shipped_model_are_the_same_alone_and_in_eights():
    lm = SemanticLM.from_pretrained(MELODY_TINY, subfolder="semantic_lm", dtype=torch.float32).eval()
    config = lm.config
    codes = torch.randint(config.mulan_codebook_size, (1000, config.num_mulan_codebooks), generator=seeded())
    for start in range(0, 1000, 8):
        rows = codes[start : start + 8]
        generators = [[seeded(start + i) for i in range(8)] for _ in range(2)]
        together = lm.generate_semantic_tokens(rows, 50, generator=generators[0])
        for i in range(8):
            single = lm.generate_semantic_tokens(rows[i : i + 1], 50, generator=[generators[1][i]])
            assert torch.equal(single[0], together[i]), start + i


@pytest.mark.slow
@torch.no_grad()
def test_music_of_the_shipped_model_is_the_same_alone_and_in_a_batch():
    """Plan and latents but for rounding, which phases, joined from differences, multiply: they sound alike."""
    pipe = MeLoDyPipeline.from_pretrained(MELODY_TINY)
    pipe.set_progress_bar_config(disable=True)
    call = {"audio_duration": 3.0, "output_type": "latent"}
    batch = pipe(PROMPTS, generator=[seeded(i) for i in range(8)], **call)
    together = pipe.vae.decode(batch.audios).sample
    for i, prompt in enumerate(PROMPTS):
        single = pipe(prompt, generator=seeded(i), **call)
        assert torch.equal(single.semantic_tokens[0], batch.semantic_tokens[i])
        torch.testing.assert_close(single.audios[0], batch.audios[i], rtol=0, atol=1e-5)
        assert torch.equal(pipe.vae.decode(batch.audios[i : i + 1]).sample[0], together[i])
        assert log_mel_distance(pipe.vae.decode(single.audios).sample, together[i : i + 1]) < 0.5
