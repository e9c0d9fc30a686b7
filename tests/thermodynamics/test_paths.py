"""Work along forward and reverse paths of a model whose likelihood is known: affine chains, and a few atoms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.grids import UniformLogSNR
from diffusion.likelihood.bound import Quantization
from diffusion.likelihood.importance import path_weights
from diffusion.samplers import DDPM, RandN, sample
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from diffusion.thermodynamics import paths
from diffusion.thermodynamics.paths import crossing, decoded, free_energy, reverse_paths
from tests.oracles import GaussianOracle, MixtureOracle, affine, correlated

COUNT = 20_000
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(8.0, -8.0), EDM(0.05, 50.0), Flow(0.02, 0.02)], ids=str)


def normal(seed: int = 0) -> RandN:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=torch.float64)


def chain(oracle: GaussianOracle, times: Tensor) -> torch.distributions.MultivariateNormal:
    """Returns the distribution of the model on the grid: its reverse trajectory and decoder are affine in the noise."""
    alpha, sigma = oracle.schedule(times[-1])

    def run(x_t: Tensor, randn: RandN) -> Tensor:
        x_0 = sample(oracle, DDPM(), x_t, times, randn=randn)
        return (x_0 + sigma * randn(x_0)) / alpha

    start = oracle.schedule(times[0])[1].square() * torch.eye(2, dtype=torch.float64)
    mean, covariance = affine(run, (2,)).moments(torch.zeros(2, dtype=torch.float64), start)
    return torch.distributions.MultivariateNormal(mean, covariance)


def density(model: torch.distributions.MultivariateNormal, x: Tensor) -> Tensor:
    return model.log_prob(x)  # type: ignore[no-any-return,no-untyped-call]


@dataclass(frozen=True)
class Drawn:
    """Work of a forward and of the reverse path of each x that a model draws, its free energy, and the model."""

    x: Tensor
    forward: Tensor
    reverse: Tensor
    exact: Tensor
    model: torch.distributions.MultivariateNormal


@cache
def drawn(schedule: Schedule, steps: int) -> Drawn:
    oracle, times = correlated(schedule), UniformLogSNR()(schedule, steps)
    x, log_w = reverse_paths(oracle, torch.zeros(COUNT, 2, dtype=torch.float64), times, randn=normal())
    forward = path_weights(oracle, x, times, paths=1, randn=normal(1)).log_weights[:, 0]
    model = chain(oracle, times)
    return Drawn(x, -forward, -log_w, -density(model, x), model)


def within(values: Tensor, expected: float, widest: float) -> None:
    """The mean of values is what is expected, within 99.9 %, and known to `widest`."""
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) < 3.3 * error and error < widest


@SCHEDULES
def test_reverse_paths_end_in_samples_of_the_model(schedule: Schedule) -> None:
    found = drawn(schedule, 24)
    mean, covariance = found.x.mean(0), found.x.mT.cov()
    torch.testing.assert_close(mean, found.model.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(covariance, found.model.covariance_matrix, rtol=0, atol=0.03)


@SCHEDULES
def test_jarzynskis_equality_holds_in_both_directions(schedule: Schedule) -> None:
    """E_q exp(-(W - F)) = 1 = E_p exp(W - F), with the exact free energy of every x."""
    found = drawn(schedule, 72)
    within((found.exact - found.forward).exp(), 1.0, 0.03)
    within((found.reverse - found.exact).exp(), 1.0, 0.03)


@SCHEDULES
def test_work_bounds_the_free_energy_from_both_sides(schedule: Schedule) -> None:
    found = drawn(schedule, 24)
    for sign, work in ((1, found.forward), (-1, found.reverse)):
        lost = sign * (work - found.exact)
        assert float(lost.mean()) > 5 * float(lost.std()) / math.sqrt(COUNT)


def test_work_in_both_directions_crosses_at_the_free_energy() -> None:
    """Crooks: the log of the ratio of the densities of W - F is W - F, in every bin that both reach."""
    found = drawn(Cosine(8.0, -8.0), 24)
    edges = torch.linspace(-1.5, 1.5, 13, dtype=torch.float64)
    forward, reverse = (torch.histogram(work - found.exact, edges).hist for work in (found.forward, found.reverse))
    middles, ratio = (edges[1:] + edges[:-1]) / 2, (forward / reverse).log()
    errors = (1 / forward + 1 / reverse).sqrt()
    assert float(forward.min()) > 30 and float(reverse.min()) > 30
    # A bin of width h has the ratio of its middle up to h^2/12 of the slope of its densities.
    assert bool(((ratio - middles).abs() < 3.3 * errors + 0.02).all())
    weights = errors.pow(-2) * middles
    slope, spread = float((weights * ratio).sum() / (weights * middles).sum()), (weights * middles).sum().rsqrt()
    assert abs(slope - 1) < 3.3 * float(spread) < 0.1


@SCHEDULES
def test_differences_of_work_cross_zero_as_crooks_theorem_says_without_the_free_energy(schedule: Schedule) -> None:
    found = drawn(schedule, 24)
    difference = found.forward - found.reverse
    assert 0.05 < float((difference < 0).double().mean()) < 0.4
    within(crossing(difference), 0.0, 0.005)
    fine = drawn(schedule, 72)
    within((fine.reverse - fine.forward).exp(), 1.0, 0.05)


def test_wrong_weights_do_not_cross_as_they_should() -> None:
    found = drawn(Cosine(8.0, -8.0), 24)
    wrong = crossing(1.3 * (found.forward - found.reverse))
    assert abs(float(wrong.mean())) > 5 * float(wrong.std()) / math.sqrt(COUNT)


def test_bennetts_ratio_finds_the_free_energy_of_normal_work() -> None:
    """Crooks' theorem holds for normal work of variance s^2 and means F + s^2/2 and F - s^2/2."""
    spread, exact = 2.0, torch.tensor([-30.0, 0.0, 700.0], dtype=torch.float64)
    noise, more = torch.randn(2, 3, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forward = exact[:, None] + spread**2 / 2 + spread * noise
    reverse = exact[:, None] - spread**2 / 2 + spread * more[:, :5000]
    found = free_energy(forward, reverse)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.06)
    # It is nearer than the mean weight of the forward paths, whose error is exp(s^2)/K in the square.
    mean_weight = -((-forward).logsumexp(1) - math.log(20_000))
    assert float((found - exact).square().mean()) < float((mean_weight - exact).square().mean())


