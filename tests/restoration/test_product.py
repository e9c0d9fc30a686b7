"""The product of distributions of 2015 is the Gaussian algebra it says, and is biased."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.grids import UniformLogSNR
from diffusion.operators import Mask, Matrix
from diffusion.restoration.posterior import Jacobian, Posterior
from diffusion.restoration.product import ProductStep
from diffusion.samplers import DDPM, sample
from diffusion.schedules import Cosine
from tests.oracles import affine, correlated

ORACLE = correlated(Cosine(), (3,))
MATRIX = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
Y = torch.tensor([[0.4, -0.3]], dtype=torch.float64)
T, S = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.45, dtype=torch.float64)


@pytest.mark.parametrize(("power", "share"), [("constant", 1.0), ("annealed", 0.55)])
def test_a_step_is_the_product_of_both_gaussians(power: str, share: float) -> None:
    x_t = torch.tensor([[0.3, -0.8, 0.5]], dtype=torch.float64)
    product, noise = ProductStep(Matrix(MATRIX), Y, 0.2, power), iter(torch.eye(6, dtype=torch.float64))  # type: ignore[arg-type]
    reverse = gaussian.reverse(Cosine(), ORACLE(x_t, T).mean, x_t, T, S)
    precision = torch.eye(3, dtype=torch.float64) / reverse.variance + share * MATRIX.mT @ MATRIX / 0.04
    expected = torch.linalg.solve(precision, (reverse.mean / reverse.variance)[0] + share * MATRIX.mT @ Y[0] / 0.04)
    mean = product.step(ORACLE, x_t, T, S, None, torch.zeros_like)[0][0]
    assert torch.allclose(mean, expected, rtol=0, atol=1e-9)
    columns = []
    for unit in noise:
        parts = iter([unit[:3], unit[3:5]])
        columns.append(product.step(ORACLE, x_t, T, S, None, lambda like, parts=parts: next(parts)[None])[0][0] - mean)  # type: ignore[misc]
    spread = torch.stack(columns[:5], 1)
    assert torch.allclose(spread @ spread.mT, torch.linalg.inv(precision), rtol=1e-6, atol=1e-9)


def test_known_pixels_are_overwritten_without_noise() -> None:
    known, y = torch.tensor([True, False, True]), torch.tensor([[0.7, 0.0, -0.2]], dtype=torch.float64)
    x_t = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_s, _ = ProductStep(Mask(known), y).step(ORACLE, x_t, T, S, None, torch.ones_like)
    free, _ = DDPM().step(ORACLE, x_t, T, S, None, torch.ones_like)
    assert torch.allclose(x_s, torch.where(known, y, free), rtol=0, atol=1e-9)


@pytest.mark.parametrize("power", ["constant", "annealed"])
def test_it_is_biased_where_the_posterior_is_not(power: str) -> None:
    exact, times = ORACLE.posterior(MATRIX, Y[0], 0.2), UniformLogSNR()(Cosine(), 100)
    start = Cosine()(times[0])[1] ** 2 * torch.eye(3, dtype=torch.float64)

    def error(run: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]) -> float:
        mean, _ = affine(run, (3,)).moments(torch.zeros(3, dtype=torch.float64), start)
        return float((mean - exact.mean).norm() / exact.mean.norm())

    posterior = Posterior(ORACLE, Matrix(MATRIX), Y, 0.2, Jacobian())
    assert error(lambda x, randn: sample(posterior, DDPM(), x, times, randn=randn)) < 0.02

    def both(like_x: Tensor, randn: Callable[[Tensor], Tensor]) -> Tensor:
        product = ProductStep(Matrix(MATRIX), Y, 0.2, power)  # type: ignore[arg-type]
        # The noise of y adds nothing to the mean.
        return sample(ORACLE, product, like_x, times, randn=lambda x: randn(x) if x.shape[1] == 3 else 0 * x)

    assert error(both) > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProductStep(Matrix(MATRIX), Y, -1.0), "noise: must be 0 or more, got -1.0"),
        (lambda: ProductStep(Matrix(MATRIX), Y, power="x"), "power: must be constant or annealed, got 'x'"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
