"""What is seen of the examples that a network learns restoration from: laws of masks, and the noise of what they show.

A law draws a mask, True where an example is seen. Every law leaves something unseen, and shows something unless the
example has a single pixel. `Observing` chooses a law for each of a share of the examples, and how well its pixels are
seen: exactly in most, in noise of a random strength in the others, which may differ from pixel to pixel. All of it is a
function of the seed of the example.

    box      all but a rectangle
    half     one side of a line
    pixels   random pixels, from one in a hundred to nine in ten
    strokes  all but thick strokes, as a brush leaves them
    frame    a rectangle in the middle: what is around it is unseen
    blocks   some of the squares of a grid

Masks that are given are a law too (`Given`), those of a folder. Completed examples, whose holes were filled by draws,
are also seen as they and others were before.

A share of the examples teaches the other part of the chain rule, log p(seen): nobody has seen what the law leaves, and
what it shows is under the noise of the trajectory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffusion.data.dataset import Rows
from diffusion.errors import require, require_one

Known = npt.NDArray[np.bool_]
Relative = npt.NDArray[np.float32]
Generator = np.random.Generator
# The level of pixels that nobody has seen, `levels.UNSEEN` of the theory, which data do not know.
UNSEEN = np.float32(np.inf)
# The share of the examples seen in noise whose noise differs from pixel to pixel.
UNEVEN = 0.25
# The share of the completed examples with something observed that are seen through a mask of the data.
THROUGH_HOLES = 0.5


class MaskLaw(ABC):
    """A distribution of masks for examples of any size."""

    @abstractmethod
    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws which pixels of an image (H, W), or coordinates of a point (D,), are seen."""

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape` that leaves something unseen, and shows something where there is more than one value.

        The few that do not are changed at one random place.
        """
        known = self.draw(shape, rng)
        if known.size > 1 and not known.any():
            known.flat[rng.integers(known.size)] = True
        if known.all():
            known.flat[rng.integers(known.size)] = False
        return known


@dataclass(frozen=True)
class Box(MaskLaw):
    """All is seen but a rectangle whose sides are 20 % to 80 % of the image's."""

    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape`."""
        known = np.ones(shape, dtype=bool)
        known[_rectangle(shape, rng, 0.2, 0.8)] = False
        return known


@dataclass(frozen=True)
class Half(MaskLaw):
    """One side of a line of any direction is seen, at least a fifth and at most four fifths of its distances."""

    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape`."""
        along = _ramp(shape, rng)
        return along < rng.uniform(0.2, 0.8)


