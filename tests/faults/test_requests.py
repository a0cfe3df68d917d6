"""Requests that cannot be served are refused by name; cancelled ones and many at once change nothing for the others."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from melody_diffusers import MeLoDyInpaintPipeline, MeLoDyInputError

QUICK = {"num_inference_steps": 2, "output_type": "pt", "audio_duration": 3.0}
NAN, INFINITY = float("nan"), float("inf")
SECOND = np.zeros(24000, dtype=np.float32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(tiny_pipeline):
    tiny_pipeline.set_progress_bar_config(disable=True)
    return tiny_pipeline


@pytest.fixture(scope="module")
def inpaint(pipe):
    return MeLoDyInpaintPipeline(**pipe.components)


def tokens(*shape, value=0, dtype=torch.long):
    return torch.full(shape, value, dtype=dtype)


def of_prompt(**arguments):
    return {"prompt": "a waltz"} | arguments


def of_clip(clip, rate=24000):
    return {"audio_prompt": clip, "audio_prompt_sampling_rate": rate}


# what is sent, the argument that the error must name, and what the message must say came
BAD_CALLS = [
    ({"prompt": ""}, "prompt", "got ''"),
    ({"prompt": " \n\t"}, "prompt", "not be empty"),
    ({"prompt": 7}, "prompt", "got 7 (int)"),
    ({"prompt": b"a waltz"}, "prompt", "a bytes"),
    ({"prompt": "a" * 100_000}, "prompt", "got 100000"),
    ({"prompt": []}, "prompt", "a list of 0"),
    ({"prompt": ["a"] * 65}, "prompt", "a list of 65"),
    ({"prompt": ["a", None]}, "prompt[1]", "got None"),
    ({"prompt": ["a", ""]}, "prompt[1]", "not be empty"),
    ({"prompt": {"text": "a"}}, "prompt['text']", "got 'a'"),
    ({"prompt": "a \ud800"}, "prompt", "a lone surrogate"),
    ({}, "prompt", "none of them"),
    ({"prompt": "a", "mulan_tokens": tokens(1, 2)}, "prompt", "prompt and mulan_tokens"),
    ({"prompt": ["a", "b"], "semantic_tokens": tokens(3, 250)}, "semantic_tokens", "each of the 2 prompts; got 3"),
    (of_prompt(audio_duration=0), "audio_duration", "got 0 (int)"),
    (of_prompt(audio_duration=-1.0), "audio_duration", "got -1.0"),
    (of_prompt(audio_duration=NAN), "audio_duration", "got nan"),
    (of_prompt(audio_duration=INFINITY), "audio_duration", "got inf"),
    (of_prompt(audio_duration=36_000), "audio_duration", "got 36000"),
    (of_prompt(audio_duration="10"), "audio_duration", "got '10'"),
    (of_prompt(audio_duration=[10]), "audio_duration", "a list"),
    (of_prompt(audio_duration=True), "audio_duration", "got True"),
    (of_prompt(num_inference_steps=0), "num_inference_steps", "whole number from 1 to 1000"),
    (of_prompt(num_inference_steps=-5), "num_inference_steps", "got -5"),
    (of_prompt(num_inference_steps=10**6), "num_inference_steps", "got 1000000"),
    (of_prompt(num_inference_steps=2.5), "num_inference_steps", "got 2.5"),
    (of_prompt(num_inference_steps=True), "num_inference_steps", "got True"),
    (of_prompt(num_inference_steps="ten"), "num_inference_steps", "got 'ten'"),
    (of_prompt(guidance_scale=NAN), "guidance_scale", "got nan"),
    (of_prompt(guidance_scale=INFINITY), "guidance_scale", "got inf"),
    (of_prompt(guidance_scale=-0.1), "guidance_scale", "from 0 to 30"),
    (of_prompt(guidance_scale=1e30), "guidance_scale", "got 1e+30"),
    (of_prompt(lm_guidance_scale=2.0), "lm_guidance_scale", "got 2.0"),
    (of_prompt(lm_guidance_scale=NAN), "lm_guidance_scale", "got nan"),
    (of_prompt(temperature=-1), "temperature", "got -1"),
    (of_prompt(temperature=NAN), "temperature", "got nan"),
    (of_prompt(temperature=1e6), "temperature", "from 0 to 10"),
    (of_prompt(top_k=-1), "top_k", "got -1"),
    (of_prompt(top_k=1.5), "top_k", "got 1.5"),
    (of_prompt(top_p=-0.1), "top_p", "got -0.1"),
    (of_prompt(top_p=1.1), "top_p", "got 1.1"),
    (of_prompt(num_waveforms_per_prompt=0), "num_waveforms_per_prompt", "got 0"),
    (of_prompt(num_waveforms_per_prompt=65), "num_waveforms_per_prompt", "got 65"),
    (of_prompt(output_type="mp3"), "output_type", "'np', 'pt', 'latent'; got 'mp3'"),
    (of_prompt(output_type=None), "output_type", "got None"),
    (of_prompt(output_type=["np"]), "output_type", "a list"),
    (of_prompt(generator=7), "generator", "got 7"),
    (of_prompt(generator=[seeded(), seeded()]), "generator", "each of 1 waveforms; got 2"),
    (of_prompt(generator=[None]), "generator", "a list"),
    (of_prompt(latents=torch.zeros(1, 2, 3)), "latents", "got (1, 2, 3)"),
    (of_prompt(latents=torch.full((1, 500, 4), NAN)), "latents", "got"),
    (of_prompt(latents=np.zeros((1, 500, 4))), "latents", "got (1, 500, 4)"),
    (of_prompt(callback_on_step_end_tensor_inputs=["x"]), "callback_on_step_end_tensor_inputs", "['x']"),
    (of_prompt(callback_on_step_end=3), "callback_on_step_end", "got 3"),
    (of_prompt(continuation="spiral"), "continuation", "spiral"),
    (of_prompt(prompt_guidance_scale=31), "prompt_guidance_scale", "31"),
    (of_prompt(prompt_guidance_scale=2.0), "prompt_guidance_scale", "2.0"),
    (of_prompt(guidance_interval=0.5), "guidance_interval", "0.5"),
    (of_prompt(guidance_interval=(0.5, 1.5)), "guidance_interval[1]", "1.5"),
    (of_prompt(guidance_interval=(0.9, 0.5)), "guidance_interval[1]", "0.5"),
    ({"mulan_tokens": tokens(1, 99)}, "mulan_tokens", "got (1, 99)"),
    ({"mulan_tokens": tokens(1, 2, value=10**6)}, "mulan_tokens", "got"),
    ({"semantic_tokens": tokens(1, 250, value=10**6)}, "semantic_tokens", "1000000 to 1000000"),
    ({"semantic_tokens": tokens(1, 250, value=-1)}, "semantic_tokens", "-1 to -1"),
    ({"semantic_tokens": tokens(1, 250, dtype=torch.float32)}, "semantic_tokens", "torch.float32"),
    ({"semantic_tokens": tokens(250)}, "semantic_tokens", "got (250,)"),
    ({"semantic_tokens": [[1, 2], [3]]}, "semantic_tokens", "a list"),
    ({"semantic_tokens": [["a", "b"]]}, "semantic_tokens", "a list"),
    ({"semantic_tokens": tokens(1, 25), "audio_duration": 10.0}, "semantic_tokens", "250 tokens; got 25"),
    ({"audio_prompt": []}, "audio_prompt", "got 0"),
    ({"audio_prompt": "/no/such/file.wav"}, "audio_prompt", "/no/such/file.wav"),
    ({"audio_prompt": __file__}, "audio_prompt", "be an audio file"),
    ({"audio_prompt": "a.wav", "audio_prompt_sampling_rate": 24000}, "audio_prompt_sampling_rate", "24000"),
    ({"audio_prompt": 3.0}, "audio_prompt", "got 3.0"),
    (of_clip(np.full(24000, NAN)), "audio_prompt", "NaN or infinity"),
    (of_clip(np.full(24000, 1e9)), "audio_prompt", "a peak of 1e+09"),
    (of_clip(SECOND, None), "audio_prompt_sampling_rate", "got None"),
    (of_clip(SECOND, 7), "audio_prompt_sampling_rate", "got 7"),
    (of_clip(SECOND, 24000.5), "audio_prompt_sampling_rate", "got 24000.5"),
    (of_clip(SECOND.astype(np.complex64)), "audio_prompt", "got complex64"),
    (of_clip(np.full(24000, 20000.0)), "audio_prompt", "a peak of 20000. Did you mean `/ 32768`?"),
    (of_clip(SECOND.astype(np.int64)), "audio_prompt", "Its scale cannot be known"),
    (of_clip(np.zeros((24000, 2))), "audio_prompt", "Did you mean `.T`?"),
    (of_clip([[0.1, 0.2], [0.3]], 24000) | {"num_waveforms_per_prompt": 0}, "num_waveforms_per_prompt", "got 0"),
    (of_clip({"array": SECOND, "sampling_rate": 44100}), "audio_prompt_sampling_rate", "44100, as the audio itself"),
    (of_clip({"sampling_rate": 44100}, None), "audio_prompt", "a dict of sampling_rate"),
    (of_clip(b"no audio", None), "audio_prompt", "be an audio file"),
    (of_clip(np.array(["a", "b"])), "audio_prompt", "got <U1"),
    (of_clip(np.zeros(0)), "audio_prompt", "got (0,)"),
    (of_clip(np.zeros((9, 100))), "audio_prompt", "got (9, 100)"),
]

BAD_FILLINGS = [
    ({"audio": None}, "audio", "got None"),
    ({"regions": []}, "regions", "got none of these"),
    ({"regions": 3}, "regions", "got 3"),
    ({"regions": [3]}, "regions[0]", "got 3"),
    ({"regions": [(0, 1, 2)]}, "regions[0]", "(0, 1, 2)"),
    ({"regions": [(0.5, 0.1)]}, "regions[0][1]", "got 0.1"),
    ({"regions": [(-1, 0.5)]}, "regions[0][0]", "got -1"),
    ({"regions": [(0, 9)]}, "regions[0][1]", "got 9"),
    ({"regions": [(0, 1)]}, "regions", "all of it"),
    ({"regions": [(NAN, 0.5)]}, "regions[0][0]", "got nan"),
    ({"extend_seconds": -1}, "extend_seconds", "got -1"),
    ({"extend_seconds": INFINITY}, "extend_seconds", "got inf"),
    ({"prepend_seconds": -1}, "prepend_seconds", "got -1"),
    ({"prepend_seconds": 3601}, "prepend_seconds", "got 3601"),
    ({"regions": [(0, 0.99)]}, "regions", "all of it"),
    ({"regions": [(0, 0.5)], "output_type": "wav"}, "output_type", "got 'wav'"),
    ({"extend_seconds": 1, "semantic_source": "tokens"}, "semantic_source", "got 'tokens'"),
    ({"extend_seconds": 1, "prompt": ["a", "b"]}, "prompt", "got 2"),
]


def refuse(call, arguments, name, said):
    """Refused by name, with what came; the fastest of three within 50 ms."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        with pytest.raises(MeLoDyInputError) as caught:
            call(**arguments)
        seconds.append(time.perf_counter() - started)
    assert caught.value.argument == name
    assert said in str(caught.value) and caught.value.allowed in str(caught.value)
    assert len(str(caught.value)) < 300
    assert min(seconds) < 0.05


