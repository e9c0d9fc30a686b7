"""Both laws and every entropy against closed forms, on all kinds of schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.schedules import EDM, Cosine, DiscreteBetas, Flow, Schedule, Sigmoid, VPLinear
from diffusion.thermodynamics.balance import balance, entropy, exchanged, springs
from tests.oracles import GaussianOracle, Shrunk, correlated
from tests.thermodynamics.mixtures import SECOND_MOMENT, Marginal

SMOOTH = {
    "vp": Cosine(9.0, -9.0),
    "linear": VPLinear(),
    "sigmoid": Sigmoid(),
    "ve": EDM(0.01, 40.0),
    "flow": Flow(0.01, 0.01),
}
SCHEDULES = pytest.mark.parametrize("schedule", SMOOTH.values(), ids=SMOOTH.keys())
PRESERVING = pytest.mark.parametrize("schedule", [SMOOTH["vp"], SMOOTH["linear"], SMOOTH["sigmoid"]], ids=str)


def gauss_legendre(schedule: Schedule, panels: int = 24, order: int = 24) -> tuple[Tensor, Tensor]:
    """Returns log-SNRs within the range of a schedule, increasing, and weights that integrate over it."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(order))
    edges = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, panels + 1, dtype=torch.float64)
    half = edges.diff()[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).flatten(), (half * weights).flatten()


def ends(schedule: Schedule) -> Tensor:
    return torch.tensor([schedule.log_snr_min, schedule.log_snr_max], dtype=torch.float64)


def second_moment(oracle: GaussianOracle) -> float:
    return float(oracle.mean.square().sum() + oracle.eigen[0].sum())


def exact_entropy(oracle: GaussianOracle, log_snr: Tensor) -> Tensor:
    return (2 * math.pi * math.e * oracle.spectrum(oracle.schedule.time(log_snr))).log().sum(-1) / 2


def kl_to_unit(oracle: GaussianOracle, log_snr: Tensor) -> Tensor:
    """Returns KL(p_t || N(0, I)) by its closed form."""
    mean, values = oracle.schedule(oracle.schedule.time(log_snr))[0], oracle.spectrum(oracle.schedule.time(log_snr))
    return (mean**2 * oracle.mean.square().sum() + (values - 1 - values.log()).sum(-1)) / 2


@SCHEDULES
def test_the_first_law_closes(schedule: Schedule) -> None:
    """Work and heat are integrals of their rates, the energy is a difference of its values at the ends."""
    oracle = correlated(schedule, (3,))
    log_snr, weights = gauss_legendre(schedule)
    found = balance(schedule, log_snr, oracle.error(schedule.time(log_snr)), second_moment(oracle), 3)
    low, high = balance(schedule, ends(schedule), torch.zeros(2), second_moment(oracle), 3).energy
    work, heat = (found.work * weights).sum(), (found.bath * weights).sum()
    assert abs(float(work - heat - (low - high))) < 1e-9 * (1 + abs(float(low - high)))


@SCHEDULES
def test_the_second_law_closes_with_the_exact_entropy(schedule: Schedule) -> None:
    oracle = correlated(schedule, (3,))
    log_snr, weights = gauss_legendre(schedule)
    found = balance(schedule, log_snr, oracle.error(schedule.time(log_snr)), second_moment(oracle), 3)
    energy = balance(schedule, ends(schedule), torch.zeros(2), second_moment(oracle), 3).energy
    free = energy - exact_entropy(oracle, ends(schedule))
    produced, work = (found.production * weights).sum(), (found.work * weights).sum()
    assert abs(float(work - (free[0] - free[1]) - produced)) < 1e-9 * (1 + abs(float(free[0] - free[1])))
    assert bool((found.production >= 0).all()) and float(produced) > 0.1


@SCHEDULES
def test_the_entropy_production_is_the_square_of_the_velocity_over_the_temperature(schedule: Schedule) -> None:
    """nu = f - T score is linear for a Gaussian, with coefficients from finite differences in time."""
    oracle = correlated(schedule, (2,))
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    step = 1e-5
    (alpha, sigma), (later, wider), (earlier, narrower) = (schedule(t + dt) for dt in (0, step, -step))
    growth = (later.log() - earlier.log()) / (2 * step)
    temperature = (wider**2 - narrower**2) / (4 * step) - sigma**2 * growth
    values = oracle.spectrum(t)
    # In the eigenbasis nu = growth x_t + temperature (x_t - alpha mean) / values.
    drift = growth[:, None] * alpha[:, None] * (oracle.mean @ oracle.eigen[1])
    gain = growth[:, None] + temperature[:, None] / values
    rate = (gain**2 * values + drift**2).sum(1) / temperature
    log_snr = schedule.log_snr(t).flip(0)
    speed = (schedule.log_snr(t - step) - schedule.log_snr(t + step)) / (2 * step)
    found = balance(schedule, log_snr, oracle.error(t.flip(0)), second_moment(oracle), 2)
    torch.testing.assert_close(found.production.flip(0) * speed, rate, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.transport.flip(0) * speed**2, rate * temperature, rtol=1e-5, atol=1e-7)


