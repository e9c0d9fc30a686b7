"""Operators have the adjoint and the pseudo-inverse that linear algebra says, given or derived."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffusion import operators
from diffusion.errors import InputError
from diffusion.operators import (
    JPEG,
    OPERATORS,
    BoxBlur,
    Composition,
    Crop,
    Downsample,
    GaussianBlur,
    Grayscale,
    KernelBlur,
    Linear,
    Mask,
    Matrix,
    MotionBlur,
    Operator,
    Selection,
    Standardized,
    Tangent,
    compose,
    conjugate_gradients,
)
from tests.operators.conftest import normal

LINEAR = {name: kind for name, kind in OPERATORS.items() if issubclass(kind, Linear)}


@dataclass(frozen=True)
class Differences(Linear):
    """Horizontal differences, as a newcomer writes them: `__call__` alone. One row is repeated, so the rank is low."""

    def __call__(self, x: Tensor) -> Tensor:
        rows = x[..., 1:] - x[..., :-1]
        return torch.cat([rows, rows[..., :1]], dim=-1)


@dataclass(frozen=True)
class Cubes(Operator):
    """Not linear, and nothing more than what it does."""

    def __call__(self, x: Tensor) -> Tensor:
        return x**3


def known(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) < 0.6


@dataclass(frozen=True)
class Decimate(Linear):
    """An operator that changes the size, as a newcomer writes it."""

    def __call__(self, x: Tensor) -> Tensor:
        return x[..., ::2, ::2]

    def size_before(self, size: tuple[int, int]) -> tuple[int, int]:
        return 2 * size[0], 2 * size[1]


SMALL, IMAGE = (2, 3, 4), (3, 8, 12)
CASES: dict[str, tuple[Linear, tuple[int, ...]]] = {
    "mask": (Mask(known(*SMALL)), SMALL),
    "mask broadcast": (Mask(known(1, 3, 4)), SMALL),
    "selection": (Selection(known(*SMALL)), SMALL),
    "wide matrix": (Matrix(normal(7, 24)), SMALL),
    "tall matrix": (Matrix(normal(30, 24)), SMALL),
    "deficient matrix": (Matrix(normal(9, 3) @ normal(3, 24, seed=1)), SMALL),
    "derived": (Differences(), SMALL),
    "tangent": (Cubes().linearized(normal(1, *SMALL, seed=2)), SMALL),
    "box, odd sides": (BoxBlur(3, "circular"), (1, 5, 7)),
    "kernel wider than the torus": (KernelBlur(normal(7, 9).abs(), "circular"), (1, 5, 6)),
    "kernel": (KernelBlur(normal(3, 5).abs(), "reflect"), (1, 5, 6)),
    "outer product": (KernelBlur(torch.outer(normal(3), normal(5, seed=1)), "reflect"), (2, 5, 6)),
    "blur, circular": (GaussianBlur(0.6, "circular"), IMAGE),
    "motion, circular": (MotionBlur(3, 30, "circular"), IMAGE),
    "crop": (Crop(5, 6), IMAGE),
    "bicubic": (Downsample(2, "bicubic"), IMAGE),
    "two": (Composition(Downsample(2), GaussianBlur(0.5)), IMAGE),
    **{f"default {name}": (kind(), IMAGE) for name, kind in LINEAR.items() if name != "blur"},
    "default blur": (GaussianBlur(), (1, 9, 10)),
}
ALL = pytest.mark.parametrize(("operator", "shape"), [pytest.param(*case, id=name) for name, case in CASES.items()])


def dense(operator: Linear, shape: tuple[int, ...]) -> Tensor:
    """The operator's matrix, column by column."""
    size = math.prod(shape)
    inputs = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    return torch.cat([operator(unit[None]).flatten(1) for unit in inputs]).mT


def test_every_operator_is_among_the_cases() -> None:
    written = {c for _, c in inspect.getmembers(operators, inspect.isclass) if issubclass(c, Linear)}
    missing = {c for c in written if not inspect.isabstract(c)} - {type(case) for case, _ in CASES.values()}
    assert not missing, f"add a case for {missing} to CASES"


@ALL
def test_adjoint(operator: Linear, shape: tuple[int, ...]) -> None:
    x = normal(1, *shape)
    y = normal(*operator(x).shape, seed=1)
    adjoint = operator.adjoint(y, x)
    assert adjoint.shape == x.shape
    assert torch.allclose((operator(x) * y).sum(), (x * adjoint).sum(), rtol=1e-11), "<Ax, y> = <x, Aᵀy>"
    assert torch.allclose(adjoint, Linear.adjoint(operator, y, x), rtol=1e-11, atol=1e-13), "the derived one agrees"
    assert torch.allclose(adjoint.flatten(1), y.flatten(1) @ dense(operator, shape), rtol=1e-11, atol=1e-13)
    with torch.no_grad():
        assert torch.equal(operator.adjoint(y, x), adjoint)


