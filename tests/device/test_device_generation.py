"""Generation on a device that refuses to mix with the CPU: whatever users bring from wherever, with few waits."""

import pytest
import torch
from fake_device import FakeDevice
from small import make_pipe

from melody_diffusers import AngleScheduler, AudioVAEGAN, AudioVAEGANConfig, MeLoDyInpaintPipeline

QUICK = {"num_inference_steps": 2, "output_type": "pt"}
CLIP = 0.1 * torch.sin(torch.arange(24000) * 0.05)
PLAN = torch.arange(20)[None] % 32


def fake(seed: int = 0) -> torch.Generator:
    return torch.Generator("fake").manual_seed(seed)


def cpu(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CALLS = {
    "text": lambda: {"prompt": "slow rock", "audio_duration": 0.5},
    "a generator of the device": lambda: {"prompt": "a waltz", "audio_duration": 0.5, "generator": fake()},
    "one for each": lambda: {"prompt": ["rock", "waltz"], "audio_duration": 0.5, "generator": [fake(1), fake(2)]},
    "of the CPU": lambda: {"prompt": ["rock", "waltz"], "audio_duration": 0.5, "generator": [cpu(1), cpu(2)]},
    "variations": lambda: {"prompt": "rock", "audio_duration": 0.5, "num_waveforms_per_prompt": 2},
    "a clip": lambda: {"audio_prompt": CLIP, "audio_prompt_sampling_rate": 24000, "audio_duration": 0.5},
    "MuLan tokens": lambda: {"mulan_tokens": torch.tensor([[1, 2, 3]]), "audio_duration": 0.5},
    "a plan": lambda: {"semantic_tokens": PLAN},
    "latents": lambda: {"semantic_tokens": PLAN, "latents": torch.randn(1, 40, 8, generator=cpu())},
    "greedily": lambda: {"prompt": "rock", "audio_duration": 0.5, "temperature": 0.0},
    "top k and p": lambda: {"prompt": "rock", "audio_duration": 0.5, "top_k": 5, "top_p": 0.9},
    "without guidance": lambda: {"prompt": "rock", "audio_duration": 0.5, "guidance_scale": 1.0},
    "a length past the window": lambda: {"prompt": "rock", "audio_duration": 1.5},
    "NumPy": lambda: {"prompt": "rock", "audio_duration": 0.5, "output_type": "np"},
    "latents as output": lambda: {"prompt": "rock", "audio_duration": 0.5, "output_type": "latent"},
}


@pytest.mark.parametrize("name", CALLS)
def test_music_comes_from_what_a_user_brings(pipe, name):
    call = QUICK | CALLS[name]()
    output = pipe(**call)
    if call["output_type"] == "np":
        assert output.audios.dtype == "float32"
    else:
        assert output.audios.device.type == "fake" and output.audios.cpu().isfinite().all()


def test_a_generator_of_the_cpu_gives_the_cpus_music(device):
    call = {"prompt": "slow rock", "audio_duration": 0.5, **QUICK}
    here = make_pipe()(**call, generator=cpu())
    there = make_pipe().to("fake")(**call, generator=cpu())
    assert torch.equal(there.semantic_tokens.cpu(), here.semantic_tokens)
    torch.testing.assert_close(there.audios.cpu(), here.audios)


@pytest.mark.parametrize("semantic_source", ["lm", "audio"])
@pytest.mark.parametrize("prompt", [None, "a waltz"])
def test_a_recording_is_filled_and_continued(pipe, semantic_source, prompt):
    inpaint = MeLoDyInpaintPipeline.from_pipe(pipe)
    call = {"regions": [(0.4, 0.6)], "extend_seconds": 0.2, "semantic_source": semantic_source, "prompt": prompt}
    filled = inpaint(CLIP, audio_sampling_rate=24000, generator=fake(), **call, **QUICK).audios
    assert filled.device.type == "fake" and filled.shape[-1] == 28800
    assert torch.equal(filled[0, 0, :9600].cpu(), CLIP[:9600])


def test_the_stages_take_tensors_of_the_cpu(pipe):
    mulan_tokens = pipe.encode_prompt("slow rock").cpu()
    tokens = pipe.generate_semantic_tokens(mulan_tokens, 20, generator=[fake()]).cpu()
    latents = pipe.prepare_latents(1, 40, [fake()]).cpu()
    latents = pipe.denoise_latents(latents, tokens, num_inference_steps=1).cpu()
    waveform, gains = pipe.decode_latents(latents)
    assert {waveform.device.type, gains.device.type} == {"fake"}
    assert pipe.mulan_quantizer.encode(torch.randn(2, 16)).device.type == "fake"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(device, dtype):
    pipe = make_pipe().to("fake", dtype)
    audios = pipe("slow rock", audio_duration=0.5, generator=fake(), **QUICK).audios
    assert audios.dtype == torch.float32 and audios.cpu().isfinite().all()


def test_nothing_asks_for_float64(monkeypatch):
    """Apple's devices have none. The magnitude head, as melody-tiny's, finds phases by long sums."""
    sizes = dict(istft_hop=480, istft_n_fft=960, istft_width=8, istft_encoder_layers=1, istft_decoder_layers=1)
    vae = AudioVAEGAN(AudioVAEGANConfig(head="magnitude", latent_dim=8, griffin_lim_iterations=2, **sizes)).eval()
    with FakeDevice(has_float64=False) as device:
        with pytest.raises(TypeError, match="no float64"):
            torch.zeros(2, device="fake").double()
        pipe = make_pipe()
        pipe.register_modules(vae=vae)
        pipe = pipe.to("fake")
        audios = pipe("rock", audio_duration=0.5, generator=fake(), **QUICK).audios
        inpaint = MeLoDyInpaintPipeline.from_pipe(pipe)
        inpaint(CLIP, audio_sampling_rate=24000, regions=[(0.4, 0.6)], **QUICK)
        pipe(audio_prompt=CLIP, audio_prompt_sampling_rate=24000, audio_duration=0.5, **QUICK)
        pipe.vae.fit_latent_statistics(torch.randn(10, 8, device="fake"))
        assert audios.cpu().isfinite().all() and device.launches


# --- waits ------------------------------------------------------------------------------------------------------------


def waits(device, function, *arguments, **options) -> int:
    device.syncs.clear()
    function(*arguments, **options)
    return sum(device.syncs.values())


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_reverse_loop_waits_no_more_for_more_steps(pipe, device, guidance):
    def render(steps):
        pipe.denoise_latents(torch.zeros(1, 40, 8), PLAN, num_inference_steps=steps, guidance_scale=guidance)

    assert waits(device, render, 6) == waits(device, render, 2) <= 8


def test_the_token_loop_waits_no_more_for_more_tokens(pipe, device):
    lm, condition = pipe.semantic_lm, torch.zeros(1, 3, dtype=torch.long, device="fake")
    few, many = (waits(device, lm.generate_semantic_tokens, condition, count) for count in (4, 16))
    assert few == many <= 4  # the noise, and transformers' look at the mask


def test_a_reverse_step_does_not_wait(device):
    scheduler, z = AngleScheduler(), torch.randn(1, 8, 4, device="fake")
    scheduler.set_timesteps(4, device="fake")
    device.syncs.clear()
    for angle in scheduler.timesteps:
        z = scheduler.step(z, angle, z).prev_sample
    assert not device.syncs


def test_a_forward_pass_of_the_dual_path_does_not_wait(pipe, device):
    inputs = torch.randn(2, 40, 8, device="fake"), torch.rand(1, 40, device="fake"), PLAN.to("fake")
    with torch.no_grad():
        assert waits(device, pipe.dual_path, *inputs) == 0
        pipe.dual_path(inputs[0], 0.5)  # a number, or a tensor of the CPU, is taken to the device
        pipe.dual_path(inputs[0], torch.tensor(0.5))


def test_a_whole_call_waits_a_few_times(pipe, device):
    few, many = (
        waits(device, pipe, "rock", audio_duration=0.5, num_inference_steps=n, output_type="pt") for n in (1, 4)
    )
    assert few == many <= 30
