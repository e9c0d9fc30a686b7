"""The Gaussian algebra, against compositions and products of Gaussians that are computed another way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diffusion import gaussian
from diffusion.gaussian import Gaussian
from diffusion.schedules import SCHEDULES, Cosine, Schedule
from tests.oracles import GaussianOracle, sigma_points

ALL = pytest.mark.parametrize("schedule", [pytest.param(cls(), id=name) for name, cls in SCHEDULES.items()])


def at(schedule: Schedule, *log_snrs: float) -> tuple[Tensor, ...]:
    return tuple(schedule.time(torch.tensor(v, dtype=torch.float64)) for v in log_snrs)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: Tensor, b: Tensor, rtol: float = 1e-10, atol: float = 1e-12) -> bool:
    return torch.allclose(a, b, rtol=rtol, atol=atol)


@ALL
def test_marginal_then_transition_is_the_marginal(schedule: Schedule) -> None:
    x, (t, s) = normal(3, 2), at(schedule, -3.0, 2.0)
    middle, direct = gaussian.marginal(schedule, x, s), gaussian.marginal(schedule, x, t)
    step = gaussian.transition(schedule, middle.mean, s, t)
    gain = gaussian.transition(schedule, torch.ones_like(x), s, t).mean
    assert close(step.mean, direct.mean)
    assert close(gain.square() * middle.variance + step.variance, direct.variance)


@ALL
def test_posterior_is_the_product_of_marginal_and_transition(schedule: Schedule) -> None:
    x, x_t, (t, s) = normal(3, 2), normal(3, 2, seed=1), at(schedule, -3.0, 2.0)
    before = gaussian.marginal(schedule, x, s)
    gain = gaussian.transition(schedule, torch.ones_like(x), s, t).mean
    noise = gaussian.transition(schedule, x, s, t).variance
    precision = 1 / before.variance + gain.square() / noise
    posterior = gaussian.posterior(schedule, x, x_t, t, s)
    assert close(posterior.variance.expand_as(x), 1 / precision)
    assert close(posterior.mean, (before.mean / before.variance + gain * x_t / noise) / precision)


@ALL
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_eta_keeps_the_marginal(schedule: Schedule, eta: float) -> None:
    x, (t, s) = normal(3, 2), at(schedule, -3.0, 2.0)
    later, target = gaussian.marginal(schedule, x, t), gaussian.marginal(schedule, x, s)
    center = gaussian.posterior(schedule, x, later.mean, t, s, eta=eta)
    gain = gaussian.posterior(schedule, x, later.mean + 1, t, s, eta=eta).mean - center.mean
    assert close(center.mean, target.mean)
    assert close(gain.square() * later.variance + center.variance, target.variance.expand_as(x))
    ancestral = gaussian.posterior(schedule, x, later.mean, t, s)
    assert close(center.variance, eta**2 * ancestral.variance), "η is the share of the ancestral standard deviation"


@ALL
@pytest.mark.parametrize("as_tensor", [False, True])
def test_fixed_variances_are_the_ends_of_the_learned_one(schedule: Schedule, as_tensor: bool) -> None:
    x, x_t, (t, s) = normal(3, 2), normal(3, 2, seed=1), at(schedule, -1.0, 0.5)

    def variance(variance_interp: float) -> Tensor:
        value = torch.full_like(x, variance_interp) if as_tensor else variance_interp
        return gaussian.reverse(schedule, x, x_t, t, s, variance_interp=value).variance.expand_as(x)

    low = gaussian.posterior(schedule, x, x_t, t, s).variance.expand_as(x)
    high = gaussian.transition(schedule, x, s, t).variance.expand_as(x)
    assert torch.equal(variance(0.0), low)
    assert close(variance(1.0), high)
    assert close(variance(0.3), low**0.7 * high**0.3)


def test_kl_and_nll_are_those_of_torch_distributions() -> None:
    a = Gaussian(normal(4, 3, 2, 2), normal(4, 3, 2, 2, seed=1).exp())
    b = Gaussian(
        normal(4, 3, 2, 2, seed=2), torch.tensor([[[[0.3]]], [[[0.5]]], [[[1.0]]], [[[2.0]]]], dtype=torch.float64)
    )
    p, q = Normal(a.mean, a.variance.sqrt()), Normal(b.mean, b.variance.sqrt())
    x = normal(4, 3, 2, 2, seed=3)
    assert close(a.kl(b), kl_divergence(p, q).sum((1, 2, 3)))
    assert close(b.nll(x), -q.log_prob(x).sum((1, 2, 3)))
    assert a.kl(a).tolist() == [0.0] * 4


@ALL
@pytest.mark.parametrize("log_snr", [-9.0, -2.0, 0.0, 5.0, 9.0])
def test_kl_of_neighboring_times_does_not_cancel(schedule: Schedule, log_snr: float) -> None:
    x, mean, (t,) = normal(3, 2), normal(3, 2, seed=1), at(schedule, log_snr)
    s = schedule.time(schedule.log_snr(t) + 1e-6)
    x_t = gaussian.marginal(schedule, x, t).sample(normal(3, 2, seed=2))
    kl = gaussian.posterior(schedule, x, x_t, t, s).kl(gaussian.reverse(schedule, mean, x_t, t, s))
    gap = schedule.log_snr(s) - schedule.log_snr(t)
    expected = 0.5 * schedule.log_snr(t).exp() * torch.expm1(gap) * (x - mean).square().sum(1)
    # The two means differ by 1e-6 of what they are: 1e-6 relative is what float64 leaves, and 1e-4 at VE's largest x_t.
    assert torch.allclose(kl, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("schedule", [Cosine(), SCHEDULES["discrete"]()])
@pytest.mark.parametrize("variance", [0.01, 0.3, 1.0])
def test_the_exact_reverse_variance_lies_between_the_fixed_ones(schedule: Schedule, variance: float) -> None:
    mean, covariance = torch.zeros(1, dtype=torch.float64), torch.full((1, 1), variance, dtype=torch.float64)
    oracle = GaussianOracle(schedule, mean, covariance)
    for later, earlier in [(-6.0, -5.0), (-1.0, 1.0), (3.0, 7.0)]:
        t, s = at(schedule, later, earlier)
        (alpha_t, _), (alpha_s, _) = schedule(t), schedule(s)
        spread_t, spread_s = oracle.spectrum(t), oracle.spectrum(s)
        exact = spread_s - (alpha_t / alpha_s * spread_s) ** 2 / spread_t
        x = torch.zeros(1, 1, dtype=torch.float64)
        low, high = (gaussian.reverse(schedule, x, x, t, s, variance_interp=f).variance.item() for f in (0.0, 1.0))
        assert low < exact.item() <= high * (1 + 1e-12)
        assert (exact.item() == pytest.approx(high, rel=1e-9)) == (variance == 1.0), (
            "the upper one is exact for white data"
        )


@ALL
def test_times_per_example_are_times_one_by_one(schedule: Schedule) -> None:
    x, x_t = sigma_points(3), normal(6, 3)
    t = torch.linspace(0.3, 1.0, 6, dtype=torch.float64)
    s = t - 0.2
    whole = gaussian.reverse(schedule, x, x_t, t, s, variance_interp=0.4)
    for i in range(6):
        one = gaussian.reverse(schedule, x[i : i + 1], x_t[i : i + 1], t[i], s[i], variance_interp=0.4)
        assert close(whole.mean[i], one.mean[0]) and close(whole.variance[i], one.variance)


@ALL
@pytest.mark.parametrize("gap", [5.0, 1e-3])
def test_the_distillation_target_is_the_inverse_of_the_deterministic_step(schedule: Schedule, gap: float) -> None:
    x, x_t, (t, s) = normal(3, 2), normal(3, 2, seed=1), at(schedule, -2.0, -2.0 + gap)
    x_s = gaussian.posterior(schedule, x, x_t, t, s, eta=0).mean
    # A step of 1e-3 in log-SNR moves x_s by 1e-3 of x: a thousandth of the digits of x_s remains.
    assert close(gaussian.distillation_target(schedule, x_s, x_t, t, s), x, rtol=1e-9, atol=1e-9)


def test_entropy_is_that_of_every_coordinate() -> None:
    distribution = Gaussian(normal(3, 2), torch.tensor([0.3, 2.0], dtype=torch.float64))
    std = distribution.variance.sqrt().expand_as(distribution.mean)
    assert close(distribution.entropy(), Normal(distribution.mean, std).entropy().sum(1))


def test_numbers_of_coordinates_that_do_not_count_may_be_anything() -> None:
    mean, x, counted = normal(2, 3, 2), normal(2, 3, 2, seed=1), torch.tensor([[[True, False]], [[False, True]]])
    one, other = Gaussian(mean, torch.full_like(mean, 0.3)), Gaussian(x, torch.full_like(mean, 2.0))
    found = one.kl(Gaussian(torch.where(counted, x, torch.nan), other.variance), counted)
    column = torch.arange(2)
    rest = [Gaussian(part.mean[column, :, column], part.variance[:, :, 0]) for part in (one, other)]
    assert close(found, rest[0].kl(rest[1])) and close(one.nll(x, counted), rest[0].nll(x[column, :, column]))
    assert close(gaussian.total(x), gaussian.total(x, counted) + gaussian.total(x, ~counted))
