"""Exact samples are covered as often as promised, and wrong ones are not; a seam is what the original does not have."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.restoration.statistics import coverage, edge, energy_score, held_probability, interval, psnr, seam


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_energy_score_of_numbers_is_the_crps() -> None:
    """Of N(0, 1) at x it is x (2Φ(x) - 1) + 2φ(x) - 1/√π (Gneiting and Raftery 2007, section 4.2)."""
    normal, samples = torch.distributions.Normal(0.0, 1.0), draws(4000, 1)
    for value in (-1.5, 0.0, 0.4):
        x = torch.tensor([value], dtype=torch.float64)
        exact = x * (2 * normal.cdf(x) - 1) + 2 * normal.log_prob(x).exp() - math.pi**-0.5
        assert float(energy_score(samples, x)) == pytest.approx(float(exact), abs=0.03)


def test_the_energy_score_is_unbiased_and_least_for_exact_samples() -> None:
    """For n samples of the distribution of the truth it is ½ E‖x - x'‖ on average, for any n."""
    truth, n, trials = draws(2000, 6, seed=1), 5, 2000
    half = float((draws(trials, 6, seed=2) - truth).norm(dim=1).mean()) / 2
    found = {
        name: float(torch.stack(list(map(energy_score, change(draws(trials, n, 6)), truth))).mean())
        for name, change in {
            "exact": lambda x: x,
            "shifted": lambda x: x + 0.3,
            "narrow": lambda x: 0.6 * x,
            "wide": lambda x: 1.5 * x,
        }.items()
    }
    assert found["exact"] == pytest.approx(half, abs=0.02)
    assert all(found[name] > found["exact"] + 0.02 for name in ("shifted", "narrow", "wide"))
    with pytest.raises(InputError, match="samples: must be at least 2, got 1"):
        energy_score(draws(1, 6), truth[0])


@pytest.mark.parametrize("n", [19, 25, 39, 64])
@pytest.mark.parametrize("step", [0.0, 0.7])
def test_exact_samples_have_exactly_the_coverage_of_the_confidence(n: int, step: float) -> None:
    """The coverage is exact also for values rounded to whole steps, many of which are then equal."""
    x = draws(n + 1, 40_000, seed=n)
    x = (x / step).round() * step if step else x
    # The standard error is below sqrt(0.09 / 40,000) = 0.0015.
    assert float(coverage(x[1:], x[0]).mean()) == pytest.approx(0.9, abs=0.005)


def test_the_expectation_is_the_confidence_to_the_last_digit() -> None:
    """The expectation is over all ranks that a truth can take among the samples, which are equally probable."""
    for n, confidence in ((19, 0.9), (30, 0.9), (9, 0.8), (12, 0.75)):
        samples = torch.arange(n).double()[:, None].expand(n, n + 1)
        truth = torch.arange(n + 1) - 0.5
        assert float(coverage(samples, truth, confidence=confidence).mean()) == pytest.approx(confidence, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "expected", "error"),
    # Between two ranks a bound is off by as much as the density bends there.
    [(19, 0.9, 0.002), (39, 0.9, 0.002), (25, 0.9, 0.01), (9, 0.8, 0.002), (4, 0.6, 0.005), (1, 0.0, 0.0)],
)
def test_intervals_hold_their_share_of_further_draws(n: int, expected: float, error: float) -> None:
    low, high = interval(draws(n, 20_000, seed=n))
    found = torch.special.ndtr(high) - torch.special.ndtr(low)
    assert float(found.mean()) == pytest.approx(expected, abs=error) and held_probability(n) == pytest.approx(expected)


def test_a_bound_between_two_ranks_is_interpolated() -> None:
    """With 25 samples the rank is 5 % of 26: 0.3 of the way from the smallest to the second smallest."""
    low, high = interval(torch.arange(25, dtype=torch.float64)[:, None].square())
    assert low.tolist() == pytest.approx([0.3]) and high.tolist() == pytest.approx([24**2 - 0.3 * (24**2 - 23**2)])
    low, high = interval(torch.tensor([2.0, 4.0], dtype=torch.float64), confidence=0.1)
    assert (float(low), float(high)) == pytest.approx((2.7, 3.3)), "ranks 1.35 and 1.65"


def test_overconfident_and_biased_samples_are_found_out() -> None:
    truth, x = draws(20_000), draws(39, 20_000, seed=1)
    exact = float(coverage(x, truth).mean())
    assert float(coverage(0.5 * x, truth).mean()) < 0.65 < exact < float(coverage(2 * x, truth).mean())
    assert float(coverage(x + 2, truth).mean()) < 0.5


def test_values_that_are_all_the_same_say_nothing() -> None:
    assert coverage(torch.zeros(19, 3), torch.zeros(3)).tolist() == pytest.approx([0.9] * 3)
    assert coverage(torch.zeros(19, 3), torch.ones(3)).tolist() == [0.0] * 3


def test_too_few_samples_have_no_such_interval() -> None:
    with pytest.raises(ValueError, match="samples: must be at least 19 for an interval of 90 %, got 8"):
        coverage(draws(8, 2), draws(2))
    with pytest.raises(ValueError, match="confidence: must be between 0 and 1, got 1"):
        coverage(draws(8, 2), draws(2), confidence=1.0)


def test_the_edge_of_a_region() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    region = torch.zeros(3, 4, dtype=torch.bool)
    region[1:, 2:] = True
    # Two steps of 4 down into the region, two of 1 to the right.
    assert edge(x, region).tolist() == [2.5]
    assert edge(x, ~region).tolist() == [2.5]
    assert edge(x, torch.ones_like(region)).isnan().all()


def test_a_seam_is_a_step_at_the_edge_that_the_original_does_not_have() -> None:
    truth, known = draws(3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    known[:, 4:12, 4:12] = False
    shifted = torch.where(known, truth, truth + 5.0)
    assert seam(torch.stack([truth, shifted]), known, truth).tolist() == pytest.approx([1.0, 5 / 1.128], rel=0.15)


def test_psnr_of_a_shift() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert psnr(x + 0.1, x).tolist() == pytest.approx([20.0, 20.0])
    assert psnr(x, x).isinf().all()
