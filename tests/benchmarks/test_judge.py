"""The Fréchet distance against its closed form, and the judge on shapes that anyone can tell apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from benchmarks import judge
from benchmarks.judge import Images, Judge


def drawn(mean: Tensor, root: Tensor, n: int, seed: int) -> Tensor:
    """Gaussian points whose sample mean and covariance are exactly m and A Aᵀ."""
    z = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = z - z.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(z.T)), z.T, upper=False).T
    return mean + white @ root.T


def test_the_distance_between_gaussians_is_that_of_the_closed_form() -> None:
    """With commuting covariances it is |m - n|² + Σ (√c - √d)²."""
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    stds = torch.tensor([[3.0, 2.0, 1.0, 0.5, 0.1], [1.0, 2.0, 1.5, 0.2, 0.4]], dtype=torch.float64)
    means = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 3.0, 5.0]], dtype=torch.float64)
    a, b = (drawn(m, rotation * s, 400, i) for i, (m, s) in enumerate(zip(means, stds, strict=True)))
    expected = float((means[0] - means[1]).square().sum() + (stds[0] - stds[1]).square().sum())
    assert judge.frechet(a, b) == pytest.approx(expected, rel=1e-9)
    assert judge.frechet(a, a) == pytest.approx(0, abs=1e-6)


def bars(n: int, seed: int) -> Images:
    """A bright row (class 0) or column (class 1) on noise."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 60, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)
    label = torch.arange(n) % 2
    place = torch.randint(0, 28, (n,), generator=generator)
    for image, kind, at in zip(values[:, 0], label, place, strict=True):
        (image if kind == 0 else image.T)[at] = 255
    return Images(values, label)


@pytest.fixture(scope="module")
def trained() -> Iterator[Judge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "BATCH", 20)
        yield judge.train(bars(300, 0), epochs=4)


def test_a_judge_learns_classes(trained: Judge) -> None:
    assert judge.accuracy(trained, bars(200, 1)) > 0.9
    assert trained.features(bars(50, 2).values).shape == (50, judge.FEATURES)


def test_training_always_comes_to_the_same_weights(trained: Judge) -> None:
    values = bars(50, 2).values
    first, second = (judge.train(bars(160, 0), epochs=1).features(values) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, trained.features(values))


def test_the_distance_sees_what_a_set_lacks(trained: Judge) -> None:
    real, fresh = bars(400, 3), bars(400, 4)
    one_class = fresh.values[fresh.label == 0].repeat(2, 1, 1, 1)
    far, near = (judge.frechet(trained.features(x), trained.features(real.values)) for x in (one_class, fresh.values))
    assert far > 20 * near
