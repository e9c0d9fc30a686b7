"""Maps of noise are checked, and what the channels of a pixel were seen in becomes the noise that they share."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.operators import GaussianBlur, Identity, Mask
from diffusion.restoration import Problem
from diffusion.restoration.noise_maps import MANY, checked, most, relative, shared

ALL = torch.ones((), dtype=torch.bool)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_added_to_the_better_channels_leaves_all_with_the_noise_of_the_worst() -> None:
    """And nothing of what was seen but that: y + what is added has the variance of the worst, independent of y."""
    x, sigma = torch.full((1, 3, 200, 200), 0.5), torch.tensor([0.0, 0.05, 0.1]).reshape(1, 3, 1, 1)
    noise = sigma.expand(1, 3, 200, 200).clone()
    noise[..., :100] *= 2
    y = x + noise * normal(*x.shape, seed=5)
    found, level = shared(y, noise, ALL)
    assert isinstance(level, Tensor) and level.shape == (1, 1, 200, 200)
    assert torch.equal(level[0, 0, 0, [0, 199]], torch.tensor([0.2, 0.1]))
    z = (found - x) / level
    # 20,000 values on either side: a standard deviation is known to 0.5 %.
    assert z.square().mean((2, 3)).sqrt().sub(1).abs().max() < 0.02
    correlation = torch.corrcoef(z[0].flatten(1)) - torch.eye(3)
    assert correlation.abs().max() < 0.02
    assert torch.equal(found[:, 2], y[:, 2]), "nothing is added to the worst"
    assert torch.equal(shared(y, noise, ALL)[0], found), "the same at every time"


def test_a_map_of_many_values_is_raised_to_few_by_half_a_percent() -> None:
    x, noise = torch.full((1, 1, 200, 200), 0.5), torch.rand(1, 1, 200, 200, generator=torch.Generator().manual_seed(1))
    noise[..., :10] = 0
    found, level = shared(x + noise * normal(*x.shape, seed=2), noise, ALL)
    assert isinstance(level, Tensor) and len(level.unique()) < 2000 < MANY < len(noise.unique())
    assert bool((level >= noise).all()) and bool((level <= 2 ** (1 / 128) * noise * (1 + 1e-6)).all())
    seen = level > 0
    assert torch.equal(seen, noise > 0) and torch.equal(found[~seen], x[~seen])
    assert float(((found - x)[seen] / level[seen]).square().mean().sqrt()) == pytest.approx(1, abs=0.01)


def test_a_map_of_one_value_is_a_number_and_hidden_pixels_have_no_part_in_it() -> None:
    y, known = normal(1, 2, 4, 4), torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    noise = torch.where(known, 0.25, 7.0).expand(1, 2, 4, 4)
    assert shared(y, noise, known)[1] == 0.25
    assert shared(y, torch.where(known, 0.0, 7.0).expand(1, 2, 4, 4), known)[1] == 0.0
    mixed = torch.where(torch.arange(4) < 2, 0.0, noise)
    found, level = shared(y, mixed, known)
    assert isinstance(level, Tensor) and not level[0, 0][~known].any() and not level[..., :2].any()
    assert torch.equal(found, y) and most(level) == 0.25 and most(0.5) == 0.5


def test_points_have_a_level_for_each_coordinate() -> None:
    y, noise = normal(1, 3), torch.tensor([[0.0, 0.1, 0.2]])
    found, level = shared(y, noise, torch.tensor([True, True, False]))
    assert torch.equal(found, y) and torch.equal(level, torch.tensor([[0.0, 0.1, 0.0]]))  # type: ignore[arg-type]


def test_what_was_missed_is_told_in_units_of_the_noise() -> None:
    missed = torch.tensor([[1.0, 2.0, 3.0]])
    assert relative(missed, 0.5).tolist() == [2.0, 4.0, 6.0] and relative(missed, 0.0).tolist() == [1.0, 2.0, 3.0]
    assert relative(missed, torch.tensor([[0.5, 0.0, 2.0]])).tolist() == [2.0, 1.5]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (torch.ones(4, 5), "noise: must be a number, or a map that broadcasts against (2, 4, 4), got one of the shape"),
        (torch.ones(4, 4).byte(), "noise: must be a number, or a map of floats in units of the data, got torch.uint8"),
        (torch.eye(4) - 0.5, "noise: must be finite, 0 or more, everywhere, got another value at 24 of 32 places"),
        (torch.eye(4) * math.nan, "noise: must be finite, 0 or more, everywhere, got another value at 32 of 32 places"),
        (math.inf * torch.ones(1), "noise: must be finite, 0 or more, everywhere, got another value at 32 of 32"),
    ],
)
def test_what_is_no_map_of_noise_is_named(noise: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        checked(noise, (2, 4, 4))


def test_a_problem_with_a_map_is_checked_scaled_and_compared_by_the_pixel() -> None:
    x, noise = torch.full((2, 4, 4), 0.5), torch.full((4, 4), 0.1)
    noise[0] = 0.0
    noise[1] = 0.2
    known = torch.ones(4, 4, dtype=torch.bool)
    known[3] = False
    y = x + noise * torch.tensor([-1.0, 1.0]).reshape(2, 1, 1)
    problem = Problem.checked(y, Mask(known), noise, (2, 4, 4), bounds=(0.0, 1.0))
    assert isinstance(problem.noise, Tensor) and problem.noise.shape == (1, 1, 4, 4) and problem.noisy
    assert problem.noise[0, 0, :, 0].tolist() == pytest.approx([0.0, 0.2, 0.1, 0.0])
    scaled = problem.in_model_units(0.5, 0.25, torch.zeros(1, 2, 4, 4))
    assert torch.allclose(scaled.noise, problem.noise / 0.25)  # type: ignore[arg-type]
    assert float(problem.residual(x[None])) == pytest.approx(1), "exact pixels do not count"
    assert problem.compact.noise.shape == problem.compact.y.shape == (1, 24)  # type: ignore[union-attr]
    exact = Problem.checked(y, Mask(known), torch.zeros(1), (2, 4, 4), bounds=(0.0, 1.0))
    assert exact.noise == 0.0 and not exact.noisy
    assert Problem.checked(y, Identity(), noise, (2, 4, 4)).noisy


def test_values_out_of_bounds_are_told_by_their_own_noise() -> None:
    """Those that are known exactly have no margin; those in noise one of six standard deviations, and half the span."""
    noise = torch.tensor([[0.0, 0.1, 0.3]])
    known = torch.ones(1, 3, dtype=torch.bool)

    def fits(*values: float) -> bool:
        try:
            Problem.checked(torch.tensor([[values]]), Mask(known), noise[None], (1, 1, 3), bounds=(0.0, 1.0))
        except InputError as error:
            assert "image, or y: must be in [0, 1] where known, got" in str(error)
            return False
        return True

    assert fits(1.0, 2.0, 3.2) and fits(0.0, -1.0, -2.2)
    assert not fits(1.1, 0.5, 0.5) and not fits(0.5, 2.2, 0.5) and not fits(0.5, 0.5, 3.4)
    assert not fits(-0.1, 0.5, 0.5) and not fits(0.5, -1.2, 0.5) and not fits(0.5, 0.5, -2.4)


def test_maps_are_for_what_shows_pixels() -> None:
    noise = torch.rand(8, 8)
    channels = Mask(torch.tensor([True, False, True]).reshape(3, 1, 1))
    for operator in (GaussianBlur(1.0), channels):
        with pytest.raises(InputError, match="noise: must be a number where y does not show pixels themselves"):
            Problem.checked(torch.rand(3, 8, 8), operator, noise, (3, 8, 8))
    with pytest.raises(InputError, match=r"noise: must be at most 1 for values in \[0, 1\]; .*, got 2"):
        Problem.checked(torch.rand(3, 8, 8), Identity(), 2 * torch.eye(8), (3, 8, 8), bounds=(0.0, 1.0))
    with pytest.raises(InputError, match=r"noise: must be a map of the pixels of y \(1, 3, 8, 8\), got \(8, 8\)"):
        Problem(Identity(), torch.rand(1, 3, 8, 8), noise)
    with pytest.raises(InputError, match="noise: must be 0 or more, got -1"):
        Problem(Identity(), torch.rand(1, 3, 8, 8), -torch.ones(1, 1, 8, 8))
