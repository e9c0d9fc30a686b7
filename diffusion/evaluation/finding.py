"""Finds the training examples nearest to others, by pixels or by features of a network; processes share the work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.data import Dataset
from diffusion.distances.nearest import CHUNK, Index, Neighbors, Vary, alone, variations
from diffusion.errors import require
from diffusion.evaluation.copies import SAME, RatioTest, Verdict
from diffusion.evaluation.features import FeatureNetwork, eight_bit
from diffusion.evaluation.sets import units
from diffusion.progress import track

# The held-out examples whose distances to the nearest training example tell which of these are copies of each other.
TYPICAL = 200


@dataclass(frozen=True)
class Finder:
    """Compares examples in units, (*), with those of an `index`, by what `describe` makes of a batch of them.

    Distances are divided by `scale`. With `shared` every process finds what is near its own examples.
    """

    index: Index
    describe: Callable[[Tensor], Tensor]
    vary: Vary
    scale: float = 1.0
    shared: bool = False
    progress: bool = False

    @classmethod
    def of_pixels(cls, training: Dataset, shift: int, *, shared: bool, progress: bool) -> Finder:
        """By the root mean square over pixels and channels, least over mirror images and shifts by up to `shift`."""

        def vary(x: Tensor) -> Tensor:
            return variations(x, shift=shift)

        index = Index.of(lambda numbers: units(training, numbers), len(training), progress=progress)
        return cls(index, lambda x: x, vary, math.sqrt(training.spec.dim), shared, progress)

    @classmethod
    def of_features(cls, training: Dataset, network: FeatureNetwork, *, shared: bool, progress: bool) -> Finder:
        """By the L2 distance of features, which processes compute of a share of the training examples each."""

        def describe(x: Tensor) -> Tensor:
            return network(eight_bit(x)).float()

        starts = distributed.batches(len(training), CHUNK, shared=shared)
        blank = describe(units(training, range(0)))
        parts = [
            describe(units(training, numbers))
            for numbers in track(starts, len(starts), "features", "batch", show=progress)
        ]
        found = torch.cat([blank, *parts])
        found = distributed.gather(found) if shared else found
        index = Index.of(lambda numbers: found[torch.as_tensor(numbers)], len(found), progress=progress)
        return cls(index, describe, alone, 1.0, shared, progress)

    @property
    def plain(self) -> Finder:
        """The same without variations of examples."""
        return replace(self, vary=alone)

    def neighbors(self, x: Tensor, same: float | None = None) -> Neighbors:
        """The nearest two to each of x (B, *), the examples of this process; returns those of all processes.

        Examples no farther than `same` from the nearest one count as copies of it. Raises InputError where all do.
        """
        queries = (each for start in range(0, len(x), CHUNK) for each in self.describe(x[start : start + CHUNK]))
        limit = None if same is None else same * self.scale
        found = self.index.neighbors(queries, len(x), self.vary, same=limit, progress=self.progress)
        if self.shared:
            found = Neighbors(distributed.gather(found.numbers), distributed.gather(found.distances))
        require((found.numbers[:, 1] >= 0).all(), "data", "two different training examples or more", "copies of one")
        return Neighbors(found.numbers, found.distances / self.scale)

    def same(self, held_out: Dataset) -> float:
        """The distance up to which training examples count as copies, by how near held-out ones come to them."""
        return SAME * float(self.neighbors(self.mine(held_out.evenly(TYPICAL))).distances[:, 0].median())

    def verdict(self, samples: Tensor, held_out: Dataset, flagged: float) -> Verdict:
        """Tests the samples of this process, (B, *), as `RatioTest` does after calibration on held-out examples."""
        same = self.same(held_out)
        test = RatioTest.of(self.neighbors(self.mine(held_out), same).ratios, flagged)
        return Verdict(self.neighbors(samples, same), test, same)

    def mine(self, examples: Dataset) -> Tensor:
        """The examples that this process compares, in units: (B, *)."""
        return units(examples, distributed.share(len(examples)) if self.shared else range(len(examples)))
