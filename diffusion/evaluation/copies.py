"""Which samples are copies of training images, by the ratio of their distances to the nearest two, calibrated.

A copy of one image is much nearer to it than to any other: its ratio r = ‖x - a₁‖ / ‖x - a₂‖ is small. How small it is
for images that nobody copied, held-out ones say. A sample is flagged if its ratio is below the j-th smallest of those
of m held-out images, j = ⌊flagged (m + 1)⌋. That is p <= flagged for the conformal p-value

    p = (1 + number of held-out ratios <= r) / (m + 1)

(Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World, section 2.2): of samples that are as held-out
images are, a share j / (m + 1) is flagged on average, whatever the ratio and the data.

Where held-out images are so few that j would be 0, the smallest ratio of them all is the threshold, and the share
flagged is 1 / (m + 1), more than was asked for.

Bonnaire, Urfin, Biroli and Mézard (2025, arXiv 2505.17638) take every ratio below 1/3 for a copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.distances.nearest import Neighbors
from diffusion.evaluation.proportions import Beta, Share, excess, share, too_few

# The ratio of Bonnaire et al. below which a sample is a copy.
THIRD = 1 / 3
# Training images no farther from each other than this, by the median distance of held-out images to the nearest
# training image, are copies of each other.
SAME = 1 / 3


@dataclass(frozen=True)
class RatioTest:
    """Flags ratios below the `rank`-th smallest of those of held-out images, `held_out`, (m,) in increasing order.

    `enough` says whether the images are enough for the share that was asked for.
    """

    held_out: Tensor
    rank: int
    enough: bool

    @classmethod
    def of(cls, ratios: Tensor, flagged: float) -> RatioTest:
        """Calibrates a test, which flags a share `flagged` at most, on the ratios (m,) of held-out images."""
        # What rounding took from a whole number is given back.
        rank = math.floor(flagged * (len(ratios) + 1) + 1e-9)
        return cls(ratios.sort().values, min(max(1, rank), len(ratios)), rank >= 1)

    @property
    def threshold(self) -> float:
        """The ratio below which samples are flagged."""
        return float(self.held_out[self.rank - 1])

    @property
    def rate(self) -> Beta:
        """The distribution of the share of all unseen images that is flagged."""
        return Beta(self.rank, len(self.held_out) + 1 - self.rank)

    def __call__(self, ratios: Tensor) -> Tensor:
        """Which of some ratios (N,) are flagged: bool (N,)."""
        return ratios < self.threshold

    def p_values(self, ratios: Tensor) -> Tensor:
        """The conformal p-values of ratios (N,): (N,)."""
        return (1 + torch.searchsorted(self.held_out, ratios, right=True)).double() / (len(self.held_out) + 1)


@dataclass(frozen=True)
class Verdict:
    """What a test says of samples: their `neighbors` among training images, and its calibration.

    Training images no farther than `same` from each other counted as copies of each other.
    """

    neighbors: Neighbors
    test: RatioTest
    same: float

    @property
    def flagged(self) -> Tensor:
        """Which of the samples are flagged: bool (N,)."""
        return self.test(self.neighbors.ratios)

    @property
    def shares(self) -> dict[str, Share]:
        """The share of samples that is flagged, that of unseen images, and that of copies, the excess of the first."""
        hits, n, rate = int(self.flagged.sum()), len(self.flagged), self.test.rate
        return {
            "flagged": share(hits, n),
            "flagged, unseen": Share(rate.mean, *rate.interval),
            "copies": excess(hits, n, rate),
        }

    @property
    def fewer(self) -> bool:
        """Whether fewer samples are flagged than of unseen images, by more than chance."""
        hits, n, rate = int(self.flagged.sum()), len(self.flagged), self.test.rate
        return too_few(hits, n, rate)


def below_third(neighbors: Neighbors) -> Share:
    """The share of samples that Bonnaire et al. would take for copies."""
    return share(int((neighbors.ratios < THIRD).sum()), len(neighbors.ratios))
