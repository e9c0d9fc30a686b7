"""The nearest and the second nearest of many images to each of some others, exactly, up to flips and small shifts.

The distance of a query x to an image a is min_v ‖v(x) - a‖ over `variations` v: mirrored or not, and shifted by a few
pixels with the pixels of the edge repeated, so that all variations have as many pixels.

What is orthogonal to some axes U has the norms r_x and r_a in x and a, and by the triangle inequality

    ‖x - a‖² >= ‖Ux - Ua‖² + (r_x - r_a)² = ‖x‖² + ‖a‖² - 2 (Ux·Ua + r_x r_a).

A product of matrices with few columns gives these bounds for all images. Only the images whose bound lies below the
distance of the second nearest are compared with pixel by pixel, in float64. The result is that of comparing all,
whatever the axes; principal components keep the comparisons few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.progress import track

# Returns images (B, *) by their numbers.
Read = Callable[[Sequence[int]], Tensor]
# Returns the variations (B, V, *) of images (B, *).
Vary = Callable[[Tensor], Tensor]
# The pixels by which queries are shifted.
SHIFT = 1
# The number of axes, that of the images whose principal components they are, and that of the images read at once; of
# large images these are fewer, so that they have at most so many values.
AXES, SAMPLE, CHUNK = 128, 1024, 256
SAMPLE_VALUES, CHUNK_VALUES = 2**25, 2**23
# How many images are compared with a query first, and how many times more if these do not settle it.
FIRST, MORE = 64, 8
# The images whose bounds are computed at once.
BLOCK = 2**14
# The relative error of bounds in float32: the sum of 129 products, each rounded, has less than 129/2^24.
ROUNDING = 1e-5


def variations(x: Tensor, *, shift: int = SHIFT, flip: bool = True) -> Tensor:
    """Images x (B, C, H, W), mirrored and shifted by up to `shift` pixels each way, edges repeated: (B, V, C, H, W).

    The first is x. Points (B, D) have no other variation than themselves: (B, 1, D).
    """
    if x.ndim != 4:
        return x[:, None]
    both = torch.stack([x, x.flip(-1)], 1) if flip else x[:, None]
    if not shift:
        return both
    height, width = x.shape[-2:]
    padded = F.pad(both.flatten(0, 1), (shift,) * 4, mode="replicate")
    padded = padded.reshape(*both.shape[:2], *padded.shape[1:])
    offsets = sorted(range(2 * shift + 1), key=lambda i: abs(i - shift))
    moved = [padded[..., i : i + height, j : j + width] for i in offsets for j in offsets]
    return torch.stack(moved, 2).flatten(1, 2)


def alone(x: Tensor) -> Tensor:
    """Examples (B, *) without any variation of theirs: (B, 1, *)."""
    return x[:, None]


@dataclass(frozen=True)
class Neighbors:
    """The numbers of the nearest and the second nearest image to each of N queries, (N, 2) int64, and their L2
    distances, (N, 2) float64. Where there is no second one, its number is -1 and its distance infinite.
    """

    numbers: Tensor
    distances: Tensor

    @property
    def ratios(self) -> Tensor:
        """The distance of the nearest by that of the second nearest: (N,), 0 where there is no second."""
        first, second = self.distances.unbind(1)
        return torch.where(first > 0, first / second, 0.0)


@dataclass(frozen=True)
class Index:
    """Images that are searched: how they are read, the mean and the axes (D, K) of their coordinates, and these.

    `coordinates` (N, K + 1) float32 are Ua and r_a, of images less the mean, and `squares` (N,) float32 are ‖a‖².
    """

    read: Read
    mean: Tensor
    axes: Tensor
    coordinates: Tensor
    squares: Tensor

    @classmethod
    def of(cls, read: Read, count: int, *, axes: int = AXES, progress: bool = False) -> Index:
        """Indexes `count` images, at least one, which are read once, `CHUNK` at a time."""
        dim = read(range(1)).numel()
        chosen = min(count, SAMPLE, max(1, SAMPLE_VALUES // dim))
        some = _pixels(read(torch.linspace(0, count - 1, chosen).round().long().tolist()))
        mean = some.mean(0)
        basis, found, chunk = _principal(some - mean, axes), [], _chunk(dim)
        for start in track(range(0, count, chunk), -(-count // chunk), "indexing", "batch", show=progress):
            found.append(_coordinates(_pixels(read(range(start, min(start + chunk, count)))) - mean, basis))
        coordinates, squares = (torch.cat(parts) for parts in zip(*found, strict=True))
        return cls(read, mean, basis, coordinates, squares)

    def __len__(self) -> int:
        return len(self.squares)

    def bounds(self, x: Tensor) -> Tensor:
        """Lower bounds of the squared distances of the nearest of x (V, D), less the mean, to all images: (N,) float32.

        They are below the distances by more than rounding can change, and may be below zero.
        """
        coordinates, squares = _coordinates(x, self.axes)
        both = torch.cat([-2 * coordinates, squares[:, None]], 1)
        lower = torch.empty_like(self.squares)
        for start in range(0, len(self), BLOCK):
            rows = slice(start, start + BLOCK)
            lower[rows] = (both[:, :-1] @ self.coordinates[rows].T + both[:, -1:]).amin(0)
        return lower + self.squares - ROUNDING * (self.squares + squares.max())

    def nearest(
        self, x: Tensor, vary: Vary = variations, *, same: float | None = None
    ) -> tuple[list[int], list[float]]:
        """The two nearest images to one query x (*), by the least distance of its variations: numbers and distances.

        Of images at the same distance, the one with the lower number is nearer. Given `same`, images that are no
        farther than that from the nearest one count as copies of it, and the second nearest is none of them.
        """
        query = _pixels(vary(x[None])[0]) - self.mean
        lower, count = self.bounds(query), min(FIRST, len(self))
        while True:
            candidates = lower.topk(count, largest=False)
            numbers = candidates.indices.sort().values
            squares = torch.cat([self._squares(query, part) for part in self._chunks(numbers)])
            squares, order = squares.sort(stable=True)
            numbers = numbers[order]
            second = self._second(numbers, vary, same)
            if count == len(self) or (second is not None and float(candidates.values[-1]) > float(squares[second])):
                break
            count = min(MORE * count, len(self))
        if second is None:
            return [int(numbers[0]), -1], [math.sqrt(float(squares[0])), math.inf]
        return numbers[[0, second]].tolist(), squares[[0, second]].sqrt().tolist()

    def _second(self, numbers: Tensor, vary: Vary, same: float | None) -> int | None:
        """The place, among images by increasing distance, of the first one that is no copy of the nearest; None where
        all are.
        """
        if same is None:
            return 1 if len(numbers) > 1 else None
        copy, passed = _pixels(vary(self.read(numbers[:1].tolist()))[0]) - self.mean, 1
        for part in self._chunks(numbers[1:]):
            others = (self._squares(copy, part) > same**2).nonzero()
            if len(others):
                return passed + int(others[0])
            passed += len(part)
        return None

    def _chunks(self, numbers: Tensor) -> list[Tensor]:
        """The numbers of images that are read at once."""
        chunk = _chunk(len(self.mean))
        return [numbers[start : start + chunk] for start in range(0, len(numbers), chunk)]

    def _squares(self, x: Tensor, numbers: Tensor) -> Tensor:
        """The least squared distance of any of x (V, D), less the mean, to each of some images: (N,)."""
        return _squares(x, _pixels(self.read(numbers.tolist())) - self.mean)

    def neighbors(
        self,
        queries: Iterable[Tensor],
        count: int,
        vary: Vary = variations,
        *,
        same: float | None = None,
        progress: bool = False,
    ) -> Neighbors:
        """`nearest` for each of `count` queries, (*) each."""
        found = [self.nearest(x, vary, same=same) for x in track(queries, count, "comparing", "image", show=progress)]
        numbers = torch.tensor([pair for pair, _ in found], dtype=torch.int64).reshape(-1, 2)
        return Neighbors(numbers, torch.tensor([pair for _, pair in found], dtype=torch.float64).reshape(-1, 2))


def _chunk(dim: int) -> int:
    """How many images of so many values are read at once."""
    return min(CHUNK, max(1, CHUNK_VALUES // dim))


def _pixels(x: Tensor) -> Tensor:
    """Examples (B, *) as rows (B, D) in float64."""
    return x.flatten(1).double()


def _principal(x: Tensor, axes: int) -> Tensor:
    """The first principal components of centered rows x (B, D): (D, K), orthonormal."""
    # By the smaller of the two Gram matrices, that of the rows.
    values, vectors = torch.linalg.eigh(x @ x.T)
    kept = vectors[:, values > 1e-9 * values[-1].clamp(min=1e-300)][:, -axes:]
    basis: Tensor = torch.linalg.qr(x.T @ kept).Q
    return basis


def _coordinates(x: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates Ux, r_x (B, K + 1) and the squared norms (B,) of rows x, in float32."""
    squares, inside = x.square().sum(1), x @ axes
    rest = (squares - inside.square().sum(1)).clamp(min=0).sqrt()
    return torch.cat([inside, rest[:, None]], 1).float(), squares.float()


def _squares(x: Tensor, images: Tensor) -> Tensor:
    """The least squared distance of any of x (V, D) to each of images (N, D): (N,), exactly 0 for equal ones."""
    products = x @ images.T
    squares = x.square().sum(1)[:, None] + images.square().sum(1) - 2 * products
    nearest = squares.argmin(0)
    return (x[nearest] - images).square().sum(1)
