"""A problem: in other units, without the zeros of a mask, and whether any example could have been seen so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.operators import JPEG, Downsample, GaussianBlur, Grayscale, Mask, Matrix, Operator
from diffusion.restoration import Problem

KNOWN = torch.tensor([[[True, False, True], [False, False, True]]])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("operator", [GaussianBlur(0.5), Grayscale(), Downsample(2), JPEG(40)], ids=str)
def test_what_was_seen_of_the_model_values_is_what_was_seen_of_the_data(operator: Operator) -> None:
    mean, std, x = 0.45, 0.2, normal(1, 3, 8, 8)
    u = mean + std * x
    seen = Problem(operator, operator(u) + 0.05, 0.1).in_model_units(mean, std, torch.zeros_like(x))
    assert torch.allclose(seen.y, seen.operator(x) + 0.05 / std, rtol=0, atol=1e-12)
    assert seen.noise == pytest.approx(0.1 / std)


def test_the_residual_counts_what_a_mask_shows() -> None:
    x = normal(4, 1, 2, 3)
    seen = Problem(Mask(KNOWN), normal(1, 1, 2, 3, seed=1) * KNOWN)
    assert float(seen.residual(x)) == pytest.approx(float((x - seen.y)[:, KNOWN].square().mean().sqrt()))
    nothing = Problem(Mask(torch.tensor(False)), torch.zeros(1, 1, 2, 3))
    assert float(nothing.residual(x)) == 0 and nothing.compact.y.shape == (1, 0)


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (GaussianBlur(1.5), (1, 16, 16)),
        (GaussianBlur(1.5, "circular"), (1, 16, 16)),
        (Downsample(2, "bicubic"), (3, 8, 8)),
        (Matrix(normal(9, 3) @ normal(3, 6)), (1, 2, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_without_noise_y_must_be_what_an_example_gives(operator: Operator, shape: tuple[int, ...]) -> None:
    like = torch.zeros(1, *shape)
    y = operator(normal(1, *shape).float() if not isinstance(operator, Matrix) else normal(1, *shape))
    Problem(operator, y).check_range(like)
    wrong = y + 0.1 * normal(*y.shape, seed=2).to(y)
    if isinstance(operator, Downsample):
        Problem(operator, wrong).check_range(like)
        return
    with pytest.raises(ValueError, match=r"y: without noise it must be .* misses it by 0\.0\d+ \(root mean square\)"):
        Problem(operator, wrong).check_range(like)
    Problem(operator, wrong, 0.1).check_range(like)
