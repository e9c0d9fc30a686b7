"""Schedules: monotone, invertible and consistent at every time, and equal to their published forms."""

from __future__ import annotations

import math
import re

import pytest
import torch

from diffusion.schedules import (
    EDM,
    SCHEDULES,
    Cosine,
    DiscreteBetas,
    Flow,
    Schedule,
    Sigmoid,
    VariancePreserving,
    VPLinear,
)

VARIANTS = [
    *(pytest.param(cls(), id=name) for name, cls in SCHEDULES.items()),
    pytest.param(Cosine(shift=2 * math.log(64 / 256)), id="cosine shifted"),
    pytest.param(Sigmoid(start=0.0, end=3.0, temperature=0.3), id="sigmoid 0 3 0.3"),
    pytest.param(EDM(rho=1.0), id="edm rho 1"),
    pytest.param(DiscreteBetas(betas=(0.1, 0.4, 0.2, 0.9)), id="four betas"),
]


def times(n: int) -> torch.Tensor:
    return torch.linspace(0, 1, n, dtype=torch.float64)


@pytest.mark.parametrize("schedule", VARIANTS)
def test_log_snr_decreases_strictly(schedule: Schedule) -> None:
    log_snr = schedule.log_snr(times(20_001))
    assert torch.isfinite(log_snr).all()
    assert (log_snr.diff() < 0).all()
    assert log_snr[0] == schedule.log_snr_max and log_snr[-1] == schedule.log_snr_min


@pytest.mark.parametrize("schedule", VARIANTS)
def test_time_inverts_log_snr(schedule: Schedule) -> None:
    t = times(1001)
    assert torch.allclose(schedule.time(schedule.log_snr(t)), t, rtol=0, atol=1e-9)
    ends = torch.tensor(
        [schedule.log_snr_max + 1, schedule.log_snr_max, schedule.log_snr_min, schedule.log_snr_min - 1]
    )
    assert schedule.time(ends).tolist()[::3] == [0.0, 1.0]
    exact_ends = torch.tensor([schedule.log_snr_max, schedule.log_snr_min], dtype=torch.float64)
    assert schedule.time(exact_ends).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("schedule", [*VARIANTS, Sigmoid(temperature=0.1), VPLinear(beta_min=0.1, beta_max=0.1)])
def test_closed_forms_of_the_inverse_are_exact_to_the_last_bits(schedule: Schedule) -> None:
    log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 4001, dtype=torch.float64)[1:-1]
    log_snr = torch.cat([log_snr, schedule.log_snr(torch.tensor([1e-12, 1e-9, 1e-6, 1 - 1e-6, 1 - 1e-9]).double())])
    found, bisected = schedule.invert(log_snr), Schedule.invert(schedule, log_snr)
    assert (found - bisected).abs().max() < 1e-15
    # The step of the bisection to the next float64 moves λ by as much where λ is steep.
    error, exact = ((schedule.log_snr(t) - log_snr).abs().max() for t in (found, bisected))
    assert error <= max(4 * float(exact), 1e-12)


