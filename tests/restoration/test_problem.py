"""A problem: in other units, without the zeros of a mask, and whether any example could have been seen so."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
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


def test_the_residual_of_several_examples_is_that_of_all_their_values() -> None:
    x, blur = normal(3, 1, 8, 8), GaussianBlur(0.7)
    problem = Problem(blur, normal(1, 1, 8, 8, seed=1), 0.1)
    missed = float((problem.y - blur(x)).square().mean().sqrt())
    assert float(problem.residual(x)) == pytest.approx(missed / 0.1), "in units of the noise"
    assert float(Problem(blur, problem.y).residual(x)) == pytest.approx(missed)


def test_observations_are_counted_without_what_a_mask_hides() -> None:
    for known in (KNOWN, KNOWN[0], KNOWN.expand(2, 2, 3), torch.tensor(True), torch.tensor([True, False, False])):
        problem = Problem(Mask(known), normal(1, 2, 2, 3))
        assert problem.observations == problem.compact.y.numel() == int(known.expand(2, 2, 3).sum())
    assert Problem(GaussianBlur(0.5), normal(1, 2, 2, 3)).observations == 12


def test_several_problems_side_by_side_have_a_y_each() -> None:
    known = torch.rand(3, 1, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    assert Problem(Mask(known), normal(3, 1, 2, 3), examples=3).examples == 3
    with pytest.raises(ValueError, match=r"^y: must be that of 3 examples, got \(1, 1, 2, 3\)$"):
        Problem(Mask(known), normal(1, 1, 2, 3), examples=3)


def test_observations_are_few_from_one_to_sixteen() -> None:
    for count, few in ((0, False), (1, True), (16, True), (17, False)):
        assert Problem(Mask(torch.arange(20) < count), torch.zeros(1, 20)).few == few
        assert Problem(Matrix(normal(count, 20)), torch.zeros(1, count)).few == few


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


def test_anything_may_be_seen_by_an_operator_that_is_not_linear() -> None:
    Problem(JPEG(40), normal(1, 1, 8, 8)).check_range(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("y", "operator", "noise", "message"),
    [
        (torch.zeros(1, 2, 2), Grayscale(), -0.1, "noise: must be finite, 0 or more, got -0.1"),
        (torch.zeros(1, 2, 2), Grayscale(), math.inf, "noise: must be finite, 0 or more, got inf"),
        (
            torch.zeros(3, 2, 2),
            Grayscale(),
            0.0,
            "y: must be of the shape (1, 2, 2) that the operator makes of (3, 2, 2), got (3, 2, 2)",
        ),
        (
            torch.zeros(1, 2, 2, dtype=torch.uint8),
            Grayscale(),
            0.0,
            "y: must be floating point, white as 1 in images (divide bytes by 255), got torch.uint8",
        ),
        (
            torch.tensor([[[0.0, math.nan], [math.inf, 1.0]]]),
            Grayscale(),
            0.0,
            "y: must be finite, got NaN or infinity in 2 of 4 values",
        ),
        (
            torch.tensor([[[0.0, math.nan], [math.inf, 1.0]]]).expand(3, 2, 2),
            Mask(torch.tensor([[True, False], [True, True]])),
            0.0,
            "image, or y: must be finite where known, got NaN or infinity in 3 of 12 values",
        ),
    ],
)
def test_what_cannot_be_the_y_of_a_problem_is_named(y: Tensor, operator: Operator, noise: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Problem.checked(y, operator, noise, (3, 2, 2))


def test_what_a_mask_hides_may_be_anything() -> None:
    known = torch.tensor([[True, False], [True, True]])
    y = torch.tensor([[[0.5, math.nan], [0.25, 1.0]]])
    problem = Problem.checked(y, Mask(known), 0.0, (1, 2, 2))
    assert problem.y.tolist() == [[[[0.5, 0.0], [0.25, 1.0]]]] and problem.x_shape == (1, 2, 2)


def test_a_mask_that_does_not_fit_the_image_is_named_as_known() -> None:
    with pytest.raises(ValueError, match=r"^known, the "):
        Problem.checked(torch.zeros(1, 2, 2), Mask(torch.ones(5, 5, dtype=torch.bool)), 0.0, (1, 2, 2))
    with pytest.raises(ValueError, match=r"^(?!known)"):
        Problem.checked(torch.zeros(1, 2, 2), Downsample(3), 0.0, (1, 2, 2))


def checked(y: Tensor, operator: Operator, noise: float = 0.05, shape: tuple[int, ...] = (3, 16, 16)) -> Problem:
    return Problem.checked(y, operator, noise, shape, bounds=(0.0, 1.0))


SIGNED = Matrix(normal(20, 768) / 16)
RANGED = [GaussianBlur(1.0), Downsample(2, "bicubic"), Downsample(2), Grayscale(), JPEG(40), SIGNED, Mask(KNOWN.any())]


@pytest.mark.parametrize("operator", RANGED, ids=str)
def test_whatever_an_operator_makes_of_values_in_the_bounds_is_taken(operator: Operator) -> None:
    """Black and white noise rings the most; the noise is strong."""
    generator = torch.Generator().manual_seed(0)
    noise_of_two = torch.rand(1, 3, 16, 16, generator=generator).round()
    for x in (noise_of_two, torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)):
        y = operator(x)[0]
        for noise in (0.05, 0.5):
            noisy = y + noise * torch.randn(y.shape, generator=generator)
            assert checked(noisy, operator, noise).noise == noise


@pytest.mark.parametrize("operator", RANGED, ids=str)
@pytest.mark.parametrize(("scale", "offset"), [(255.0, 0.0), (65535.0, 0.0), (1.0, -400.0)])
def test_values_that_no_example_gives_by_far_are_named(operator: Operator, scale: float, offset: float) -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x[..., :6] = 0
    with pytest.raises(InputError, match=r"y: must be .*in \[0, 1\].*, got -?\d"):
        checked(scale * operator(x)[0] + offset, operator)
    if not isinstance(operator, JPEG | Matrix):
        with pytest.raises(InputError, match=r"got -.*; values in \[-1, 1\] become \(x \+ 1\) / 2"):
            checked(operator(2 * x - 1)[0], operator, 0.01)


def test_the_largest_value_of_a_row_is_that_of_its_positive_weights() -> None:
    """The bounds of a linear operator are exact: 0.5 or so of their distance beyond them is refused, less is not."""
    operator = Matrix(torch.tensor([[2.0, -1.0]]))
    for y, fits in ((3.4, True), (3.6, False), (-2.4, True), (-2.6, False)):
        if fits:
            checked(torch.tensor([y]), operator, 1e-3, (2,))
        else:
            with pytest.raises(InputError, match="y: must be what the operator makes of values in"):
                checked(torch.tensor([y]), operator, 1e-3, (2,))


def test_noise_beyond_the_range_of_what_is_seen_is_named_with_its_cure() -> None:
    y = torch.rand(3, 16, 16)
    for operator in (GaussianBlur(1.0), Mask(KNOWN.any()), JPEG(40)):
        with pytest.raises(InputError, match=r"noise: must be at most \d.*; divide that of bytes by 255, got 25"):
            checked(y, operator, 25)
    total = Matrix(torch.ones(1, 768))
    assert checked(torch.tensor([300.0]), total, 25).noise == 25, "the sum of 768 values may be as noisy as that"


def test_without_bounds_any_value_is_taken() -> None:
    assert Problem.checked(torch.full((3, 8, 8), 300.0), GaussianBlur(1.0), 25, (3, 8, 8)).noise == 25


def test_a_mask_with_which_nothing_is_restored_is_refused() -> None:
    y = torch.rand(1, 2, 3)
    with pytest.raises(InputError, match="known: must be False where something is to be restored, got True everywhere"):
        Problem.checked(y, Mask(KNOWN | True), 0.0, (1, 2, 3))
    with pytest.raises(InputError, match="known: must be True where something is known, got False everywhere"):
        Problem.checked(y, Mask(KNOWN & False), 0.1, (1, 2, 3))
    assert Problem.checked(y, Mask(KNOWN | True), 0.1, (1, 2, 3)).observations == 6
