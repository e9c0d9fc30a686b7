from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from diffusion.data import augment, crops_and_flips


def coordinates(batch: int, height: int, width: int) -> Tensor:
    """Images (B, 2, H, W) whose pixels hold their own row and column."""
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid).expand(batch, 2, height, width).to(torch.uint8)


def test_every_offset_and_side_is_equally_likely_and_nothing_else_happens() -> None:
    n, margin = 9000, 1
    cut = augment(coordinates(n, 5, 6), crops_and_flips(range(n), margin), flip=True, margin=margin)
    assert cut.shape == (n, 2, 3, 4)
    counts: Counter[tuple[int, int, bool]] = Counter()
    for rows, columns in cut.tolist():
        top, left, flipped = rows[0][0], min(columns[0]), columns[0][0] > columns[0][1]
        expected = list(range(left, left + 4))
        assert [row[0] for row in rows] == list(range(top, top + 3))
        assert columns[0] == (expected[::-1] if flipped else expected)
        counts[top, left, flipped] += 1
    assert len(counts) == 18
    assert all(abs(count - 500) < 5 * 500**0.5 for count in counts.values())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_image_does_not_depend_on_its_batch(dtype: torch.dtype) -> None:
    values = torch.randint(0, 256, (8, 3, 12, 12), generator=torch.Generator().manual_seed(0)).to(dtype)
    seeds = [7, 1, 7, 2**62, 0, 3, 4, 5]
    together = augment(values, crops_and_flips(seeds, 2), flip=True, margin=2)
    assert together.dtype == dtype
    for i in range(8):
        alone = augment(values[i : i + 1], crops_and_flips(seeds[i : i + 1], 2), flip=True, margin=2)
        assert torch.equal(alone[0], together[i])


def test_without_flip_and_margin_nothing_changes() -> None:
    values = coordinates(16, 4, 4)
    cut = augment(values, crops_and_flips(range(16), 0), flip=False, margin=0)
    assert torch.equal(cut, values)
    assert cut.data_ptr() != values.data_ptr()


def test_the_draws_of_a_seed_never_change() -> None:
    draws = crops_and_flips([0, 1, 2**62, 7], 2)
    assert draws.dtype == torch.int64 and draws.tolist() == [[0, 0, 0, 2], [0, 3, 0, 1], [1, 1, 1, 0]]
    assert torch.equal(crops_and_flips([0, 1, 2**62, 7], 0)[:2], torch.zeros(2, 4, dtype=torch.int64))


def test_errors() -> None:
    values = coordinates(2, 4, 4)
    with pytest.raises(ValueError, match="3 draws were given for a batch of 2"):
        augment(values, crops_and_flips(range(3), 0), flip=True, margin=0)
    for margin in (-1, 2):
        with pytest.raises(ValueError, match=rf"data\.margin: .*got {margin}"):
            augment(values, crops_and_flips(range(2), 0), flip=True, margin=margin)