@pytest.mark.parametrize("schedule", VARIANTS)
def test_alpha_and_sigma_are_positive_and_have_that_log_snr(schedule: Schedule) -> None:
    t = times(1001)
    alpha, sigma = schedule(t)
    assert (alpha > 0).all() and (sigma > 0).all() and alpha.dtype == sigma.dtype == torch.float64
    assert torch.allclose((alpha / sigma).square().log(), schedule.log_snr(t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", VARIANTS)
def test_derivative_is_negative_and_matches_a_difference(schedule: Schedule) -> None:
    # Off the knots of tables, which stand at multiples of 1/999 and of 1/3.
    t = (torch.arange(200, dtype=torch.float64) + 0.3) / 200
    t.requires_grad_()
    (slope,) = torch.autograd.grad(schedule.log_snr(t).sum(), t)
    h = 1e-6
    difference = (schedule.log_snr(t.detach() + h) - schedule.log_snr(t.detach() - h)) / (2 * h)
    assert (slope < 0).all()
    assert torch.allclose(slope, difference, rtol=1e-6)


@pytest.mark.parametrize("schedule", VARIANTS)
def test_float32_times_agree_with_float64(schedule: Schedule) -> None:
    t = times(1001)
    low, high = schedule.log_snr(t.float()), schedule.log_snr(t.float().double())
    assert low.dtype == torch.float32
    assert (low.double() - high).abs().max() < 5e-4, "the SNR of float32 times is good to half a thousandth"


@pytest.mark.parametrize("schedule", [VPLinear(), Cosine(), Cosine(shift=-2.0), Sigmoid(), DiscreteBetas()])
def test_variance_preserving(schedule: Schedule) -> None:
    alpha, sigma = schedule(times(1001))
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(()).double(), rtol=0, atol=1e-12)


def test_the_table_of_ddpm() -> None:
    product, table = 1.0, []
    for i in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        table.append(product)
    index = torch.tensor([0, 1, 10, 250, 500, 998, 999])
    alpha, sigma = DiscreteBetas()(index.double() / 999)
    expected = torch.tensor(table, dtype=torch.float64)[index]
    assert torch.allclose(alpha**2, expected, rtol=1e-10)
    assert torch.allclose(sigma**2, 1 - expected, rtol=1e-10)
    assert table[-1] == pytest.approx(4.0358e-5, rel=1e-4), "Ho et al.: the signal left at the end"


def test_a_table_of_two_betas_is_its_two_products() -> None:
    alpha, sigma = DiscreteBetas(steps=2, beta_min=0.1, beta_max=0.4)(times(2))
    assert alpha.square().tolist() == pytest.approx([0.9, 0.54], rel=1e-12)
    assert sigma.square().tolist() == pytest.approx([0.1, 0.46], rel=1e-12)


def test_between_entries_of_a_table_the_log_snr_is_linear() -> None:
    schedule = DiscreteBetas(betas=(0.1, 0.4, 0.2))
    entries = [0.9 / 0.1, 0.54 / 0.46, 0.432 / 0.568]
    expected = [math.log(entries[0]) * 0.75 + math.log(entries[1]) * 0.25, math.log(entries[1]), math.log(entries[2])]
    assert schedule.log_snr(torch.tensor([0.125, 0.5, 1.0]).double()).tolist() == pytest.approx(expected, rel=1e-12)


def test_cosine_without_cut_is_a_cosine() -> None:
    t = times(101)[1:-1]
    alpha, sigma = Cosine(start=40.0, end=-40.0)(t)
    assert torch.allclose(alpha, (math.pi * t / 2).cos(), rtol=1e-6)
    assert torch.allclose(sigma, (math.pi * t / 2).sin(), rtol=1e-6)


def test_cosine_ends_and_shift() -> None:
    assert Cosine().log_snr(times(2)).tolist() == pytest.approx([13.3, -13.3], abs=1e-9)
    t, shift = times(11), 2 * math.log(64 / 256)
    assert torch.allclose(Cosine(shift=shift).log_snr(t), Cosine().log_snr(t) + shift, rtol=0, atol=1e-9)


def test_edm_ends_and_middle() -> None:
    _, sigma = EDM(sigma_max=80.0)(times(3))
    middle = ((0.002 ** (1 / 7) + 80 ** (1 / 7)) / 2) ** 7
    assert sigma.tolist() == pytest.approx([0.002, middle, 80.0], rel=1e-12)


def test_linear_is_the_integral_of_beta() -> None:
    t = times(101)
    alpha, _ = VPLinear()(t)
    u = 1e-5 + t * (1 - 1e-5)
    assert torch.allclose(alpha.square().log(), -(0.1 * u + 0.5 * 19.9 * u**2), rtol=1e-12)
    constant, _ = VPLinear(beta_min=3.0, beta_max=3.0)(t)
    assert torch.allclose(constant.square().log(), -3 * u, rtol=1e-12)


@pytest.mark.parametrize(
    ("start", "end", "temperature"), [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.5), (-2.0, 1.0, 0.5), (-3.0, 0.0, 1.7)]
)
def test_sigmoid_is_a_rescaled_sigmoid(start: float, end: float, temperature: float) -> None:
    u = times(103)[1:-1]
    x = start + (end - start) * (1e-5 + u * (1 - 2e-5))
    s = torch.sigmoid(x / temperature)
    ends = torch.sigmoid(torch.tensor([start, end], dtype=torch.float64) / temperature)
    alpha, sigma = Sigmoid(start, end, temperature)(u)
    assert torch.allclose(alpha**2, (ends[1] - s) / (ends[1] - ends[0]), rtol=1e-9)
    assert torch.allclose(sigma**2, (s - ends[0]) / (ends[1] - ends[0]), rtol=1e-9)


