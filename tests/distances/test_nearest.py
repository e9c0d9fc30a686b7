"""The nearest and second nearest images are those of comparing all, and few are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffusion.distances import nearest
from diffusion.distances.nearest import Index, Neighbors, alone, variations


def smooth(n: int, seed: int, side: int = 10) -> Tensor:
    """Images (n, 2, side, side) with few degrees of freedom and a little noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 2, 3, 3, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
    return (fine + 0.02 * torch.randn(fine.shape, generator=generator)).clamp(0, 1)


class Stored:
    """Images that count how many of them are read."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.count = images, 0

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        self.count += len(numbers)
        return self.images[torch.as_tensor(numbers)]


def all_distances(x: Tensor, images: Tensor) -> Tensor:
    """The distances of one query, with its variations written out, to all images: (N,) float64."""
    shifted = []
    for mirrored in (x, x.flip(-1)):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                rows = (torch.arange(x.shape[-2]) - down).clamp(0, x.shape[-2] - 1)
                columns = (torch.arange(x.shape[-1]) - right).clamp(0, x.shape[-1] - 1)
                shifted.append(mirrored[:, rows][:, :, columns])
    pairs = torch.stack(shifted).double()[:, None] - images.double()[None]
    return pairs.flatten(2).square().sum(2).sqrt().amin(0)


@pytest.mark.parametrize(("axes", "values"), [(3, None), (64, None), (200, None), (64, 5 * 200)])
def test_the_two_nearest_are_those_of_comparing_all_to_a_trillionth(
    axes: int, values: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few `values` read at once, as of large images, too."""
    if values is not None:
        monkeypatch.setattr(nearest, "CHUNK_VALUES", values)
        monkeypatch.setattr(nearest, "SAMPLE_VALUES", 10 * values)
    images = smooth(900, 0)
    images[17], images[400] = images[3], images[3].flip(-1)
    queries = torch.cat([smooth(20, 1), images[3:4], images[50:54] + 0.001])
    found = Index.of(Stored(images), 900, axes=axes).neighbors(queries, len(queries))
    for x, numbers, distances in zip(queries, found.numbers, found.distances, strict=True):
        expected = all_distances(x, images)
        order = expected.argsort(stable=True)[:2]
        assert torch.equal(numbers, order)
        torch.testing.assert_close(distances, expected[order], rtol=1e-12, atol=1e-12)
    assert found.numbers[20].tolist() == [3, 17] and found.distances[20].tolist() == [0, 0], "the lower number first"


def test_bounds_are_below_the_distances_and_tight_with_many_axes() -> None:
    images, queries = smooth(300, 0), smooth(20, 1)
    gaps = []
    for axes in (2, 16, 200):
        index = Index.of(Stored(images), 300, axes=axes)
        lower = torch.stack([index.bounds(variations(x[None])[0].flatten(1).double() - index.mean) for x in queries])
        exact = torch.stack([all_distances(x, images).square() for x in queries])
        assert (lower <= exact).all()
        gaps.append(float((exact - lower).mean() / exact.mean()))
    assert gaps[0] > 0.1 > gaps[1] > 1e-4 > gaps[2]


def test_few_images_are_looked_at() -> None:
    read, queries = Stored(smooth(4000, 0)), smooth(25, 1)
    index = Index.of(read, 4000)
    read.count = 0
    index.neighbors(queries, 25)
    assert read.count <= 25 * 64, "of 100,000 pairs"


def test_variations_are_mirrored_and_shifted_with_the_edge_repeated() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    varied = variations(x)
    assert varied.shape == (1, 18, 1, 3, 4) and torch.equal(varied[:, 0], x)
    expected = torch.tensor([[[4.0, 4, 5, 6], [8, 8, 9, 10], [8, 8, 9, 10]]])  # One up, one to the right.
    assert any(torch.equal(v, expected) for v in varied[0]) and any(
        torch.equal(v, expected.flip(-1)) for v in varied[0]
    )
    assert len({tuple(v.flatten().tolist()) for v in varied[0]}) == 18
    assert variations(x, shift=2).shape[1] == 50 and variations(x, shift=0, flip=False).shape[1] == 1
    assert torch.equal(variations(torch.ones(5, 2)), torch.ones(5, 1, 2)), "points have none"


@pytest.mark.parametrize("shift", [1, 2])
def test_a_mirrored_and_shifted_image_is_found_at_its_place(shift: int) -> None:
    images = smooth(200, 0)
    moved = images[70].flip(-1).roll((shift, -shift), (-2, -1))[None]
    found = Index.of(Stored(images), 200).nearest(moved[0], lambda x: variations(x, shift=shift))
    plain = Index.of(Stored(images), 200).nearest(moved[0], alone)
    assert found[0][0] == 70 and plain[1][0] == pytest.approx(float((moved - images).flatten(1).norm(dim=1).min()))
    assert found[1][0] < 0.7 * found[1][1]


def test_copies_of_the_nearest_are_not_the_second_nearest() -> None:
    images = smooth(300, 0)
    generator = torch.Generator().manual_seed(2)
    images[100:290] = images[5] + 0.001 * torch.randn(190, *images[5].shape, generator=generator)
    images[50] = images[5].flip(-1)
    x = images[5] + 0.002 * torch.randn(images[5].shape, generator=generator)
    index = Index.of(Stored(images), 300)
    (first, second), (near, far) = index.nearest(x, same=0.1)
    others = [i for i in range(300) if i not in (5, 50) and not 100 <= i < 290]
    expected = all_distances(x, images[others])
    assert first in (5, 50, *range(100, 290)) and near < 0.05
    assert second == others[int(expected.argmin())] and far == pytest.approx(float(expected.min()), rel=1e-12)
    numbers, _ = index.nearest(x)
    assert numbers[1] in (5, 50, *range(100, 290)), "unless copies are asked for"


def test_where_there_is_no_second_it_is_infinitely_far() -> None:
    flat = torch.full((40, 1, 4, 4), 0.5)
    for count in (1, 40):
        found = Index.of(Stored(flat), count).neighbors(flat[:2] + 0.25, 2, same=0.0)
        assert found.numbers.tolist() == [[0, -1]] * 2 and found.distances.tolist() == [[1.0, torch.inf]] * 2
        assert found.ratios.tolist() == [0, 0]
    both = Neighbors(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [1.0, 4.0]], dtype=torch.float64))
    assert both.ratios.tolist() == [0, 0.25]


def test_points_are_compared_as_they_are() -> None:
    points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(10, 2, generator=torch.Generator().manual_seed(1))
    found = Index.of(Stored(points), 500).neighbors(queries, 10)
    distances, numbers = (queries[:, None] - points).double().norm(dim=2).topk(2, largest=False)
    assert torch.equal(found.numbers, numbers)
    torch.testing.assert_close(found.distances, distances, rtol=1e-6, atol=1e-9)
