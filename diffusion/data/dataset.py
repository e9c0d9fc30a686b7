"""A set of examples with stored values, labels and names, split into training and held-out parts by content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion.data.generated import Generated
from diffusion.data.names import select
from diffusion.data.spec import DataSpec
from diffusion.errors import InputError
from diffusion.randomness import example_seed

Values: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]
Indices: TypeAlias = Sequence[int] | npt.NDArray[np.int64] | Tensor

# The number of examples that are read at once.
CHUNK = 256


@dataclass(frozen=True)
class Rows:
    """The rows of `array` at `numbers`, read or generated when indexed; a memory-mapped array stays on disk."""

    array: Values | Generated
    numbers: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (N, *) of an array of these rows."""
        return len(self.numbers), *self.array.shape[1:]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Values:
        return self.array[self.numbers[rows]]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.array[self.numbers], dtype=dtype)


@dataclass(frozen=True)
class Dataset:
    """Examples, their specification, labels and names.

    `values` is (N, C, H + 2 margin, W + 2 margin) for images, whose `margin` around the (H, W) of the spec is the
    padding for random crops: uint8 or, for more than 256 gray levels, uint16, and float32 for continuous images. For
    points it is float32 (N, D). `labels` is int64 (N,), or None. `names` has one name per example. `contents` is uint64
    (N,), the `content_hash` of each example, or None if they have not been hashed yet. `left_out` has the path of each
    file that could not be used, and the reason.

    Images may have more beside their values, of the same height and width: `seen`, uint8 (N, 1, *), is 0 at pixels that
    nobody has seen, whose values mean nothing; `condition` (N, K, *) are stored values of what is known of an image.

    Raises ValueError when the lengths differ.
    """

    values: Values | Rows | Generated
    spec: DataSpec
    labels: npt.NDArray[np.int64] | None
    names: Sequence[str]
    margin: int = 0
    contents: npt.NDArray[np.uint64] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    seen: Values | Rows | None = None
    condition: Values | Rows | None = None

    def __post_init__(self) -> None:
        parts = {
            "values": self.values,
            "labels": self.labels,
            "names": self.names,
            "hashes of contents": self.contents,
            "masks": self.seen,
            "conditions": self.condition,
        }
        counts = {name: len(part) for name, part in parts.items() if part is not None}
        if len(set(counts.values())) > 1:
            raise ValueError(f"dataset: got {', '.join(f'{count} {name}' for name, count in counts.items())}")

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Indices) -> tuple[Tensor, Tensor | None]:
        """Returns copies of the stored values (B, *) and the labels (B,) of the examples, in the order of the indices.

        Values of 16 bits are returned as int32, because torch can do little with its uint16.

        Raises IndexError for an index outside of the dataset.
        """
        numbers = np.asarray(indices, dtype=np.int64)
        labels = None if self.labels is None else torch.from_numpy(self.labels[numbers])
        return _tensor(self.values[numbers]), labels

    def beside(self, indices: Indices) -> tuple[Tensor | None, Tensor | None]:
        """Returns copies of the masks `seen` (B, 1, *) and of the stored values of the condition (B, K, *)."""
        numbers = np.asarray(indices, dtype=np.int64)
        seen, condition = (None if part is None else _tensor(part[numbers]) for part in (self.seen, self.condition))
        return seen, condition

    def seen_pixels(self, indices: Indices) -> Tensor | None:
        """Returns which pixels of the examples anybody has seen, bool (B, 1, *) without margin; None if that is all."""
        seen, _ = self.beside(indices)
        return None if seen is None else self.center(seen) != 0

    def center(self, values: Tensor) -> Tensor:
        """Returns stored values (B, *) without their margin, as evaluation uses them."""
        if self.margin == 0:
            return values
        return values[..., self.margin : -self.margin, self.margin : -self.margin]

    def subset(self, indices: Indices) -> Dataset:
        """Returns the dataset of the examples at the indices, whose values are not copied."""
        numbers = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            values=_rows(self.values, numbers),
            seen=None if self.seen is None else _rows(self.seen, numbers),
            condition=None if self.condition is None else _rows(self.condition, numbers),
            labels=None if self.labels is None else self.labels[numbers],
            names=select(self.names, numbers),
            contents=None if self.contents is None else self.contents[numbers],
        )

    def evenly(self, count: int) -> Dataset:
        """Returns at most `count` examples, evenly spaced over the dataset.

        Datasets are ordered by folder and class, so that the first `count` examples would show the first classes alone.
        """
        return self.subset(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(np.int64))

    def split(self, held_out: float, seed: int) -> tuple[Dataset, Dataset]:
        """Splits into training and held-out examples, a share `held_out` of all, both in the order of the dataset.

        A hash of the seed and an example's values decides, so that exact copies fall on the same side, and examples
        that are added later move none of those already there. Small sets are the exception: at least one example and
        at most half of all are held out, taken in the order of the hashes. With fewer than two distinct examples, or
        held_out = 0, none is held out.

        Raises ValueError unless 0 <= held_out <= 0.5.
        """
        if not 0 <= held_out <= 0.5:
            raise ValueError(f"data.held_out: must lie between 0 and 0.5, got {held_out}")
        chosen = self._held_out(held_out, seed) if held_out > 0 else np.zeros(len(self), dtype=bool)
        return self.subset(np.flatnonzero(~chosen)), self.subset(np.flatnonzero(chosen))

    def _held_out(self, share: float, seed: int) -> npt.NDArray[np.bool_]:
        """Returns for each example whether it is held out: (N,)."""
        hashes = np.fromiter((example_seed(seed, content) for content in self._contents()), np.int64, len(self))
        distinct, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
        chosen = np.zeros(len(distinct), dtype=bool)
        total = 0
        for i, (value, size) in enumerate(zip(distinct, sizes, strict=True)):
            if total and value >= share * 2**63:
                break
            if total + size <= len(self) // 2:
                chosen[i] = True
                total += size
        return chosen[group]

    def _contents(self) -> Iterator[int]:
        """Yields a hash of each example's values, which are read only where no hash is known."""
        for start in range(0, len(self), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(self)))
            known = None if self.contents is None else self.contents[rows]
            yield from self.hashed(rows) if known is None else known.tolist()

    def hashed(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """Returns the hashes of the examples at the rows, which are read for it."""
        seen: Iterable[Values | None] = repeat(None) if self.seen is None else self.seen[rows]
        return [content_hash(values, mask) for values, mask in zip(self.values[rows], seen, strict=False)]


def _rows(values: Values | Rows | Generated, numbers: npt.NDArray[np.int64]) -> Rows:
    """Returns the rows of values at the numbers, which are not copied."""
    return Rows(values.array, values.numbers[numbers]) if isinstance(values, Rows) else Rows(values, numbers)


def _tensor(values: Values) -> Tensor:
    """Returns values as a tensor; those of 16 bits as int32."""
    return torch.from_numpy(values.astype(np.int32) if values.dtype == np.uint16 else values)


def content_hash(row: Values, seen: Values | None = None) -> int:
    """Returns a 64-bit hash of an example's values, equal for copies.

    Of an image (C, H, W) with unseen pixels it is that of the others and of the mask `seen` (1, H, W). An image that
    is wholly seen has the hash that it has without a mask, and so stays on its side of a split.
    """
    parts: tuple[npt.NDArray[Any], ...] = (row,)
    if seen is not None and not seen.all():
        parts = np.where(seen, row, np.zeros((), row.dtype)), seen != 0
    digest = hashlib.blake2b(b"".join(np.ascontiguousarray(part).tobytes() for part in parts), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def standardized(dataset: Dataset, *, held_out: float = 0.0, seed: int = 0, limit: int = 4096) -> Dataset:
    """Returns the whole dataset with a spec that gives its training examples zero mean and unit variance.

    Of images that are seen in part, the pixels that were seen alone have a part in mean and std. The training examples
    are those of `dataset.split(held_out, seed)`: held-out ones have no part in mean and std. Of the training examples,
    at most `limit` evenly spaced ones are read, without their margin. Continuous data of no file are returned as they
    are, unsplit: their distribution is scaled already, and a density must not depend on the sample.

    Raises InputError for an empty dataset, training examples of which nothing was seen, or whose values are all the
    same.
    """
    if len(dataset) == 0:
        raise InputError("data: the dataset is empty")
    if dataset.spec.levels is None and dataset.spec.value_range is None:
        return dataset
    training, _ = dataset.split(held_out, seed)
    read = training.evenly(limit)
    total = square = 0.0
    count = 0
    for start in range(0, len(read), CHUNK):
        numbers = range(start, min(start + CHUNK, len(read)))
        exact = read.center(read.batch(numbers)[0]).double()
        seen, _ = read.beside(numbers)
        if seen is not None:
            exact = exact[(read.center(seen) != 0).expand_as(exact)]
        total += float(exact.sum())
        square += float(exact.square().sum())
        count += exact.numel()
    if not count:
        raise InputError("data.masks: none of the pixels of the training images was seen")
    mean = total / count
    variance = square / count - mean**2
    if variance <= 0:
        raise InputError(f"data: every value is {mean:g}; there is nothing to learn")
    return replace(dataset, spec=replace(dataset.spec, mean=mean, std=math.sqrt(variance)))
