"""AudioVAEGAN: exact lengths, exact inverses, tiling without seams, and the paper's parameter counts."""

import json
from dataclasses import dataclass, fields

import pytest
import torch
from torch.overrides import TorchFunctionMode

from melody_diffusers.hf import loading
from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig
from melody_diffusers.models.heads import HEADS
from melody_diffusers.models.heads.hifigan import HiFiGANOptions, UpsampleConv
from melody_diffusers.spectra import griffin_lim, stft_frames
from melody_diffusers.training_utils import load_config

HIFIGAN = dict(
    head="hifigan",
    latent_dim=4,
    encoder_rates=(2, 3),
    encoder_channels=(4, 8),
    encoder_kernels=(5, 7),
    decoder_rates=(3, 2),
    decoder_channels=(16, 8),
    decoder_kernels=(5, 7),
    residual_kernels=(3, 5),
    encoder_dilations=(1, 3),
    decoder_dilations=(1, 3),
)
ISTFT = dict(
    head="istft",
    latent_dim=4,
    latent_scale=1.0,
    istft_hop=8,
    istft_n_fft=32,
    istft_width=16,
    istft_encoder_layers=2,
    istft_decoder_layers=2,
)


@pytest.fixture(params=[HIFIGAN, ISTFT], ids=["hifigan", "istft"])
def vae(request) -> AudioVAEGAN:
    torch.manual_seed(0)
    return AudioVAEGAN(AudioVAEGANConfig(**request.param)).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_defaults_have_the_papers_size():
    with torch.device("meta"):
        vae = AudioVAEGAN(AudioVAEGANConfig())
    assert sum(p.numel() for p in vae.encoder.parameters()) == pytest.approx(40.0e6, rel=0.01)
    assert sum(p.numel() for p in vae.decoder.parameters()) == pytest.approx(60.1e6, rel=0.01)
    assert (vae.hop_samples, vae.latent_dim, vae.sample_rate) == (96, 16, 24000)
    assert vae.encode(torch.empty(1, 1, 96 * 5, device="meta")).latent_dist.mean.shape == (1, 5, 16)
    assert vae.decode(torch.empty(1, 5, 16, device="meta")).sample.shape == (1, 1, 96 * 5)


@torch.no_grad()
def test_lengths_are_exact(vae):
    hop = vae.hop_samples
    for num_frames in (1, 2, 7, 20):
        latents = vae.encode(noise(2, 1, num_frames * hop)).latent_dist.mode()
        assert latents.shape == (2, num_frames, 4)
        assert vae.decode(latents).sample.shape == (2, 1, num_frames * hop)
    assert vae.encode(noise(1, 1, 3 * hop + 1)).latent_dist.mode().shape == (1, 4, 4)  # padded up
    assert vae(noise(1, 1, 3 * hop + 1)).sample.shape == (1, 1, 3 * hop + 1)


def test_paper_latents_are_a_third_of_the_gaussian_clipped_to_one(vae):
    vae.config.latent_scale, vae.config.latent_clip = 1 / 3, 3.0
    with torch.no_grad():
        vae.encoder.last.bias[:4] = torch.tensor([0.0, 1.0, 9.0, -9.0])
    dist = vae.encode(noise(1, 1, 64 * vae.hop_samples)).latent_dist
    torch.testing.assert_close(dist.mode(), (dist.mean / 3).clamp(-1, 1))
    raw = dist.raw_sample(torch.Generator().manual_seed(3))
    torch.testing.assert_close(dist.sample(torch.Generator().manual_seed(3)), (raw / 3).clamp(-1, 1))


def test_kl_and_samples_follow_the_gaussian(vae):
    dist = vae.encode(noise(1, 1, 200 * vae.hop_samples)).latent_dist
    posterior = torch.distributions.Normal(dist.mean, (0.5 * dist.logvar).exp())
    prior = torch.distributions.Normal(torch.zeros_like(dist.mean), torch.ones_like(dist.mean))
    torch.testing.assert_close(dist.kl(), torch.distributions.kl_divergence(posterior, prior).mean())
    standard = (dist.raw_sample(torch.Generator().manual_seed(0)) - posterior.mean) / posterior.stddev
    assert standard.mean().abs() < 0.1 and (standard.std() - 1).abs() < 0.1


