"""Intervals cover what they say they cover, and their widths are told apart by source."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.evaluation.intervals import Estimate, estimate, student_t


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (999, 1.9623), (5000, 1.9600)]
)
def test_student_t_is_that_of_the_tables(degrees: int, expected: float) -> None:
    assert student_t(degrees) == pytest.approx(expected, rel=2e-4)


def nested(seed: int, examples: int, a: float, b: float, c: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns examples of standard deviation a, measured twice with noise b, each time by four probes of noise c."""
    truth = 3 + a * normal(examples, seed=3 * seed)
    repeats = truth[:, None] + b * normal(examples, 2, seed=3 * seed + 1)
    probes = repeats[..., None] + c * normal(examples, 2, 4, seed=3 * seed + 2)
    values = probes.mean(2)
    of_probes = probes.var(2).mean(1) / 8
    return values.mean(1), {"probes": of_probes, "noise": values.var(1) / 2 - of_probes}


@pytest.mark.parametrize(("a", "b", "c"), [(1.0, 0.5, 0.5), (0.2, 1.0, 2.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("examples", [4, 30])
def test_intervals_cover_the_truth_as_often_as_they_say(a: float, b: float, c: float, examples: int) -> None:
    covered = 0
    for seed in range(400):
        result = estimate(*nested(seed, examples, a, b, c))
        assert result.half_width is not None
        covered += abs(result.mean - 3) < result.half_width
    assert 0.92 <= covered / 400 <= 0.98


def test_every_source_is_found() -> None:
    result = estimate(*nested(0, 20_000, 1.0, 0.5, 0.8))
    root = math.sqrt(20_000)
    assert result.errors["examples"] == pytest.approx(1.0 / root, rel=0.02)
    assert result.errors["noise"] == pytest.approx(0.5 / math.sqrt(2) / root, rel=0.05)
    assert result.errors["probes"] == pytest.approx(0.8 / math.sqrt(8) / root, rel=0.02)
    assert result.standard_error == pytest.approx(math.sqrt(1 + 0.125 + 0.08) / root, rel=0.02)
    assert result.half_width == pytest.approx(1.96 * result.standard_error, rel=1e-3)


def test_the_error_of_the_solver_is_added_as_it_is() -> None:
    values, within = nested(0, 50, 1.0, 0.5, 0.5)
    plain, solved = estimate(values, within), estimate(values, within, solver=0.25)
    assert plain.half_width is not None and solved.half_width == pytest.approx(plain.half_width + 0.25)
    assert solved.errors["solver"] == 0.25 and solved.standard_error == plain.standard_error


def test_one_example_has_the_interval_of_what_is_random_within_it() -> None:
    covered = 0
    for seed in range(400):
        draws = 3 + normal(1, 2, seed=seed)
        result = estimate(draws.mean(1), {"noise": draws.var(1) / 2}, repeats=2)
        assert result.half_width is not None and "examples" not in result.errors
        covered += abs(result.mean - 3) < result.half_width
    assert 0.92 <= covered / 400 <= 0.98
    alone = estimate(torch.tensor([2.0]), {})
    assert alone.half_width is None and alone.mean == 2.0 and str(alone) == "2.0000 ± ?"


def test_equal_examples_without_noise_have_no_width() -> None:
    result = estimate(torch.full((5,), 2.0), {"noise": torch.zeros(5)})
    assert (result.mean, result.half_width, result.standard_error) == (2.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_its_example(bad: float) -> None:
    with pytest.raises(FloatingPointError, match="example 2 has the value"):
        estimate(torch.tensor([1.0, 2.0, bad]), {})


def test_other_units_scale_the_mean_and_the_widths() -> None:
    result = Estimate(2.0, 0.5, {"examples": 0.2, "solver": 0.1}).scaled(-3.0, 10.0)
    assert result == Estimate(4.0, 1.5, {"examples": pytest.approx(0.6), "solver": pytest.approx(0.3)})
