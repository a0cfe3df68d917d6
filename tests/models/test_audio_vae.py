"""AudioVAEGAN: exact lengths, exact inverses, tiling without seams, and the paper's parameter counts."""

import json

import pytest
import torch

from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig
from melody_diffusers.spectra import griffin_lim, stft_frames

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


def test_fitting_reports_the_share_that_is_clipped(vae):
    raw = torch.zeros(10000, 4)
    raw[::1000] = 100.0  # one in a thousand, far outside
    assert vae.fit_latent_statistics(raw) == pytest.approx(1e-3)


@torch.no_grad()
def test_tiled_equals_untiled(vae):
    waveform = noise(2, 1, 301 * vae.hop_samples)
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
        AudioVAEGANConfig(istft_n_fft=1000)


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
    assert vae(torch.randn(2, 1, num_samples) * 0.1).sample.shape == (2, 1, num_samples)


@torch.no_grad()
def test_the_waveform_of_the_magnitude_head_has_about_the_magnitudes_it_was_trained_for():
    """Exactly so where magnitudes are those of a real waveform: the identity in place of the network."""
    vae, time = magnitude_vae(), torch.arange(24000) / 24000
    waveform = (0.3 * torch.sin(2 * torch.pi * 440 * time))[None, None]
    wanted = vae.encoder.magnitude(waveform)
    vae.decoder.magnitude = lambda latents: wanted
    decoded = vae.decode(torch.zeros(1, 50, 4)).sample
    assert (vae.encoder.magnitude(decoded) - wanted).norm() / wanted.norm() < 0.1


@torch.no_grad()
def test_tiles_of_the_magnitude_head_share_one_phase():
    vae = magnitude_vae()
    time = torch.arange(301 * vae.hop_samples) / 24000
    waveform = (0.3 * torch.sin(2 * torch.pi * 441 * time) + 0.2 * torch.sin(2 * torch.pi * 1234 * time))[None, None]
    latents = vae.encode(waveform).latent_dist.mode()
    sound = vae.decode(latents).sample
    vae.enable_tiling()
    for tile_frames in (64, 100):
        vae.tile_frames = tile_frames
        torch.testing.assert_close(vae.decode(latents).sample, sound, atol=1e-5, rtol=0)


def test_griffin_lim_keeps_a_tone_in_tune_for_ten_minutes_and_gives_the_same_in_tiles():
    """The last second of a long tone is as pure as the first: its phase has lost no digits."""
    frames, n_fft, hop = 60_000, 64, 16
    tone = torch.sin(2 * torch.pi * (0.171 * torch.arange(frames * hop, dtype=torch.float64)) % (2 * torch.pi)).float()
    magnitude = stft_frames(tone[None], n_fft, hop).abs()
    whole = griffin_lim(magnitude, hop, num_iterations=4)
    tiled = griffin_lim(magnitude, hop, num_iterations=4, tile_frames=7_000)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    for second in (slice(24_000, 48_000), slice(-48_000, -24_000)):
        spectrum = torch.fft.rfft(whole[0, second] * torch.hann_window(24_000)).abs().square()
        peak = int(spectrum.argmax())
        assert spectrum[peak - 3 : peak + 4].sum() > 0.999 * spectrum.sum() and abs(peak - 0.171 * 24_000) < 5
