"""The phase-gradient head: latents hold no phase; a small network tells how phases go on, and a solver joins them.

What a spectrum's phases are cannot be told from its magnitudes, but how they differ from frame to frame (the frequency
of what sounds) and from bin to bin (when it sounds) can. A network estimates both from the decoded magnitudes around
each bin, as complex numbers that are short where it is in doubt: it is trained towards exp(i difference) by squared
error. Frame by frame, phases are then those that fit both best (after Masuyama et al. 2023, "Online phase
reconstruction via DNN-based phase differences estimation"): for magnitudes A and unit numbers u,

    minimise over u_n   sum_k  A_nk A_(n-1)k |u_nk - f_nk u_(n-1)k|^2  +  b A_nk A_n(k-1) |u_nk - g_nk u_n(k-1)|^2,

a linear system with three diagonals, the solution of which is brought to length 1. It costs a fifth of Griffin-Lim's
sixteen iterations and leaves less of the energy wrong. Gradients reach the magnitudes through the sound; the phases
are constants to them.

Shapes: B batch, L latent frames, D latent width, C channels, F frequency bins, N spectra.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...devices import has_numba
from ...spectra import Memory, griffin_lim_loop, inverse_stft_frames
from .magnitude import MagnitudeEncoder, SpectraDecoder, SpectraOptions

TINY = 1e-12  # of a pull: where nothing sounds, phases stay what they were


@dataclass(frozen=True, kw_only=True)
class PhaseGradientOptions(SpectraOptions):
    """The phase-gradient head; see `ConvNeXtOptions` for its other options.

    Args:
        phase_channels: width of the network that estimates how phases go on.
        phase_coupling: b, how much bins beside each other count against frames after each other.
    """

    phase_channels: int = 16
    phase_coupling: float = 2.0


class PhaseNetwork(nn.Module):
    """Magnitudes (B, N, F) -> f and g, how phases go on from frame to frame and from bin to bin.

    One convolution over 5 frames and 9 bins, whose weights sum to 0 so that a louder sound is the same sound, and two
    layers for each bin. They tell how the bin differs from what a tone in its middle does.
    """

    frames, bins = 5, 9
    floor = 1e-4

    def __init__(self, channels: int, n_fft: int, hop: int):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.around = nn.Conv2d(1, channels, (self.frames, self.bins))
        self.around.init_gain = 0.3
        self.middle = nn.Conv2d(channels, channels, 1)
        self.last = nn.Conv2d(channels, 4, 1)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """(B, N, F) to (B, N, 4, F): the parts of f, real and imaginary, then those of g."""
        log = magnitude.float().clamp_min(self.floor).log().unsqueeze(1)  # (B, 1, N, F)
        log = F.pad(log, (self.bins // 2,) * 2 + (self.frames // 2,) * 2, mode="replicate")
        weight = self.around.weight - self.around.weight.mean((2, 3), keepdim=True)
        turn = 2 * math.pi * self.hop / self.n_fft * torch.arange(magnitude.shape[2], device=log.device)
        turn = torch.stack([turn.cos(), turn.sin()])
        if not torch.is_grad_enabled() and _may_be_compiled(log):
            from .phase_gradient_cpu import network

            layers = self.around, self.middle, self.last
            _, *others = (parameter for layer in layers for parameter in (layer.weight, layer.bias))
            return network(log[:, 0], turn, weight, *others)
        channels_last = dict(memory_format=torch.channels_last)  # twice as fast on a CPU
        log = log.to(weight.dtype).to(**channels_last)
        x = F.conv2d(log, weight.to(**channels_last), self.around.bias)  # (B, C, N, F)
        real, imaginary, *upward = self.last(F.relu(self.middle(F.relu(x)))).float().unbind(1)  # (B, N, F) each
        forward = [real * turn[0] - imaginary * turn[1], real * turn[1] + imaginary * turn[0]]
        return torch.stack([*forward, *(-part for part in upward)], dim=2)


def _may_be_compiled(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and type(x) is torch.Tensor and not torch.compiler.is_compiling() and has_numba()


class PhaseGradientEncoder(MagnitudeEncoder):
    """As `MagnitudeEncoder`, with a linear path from the log magnitudes to the means, which may begin as principal
    components (`fit_components`)."""

    def __init__(self, options: PhaseGradientOptions, latent_dim: int):
        super().__init__(options, latent_dim)
        self.linear = nn.Linear(self.first.in_features, latent_dim)
        self.linear.init_gain = 0.0

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        features = self.features(waveform)
        mean, logvar = self.last(self.trunk(features)).chunk(2, dim=-1)  # (B, L, D) each
        return torch.cat([mean + self.linear(features.to(self.linear.weight.dtype)), logvar], dim=-1)


class PhaseGradientDecoder(SpectraDecoder):
    """Latents (B, L, D) -> ConvNeXt blocks and a linear path -> magnitudes and how their phases go on, (B, 5 F, N).

    `split` parts the two; `waveform` joins the phases and inverts the spectra.
    """

    def __init__(self, options: PhaseGradientOptions, latent_dim: int):
        super().__init__(options, latent_dim)
        self.coupling = options.phase_coupling
        self.linear = nn.Linear(latent_dim, self.last.out_features)
        self.linear.init_gain = 0.0
        self.phases = PhaseNetwork(options.phase_channels, options.istft_n_fft, self.hop)
        self.context_frames += -(-(PhaseNetwork.frames // 2) // options.spectra_per_latent)
        self.reach = options.istft_n_fft // self.hop

    def log_magnitude(self, latents: torch.Tensor) -> torch.Tensor:
        return super().log_magnitude(latents) + self.linear(latents)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        magnitude = super().forward(latents).transpose(1, 2)  # (B, N, F)
        onward = self.phases(magnitude.detach())  # (B, N, 4, F); it learns from magnitudes, not they from it
        return torch.cat([magnitude, onward.flatten(2)], dim=-1).transpose(1, 2)

    def split(self, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of (B, 5 F, N), the magnitudes (B, N, F) and how their phases go on, (B, N, 4, F)."""
        parts = made.transpose(1, 2).unflatten(-1, (5, -1))  # (B, N, 5, F)
        return parts[:, :, 0], parts[:, :, 1:]

    def next_waveform(self, tile: torch.Tensor, memory: Memory, is_last: bool = False) -> tuple[torch.Tensor, Memory]:
        magnitude, onward = self.split(tile)
        state = (memory["last"], torch.view_as_complex(memory["phase"])) if memory else None
        with torch.no_grad():
            phase, (last, last_phase) = join_phases(magnitude, onward, self.coupling, state)
        spectrum = magnitude.float() * phase
        given = 0  # spectra whose sound is out
        if memory:
            given = max(0, memory["spectrum"].shape[1] - self.reach)
            spectrum = torch.cat([torch.view_as_complex(memory["spectrum"]), spectrum], dim=1)
        end = max(given, spectrum.shape[1] - (0 if is_last else self.reach))
        piece = inverse_stft_frames(spectrum, self.hop)[:, None, given * self.hop : end * self.hop]
        rest = torch.view_as_real(spectrum[:, max(0, end - self.reach) :])
        return piece, {"spectrum": rest, "last": last, "phase": torch.view_as_real(last_phase)}

    def loop_waveform(self, made: torch.Tensor) -> torch.Tensor:
        # joined from the first frame to the last, phases do not come around: spectra that overlap at the seam would
        # cancel six tenths of the sound there, of which Griffin-Lim leaves nothing
        magnitude, onward = self.split(made)
        with torch.no_grad():
            phase, _ = join_phases(magnitude, onward, self.coupling, None)
        return griffin_lim_loop(magnitude.float(), self.hop, phase.angle()).unsqueeze(1)


