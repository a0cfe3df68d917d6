import math

import pytest
import torch
from diffusers import DDIMScheduler

from melody_diffusers.schedulers.angle import AngleScheduler, angle_steps

STEPS = [1, 2, 5, 10, 20, 100]
SCHEDULES = ["linear", "uniform"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", STEPS)
def test_steps_are_positive_and_sum_to_a_right_angle(schedule, num_steps):
    omegas = angle_steps(num_steps, schedule)
    assert (omegas > 0).all()
    assert omegas.sum().item() == pytest.approx(math.pi / 2, abs=1e-12)
    assert (omegas.diff() <= 1e-12).all()  # large steps first


def test_linear_steps_follow_equation_4():
    assert angle_steps(5)[0].item() == pytest.approx(math.pi / 30 + 2 * math.pi * 5 / 90)
    assert angle_steps(5)[-1].item() == pytest.approx(math.pi / 30 + 2 * math.pi / 90)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_timesteps_start_at_a_right_angle_and_each_is_the_last_one_less_its_step(schedule):
    scheduler = AngleScheduler(schedule)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0].item() == pytest.approx(math.pi / 2)
    torch.testing.assert_close(scheduler.timesteps[:-1] - scheduler.omegas[:-1], scheduler.timesteps[1:])
    assert scheduler.timesteps[-1].item() == pytest.approx(scheduler.omegas[-1].item())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", STEPS)
def test_a_perfect_velocity_recovers_the_latents(schedule, num_steps):
    z, noise = torch.randn(2, 2, 7, 3, dtype=torch.float64).unbind(0)
    scheduler = AngleScheduler(schedule)
    scheduler.set_timesteps(num_steps)
    sample = noise
    for angle in scheduler.timesteps:
        sample = scheduler.step(scheduler.get_velocity(z, noise, angle), angle, sample).prev_sample
    torch.testing.assert_close(sample, z, rtol=0, atol=2e-6)  # angles are float32


def test_one_step_is_the_analytic_rotation():
    z, noise = torch.randn(2, 2, 7, 3).unbind(0)
    scheduler = AngleScheduler()
    scheduler.set_timesteps(10)
    a, b = scheduler.timesteps[3], scheduler.timesteps[4]
    stepped = scheduler.step(scheduler.get_velocity(z, noise, a), a, scheduler.add_noise(z, noise, a), False)[0]
    torch.testing.assert_close(stepped, scheduler.add_noise(z, noise, b), rtol=1e-5, atol=1e-6)


def test_latents_and_noise_follow_from_noisy_latents_and_velocity():
    scheduler = AngleScheduler()
    z, noise = torch.randn(2, 2, 7, 3).unbind(0)
    angle = torch.rand(2, 7) * math.pi / 2  # one angle a frame
    noisy, velocity = scheduler.add_noise(z, noise, angle), scheduler.get_velocity(z, noise, angle)
    cos, sin = angle.cos().unsqueeze(-1), angle.sin().unsqueeze(-1)
    torch.testing.assert_close(cos * noisy - sin * velocity, z)
    torch.testing.assert_close(sin * noisy + cos * velocity, noise)


@pytest.mark.parametrize("shape", [(), (2,), (2, 7)])
def test_angles_broadcast_from_scalar_sample_or_frame(shape):
    z, noise = torch.randn(2, 2, 7, 3).unbind(0)
    noisy = AngleScheduler().add_noise(z, noise, torch.full(shape, 0.3))
    torch.testing.assert_close(noisy, math.cos(0.3) * z + math.sin(0.3) * noise)


def test_velocity_is_the_derivative_of_the_noisy_latents():
    scheduler = AngleScheduler()
    z, noise = torch.randn(2, 2, 7, 3, dtype=torch.float64).unbind(0)
    slope = (scheduler.add_noise(z, noise, 0.7 + 1e-4) - scheduler.add_noise(z, noise, 0.7 - 1e-4)) / 2e-4
    torch.testing.assert_close(slope, scheduler.get_velocity(z, noise, 0.7), rtol=1e-6, atol=1e-6)


def test_bad_arguments_say_what_is_allowed():
    with pytest.raises(ValueError, match='"linear" or "uniform"'):
        AngleScheduler("cosine")
    with pytest.raises(ValueError, match="at least 1; got 0"):
        AngleScheduler().set_timesteps(0)
    with pytest.raises(ValueError, match="set_timesteps"):
        AngleScheduler().step(torch.zeros(1, 1, 1), 0.5, torch.zeros(1, 1, 1))


def test_saves_and_loads(tmp_path):
    AngleScheduler("uniform").save_pretrained(tmp_path)
    assert AngleScheduler.from_pretrained(tmp_path).config.schedule == "uniform"
    assert not isinstance(AngleScheduler(), DDIMScheduler)
