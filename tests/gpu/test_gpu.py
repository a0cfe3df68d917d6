"""What only a GPU can show: its values against the CPU's, precision, offloading, compilation, exact resume, memory.

`pytest -m gpu`, under ten minutes in all. MELODY_GPU_DEVICE=cpu runs the same tests on the CPU, as a rehearsal.
"""

import copy
import os

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from melody_diffusers import MELODY_TINY, DualPathDiffusionModel, MeLoDyInpaintPipeline, MeLoDyPipeline, graphs
from melody_diffusers.graphs import Recording
from melody_diffusers.models.semantic_lm import Sampling
from melody_diffusers.models.sru import SRULayer, has_sru_triton, sru_scan_reference
from melody_diffusers.training_utils import OptimConfig, RunConfig, TrainingRun
from melody_diffusers.training_utils.velocity import chunk_angles, multi_chunk_loss

DEVICE = torch.device(os.environ.get("MELODY_GPU_DEVICE", "cuda"))
REHEARSAL = DEVICE.type == "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not REHEARSAL and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOLERANCES = {torch.float32: 2e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}  # of the norm of a whole tensor
WHOLE = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=lambda dtype: str(dtype).removeprefix("torch."))
QUICK = {"audio_duration": 2.0, "num_inference_steps": 2, "output_type": "pt"}
CLIP = 0.2 * torch.sin(torch.arange(2 * 24000) * 0.05)


