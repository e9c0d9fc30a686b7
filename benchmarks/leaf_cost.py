"""What dead leaves cost every model of them, in bits (diffusion/data/dead_leaves.py).

An image X is noise on the grays G of leaves that divide its pixels in a partition P, and so, whatever the model,

    -E log p(X) >= h(X) = h(noise) + I(X; G|P) + I(X; P).

I(X; G|P) is a quadrature: the n pixels of a leaf are one unknown gray and noise, of which their mean says all.

I(X; P) is estimated. A disk of center c and radius r holds a pixel at x if |x|² - 2 x·c <= r² - |c|², which is linear
in c and r² - |c|². So the disks that would show the same pixels as a leaf does, of those that the leaves before it have
left bare, are the points of a convex polytope, and their measure r⁻³ dr dc, over that of all disks that would show any,
is the probability of the leaf given those before it. Their product is the probability of the leaves in their order; n
of them have n! orders at most, which bounds the entropy of P from below:

    H(P) >= E Σ_k log₂ (measure of all disks / measure of those like leaf k) - E log₂ n!

The noise hides edges between leaves of nearly the same gray, I(X; P) < H(P): a pixel is taken to say nothing of an edge
where the grays differ by less than SEEN deviations of the noise, and all of it elsewhere: the one approximation.
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

# Bins of a quadrature over grays at least, points to a deviation of the noise, and its reach.
BINS, FINE, REACH = 100, 4, 7
SEEN = 3.0
# Points drawn in a polytope.
POINTS = 400
# Tetrahedra are bisected until the density varies by this factor over each, or their share of all is this small.
SPREAD, NEGLIGIBLE = 3.0, 1e-3


def gray_information(noise: float, skew: float = SKEW) -> float:
    """What a value with noise of that standard deviation tells of a gray level G = 1 - u^(1/skew), in bits: h(G + noise
    ε) - h(noise ε), by quadrature.
    """
    edges = np.linspace(0, 1, max(BINS, math.ceil(FINE / noise)) + 1)
    step = edges[1]
    offset = np.arange(-math.ceil(REACH * noise / step), math.ceil(REACH * noise / step) + 1) * step / noise
    kernel = np.exp(-(offset**2) / 2)
    share = np.convolve(-np.diff((1 - edges) ** skew), kernel / kernel.sum())
    entropy = -float((share * np.log2(share / step)).sum())
    return entropy - normal_entropy(noise)


def grays(law: Leaves, size: tuple[int, int], seeds: Sequence[int]) -> Floats:
    """The share of each seed (N,) in I(X; G|P), their mean, in bits per pixel of images (H, W)."""
    noise = law.noise * law.std
    pixels = [np.unique(leaf, return_counts=True)[1].tolist() for leaf in law.cover(size, seeds)]
    told = {n: gray_information(noise / math.sqrt(n)) for n in set(chain(*pixels))}
    return np.array([sum(told[n] for n in image) for image in pixels]) / math.prod(size)


def all_disks(law: Leaves, bare: Pixels) -> float:
    """The measure of the disks that hold any of these pixels (H, W)."""
    margin = math.ceil(law.r_max)
    distance = distance_transform_edt(~np.pad(bare, margin))
    return float(np.maximum(np.maximum(distance, law.r_min) ** -2.0 - law.r_max**-2.0, 0).sum()) / 2


def squared_radius(points: Floats, y: Floats, scale: Floats) -> Floats:
    """r² = w + |u|² at y + scale * points (..., 3), in coordinates (u, w)."""
    at = y + scale * points
    return np.asarray(at[..., 2] + (at[..., :2] ** 2).sum(-1))


def graded(law: Leaves, parts: Floats, y: Floats, scale: Floats) -> tuple[Floats, Floats, Floats]:
    """The tetrahedra (N, 4, 3), bisected until r⁻⁴ varies little over each that counts, without those of smaller disks
    than the law's; their volumes, and the mean of r⁻⁴ over corners and middle.
    """
    while True:
        square = squared_radius(np.concatenate([parts, parts.mean(1, keepdims=True)], 1), y, scale)
        small = square < law.r_min**2
        # r² is convex: without a large enough disk at a corner there is none inside.
        possible = ~small[:, :4].all(1)
        parts, square, small = parts[possible], square[possible], small[possible]
        density = np.maximum(square, law.r_min**2) ** -2.0
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


def like_disks(law: Leaves, inside: Floats, outside: Floats, disk: Floats, rng: np.random.Generator) -> float:
    """The measure of the disks that hold all pixels `inside` (N, 2) and none `outside` (M, 2), by the volume of their
    polytope and points drawn in it; `disk`, a center and a radius (3,), is one of them.
    """
    center, r = disk[:2], disk[2]
    reach = law.r_max + r
    # Rows a, b with a·y + b <= 0 for the offset u of the center from that of `disk`, and y = (u, r² - |u|²).
    y = np.array([0.0, 0.0, r**2])
    rows = [np.array([[1, 0, 0, -reach], [-1, 0, 0, -reach], [0, 1, 0, -reach], [0, -1, 0, -reach]])]
    rows.append(np.array([[0, 0, 1, -(law.r_max**2)], [0, 0, -1, -(reach**2)]]))
    for pixels, sign in ((inside - center, 1), (outside - center, -1)):
        rows.append(sign * np.c_[-2 * pixels, np.full(len(pixels), -1), (pixels**2).sum(1)])
    planes = np.concatenate(rows)
    planes /= np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
    planes[:, 3] += planes[:, :3] @ y
    # "QJ" lets rounding decide where planes meet in one point or four vertices lie in one plane.
    corners = HalfspaceIntersection(planes, np.zeros(3), qhull_options="QJ").intersections
    scale = np.ptp(corners, axis=0)
    corners = np.concatenate([np.zeros((1, 3)), corners / scale])
    parts, volumes, mean = graded(law, corners[Delaunay(corners, qhull_options="QJ").simplices], y, scale)
    mass = volumes * mean
    chosen = rng.choice(len(parts), POINTS, p=mass / mass.sum())
    points = np.einsum("pk,pkd->pd", rng.dirichlet(np.ones(4), POINTS), parts[chosen])
    square = squared_radius(points, y, scale)
    allowed = (square >= law.r_min**2) & (square <= law.r_max**2)
    # r⁻³ dr = r⁻⁴ d(r²) / 2.
    return float((allowed * square**-2.0 / mean[chosen]).mean() * mass.sum() * scale.prod()) / 2


def leaves(law: Leaves, size: tuple[int, int], seed: int) -> tuple[Integers, Floats, Floats]:
    """The leaves that the image of a seed shows, from front to back: which of them each pixel shows, (H, W), their
    rows, columns and radii, (N, 3), and their grays, (N,).
    """
    numbers, leaf = np.unique(law.cover(size, [seed])[0], return_inverse=True)
    key = np.array([seed], np.uint64)
    return leaf.reshape(size), np.stack(law.disks(size, key, numbers), -1)[0], law.grays(key, numbers)


def window(law: Leaves, size: tuple[int, int], seed: int, seen: float = SEEN) -> float:
    """I(X; P) of images (H, W) is the mean of this over seeds: the bits of the leaves that one shows, in their order,
    less log₂ n!, without leaves as gray as all around them.
    """
    rng = np.random.default_rng(seed)
    leaf, disks, gray = leaves(law, size, seed)
    faint = seen * law.noise * law.std
    bare = np.ones(size, bool)
    bits: list[float] = []
    for number, disk in enumerate(disks):
        own, other = leaf == number, bare & (leaf > number)
        everything = all_disks(law, bare)
        bare = other
        inside, outside = own, other
        if other.any():
            shows = np.abs(gray[leaf] - gray[number]) > faint
            nearest = distance_transform_edt(~other, return_distances=False, return_indices=True)
            inside, outside = own & shows[tuple(nearest)], other & shows
        if inside.any():
            like = like_disks(law, np.argwhere(inside), np.argwhere(outside), disk, rng)
            bits.append(max(0.0, math.log2(everything / like)))
    return sum(bits) - math.lgamma(len(bits) + 1) / math.log(2)


def shapes(law: Leaves, size: tuple[int, int], seeds: Sequence[int], seen: float = SEEN) -> Floats:
    """The share of each seed (N,) in I(X; P), their mean, in bits per pixel of images (H, W)."""
    return np.array([window(law, size, seed, seen) for seed in tqdm(seeds, "shapes")]) / math.prod(size)
