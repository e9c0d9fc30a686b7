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
from diffusion.restoration.fitting import fit
from diffusion.restoration.methods import Learned
from diffusion.restoration.tiling import Sides, Tiling, starts
from diffusion.restoration.windows import Windows
from diffusion.samplers import SDESolver, prior, sample
from diffusion.schedules import Cosine, Schedule
from tests.oracles import given, short_correlations

WINDOW, IMAGE = (8, 8), (12, 20)
LENGTH = 1.5
TIMES = UniformLogSNR(-10.0, 8.0)(Cosine(), 30)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SMALL, LARGE = (short_correlations(Cosine(), *size, LENGTH) for size in (WINDOW, IMAGE))


def windows(denoiser: AnyDenoiser, size: Sides = IMAGE, *, stride: Sides | None = None, batch: int = 32) -> Windows:
    """All windows of an image."""
    return Windows(denoiser, (Tiling.whole(size, WINDOW, stride),), batch)


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


@dataclass
class Erring:
    """A denoiser that adds an error of its own to each of the windows, (W, C, h, w), that it sees at once."""

    errors: Tensor
    schedule: Schedule = Cosine()

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return Prediction(x_t + self.errors, None)


def test_the_squared_error_of_a_blend_is_at_most_the_mean_of_those_of_its_windows() -> None:
    """At every pixel, as the weights sum to 1 and squares are convex; less where windows err independently."""
    n, truth, t = 60, torch.zeros(60, 1, *IMAGE, dtype=torch.float64), torch.tensor(0.5)
    errors = normal(n * 8, 1, *WINDOW)
    blended = windows(Erring(errors), batch=1000)(truth, t).mean.square()
    # With windows that show the squares of the errors, the blend is their weighted mean.
    mean = windows(Erring(errors.square()), batch=1000)(truth, t).mean
    assert bool((blended <= mean + 1e-12).all())
    middle = blended[..., 4:8, 4:16]  # There windows overlap on both axes.
    assert float(middle.mean()) < 0.7 * float(mean[..., 4:8, 4:16].mean())


def test_one_window_is_the_denoiser_itself_and_labels_and_times_go_with_their_examples() -> None:
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    x, label = normal(2, 1, *WINDOW), torch.tensor([1, 5])
    assert torch.equal(windows(SMALL, WINDOW)(x, t).mean, SMALL(x, t).mean)
    large, watched = normal(2, 1, *IMAGE), Watched(SMALL, [])
    found = windows(watched, batch=5)(large, t, label)
    assert watched.sizes == [5, 5, 5, 1], "two images of 2x4 windows"
    alone = [windows(SMALL)(large[i : i + 1], t[i]).mean + label[i] for i in range(2)]
    assert torch.allclose(found.mean, torch.cat(alone))
    assert found.variance_interp is not None and torch.allclose(found.variance_interp, torch.full_like(large, 0.5))


def test_the_gradient_is_that_of_the_blend_whether_remembered_or_computed_again() -> None:
    x, v, t = normal(1, 1, *IMAGE), normal(1, 1, *IMAGE, seed=1), torch.tensor(0.5, dtype=torch.float64)
    stateful, again = Watched(SMALL, []), Watched(SMALL, [])
    gradients = []
    for blend in (windows(stateful), windows(again, batch=3)):
        leaf = x.clone().requires_grad_()
        mean = blend(leaf, t).mean
        gradients.append(torch.autograd.grad(mean, leaf, v, retain_graph=True)[0])
        assert torch.equal(torch.autograd.grad(mean, leaf, v)[0], gradients[-1]), "another backward pass"
    assert torch.allclose(*gradients, rtol=0, atol=1e-12)
    assert stateful.sizes == [8] and again.sizes == 3 * [3, 3, 2]
    step = 1e-6
    slope = (windows(SMALL)(x + step * v, t).mean - windows(SMALL)(x - step * v, t).mean) / (2 * step)
    w = normal(1, 1, *IMAGE, seed=2)
    leaf = x.clone().requires_grad_()
    back = torch.autograd.grad(windows(SMALL)(leaf, t).mean, leaf, w)[0]
    assert float((slope * w).sum()) == pytest.approx(float((back * v).sum()), rel=1e-6)


@pytest.mark.parametrize("log_snr", [-4.0, -2.0, 0.0, 2.0, 4.0])
def test_windows_come_near_the_exact_denoiser_where_correlations_are_short(log_snr: float) -> None:
    """Their error is compared with that of the exact denoiser itself, both as roots of mean squares."""
    t = Cosine().time(torch.tensor(log_snr, dtype=torch.float64))
    alpha, sigma = Cosine()(t)
    x = LARGE.sample(100, torch.Generator().manual_seed(0))
    x_t = alpha * x + sigma * normal(100, 1, *IMAGE, seed=1)
    exact = LARGE(x_t, t).mean
    error = (windows(SMALL)(x_t, t).mean - exact).square().mean().sqrt() / (x - exact).square().mean().sqrt()
    assert float(error) < 0.05
    # Windows side by side, stitched where they touch, do worse.
    stitched = (windows(SMALL, stride=WINDOW)(x_t, t).mean - exact).square().mean().sqrt()
    assert float(stitched / (x - exact).square().mean().sqrt()) > 1.3 * float(error)