def seeded(seed: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def load(device: torch.device | str = DEVICE, dtype: torch.dtype = torch.float32) -> MeLoDyPipeline:
    pipe = MeLoDyPipeline.from_pretrained(MELODY_TINY, dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def here() -> MeLoDyPipeline:
    return load("cpu")


def apart(there: torch.Tensor, here: torch.Tensor) -> float:
    """|a - b| / |b| in the norms of whole tensors."""
    a, b = there.detach().float().cpu(), here.detach().float().cpu()
    assert a.isfinite().all() and a.shape == b.shape
    return float((a - b).norm() / b.norm())


# --- values -----------------------------------------------------------------------------------------------------------


@WHOLE
@torch.no_grad()
def test_every_stage_equals_the_cpus(here, dtype):
    there, tolerance = load(dtype=dtype), TOLERANCES[dtype]
    texts = ["a cheerful solo piano waltz", "slow techno"]
    assert (
        apart(there.mulan.embed_texts(there.tokenizer, texts), here.mulan.embed_texts(here.tokenizer, texts))
        < tolerance
    )
    heard = [p.mulan.get_audio_features(CLIP[None, None].to(p.device, p.mulan.dtype)) for p in (there, here)]
    assert apart(*heard) < 4 * tolerance  # a small tower, of whose many roundings little is averaged away
    mulan, plan = torch.arange(8)[None] * 20, torch.arange(50)[None] * 17
    scores = [p.semantic_lm.semantic_logits(mulan.to(p.device), plan.to(p.device)) for p in (there, here)]
    assert apart(*scores) < tolerance
    frames, width = there.dual_path.config.num_frames, there.vae.latent_dim
    latents, angle = torch.randn(1, frames, width, generator=seeded()), torch.rand(1, frames, generator=seeded()) * 1.5
    plan = torch.arange(250)[None] * 4
    velocities = [
        p.dual_path(latents.to(p.device, p.dual_path.dtype), angle.to(p.device), plan.to(p.device)).sample
        for p in (there, here)
    ]
    assert apart(*velocities) < tolerance
    magnitudes = [p.vae.decoder(latents.to(p.device, p.vae.dtype)) for p in (there, here)]
    assert apart(*magnitudes) < tolerance
    levels = [  # phases are found by iteration: magnitudes that are 0.001 apart make levels that are 0.03 apart
        p.vae.decode(latents.to(p.device, p.vae.dtype)).sample.float().unflatten(-1, (-1, 480)).square().mean(-1).sqrt()
        for p in (there, here)
    ]
    assert apart(*levels) < (2e-2 if dtype == torch.float32 else 1e-1)


def test_a_generator_of_the_cpu_gives_the_cpus_plan(here):
    """The likeliest tokens, and drawn ones whose noise comes from the CPU: the same plan but for near ties."""
    there, mulan = load(), torch.arange(8)[None] * 20
    for sampling in (Sampling(temperature=0.0), Sampling()):
        plans = [
            p.semantic_lm.generate_semantic_tokens(
                mulan.to(p.device), 50, sampling=sampling, generator=[seeded(5)]
            ).cpu()
            for p in (there, here)
        ]
        assert torch.equal(plans[0][:, :10], plans[1][:, :10])
        assert (plans[0] == plans[1]).float().mean() > 0.5


@WHOLE
@pytest.mark.parametrize("generator_device", ["cpu", DEVICE])
def test_a_seed_gives_the_same_music_again(dtype, generator_device):
    pipe = load(dtype=dtype)
    one, two = (pipe("a waltz", generator=seeded(3, generator_device), **QUICK).audios for _ in range(2))
    assert torch.equal(one, two) and one.abs().max() > 0.01 and one.device.type == DEVICE.type
    several = [seeded(i, generator_device) for i in range(2)]
    assert pipe(["rock", "techno"], generator=several, **QUICK).audios.shape[0] == 2


def test_inpainting_keeps_the_recording():
    inpaint = MeLoDyInpaintPipeline.from_pipe(load())
    for source in ("lm", "audio"):
        call = {"regions": [(0.5, 1.0)], "semantic_source": source, "num_inference_steps": 2, "output_type": "pt"}
        filled = inpaint(CLIP, audio_sampling_rate=24000, generator=seeded(0, DEVICE), **call).audios.cpu()
        assert torch.equal(filled[0, 0, :12000], CLIP[:12000])
        assert torch.equal(filled[0, 0, 24000:], CLIP[24000:])


# --- kernels and graphs -----------------------------------------------------------------------------------------------


@WHOLE
def test_the_kernel_of_the_sru_equals_its_definition(dtype):
    if REHEARSAL and not has_sru_triton(DEVICE):
        pytest.skip("no Triton here")
    assert has_sru_triton(DEVICE)
    torch.manual_seed(0)
    exact = SRULayer(144, 72).double()
    torch.nn.init.normal_(exact.cell_weight)
    exact.to(dtype).to(DEVICE).double()  # of what that dtype can hold
    x, weight = (torch.randn(66, 32, 144, device=DEVICE, dtype=dtype) for _ in range(2))
    results = []
    for layer, scan in ((copy.deepcopy(exact).to(dtype), None), (exact, sru_scan_reference)):
        inputs = x.detach().to(layer.cell_weight.dtype).requires_grad_()
        h = layer(inputs, scan)
        h.backward(weight.to(h))
        results.append([h, inputs.grad, *(parameter.grad for parameter in layer.parameters())])
    for ours, theirs in zip(*results):
        assert apart(ours, theirs) < {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_recorded_work_is_the_same(monkeypatch, dtype):
    """A plan, and a rendering of several windows, replayed as CUDA graphs and launched one by one."""
    pipe, recorded, record = load(dtype=dtype), [], Recording._record
    monkeypatch.setattr(Recording, "_record", lambda *a: recorded.append(record(*a)) or recorded[-1])

    def make() -> list[torch.Tensor]:
        tokens = pipe.generate_semantic_tokens(
            torch.arange(8)[None] * 20, 40, sampling=Sampling(guidance_scale=5.0), generator=[seeded(1)]
        )
        noise = torch.randn(1, 600, 16, generator=seeded(2))
        return [tokens, pipe.denoise_latents(noise, torch.arange(300)[None] * 2, num_inference_steps=10)]

    first, again = make(), make()
    assert recorded == ([] if REHEARSAL else [True] * 4)
    pipe.dual_path.proj_out.weight.data *= 1.1
    changed = make()
    monkeypatch.setattr(graphs, "LEAST_CALLS", 1 << 30)
    launched = make()
    assert recorded == ([] if REHEARSAL else [True] * 6)
    assert torch.equal(first[0], launched[0]) and torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1]) and apart(changed[1], launched[1]) < 1e-3
    assert apart(first[1], launched[1]) > 1e-2


def test_recordings_give_their_memory_back():
    pipe, sizes = load(), []
    if REHEARSAL:
        pytest.skip("counts the memory of a GPU")
    for _ in range(4):
        pipe("a waltz", generator=seeded(), **QUICK | {"num_inference_steps": 10})
        sizes.append(torch.cuda.memory_allocated())
    assert sizes[3] <= sizes[1]


# --- memory and speed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"]
)
def test_offloading_changes_nothing(method):
    expected = load()("a waltz", generator=seeded(), **QUICK).audios.cpu()
    pipe = load("cpu")
    if method == "enable_group_offload":
        pipe.enable_group_offload(onload_device=DEVICE, offload_type="leaf_level")
    elif REHEARSAL and method == "enable_sequential_cpu_offload":
        pytest.skip("accelerate cannot offload from the CPU to the CPU, module by module")
    else:
        getattr(pipe, method)(device=DEVICE)
    torch.testing.assert_close(pipe("a waltz", generator=seeded(), **QUICK).audios.cpu(), expected, rtol=0, atol=2e-3)


