"""Images of any size by a denoiser of one size that takes a noise level for every pixel: tiles one after the other.

    p(x) = Π_k p(x_k | x_1, ..., x_k-1)  ≈  Π_k p(x_k | those of x_1, ..., x_k-1 within tile k)

x_k are the pixels that tile k is the first to cover. What it covers besides is drawn already and known exactly, so that
drawing a tile is a restoration (`learned.py`). Nothing is approximated but that a tile does not see what lies outside
of it. That is exact where the pixels of a tile depend on those before it only through what it overlaps: in a Markov
chain along a strip, and in an image whose rows and whose columns are such chains. Windows that agree at every step
(`windows.py`) need no map of times, but blend estimates of which none knows the whole.

Tiles lie on a grid. In an image of which nothing is known they are drawn row by row. Around what is known, the tile is
next that sees the most of what is known or drawn. Where a tile meets pixels that were drawn or known at its other end
without regard to each other, it cannot make up for that: tiles are for images that grow, not for holes larger than they
are.

Tiles of which none sees what another one draws are a wave, and are drawn at once. An image that is drawn row by row has
one wave less than it has rows and columns of tiles together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.guidance import LastEstimate
from diffusion.restoration.learned import Observed
from diffusion.restoration.tiling import Sides, starts
from diffusion.samplers import RandN, Sampler, prior, sample
from diffusion.transfers import to_device

# The noise of some tiles of some examples, given the numbers of both, one of each for every row.
Noise = Callable[[Sequence[int], Sequence[int]], RandN]
Corner = tuple[int, int]


@dataclass(frozen=True)
class Tiles:
    """Tiles of `size` (h, w), by the first row and column of each, in the order in which they are drawn.

    `owner` (H, W) int32 is the number of the tile that draws a pixel, the first to cover it; -1 is what is known.
    """

    size: Sides
    corners: tuple[Corner, ...]
    owner: Tensor

    @classmethod
    def over(cls, image: Sides, size: Sides, overlap: int | None = None, known: Tensor | None = None) -> Tiles:
        """The tiles of an image (H, W), the first and the last of which are flush with it.

        Each shares `overlap` pixels with its neighbors at least (`shared`). `known` (H, W) are pixels not to draw;
        tiles with nothing else are left out.

        Raises InputError for an image smaller than a tile, and for an overlap that is not between 1 and a tile less 1.
        """
        large = all(side >= own for side, own in zip(image, size, strict=True))
        require(large, "image", f"at least {size[0]}x{size[1]}, the size of a tile", tuple(image))
        pixels = shared(image, size, overlap)
        down, right = (starts(*both, max(1, both[1] - pixels)).tolist() for both in zip(image, size, strict=True))
        corners = [(top, left) for top in down for left in right]
        if known is not None:
            corners = _outwards(corners, size, known)
        owner = torch.full(tuple(image), len(corners), dtype=torch.int32)
        for number, corner in enumerate(corners):
            part(owner, corner, size).clamp_(max=number)
        return cls(tuple(size), tuple(corners), owner if known is None else owner.masked_fill(known, -1))

    @cached_property
    def waves(self) -> list[list[int]]:
        """The numbers of the tiles that may be drawn at once, wave by wave: a tile comes after all whose pixels it
        sees.
        """
        wave: list[int] = []
        for number in range(self.count):
            seen = torch.unique(self.of(self.owner, number)).tolist()
            wave.append(1 + max((wave[other] for other in seen if 0 <= other < number), default=-1))
        waves: list[list[int]] = [[] for _ in range(1 + max(wave, default=-1))]
        for number, own in enumerate(wave):
            waves[own].append(number)
        return waves

    @property
    def count(self) -> int:
        """The number of tiles."""
        return len(self.corners)

    @property
    def widest(self) -> int:
        """The largest number of tiles in a wave."""
        return max(map(len, self.waves), default=0)

    def of(self, values: Tensor, number: int) -> Tensor:
        """The part of an image (*, H, W) that a tile covers, (*, h, w), as a view."""
        return part(values, self.corners[number], self.size)


def shared(image: Sides, size: Sides, overlap: int | None) -> int:
    """The pixels that neighboring tiles share: `overlap`, or by default half of the shorter side of a tile among those
    in whose direction an image (H, W) is larger.

    Raises InputError for an overlap that is not between 1 and that side less 1.
    """
    shorter = min([own for side, own in zip(image, size, strict=True) if side > own] or size)
    pixels = shorter // 2 if overlap is None else overlap
    require(1 <= pixels < shorter, "overlap", f"between 1 and {shorter - 1} pixels, less than a tile", pixels)
    return pixels


def part(values: Tensor, corner: Corner, size: Sides) -> Tensor:
    """The part of an image (*, H, W) that a tile at a corner covers, (*, h, w), as a view."""
    (top, left), (height, width) = corner, size
    return values[..., top : top + height, left : left + width]


def _outwards(corners: Sequence[Corner], size: Sides, known: Tensor) -> list[Corner]:
    """The corners of those tiles that draw something, each of which sees as much of what is known or drawn before it as
    any that are left; the first of several.
    """
    done, order = known.clone(), list[Corner]()
    seen = {corner: int(part(done, corner, size).sum()) for corner in corners}
    while seen := {corner: count for corner, count in seen.items() if count < size[0] * size[1]}:
        chosen = max(seen, key=lambda corner: seen[corner])
        order.append(chosen)
        part(done, chosen, size).fill_(True)
        for corner in seen:
            if all(abs(a - b) < side for a, b, side in zip(corner, chosen, size, strict=True)):
                seen[corner] = int(part(done, corner, size).sum())
    return order


@dataclass(frozen=True)
class TileByTile:
    """Draws images by their `tiles`, each of them with a `sampler` on the grid `times`.

    The denoiser is one of images of the size of a tile, and takes a map of times (`levels`). It sees `batch` tiles at
    once: those of a wave, of all images. What is drawn is what `settled` makes of an estimate, such as values that the
    data take, and later tiles see that. After each batch `watch` is called with the number of tiles that it was.
    """

    denoiser: AnyDenoiser
    sampler: Sampler
    times: Tensor
    tiles: Tiles
    batch: int = 32
    settled: Callable[[Tensor], Tensor] = lambda x: x
    watch: Callable[[int], object] = lambda count: None

    def __post_init__(self) -> None:
        require(self.batch >= 1, "batch", "at least 1", self.batch)

    @torch.no_grad()
    def __call__(self, x: Tensor, noise: Noise, label: Tensor | None = None) -> Tensor:
        """Draws what is not known of x (n, C, H, W) in its memory, where it has any finite values; returns x.

        `noise` draws that of a tile of an example, (C, h, w); label: (n,). The result is the same for any batch, up to
        the rounding of the network.
        """
        for wave in self.tiles.waves:
            for some in self._batches(wave, len(x)):
                self._draw(x, some, noise, label)
                self.watch(len(some))
        return x

    def _batches(self, wave: Sequence[int], n: int) -> Iterator[list[tuple[int, int]]]:
        """The tiles of a wave in n examples, by the batch: the number of the example and that of the tile."""
        rows = [(example, number) for number in wave for example in range(n)]
        for start in range(0, len(rows), self.batch):
            yield rows[start : start + self.batch]

    def _draw(self, x: Tensor, some: Sequence[tuple[int, int]], noise: Noise, label: Tensor | None) -> None:
        """Draws some tiles, and writes those of their pixels into x that are theirs to draw."""
        examples, numbers = [example for example, _ in some], [number for _, number in some]
        y = torch.stack([self.tiles.of(x[example], number) for example, number in some])
        owner = torch.stack([self.tiles.of(self.tiles.owner, number) for number in numbers])[:, None]
        earlier = owner < torch.tensor(numbers, dtype=owner.dtype).reshape(-1, 1, 1, 1)
        # A tile of which nothing is known is a plain sample, and is drawn as one.
        given: AnyDenoiser = self.denoiser
        if earlier.any():
            given = Observed.of(given, y, earlier, 0.0)
        randn, estimating = noise(examples, numbers), LastEstimate(given)
        start = prior(given, randn(y), self.times[0])
        labels = None if label is None else label[to_device(torch.tensor(examples), label.device)]
        sample(estimating, self.sampler, start, self.times, label=labels, randn=randn)
        # As of samples, the last estimate: x_0 has the noise of the clean end in it.
        drawn = torch.where(to_device(earlier, y.device), y, self.settled(estimating.mean))
        for row, (example, number) in enumerate(some):
            self.tiles.of(x[example], number).copy_(drawn[row])