def test_samples_have_no_seam_where_windows_begin() -> None:
    blend = windows(SMALL)
    start = prior(blend, normal(400, 1, *IMAGE), TIMES[0])
    x = sample(blend, SDESolver(), start, TIMES, randn=ExampleNoise(range(400)))
    steps = x.diff(dim=3).abs().mean((0, 1, 2))
    begins = starts(IMAGE[1], WINDOW[1], 4)[1:] - 1
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
    assert isinstance(whole.denoiser, Windows) and whole.problem.shape == (1, *IMAGE) and whole.denoiser.count == 2 * 4
    x = restore(whole.denoiser, whole.problem, normal(n, 1, *IMAGE), TIMES, randn=ExampleNoise(range(n))).x
    z = ((x.flatten(1) - exact.mean.flatten()) / std)[:, hidden]
    # The mean of exact samples would be off by 1 / sqrt(40) = 0.16, their variance right to 2 %.
    assert float(z.mean(0).square().mean().sqrt()) < 0.25
    assert float(z.var(0).mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["hole", "hole in noise", "noise that differs"])
def test_a_large_image_is_restored_by_a_noise_level_for_every_pixel(name: str) -> None:
    """Against the exact posterior of the large image, as above; the denoiser of a window takes maps."""
    known = torch.ones(1, 1, *IMAGE, dtype=torch.bool)
    if name.startswith("hole"):
        known[..., 3:9, 6:15] = False
    noise = torch.zeros(1, 1, *IMAGE, dtype=torch.float64)
    if name != "hole":
        noise += torch.linspace(0.1, 1.5, IMAGE[1], dtype=torch.float64) if name == "noise that differs" else 0.3
    y = LARGE.sample(1, torch.Generator().manual_seed(2)) + noise * normal(1, 1, *IMAGE, seed=3)
    exact = given(LARGE, y, noise, known)
    held = noise if name == "noise that differs" else float(noise.max())
    n, operator = 40, Identity() if known.all() else Mask(known[0])
    whole = fit(SMALL, WINDOW, Problem(operator, y * known, held, (1, *IMAGE)), batch=1000)
    drawn = restore(
        whole.denoiser, whole.problem, normal(n, 1, *IMAGE), TIMES, method=Learned(), randn=ExampleNoise(range(n))
    ).x
    unsure = (~known | (noise > 0)).flatten()
    z = ((drawn.flatten(1) - exact.mean.flatten()) / exact.covariance.diagonal().sqrt())[:, unsure]
    # The mean of exact samples would be off by 1 / sqrt(40) = 0.16.
    assert float(z.mean(0).square().mean().sqrt()) < 0.25
    assert float(z.var(0).mean()) == pytest.approx(1, abs=0.1)
    if name == "hole":
        assert torch.equal(drawn[:, known[0]], y[0][known[0]].expand(n, -1))


def test_each_batch_of_windows_tells_its_share_forward_and_back() -> None:
    shares: list[float] = []
    blend = Windows(SMALL, (Tiling.whole(IMAGE, WINDOW),), 3, shares.append)
    leaf = normal(1, 1, *IMAGE).requires_grad_()
    mean = blend(leaf, torch.tensor(0.5)).mean
    assert shares == [3 / 8, 3 / 8, 2 / 8]
    torch.autograd.grad(mean.sum(), leaf)
    assert shares == 2 * [3 / 8, 3 / 8, 2 / 8]
    Windows(SMALL, (Tiling.whole(IMAGE, WINDOW),), 8, shares.append)(leaf, torch.tensor(0.5))
    assert len(shares) == 6, "one batch is the whole pass"


@pytest.mark.parametrize("batch", [100, 7], ids=["at once", "in batches"])
def test_examples_of_several_tilings_are_estimated_as_each_by_itself(batch: int) -> None:
    """An example with fewer pixels than another is filled up with zeros, which stay zeros and have no gradient."""
    hidden = torch.zeros(14, 18, dtype=torch.bool)
    hidden[3, 2] = hidden[10, 14] = True  # Windows touch them, not what is between.
    thin, places = Tiling.around(hidden, WINDOW)
    small, large = Tiling.whole((9, 8), WINDOW), Tiling.whole((12, 20), WINDOW)
    tilings, t = (small, thin, large), torch.tensor(0.4, dtype=torch.float64)
    assert thin.pixels == len(places) < 14 * 18
    x, v = (normal(6, 2, 240, seed=seed) for seed in (0, 1))
    for row in range(6):
        x[row, :, tilings[row // 2].pixels :] = 0
    leaf = x.clone().requires_grad_()
    mean = Windows(Doubled(), tilings, batch)(leaf, t).mean
    gradient = torch.autograd.grad(mean, leaf, v)[0]
    for row in range(6):
        tiling = tilings[row // 2]
        own = x[row : row + 1, :, : tiling.pixels].clone().requires_grad_()
        alone = Windows(Doubled(), (tiling,), batch)(own, t).mean
        back = torch.autograd.grad(alone, own, v[row : row + 1, :, : tiling.pixels])[0]
        for found, expected in ((mean, alone), (gradient, back)):
            torch.testing.assert_close(found[row : row + 1, :, : tiling.pixels], expected, rtol=0, atol=1e-12)
            assert not found[row, :, tiling.pixels :].any()


@dataclass(frozen=True)
class Doubled:
    """A denoiser of two channels, each of them by `SMALL`; the second is twice what it would be."""

    schedule: Schedule = Cosine()

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        first, second = (SMALL(x_t[:, channel, None], t).mean for channel in (0, 1))
        return Prediction(torch.cat([first, 2 * second], 1))


def test_what_windows_cannot_cover_is_named() -> None:
    for size in ((7, 20), (20, 7)):
        message = rf"image: must be at least 8x8, the size of a window, got \({size[0]}, {size[1]}\)"
        with pytest.raises(ValueError, match=message):
            windows(SMALL, size)
    with pytest.raises(ValueError, match=r"windows: must be given 240 pixels, got \(12, 19\)"):
        windows(SMALL)(normal(1, 1, 12, 19), torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"windows.batch: must be at least 1, got 0"):
        windows(SMALL, batch=0)
