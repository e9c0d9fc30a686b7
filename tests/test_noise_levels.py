"""Noise levels: their densities, and that the exact weighting gives the same bound under all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.noise_levels import (
    NOISE_LEVELS,
    Dissipation,
    LogitNormal,
    LogNormal,
    Measured,
    NoiseLevels,
    PiecewiseConstant,
    Uniform,
    low_discrepancy,
)
from diffusion.objectives import Exact, Objective, Simple
from diffusion.schedules import EDM as VarianceExploding
from diffusion.schedules import Cosine, Schedule
from tests.oracles import correlated

LEVELS = [
    *(pytest.param(cls(), id=name) for name, cls in NOISE_LEVELS.items()),
    pytest.param(LogNormal(mean=-1.0, std=0.9, uniform=0.25), id="log_normal uniform"),
    pytest.param(LogitNormal(mean=-0.7, std=1.3), id="logit_normal shifted"),
    pytest.param(PiecewiseConstant(torch.tensor([0.05, 0.3, 0.55, 0.1], dtype=torch.float64)), id="histogram"),
]
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding()], ids=["vp", "ve"])


def nodes(levels: NoiseLevels) -> tuple[Tensor, Tensor]:
    """Returns u and du for a quadrature that is dense at both ends of each smooth part of the unit interval."""
    z = torch.linspace(-6.5, 6.5, 10_001, dtype=torch.float64)
    u, du = torch.special.ndtr(z), torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    du[[0, -1]] /= 2
    if isinstance(levels, PiecewiseConstant):
        shares = levels.shares
    else:
        cut = getattr(levels, "uniform", 0.0)
        shares = torch.tensor([cut, 1 - cut] if cut else [1.0], dtype=torch.float64)
    start = shares.cumsum(0) - shares
    return (start[:, None] + shares[:, None] * u).flatten(), (shares[:, None] * du).flatten()


@SCHEDULES
@pytest.mark.parametrize("levels", LEVELS)
def test_densities_integrate_to_one(schedule: Schedule, levels: NoiseLevels) -> None:
    u, _ = nodes(levels)
    log_snr, order = levels.log_snr(u, schedule).sort()
    assert log_snr[0] >= schedule.log_snr_min - 1e-9 and log_snr[-1] <= schedule.log_snr_max + 1e-9
    density = levels.density(u, schedule)[order]
    assert torch.trapezoid(density, log_snr).item() == pytest.approx(1, abs=2e-5)


@SCHEDULES
@pytest.mark.parametrize("levels", LEVELS)
def test_densities_are_those_of_the_draws(schedule: Schedule, levels: NoiseLevels) -> None:
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    log_snr = levels.log_snr(u, schedule)
    for low in (-3.0, 0.0, 1.5):
        inside = (log_snr >= low) & (log_snr < low + 0.5)
        near = (log_snr - low - 0.25).abs().argmin()
        density = levels.density(u[near, None], schedule).item()
        assert inside.double().mean().item() / 0.5 == pytest.approx(density, rel=0.01)


@SCHEDULES
@pytest.mark.parametrize("levels", LEVELS)
def test_exact_weight_gives_the_same_loss_under_any_noise_levels(schedule: Schedule, levels: NoiseLevels) -> None:
    oracle = correlated(schedule, (3,))
    u, du = nodes(levels)
    log_snr = levels.log_snr(u, schedule)
    weight = Exact()(log_snr, levels.density(u, schedule))
    expected_loss = (weight * oracle.error(schedule.time(log_snr)) * du).sum().item()
    # ½ ∫ e^λ E‖x̂ - x‖² dλ over the log-SNRs that these u reach: for Gaussian data ½ Σ log(1 + c e^λ) between the ends.
    values, ends = oracle.eigen[0], (log_snr.min().item(), log_snr.max().item())
    low, high = (torch.log1p(values * math.exp(end)).sum().item() / 2 for end in ends)
    assert expected_loss == pytest.approx(high - low, rel=2e-6)


def test_exact_weight_is_the_bound_of_the_whole_schedule() -> None:
    """With prior and decoder added, the loss is the entropy of the data: nothing is missing from it."""
    schedule = Cosine()
    oracle = correlated(schedule, (3,))
    u, du = nodes(Uniform())
    weight = Exact()(schedule.log_snr(u), Uniform().density(u, schedule))
    diffusion = (weight * oracle.error(u) * du).sum().item()
    noise = math.exp(-schedule.log_snr_max)
    decoder = 3 / 2 * math.log(2 * math.pi * math.e * noise)
    assert diffusion + decoder == pytest.approx(oracle.entropy, abs=1e-3)


@pytest.mark.parametrize("levels", LEVELS)
def test_times_have_the_log_snrs_that_are_drawn(levels: NoiseLevels) -> None:
    schedule, u = Cosine(), torch.linspace(0.0, 0.999, 50)
    t, weight = Objective(levels, Simple()).times(u, schedule)
    assert t.dtype == weight.dtype == torch.float64 and (t > 0).all() and (t <= 1).all()
    log_snr = levels.log_snr(u.double(), schedule)
    assert torch.allclose(schedule.log_snr(t), log_snr, atol=1e-5) and torch.allclose(weight, log_snr.exp())


def test_bins_are_those_of_the_log_snrs_drawn() -> None:
    schedule, levels = Cosine(), PiecewiseConstant(torch.tensor([0.05, 0.3, 0.55, 0.1], dtype=torch.float64))
    u = torch.arange(1000, dtype=torch.float64) / 1000
    edges = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 5, dtype=torch.float64)
    assert torch.equal(levels.bin(u), torch.bucketize(levels.log_snr(u, schedule) + 1e-9, edges) - 1)


def test_no_other_distribution_has_less_variance_than_the_measured_one() -> None:
    """Its second moment Σ m_i/p_i, in bins, is least at p ∝ √m: every move of probability adds to it."""
    moments = torch.tensor([0.3, 4.0, 1.0, 0.02], dtype=torch.float64)
    best = Measured(bins=4, uniform=1e-12).fit(moments).shares
    least = (moments / best).sum()
    assert float(least) == pytest.approx(float(moments.sqrt().sum() ** 2))
    for i in range(4):
        for j in {*range(4)} - {i}:
            moved = best.clone()
            moved[[i, j]] += 0.01 * torch.tensor([1.0, -1.0], dtype=torch.float64)
            assert (moments / moved).sum() > least
    uniform = Measured(bins=4, uniform=0.2).fit(moments).shares
    assert torch.allclose(uniform, 0.05 + 0.8 * best, rtol=1e-9)
    assert Measured(bins=4, uniform=1.0).fit(moments).shares.tolist() == [0.25] * 4
    assert Measured(bins=1, every=1).fit(moments[:1]).shares.tolist() == pytest.approx([1.0])


@pytest.mark.parametrize("bins", [32, 128])
def test_draws_by_dissipation_are_even_in_thermodynamic_length(bins: int) -> None:
    """For variances c, E[ℓ] = ½ Σ s and ζ = ¼ Σ s² with s = c SNR / (1 + c SNR); a common factor changes nothing."""
    edges = torch.linspace(-8, 8, bins + 1, dtype=torch.float64)
    middle, width = (edges[1:] + edges[:-1]) / 2, 16 / bins
    share = torch.sigmoid(middle + torch.tensor([[1.0], [-3.0]]).double())
    found = Dissipation(bins=bins, uniform=1e-9).fit(7 * share.sum(0) / 2, width).shares
    expected = share.square().sum(0).sqrt()
    # Differences of neighboring bins are second order in the width, and one-sided in the first and last bin.
    ratio = found * expected.sum() / expected - 1
    assert ratio[1:-1].abs().max() < 0.26 * width**2 and ratio.abs().max() < 0.6 * width
    assert expected.max() > 100 * expected.min()


def test_draws_by_dissipation_leave_no_log_snr_out() -> None:
    """Where the error does not fall nothing is dissipated, also where it rises, as it may by chance."""
    middle = torch.linspace(-3, 3, 13, dtype=torch.float64)
    width = float(middle[1] - middle[0])
    levels = Dissipation(bins=13, uniform=0.2)
    assert torch.allclose(levels.fit((2 * middle).exp(), width).shares, torch.full((), 1 / 13).double())
    falling = levels.fit(torch.cat([(2 * middle[:7]).exp(), torch.ones(6).double()]), width).shares
    assert falling[:6].tolist() == pytest.approx([0.2 / 13] * 6) and (falling[7:] > 0.1).all()
    assert float(falling.sum()) == pytest.approx(1, abs=1e-12)
    assert Dissipation(bins=1).fit(torch.ones(1)).shares.tolist() == [1.0]


def test_low_discrepancy_numbers_cover_evenly() -> None:
    offset, total = torch.tensor(0.831, dtype=torch.float64), 48
    u = torch.cat([low_discrepancy(offset, torch.arange(start, start + 16), total) for start in (0, 16, 32)])
    assert ((u >= 0) & (u < 1)).all()
    assert torch.allclose(u.sort().values.diff(), torch.full((), 1 / total, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal((u * total).floor().long().sort().values, torch.arange(total)), "one in every cell"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogNormal(std=0.0), "std: must be a positive number, got 0.0"),
        (lambda: LogNormal(uniform=1.0), "uniform: must be in [0, 1), got 1.0"),
        (lambda: LogNormal(uniform=-0.1), "uniform: must be in [0, 1), got -0.1"),
        (lambda: LogitNormal(std=-1.0), "std: must be a positive number, got -1.0"),
        (lambda: LogitNormal(std=0.0), "std: must be a positive number, got 0.0"),
        (lambda: Measured(bins=0), "bins: must be at least 1, got 0"),
        (lambda: Measured(uniform=0.0), "uniform: must be in (0, 1], got 0.0"),
        (lambda: Measured(uniform=1.1), "uniform: must be in (0, 1], got 1.1"),
        (lambda: Measured(every=0), "every: must be at least 1, got 0"),
        (lambda: Dissipation(uniform=0.0), "uniform: must be in (0, 1], got 0.0"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], NoiseLevels], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
