"""The measured distribution of noise levels against closed forms: on Gaussian data every moment of a loss is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Denoiser, EDMPrecond
from diffusion.noise_levels import Dissipation, LogNormal, Measured, NoiseLevels, PiecewiseConstant
from diffusion.objectives import AnyObjective, Batch, Exact, Objective
from diffusion.schedules import Cosine
from diffusion.training.adaptive import AdaptiveObjective
from tests.oracles import GaussianOracle, OracleNetwork, correlated

SCHEDULE = Cosine(start=7.0, end=-5.0)
DIM = 3
ORACLE = correlated(SCHEDULE, (DIM,))
MEASURED = Measured(bins=16, uniform=0.1, every=1)


def second_moment(log_snr: Tensor) -> Tensor:
    """E[ℓ²] per squared coordinate: x̂ - x is Gaussian with variances v = c/(1 + c SNR), and E‖·‖⁴ = (Σv)² + 2 Σv²."""
    snr = log_snr.exp()
    v = ORACLE.eigen[0] / (1 + ORACLE.eigen[0] * snr[..., None])
    return (snr / (2 * DIM)).square() * (v.sum(-1).square() + 2 * v.square().sum(-1))


def grid() -> Tensor:
    """The middles of 1,000 parts of each bin: (bins, 1000)."""
    n = MEASURED.bins * 1000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (SCHEDULE.log_snr_min + u * (SCHEDULE.log_snr_max - SCHEDULE.log_snr_min)).reshape(MEASURED.bins, 1000)


def bound() -> float:
    """∫ E[ℓ] dλ = ½ Σ log(1 + c SNR) between the ends, per coordinate."""
    high, low = (torch.log1p(ORACLE.eigen[0] * math.exp(end)).sum() for end in (7.0, -5.0))
    return float(high - low) / (2 * DIM)


def variance(density: Tensor) -> float:
    """∫ E[ℓ²]/p dλ - L², of a density p on the grid."""
    log_snr = grid()
    step = (SCHEDULE.log_snr_max - SCHEDULE.log_snr_min) / log_snr.numel()
    return float((second_moment(log_snr) / density).sum() * step) - bound() ** 2


def losses(objective: AnyObjective, seed: int, oracle: GaussianOracle = ORACLE, draws: int = 8192) -> Tensor:
    """Losses of independent examples, noise levels and noises."""
    generator = torch.Generator().manual_seed(seed)
    x = oracle.sample(draws, generator)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    u = torch.rand(draws, generator=generator, dtype=torch.float64)
    denoiser = Denoiser(OracleNetwork(oracle, EDMPrecond()), SCHEDULE, EDMPrecond())
    return objective.loss(denoiser, Batch(x, u, noise))


@pytest.fixture(scope="module")
def measured() -> AdaptiveObjective:
    """After 100 fits to these data, and before them 8 to others, whose losses lie elsewhere and are to be forgotten."""
    objective = AdaptiveObjective(Objective(MEASURED, Exact()), MEASURED)
    other = correlated(SCHEDULE, (DIM,), low=1.0, high=2.0)
    for step in range(8):
        losses(objective, step, other, 1024)
        objective.advance(step)
    for step in range(8, 108):
        losses(objective, step)
        objective.advance(step)
    return objective


def test_the_density_is_that_of_the_second_moment(measured: AdaptiveObjective) -> None:
    root = second_moment(grid()).mean(1).sqrt()
    expected = MEASURED.uniform / MEASURED.bins + (1 - MEASURED.uniform) * root / root.sum()
    assert float(expected.max() / expected.min()) > 10
    # Measured: 1.2 %, in the bin that differs most.
    assert torch.allclose(measured.distribution.shares, expected, rtol=0.03)
    assert float(measured.distribution.shares.sum()) == pytest.approx(1, abs=1e-12)


def test_the_density_is_that_of_the_root_of_what_short_steps_dissipate() -> None:
    """On Gaussian data ζ = ¼ Σ (c SNR / (1 + c SNR))²."""
    noise_levels = Dissipation(bins=16, uniform=0.1, every=1)
    objective = AdaptiveObjective(Objective(noise_levels, Exact()), noise_levels)
    for step in range(60):
        losses(objective, step)
        objective.advance(step)
    share = torch.sigmoid(grid().mean(1)[:, None] + ORACLE.eigen[0].log())
    root = share.square().sum(1).sqrt()
    expected = noise_levels.uniform / noise_levels.bins + (1 - noise_levels.uniform) * root / root.sum()
    assert float(expected.max() / expected.min()) > 8
    # Measured: 0.0021, mostly as bins 0.75 wide do not resolve the derivative.
    assert torch.allclose(objective.distribution.shares, expected, rtol=0, atol=0.006)


@pytest.mark.parametrize("name", ["measured", "uniform", "log_normal"])
def test_the_estimate_is_unbiased_and_its_variance_what_theory_says(measured: AdaptiveObjective, name: str) -> None:
    distributions: dict[str, NoiseLevels] = {
        "measured": measured.distribution,
        "uniform": MEASURED,
        "log_normal": LogNormal(),
    }
    found = losses(Objective(distributions[name], Exact()), 1000, draws=200_000)
    assert abs(float(found.mean()) - bound()) < 4 * float(found.std()) / len(found) ** 0.5
    assert float(found.var()) == pytest.approx(variance(density(distributions[name])), rel=0.05)


def density(noise_levels: NoiseLevels) -> Tensor:
    """The density of noise levels on the grid."""
    span = SCHEDULE.log_snr_max - SCHEDULE.log_snr_min
    if isinstance(noise_levels, PiecewiseConstant):
        return (noise_levels.shares * len(noise_levels.shares) / span)[:, None]
    if isinstance(noise_levels, Measured):
        return torch.full((), 1 / span, dtype=torch.float64)
    assert isinstance(noise_levels, LogNormal)
    normal = torch.distributions.Normal(-2 * noise_levels.mean, 2 * noise_levels.std)
    ends = normal.cdf(torch.tensor([SCHEDULE.log_snr_min, SCHEDULE.log_snr_max], dtype=torch.float64))
    return normal.log_prob(grid()).exp() / (ends[1] - ends[0])


def test_the_measured_distribution_has_less_variance_than_the_others(measured: AdaptiveObjective) -> None:
    uniform, log_normal = variance(density(MEASURED)), variance(density(LogNormal()))
    span = SCHEDULE.log_snr_max - SCHEDULE.log_snr_min
    least = (float(second_moment(grid()).sqrt().mean()) * span) ** 2 - bound() ** 2
    found = variance(density(measured.distribution))
    assert least < found < 1.1 * least
    assert uniform > 1.5 * found and log_normal > 1.5 * found


def test_noise_levels_are_uniform_until_every_bin_has_been_drawn_from() -> None:
    noise_levels = replace(MEASURED, every=2)
    objective = AdaptiveObjective(Objective(noise_levels, Exact()), noise_levels)
    losses(objective, 0, draws=8)
    objective.advance(2)
    assert torch.equal(objective.distribution.shares, MEASURED.fit(torch.ones(16)).shares)
    losses(objective, 1, draws=512)
    objective.advance(3)
    assert torch.equal(objective.distribution.shares, MEASURED.fit(torch.ones(16)).shares), "not due"
    objective.advance(4)
    assert float(objective.distribution.shares.max() / objective.distribution.shares.min()) > 5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_counts_as_if_its_example_had_not_been(value: float) -> None:
    u = torch.rand(512, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(512, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    denoiser, distributions = Denoiser(OracleNetwork(ORACLE, EDMPrecond()), SCHEDULE, EDMPrecond()), []
    for broken in (True, False):
        objective = AdaptiveObjective(Objective(MEASURED, Exact()), MEASURED)
        examples, numbers = (x, u) if broken else (x[1:], u[1:])
        examples = examples.clone()
        if broken:
            examples[0, 0] = value
        objective.loss(denoiser, Batch(examples, numbers, torch.zeros_like(examples)))
        objective.advance(1)
        distributions.append(objective.state_dict())
    assert all(bool(tensor.isfinite().all()) for tensor in distributions[0].values())
    assert all(torch.equal(distributions[0][name], distributions[1][name]) for name in distributions[1])
    assert float(distributions[0]["shares"].max() / distributions[0]["shares"].min()) > 2


def test_what_came_after_a_state_or_within_a_step_that_began_again_is_forgotten(measured: AdaptiveObjective) -> None:
    state = {name: tensor.clone() for name, tensor in measured.state_dict().items()}
    objective = AdaptiveObjective(Objective(MEASURED, Exact()), MEASURED)
    objective.load_state_dict(state)
    losses(objective, 1, draws=512)
    objective.advance(109)
    losses(objective, 2, draws=512)
    objective.load_state_dict(state)
    losses(objective, 3, draws=512)
    objective.forget()
    other = AdaptiveObjective(Objective(MEASURED, Exact()), MEASURED)
    other.load_state_dict(state)
    for one in (objective, other):
        losses(one, 4, draws=512)
        one.advance(109)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in objective.state_dict().items())
    assert not torch.equal(objective.distribution.shares, state["shares"])
