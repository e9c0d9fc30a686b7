"""Generated examples read like an array, and no more of them are made than are indexed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from diffusion.data import Dataset, DataSpec
from diffusion.data.generated import Generated
from diffusion.data.hashing import hashed


class Multiples(Generated):
    """Example i is (i, 10 i); `made` are the numbers of the examples made so far."""

    def __init__(self, count: int) -> None:
        self.count, self.made = count, list[int]()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.count, 2

    def make(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        self.made += numbers.tolist()
        return np.stack([numbers, 10 * numbers], axis=1).astype(np.float32)


def test_it_reads_like_an_array() -> None:
    examples = Multiples(5)
    assert len(examples) == 5
    assert np.array_equal(examples[np.array([4, 0, 4])], [[4, 40], [0, 0], [4, 40]])
    assert examples[np.array([], np.int64)].shape == (0, 2)
    whole = np.asarray(examples, np.float64)
    assert whole.dtype == np.float64
    assert np.array_equal(whole, [[i, 10 * i] for i in range(5)])


@pytest.mark.parametrize("numbers", [[5], [-1], [0, 7], [-3, 2]])
def test_numbers_outside_of_the_range_are_refused(numbers: list[int]) -> None:
    examples = Multiples(5)
    with pytest.raises(IndexError, match=rf"^examples: must lie in 0\.\.4, got {min(numbers)}\.\.{max(numbers)}$"):
        examples[np.array(numbers)]
    assert examples.made == []


def test_contents_are_the_hashes_of_the_numbers_and_all_differ() -> None:
    contents = Multiples(1000).contents()
    assert np.array_equal(contents, hashed(np.arange(1000, dtype=np.uint64)))
    assert len(np.unique(contents)) == 1000


def test_a_dataset_makes_only_the_examples_of_its_batches() -> None:
    examples = Multiples(1000)
    names = [str(i) for i in range(1000)]
    dataset = Dataset(examples, DataSpec((2,), None), None, names, contents=examples.contents())
    training, held_out = dataset.split(0.2, seed=0)
    assert (len(training) + len(held_out), examples.made) == (1000, [])
    numbers = [int(held_out.names[i]) for i in (3, 1)]
    values, _ = held_out.batch([3, 1])
    assert torch.equal(values, torch.tensor([[n, 10.0 * n] for n in numbers]))
    assert examples.made == numbers