@ALL
def test_pseudo_inverse(operator: Linear, shape: tuple[int, ...]) -> None:
    x = normal(1, *shape)
    y = operator(x)
    least = operator.pinv(y, x)
    assert torch.allclose(operator(least), y, rtol=0, atol=1e-6), "A A⁺ A = A"
    if operator.pinv.__func__ is not Linear.pinv:  # type: ignore[attr-defined]
        matrix = dense(operator, shape)
        expected = y.flatten(1) @ torch.linalg.pinv(matrix, rtol=torch.finfo(x.dtype).eps ** 0.5).mT
        assert torch.allclose(least.flatten(1), expected, rtol=0, atol=1e-6), "and of all such x the one of least norm"


@pytest.mark.parametrize("name", ["wide matrix", "tall matrix", "deficient matrix", "derived", "tangent", "two"])
def test_the_derived_pseudo_inverse_has_the_least_norm(name: str) -> None:
    operator, shape = CASES[name]
    x = normal(1, *shape)
    expected = operator(x).flatten(1) @ torch.linalg.pinv(dense(operator, shape)).mT
    assert torch.allclose(Linear.pinv(operator, operator(x), x).flatten(1), expected, rtol=0, atol=1e-6)


def test_an_operator_that_is_not_linear_has_a_tangent() -> None:
    x, u = normal(2, *SMALL), normal(2, *SMALL, seed=1)
    chain = compose(Cubes(), Mask(known(*SMALL)))
    assert torch.allclose(Cubes().linearized(x)(u), 3 * x.square() * u, rtol=1e-12)
    assert torch.allclose(Cubes().vjp(x, u), 3 * x.square() * u, rtol=1e-12)
    tangent = chain.linearized(x)
    assert torch.allclose(tangent(u), torch.where(known(*SMALL), 3 * x.square() * u, 0.0), rtol=1e-12)
    assert torch.allclose(tangent.adjoint(u, x), chain.vjp(x, u), rtol=1e-12)
    assert isinstance(compose(Mask(known(*SMALL)), Differences()), Composition)


SIZED: dict[str, Operator] = {
    **{name: kind() for name, kind in OPERATORS.items()},
    "decimate": Decimate(),
    "mask": Mask(known(1, 20, 24)),
    "selection": Selection(known(3, 20, 24)),
    "kernel": KernelBlur(normal(3, 5).abs()),
    "thirds": Downsample(3, "bicubic"),
    "smaller twice": compose(Decimate(), Downsample(3)),
    "blurred, then smaller": compose(Downsample(2), GaussianBlur(0.5)),
    "smaller, then blurred": compose(GaussianBlur(0.5), Decimate()),
    "chain": compose(Decimate(), compose(JPEG(), compose(Downsample(2), Grayscale()))),
    "tangent": Tangent(Decimate(), normal(1, 3, 20, 24)),
    "standardized": Standardized(compose(JPEG(), Decimate()), 0.4, 0.2),
}


SIZES = {"tangent": [(10, 12)], "mask": [(20, 24)], "selection": [(20, 24)]}


@pytest.mark.parametrize("name", SIZED)
def test_the_size_after_an_operator_tells_the_size_before_it(name: str) -> None:
    operator = SIZED[name]
    for size in SIZES.get(name, [(9, 14), (20, 9)]):
        before = operator.size_before(size)
        made = operator(torch.zeros(1, 3, *before).double())
        assert before == size if name == "selection" else made.shape[-2:] == size


@pytest.mark.parametrize(
    ("operator", "what"),
    [
        (Crop(3, 2), "a crop"),
        (compose(Downsample(2), Crop(4, 4)), "a crop"),
        (Matrix(normal(5, 16)), "a matrix"),
    ],
    ids=["crop", "composition", "matrix"],
)
def test_a_size_that_is_not_known_is_asked_for(operator: Operator, what: str) -> None:
    message = f"^size: must be given, since {what} does not determine the size of the image before it$"
    with pytest.raises(InputError, match=message):
        operator.size_before((3, 2))


def test_conjugate_gradients_solve() -> None:
    root = normal(6, 6)
    matrix, b = root @ root.mT + 0.1 * torch.eye(6, dtype=torch.float64), normal(4, 6, seed=1)
    u, _ = conjugate_gradients(lambda v: v @ matrix, b, iterations=50)
    assert torch.allclose(u, torch.linalg.solve(matrix, b.mT).mT, rtol=1e-8, atol=1e-9)


