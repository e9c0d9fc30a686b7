"""Windows cover an image evenly, and for data of short correlations they denoise and restore as the exact denoiser of
the whole image does.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.grids import UniformLogSNR
from diffusion.operators import GaussianBlur, Identity, Mask
from diffusion.randomness import ExampleNoise
from diffusion.restoration import Problem, restore
from diffusion.restoration.methods import RePaint
from diffusion.restoration.windows import Segments, Windows, fit, region_to_solve
from diffusion.samplers import SDESolver, prior, sample
from diffusion.schedules import Cosine, Schedule
from tests.oracles import short_correlations

WINDOW, IMAGE = (8, 8), (12, 20)
LENGTH = 1.5
TIMES = UniformLogSNR(-10.0, 8.0)(Cosine(), 30)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SMALL, LARGE = (short_correlations(Cosine(), *size, LENGTH) for size in (WINDOW, IMAGE))


@dataclass
class Watched:
    """A denoiser that notes the sizes of the batches that it sees, and adds its labels and times."""

    denoiser: AnyDenoiser
    sizes: list[int]

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        self.sizes.append(len(x_t))
        mean = self.denoiser(x_t, t).mean
        return Prediction(mean if label is None else mean + label[:, None, None, None], 0.5 * torch.ones_like(mean))


@pytest.mark.parametrize(("length", "side", "stride"), [(8, 8, 4), (9, 8, 4), (20, 8, 4), (31, 7, 3), (30, 5, 5)])
def test_weights_sum_to_one_and_windows_are_spread_evenly(length: int, side: int, stride: int) -> None:
    segments = Segments.of(length, side, stride)
    total = torch.zeros(length, dtype=torch.float64).index_add(
        0, segments.indices.flatten(), segments.weights.flatten()
    )
    assert torch.allclose(total, torch.ones(length, dtype=torch.float64))
    assert segments.indices[0, 0] == 0 and segments.indices[-1, -1] == length - 1 and (segments.weights > 0).all()
    steps = segments.indices[:, 0].diff()
    assert segments.count == 1 or ((steps <= stride).all() and steps.max() - steps.min() <= 1)
    x = normal(2, 3, length, 4)
    assert torch.allclose(segments.blend(segments.cut(x, 2), 2), x)


def test_the_squared_error_of_a_blend_is_at_most_the_mean_of_those_of_its_segments() -> None:
    """At every pixel, as the weights sum to 1 and squares are convex; less where segments err independently."""
    line, truth = Segments.of(20, 8, 4), normal(50, 20)
    errors = normal(50, line.count, 8, seed=1)
    blended = (line.blend(line.cut(truth, 1) + errors, 1) - truth).square()
    mean = line.blend(errors.square(), 1)
    assert bool((blended <= mean + 1e-12).all())
    overlap = slice(4, 16)
    expected = float(line.blend(line.weights[None], 1)[0, overlap].mean())  # Σ m_k², for errors of variance 1
    assert float(blended[:, overlap].mean()) == pytest.approx(expected, rel=0.1) and expected < 0.8


def test_one_window_is_the_denoiser_itself_and_labels_and_times_go_with_their_examples() -> None:
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    x, label = normal(2, 1, *WINDOW), torch.tensor([1, 5])
    assert torch.equal(Windows(SMALL, WINDOW)(x, t).mean, SMALL(x, t).mean)
    large, watched = normal(2, 1, *IMAGE), Watched(SMALL, [])
    found = Windows(watched, WINDOW, batch=5)(large, t, label)
    assert watched.sizes == [5, 5, 5, 1], "two images of 2x4 windows"
    alone = [Windows(SMALL, WINDOW)(large[i : i + 1], t[i]).mean + label[i] for i in range(2)]
    assert torch.allclose(found.mean, torch.cat(alone))
    assert found.variance_interp is not None and torch.allclose(found.variance_interp, torch.full_like(large, 0.5))


def test_the_gradient_is_that_of_the_blend_whether_remembered_or_computed_again() -> None:
    x, v, t = normal(1, 1, *IMAGE), normal(1, 1, *IMAGE, seed=1), torch.tensor(0.5, dtype=torch.float64)
    stateful, again = Watched(SMALL, []), Watched(SMALL, [])
    gradients = []
    for windows in (Windows(stateful, WINDOW), Windows(again, WINDOW, batch=3)):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(windows(leaf, t).mean, leaf, v)[0])
    assert torch.allclose(*gradients, rtol=0, atol=1e-12)
    assert (stateful.sizes == [8] and again.sizes == [3, 3, 2] + 3 * [3]) or sorted(again.sizes) == [2, 2, 3, 3, 3, 3]
    step = 1e-6
    slope = (Windows(SMALL, WINDOW)(x + step * v, t).mean - Windows(SMALL, WINDOW)(x - step * v, t).mean) / (2 * step)
    w = normal(1, 1, *IMAGE, seed=2)
    leaf = x.clone().requires_grad_()
    back = torch.autograd.grad(Windows(SMALL, WINDOW)(leaf, t).mean, leaf, w)[0]
    assert float((slope * w).sum()) == pytest.approx(float((back * v).sum()), rel=1e-6)


@pytest.mark.parametrize("log_snr", [-4.0, -2.0, 0.0, 2.0, 4.0])
def test_windows_come_near_the_exact_denoiser_where_correlations_are_short(log_snr: float) -> None:
    """Their error is compared with that of the exact denoiser itself, both as roots of mean squares."""
    t = Cosine().time(torch.tensor(log_snr, dtype=torch.float64))
    alpha, sigma = Cosine()(t)
    x = LARGE.sample(100, torch.Generator().manual_seed(0))
    x_t = alpha * x + sigma * normal(100, 1, *IMAGE, seed=1)
    exact = LARGE(x_t, t).mean
    error = (Windows(SMALL, WINDOW)(x_t, t).mean - exact).square().mean().sqrt() / (x - exact).square().mean().sqrt()
    assert float(error) < 0.05
    # Windows side by side, stitched where they touch, do worse.
    stitched = (Windows(SMALL, WINDOW, stride=WINDOW)(x_t, t).mean - exact).square().mean().sqrt()
    assert float(stitched / (x - exact).square().mean().sqrt()) > 1.3 * float(error)


def test_samples_have_no_seam_where_windows_begin() -> None:
    windows = Windows(SMALL, WINDOW)
    start = prior(windows, normal(400, 1, *IMAGE), TIMES[0])
    x = sample(windows, SDESolver(), start, TIMES, randn=ExampleNoise(range(400)))
    steps = x.diff(dim=3).abs().mean((0, 1, 2))
    begins = Segments.of(IMAGE[1], WINDOW[1], 4).indices[1:, 0] - 1
    elsewhere = torch.ones(len(steps), dtype=torch.bool).index_fill(0, begins, False)
    assert float(steps[begins].mean() / steps[elsewhere].mean()) == pytest.approx(1, abs=0.03)
    assert float(x.var()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["hole", "blur"])
def test_a_large_image_is_restored_as_by_the_exact_denoiser(name: str) -> None:
    known = torch.ones(1, *IMAGE, dtype=torch.bool)
    known[:, 3:9, 6:15] = False
    operator = Mask(known) if name == "hole" else GaussianBlur(1.0)
    noise, n = 0.2, 40
    y = operator(LARGE.sample(1, torch.Generator().manual_seed(2)))
    y = operator(y) if name == "hole" else y + noise * normal(*y.shape, seed=3)
    matrix = operator(torch.eye(240, dtype=torch.float64).reshape(240, 1, *IMAGE)).flatten(1).mT
    exact = LARGE.posterior(matrix, y.flatten(), noise)
    std = exact.covariance.diagonal().sqrt()
    hidden = ~known.flatten() if name == "hole" else slice(None)
    whole = fit(SMALL, WINDOW, Problem(operator, y, noise, (1, *IMAGE)), batch=1000)
    assert isinstance(whole.denoiser, Windows) and whole.problem.shape == (1, *IMAGE) and whole.windows == 2 * 4
    x = restore(whole.denoiser, whole.problem, normal(n, 1, *IMAGE), TIMES, randn=ExampleNoise(range(n))).x
    z = ((x.flatten(1) - exact.mean.flatten()) / std)[:, hidden]
    # The mean of exact samples would be off by 1 / sqrt(40) = 0.16, their variance right to 2 %.
    assert float(z.mean(0).square().mean().sqrt()) < 0.25
    assert float(z.var(0).mean()) == pytest.approx(1, abs=0.1)


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
        and whole.windows == 1
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


@pytest.mark.parametrize("size", [WINDOW, (9, 8), (8, 9), (12, 20)])
def test_an_image_as_large_as_a_window_or_larger_has_no_margin(size: tuple[int, int]) -> None:
    problem = Problem(GaussianBlur(1.0), normal(1, 1, *size), shape=(1, *size))
    whole = fit(SMALL, WINDOW, problem)
    assert whole.problem is problem and isinstance(whole.crop, Identity)
    assert (whole.denoiser is SMALL) == (whole.windows == 1) == (size == WINDOW)


def test_only_what_windows_of_the_hole_see_is_looked_at() -> None:
    known = torch.ones(1, 30, 40, dtype=torch.bool)
    known[0, 10:12, 35] = known[0, 9, 37] = False
    y = normal(1, 1, 30, 40)
    place, local = region_to_solve(Problem(Mask(known), y, shape=(1, 30, 40)), WINDOW)
    assert place == (..., slice(2, 19), slice(28, 40)), "7 pixels beyond the hole, and no more than there are"
    assert local.shape == (1, 17, 12)
    assert isinstance(local.operator, Mask) and torch.equal(local.operator.known, known[:, 2:19, 28:])
    assert torch.equal(local.y, y[..., 2:19, 28:])
    shape = (1, 30, 40)
    for problem in (Problem(Mask(known), y, 0.1, shape), Problem(GaussianBlur(1.0), y, shape=shape)):
        assert region_to_solve(problem, WINDOW) == ((...,), problem), "known pixels are to be restored as well"
    assert region_to_solve(Problem(Mask(~known), y, shape=shape), WINDOW).problem.shape == shape
    shown = region_to_solve(Problem(Mask(torch.tensor(True)), y, shape=shape), WINDOW)
    assert shown.problem.shape == (1, *WINDOW), "nothing is hidden"
    narrow = region_to_solve(Problem(Mask(known[:, :, 30:]), y[..., 30:], shape=(1, 30, 10)), WINDOW)
    assert narrow.place == (..., slice(2, 19), slice(0, 10))


def test_the_region_reaches_a_window_of_its_own_height_and_width() -> None:
    known = torch.ones(1, 30, 40, dtype=torch.bool)
    known[0, 12, 20] = False
    found = region_to_solve(Problem(Mask(known), normal(1, 1, 30, 40), shape=(1, 30, 40)), (8, 4))
    assert found.place == (..., slice(5, 20), slice(17, 24)), "7 rows and 3 columns around the hole"


def test_what_windows_cannot_cover_is_named() -> None:
    with pytest.raises(ValueError, match=r"image: must be at least 8x8, the size of a window, got \(7, 20\)"):
        Windows(SMALL, WINDOW)(normal(1, 1, 7, 20), torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"image: must be at least 8x8, the size of a window, got \(20, 7\)"):
        Windows(SMALL, WINDOW)(normal(1, 1, 20, 7), torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"windows.stride: must be between 1 and the size \(8, 8\), got \(0, 4\)"):
        Windows(SMALL, WINDOW, stride=(0, 4))
    with pytest.raises(ValueError, match=r"windows.stride: must be between 1 and the size \(8, 8\), got \(9, 4\)"):
        Windows(SMALL, WINDOW, stride=(9, 4))
    with pytest.raises(ValueError, match=r"windows.batch: must be at least 1, got 0"):
        Windows(SMALL, WINDOW, batch=0)
