"""The bits that dead leaves cost any model of them (diffusion/data/synthetic/dead_leaves.py).

An image X is noise on the grays G of leaves that divide its pixels in a partition P. Hence for any model

    -E log p(X) >= h(X) = h(noise) + I(X; G|P) + I(X; P).

I(X; G|P) is computed by quadrature: the n pixels of a leaf are one unknown gray and noise, so that their mean is a
sufficient statistic.

I(X; P) is estimated. A disk of center c and radius r holds a pixel at x if |x|² - 2 x·c <= r² - |c|², which is linear
in c and r² - |c|². So the disks that show the same pixels as a leaf, among those that the leaves before it have left
bare, are the points of a convex polytope. Their measure r⁻³ dr dc, divided by that of all disks that show any bare
pixel, is the probability of the leaf given those before it. The product is the probability of the leaves in their
order. n leaves have at most n! orders, which bounds the entropy of P from below:

    H(P) >= E Σ_k log₂ (measure of all disks / measure of those like leaf k) - E log₂ n!

The noise hides edges between leaves of nearly the same gray, so that I(X; P) < H(P). This is approximated: where the
grays differ by less than SEEN standard deviations of the noise, a pixel is taken to tell nothing of an edge, and
elsewhere everything. It is the only approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from scipy.spatial import Delaunay, HalfspaceIntersection
from tqdm import tqdm

from diffusion.data.synthetic.dead_leaves import SKEW, Floats, Integers, Leaves, normal_entropy

Pixels: TypeAlias = npt.NDArray[np.bool_]

# Least number of bins of the quadrature over grays, points per standard deviation of the noise, and its reach in those.
BINS, FINE, REACH = 100, 4, 7
SEEN = 3.0
# Random points in a polytope.
POINTS = 400
# Tetrahedra are bisected until the density varies by this factor over each, or their share of all is this small.
SPREAD, NEGLIGIBLE = 3.0, 1e-3


def gray_information(noise: float, skew: float = SKEW) -> float:
    """Returns I(G + noise ε; G) = h(G + noise ε) - h(noise ε) in bits, by quadrature, for a gray G = 1 - u^(1/skew)
    with u uniform in [0, 1] and ε ~ N(0, 1).
    """
    edges = np.linspace(0, 1, max(BINS, math.ceil(FINE / noise)) + 1)
    step = edges[1]
    offset = np.arange(-math.ceil(REACH * noise / step), math.ceil(REACH * noise / step) + 1) * step / noise
    kernel = np.exp(-(offset**2) / 2)
    share = np.convolve(-np.diff((1 - edges) ** skew), kernel / kernel.sum())
    entropy = -float((share * np.log2(share / step)).sum())
    return entropy - normal_entropy(noise)


def grays(distribution: Leaves, size: tuple[int, int], seeds: Sequence[int]) -> Floats:
    """Returns one value for each of N seeds, (N,), with mean I(X; G|P), in bits per pixel of images (H, W)."""
    noise = distribution.noise * distribution.std
    pixels = [np.unique(leaf, return_counts=True)[1].tolist() for leaf in distribution.cover(size, seeds)]
    told = {n: gray_information(noise / math.sqrt(n)) for n in set(chain(*pixels))}
    return np.array([sum(told[n] for n in image) for image in pixels]) / math.prod(size)


def all_disks(distribution: Leaves, bare: Pixels) -> float:
    """Returns the measure of the disks that hold any of the pixels `bare` (H, W)."""
    margin = math.ceil(distribution.r_max)
    distance = distance_transform_edt(~np.pad(bare, margin))
    return float(np.maximum(np.maximum(distance, distribution.r_min) ** -2.0 - distribution.r_max**-2.0, 0).sum()) / 2


def squared_radius(points: Floats, y: Floats, scale: Floats) -> Floats:
    """Returns r² = w + |u|² at y + scale * points (..., 3), in coordinates (u, w)."""
    at = y + scale * points
    return np.asarray(at[..., 2] + (at[..., :2] ** 2).sum(-1))


def graded(distribution: Leaves, parts: Floats, y: Floats, scale: Floats) -> tuple[Floats, Floats, Floats]:
    """Bisects tetrahedra (N, 4, 3) until r⁻⁴ varies little over each whose share of the measure is not negligible, and
    removes those whose disks are all smaller than r_min.

    Returns the tetrahedra, their volumes, and the mean of r⁻⁴ over their corners and center.
    """
    while True:
        square = squared_radius(np.concatenate([parts, parts.mean(1, keepdims=True)], 1), y, scale)
        small = square < distribution.r_min**2
        # r² is convex: without a large enough disk at a corner there is none inside.
        possible = ~small[:, :4].all(1)
        parts, square, small = parts[possible], square[possible], small[possible]
        density = np.maximum(square, distribution.r_min**2) ** -2.0
        volumes, mean, most = np.abs(np.linalg.det(parts[:, 1:] - parts[:, :1])) / 6, density.mean(1), density.max(1)
        uneven = (most > SPREAD * density.min(1)) | small.any(1)
        coarse = uneven & (volumes * most > NEGLIGIBLE * (volumes * mean).sum())
        if not coarse.any():
            return parts, volumes, mean
        split = parts[coarse]
        first, second = np.array(list(combinations(range(4), 2))).T
        longest = ((split[:, first] - split[:, second]) ** 2).sum(-1).argmax(1)
        row, halves = np.arange(len(split)), (split.copy(), split.copy())
        middle = (split[row, first[longest]] + split[row, second[longest]]) / 2
        halves[0][row, first[longest]] = halves[1][row, second[longest]] = middle
        parts = np.concatenate([parts[~coarse], *halves])


def like_disks(distribution: Leaves, inside: Floats, outside: Floats, disk: Floats, rng: np.random.Generator) -> float:
    """Returns the measure of the disks that hold all pixels `inside` (N, 2) and none `outside` (M, 2).

    It is computed from the volume of their polytope and random points in it. `disk`, a center and a radius (3,), is one
    of the disks.
    """
    center, r = disk[:2], disk[2]
    reach = distribution.r_max + r
    # Rows a, b with a·y + b <= 0 for the offset u of the center from that of `disk`, and y = (u, r² - |u|²).
    y = np.array([0.0, 0.0, r**2])
    rows = [np.array([[1, 0, 0, -reach], [-1, 0, 0, -reach], [0, 1, 0, -reach], [0, -1, 0, -reach]])]
    rows.append(np.array([[0, 0, 1, -(distribution.r_max**2)], [0, 0, -1, -(reach**2)]]))
    for pixels, sign in ((inside - center, 1), (outside - center, -1)):
        rows.append(sign * np.c_[-2 * pixels, np.full(len(pixels), -1), (pixels**2).sum(1)])
    planes = np.concatenate(rows)
    planes /= np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
    planes[:, 3] += planes[:, :3] @ y
    # "QJ" lets rounding decide where planes meet in one point or four vertices lie in one plane.
    corners = HalfspaceIntersection(planes, np.zeros(3), qhull_options="QJ").intersections
    scale = np.ptp(corners, axis=0)
    corners = np.concatenate([np.zeros((1, 3)), corners / scale])
    parts, volumes, mean = graded(distribution, corners[Delaunay(corners, qhull_options="QJ").simplices], y, scale)
    mass = volumes * mean
    chosen = rng.choice(len(parts), POINTS, p=mass / mass.sum())
    points = np.einsum("pk,pkd->pd", rng.dirichlet(np.ones(4), POINTS), parts[chosen])
    square = squared_radius(points, y, scale)
    allowed = (square >= distribution.r_min**2) & (square <= distribution.r_max**2)
    # r⁻³ dr = r⁻⁴ d(r²) / 2.
    return float((allowed * square**-2.0 / mean[chosen]).mean() * mass.sum() * scale.prod()) / 2


def leaves(distribution: Leaves, size: tuple[int, int], seed: int) -> tuple[Integers, Floats, Floats]:
    """Returns the visible leaves of the image of a seed, from front to back: the index of the leaf that each pixel
    shows, (H, W), their rows, columns and radii, (N, 3), and their grays, (N,).
    """
    numbers, leaf = np.unique(distribution.cover(size, [seed])[0], return_inverse=True)
    key = np.array([seed], np.uint64)
    return leaf.reshape(size), np.stack(distribution.disks(size, key, numbers), -1)[0], distribution.grays(key, numbers)


def window(distribution: Leaves, size: tuple[int, int], seed: int, seen: float = SEEN) -> float:
    """Returns the bits of the visible leaves of the image (H, W) of a seed in their order, less log₂ n!.

    Leaves whose gray is too near that of everything around them are left out. The mean over seeds estimates I(X; P).
    """
    rng = np.random.default_rng(seed)
    leaf, disks, gray = leaves(distribution, size, seed)
    faint = seen * distribution.noise * distribution.std
    bare = np.ones(size, bool)
    bits: list[float] = []
    for number, disk in enumerate(disks):
        own, other = leaf == number, bare & (leaf > number)
        everything = all_disks(distribution, bare)
        bare = other
        inside, outside = own, other
        if other.any():
            shows = np.abs(gray[leaf] - gray[number]) > faint
            nearest = distance_transform_edt(~other, return_distances=False, return_indices=True)
            inside, outside = own & shows[tuple(nearest)], other & shows
        if inside.any():
            like = like_disks(distribution, np.argwhere(inside), np.argwhere(outside), disk, rng)
            bits.append(max(0.0, math.log2(everything / like)))
    return sum(bits) - math.lgamma(len(bits) + 1) / math.log(2)


def shapes(distribution: Leaves, size: tuple[int, int], seeds: Sequence[int], seen: float = SEEN) -> Floats:
    """Returns one value for each of N seeds, (N,), with mean I(X; P), in bits per pixel of images (H, W)."""
    return np.array([window(distribution, size, seed, seen) for seed in tqdm(seeds, "shapes")]) / math.prod(size)
