"""A problem and a denoiser are fitted to each other: an image smaller than a window has margins, another has none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.grids import UniformLogSNR
from diffusion.operators import GaussianBlur, Identity, Mask, Operator
from diffusion.randomness import ExampleNoise
from diffusion.restoration import Problem, restore
from diffusion.restoration.fitting import count, fit
from diffusion.restoration.methods import Learned, RePaint
from diffusion.restoration.tiling import Tiling
from diffusion.schedules import Cosine
from tests.oracles import given, short_correlations

WINDOW, LENGTH = (8, 8), 1.5
TIMES = UniformLogSNR(-10.0, 8.0)(Cosine(), 30)
SMALL = short_correlations(Cosine(), *WINDOW, LENGTH)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("operator", ["mask", "blur"])
def test_a_smaller_image_is_the_middle_of_a_larger_one(operator: str) -> None:
    size, noise = (5, 8), 0.1
    small = short_correlations(Cosine(), *size, LENGTH)
    damage = Mask(torch.rand(1, *size, generator=torch.Generator().manual_seed(1)) < 0.5)
    chosen = damage if operator == "mask" else GaussianBlur(0.5)
    y = chosen(small.sample(1, torch.Generator().manual_seed(3)))
    matrix = chosen(torch.eye(40, dtype=torch.float64).reshape(40, 1, *size)).flatten(1).mT
    exact = small.posterior(matrix, y.flatten(), noise)
    whole = fit(SMALL, WINDOW, Problem(chosen, y, noise, (1, *size)))
    assert (
        whole.problem.shape == (1, *WINDOW)
        and count(Problem(chosen, y, noise, (1, *size)), WINDOW) == 1
        and isinstance(whole.problem.operator, Mask) == (operator == "mask")
    )
    x = restore(whole.denoiser, whole.problem, normal(200, 1, *WINDOW), TIMES, randn=ExampleNoise(range(200))).x
    cropped = whole.crop(x)
    assert cropped.shape == (200, 1, *size)
    std = exact.covariance.diagonal().sqrt()
    z = (cropped.flatten(1) - exact.mean.flatten()) / std
    assert float(z.mean(0).square().mean().sqrt()) < 0.15 and float(z.var(0).mean()) == pytest.approx(1, abs=0.1)
    if operator == "mask":
        repainted = restore(
            whole.denoiser, whole.problem, normal(3, 1, *WINDOW), TIMES, method=RePaint(2), randn=ExampleNoise(range(3))
        ).x
        assert torch.allclose(whole.crop(repainted)[:, damage.known], y[:, damage.known].expand(3, -1), atol=0.05)


@pytest.mark.parametrize("name", ["mask", "mask in noise", "noise that differs"])
def test_a_smaller_image_is_restored_by_a_noise_level_for_every_pixel(name: str) -> None:
    size, n = (5, 6), 200
    small = short_correlations(Cosine(), *size, LENGTH)
    known = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1)) < (1 if "differs" in name else 0.5)
    noise = torch.zeros(1, 1, *size, dtype=torch.float64)
    if name != "mask":
        noise += torch.linspace(0.1, 1.5, size[1], dtype=torch.float64) if "differs" in name else 0.3
    y = small.sample(1, torch.Generator().manual_seed(3)) + noise * normal(1, 1, *size, seed=2)
    exact = given(small, y, noise, known)
    operator: Operator = Identity() if known.all() else Mask(known[0])
    held = noise if "differs" in name else float(noise.max())
    whole = fit(SMALL, WINDOW, Problem(operator, y * known, held, (1, *size)))
    assert whole.problem.by_pixel and whole.problem.observations == int(known.sum()), "nothing is known of the margin"
    start = normal(n, 1, *WINDOW)
    x = restore(whole.denoiser, whole.problem, start, TIMES, method=Learned(), randn=ExampleNoise(range(n))).x
    unsure = (~known | (noise > 0)).flatten()
    std = exact.covariance.diagonal().sqrt()
    z = ((whole.crop(x).flatten(1) - exact.mean.flatten()) / std)[:, unsure]
    # The mean of exact samples would be off by 1 / sqrt(200) = 0.07.
    assert float(z.mean(0).square().mean().sqrt()) < 0.12 and float(z.var(0).mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", [WINDOW, (9, 8), (8, 9), (12, 20)])
def test_an_image_as_large_as_a_window_or_larger_has_no_margin(size: tuple[int, int]) -> None:
    problem = Problem(GaussianBlur(1.0), normal(1, 1, *size), shape=(1, *size))
    whole = fit(SMALL, WINDOW, problem)
    assert whole.problem is problem and isinstance(whole.crop, Identity)
    assert (whole.denoiser is SMALL) == (count(problem, WINDOW) == 1) == (size == WINDOW)


def test_windows_are_counted_with_margins_and_on_tilings() -> None:
    for size, windows in (((8, 8), 1), ((3, 5), 1), ((3, 20), 4), ((12, 20), 8)):
        assert count(Problem(GaussianBlur(1.0), normal(1, 1, *size), shape=(1, *size)), WINDOW) == windows
    problem = Problem(GaussianBlur(1.0), normal(1, 1, 12, 20), shape=(1, 12, 20))
    assert count(problem, WINDOW, Tiling.whole((9, 8), WINDOW)) == 2
    assert count(Problem(GaussianBlur(1.0), normal(1, 5), shape=(5,)), ()) == 1, "points"
