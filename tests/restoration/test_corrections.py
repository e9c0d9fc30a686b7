"""Corrections towards y that are no posterior: the gain of DDNM and the step of DPS, in cases known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.operators import Mask, Matrix
from diffusion.restoration.corrections import DPSStep, RangeNull
from diffusion.samplers import DDIM, RandN, Sampler, State
from diffusion.schedules import EDM, Cosine, Flow, Schedule

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])
KNOWN = torch.tensor([True, False])
# In the order of log-SNR: σ/α of 0.1 to 10.
SIGMAS = (0.1, 0.4, 0.499, 0.5, 0.501, 0.8, 10.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Fixed:
    """A denoiser with one answer, scaled by the label if there is one."""

    def __init__(self, schedule: Schedule, mean: Tensor) -> None:
        self.schedule, self.mean = schedule, mean

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        scale = 1.0 if label is None else label[:, None].to(x_t)
        return Prediction((self.mean * scale).expand_as(x_t), torch.full_like(x_t, 0.25))


class Scaled:
    """The denoiser x̂ = factor x_t."""

    def __init__(self, schedule: Schedule, factor: float) -> None:
        self.schedule, self.factor = schedule, factor

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return Prediction(self.factor * x_t)


class Counting(Sampler):
    """Returns 2 x_t, and a state that counts its steps."""

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        return 2 * x_t, (state or 0) + 1


def time(schedule: Schedule, sigma: float) -> Tensor:
    """Returns the time at which σ/α has this value."""
    return schedule.time(-2 * torch.tensor(sigma, dtype=torch.float64).log())


@SCHEDULES
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_gain_is_sigma_over_the_noise_and_at_most_one(schedule: Schedule, sigma: float) -> None:
    """In Wang et al. 2022, eq. 17, with A = (1, 0), x̂ = (0, 0.3) and y = 1, the first number becomes the gain."""
    denoiser = Fixed(schedule, torch.tensor([[0.0, 0.3]], dtype=torch.float64))
    y = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = RangeNull(denoiser, Mask(KNOWN), y, noise=0.5)(normal(3, 2), time(schedule, sigma))
    expected = torch.tensor([[min(1.0, sigma / 0.5), 0.3]], dtype=torch.float64)
    assert torch.allclose(found.mean, expected.expand(3, 2), rtol=1e-9, atol=0)
    assert found.variance_interp is not None and (found.variance_interp == 0.25).all()


@SCHEDULES
def test_the_gain_follows_the_time_of_each_example(schedule: Schedule) -> None:
    denoiser = Fixed(schedule, torch.zeros(1, 2, dtype=torch.float64))
    t = torch.stack([time(schedule, sigma) for sigma in SIGMAS])
    found = RangeNull(denoiser, Mask(KNOWN), torch.tensor([[1.0, 0.0]]).double(), noise=0.5)(normal(len(SIGMAS), 2), t)
    expected = torch.tensor([min(1.0, sigma / 0.5) for sigma in SIGMAS], dtype=torch.float64)
    assert torch.allclose(found.mean[:, 0], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_without_noise_the_range_is_that_of_y(sigma: float) -> None:
    """The result is x̂ + A⁺ (y - A x̂) with A = (3, 4), whose A⁺ is (3, 4)/25."""
    row = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    mean, y = torch.tensor([[0.2, -0.7]], dtype=torch.float64), torch.tensor([[5.0]], dtype=torch.float64)
    found = RangeNull(Fixed(Cosine(), mean), Matrix(row), y)(normal(2, 2), time(Cosine(), sigma)).mean
    assert torch.allclose(found, (mean + (5 - (0.6 - 2.8)) * row / 25).expand(2, 2), rtol=1e-9)


def test_labels_and_the_schedule_are_those_of_the_denoiser() -> None:
    denoiser = Fixed(Flow(), torch.ones(1, 2, dtype=torch.float64))
    corrected = RangeNull(denoiser, Mask(KNOWN), torch.zeros(1, 2).double())
    assert corrected.schedule is denoiser.schedule
    found = corrected(normal(2, 2), time(Flow(), 1.0), torch.tensor([2, 3])).mean
    assert torch.equal(found, torch.tensor([[0.0, 2.0], [0.0, 3.0]], dtype=torch.float64))


@SCHEDULES
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_the_step_of_dps_has_a_length_of_its_own(schedule: Schedule, scale: float) -> None:
    """With x̂ = c x_t and A = I the misfit ‖y - c x_t‖ has the gradient -c (y - c x_t) / ‖y - c x_t‖: the step towards y
    is scale · c long, at whatever distance, noise and step of time.
    """
    x_t, y = normal(4, 2), normal(1, 2, seed=1)
    y[0] += 2
    step = DPSStep(Counting(), Mask(torch.tensor([True, True])), y, scale)
    for t, s in ((0.9, 0.1), (0.5, 0.49)):
        times = (torch.tensor(v, dtype=torch.float64) for v in (t, s))
        x_s, state = step.step(Scaled(schedule, 0.7), x_t, *times, 5, torch.zeros_like)
        away = y - 0.7 * x_t
        expected = 2 * x_t + scale * 0.7 * away / away.norm(dim=1, keepdim=True)
        assert torch.allclose(x_s, expected, rtol=1e-12) and state == 6
    assert not x_t.requires_grad and not x_s.requires_grad


def test_the_gradient_takes_an_evaluation() -> None:
    assert DPSStep(DDIM(), Mask(KNOWN), torch.zeros(1, 2)).nfe_per_step == 2


def test_each_example_steps_down_its_own_misfit() -> None:
    x_t, y = normal(4, 2), normal(4, 2, seed=1)
    times = (torch.tensor(v, dtype=torch.float64) for v in (0.5, 0.4))
    whole = DPSStep(Counting(), Mask(torch.tensor([True, True])), y).step(
        Scaled(Cosine(), 0.7), x_t, *times, None, torch.zeros_like
    )[0]
    assert torch.allclose((whole - 2 * x_t).norm(dim=1), torch.full((4,), 0.7, dtype=torch.float64), rtol=1e-12)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"^noise: must be 0 or more, got -0\.1$"):
        RangeNull(Fixed(Cosine(), torch.zeros(1, 2)), Mask(KNOWN), torch.zeros(1, 2), -0.1)
    for scale in (0.0, -1.0):
        with pytest.raises(ValueError, match=rf"^scale: must be a positive number, got {scale}$"):
            DPSStep(DDIM(), Mask(KNOWN), torch.zeros(1, 2), scale)
