"""Operators have the adjoint and the pseudo-inverse that linear algebra says, given or derived."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffusion import operators
from diffusion.operators import Mask, Matrix, Operator, conjugate_gradients


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Differences(Operator):
    """What a newcomer writes: `__call__` alone. Horizontal differences, not of full rank once a column is repeated."""

    def __call__(self, x: Tensor) -> Tensor:
        rows = x[..., 1:] - x[..., :-1]
        return torch.cat([rows, rows[..., :1]], dim=-1)


def known(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) < 0.6


SHAPE = (2, 3, 4)
CASES = {
    "mask": Mask(known(*SHAPE)),
    "mask broadcast": Mask(known(1, 3, 4)),
    "wide matrix": Matrix(normal(7, 24)),
    "tall matrix": Matrix(normal(30, 24)),
    "deficient matrix": Matrix(normal(9, 3) @ normal(3, 24, seed=1)),
    "derived": Differences(),
}
ALL = pytest.mark.parametrize("operator", [pytest.param(case, id=name) for name, case in CASES.items()])


def dense(operator: Operator) -> Tensor:
    """The operator's matrix, column by column."""
    return operator(torch.eye(24, dtype=torch.float64).reshape(24, *SHAPE)).flatten(1).mT


def test_every_operator_is_among_the_cases() -> None:
    written = {
        c for _, c in inspect.getmembers(operators, inspect.isclass) if issubclass(c, Operator) and c is not Operator
    }
    missing = written - {type(case) for case in CASES.values()}
    assert not missing, f"add a case for {missing} to CASES"


@ALL
def test_adjoint(operator: Operator) -> None:
    x = normal(5, *SHAPE)
    y = normal(*operator(x).shape, seed=1)
    adjoint = operator.adjoint(y, x)
    assert adjoint.shape == x.shape
    assert torch.allclose((operator(x) * y).flatten(1).sum(1), (x * adjoint).flatten(1).sum(1), rtol=1e-12)
    assert torch.allclose(adjoint, Operator.adjoint(operator, y, x), rtol=1e-12, atol=1e-13), "the derived one agrees"
    assert torch.allclose(adjoint.flatten(1), y.flatten(1) @ dense(operator), rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        assert torch.equal(operator.adjoint(y, x), adjoint)


@ALL
def test_pseudo_inverse(operator: Operator) -> None:
    x = normal(5, *SHAPE)
    y = operator(x)
    least = operator.pinv(y, x)
    assert torch.allclose(operator(least), y, rtol=0, atol=1e-7), "A A⁺ A = A"
    expected = y.flatten(1) @ torch.linalg.pinv(dense(operator)).mT
    assert torch.allclose(least.flatten(1), expected, rtol=0, atol=1e-7), "and of all such x the one of least norm"


def test_conjugate_gradients_solve() -> None:
    root = normal(6, 6)
    matrix, b = root @ root.mT + 0.1 * torch.eye(6, dtype=torch.float64), normal(4, 6, seed=1)
    u = conjugate_gradients(lambda v: v @ matrix, b, iterations=50)
    assert torch.allclose(u, torch.linalg.solve(matrix, b.mT).mT, rtol=1e-8, atol=1e-9)


def test_conjugate_gradients_are_exact_after_as_many_steps_as_eigenvalues() -> None:
    basis, _ = torch.linalg.qr(normal(8, 8))
    matrix = (basis * torch.tensor([1.0, 1, 1, 4, 4, 4, 9, 9]).double()) @ basis.mT
    b = normal(3, 8, seed=1)
    exact = torch.linalg.solve(matrix, b.mT).mT
    errors = [(conjugate_gradients(lambda v: v @ matrix, b, iterations=n) - exact).norm().item() for n in (1, 2, 3)]
    assert errors[1] > 1e-3 and errors[2] < 1e-12


def test_rows_converge_by_themselves() -> None:
    scales = torch.tensor([1e-6, 1.0, 1e6, 0.0], dtype=torch.float64)
    root = normal(6, 6)
    matrix = root @ root.mT + 0.1 * torch.eye(6, dtype=torch.float64)
    b = normal(1, 6, seed=1) * scales[:, None]
    b[1] = matrix[0] @ matrix
    u = conjugate_gradients(lambda v: v @ matrix, b, iterations=50)
    exact = torch.linalg.solve(matrix, b.mT).mT
    assert torch.equal(u[3], torch.zeros(6, dtype=torch.float64)), "a zero right-hand side"
    assert ((u - exact).norm(dim=1)[:3] < 1e-8 * exact.norm(dim=1)[:3]).all()
    for i in range(4):
        alone = conjugate_gradients(lambda v: v @ matrix, b[i : i + 1], iterations=50)
        assert torch.allclose(alone[0], u[i], rtol=1e-8, atol=0)


def test_the_tolerance_stops_it() -> None:
    root, calls = normal(40, 40), []
    matrix, b = root @ root.mT + torch.eye(40, dtype=torch.float64), normal(2, 40, seed=1)

    def apply(v: Tensor) -> Tensor:
        calls.append(1)
        return v @ matrix

    u = conjugate_gradients(apply, b, iterations=1000, tolerance=1e-3)
    residual = ((b - u @ matrix).norm(dim=1) / b.norm(dim=1)).max()
    assert 1e-6 < residual < 1.01e-3 and len(calls) < 100


def test_without_positive_curvature_a_row_keeps_its_solution() -> None:
    b = normal(2, 3)
    factors = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    u = conjugate_gradients(lambda v: factors * v, b, iterations=5)
    assert torch.allclose(u[0], b[0]) and torch.equal(u[1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: conjugate_gradients(lambda v: v, normal(1, 2), iterations=0), "iterations: must be at least 1, got 0")],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
