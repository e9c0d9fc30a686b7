"""The options of drawing samples, which sampling, restoration and their commands share.

They are spelled once, here. The command line reads them before torch is imported, so this file imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Self, TypedDict

from diffusion.errors import require

if TYPE_CHECKING:
    from diffusion.samplers import Sampler
else:
    # The command line looks annotations up when it parses, without torch.
    Sampler = object

# The ways in which images larger than those of a model are put together of tiles of its size.
TILES = ("sequential", "windows")


class DrawOptions(TypedDict, total=False):
    """The keywords of `Model.sample`, `film`, `trajectory`, `restore` and `inpaint`: the fields of `Draw`."""

    steps: int | None
    sampler: str | Sampler | None
    seed: int
    label: int | str | Sequence[int] | None
    guidance: float | None
    batch: int | None


class SampleOptions(DrawOptions, total=False):
    """The keywords of `Model.sample` and `samples`: the fields of `SampleDraw`."""

    size: int | Sequence[int] | None
    tiles: str
    overlap: int | None
    around: object
    place: Sequence[int] | None
    through: object


@dataclass(frozen=True)
class Draw:
    """The number of samples, and the options of drawing them. None is the default of the run or of the method."""

    n: int = 16
    """How many to draw."""
    steps: int | None = None
    """Steps of the sampler."""
    sampler: str | Sampler | None = None
    """The sampler, instead of the default."""
    seed: int = 0
    """Seed of the noise; the same seed gives the same images."""
    label: int | str | Sequence[int] | None = None
    """Class name or number."""
    guidance: float | None = None
    """Classifier-free guidance scale; 1 is off."""
    batch: int | None = None
    """Images at a time; by default as many as suit the device."""

    def checked(self) -> Self:
        """These options. Raises InputError for a number of samples or a batch below 1, and for what is no number."""
        for name, value in (("n", self.n), ("steps", self.steps), ("seed", self.seed), ("batch", self.batch)):
            require(value is None or isinstance(value, Integral), name, "a whole number", repr(value))
        require(self.guidance is None or isinstance(self.guidance, Real), "guidance", "a number", repr(self.guidance))
        require(self.n >= 1, "n", "at least 1", self.n)
        require(self.batch is None or self.batch >= 1, "batch", "at least 1", self.batch)
        return self


@dataclass(frozen=True)
class SampleDraw(Draw):
    """The options of drawing samples, which may be larger than the images of the model, or seen through holes."""

    size: int | Sequence[int] | None = None
    """Height and width, or one number for both; by default those of the model."""
    tiles: str = TILES[0]
    """How larger images are put together, one of `TILES`."""
    overlap: int | None = None
    """The pixels that tiles share; by default half of their shorter side."""
    around: object = None
    """An image around which the larger one is drawn."""
    place: Sequence[int] | None = None
    """Where that image lies, the first row and column; by default in the middle."""
    through: object = None
    """Masks of holes through which samples are drawn, one or (n, *), True where a sample is seen (`holes`)."""