@pytest.mark.parametrize(("arguments", "name", "said"), BAD_CALLS, ids=[f"{i}-{c[1]}" for i, c in enumerate(BAD_CALLS)])
def test_a_bad_call_is_refused_at_once_by_name(pipe, arguments, name, said):
    refuse(pipe, arguments, name, said)


@pytest.mark.parametrize(("arguments", "name", "said"), BAD_FILLINGS)
def test_a_bad_filling_is_refused_at_once_by_name(inpaint, arguments, name, said):
    refuse(inpaint, {"audio": SECOND, "audio_sampling_rate": 24000} | arguments, name, said)


@pytest.mark.parametrize("convert", [lambda x: x[::-1], lambda x: x.astype(np.longdouble), lambda x: x[:, None].T])
def test_an_array_may_have_any_layout_and_precision(pipe, convert):
    clip = np.sin(np.arange(24000) * 0.05).astype(np.float32) * 0.5
    plain = np.ascontiguousarray(convert(clip), np.float32)
    made = [pipe(**of_clip(x), **QUICK, generator=seeded()).semantic_tokens for x in (convert(clip), plain)]
    assert torch.equal(*made)


def test_many_threads_get_what_they_get_one_after_another(pipe):
    requests = [
        {
            "prompt": f"{'slow' if i % 2 else 'fast'} waltz number {i}",
            "generator": seeded(i),
            "audio_duration": 2.0 + i % 3,
            "num_inference_steps": 1 + i % 3,
            "output_type": "pt",
        }
        for i in range(32)
    ]
    alone = [pipe(**request).audios for request in requests]
    for i, request in enumerate(requests):
        request["generator"] = seeded(i)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda request: pipe(**request).audios, requests))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("at", range(8))
def test_cancelled_at_any_step_the_next_call_is_as_ever(pipe, at):
    """Six reverse steps (two windows of three) are cancelled one by one; 6 and 7 cancel the language model instead."""
    expected = pipe("a waltz", generator=seeded(), **QUICK).audios
    steps = []

    def cancel(pipe, step, angle, tensors):
        steps.append(step)
        if step == at:
            raise Cancelled
        return {}

    def cancel_plan(pipe, step, num_tokens):
        steps.append(step)
        if step == (1, 100)[at - 6]:
            raise Cancelled

    callback = {"callback_on_step_end": cancel} if at < 6 else {"callback_on_token_end": cancel_plan}
    with pytest.raises(Cancelled):
        pipe("a waltz", generator=seeded(), audio_duration=12.0, num_inference_steps=3, **callback)
    assert len(steps) == (at + 1 if at < 6 else (1, 100)[at - 6])
    assert torch.equal(pipe("a waltz", generator=seeded(), **QUICK).audios, expected)
