"""The clocks of a data set: the noise levels at which its classes and then its examples are decided, from data alone.

Biroli, Bonnaire, de Bortoli, Mézard 2024 (Nat. Commun. 15:9957, arXiv 2402.18491) study the exact reverse diffusion of
n examples a_ν in d dimensions. Everything depends on x_t/α_t = x + e^{-λ/2} z, on the log-SNR λ alone and so on no
schedule. Their Ornstein-Uhlenbeck process α = e^{-t}, σ² = 1 - e^{-2t} has λ = -log(e^{2t} - 1).

Speciation: coming from noise, the gross structure is decided where the signal along the first principal axis, of
variance Λ, equals the noise, SNR Λ = 1, so λ = -log Λ. That is t = ½ log(1 + Λ), whose limit for large Λ is their
t = ½ log Λ (eq. 4). Two classes at ±m separate where SNR m² = 1.

Collapse: nearer to the data than this level the reverse process of the examples, what a network learns that minimizes
its training loss, ends at one of them. With the terms Z_ν ∝ exp(-SNR |x_t/α_t - a_ν|²/2) of the posterior over
examples, at x_t made of the example μ, the log-odds of all others against it are

    L_μ(λ, z) = log Σ_{ν≠μ} Z_ν / Z_μ = log Σ_{ν≠μ} exp(-SNR |a_μ - a_ν|²/2 - √SNR z·(a_μ - a_ν)).

The excess entropies (eq. 5), of the examples, f^e = s_sep - s^e, and of the population, f = s_sep - s, are

    d f^e = E log(1 + e^L), the entropy of the posterior over examples: log n at high noise, 0 at low noise
    d f   = E L + log(n/(n - 1)) in the limit of large d, where the sum over the others is n - 1 times the density.

f^e fades without crossing 0. E L crosses it, where the others weigh as much as the example itself: their local
criterion for collapse. For a Gaussian of variance v in each dimension this is λ = log((n^{2/d} - 1)/v), and more
examples of the same population move L by the logarithm of their ratio.

`recognition` draws x_t for some of the examples. In L the noise meets the examples in z·a alone, so that two matrix
products serve all levels, and the examples go by in blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.randomness import ExampleNoise, Stream, example_seed

# Units of log-SNR from one level to the next, and from the first to the last. At the first, the square of the largest
# example is e^-BEFORE of the noise in one dimension, and none is told apart.
STEP, SPAN, BEFORE = 0.5, 30.0, 3.0
# The log-odds below which an example counts as told apart: those of copies are 0, up to rounding.
TOLD_APART = -0.01
# Pairs nearer than this share of the sum of their squares have their distance computed by itself, this many at a time.
NEAR, PAIRS = 1e-3, 1024
# Directions beyond those asked for and iterations of the block power method.
BEYOND, ITERATIONS = 8, 8


def ou_time(log_snr: float) -> float:
    """Returns the time t of the Ornstein-Uhlenbeck process of a log-SNR: ½ log(1 + e^{-λ})."""
    return math.log1p(math.exp(-log_snr)) / 2


def speciation(variance: float) -> float:
    """Returns the log-SNR at which the signal along a direction of this variance equals the noise: -log Λ."""
    return -math.log(variance) if variance > 0 else math.inf


def top_variances(x: Tensor, count: int) -> Tensor:
    """Returns the largest eigenvalues of the covariance of examples x (N, D), at most `count`, in float64.

    They come by the block power method from a fixed start. At most 1 + N/2 and D of them are sought.
    """
    x = x - x.mean(0)
    count = min(count, x.shape[1], 1 + len(x) // 2)
    start = torch.randn(x.shape[1], min(count + BEYOND, *x.shape), generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(start.to(x)).Q
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(x.T @ (x @ basis)).Q
    values: Tensor = torch.linalg.svdvals((x @ basis).double())[:count]
    return values.square() / len(x)


@dataclass(frozen=True)
class Classes:
    """What tells C classes apart, without the noise that their means have by being measured on few examples.

    `variance` is the largest eigenvalue of the covariance between classes, less that noise. `squares` (C, C) has for
    each pair the square of half the distance between their means, m² of the two-class mixture ±m, and `within` (C, C)
    the variance of their examples along the line between the means, a mean of both.
    """

    variance: float
    squares: Tensor
    within: Tensor


def between_classes(x: Tensor, labels: Tensor) -> Classes | None:
    """Returns what tells classes apart, by examples x (N, D) with labels (N,) 0, 1, ...; None with fewer than two.

    A class of less than two examples has no part in it, and infinite squares and variances for its pairs.
    """
    counts = torch.bincount(labels)
    some = torch.nonzero(counts >= 2).flatten()
    if len(some) < 2:
        return None
    sizes = counts[some].double()
    means = torch.stack([x[labels == c].double().mean(0) for c in some])
    share = sizes / sizes.sum()
    centered = means - share @ means
    rows = share.sqrt()[:, None] * centered
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    axis = F.normalize(vectors[:, -1] @ rows, dim=0)
    spread, within = sizes.new_zeros(len(some)), sizes.new_zeros(len(some), len(some) + 1)
    for i, c in enumerate(some):
        each = x[labels == c].double() - means[i]
        lines = F.normalize(torch.cat([means - means[i], axis[None]]), dim=1)
        within[i] = (each @ lines.T).square().sum(0) / (sizes[i] - 1)
        spread[i] = each.square().sum() / (sizes[i] - 1) / sizes[i]
    products = centered @ centered.T
    apart = products.diagonal()[:, None] + products.diagonal() - 2 * products
    squares = (apart - spread[:, None] - spread).clamp_min(0) / 4
    within, along = within[:, :-1], within[:, -1]
    full = torch.full((2, len(counts), len(counts)), math.inf, dtype=torch.float64)
    full[:, some[:, None], some] = torch.stack([squares, (within + within.T) / 2])
    return Classes(max(float(values[-1] - share @ (along / sizes)), 0.0), full[0], full[1])


def cloning_probability(log_snr: Tensor, square: float, variance: float) -> Tensor:
    """Returns the probability that two reverse paths that part at a log-SNR end in the same class of two: (*).

    The classes ±m have equal weights, m² = `square`, and `variance` along m (eq. 6, by a sum over y).
    """
    mean, deviation = math.sqrt(square), (variance + (-log_snr.double()).exp()).sqrt()[..., None]
    y = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    # At a value y of the mixture, in units of the deviation and from the mean of one class, the odds are 2 m y/Γ.
    odds = 2 * mean / deviation * (y + mean / deviation)
    density = (-y.square() / 2).exp() / (-y.square() / 2).exp().sum()
    own = odds.sigmoid()
    return (density * (own.square() + (1 - own).square())).sum(-1)


@dataclass(frozen=True)
class Crossing:
    """The log-SNR at which a mean over examples crosses 0, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Recognition:
    """How P of n examples are told from all others at K levels of `log_snr` (K,), the noisiest first.

    Of the draws of noise for each example, `log_odds` (P, K) is the mean of L, `entropy` (P, K) that of log(1 + e^L),
    and `odds` (P, K) the log-odds of the mean posterior weights of the others and of the example itself. `numbers` (P,)
    are those of the examples among the `measured` ones, which stand for `count` of the same population.
    """

    log_snr: Tensor
    log_odds: Tensor
    entropy: Tensor
    odds: Tensor
    numbers: Tensor
    measured: int
    count: int

    @property
    def collapse(self) -> Crossing | None:
        """The level at which E L is 0, with an interval over examples; None where it lies at no level.

        The interval covers the choice of the examples for which x_t was drawn, and the noise.
        """
        mean = self.log_odds.mean(0)
        error = self.log_odds.std(0) / math.sqrt(len(self.log_odds)) * NormalDist().inv_cdf(0.975)
        low, value, high = crossing(self.log_snr, torch.stack([mean - error, mean, mean + error])).tolist()
        return Crossing(value, low, high) if math.isfinite(value) else None

    @property
    def levels(self) -> Tensor:
        """The log-SNR of each example above which more than half of the posterior weight is its own: (P,).

        It is infinite for examples that are never told apart, such as copies.
        """
        return crossing(self.log_snr, self.odds)

    def collapse_at(self, factor: float) -> float:
        """Returns the level of collapse with `factor` times as many examples; not finite where it lies at no level."""
        return float(crossing(self.log_snr, self.log_odds.mean(0, keepdim=True) + math.log(factor)))

    def factor(self, log_snr: float) -> float:
        """Returns how many times as many examples moved a collapse by 1 to a log-SNR, from one more unit of noise.

        The slope of E L grows with the log-SNR for Gaussians, so that the next unit takes more. How much more, the
        examples do not tell: with less noise than at the collapse, few terms are most of the sum over the others.
        """
        mean, steps = self.log_odds.mean(0), round(1 / STEP)
        at = float((log_snr - self.log_snr[0]) / STEP)
        start = min(max(int(at), steps), len(mean) - 2)
        drop = mean[start - steps : start - steps + 2] - mean[start : start + 2]
        return math.exp(min(float(torch.lerp(drop[0], drop[1], at - start)), 700.0))


