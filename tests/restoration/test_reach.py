"""Whether an operator gives an observation for some example is found in bounded work, against linear algebra."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.operators import BoxBlur, Downsample, GaussianBlur, Grayscale, Linear, Matrix
from diffusion.restoration import reach
from diffusion.restoration.reach import FEWEST, MOST, WHILE, least_missed

ENOUGH = 1e-3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Counted(Linear):
    """A linear operator that counts how often it is applied."""

    operator: Linear
    calls: list[int] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        self.calls.append(1)
        return self.operator(x)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        return self.operator.adjoint(y, like)


def photograph(grain: float) -> Tensor:
    """An image of 48x64 in [0, 1] like clouds, with grain."""
    generator = torch.Generator().manual_seed(0)
    clouds = F.interpolate(torch.rand(1, 3, 6, 8, generator=generator), size=(48, 64), mode="bicubic")
    return (clouds + grain * (torch.rand(1, 3, 48, 64, generator=generator) - 0.5)).clamp(0, 1)


def rounded(y: Tensor) -> Tensor:
    return (255 * y).round() / 255


def share(operator: Linear, y: Tensor, x: Tensor, bounds: tuple[float, float] | None = (0.0, 1.0)) -> float:
    """How much is missed of y, as a share of it."""
    return least_missed(operator, y, x, enough=ENOUGH, bounds=bounds) / float(y.square().mean().sqrt())


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("grain", [0.0, 0.1, 2.0])
@pytest.mark.parametrize(
    "operator",
    [GaussianBlur(1.0), GaussianBlur(2.0), GaussianBlur(5.0), BoxBlur(5), Downsample(2, "bicubic"), Grayscale()],
    ids=str,
)
def test_what_an_image_gives_is_found_in_few_iterations(
    operator: Linear, grain: float, bounds: tuple[float, float] | None
) -> None:
    x = photograph(grain)
    counted = Counted(operator)
    assert share(counted, operator(x), x, bounds) <= ENOUGH
    assert len(counted.calls) <= (170 if grain > 1 else 60), "many for noise alone"


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_a_blurred_photograph_of_8_bits_is_refused_soon(sigma: float) -> None:
    """It takes an hour of iterations to find out for certain how much of the rounding a blur could have made."""
    counted, x = Counted(GaussianBlur(sigma)), photograph(0.1)
    missed = share(counted, rounded(counted.operator(x)), x)
    assert ENOUGH < missed < 2.5e-3 and len(counted.calls) <= 4 * WHILE


def test_what_no_image_in_bounds_gives_is_certain_at_once() -> None:
    """Without bounds the same takes till the iterations stall."""
    blur, x = GaussianBlur(2.0), photograph(0.1)
    y = blur(x) + 0.05 * normal(1, 3, 48, 64).float()
    calls = []
    for bounds in ((0.0, 1.0), None):
        counted = Counted(blur)
        assert share(counted, y, x, bounds) > 10 * ENOUGH
        calls.append(len(counted.calls))
    assert calls[0] < 10 < calls[1] <= MOST


@pytest.mark.parametrize("seed", range(3))
def test_the_least_that_is_missed_is_that_of_least_squares(seed: int) -> None:
    matrix = normal(30, 8, seed=seed) @ normal(8, 20, seed=seed + 10)
    inside, y = matrix @ normal(20, seed=seed + 20), normal(30, seed=seed + 30)
    like = torch.zeros(1, 20)
    assert least_missed(Matrix(matrix), inside[None], like, enough=1e-9) < 1e-9 * float(inside.square().mean().sqrt())
    exact = (y - matrix @ torch.linalg.pinv(matrix) @ y).square().mean().sqrt()
    assert least_missed(Matrix(matrix), y[None], like, enough=1e-9) == pytest.approx(float(exact), rel=1e-6)


def test_what_the_operator_cannot_see_is_missed_whole_and_nothing_is_never_missed() -> None:
    matrix = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    for bounds in (None, (0.0, 1.0)):
        found = least_missed(Matrix(matrix), torch.tensor([[0.0, 3.0]]), torch.zeros(1, 2), enough=1e-3, bounds=bounds)
        assert found == pytest.approx(3 / 2**0.5)
    assert least_missed(Matrix(matrix), torch.zeros(1, 2), torch.zeros(1, 2), enough=1e-3) == 0


@pytest.mark.parametrize(("work", "expected"), [(10**9, MOST), (400, 400), (1, FEWEST)])
def test_large_observations_have_fewer_iterations(work: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here none of them is reached, nor do they stall."""
    monkeypatch.setattr(reach, "WORK", work * 3 * 48 * 64)
    monkeypatch.setattr(reach, "STALLED", 2.0)
    counted = Counted(GaussianBlur(2.0))
    share(counted, rounded(counted.operator(photograph(2.0))), photograph(2.0), None)
    assert len(counted.calls) == expected