def test_conjugate_gradients_are_exact_after_as_many_steps_as_eigenvalues() -> None:
    basis, _ = torch.linalg.qr(normal(8, 8))
    matrix = (basis * torch.tensor([1.0, 1, 1, 4, 4, 4, 9, 9]).double()) @ basis.mT
    b = normal(3, 8, seed=1)
    exact = torch.linalg.solve(matrix, b.mT).mT
    errors = [(conjugate_gradients(lambda v: v @ matrix, b, iterations=n).u - exact).norm().item() for n in (1, 2, 3)]
    assert errors[1] > 1e-3 and errors[2] < 1e-12


def test_rows_converge_by_themselves() -> None:
    scales = torch.tensor([1e-6, 1.0, 1e6, 0.0], dtype=torch.float64)
    root = normal(6, 6)
    matrix = root @ root.mT + 0.1 * torch.eye(6, dtype=torch.float64)
    b = normal(1, 6, seed=1) * scales[:, None]
    b[1] = matrix[0] @ matrix
    u, _ = conjugate_gradients(lambda v: v @ matrix, b, iterations=50)
    exact = torch.linalg.solve(matrix, b.mT).mT
    assert torch.equal(u[3], torch.zeros(6, dtype=torch.float64)), "a zero right-hand side"
    assert ((u - exact).norm(dim=1)[:3] < 1e-8 * exact.norm(dim=1)[:3]).all()
    for i in range(4):
        alone, _ = conjugate_gradients(lambda v: v @ matrix, b[i : i + 1], iterations=50)
        assert torch.allclose(alone[0], u[i], rtol=1e-8, atol=0)


def test_the_tolerance_stops_it() -> None:
    root, products = normal(40, 40), []
    matrix, b = root @ root.mT + torch.eye(40, dtype=torch.float64), normal(2, 40, seed=1)

    def apply(v: Tensor) -> Tensor:
        products.append(1)
        return v @ matrix

    u, _ = conjugate_gradients(apply, b, iterations=1000, tolerance=1e-3)
    residual = ((b - u @ matrix).norm(dim=1) / b.norm(dim=1)).max()
    assert 1e-6 < residual < 1.01e-3 and len(products) < 100


@pytest.mark.parametrize("tolerance", [1e-10, 1e-3, 0.5])
def test_what_is_left_is_known(tolerance: float) -> None:
    root, b = normal(12, 12), normal(4, 3, 4, seed=1)
    b[2] = 0
    # A positive definite one, one of a last curvature below 0, and one that is not symmetric.
    for matrix in (root @ root.mT + torch.eye(12).double(), (root + root.mT) / 2 + torch.eye(12).double(), root):

        def apply(v: Tensor, matrix: Tensor = matrix) -> Tensor:
            return (v.flatten(1) @ matrix.mT).reshape(v.shape)

        u, left = conjugate_gradients(apply, b, tolerance=tolerance, asymmetry=0.1)
        assert left.shape == (4, 1, 1) and left[2] == 0
        expected = (b - apply(u)).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
        assert torch.allclose(left.flatten(), expected.nan_to_num(), rtol=1e-6, atol=1e-12)


def test_the_least_residual_is_kept_where_the_matrix_is_not_symmetric() -> None:
    matrix = torch.eye(30, dtype=torch.float64) + 0.9 * normal(30, 30).triu(1)
    b, products = normal(3, 30, seed=1), []

    def apply(v: Tensor) -> Tensor:
        products.append(1)
        return v @ matrix.mT

    u, _ = conjugate_gradients(apply, b, patience=10)
    assert ((b - u @ matrix.mT).norm(dim=1) <= b.norm(dim=1)).all() and len(products) < 500


def test_without_positive_curvature_a_row_keeps_its_solution() -> None:
    b = normal(2, 3)
    factors = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    u, _ = conjugate_gradients(lambda v: factors * v, b, iterations=5)
    assert torch.allclose(u[0], b[0]) and torch.equal(u[1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: conjugate_gradients(lambda v: v, normal(1, 2), iterations=0), "iterations: must be at least 1, got 0")],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_a_matrix_that_is_not_symmetric_is_noticed() -> None:
    root, b = normal(20, 20), normal(3, 20, seed=1)
    matrix = root @ root.mT / 20 + torch.eye(20, dtype=torch.float64)
    exact = torch.linalg.solve(matrix, b.mT).mT
    trusted, _ = conjugate_gradients(lambda v: v @ matrix.mT, b, asymmetry=0.05)
    assert torch.allclose(trusted, exact, rtol=0, atol=1e-8)
    skewed, products = matrix + 2 * (root - root.mT), []

    def apply(v: Tensor) -> Tensor:
        products.append(1)
        return v @ skewed.mT

    stopped, _ = conjugate_gradients(apply, b, asymmetry=0.05)
    assert len(products) < 4 and ((b - stopped @ skewed.mT).norm(dim=1) <= b.norm(dim=1)).all()