def test_bennetts_ratio_of_the_paths_of_each_x_is_near_its_likelihood() -> None:
    oracle, times = correlated(Cosine(8.0, -8.0)), UniformLogSNR()(Cosine(8.0, -8.0), 48)
    x, log_w = reverse_paths(oracle, torch.zeros(2000, 2, dtype=torch.float64), times, randn=normal())
    forward = path_weights(oracle, x, times, paths=8, randn=normal(1)).log_weights
    found = free_energy(-forward, -log_w[:, None])
    exact = -density(chain(oracle, times), x)
    off, one_sided = found - exact, math.log(8) - forward.logsumexp(1) - exact
    assert float(off.abs().mean()) < 0.4 and abs(float(off.mean())) < 0.08 < 0.5 * float(one_sided.mean())


def test_gray_levels_have_their_probabilities_in_both_directions() -> None:
    levels = Quantization(16, -1.5, 1.5)
    numbers, weights = torch.tensor([1, 6, 7, 12]), torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    atoms = (levels.low + levels.spacing * numbers)[:, None].double()
    oracle = MixtureOracle(Cosine(), atoms, 0.0, weights)
    times = UniformLogSNR()(Cosine(), 200)
    like = torch.zeros(4000, 1, dtype=torch.float64)
    x, log_w = reverse_paths(oracle, like, times, quantization=levels, randn=normal())
    index = ((x - levels.low) / levels.spacing).round().long()[:, 0]
    drawn_shares = torch.bincount(index, minlength=16)[numbers] / 4000
    torch.testing.assert_close(drawn_shares.double(), weights, rtol=0, atol=0.03)
    assert bool(torch.isin(index, numbers).all())
    exact = torch.full((16,), math.nan, dtype=torch.float64).scatter(0, numbers, weights.log())[index]
    within((exact - log_w).exp(), 1.0, 0.05)


def test_the_decoder_draws_gray_levels_by_their_weights() -> None:
    """At a noise as wide as the levels are apart, also where some lie beyond the ends."""
    levels, schedule = Quantization(8, -1.0, 1.0), EDM(0.25, 50.0)
    oracle = MixtureOracle(schedule, torch.zeros(1, 1), 1.0, torch.ones(1))
    for center in (0.1, 0.95):
        x_t = torch.full((COUNT, 1), center, dtype=torch.float64)
        found = decoded(oracle, x_t, torch.zeros((), dtype=torch.float64), levels, normal())
        values = torch.linspace(-1, 1, 8, dtype=torch.float64)
        expected = (-(center - values).square() / (2 * 0.25**2)).softmax(0)
        shares = ((found - values).abs() < 1e-9).double().mean(0)
        assert float(shares.sum()) == pytest.approx(1)
        torch.testing.assert_close(shares, expected, rtol=0, atol=0.01)


def test_many_levels_are_drawn_from_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, oracle = Quantization(256, -1.0, 1.0), MixtureOracle(EDM(0.25, 50.0), torch.zeros(1, 6), 1.0, torch.ones(1))
    x_t = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 6)
    whole = decoded(oracle, x_t, x_t.new_zeros(()), levels, normal())
    monkeypatch.setattr(paths, "AT_ONCE", 1000)
    parts = decoded(oracle, x_t, x_t.new_zeros(()), levels, normal())
    assert parts.shape == x_t.shape and torch.equal(whole, parts)


def test_times_must_decrease() -> None:
    with pytest.raises(InputError, match="times: must decrease strictly"):
        reverse_paths(correlated(Cosine()), torch.zeros(1, 2), torch.tensor([0.0, 1.0]))
