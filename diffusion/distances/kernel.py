"""The maximum mean discrepancy of two sets under a kernel (Gretton et al. 2012, JMLR 13, 723-773, eq. 3).

    MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)        over pairs of different members

is unbiased: its expectation is 0 for sets of the same distribution, of any size. The kernel is that of the kernel
inception distance, (x·y/d + 1)³ (Binkowski et al. 2018, arXiv 1801.01401, section 4). It compares the moments up to
the third.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.distances import patches
from diffusion.distances.distance import Distance, FeatureDistance, Pairs, indicators
from diffusion.progress import track

# The values of a block of a kernel, which bounds the memory.
BLOCK = 2**24


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """Returns the kernel of rows x (N, D) and y (M, D): (N, M)."""
    return torch.addmm(torch.ones((), dtype=x.dtype, device=x.device), x, y.T, alpha=1 / x.shape[1]).pow_(3)


class MeanDiscrepancy(Distance):
    """The unbiased MMD² under the kernel of a subclass."""

    @abstractmethod
    def prepared(self, rows: Tensor) -> Tensor:
        """Returns described rows (N, *) in the form that `kernel` takes, with rows in the dimension `dim`."""

    @abstractmethod
    def kernel(self, rows: Tensor, first: int, last: int) -> Tensor:
        """Returns the kernel of the prepared rows from `first` to `last` with all N: (last - first, N) float64."""

    @abstractmethod
    def block(self, rows: Tensor) -> int:
        """Returns the number of rows whose kernel fits the memory."""

    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns MMD² of every pair, in one pass through the kernel of all rows.

        With the indicator u of a set, the sum of the kernel over the pairs of two sets is u^T K v.
        """
        size = len(rows)
        prepared = self.prepared(rows)
        inside = indicators(sets, size, torch.float64, rows.device)
        a, b = torch.tensor(pairs, device=rows.device).reshape(-1, 2).T
        within = torch.zeros(len(sets), dtype=torch.float64, device=rows.device)
        across = torch.zeros(len(pairs), dtype=torch.float64, device=rows.device)
        starts = range(0, size, self.block(rows))
        for first in track(starts, len(starts), self.name, "block", show=show):
            last = min(first + starts.step, size)
            kernel = self.kernel(prepared, first, last)
            kernel.diagonal(first).zero_()
            sums, part = kernel @ inside, inside[first:last]
            within += (part * sums).sum(0)
            across += (part[:, a] * sums[:, b]).sum(0)
        counts = inside.sum(0)
        means = within / (counts * (counts - 1))
        return (means[a] + means[b] - 2 * across / (counts[a] * counts[b])).cpu()


@dataclass(frozen=True)
class KernelDistance(FeatureDistance, MeanDiscrepancy):
    """The kernel distance of features: KID where they are those of Inception."""

    name: ClassVar[str] = "kernel distance"

    def prepared(self, rows: Tensor) -> Tensor:
        """Returns the features."""
        return rows

    def kernel(self, rows: Tensor, first: int, last: int) -> Tensor:
        """Returns the cubic kernel of features."""
        return cubic(rows[first:last], rows)

    def block(self, rows: Tensor) -> int:
        """Returns the number of rows of a block."""
        return max(1, BLOCK // len(rows))


@dataclass(frozen=True)
class PatchMMD(MeanDiscrepancy):
    """The MMD² of the patches of images (N, C, H, W) in [0, 1].

    The kernel of two images is the mean of the cubic kernel over the pairs of their patches of a level, averaged over
    levels. So the average is over pairs of images, and is unbiased although the patches of an image are dependent.
    `patches` of every image and level are chosen by `seed`.
    """

    name: ClassVar[str] = "patch MMD²"

    patches: int = 16
    seed: int = 0

    def describe(self, x: Tensor) -> Tensor:
        """Returns the patches of images: (N, patches, levels, C, values)."""
        return patches.describe(x, self.patches, self.seed)

    def prepared(self, rows: Tensor) -> Tensor:
        """Returns normalized patches (L, N, P, D)."""
        return patches.normalized(rows)

    def kernel(self, rows: Tensor, first: int, last: int) -> Tensor:
        """Returns the mean cubic kernel of the patches of images."""
        total = torch.zeros(last - first, rows.shape[1], dtype=torch.float64, device=rows.device)
        for level in rows:
            pairs = cubic(level[first:last].flatten(0, 1), level.flatten(0, 1))
            count = level.shape[1]
            total += pairs.view(last - first, count, -1).mean(1).view(last - first, -1, count).mean(2)
        return total / len(rows)

    def block(self, rows: Tensor) -> int:
        """Returns the number of images of a block."""
        return max(1, BLOCK // (len(rows) * rows.shape[1] ** 2))
