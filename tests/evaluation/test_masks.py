"""Which part of the examples is measured, from the masks of a dataset."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.data import Dataset, DataSpec
from diffusion.errors import InputError
from diffusion.evaluation.masks import UNMASKED, Masks, part_to_measure, said_of_part

SPEC = DataSpec((1, 2, 2), 256)
SEEN = np.array([[[0, 255], [1, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 0]]], dtype=np.uint8)[:, None]
IMAGES = Dataset(np.zeros((3, 1, 2, 2), dtype=np.uint8), SPEC, None, ["a", "b", "c"], seen=SEEN)


def test_what_has_been_seen_is_read_without_margin() -> None:
    around = np.pad(SEEN, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1)
    values = np.zeros((3, 1, 4, 4), dtype=np.uint8)
    wide = Dataset(values, SPEC, None, ["a", "b", "c"], margin=1, seen=around)
    for dataset in (IMAGES, wide):
        found = dataset.seen_pixels([1, 0])
        assert found is not None and torch.equal(found, torch.from_numpy(SEEN[[1, 0]]) != 0)
    whole = Dataset(values, SPEC, None, ["a", "b", "c"], margin=1)
    assert whole.seen_pixels([0]) is None and part_to_measure(whole, None) is whole


def test_examples_with_nothing_to_measure_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert part_to_measure(IMAGES, None).names == ["a", "b"]
    top = torch.tensor([[True, True], [False, False]]).reshape(1, 1, 2, 2)
    assert part_to_measure(IMAGES, top).names == ["a"]
    some = IMAGES.subset([0, 1])
    assert part_to_measure(some, None) is some
    monkeypatch.setattr("diffusion.evaluation.masks.CHUNK", 2)
    assert part_to_measure(IMAGES, top).names == ["a"]
    with pytest.raises(InputError, match="data: must be seen where it is to be measured, in one example or more, got"):
        part_to_measure(IMAGES, ~top | (torch.arange(2) == 1) | (torch.arange(2) == 0))


def test_a_part_of_the_masks_is_that_of_the_examples() -> None:
    known, seen = torch.ones(1, 1, 2, 2, dtype=torch.bool), torch.from_numpy(SEEN) != 0
    part = Masks(known, seen).part(slice(1, None))
    assert part.known is known and part.seen is not None and torch.equal(part.seen, seen[1:])
    assert UNMASKED.part(slice(1)) == UNMASKED


def test_the_part_that_is_measured_is_said() -> None:
    known = torch.tensor([[True, True], [True, False]]).reshape(1, 1, 2, 2)
    assert said_of_part(SPEC, None, None) == ()
    assert said_of_part(SPEC, 2.5, None) == (
        "seen: 2.5 of the 4 scalars of an example on average, of which the bits are",
    )
    assert said_of_part(SPEC, 1.0, known) == (
        "hidden: 1 of the 4 scalars of an example, of which the bits are, given 75.0% of the pixels",
    )
