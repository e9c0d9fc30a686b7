"""The average of the weights against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from diffusion.config import WIDEST
from diffusion.errors import InputError
from diffusion.training.ema import PowerEMA, exponent, std


class Scalar(nn.Module):
    """One parameter and one buffer, which hold the number of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.count.fill_(value)


def averaged(values: list[float], width: float) -> float:
    network = Scalar()
    ema = PowerEMA(network, width)
    for step, value in enumerate(values, 1):
        network.set(value)
        ema.update(network, step)
    assert float(ema.network.count) == values[-1]
    return float(ema.network.weight)


def profile(steps: int, gamma: float) -> torch.Tensor:
    """The weight of each step: a ratio of Γ functions, proportional to step^γ as the step grows (Karras et al. 2024,
    section 3.1).
    """
    weights = [1 - (1 - 1 / k) ** (gamma + 1) for k in range(1, steps + 1)]
    rest = [math.prod(1 - w for w in weights[k:]) for k in range(1, steps + 1)]
    return torch.tensor([w * r for w, r in zip(weights, rest, strict=True)], dtype=torch.float64)


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.25])
def test_the_average_is_that_of_its_weights(width: float) -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = profile(60, exponent(width))
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert averaged(values.tolist(), width) == pytest.approx(float(weights @ values), abs=1e-12)


@pytest.mark.parametrize("width", [0.05, 0.1])
def test_the_weights_follow_the_power_of_the_step_and_have_the_width(width: float) -> None:
    steps, gamma = 4000, exponent(width)
    place = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    weights = profile(steps, gamma)
    expected = place**gamma / (place**gamma).sum()
    assert float((weights - expected).abs().sum()) < 2e-2  # The power holds as the number of steps grows.
    mean = float(weights @ place)
    assert math.sqrt(float(weights @ (place - mean).square())) == pytest.approx(width, rel=5e-3)


def test_the_average_of_steps_is_theirs_in_closed_form() -> None:
    # The mean of the density ∝ s^γ on [0, 1] is (γ + 1)/(γ + 2).
    gamma, steps = exponent(0.1), 2000
    expected = (gamma + 1) / (gamma + 2) * steps
    assert averaged([float(k) for k in range(1, steps + 1)], 0.1) == pytest.approx(expected, rel=1e-3)


def test_constant_weights_stay_exactly() -> None:
    for value in (0.1, -1 / 3, 1e-30, 12345.678):
        assert averaged([value] * 50, 0.05) == value


def test_the_widest_average_is_what_a_configuration_may_ask_for() -> None:
    assert std(0.0) == pytest.approx(WIDEST, rel=1e-12)


def test_the_first_step_replaces_the_random_start() -> None:
    network = Scalar()
    network.set(1e9)
    ema = PowerEMA(network, 0.05)
    network.set(0.3)
    ema.update(network, 1)
    assert float(ema.network.weight) == 0.3


def test_the_network_is_a_copy_that_does_not_learn() -> None:
    network = Scalar()
    ema = PowerEMA(network, 0.05)
    network.set(5.0)
    assert float(ema.network.weight) == 0.0
    assert not ema.network.weight.requires_grad and not ema.network.training and network.weight.requires_grad


@pytest.mark.parametrize("width", [1e-4, 0.01, 0.05, 0.1, 0.2, 0.28, std(0)])
def test_exponent_inverts_std(width: float) -> None:
    assert std(exponent(width)) == pytest.approx(width, rel=1e-9)


@pytest.mark.parametrize(
    ("gamma", "expected"), [(0, 1 / math.sqrt(12)), (1, 1 / math.sqrt(18)), (2, math.sqrt(3 / 80))]
)
def test_std_is_that_of_the_density(gamma: float, expected: float) -> None:
    assert std(gamma) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [0.29, 0.5, 0.0])
def test_a_width_that_no_power_has_is_named(width: float) -> None:
    with pytest.raises(InputError, match=rf"training\.ema: must be between .* and 0\.289, got {width}"):
        exponent(width)