def test_flow_is_a_straight_line() -> None:
    alpha, sigma = Flow()(times(101))
    assert torch.allclose(alpha + sigma, torch.ones(()).double(), rtol=1e-14)
    assert sigma[0] == 0.002 and alpha[-1] == pytest.approx(0.001, rel=1e-12)
    assert sigma.diff().var() < 1e-28


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPLinear(beta_min=0.0), "beta_min, beta_max: must be 0 < beta_min <= beta_max, got (0.0, 20.0)"),
        (lambda: VPLinear(t_min=0.0), "t_min: must be 0 < t_min < 1, got 0.0"),
        (lambda: VPLinear(3.0, 2.0), "beta_min, beta_max: must be 0 < beta_min <= beta_max, got (3.0, 2.0)"),
        (lambda: VPLinear(t_min=1.0), "t_min: must be 0 < t_min < 1, got 1.0"),
        (lambda: Cosine(start=1.0, end=1.0), "start, end: must be end < start, got (1.0, 1.0)"),
        (lambda: Cosine(start=-1.0, end=1.0), "start, end: must be end < start, got (-1.0, 1.0)"),
        (lambda: Sigmoid(start=3.0, end=-3.0), "start, end: must be start < end, got (3.0, -3.0)"),
        (lambda: Sigmoid(start=3.0, end=3.0), "start, end: must be start < end, got (3.0, 3.0)"),
        (lambda: Sigmoid(t_min=0.0), "t_min: must be 0 < t_min < 0.5, got 0.0"),
        (lambda: Sigmoid(temperature=0.0), "temperature: must be a positive number, got 0.0"),
        (lambda: Sigmoid(t_min=0.5), "t_min: must be 0 < t_min < 0.5, got 0.5"),
        (lambda: EDM(0.5, 0.2), "sigma_min, sigma_max: must be 0 < sigma_min < sigma_max, got (0.5, 0.2)"),
        (lambda: EDM(0.2, 0.2), "sigma_min, sigma_max: must be 0 < sigma_min < sigma_max, got (0.2, 0.2)"),
        (lambda: EDM(0.0), "sigma_min, sigma_max: must be 0 < sigma_min < sigma_max, got (0.0, 160.0)"),
        (lambda: EDM(rho=-1.0), "rho: must be a positive number, got -1.0"),
        (lambda: EDM(rho=0.0), "rho: must be a positive number, got 0.0"),
        (lambda: Flow(alpha_min=0.0), "sigma_min, alpha_min: must be positive numbers, got (0.002, 0.0)"),
        (lambda: Flow(0.5, 0.5), "sigma_min, alpha_min: must be a sum below 1, got (0.5, 0.5)"),
        (lambda: Flow(sigma_min=0.0), "sigma_min, alpha_min: must be positive numbers, got (0.0, 0.001)"),
        (lambda: Flow(sigma_min=0.6, alpha_min=0.6), "sigma_min, alpha_min: must be a sum below 1, got (0.6, 0.6)"),
        (lambda: DiscreteBetas(steps=1), "steps: must be at least 2, got 1"),
        (lambda: DiscreteBetas(betas=(0.1,)), "betas: must be at least 2 values, got (0.1,)"),
        (lambda: DiscreteBetas(betas=(0.1, 1.0)), "betas: must be values between 0 and 1, got [1.0]"),
        (lambda: DiscreteBetas(beta_min=0.0), "betas: must be values between 0 and 1, got [0.0]"),
    ],
)
def test_bad_arguments_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("schedule", [EDM(), Flow()], ids=["edm", "flow"])
def test_any_schedule_in_units_of_unit_variance_has_its_log_snr(schedule: Schedule) -> None:
    vp, t = VariancePreserving(schedule), times(50)
    alpha, sigma = vp(t)
    assert torch.allclose(alpha.square() + sigma.square(), torch.ones_like(t), rtol=1e-12)
    assert torch.allclose(2 * (alpha.log() - sigma.log()), schedule.log_snr(t), atol=1e-9)
    assert torch.equal(vp.time(vp.log_snr(t)), schedule.time(schedule.log_snr(t)))