def recognition(
    x: Tensor, *, probes: int, draws: int = 4, count: int | None = None, seed: int = 0, block: int = 4096
) -> Recognition:
    """Measures how evenly spaced examples, at most `probes` of x (N, D), are told from all others.

    Noise is drawn `draws` times for each, in pairs of opposite signs, by the seed and the number of the example. The
    examples of x stand for `count`, by default N. `block` of them are compared at once.

    Raises InputError for fewer than 3 examples, and an odd number of draws.
    """
    require(len(x) >= 3, "examples", "at least 3", len(x))
    require(draws >= 2 and draws % 2 == 0, "draws", "even", draws)
    require(bool((x != x[0]).any()), "examples", "different from each other", "equal ones")
    x = x - x.mean(0)
    numbers = torch.linspace(0, len(x) - 1, min(probes, len(x)), dtype=torch.float64).round().long()
    anchors = x[numbers]
    noise = ExampleNoise([example_seed(seed, Stream.PATH, number) for number in numbers.tolist()])
    largest = float(x.square().sum(1).max())
    levels = torch.arange(0, SPAN, STEP, dtype=torch.float64) - math.log(largest) - BEFORE
    more = math.log((count or len(x)) - 1) - math.log(len(x) - 1)
    found = torch.cat([_log_odds(x, numbers, noise(anchors), levels, block) for _ in range(draws // 2)]).double() + more
    odds = F.logsigmoid(found).logsumexp(0) - F.logsigmoid(-found).logsumexp(0)
    return Recognition(levels, found.mean(0), F.softplus(found).mean(0), odds, numbers, len(x), count or len(x))


def _log_odds(x: Tensor, numbers: Tensor, noise: Tensor, log_snr: Tensor, block: int) -> Tensor:
    """Returns L of examples x[numbers] with noise (P, D) and with its negative: (2, P, K)."""
    anchors = x[numbers]
    squares, own = anchors.square().sum(1, keepdim=True), (noise * anchors).sum(1, keepdim=True)
    found = x.new_full((2, len(anchors), len(log_snr)), -math.inf)
    for start in range(0, len(x), block):
        part = x[start : start + block]
        sums = squares + part.square().sum(1)
        distance, along = sums - 2 * anchors @ part.T, own - noise @ part.T
        for rows, columns in (pairs.T for pairs in torch.split(torch.nonzero(distance < NEAR * sums), PAIRS)):
            apart = anchors[rows] - part[columns]
            distance[rows, columns], along[rows, columns] = apart.square().sum(1), (noise[rows] * apart).sum(1)
        inside = torch.nonzero((numbers >= start) & (numbers < start + len(part))).flatten()
        distance[inside, numbers[inside] - start] = math.inf
        for k, level in enumerate(log_snr.tolist()):
            snr = math.exp(level)
            for sign, root in enumerate((math.sqrt(snr), -math.sqrt(snr))):
                terms = torch.logsumexp(distance * (-snr / 2) - along * root, 1)
                found[sign, :, k] = torch.logaddexp(found[sign, :, k], terms)
    return found


def crossing(log_snr: Tensor, values: Tensor) -> Tensor:
    """Returns where values (*, K) fall below 0 for good, by inverse interpolation through three levels (K,): (*).

    It is infinite where they never do, and minus infinity where they always are.
    """
    last = (values >= TOLD_APART).long().cumsum(-1).argmax(-1)
    never, always = (values >= TOLD_APART)[..., -1], (values < TOLD_APART).all(-1)
    first = last.clamp(0, values.shape[-1] - 3)[..., None]
    v0, v1, v2 = (values.gather(-1, first + i)[..., 0] for i in range(3))
    middle = log_snr[first[..., 0] + 1]
    # Lagrange's polynomial of the level over the values, at the value 0, in units of the step from the middle level.
    linear = v1 / (v1 - v2)
    curved = v0 * v1 / ((v2 - v0) * (v2 - v1)) - v1 * v2 / ((v0 - v1) * (v0 - v2))
    low = (last - first[..., 0] - 1).to(values)
    bent = (curved >= low) & (curved <= low + 1)
    step = torch.where(bent, curved, torch.where(low < 0, v0 / (v0 - v1) - 1, linear).clamp(low, low + 1))
    found = middle + STEP * step
    return found.masked_fill(never, math.inf).masked_fill(always & ~never, -math.inf)
