"""MMD² against its double sum and against closed forms, and whether it is unbiased."""

from __future__ import annotations

import pytest
import torch

from diffusion.distances import kernel, patches
from diffusion.distances.kernel import KernelDistance, PatchMMD, cubic


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def double_sum(gram: list[list[float]], size: int) -> float:
    """MMD² by the definition, of the first `size` members and the others."""
    total = len(gram)
    first, second = range(size), range(size, total)
    found = 0.0
    for own in (first, second):
        found += sum(gram[i][j] for i in own for j in own if i != j) / (len(own) * (len(own) - 1))
    return found - 2 * sum(gram[i][j] for i in first for j in second) / (len(first) * len(second))


def test_it_is_the_double_sum_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random(9, 4), random(7, 4, seed=1) + 0.5
    rows = torch.cat([a, b])
    gram = [[float((x @ y / 4 + 1) ** 3) for y in rows] for x in rows]
    for block in (2**24, 48, 1):
        monkeypatch.setattr(kernel, "BLOCK", block)
        assert KernelDistance()(a, b) == pytest.approx(double_sum(gram, 9), rel=1e-10)


def test_of_patches_it_is_the_double_sum_over_images(monkeypatch: pytest.MonkeyPatch) -> None:
    distance = PatchMMD(patches=3)
    images = torch.rand(9, 2, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[:4] **= 2
    rows = distance.describe(images)
    levels = patches.normalized(rows)
    assert levels.shape == (2, 9, 3, 98)

    def of_images(i: int, j: int) -> float:
        pairs = [(level[i, p] @ level[j, q] / 98 + 1) ** 3 for level in levels for p in range(3) for q in range(3)]
        return float(sum(pairs)) / len(pairs)

    gram = [[of_images(i, j) for j in range(9)] for i in range(9)]
    for block in (2**24, 1):
        monkeypatch.setattr(kernel, "BLOCK", block)
        assert distance(rows[:4], rows[4:]) == pytest.approx(double_sum(gram, 4), rel=1e-10)


def estimates(shift: float, repeats: int = 4000, size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Unbiased and biased MMD² of small sets of N(shift, 1) and N(0, 1)."""
    a, b = random(repeats * size, 1) + shift, random(repeats * size, 1, seed=1)
    rows = torch.cat([a, b])
    numbers = torch.arange(len(rows)).view(-1, size)
    unbiased = torch.stack(
        [
            rows[:0].new_tensor(KernelDistance()(rows[i], rows[j]))
            for i, j in zip(numbers[:repeats], numbers[repeats:], strict=True)
        ]
    )
    biased = torch.stack(
        [
            cubic(rows[i], rows[i]).mean() + cubic(rows[j], rows[j]).mean() - 2 * cubic(rows[i], rows[j]).mean()
            for i, j in zip(numbers[:repeats], numbers[repeats:], strict=True)
        ]
    )
    return unbiased, biased


def test_it_is_unbiased_and_the_sum_with_equal_members_is_not() -> None:
    """In one dimension (xy + 1)³ = Σ C(3, i) x^i y^i, so MMD² = 3 Δ₁² + 3 Δ₂² + Δ₃² with differences Δ of moments.

    N(m, 1) and N(0, 1) have Δ = m, m², m³ + 3 m.
    """
    for shift in (0.0, 0.7):
        truth = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
        unbiased, biased = estimates(shift, repeats=1500)
        error = float(unbiased.std()) / len(unbiased) ** 0.5
        assert abs(float(unbiased.mean()) - truth) < 3 * error
        assert float(biased.mean()) - truth > 6 * error
