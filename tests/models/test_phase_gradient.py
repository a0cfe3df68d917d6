"""The phase-gradient head: phases that fit their differences, the same in tiles and by both solvers; its training."""

import math

import pytest
import torch

from melody_diffusers.losses import phase_gradient_loss
from melody_diffusers.models.audio_vae import AudioVAEGAN, AudioVAEGANConfig
from melody_diffusers.models.heads import phase_gradient
from melody_diffusers.models.heads.phase_gradient import PhaseNetwork, join_phases, solve_frames
from melody_diffusers.spectra import inverse_stft_frames, stft_frames

N_FFT, HOP = 256, 64


def music(seconds: float = 0.5) -> torch.Tensor:
    """(1, T): two partials, one of which begins late, and a click."""
    time = torch.arange(int(24000 * seconds) // HOP * HOP) / 24000
    waveform = 0.3 * torch.sin(2 * math.pi * 440 * time)
    waveform += 0.2 * torch.sin(2 * math.pi * 3210 * time) * (time > 0.2)
    waveform[4000] += 0.5
    return waveform[None]


def true_differences(spectrum: torch.Tensor) -> torch.Tensor:
    """(B, N, F) to (B, N, 4, F): what a perfect `PhaseNetwork` would answer."""
    unit = spectrum / spectrum.abs().clamp_min(1e-9)
    forward, upward = torch.zeros_like(unit), torch.zeros_like(unit)
    forward[:, 1:] = unit[:, 1:] * unit[:, :-1].conj()
    upward[..., 1:] = unit[..., 1:] * unit[..., :-1].conj()
    return torch.stack([forward.real, forward.imag, upward.real, upward.imag], dim=2)


def vae(**options) -> AudioVAEGAN:
    torch.manual_seed(0)
    sizes = dict(istft_hop=192, istft_n_fft=N_FFT, istft_width=16, istft_encoder_layers=1, istft_decoder_layers=1)
    config = dict(head="phase_gradient", latent_dim=4, latent_scale=1.0, latent_clip=5.0)
    return AudioVAEGAN(AudioVAEGANConfig(**config | sizes | options)).eval()


@pytest.mark.parametrize("compiled", [True, False])
def test_true_differences_give_the_waveform_back(compiled, monkeypatch):
    """Up to one phase for all of it, which nothing can tell: its spectra have the same magnitudes."""
    monkeypatch.setattr(phase_gradient, "has_numba", lambda: compiled)
    waveform = music()
    spectrum = stft_frames(waveform, N_FFT, HOP)
    phases, _ = join_phases(spectrum.abs(), true_differences(spectrum), 2.0, None)
    back = inverse_stft_frames(spectrum.abs() * phases, HOP)
    again = stft_frames(back, N_FFT, HOP).abs()[:, 8:-8]
    assert (again - spectrum.abs()[:, 8:-8]).norm() / again.norm() < 0.01


def test_both_solvers_agree():
    torch.manual_seed(0)
    magnitude, onward, last = torch.rand(3, 40, 65) ** 4, torch.randn(3, 40, 4, 65), torch.rand(3, 65)
    magnitude[:, 20] = 0.0  # silence: phases stay
    phase = torch.polar(torch.ones(3, 65), torch.randn(3, 65))
    from melody_diffusers.models.heads.phase_gradient_cpu import solve

    compiled = solve(magnitude, onward, last, phase, 2.0)
    reference = solve_frames(magnitude.double(), onward.double(), last.double(), phase.to(torch.complex128), 2.0)
    torch.testing.assert_close(compiled.abs(), torch.ones(3, 40, 65))
    assert (compiled - reference).abs().mean() < 1e-4
    assert torch.equal(compiled[:, 20], compiled[:, 19])


def test_the_network_is_the_same_compiled():
    torch.manual_seed(0)
    network, magnitude = PhaseNetwork(6, N_FFT, HOP), torch.rand(2, 7, N_FFT // 2 + 1) ** 4
    for layer in (network.around, network.middle, network.last):
        torch.nn.init.normal_(layer.bias)
    expected = network(magnitude)
    assert expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(network(magnitude), expected, atol=1e-4, rtol=1e-4)


def test_what_was_joined_can_be_continued():
    torch.manual_seed(0)
    magnitude, onward = torch.rand(2, 30, 33), torch.randn(2, 30, 4, 33)
    whole, _ = join_phases(magnitude, onward, 2.0, None)
    first, state = join_phases(magnitude[:, :11], onward[:, :11], 2.0, None)
    second, _ = join_phases(magnitude[:, 11:], onward[:, 11:], 2.0, state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, atol=1e-3, rtol=0)


@torch.no_grad()
def test_a_louder_sound_goes_on_the_same_way():
    network = PhaseNetwork(8, N_FFT, HOP)
    magnitude = stft_frames(music(), N_FFT, HOP).abs() + 0.01
    torch.testing.assert_close(network(7 * magnitude), network(magnitude), atol=1e-4, rtol=0)


@torch.no_grad()
def test_an_untrained_network_answers_with_the_bins_own_turn_where_its_last_layer_says_one():
    network = PhaseNetwork(8, N_FFT, HOP)
    network.last.weight.zero_()
    network.last.bias.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    forward, sideways, upward, across = network(torch.rand(1, 3, N_FFT // 2 + 1))[0, 1]
    turn = 2 * math.pi * HOP / N_FFT * torch.arange(N_FFT // 2 + 1)  # of a pure tone in the middle of each bin
    torch.testing.assert_close(forward, turn.cos())
    torch.testing.assert_close(sideways, turn.sin())
    assert (upward == -1).all() and (across == 0).all()  # half a turn, as in the main lobe of a centred window


@torch.no_grad()
@pytest.mark.parametrize("num_samples", [1, 192, 24001])
def test_every_length_is_reconstructed(num_samples):
    waveform = torch.randn(2, 1, num_samples) * 0.1
    assert vae()(waveform).sample.shape == (2, 1, num_samples)


@torch.no_grad()
def test_tiles_give_the_same_waveform():
    model = vae()
    latents = torch.randn(2, 150, 4)
    whole = model.decode(latents).sample
    for tile_frames in (40, 64):
        model.tile_frames = tile_frames
        torch.testing.assert_close(model.decode(latents).sample, whole, atol=1e-3, rtol=0)


@torch.no_grad()
def test_latents_hold_no_phase():
    model, waveform = vae(), music().unsqueeze(1)
    latents, flipped = (model.encode(x).latent_dist.mode() for x in (waveform, -waveform))
    torch.testing.assert_close(latents, flipped)


def test_sound_trains_the_magnitudes_and_differences_train_the_network_of_phases_alone():
    model, waveform = vae(), music().unsqueeze(1)
    made = model.reconstruct(waveform, model.encode(waveform).latent_dist.mode())
    assert made.sound.shape == waveform.shape and made.magnitude.shape == made.spectrum.shape
    torch.testing.assert_close(made.spectrum.abs(), model.encoder.magnitude(model._whole_frames(waveform)))
    made.sound.square().sum().backward(retain_graph=True)
    assert model.decoder.last.weight.grad.abs().sum() > 0 and model.encoder.first.weight.grad.abs().sum() > 0
    assert not model.decoder.phases.last.weight.grad.any()
    model.zero_grad()
    phase_gradient_loss(made.onward, made.spectrum).backward()
    assert model.decoder.phases.last.weight.grad.abs().sum() > 0
    assert not any(p.grad.any() for p in (model.decoder.last.weight, model.encoder.first.weight) if p.grad is not None)


def test_the_loss_is_nothing_for_the_truth_and_one_for_no_answer():
    spectrum = stft_frames(music(), N_FFT, HOP)
    truth = true_differences(spectrum)
    assert phase_gradient_loss(truth, spectrum) < 1e-6
    assert phase_gradient_loss(torch.zeros_like(truth), spectrum) == pytest.approx(1.0, abs=0.01)
    assert phase_gradient_loss(-truth, spectrum) == pytest.approx(4.0, abs=0.01)


@torch.no_grad()
def test_principal_components_rebuild_what_has_no_more_dimensions_than_latents():
    """Tones of one pitch at any loudness: log magnitudes have one dimension, and a few at the ends."""
    model = vae(latent_dim=8)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(192 * 60) / 24000)
    loudness = torch.logspace(-1.5, 0, 12)[:, None, None]
    waveforms = 0.5 * loudness * tone
    pieces = [waveforms[:5], waveforms[5:, :, : 192 * 30]]
    model.fit_components(pieces)
    latent_dist = model.encode(waveforms).latent_dist
    decoded, wanted = model.magnitude_pair(waveforms, latent_dist.mode())
    error = (decoded.clamp_min(1e-4).log() - wanted.clamp_min(1e-4).log()).abs()
    assert error.mean() < 0.05
    raw = torch.cat([model.encode(piece).latent_dist.mean.flatten(0, 1) for piece in pieces])
    assert raw.mean(0).abs().max() < 0.01
    assert raw[:, 0].std() == pytest.approx(1.0, abs=0.01)
    assert latent_dist.logvar[..., 0].max() < latent_dist.logvar[..., -1].min()  # what matters most is told best


def test_components_need_a_linear_path():
    with pytest.raises(ValueError, match="the magnitude head has no linear path"):
        vae(head="magnitude").fit_components([torch.zeros(1, 1, 192)])