@dataclass(frozen=True)
class Pixels(MaskLaw):
    """Each pixel is seen with a probability that is log-uniform from 1 % to 90 %."""

    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape`."""
        share = math.exp(rng.uniform(math.log(0.01), math.log(0.9)))
        return rng.random(shape) < share


@dataclass(frozen=True)
class Strokes(MaskLaw):
    """All is seen but one to four strokes of a brush, each of a few straight pieces."""

    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape`."""
        places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(np.float32)
        known, longest = np.ones(shape, dtype=bool), max(shape)
        for _ in range(rng.integers(1, 5)):
            start, radius = rng.uniform(0, shape), rng.uniform(0.02, 0.1) * longest
            for _ in range(rng.integers(1, 5)):
                end = start + rng.normal(0, 0.25 * longest, len(shape))
                known &= _distance(places, start, end) > max(radius, 0.7)
                start = end
        return known


@dataclass(frozen=True)
class Frame(MaskLaw):
    """A rectangle is seen whose sides are 30 % to 80 % of the image's, anywhere; what is around it is not."""

    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape`."""
        known = np.zeros(shape, dtype=bool)
        known[_rectangle(shape, rng, 0.3, 0.8)] = True
        return known


@dataclass(frozen=True)
class Blocks(MaskLaw):
    """Each square of a grid is seen with a probability from 10 % to 90 %; its sides are 5 % to 30 % of the longest."""

    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape`."""
        side = max(1, round(rng.uniform(0.05, 0.3) * max(shape)))
        coarse = rng.random([-(-length // side) + 1 for length in shape]) < rng.uniform(0.1, 0.9)
        first = rng.integers(side, size=len(shape))
        lines = [(np.arange(length) + start) // side for length, start in zip(shape, first, strict=True)]
        return coarse[np.ix_(*lines)]


@dataclass(frozen=True)
class Given(MaskLaw):
    """What is seen is that of a random one of masks `seen` (N, 1, *), or (N, D): those of a folder, or of the data."""

    seen: npt.NDArray[np.uint8] | Rows

    def draw(self, shape: tuple[int, ...], rng: Generator) -> Known:
        """Draws a mask of `shape`, which the masks have too."""
        found: Known = np.asarray(self.seen[np.array([rng.integers(len(self.seen))])]).reshape(shape) != 0
        return found


@dataclass(frozen=True)
class Observing:
    """The observed pixels of training examples, which a network for restoration learns from.

    `share` is the share of the examples of which something is observed; of the others nothing is, as in sampling.
    `masks` are the laws that say what is observed, of which each example takes one, all with the same probability; of
    points any coordinates are observed. `folder` names a folder of masks of images, which are one law more; white is
    seen. `noisy` is the share of these examples that are observed in noise: its strength
    lies anywhere between none and that of the trajectory, and in a quarter of them differs from pixel to pixel.
    `unseen` is the share of these examples of which instead nobody has seen what is not observed, and what is has the
    noise of the trajectory: so the network knows how likely a part is by itself.

    `noise_mean` and `noise_std` are those of log(σ/α), normal, by which the trajectories of these examples are noised.
    They are noisier than others, as what is observed tells of an example under any noise.

    Raises InputError for an option that is out of its range.
    """

    share: float = 0.0
    masks: tuple[str, ...] = ("box", "half", "pixels", "strokes", "frame", "blocks")
    noisy: float = 0.25
    unseen: float = 0.1
    folder: str = ""
    noise_mean: float = 0.3
    noise_std: float = 1.8

    def __post_init__(self) -> None:
        require(self.noise_std > 0, "noise_std", "a positive number", self.noise_std)
        require(0 <= self.share <= 1, "share", "in [0, 1]", self.share)
        require(0 <= self.noisy <= 1, "noisy", "in [0, 1]", self.noisy)
        require(0 <= self.unseen <= 1, "unseen", "in [0, 1]", self.unseen)
        require(len(self.masks) >= 1 or bool(self.folder), "masks", f"some of {', '.join(MASKS)}", self.masks)
        for name in self.masks:
            require_one(name, "masks", MASKS)

    def __call__(
        self, shape: tuple[int, ...], seed: int, holes: Given | None = None, folder: Given | None = None
    ) -> Relative:
        """Draws the levels of the pixels of an example, relative to the trajectory's (`levels.relative`).

        `shape` is (H, W), or (D,) for points; so is the result: 1 where nothing is observed, 0 where a pixel is known
        exactly, in between where it is known in noise, and `UNSEEN` where nobody has seen it. With `holes`, half of
        what is observed goes by them. `folder` is the law of the masks of that folder, if there is one.
        """
        rng = np.random.default_rng(seed)
        levels = np.ones(shape, dtype=np.float32)
        if rng.random() >= self.share:
            return levels
        laws: list[MaskLaw] = [Pixels()] if len(shape) == 1 else [MASKS[name]() for name in self.masks]
        laws += [] if folder is None else [folder]
        law = laws[rng.integers(len(laws))] if len(shape) > 1 else laws[0]
        if holes is not None and rng.random() < THROUGH_HOLES:
            law = holes
        known = law(shape, rng)
        if rng.random() >= self.noisy:
            seen: Relative | float = 0.0
        elif rng.random() >= UNEVEN:
            seen = rng.random()
        else:
            ends = rng.random(2)
            seen = (ends[0] + (ends[1] - ends[0]) * _ramp(shape, rng)).astype(np.float32)[known]
        levels[known] = np.minimum(seen, np.nextafter(np.float32(1), np.float32(0)))
        # Drawn last, so that the other examples are those of any share.
        if self.unseen and rng.random() < self.unseen:
            return np.where(known, np.float32(1), UNSEEN)
        return levels


def _rectangle(shape: tuple[int, ...], rng: Generator, least: float, most: float) -> tuple[slice, ...]:
    """Draws a rectangle within `shape` whose sides are shares of its sides."""
    found = []
    for length in shape:
        side = min(length, max(1, round(rng.uniform(least, most) * length)))
        start = int(rng.integers(length - side + 1))
        found.append(slice(start, start + side))
    return tuple(found)


def _ramp(shape: tuple[int, ...], rng: Generator) -> npt.NDArray[np.float64]:
    """Draws a direction; returns how far along it each place lies, from 0 to 1."""
    direction = rng.normal(size=len(shape))
    lines = [np.arange(length) * slope for length, slope in zip(shape, direction, strict=True)]
    along = lines[0] if len(shape) == 1 else np.add.outer(*lines)
    spread = np.ptp(along)
    found: npt.NDArray[np.float64] = (along - along.min()) / (spread if spread > 0 else 1)
    return found


def _distance(
    places: npt.NDArray[np.float32], start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Returns the distance of places (*, n) from the line between two points (n,)."""
    along = end - start
    share = ((places - start) @ along) / max(float(along @ along), 1e-12)
    found: npt.NDArray[np.float64] = np.linalg.norm(places - start - np.clip(share, 0, 1)[..., None] * along, axis=-1)
    return found


MASKS: dict[str, type[MaskLaw]] = {
    "box": Box,
    "half": Half,
    "pixels": Pixels,
    "strokes": Strokes,
    "frame": Frame,
    "blocks": Blocks,
}