@pytest.mark.timeout(150)
@torch.no_grad()
def test_the_renderer_compiles_into_one_graph():
    """Half of melody-tiny's. Without the SRU's kernel its scan is unrolled, into thousands of operations."""
    sizes = dict(num_frames=500, hidden_size=144, num_blocks=2, segment_length=32, num_attention_heads=4)
    sizes |= dict(num_coarse_layers=1, mlp_size=208, angle_embedding_size=64)
    model = DualPathDiffusionModel(**sizes).to(DEVICE).eval()
    inputs = torch.randn(1, 500, 16, device=DEVICE), torch.full((1, 500), 0.7, device=DEVICE)
    plan = torch.zeros(1, 250, dtype=torch.long, device=DEVICE)
    expected = model(*inputs, plan).sample
    compiled = torch.compile(model, fullgraph=True, backend="eager" if REHEARSAL else "inductor")
    assert apart(compiled(*inputs, plan).sample, expected) < 2e-3


def test_the_papers_renderer_stays_within_its_memory():
    """In bf16 a guided pass over ten seconds takes its weights, 0.6 GB, and no more than 3 GB beside."""
    sizes = {} if not REHEARSAL else {"hidden_size": 48, "mlp_size": 64}
    with torch.device(DEVICE):
        model = DualPathDiffusionModel(**sizes).to(torch.bfloat16).eval()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    latents, angle = torch.randn(2, 2500, 16, device=DEVICE), torch.rand(2, 2500, device=DEVICE)
    if not REHEARSAL:
        torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        model(latents, angle, torch.zeros(1, 250, dtype=torch.long, device=DEVICE))
    if not REHEARSAL:
        assert torch.cuda.max_memory_allocated() < weights + 3e9


# --- training ---------------------------------------------------------------------------------------------------------


def train(folder, steps: int, stop_after: int | None = None, **settings) -> dict[str, torch.Tensor]:
    """Weights of a small renderer after a training by `multi_chunk_loss`."""
    torch.manual_seed(0)
    sizes = dict(latent_dim=8, num_frames=64, semantic_codebook_size=16, hidden_size=32, num_blocks=2, segment_length=8)
    model = DualPathDiffusionModel(**sizes, num_attention_heads=2, mlp_size=32, angle_embedding_size=8)
    data = TensorDataset(torch.randn(32, 64, 8), torch.randint(16, (32, 32)))
    config = {"batch_size": 4, "checkpoint_every": 2, "trackers": [], "ema_decay": 0.9} | settings
    run = TrainingRun(RunConfig(output_dir=str(folder), max_steps=steps, **config), {"dual_path": model})
    optimizer = run.optimizer(model.parameters(), OptimConfig(learning_rate=1e-3))
    for z, tokens in run.steps(DataLoader(data, batch_size=4, shuffle=True)):
        angle = chunk_angles(run.rand("angle", len(z), 4), 64)
        drops = run.rand("drop", len(z), device="cpu") < 0.25
        with run.autocast():
            loss = multi_chunk_loss(model, z, tokens, run.randn("noise", *z.shape), angle, drops)
        run.backward(loss, optimizer)
        run.finish_step(loss=loss)
        if run.step == stop_after:
            break
    return {name: weight.detach().float().cpu() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_a_training_goes_on_where_it_stopped(tmp_path, mixed_precision):
    whole = train(tmp_path / "whole", 8, mixed_precision=mixed_precision)
    train(tmp_path / "halves", 8, stop_after=4, mixed_precision=mixed_precision)
    resumed = train(tmp_path / "halves", 8, mixed_precision=mixed_precision)
    for name, weight in whole.items():  # some backward kernels of CUDA add in another order each time
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=1e-3)


def test_checkpointed_gradients_train_the_same(tmp_path):
    plain = train(tmp_path / "plain", 4)
    checkpointed = train(tmp_path / "checkpointed", 4, gradient_checkpointing=True)
    for name, weight in plain.items():
        torch.testing.assert_close(checkpointed[name], weight, rtol=0, atol=1e-3)