def join_phases(
    magnitude: torch.Tensor, onward: torch.Tensor, coupling: float, state: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Phases that fit what is known of their differences; the equation is at the top of this file.

    Args:
        magnitude: (B, N, F).
        onward: (B, N, 4, F), of `PhaseNetwork`.
        state: the second result for the spectra before, None at the beginning.

    Returns:
        Numbers of length 1, complex (B, N, F), and what continues them: the last spectrum's magnitudes (B, F) and
        phases, complex (B, F).
    """
    magnitude, onward = magnitude.float(), onward.float()
    if state is None:
        state = torch.zeros_like(magnitude[:, 0]), torch.ones_like(magnitude[:, 0], dtype=torch.complex64)
    last, phase = state
    # of a GPU's too: each frame waits for the one before, which a CPU is good at
    if not magnitude.is_meta and _may_be_compiled(magnitude.cpu()):
        from .phase_gradient_cpu import solve

        phases = solve(magnitude.cpu(), onward.cpu(), last.cpu(), phase.cpu(), coupling).to(magnitude.device)
    else:
        phases = solve_frames(magnitude, onward, last, phase, coupling)
    return phases, (magnitude[:, -1], phases[:, -1])


def solve_frames(
    magnitude: torch.Tensor, onward: torch.Tensor, last: torch.Tensor, phase: torch.Tensor, coupling: float
) -> torch.Tensor:
    """What `join_phases` joins, after a frame of magnitudes `last` (B, F) and phases `phase`, complex (B, F).

    Each frame is solved by cyclic reduction: a row's neighbours are put into it, then their neighbours, twice as far
    away each time.
    """
    before = torch.cat([last[:, None], magnitude[:, :-1]], dim=1)
    below = coupling * F.pad(magnitude[..., :-1], (1, 0))
    weighted = magnitude[:, :, None] * torch.stack([before, before, below, below], dim=2) * onward  # (B, N, 4, F)
    forward = torch.complex(weighted[:, :, 0], weighted[:, :, 1])  # (B, N, F)
    upward = F.pad(torch.complex(weighted[:, :, 2], weighted[:, :, 3])[..., 1:], (1, 0))
    pull = forward.abs() + upward.abs() + _from(upward.abs(), 1) + TINY
    phases = []
    for n in range(weighted.shape[1]):
        right, middle = forward[:, n] * phase, pull[:, n] + 0j  # (B, F)
        lower, upper = -upward[:, n], -_from(upward[:, n].conj(), 1)
        step = 1
        while step < middle.shape[-1]:
            below, above = -lower / _from(middle, -step, 1.0), -upper / _from(middle, step, 1.0)
            middle = middle + below * _from(upper, -step) + above * _from(lower, step)
            right = right + below * _from(right, -step) + above * _from(right, step)
            lower, upper = below * _from(lower, -step), above * _from(upper, step)
            step *= 2
        solution = right / middle
        phase = torch.where(solution.abs() > TINY, solution / solution.abs().clamp_min(TINY), phase)
        phases.append(phase)
    return torch.stack(phases, dim=1)


def _from(x: torch.Tensor, step: int, outside: float = 0.0) -> torch.Tensor:
    """What stands `step` bins further on in (..., F)."""
    outer = x.new_full((*x.shape[:-1], min(abs(step), x.shape[-1])), outside)
    return torch.cat([x[..., step:], outer] if step > 0 else [outer, x[..., :step]], dim=-1)