@torch.no_grad()
def test_decode_holds_latents_in_the_range_of_encode(vae):
    bound = vae.config.latent_scale * vae.config.latent_clip
    latents = 3 * bound * torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(0))
    within = latents.clamp(-bound, bound)
    assert torch.equal(vae.decode(latents).sample, vae.decode(within).sample)
    assert not torch.equal(vae.decode(within).sample, vae.decode(0.9 * within).sample)


@torch.no_grad()
def test_fitted_latents_have_unit_scale_and_decode_unchanged(vae):
    waveform = noise(1, 1, 300 * vae.hop_samples)
    raw = vae.encode(waveform).latent_dist.mean
    vae.config.latent_clip = 100.0
    before = vae.decode(vae.encode(waveform).latent_dist.mode()).sample
    assert vae.fit_latent_statistics(raw) == 0.0
    latents = vae.encode(waveform).latent_dist.mode() / vae.config.latent_scale
    torch.testing.assert_close(latents.mean((0, 1)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 1)), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(vae.decode(latents * vae.config.latent_scale).sample, before, atol=1e-5, rtol=1e-4)

    vae.fit_latent_statistics(raw, torch.tensor([2.0, 2.0, 6.0, 10.0]))  # whose mean square is 36
    latents = vae.encode(waveform).latent_dist.mode()
    torch.testing.assert_close(
        latents.std((0, 1)) / vae.config.latent_scale, torch.tensor([2.0, 2.0, 6.0, 10.0]) / 6, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(vae.decode(latents).sample, before, atol=1e-5, rtol=1e-4)


def test_fitting_reports_the_share_that_is_clipped(vae):
    raw = torch.zeros(10000, 4)
    raw[::1000] = 100.0  # one in a thousand, far outside
    assert vae.fit_latent_statistics(raw) == pytest.approx(1e-3)


@torch.no_grad()
def test_tiled_equals_untiled(vae):
    waveform = noise(2, 1, 301 * vae.hop_samples)
    vae.disable_tiling()
    whole = vae.encode(waveform).latent_dist
    sound = vae.decode(whole.mode()).sample
    vae.enable_tiling()
    for tile_frames in (64, 100):
        vae.tile_frames = tile_frames
        tiled = vae.encode(waveform).latent_dist
        torch.testing.assert_close(tiled.mean, whole.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(tiled.logvar, whole.logvar, atol=1e-5, rtol=0)
        torch.testing.assert_close(vae.decode(whole.mode()).sample, sound, atol=1e-5, rtol=0)
    vae.disable_tiling()
    assert torch.equal(vae.decode(whole.mode()).sample, sound)


@torch.no_grad()
@pytest.mark.parametrize("head", ["hifigan", "istft", "magnitude", "phase_gradient"])
def test_decoding_part_by_part_gives_the_same_sound_and_remembers_no_more_with_time(head):
    torch.manual_seed(0)
    spectra = ISTFT | dict(head=head, istft_hop=64, istft_n_fft=256)
    vae = AudioVAEGAN(AudioVAEGANConfig(**(HIFIGAN if head == "hifigan" else spectra))).eval()
    latents, size = noise(1, 700, 4), 100 * vae.hop_samples
    whole = vae.decode(latents).sample
    memory, pieces, shapes = None, [], []
    for part in latents.split(100, dim=1):
        piece, memory = vae.decode_next(part, memory)
        pieces.append(piece)
        shapes.append({name: tensor.shape for name, tensor in memory.items()})
    sound = torch.cat(pieces, dim=-1)
    assert whole.shape[-1] - size < sound.shape[-1] < whole.shape[-1]
    torch.testing.assert_close(sound, whole[..., : sound.shape[-1]], atol=1e-4, rtol=0)
    assert shapes[2:] == shapes[2:3] * 5
    assert [piece.shape[-1] for piece in pieces[1:]] == [size] * 6


@torch.no_grad()
def test_a_loop_decodes_as_the_middle_of_what_repeats_it(vae):
    for num_frames, times in ((300, 3), (5, 101)):  # the context of a frame may go around more than once
        loop, size = noise(2, num_frames, 4), num_frames * vae.hop_samples
        repeated = vae.decode(loop.repeat(1, times, 1)).sample
        middle = repeated[..., times // 2 * size : (times // 2 + 1) * size]
        sound = vae.decode_loop(loop).sample
        torch.testing.assert_close(sound, middle, atol=1e-5, rtol=0)
        turned = vae.decode_loop(loop.roll(3, 1)).sample
        torch.testing.assert_close(turned.roll(-3 * vae.hop_samples, -1), sound, atol=1e-5, rtol=0)
    vae.tile_frames = 64
    tiled = vae.decode_loop(noise(2, 300, 4)).sample
    vae.enable_slicing()
    torch.testing.assert_close(vae.decode_loop(noise(2, 300, 4)).sample, tiled, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("head", ["magnitude", "phase_gradient"])
def test_a_loop_whose_phases_are_found_has_no_seam(head):
    torch.manual_seed(0)
    vae = AudioVAEGAN(AudioVAEGANConfig(**ISTFT | dict(head=head, istft_hop=64, istft_n_fft=256))).eval()
    sound = vae.decode_loop(noise(24, 200, 4)).sample[:, 0]
    assert sound.shape == (24, 200 * 64)
    energy = (sound.roll(-1, -1) - sound).square().roll(129, -1).unflatten(-1, (-1, 256)).mean((0, 2))
    assert 0.9 * energy[1:].mean() < energy[0] < 1.1 * energy[1:].mean()  # within a window's length around the seam


def test_context_covers_the_receptive_field(vae):
    """A gradient from one output frame reaches inputs within `context_frames`, so no tile can show a seam."""
    hop, frames, middle = vae.hop_samples, 401, 200
    waveform = noise(1, 1, frames * hop).requires_grad_()
    vae.encoder(waveform)[0, middle].sum().backward()
    reach = (waveform.grad[0, 0].nonzero().squeeze(1) // hop - middle).abs().max()
    assert 0 < reach <= vae.encoder.context_frames
    latents = noise(1, frames, 4).requires_grad_()
    vae.decoder(latents)[..., middle * hop : (middle + 1) * hop].sum().backward()
    reach = (latents.grad[0].abs().sum(-1).nonzero().squeeze(1) - middle).abs().max()
    assert 0 < reach <= vae.decoder.context_frames


@torch.no_grad()
def test_sliced_equals_whole_batch(vae):
    waveform = noise(3, 1, 20 * vae.hop_samples)
    whole = vae(waveform).sample
    vae.enable_slicing()
    torch.testing.assert_close(vae(waveform).sample, whole, atol=1e-6, rtol=0)


@torch.no_grad()
def test_round_trip_through_a_folder_is_bit_equal(vae, tmp_path):
    waveform = noise(1, 1, 50 * vae.hop_samples)
    vae.fit_latent_statistics(vae.encode(waveform).latent_dist.mean)
    vae.save_pretrained(tmp_path)
    loaded, info = AudioVAEGAN.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.state_dict().keys() == vae.state_dict().keys()
    assert all(torch.equal(tensor, vae.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(loaded.eval()(waveform).sample, vae(waveform).sample)
    assert json.loads((tmp_path / "config.json").read_text())["head"] == vae.config.head


@torch.no_grad()
def test_initial_weights_carry_a_signal_through(vae):
    """Every convolution roughly preserves variance; the common deviation of 0.02 would leave nothing of it."""
    latents = vae.encode(noise(2, 1, 200 * vae.hop_samples)).latent_dist.mean
    assert 0.02 < latents.std() < 10
    sound = vae.decode(torch.randn(2, 200, 4, generator=torch.Generator().manual_seed(0))).sample
    assert 0.003 < sound.std() < 1


def test_gradients_reach_every_parameter(vae):
    dist = vae.encode(noise(1, 1, 20 * vae.hop_samples)).latent_dist
    vae.decode(dist.sample(torch.Generator().manual_seed(0))).sample.square().sum().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_bad_input_is_named(vae):
    with pytest.raises(ValueError, match="waveform has shape"):
        vae.encode(torch.zeros(1, 24000))
    with pytest.raises(ValueError, match="latents have shape"):
        vae.decode(torch.zeros(1, 10, 5))
    with pytest.raises(ValueError, match="head is 'wavenet'"):
        AudioVAEGANConfig(head="wavenet")
    with pytest.raises(ValueError, match="istft_n_fft is 1000"):
        AudioVAEGANConfig(head="istft", istft_n_fft=1000)
    with pytest.raises(ValueError, match="istft_n_fft is 1440; a quarter of it has to go into istft_hop"):
        AudioVAEGANConfig(head="magnitude", istft_n_fft=1440)
    with pytest.raises(ValueError, match="different products"):
        AudioVAEGANConfig(encoder_rates=(2, 3))


def magnitude_vae():
    torch.manual_seed(0)
    sizes = dict(istft_hop=480, istft_n_fft=960, istft_width=16, istft_encoder_layers=1, istft_decoder_layers=1)
    return AudioVAEGAN(AudioVAEGANConfig(head="magnitude", latent_dim=4, **sizes)).eval()


@torch.no_grad()
def test_latents_of_the_magnitude_head_hold_no_phase():
    vae, waveform = magnitude_vae(), torch.randn(1, 1, 4800) * 0.1
    latents, flipped = (vae.encode(x).latent_dist.mode() for x in (waveform, -waveform))
    torch.testing.assert_close(latents, flipped)
    assert latents.shape == (1, 10, 4)


@torch.no_grad()
@pytest.mark.parametrize("num_samples", [1, 480, 24001])
def test_the_magnitude_head_reconstructs_every_length(num_samples):
    vae = magnitude_vae()
    waveform = torch.randn(2, 1, num_samples) * 0.1
    assert vae(waveform).sample.shape == (2, 1, num_samples)
    decoded, wanted = vae.magnitude_pair(waveform, vae.encode(waveform).latent_dist.mode())
    assert decoded.shape == wanted.shape == (2, 2 * -(-num_samples // 480), 481)


@torch.no_grad()
def test_the_waveform_of_the_magnitude_head_has_about_the_magnitudes_it_was_trained_for():
    """Exactly so where magnitudes are those of a real waveform: the identity in place of the network."""
    vae, time = magnitude_vae(), torch.arange(24000) / 24000
    waveform = (0.3 * torch.sin(2 * torch.pi * 440 * time))[None, None]
    wanted = vae.encoder.magnitude(waveform)
    vae.decoder.forward = lambda latents: wanted.transpose(1, 2)
    decoded = vae.decode(torch.zeros(1, 50, 4)).sample
    assert (vae.encoder.magnitude(decoded) - wanted).norm() / wanted.norm() < 0.1


@torch.no_grad()
def test_tiles_of_the_magnitude_head_share_one_phase():
    vae = magnitude_vae()
    time = torch.arange(301 * vae.hop_samples) / 24000
    waveform = (0.3 * torch.sin(2 * torch.pi * 441 * time) + 0.2 * torch.sin(2 * torch.pi * 1234 * time))[None, None]
    latents = vae.encode(waveform).latent_dist.mode()
    sound = vae.decode(latents).sample
    assert vae.use_tiling
    for tile_frames in (64, 100):
        vae.tile_frames = tile_frames
        torch.testing.assert_close(vae.decode(latents).sample, sound, atol=1e-5, rtol=0)


def test_griffin_lim_keeps_a_tone_in_tune_for_ten_minutes_and_gives_the_same_in_tiles():
    """The last second of a long tone is as pure as the first: its phase has lost no digits."""
    frames, n_fft, hop = 60_000, 64, 16
    tone = torch.sin(2 * torch.pi * (0.171 * torch.arange(frames * hop, dtype=torch.float64)) % (2 * torch.pi)).float()
    magnitude = stft_frames(tone[None], n_fft, hop).abs()
    whole = griffin_lim(magnitude, hop, num_iterations=4)
    assert whole.shape == (1, frames * hop)
    tiled = griffin_lim(magnitude, hop, num_iterations=4, tile_frames=7_000)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    for second in (slice(24_000, 48_000), slice(-48_000, -24_000)):
        spectrum = torch.fft.rfft(whole[0, second] * torch.hann_window(24_000)).abs().square()
        peak = int(spectrum.argmax())
        assert spectrum[peak - 3 : peak + 4].sum() > 0.999 * spectrum.sum() and abs(peak - 0.171 * 24_000) < 5


OF_AN_EARLIER_VERSION = {  # config.json held the options of every head
    "architectures": ["AudioVAEGAN"],
    "decoder_bottleneck_kernel": 3,
    "decoder_channels": [768, 384, 192, 96],
    "decoder_dilations": [1, 3, 5],
    "decoder_kernels": [9, 9, 5, 7],
    "decoder_rates": [4, 4, 3, 2],
    "dtype": "float32",
    "encoder_bottleneck_kernel": 7,
    "encoder_channels": [32, 64, 128, 256],
    "encoder_dilations": [1, 3, 5, 7, 9],
    "encoder_kernels": [5, 7, 9, 9],
    "encoder_rates": [2, 3, 4, 4],
    "griffin_lim_iterations": 16,
    "head": "magnitude",
    "istft_decoder_layers": 6,
    "istft_encoder_layers": 3,
    "istft_expansion": 3,
    "istft_hop": 480,
    "istft_n_fft": 960,
    "istft_width": 192,
    "latent_clip": 5.0,
    "latent_dim": 16,
    "latent_scale": 1.0,
    "model_type": "melody_audio_vae_gan",
    "residual_kernels": [3, 7, 11],
    "sample_rate": 24000,
    "transformers_version": "5.23.0",
}


def names(head: type) -> set[str]:
    return {field.name for field in fields(head)}


def test_a_configuration_of_an_earlier_version_loads_silently(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(OF_AN_EARLIER_VERSION))
    warnings: list[str] = []
    monkeypatch.setattr(loading.logger, "warning_once", warnings.append)
    config = AudioVAEGANConfig.from_pretrained(tmp_path)
    assert warnings == []
    assert (config.head, config.istft_n_fft, config.hop_samples) == ("magnitude", 960, 480)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    others = names(HiFiGANOptions)
    wanted = {name: value for name, value in OF_AN_EARLIER_VERSION.items() if name not in others}
    ignored = {"architectures", "dtype", "transformers_version"}
    assert saved.keys() - ignored == wanted.keys() - ignored
    assert all(saved[name] == value for name, value in wanted.items() if name not in ignored)
    with pytest.raises(ValueError, match="istft_width"):  # its values are checked as ever
        AudioVAEGANConfig.from_dict(OF_AN_EARLIER_VERSION | {"istft_width": "wide"})


@pytest.mark.parametrize("head", HEADS)
def test_a_configuration_holds_the_options_of_its_head_alone(head):
    options, every = names(HEADS[head][0]), set().union(*(names(other) for other, *_ in HEADS.values()))
    config = AudioVAEGANConfig(head=head)
    assert {name for name in every if hasattr(config, name)} == options
    assert AudioVAEGANConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    base = {"sample_rate", "latent_dim", "head", "latent_clip", "latent_scale"}
    assert AudioVAEGANConfig.known_options({"head": head}).keys() == base | options
    assert AudioVAEGANConfig.known_options().keys() == base | every


@dataclass(frozen=True, kw_only=True)
class FramesOptions:
    """A head of one's own: latents are the `toy_hop` samples of a frame."""

    toy_hop: int = 4

    @property
    def hop_samples(self) -> int:
        return self.toy_hop


class FramesEncoder(torch.nn.Module):
    context_frames = 0

    def __init__(self, options: FramesOptions, latent_dim: int):
        super().__init__()
        self.logvar = torch.nn.Linear(options.toy_hop, latent_dim)

    def forward(self, waveform):
        frames = waveform[:, 0].unflatten(1, (-1, self.logvar.in_features))  # (B, L, hop)
        return torch.cat([frames, self.logvar(frames)], dim=-1)


class FramesDecoder(torch.nn.Module):
    context_frames = 0

    def __init__(self, options: FramesOptions, latent_dim: int):
        super().__init__()

    def forward(self, latents):
        return latents.flatten(1).unsqueeze(1)


@torch.no_grad()
def test_a_head_is_one_class_and_one_line_of_the_table(monkeypatch, tmp_path):
    monkeypatch.setitem(HEADS, "frames", (FramesOptions, FramesEncoder, FramesDecoder))
    config = AudioVAEGANConfig(head="frames", latent_dim=5, toy_hop=5, latent_scale=1.0, latent_clip=9.0)
    vae, waveform = AudioVAEGAN(config), noise(2, 1, 23)
    torch.testing.assert_close(vae(waveform).sample, waveform)
    vae.save_pretrained(tmp_path)
    loaded = AudioVAEGAN.from_pretrained(tmp_path)
    assert loaded.hop_samples == 5
    assert torch.equal(loaded(waveform).sample, vae(waveform).sample)
    (tmp_path / "head.yaml").write_text("model: {head: frames, toy_hop: 3}")
    sections = {"model": AudioVAEGANConfig}
    assert load_config(tmp_path / "head.yaml", sections).model == {"head": "frames", "toy_hop": 3}
    with pytest.raises(ValueError, match="toy_hop.*sample_rate.*istft_hop"):
        load_config(tmp_path / "head.yaml", sections, ["model.head=istft"])


class Apple(TorchFunctionMode):
    """Every tensor says it is on Apple's device, where float64 is an error."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return torch.device("mps")
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        out = func(*("cpu" if isinstance(each, (str, torch.device)) else each for each in args), **kwargs)
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
            raise TypeError(f"{func} makes float64, which MPS does not have")
        return out


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_nothing_asks_for_float64(head):
    sizes = HIFIGAN if head == "hifigan" else ISTFT
    vae = AudioVAEGAN(AudioVAEGANConfig(**sizes | {"head": head})).eval()
    waveform = noise(1, 1, 20 * vae.hop_samples)
    generator = torch.Generator().manual_seed(0)
    with Apple():
        latent_dist = vae.encode(waveform).latent_dist
        vae.fit_latent_statistics(latent_dist.mean)
        sample = vae.decode(latent_dist.sample(generator)).sample
    assert sample.isfinite().all()


@pytest.mark.parametrize(("kernel", "rate"), [(9, 4), (5, 3), (7, 2), (4, 4)])
def test_a_transposed_convolution_is_a_convolution_for_each_phase(kernel, rate):
    """Which bfloat16 on a CPU takes."""
    layer, x = UpsampleConv(6, 5, kernel, rate), torch.randn(2, 6, 11)
    cut = slice(layer.surplus, layer.surplus + 11 * rate)
    assert torch.allclose(layer(x), layer._by_convolution(x)[..., cut], atol=1e-6)
    low = layer.bfloat16()(x.bfloat16())
    assert torch.allclose(low.float(), layer.float()(x), atol=0.03)
