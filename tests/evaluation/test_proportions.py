"""Shares and their intervals against scipy, and the coverage of intervals against simulation."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from diffusion.evaluation.proportions import Beta, Share, excess, share, too_few


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1), (1, 1000), (10, 991), (500, 501), (3, 1), (20, 49981), (1, 50000), (25000, 25001)]
)
def test_probabilities_and_quantiles_are_those_of_the_beta_distribution_to_five_digits(a: int, b: int) -> None:
    exact, beta = stats.beta(a, b), Beta(a, b)
    for probability in (0.001, 0.025, 0.5, 0.975, 0.999):
        assert exact.cdf(beta.quantile(probability)) == pytest.approx(probability, abs=1e-5)
        p = exact.ppf(probability)
        assert float(beta.cumulative(torch.tensor(p, dtype=torch.float64))) == pytest.approx(probability, abs=1e-5)
    assert beta.mean == exact.mean()
    assert beta.cumulative(torch.tensor([-1.0, 0.0, 1.0, 2.0])).tolist() == pytest.approx([0, 0, 1, 1])


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (13, 1000), (999, 1000), (1, 1)])
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(hits: int, n: int) -> None:
    exact = stats.binomtest(hits, n).proportion_ci(method="exact")
    found = share(hits, n)
    assert (found.value, found.low, found.high) == pytest.approx((hits / n, exact.low, exact.high), rel=1e-4, abs=1e-9)
    estimate = found.estimate
    assert estimate.half_width == pytest.approx((found.high - found.low) / 2)
    assert estimate.half_width == pytest.approx(1.96 * estimate.standard_error, rel=1e-3)
    assert str(share(3, 10)) == "0.3000 (0.0667 to 0.6525)"


@pytest.mark.parametrize(("true", "n", "rank", "held_out"), [(0.0, 200, 2, 199), (0.03, 200, 2, 199), (0.5, 30, 1, 50)])
def test_the_interval_of_an_excess_covers_it_as_often_as_it_says(true: float, n: int, rank: int, held_out: int) -> None:
    """2,000 repetitions, so that the measured coverage has a standard error of half a percent at most."""
    generator = torch.Generator().manual_seed(0)
    rate, repetitions = Beta(rank, held_out + 1 - rank), 2000
    # A new threshold for each repetition: the rate of honest samples below it.
    rates = torch.rand(repetitions, held_out, generator=generator).double().sort(1).values[:, rank - 1]
    hit = torch.rand(repetitions, n, generator=generator) < (true + (1 - true) * rates)[:, None]
    counts = hit.sum(1).tolist()
    found = {hits: excess(hits, n, rate) for hits in set(counts)}
    covered = sum(found[hits].low <= true <= found[hits].high for hits in counts) / repetitions
    assert 0.945 <= covered <= 0.99
    assert sum(found[hits].value for hits in counts) / repetitions == pytest.approx(true, abs=0.01)


def test_the_excess_over_a_rate_that_is_known_well_is_that_of_the_binomial() -> None:
    found, shared = excess(100, 1000, Beta(20000, 980001)), share(100, 1000)
    for value, of_all in ((found.low, shared.low), (found.high, shared.high), (found.value, 0.1)):
        assert value == pytest.approx((of_all - 0.02) / 0.98, abs=5e-4)
    assert excess(0, 1000, Beta(1, 1000)).value == 0 and excess(1000, 1000, Beta(1, 1000)).high == 1


def test_where_there_are_fewer_hits_than_by_chance_all_of_them_bound_the_excess() -> None:
    rate = Beta(100, 901)
    assert too_few(5, 1000, rate) and not too_few(90, 1000, rate) and not too_few(3, 3, rate)
    assert excess(5, 1000, rate) == Share(0, 0, share(5, 1000).high)
    # Exactly at the 2.5 % of the mixture, which scipy knows as beta-binomial.
    law = stats.betabinom(1000, 100, 901)
    for hits in range(50, 90):
        assert too_few(hits, 1000, rate) == (law.cdf(hits) < 0.025)