@PRESERVING
def test_variance_preserving_diffusions_produce_the_fall_of_the_kl_from_equilibrium(schedule: Schedule) -> None:
    oracle = correlated(schedule, (3,))
    log_snr, weights = gauss_legendre(schedule)
    found = balance(schedule, log_snr, oracle.error(schedule.time(log_snr)), second_moment(oracle), 3)
    fall = kl_to_unit(oracle, ends(schedule)).diff().item()
    assert (found.production * weights).sum().item() == pytest.approx(fall, abs=1e-6)
    assert float(found.work.abs().max()) < 1e-9, "a bath at rest does no work"


def test_the_ornstein_uhlenbeck_process_of_variance_a_tenth_produces_0_70129_nats() -> None:
    """From 0.1 to 1, over all noise levels: (v - 1 - log v)/2."""
    schedule = Cosine(44.0, -44.0)
    v = 0.1
    oracle = GaussianOracle(schedule, torch.zeros(1, dtype=torch.float64), torch.full((1, 1), v, dtype=torch.float64))
    log_snr, weights = gauss_legendre(schedule, 64)
    found = balance(schedule, log_snr, oracle.error(schedule.time(log_snr)), v, 1)
    assert (found.production * weights).sum().item() == pytest.approx((v - 1 - math.log(v)) / 2, abs=1e-6)
    assert (v - 1 - math.log(v)) / 2 == pytest.approx(0.70129, abs=5e-6)


def test_without_a_force_no_heat_is_exchanged_and_the_entropy_alone_grows() -> None:
    schedule = SMOOTH["ve"]
    oracle = correlated(schedule, (3,))
    log_snr, weights = gauss_legendre(schedule)
    found = balance(schedule, log_snr, oracle.error(schedule.time(log_snr)), second_moment(oracle), 3)
    assert float(found.bath.abs().max()) == float(found.work.abs().max()) == float(found.energy.abs().max()) == 0
    grown = -exact_entropy(oracle, ends(schedule)).diff().item()
    assert (found.production * weights).sum().item() == pytest.approx(grown, abs=1e-8)


@SCHEDULES
def test_the_entropy_of_a_level_is_that_of_its_marginal(schedule: Schedule) -> None:
    oracle, log_snr = correlated(schedule, (3,)), gauss_legendre(schedule, 2, 3)[0]
    known = (log_snr.exp()[:, None] * oracle.eigen[0]).log1p().sum(1) / 2
    torch.testing.assert_close(
        entropy(schedule, log_snr, known, 3), exact_entropy(oracle, log_snr), rtol=1e-12, atol=1e-12
    )


def test_the_entropy_falls_backward_while_the_total_grows() -> None:
    """Along the reverse trajectory of data that are narrower than the noise, at every level."""
    schedule = SMOOTH["vp"]
    oracle = GaussianOracle(schedule, torch.zeros(2, dtype=torch.float64), 0.1 * torch.eye(2, dtype=torch.float64))
    log_snr = torch.linspace(-4, 4, 33, dtype=torch.float64)
    found = balance(schedule, log_snr, oracle.error(schedule.time(log_snr)), 0.2, 2)
    assert bool((exact_entropy(oracle, log_snr).diff() < 0).all()) and bool((found.system > 0).all())
    assert bool((found.production > 0).all()) and bool((found.bath < 0).all())


@SCHEDULES
def test_a_learned_process_lacks_the_kl_between_the_paths(schedule: Schedule) -> None:
    """The KL of two diffusions backward in time is that of their drifts (Girsanov), with the scores of both."""
    variance, wrong = 0.4, 0.9
    oracle = GaussianOracle(
        schedule, torch.zeros(1, dtype=torch.float64), torch.full((1, 1), variance, dtype=torch.float64)
    )
    denoiser = Shrunk(oracle, wrong)
    log_snr, weights = gauss_legendre(schedule)
    t = schedule.time(log_snr)
    alpha, sigma = schedule(t)
    gain, unit = denoiser(torch.ones(len(t), 1, dtype=torch.float64), t).mean[:, 0], oracle.spectrum(t)[:, 0]
    mmse, error = oracle.error(t), variance - 2 * alpha * gain * variance + gain**2 * unit
    forward, learned = (balance(schedule, log_snr, e, variance, 1) for e in (mmse, error))
    # score = (alpha x^ - x_t)/sigma^2; T dt = sigma^2/2 (-d lambda); KL = integral of T E|difference of scores|^2.
    score = (alpha * gain - 1) / sigma**2 + 1 / unit
    girsanov = (sigma**2 / 2 * score**2 * unit * weights).sum()
    difference = ((forward.production - learned.production) * weights).sum()
    assert difference.item() == pytest.approx(girsanov.item(), rel=1e-9) and girsanov > 1e-3
    assert bool((forward.production >= learned.production).all())


