"""The order of the solvers and the error they promise, on equations with closed solutions."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torchdiffeq
from torch import Tensor

from diffusion.errors import InputError
from diffusion.likelihood.ode import DORMAND_PRINCE, TABLEAUS, Adaptive, Fixed

Y = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)


def slope(u: float, y: Tensor) -> Tensor:
    return y * math.cos(u)


def exact(y: Tensor, start: float, end: float) -> Tensor:
    return y * math.exp(math.sin(end) - math.sin(start))


@pytest.mark.parametrize("method", TABLEAUS)
@pytest.mark.parametrize(("start", "end"), [(0.0, 3.0), (3.0, 0.0)])
def test_fixed_steps_have_the_order_of_their_method(method: str, start: float, end: float) -> None:
    solver = Fixed(40, method)
    errors = [(s(slope, Y, start, end) - exact(Y, start, end)).abs().max().item() for s in (solver, solver.refined())]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(TABLEAUS[method].order, abs=0.4)


def test_the_tableau_is_consistent_and_its_error_estimate_too() -> None:
    table = DORMAND_PRINCE
    assert sum(table.weights) == pytest.approx(1, abs=1e-15) and sum(table.error) == pytest.approx(0, abs=1e-15)
    for node, row in zip(table.nodes[1:], table.matrix, strict=True):
        assert sum(row) == pytest.approx(node, abs=1e-14)
    errors = [table.step(slope, 0.3, Y, h)[1].abs().max().item() for h in (0.2, 0.1)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.5), "of the 4th order estimate, in one step"


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize(("start", "end"), [(0.0, 6.0), (6.0, 0.0)])
def test_adaptive_steps_keep_the_tolerance(tolerance: float, start: float, end: float) -> None:
    error = (Adaptive(tolerance)(slope, Y, start, end) - exact(Y, start, end)).abs().max().item()
    assert error < 10 * tolerance


def test_another_solver_of_the_same_order_ends_in_the_same_place_in_as_many_evaluations() -> None:
    """The other solver is dopri5 of torchdiffeq, on an equation without a closed solution."""
    calls = {"ours": 0, "theirs": 0}

    def driven(u: float | Tensor, y: Tensor, whose: str) -> Tensor:
        calls[whose] += 1
        return math.cos(float(u)) - y**3

    ours = Adaptive(1e-8)(lambda u, y: driven(u, y, "ours"), Y, 0.0, 10.0)
    time = torch.tensor([0.0, 10.0], dtype=torch.float64)
    theirs = torchdiffeq.odeint(lambda u, y: driven(u, y, "theirs"), Y, time, rtol=1e-8, atol=1e-8, method="dopri5")[-1]
    assert (ours - theirs).abs().max().item() < 1e-7
    assert 0.5 < calls["ours"] / calls["theirs"] < 2


def test_a_refined_solver_is_closer() -> None:
    errors = []
    for solver in (Adaptive(1e-4), Adaptive(1e-4).refined()):
        errors.append((solver(slope, Y, 0.0, 6.0) - exact(Y, 0.0, 6.0)).abs().max().item())
    assert errors[1] < errors[0] / 4
    assert Adaptive(1e-4).refined().tolerance == pytest.approx(1e-5), "a tenth, as evaluations state"


def test_where_the_slope_changes_fast_steps_are_short() -> None:
    """The slope y' = 1/(w cosh²((u - 1)/w)) has a front of width w = 0.02 and the integral 2."""
    seen: list[float] = []

    def front(u: float, y: Tensor) -> Tensor:
        seen.append(u)
        return torch.full_like(y, 50 / math.cosh((u - 1) * 50) ** 2)

    end = Adaptive(1e-6)(front, torch.zeros(1, 1, dtype=torch.float64), 0.0, 2.0)
    assert end.item() == pytest.approx(2, abs=1e-4)
    assert sum(abs(u - 1) < 0.2 for u in seen) > len(seen) / 2


def test_one_step_of_heun_is_the_mean_of_two_slopes() -> None:
    assert torch.allclose(Fixed(1, "heun")(slope, Y, 0.0, 1.0), Y * (1 + (1 + 2 * math.cos(1)) / 2), rtol=1e-14)


def test_the_default_keeps_a_tolerance_of_1e_5() -> None:
    assert (Adaptive()(slope, Y, 0.0, 6.0) - exact(Y, 0.0, 6.0)).abs().max().item() < 1e-4


def test_a_step_is_taken_where_the_worst_example_is_within_the_tolerance() -> None:
    """The root mean square of error / (1 + |y|), |y| at the end of the step that is farther from 0."""
    rates, y = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([[-3.0, -5.0], [0.01, 0.0]]).double()
    proposal, error, _ = DORMAND_PRINCE.step(lambda u, y: rates * y, 0.0, y, 0.8)
    assert proposal[0, 0] < y[0, 0] and proposal[0, 1] > y[0, 1], "one grows, one shrinks"
    scale = 1 + torch.tensor([3 * math.exp(0.8), 5.0], dtype=torch.float64)
    limit = float((error[0] / scale).square().mean().sqrt())
    evaluations = []
    for tolerance in (1.01 * limit, 0.99 * limit):
        seen: list[float] = []

        def noted(u: float, y: Tensor, seen: list[float] = seen) -> Tensor:
            seen.append(u)
            return rates * y

        Adaptive(tolerance, first=0.8)(noted, y, 0.0, 0.8)
        evaluations.append(len(seen))
    assert evaluations[0] == 7 < evaluations[1]


@pytest.mark.parametrize(("start", "end"), [(0.0, 6.0), (6.0, 0.0), (-3.0, 3.0)])
def test_the_first_step_has_its_length(start: float, end: float) -> None:
    for solver, length in ((Adaptive(1e-2), 0.1), (Adaptive(1e-2, 0.25), 0.25), (Adaptive(1e-2, 9.0), 6.0)):
        seen: list[float] = []

        def noted(u: float, y: Tensor, seen: list[float] = seen) -> Tensor:
            seen.append(u)
            return slope(u, y)

        solver(noted, Y, start, end)
        assert seen[:2] == pytest.approx([start, start + length / 5 * (1 if end > start else -1)]), "the second node"


@pytest.mark.parametrize(("start", "end"), [(0.0, 6.0), (6.0, 0.0)])
def test_a_first_step_that_is_too_long_is_taken_again(start: float, end: float) -> None:
    error = (Adaptive(1e-6, first=6.0)(slope, Y, start, end) - exact(Y, start, end)).abs().max().item()
    assert error < 1e-5


def test_an_end_where_it_starts_changes_nothing() -> None:
    assert torch.equal(Adaptive()(slope, Y, 1.0, 1.0), Y)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_slope_that_is_not_a_number_is_an_error(sign: int) -> None:
    with pytest.raises(
        FloatingPointError, match=rf"no step is small enough at half log-SNR {sign}\.000; is x̂ finite\?"
    ):
        Adaptive()(lambda u, y: y * (math.nan if sign * u > 1 else 1.0), Y, -2.0 * sign, 2.0 * sign)


def test_bad_options_are_named() -> None:
    with pytest.raises(InputError, match=re.escape("solver.steps: must be at least 1, got 0")):
        Fixed(0)
    with pytest.raises(InputError, match=re.escape("solver.method: must be one of heun, rk4, dopri5, got 'euler'")):
        Fixed(4, "euler")
    with pytest.raises(InputError, match=re.escape("solver.tolerance: must be a positive number, got 0")):
        Adaptive(0.0)
    with pytest.raises(InputError, match=re.escape("solver.first: must be a positive number, got 0")):
        Adaptive(first=0.0)
