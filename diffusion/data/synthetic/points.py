"""Points in the plane whose density is known: a Swiss roll, a ring and a lattice of Gaussians, scaled to variance 1.

They are centered and scaled by the moments of the distribution rather than of the sample, so that samples of any size
have the same distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from diffusion.data.dataset import Dataset
from diffusion.data.names import Numbered
from diffusion.data.spec import DataSpec
from diffusion.errors import require

ROLL_CENTER = (2.0, 2 / (3 * math.pi))
ROLL_ENDS = (1.5 * math.pi, 4.5 * math.pi)
# With this noise the negative entropy is 2.45 bits per point, just above the 2.35 bits that Sohl-Dickstein et al.
# (2015, arXiv 1503.03585, table 1) reach on a roll whose noise they do not state.
ROLL_NOISE = 0.02385
# A mode of the lattice in units of the spacing: halfway between two modes the density is e^-50 of that in a mode.
MODE_NOISE = 0.05
SIDE = 5
# Along the arc the integrand is a Gaussian with the standard deviation of the roll's noise. NODES quadrature nodes on
# each panel of PANEL standard deviations give 6 digits.
NODES = 12
PANEL = 6.0
# The number of points whose density is computed at once.
CHUNK = 1024


@dataclass(frozen=True)
class SwissRoll:
    """The distribution of (t cos t, t sin t) + noise · N(0, I) with t uniform on [1.5π, 4.5π].

    Points are scaled to mean 0 and variance 1. `noise` is in units of the spiral before scaling.
    """

    noise: float = ROLL_NOISE

    def __post_init__(self) -> None:
        require(self.noise >= 0, "noise", "0 or more", self.noise)

    @property
    def scale(self) -> float:
        """The root mean square of the coordinates about ROLL_CENTER before scaling; E t² = 9.75 π²."""
        x, y = ROLL_CENTER
        return math.sqrt((9.75 * math.pi**2 - x**2 - y**2) / 2 + self.noise**2)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n points: (n, 2) float64."""
        first, last = ROLL_ENDS
        t = first + (last - first) * torch.rand(n, generator=generator, dtype=torch.float64)
        return self._scaled(t) + self.noise / self.scale * _normal(n, generator)

    def log_density(self, x: Tensor) -> Tensor:
        """Computes log p(x) in nats by quadrature along the spiral: (B, 2) -> (B,) float64. Noise must be positive."""
        t, weight = self._nodes(self._even(PANEL))
        spiral, variance = self._scaled(t), (self.noise / self.scale) ** 2
        constant = weight.log() - math.log(2 * math.pi * variance)
        parts = [
            (constant - torch.cdist(part, spiral).square() / (2 * variance)).logsumexp(1)
            for part in torch.split(x.double(), CHUNK)
        ]
        return torch.cat(parts)

    def posterior(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the mean and the variance of each coordinate of x given x_t = alpha x + sigma N(0, I).

        (B, 2), (), () -> (B, 2), (B, 2) float64, by the quadrature of `log_density`. The noise must be positive.
        """
        t, weight = self._nodes(self._even(PANEL))
        spiral, variance = self._scaled(t), (self.noise / self.scale) ** 2
        total = alpha.square() * variance + sigma.square()
        # Given t and x_t, x is Gaussian; its mean moves from the spiral towards x_t by this gain.
        gain = alpha * variance / total
        means, variances = [], []
        for part in torch.split(x_t.double(), CHUNK):
            distance = torch.cdist(part, alpha * spiral).square()
            share = (weight.log() - distance / (2 * total)).softmax(1)
            first, second = share @ spiral, share @ spiral.square()
            means.append((1 - gain * alpha) * first + gain * part)
            between = (second - first.square()).clamp_min(0)
            variances.append((1 - gain * alpha).square() * between + variance * sigma.square() / total)
        return torch.cat(means), torch.cat(variances)

    @cached_property
    def entropy(self) -> float:
        """E[-log p(x)] in nats, by quadrature along the spiral and over the noise, which must be positive."""
        (first, last), margin = ROLL_ENDS, 2 * PANEL * self.noise
        # Only within a few standard deviations of the ends does the density differ from that of the middle: panels are
        # short there.
        start, end = math.sqrt(first**2 + margin), math.sqrt(last**2 - margin)
        middle = torch.linspace(start, end, 3, dtype=torch.float64)
        t, weight = self._nodes(torch.cat([middle.new_tensor([first]), middle, middle.new_tensor([last])]))
        z, share = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(NODES))
        noise = torch.cartesian_prod(z, z) * self.noise / self.scale
        x = (self._scaled(t)[:, None] + noise).flatten(0, 1)
        shares = torch.outer(weight, torch.outer(share, share).flatten() / share.sum() ** 2)
        return -float((shares.flatten() * self.log_density(x)).sum())

    def _scaled(self, t: Tensor) -> Tensor:
        """Maps t to points of the spiral in units of the data: (N,) -> (N, 2)."""
        spiral = torch.stack([t * t.cos(), t * t.sin()], dim=1)
        return (spiral - torch.tensor(ROLL_CENTER, dtype=torch.float64)) / self.scale

    def _even(self, width: float) -> Tensor:
        """Returns edges, in t, of panels that are about `width` standard deviations of the noise long.

        t²/2 is nearly the arc length.
        """
        first, last = (end**2 for end in ROLL_ENDS)
        panels = max(NODES, math.ceil((last - first) / 2 / (width * self.noise)))
        return torch.linspace(first, last, panels + 1, dtype=torch.float64).sqrt()

    def _nodes(self, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Returns nodes and weights (N,) of Gauss-Legendre quadrature on each panel, for the mean over uniform t."""
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(NODES))
        half, middle = edges.diff()[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
        return (middle + half * nodes).flatten(), (half * weights).flatten() / (edges[-1] - edges[0])


@dataclass(frozen=True)
class Lattice:
    """25 Gaussian modes on a square lattice of 5 x 5, scaled to mean 0 and variance 1 on average over both coordinates.

    `noise` is the standard deviation of a mode in units of the spacing. The weights are in proportion to 1, 2, ..., 25
    in an order without a trend, from 0.3 % to 7.7 %, or all 4 % if they are `even`.
    """

    noise: float = MODE_NOISE
    even: bool = False

    def __post_init__(self) -> None:
        require(self.noise > 0, "noise", "a positive number", self.noise)

    @property
    def weights(self) -> Tensor:
        """The weights of the modes, (25,) float64."""
        number = torch.arange(SIDE**2, dtype=torch.float64)
        weights = torch.ones_like(number) if self.even else 1 + 7 * number % SIDE**2
        return weights / weights.sum()

    @cached_property
    def centers(self) -> Tensor:
        """The means of the modes, (25, 2) float64."""
        sites, mean = self._sites
        return (sites - mean) / self._scale

    @property
    def std(self) -> float:
        """The standard deviation of a mode."""
        return self.noise / self._scale

    @property
    def _sites(self) -> tuple[Tensor, Tensor]:
        """The modes in units of the spacing, (25, 2), and their mean (2,)."""
        side = torch.arange(SIDE, dtype=torch.float64)
        sites = torch.cartesian_prod(side, side)
        return sites, self.weights @ sites

    @cached_property
    def _scale(self) -> float:
        sites, mean = self._sites
        return math.sqrt(float(self.weights @ (sites - mean).square().mean(1)) + self.noise**2)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n points: (n, 2) float64."""
        mode = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.centers[mode] + self.std * _normal(n, generator)

    def log_density(self, x: Tensor) -> Tensor:
        """Computes log p(x) in nats: (B, 2) -> (B,) float64."""
        return self._joint(x).logsumexp(1)

    def score(self, x: Tensor) -> Tensor:
        """Computes ∇ log p(x): (B, 2) -> (B, 2) float64."""
        return (self._joint(x).softmax(1) @ self.centers - x.double()) / self.std**2

    def mode(self, x: Tensor) -> Tensor:
        """The number of the nearest mode: (B, 2) -> (B,) int64."""
        return torch.cdist(x.double(), self.centers).argmin(1)

    def _joint(self, x: Tensor) -> Tensor:
        """log p(x, k) of every mode k: (B, 25)."""
        x, centers, variance = x.double(), self.centers, self.std**2
        square = x.square().sum(1, keepdim=True) + centers.square().sum(1)
        return torch.addmm(
            self.weights.log() - math.log(2 * math.pi * variance) - square / (2 * variance), x, centers.T / variance
        )


def lattice(n: int, seed: int, noise: float = MODE_NOISE) -> Dataset:
    """Returns n points of a Lattice with unequal weights."""
    return _dataset("lattice", Lattice(noise).sample(n, _generator(n, seed)), None, ())


def swiss_roll(n: int, seed: int, noise: float = ROLL_NOISE) -> Dataset:
    """Returns n points of a SwissRoll."""
    return _dataset("swiss_roll", SwissRoll(noise).sample(n, _generator(n, seed)), None, ())


def mixture(n: int, seed: int, modes: int = 8, std: float = 0.1, labels: bool = False) -> Dataset:
    """Returns n points of a mixture of equally weighted Gaussians, evenly spaced on a circle, scaled to variance 1.

    `std` is the standard deviation of a mode in units of the circle's radius. With `labels`, every point is labeled by
    its mode.

    Raises ValueError for fewer than two modes, as one mode would not have mean 0.
    """
    if modes < 2:
        raise ValueError(f"data.modes: must be at least 2, got {modes}")
    generator = _generator(n, seed)
    mode = torch.randint(modes, (n,), generator=generator)
    angle = mode.double() * (2 * math.pi / modes)
    points = torch.stack([angle.cos(), angle.sin()], dim=1) + std * _normal(n, generator)
    classes = tuple(map(str, range(modes))) if labels else ()
    return _dataset("mixture", points / math.sqrt(0.5 + std**2), mode if labels else None, classes)


def _generator(n: int, seed: int) -> torch.Generator:
    if n < 1:
        raise ValueError(f"data.count: must be at least 1, got {n}")
    return torch.Generator().manual_seed(seed)


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def _dataset(name: str, points: Tensor, label: Tensor | None, classes: tuple[str, ...]) -> Dataset:
    return Dataset(
        values=points.float().numpy(),
        spec=DataSpec(shape=(2,), levels=None, classes=classes),
        labels=None if label is None else label.numpy(),
        names=Numbered(name, len(points)),
    )
