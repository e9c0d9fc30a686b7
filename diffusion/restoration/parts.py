"""The parts of a problem that can be solved by themselves, so that cost follows what is unknown and not the image.

A mask without noise leaves nothing to restore where it shows the image, and neither does a map of noise where it is 0.
Pixels to restore that are so far apart that no window sees two of them are then independent given the others, as far as
windows can tell: every estimate of one is made from windows that do not see the other. Each group of pixels to restore
is a problem of its own, for the pixels of the windows that touch it. All other problems have one part, the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.operators import Crop, Mask
from diffusion.restoration.fitting import at_least, sides
from diffusion.restoration.noise_maps import Noise
from diffusion.restoration.problem import Problem
from diffusion.restoration.tiling import Sides, Tiling
from diffusion.transfers import to_device


@dataclass(frozen=True)
class Part:
    """A part of a problem: the problem for x (C, P) of the P pixels of a tiling.

    The values of x at the row-major `places` (V,) are the values `targets` (V,) of those that are to be restored in the
    image. Without a tiling the part is the whole problem, and places of None stand for all of its values.
    """

    problem: Problem
    tiling: Tiling | None = None
    places: Tensor | None = None
    targets: Tensor | None = None

    @property
    def count(self) -> int:
        """V, the number of values that are to be restored."""
        return math.prod(self.problem.x_shape) if self.places is None else len(self.places)

    def values(self, x: Tensor) -> Tensor:
        """The values of solutions x (n, C, *) that are to be restored: (n, V)."""
        pixels = math.prod(self.problem.x_shape[1:])
        # Where parts are solved together, a part with fewer pixels than the largest is filled up at the end.
        flat = (x.flatten(2)[:, :, :pixels] if self.tiling else x).flatten(1)
        return flat if self.places is None else flat.index_select(1, to_device(self.places, x.device))


def unsettled(problem: Problem) -> Tensor | None:
    """Where an example has values to restore, hidden or seen in noise: bool that broadcasts against it; None for
    everywhere.
    """
    known = problem.operator.known.cpu() if isinstance(problem.operator, Mask) else torch.ones((), dtype=torch.bool)
    if isinstance(problem.noise, Tensor):
        exact = known & (problem.noise[0] == 0)
        return ~exact if exact.any() else None
    return ~known if isinstance(problem.operator, Mask) and not problem.noise else None


def split(problem: Problem, window: Sides) -> list[Part]:
    """The parts of a problem for windows of a size; none where nothing is to be restored."""
    wanted = unsettled(problem)
    if wanted is None:
        return [Part(problem)]
    wanted = wanted.broadcast_to(problem.x_shape)
    order = wanted.flatten().nonzero().flatten()
    if sides(problem) == window:
        return [Part(problem, None, order, torch.arange(len(order)))]
    return _separate(problem, wanted, order, window)


def _separate(problem: Problem, wanted: Tensor, order: Tensor, window: Sides) -> list[Part]:
    """The parts around groups of the values that are to be restored in an image, (C, H, W), at the places `order`."""
    size, y, noise = sides(problem), problem.y[0], problem.noise
    known = problem.operator.known.cpu() if isinstance(problem.operator, Mask) else torch.ones((), dtype=torch.bool)
    known, touched, origin = known.broadcast_to(problem.x_shape), wanted.any(0), None
    # A side shorter than a window is the middle of one of whose margins nothing is known.
    margins = Crop(*size).margins(at_least(size, window))
    if any(margins):
        known, wanted, y, touched = (F.pad(x, margins) for x in (known, wanted, y, touched))
        noise = F.pad(noise, margins) if isinstance(noise, Tensor) else noise
        origin = F.pad(torch.arange(math.prod(size)).reshape(size), margins, value=-1).flatten()
    known, wanted, y, parts = known.flatten(1), wanted.flatten(1), y.flatten(1), []
    for rows, columns in groups(touched, window):
        pixels, tiling = _surroundings(rows, columns, touched.shape, window)
        shown, come_from = known[:, pixels], pixels if origin is None else origin[pixels]
        seen_in = noise.flatten(2)[:, :, pixels] if isinstance(noise, Tensor) else noise
        part = Problem(Mask(shown), y[None, :, pixels], seen_in, (len(y), len(pixels)))
        places = wanted[:, pixels].flatten().nonzero().flatten()
        found = places // len(pixels) * math.prod(size) + come_from[places % len(pixels)]
        parts.append(Part(part, tiling, places, torch.searchsorted(order, found)))
    return parts


def _surroundings(rows: Tensor, columns: Tensor, size: Sides, window: Sides) -> tuple[Tensor, Tiling]:
    """The pixels around hidden ones that windows with a hidden one see, as row-major places in the image (P,), and the
    tiling of these windows. They reach one window's length around the hidden pixels.
    """
    top, left = (max(0, int(line.min()) - side + 1) for line, side in zip((rows, columns), window, strict=True))
    bottom, right = (
        min(length, int(line.max()) + side) for line, side, length in zip((rows, columns), window, size, strict=True)
    )
    hidden = torch.zeros(bottom - top, right - left, dtype=torch.bool)
    hidden[rows - top, columns - left] = True
    tiling, places = Tiling.around(hidden, window)
    return (top + places // tiling.width) * size[1] + left + places % tiling.width, tiling


def groups(hidden: Tensor, window: Sides) -> list[tuple[Tensor, Tensor]]:
    """Groups of hidden pixels (H, W) of which no window sees two: the rows and columns of each group's pixels.

    Two pixels of one group may be so far apart that no window sees both, but pixels of two groups always are.
    """
    rows, columns = hidden.nonzero().unbind(1)
    if not len(rows):
        return []
    # Pixels of one cell of a window's size are seen by one window, and those of cells that do not touch never are.
    across = -(-hidden.shape[1] // window[1])
    cells, cell = torch.unique(rows // window[0] * across + columns // window[1], return_inverse=True)
    first, second = _near(cells, cell, rows, columns, across, window)
    label = _connected(len(cells), first, second)[cell]
    order = label.argsort(stable=True)
    counts = [count for count in torch.bincount(label).tolist() if count]
    return list(zip(torch.split(rows[order], counts), torch.split(columns[order], counts), strict=True))


def _near(
    cells: Tensor, cell: Tensor, rows: Tensor, columns: Tensor, across: int, window: Sides
) -> tuple[Tensor, Tensor]:
    """Pairs of neighboring `cells` (K,), numbered row by row with `across` in a row, whose hidden pixels a window may
    see at once, by the rectangles around these: indices into `cells`. `cell` (N,) is the index of each pixel's cell.
    """

    def bound(line: Tensor, reduce: str) -> Tensor:
        return line.new_zeros(len(cells)).scatter_reduce(0, cell, line, reduce, include_self=False)

    lines = [(bound(line, "amin"), bound(line, "amax")) for line in (rows, columns)]
    pairs = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        inside = (cells % across + right >= 0) & (cells % across + right < across)
        neighbor = torch.searchsorted(cells, cells + down * across + right).clamp_max(len(cells) - 1)
        near = inside & (cells[neighbor] == cells + down * across + right)
        for (low, high), side in zip(lines, window, strict=True):
            near &= torch.maximum(low[neighbor] - high, low - high[neighbor]) < side
        pairs.append(torch.stack([near.nonzero().flatten(), neighbor[near]]))
    return torch.cat(pairs, 1)[0], torch.cat(pairs, 1)[1]


def _connected(count: int, first: Tensor, second: Tensor) -> Tensor:
    """The least number that each of 0, ..., `count` - 1 is connected to by pairs: (count,)."""
    label = torch.arange(count)
    while True:
        # The least label of each pair goes to both, and to what they were labeled with; then labels are followed.
        least = torch.minimum(label[first], label[second])
        ends = torch.cat([first, second, label[first], label[second]])
        following = label.scatter_reduce(0, ends, least.repeat(4), "amin")
        following = following[following]
        if torch.equal(following, label):
            return label
        label = following


def together(problems: Sequence[Problem], n: int) -> Problem:
    """The problems of several parts, for (C, P) each, as one, of n examples for each of them in turn.

    Parts of fewer pixels than the largest are filled up with unknown zeros. A single problem remains as it is.
    """
    if len(problems) == 1:
        return problems[0]
    pixels = max(problem.x_shape[1] for problem in problems)
    known, y, noise = [], [], []
    for problem in problems:
        spare = 0, pixels - problem.x_shape[1]
        known.append(F.pad(problem.mask("parts").known, spare))
        y.append(F.pad(problem.y[0], spare))
        if isinstance(problem.noise, Tensor):
            noise.append(F.pad(problem.noise[0], spare))
    rows = torch.stack(y).repeat_interleave(n, 0)
    operator = Mask(torch.stack(known).repeat_interleave(n, 0))
    # Of one problem all parts have maps of noise, or none has noise.
    levels: Noise = torch.stack(noise).repeat_interleave(n, 0) if noise else 0.0
    return Problem(operator, rows, levels, tuple(rows.shape[1:]), examples=len(rows))
