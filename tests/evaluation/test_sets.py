"""Sets of examples: which real ones are taken, that batches are the examples in their order, and units from 0 to 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.data import Dataset, DataSpec
from diffusion.evaluation import sets
from diffusion.evaluation.sets import Examples, Scale


def numbered(first: int, count: int, *, margin: int = 0, labels: bool = False) -> Dataset:
    """Images of one pixel, whose value is their number, with a margin of zeros."""
    values = np.arange(first, first + count, dtype=np.uint8)[:, None, None, None]
    values = np.pad(values, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    found = np.arange(count) % 2 if labels else None
    spec = DataSpec((1, 1, 1), 256, ("even", "odd") if labels else ())
    return Dataset(values, spec, found, [str(i) for i in range(count)], margin)


@pytest.mark.parametrize(
    ("held_out", "training", "samples", "expected"),
    [
        (100, 50, 40, (80,)),  # Enough are held out.
        (30, 50, 40, (30, 30)),  # As many training examples join them,
        (70, 50, 40, (70, 10)),  # or as many as are missing,
        (30, 20, 40, (30, 20)),  # or as there are.
        (30, None, 40, (30,)),
        (30, 0, 40, (30,)),
    ],
)
def test_training_examples_join_where_held_out_ones_are_few(
    held_out: int, training: int | None, samples: int, expected: tuple[int, ...]
) -> None:
    others = None if training is None else numbered(100, training)
    found = Examples.real(numbered(0, held_out), others, samples)
    assert tuple(map(len, found.parts)) == expected and len(found) == sum(expected)


def test_batches_are_the_examples_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "BATCH", 4)
    both = Examples((numbered(0, 6, margin=2, labels=True), numbered(50, 7, labels=True)))
    batches = list(both.batches())
    assert [len(batch) for batch in batches] == [4, 4, 4, 1]
    assert torch.equal(torch.cat(batches).flatten() * 255, torch.tensor([*range(6), *range(50, 57)]).float())
    assert both.labels is not None and both.labels.tolist() == [0, 1] * 3 + [0, 1] * 3 + [0]
    assert Examples((numbered(0, 6, labels=True), numbered(50, 7))).labels is None
    assert (both.some(3).flatten() * 255).tolist() == [0, 2, 5]


def test_processes_share_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "BATCH", 4)
    monkeypatch.setattr(sets.distributed, "count", lambda: 2)
    found = []
    for rank in range(2):
        monkeypatch.setattr(sets.distributed, "rank", lambda rank=rank: rank)
        found += list(Examples((numbered(0, 6), numbered(50, 7))).batches(shared=True))
    assert (torch.cat(found).flatten() * 255).tolist() == [*range(6), *range(50, 57)]


def test_samples_are_rounded_as_in_files_and_points_are_left_as_they_are() -> None:
    x = torch.tensor([-0.2, 0.1, 0.5001, 1.3]).view(-1, 1, 1, 1)
    quantized = Scale.of(Examples((numbered(0, 6),)))
    assert torch.equal(quantized(x).flatten(), torch.tensor([0, 26, 128, 255]) / 255) and not quantized.note
    points = Scale(DataSpec((2,), None))
    assert torch.equal(points(x), x) and not points.note


def test_continuous_images_are_mapped_from_the_range_of_the_real_ones() -> None:
    values = np.linspace(-3, 5, 9, dtype=np.float32)[:, None, None, None]
    spec = DataSpec((1, 1, 1), None)
    scale = Scale.of(Examples((Dataset(values, spec, None, [str(i) for i in range(9)]),)))
    x = torch.tensor([-9.0, -3, 1, 5, 7]).view(-1, 1, 1, 1)
    assert scale(x).flatten().tolist() == [0, 0, 0.5, 1, 1]
    assert scale.note == "values: from -3 to 5, those of the real images; samples beyond are clipped"
