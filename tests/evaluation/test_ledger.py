"""The ledger of measurements that are made up, so that every number of it is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import figures
from diffusion.data import DataSpec
from diffusion.evaluation.ledger import Columns, Ledger, of_measurements, off_integral
from diffusion.evaluation.ledger_work import CROSSED, Work
from diffusion.evaluation.likelihood import Measurements
from diffusion.schedules import Cosine, Schedule

SCHEDULE = Cosine(6.0, -6.0)
LEVELS, PATHS, COUNT = 25, 3, 6
LOG_SNR = torch.linspace(-6, 6, LEVELS, dtype=torch.float64)
IMAGES, POINTS = DataSpec((1, 2, 2), 256, (), 127.5, 64.0), DataSpec((4,), None)


def measured(paths: Tensor | None = None, moment: float = 4.0) -> Measurements:
    """Returns measurements of standard normal data in four dimensions, whose mmse is 4/(1 + SNR), without noise."""
    mmse = 4 * torch.sigmoid(-LOG_SNR).expand(COUNT, -1)
    # Half the integral of SNR times the mmse is 2 log(1 + SNR), which is 12 more at the clean than at the noisy end.
    terms = torch.tensor([[0.5, 12.0, 2.0, moment, 14.5]], dtype=torch.float64).expand(COUNT, -1)
    weights = torch.zeros(COUNT, 0) if paths is None else paths
    squares = torch.ones(COUNT, LEVELS, dtype=torch.float64)
    return Measurements.of(
        terms, torch.zeros(COUNT, 1, 5), by_log_snr=torch.cat([mmse, squares], 1), log_weights=weights
    )


def ledger(found: Measurements, *, spec: DataSpec = POINTS, paths: int = 0, schedule: Schedule = SCHEDULE) -> Ledger:
    return of_measurements(found, Columns(LEVELS, paths), schedule, spec, LOG_SNR, LOG_SNR.flip(0)[::2], 16)


def test_data_at_equilibrium_produce_nothing_and_exchange_no_heat() -> None:
    """Standard normal data stay what they are: what is lost is information alone."""
    found = ledger(measured())
    for name in ("entropy", "heat", "production"):
        assert found.mean[name] == pytest.approx(0, abs=1e-6)
        assert found.terms[name].half_width == pytest.approx(found.terms[name].errors["solver"], abs=1e-9)
    assert found.mean["information"] == pytest.approx(12 / math.log(2))
    assert found.mean["total"] == pytest.approx(14.5 / math.log(2)) and list(found.terms)[-1] == "total"
    for name in ("heat", "production", "produced"):
        assert all(abs(value) < 1e-9 for _, value, _ in found.curves[name])
    # The entropy of x_t is 2 log(2 pi e) nats at all levels, and the prior's 0.5 more by the model.
    expected = (2 * math.log(2 * math.pi * math.e) + 0.5) / math.log(2)
    assert all(abs(value - expected) < 0.02 for _, value, _ in found.curves["entropy"][1:])


def test_wide_data_give_heat_to_the_bath_until_they_have_its_variance() -> None:
    """Heat is the fall of 1/2 E|x_t|^2, from 6 to 4 but for the noise at the ends."""
    alpha, _ = SCHEDULE(torch.tensor([0.0, 1.0], dtype=torch.float64))
    expected = float(alpha[0] ** 2 - alpha[1] ** 2) * (6.0 - 4.0) / 2
    assert ledger(measured(moment=6.0)).mean["heat"] == pytest.approx(expected / math.log(2), rel=1e-4)


@pytest.mark.parametrize("count", [16, 17, 33])
def test_the_error_of_the_integral_is_about_that_of_the_trapezoids(count: int) -> None:
    """Of a smooth peak, and within a factor of two of a kink at one end, where the rule is of second order."""
    at = torch.linspace(0, 3, count, dtype=torch.float64)
    exact, found = math.e**3 - 1, off_integral(at, at.exp())
    missed = abs(float(torch.trapezoid(at.exp(), at)) - exact)
    assert 0.5 * missed < found < 2 * missed
    peak = (-(at - 1.5).square() * 20).exp()
    assert off_integral(at, peak) < (0.1 if count < 20 else 1e-4)


def test_images_are_counted_by_scalar() -> None:
    points, images = ledger(measured()), ledger(measured(), spec=IMAGES)
    assert (points.unit, images.unit) == ("bits/vector", "bits/dim")
    assert images.mean["total"] == pytest.approx(points.mean["total"] / 4)
    assert images.values == pytest.approx([value / 4 for value in points.values])
    assert images.curves["information"][3][1] == pytest.approx(points.curves["information"][3][1] / 4)


def test_a_grid_of_constant_speed_spends_the_least() -> None:
    """The speed is 1 per unit of log-SNR at all levels and the steps are equal: 12 in length, 144 in action."""
    grid = ledger(measured()).grid
    assert grid["length"] == pytest.approx(12 / 2) and grid["action"] == pytest.approx(144 / 4)
    assert grid["efficiency"] == pytest.approx(1) and grid["steps"] == 12
    mismatch = math.expm1(math.exp(-6) * 4)
    assert grid["accuracy"] == pytest.approx(math.sqrt(144 * mismatch) / 2)


def normal_rows(count: int, spread: float) -> Tensor:
    """Returns log-weights whose work obeys Crooks' theorem: normal, with means F + s^2/2 and F - s^2/2; F = 7."""
    noise = torch.randn(count, 2 * PATHS + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signs = torch.tensor([1.0] * 2 * PATHS + [-1.0], dtype=torch.float64)
    return -(7 + signs * spread**2 / 2 + spread * noise)


def test_work_that_crosses_is_tested_against_both_theorems() -> None:
    rows = torch.cat([normal_rows(COUNT, 0.8), torch.full((COUNT, 1), 0.3)], 1)
    rows[COUNT // 2 :, :] = math.nan
    few = ledger(measured(rows), paths=PATHS)
    assert len(few.work["dissipated"]) == COUNT // 2 * PATHS, "examples without paths do not count"
    assert few.grid["error"].mean == pytest.approx(0.15)
    many = Work.of(normal_rows(4000, 0.8), PATHS)
    assert many.crossed and float(many.above.mean()) == pytest.approx(0.32, abs=0.05)
    assert float(many.below.mean()) == pytest.approx(-0.32, abs=0.05)
    assert float((-many.difference).exp().mean()) == pytest.approx(1, abs=0.1)


def test_work_that_does_not_cross_is_not_tested() -> None:
    work = Work.of(normal_rows(40, 8.0), PATHS)
    assert not work.crossed and int((work.difference < 0).sum()) < CROSSED
    rows = torch.cat([normal_rows(COUNT, 8.0), torch.full((COUNT, 1), 0.3)], 1)
    found = ledger(measured(rows), paths=PATHS)
    assert set(found.tests) == {"dissipated"} and set(found.work) == {"dissipated"}
    assert "Jarzynski, Crooks: not testable" in found.table()


def test_a_ledger_is_a_table_json_and_a_figure(tmp_path: Path) -> None:
    rows = torch.cat([normal_rows(COUNT, 0.5), torch.full((COUNT, 1), 0.3)], 1)
    found = ledger(measured(rows), paths=PATHS)
    lines = found.table().splitlines()
    assert lines[1].split() == ["mean", "±", "95", "%", "examples", "noise", "solver"]
    assert [line.split()[0] for line in lines[2:9]] == list(found.terms)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["grid"]["steps"] == 12 and written["tests"]["dissipated"]["mean"] > 0
    found.draw(tmp_path / "ledger.png", "held-out")
    assert figures.read_info(tmp_path / "ledger.png")["curves"].keys() == found.curves.keys()


def test_a_single_example_has_the_width_of_its_noise_alone() -> None:
    found = measured()
    noisy = replace(
        found,
        terms=found.terms[:1],
        variances=torch.full((1, 1, 5), 0.01, dtype=torch.float64),
        by_log_snr=found.by_log_snr[:1],
        log_weights=found.log_weights[:1],
    )
    result = ledger(noisy)
    assert set(result.terms["total"].errors) == {"noise", "solver"} and result.terms["total"].half_width is not None
