"""The work of a ledger, made up to obey Crooks' theorem and to break it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.evaluation.ledger_work import CROSSED, MANY, Work

PATHS = 3


def normal_rows(count: int, spread: float) -> Tensor:
    """Returns log-weights whose work obeys Crooks' theorem: normal, with means F + s^2/2 and F - s^2/2; F = 7."""
    noise = torch.randn(count, 2 * PATHS + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signs = torch.tensor([1.0] * 2 * PATHS + [-1.0], dtype=torch.float64)
    return -(7 + signs * spread**2 / 2 + spread * noise)


def test_work_that_crosses_obeys_both_theorems() -> None:
    work = Work.of(normal_rows(4000, 0.8), PATHS)
    assert work.crossed and float(work.above.mean()) == pytest.approx(0.32, abs=0.05)
    assert float(work.below.mean()) == pytest.approx(-0.32, abs=0.05)
    tests = work.tests(1.0)
    for name, expected in {"crooks": 0.0, "jarzynski": 1.0}.items():
        width = tests[name].half_width
        assert width is not None and abs(tests[name].mean - expected) < 1.5 * width < 0.1
    assert {name: len(values) for name, values in work.numbers.items()} == {
        "dissipated": 4000 * PATHS,
        "forward": 4000 * PATHS,
        "reverse": 4000,
    }
    notes = " ".join(work.notes(1.0, 16, "bits/dim"))
    assert "on 16 steps the difference is" in notes and "an interval takes" not in notes


def test_what_is_dissipated_is_no_more_than_the_work_above_the_free_energy() -> None:
    """By the mean weight of few paths it is less, on average: s^2/2 = 0.5 less half the variance of the mean weight."""
    dissipated = Work.of(normal_rows(4000, 1.0), PATHS).tests(2.0)["dissipated"]
    assert 2 * 0.2 < dissipated.mean < 2 * 0.5


def test_work_that_breaks_the_theorem_is_seen() -> None:
    rows = normal_rows(4000, 0.8)
    rows[:, -1] += 1.0  # The reverse path does less work than it should.
    broken = Work.of(rows, PATHS).tests(1.0)
    width = broken["crooks"].half_width
    assert width is not None and abs(broken["crooks"].mean) > 3 * width


def test_work_that_does_not_cross_is_not_tested() -> None:
    work = Work.of(normal_rows(40, 8.0), PATHS)
    assert not work.crossed and int((work.difference < 0).sum()) < CROSSED
    assert set(work.numbers) == {"dissipated"} == set(work.tests(1.0))
    least = f"(the least difference is {float(work.difference.min()):.4g} nats)"
    assert any("not testable" in line and least in line for line in work.notes(1.0, 16, "bits/dim"))


def test_intervals_hold_what_the_theorems_say_where_they_are_given() -> None:
    """Of 250 ledgers of 120 samples each: Crooks' always, Jarzynski's where enough samples count."""
    rows, count = normal_rows(250 * 120, 0.6).reshape(250, 120, -1), 0
    held = {"crooks": 0, "jarzynski": 0}
    for each in rows:
        tests = Work.of(each, PATHS).tests(1.0)
        if tests["jarzynski"].half_width is None:
            continue
        count += 1
        for name, expected in {"crooks": 0.0, "jarzynski": 1.0}.items():
            width = tests[name].half_width
            assert width is not None
            held[name] += abs(tests[name].mean - expected) <= width
    assert count > 220
    assert held["crooks"] / count == pytest.approx(0.95, abs=0.03)
    assert 0.89 < held["jarzynski"] / count < 0.97


def test_there_is_no_interval_where_few_samples_have_all_the_weight() -> None:
    work = Work.of(normal_rows(200, 2.0), PATHS)
    assert work.crossed and work.size < MANY and work.tests(1.0)["jarzynski"].half_width is None
    assert work.tests(1.0)["crooks"].half_width is not None
    said = f"the effective number of samples is {work.size:.0f} of 200, and an interval takes 50"
    assert any(said in line for line in work.notes(1.0, 16, "bits/dim"))
