"""Images larger than those of a model: their size, and the tiles of the model's size by which they are drawn.

Sequential tiles come one after the other, each given what it overlaps (`restoration.tiles`); the network takes a noise
level for every pixel. They may begin with an image that is known, around which they draw a larger one. Windows agree at
every step (`restoration.windows`); they are for any network, and less exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from diffusion.data import DataSpec
from diffusion.draw import TILES, SampleDraw
from diffusion.errors import InputError, require, require_one
from diffusion.model.solving import shape_of
from diffusion.restoration.tiles import Tiles, part, shared
from diffusion.restoration.tiling import Sides, Tiling


@dataclass(frozen=True)
class Larger:
    """Images of the size `image` (H, W) by a network for the size `own` (h, w), whose tiles share `overlap` pixels.

    `around` is an image (C, H', W') in units within them, which begins at the row and column `place`.
    """

    image: Sides
    own: Sides
    overlap: int
    sequential: bool
    around: Tensor | None = field(default=None, compare=False)
    place: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, spec: DataSpec, draw: SampleDraw, *, mapped: bool, around: Tensor | None = None) -> Larger | None:
        """What a draw asks for of a model, whose network is `mapped` or not; None for images of the model's size.

        `around` is the image of the draw in units, (C, H', W'). Raises InputError for a size smaller than that of the
        model in a direction, since a part of an image is no image of the data; for what needs a size without one, or
        cannot be used; and for tiles one after the other of a network that takes no noise level for every pixel.
        """
        require_one(draw.tiles, "tiles", TILES)
        if draw.size is None:
            given = draw.tiles != TILES[0] or any(value is not None for value in (draw.overlap, around, draw.place))
            rule = "given with a size, larger than that of the model"
            require(not given, "tiles, overlap, around, place", rule, "no size")
            return None
        sides = (draw.size, draw.size) if isinstance(draw.size, int) else draw.size
        image, own = shape_of(sides, spec)[1:], spec.shape[1:]
        large = all(side >= least for side, least in zip(image, own, strict=True))
        rule = f"at least {own[0]}x{own[1]}, that of the model's images, of which you may cut out a part"
        require(large, "size", rule, "x".join(map(str, image)))
        place = _placed(draw.place, around, image)
        if image == own and around is None:
            return None
        sequential = draw.tiles == TILES[0]
        if sequential and not mapped:
            raise InputError(
                "tiles: must be windows for this model, whose network takes no noise level for every pixel, got "
                "sequential; or train one that does (observed.share above 0), from this one with training.init"
            )
        rule = "sequential around an image; windows fill what diffusion inpaint --pad adds to it"
        require(sequential or around is None, "tiles", rule, draw.tiles)
        return cls(image, own, shared(image, own, draw.overlap), sequential, around, place)

    @cached_property
    def tiles(self) -> Tiles:
        """The tiles that are drawn one after the other."""
        return Tiles.over(self.image, self.own, self.overlap, self.known)

    @property
    def known(self) -> Tensor | None:
        """Which pixels are those of the image that is drawn around, (H, W) bool; None without one."""
        if self.around is None:
            return None
        known = torch.zeros(self.image, dtype=torch.bool)
        self.within(known).fill_(True)
        return known

    def within(self, values: Tensor) -> Tensor:
        """The part of images (*, H, W) where the image lies that is drawn around, as a view."""
        assert self.around is not None
        return part(values, self.place, self.around.shape[1:])

    @property
    def tiling(self) -> Tiling:
        """The windows that agree at every step."""
        down, right = (max(1, side - self.overlap) for side in self.own)
        return Tiling.whole(self.image, self.own, (down, right))

    def together(self, batch: int) -> int:
        """How many images are drawn at a time, where the network sees `batch` examples of its own size at once."""
        return max(1, batch // (self.tiles.widest if self.sequential else self.tiling.count))


def _placed(place: Sequence[int] | None, around: Tensor | None, image: Sides) -> tuple[int, int]:
    """Where the image that is drawn around lies in a larger one, by default in the middle.

    Raises InputError for a place outside of it, and for an image that leaves nothing to draw.
    """
    if around is None:
        require(place is None, "place", "given with an image to draw around", place)
        return 0, 0
    down, right = (side - own for side, own in zip(image, around.shape[1:], strict=True))
    fits = min(down, right) >= 0 and max(down, right) > 0
    require(fits, "around", "an image smaller than the size", "x".join(map(str, around.shape[1:])))
    if place is None:
        return down // 2, right // 2
    two = isinstance(place, Sequence) and len(place) == 2 and all(isinstance(value, int) for value in place)
    rule = f"a row from 0 to {down} and a column from 0 to {right}"
    require(two and 0 <= place[0] <= down and 0 <= place[1] <= right, "place", rule, place)
    return place[0], place[1]
