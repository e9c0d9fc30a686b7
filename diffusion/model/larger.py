"""Images larger than those of a model: their size, and the tiles of the model's size by which they are drawn.

sequential  tiles one after the other, each given what it overlaps (`restoration.tiles`); the network takes a noise
            level for every pixel
windows     tiles that agree at every step (`restoration.windows`); for any network, and less exact
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from diffusion.data import DataSpec
from diffusion.draw import TILES, SampleDraw
from diffusion.errors import InputError, require, require_one
from diffusion.model.solving import shape_of
from diffusion.restoration.tiles import Tiles, shared
from diffusion.restoration.tiling import Sides, Tiling


@dataclass(frozen=True)
class Larger:
    """Images of the size `image` (H, W) by a network for the size `own` (h, w), whose tiles share `overlap` pixels."""

    image: Sides
    own: Sides
    overlap: int
    sequential: bool

    @classmethod
    def of(cls, spec: DataSpec, draw: SampleDraw, *, mapped: bool) -> Larger | None:
        """What a draw asks for of a model, whose network is `mapped` or not; None for images of the model's size.

        Raises InputError for a size smaller than that of the model in a direction, since a part of an image is no image
        of the data; for tiles and overlaps without a size or that cannot be used; and for tiles one after the other of
        a network that takes no noise level for every pixel.
        """
        require_one(draw.tiles, "tiles", TILES)
        if draw.size is None:
            given = draw.tiles != TILES[0] or draw.overlap is not None
            require(not given, "tiles, overlap", "given with a size, larger than that of the model", "no size")
            return None
        sides = (draw.size, draw.size) if isinstance(draw.size, int) else draw.size
        image, own = shape_of(sides, spec)[1:], spec.shape[1:]
        large = all(side >= least for side, least in zip(image, own, strict=True))
        rule = f"at least {own[0]}x{own[1]}, that of the model's images, of which you may cut out a part"
        require(large, "size", rule, "x".join(map(str, image)))
        if image == own:
            return None
        sequential = draw.tiles == TILES[0]
        if sequential and not mapped:
            raise InputError(
                "tiles: must be windows for this model, whose network takes no noise level for every pixel, got "
                "sequential; or train one that does (observed.share above 0), from this one with training.start"
            )
        return cls(image, own, shared(image, own, draw.overlap), sequential)

    @cached_property
    def tiles(self) -> Tiles:
        """The tiles that are drawn one after the other."""
        return Tiles.over(self.image, self.own, self.overlap)

    @property
    def tiling(self) -> Tiling:
        """The windows that agree at every step."""
        down, right = (max(1, side - self.overlap) for side in self.own)
        return Tiling.whole(self.image, self.own, (down, right))

    def together(self, batch: int) -> int:
        """How many images are drawn at a time, where the network sees `batch` examples of its own size at once."""
        return max(1, batch // (self.tiles.widest if self.sequential else self.tiling.count))