def test_every_schedule_has_the_springs_of_its_curve() -> None:
    log_snr = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for schedule in (*SMOOTH.values(), DiscreteBetas()):
        a, k, slope = springs(schedule, log_snr)
        u = torch.sigmoid(-log_snr / 2)
        expected = torch.sigmoid(-log_snr) / 2, torch.ones_like(u), 0 * u
        if isinstance(schedule, EDM):
            expected = 0 * u, 0 * u, 0 * u
        elif isinstance(schedule, Flow):
            expected = u / 2, 1 / u, (1 - u) / (2 * u)
        torch.testing.assert_close((a, k, slope), expected, rtol=1e-8, atol=1e-8)


def test_rates_of_many_examples_are_those_of_their_mean_square() -> None:
    schedule, log_snr = SMOOTH["vp"], torch.linspace(-4, 4, 9, dtype=torch.float64)
    error = torch.rand(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = torch.arange(1.0, 6.0, dtype=torch.float64)
    each = balance(schedule, log_snr, error, moments[:, None], 2)
    mean = balance(schedule, log_snr, error.mean(0), float(moments.mean()), 2)
    for name in ("information", "system", "bath", "work", "energy", "production"):
        torch.testing.assert_close(getattr(each, name).mean(0), getattr(mean, name), rtol=1e-12, atol=1e-12)
    assert each.integral(each.production).shape == (5, 9) and float(each.integral(each.production)[0, 0]) == 0


@SCHEDULES
def test_heat_and_work_are_those_of_the_second_moments_and_close_with_the_energy(schedule: Schedule) -> None:
    moments = torch.tensor([0.5, 4.0], dtype=torch.float64)
    heat, work, energy = exchanged(schedule, moments, 3)
    assert bool(((work - heat - energy).abs() <= 2e-5 * (1 + energy.abs())).all())
    log_snr, weights = gauss_legendre(schedule)
    for i, moment in enumerate(moments.tolist()):
        found = balance(schedule, log_snr, torch.zeros_like(log_snr), moment, 3)
        expected = torch.stack([(found.bath * weights).sum(), (found.work * weights).sum()])
        torch.testing.assert_close(torch.stack([heat[i], work[i]]), expected, rtol=2e-5, atol=2e-5)


@SCHEDULES
def test_a_mixture_has_the_balance_of_its_exact_density(schedule: Schedule) -> None:
    """Velocity, entropy production and the rate of the entropy by quadrature over x_t, with the exact score."""
    log_snr, step = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64), 1e-3
    t = schedule.time(log_snr)
    _, sigma = schedule(t)
    a, _, _ = springs(schedule, log_snr)
    marginals = [Marginal(schedule, each) for each in t]
    mmse = torch.tensor([marginal.mmse for marginal in marginals], dtype=torch.float64)
    found = balance(schedule, log_snr, mmse, SECOND_MOMENT, 1)
    for i, marginal in enumerate(marginals):
        x = marginal.points
        # nu in the time -lambda, in which f = -a x and T = sigma^2/2.
        nu = -a[i] * x - sigma[i] ** 2 / 2 * marginal.score(x)
        assert found.production[i].item() == pytest.approx(2 / sigma[i].item() ** 2 * marginal.mean(nu**2), rel=1e-6)
        assert found.bath[i].item() == pytest.approx(
            2 / sigma[i].item() ** 2 * marginal.mean(-a[i] * x * nu), rel=1e-6, abs=1e-9
        )
        less, more = (Marginal(schedule, schedule.time(log_snr[i] + d)).entropy for d in (step, -step))
        assert found.system[i].item() == pytest.approx((more - less) / (2 * step), rel=1e-4, abs=1e-6)


def test_the_entropy_of_a_mixture_falls_along_the_reverse_trajectory_while_the_total_grows() -> None:
    """What is produced in all is the KL from equilibrium, by quadrature of the exact densities."""
    schedule = SMOOTH["vp"]
    log_snr = torch.linspace(-6, 6, 61, dtype=torch.float64)
    marginals = [Marginal(schedule, t) for t in schedule.time(log_snr)]
    mmse = torch.tensor([marginal.mmse for marginal in marginals], dtype=torch.float64)
    found = balance(schedule, log_snr, mmse, SECOND_MOMENT, 1)
    entropies = torch.tensor([marginal.entropy for marginal in marginals], dtype=torch.float64)
    assert entropies[-1] < entropies[0] - 0.5 and bool((found.production > 0).all())
    produced = found.integral(found.production)
    kl = produced[-1] + marginals[0].mean(
        marginals[0].points ** 2 / 2 + math.log(2 * math.pi) / 2 - marginals[0].law.nll(marginals[0].points[:, None])
    )
    exact = marginals[-1].mean(
        marginals[-1].points ** 2 / 2 + math.log(2 * math.pi) / 2 - marginals[-1].law.nll(marginals[-1].points[:, None])
    )
    assert kl.item() == pytest.approx(exact, abs=2e-3), "the fall of KL(p_t || N(0, 1))"
