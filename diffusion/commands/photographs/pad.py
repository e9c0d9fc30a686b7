"""Space around an image that is to be filled, as in `left=16,top=8` or `all=32`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion.data.images.decoding import Pixels
from diffusion.errors import InputError

SIDES = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class Pad:
    """The pixels that are added on each side of an image."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    @classmethod
    def parse(cls, text: str) -> Pad:
        """Returns what a text asks for: sides with their pixels, `all` for all four of them, or a number alone.

        Raises InputError for anything else, for numbers below 0, and where nothing is added.
        """
        found: dict[str, int] = {}
        for part in text.replace(" ", "").split(","):
            side, equals, number = part.partition("=")
            side, number = (side, number) if equals else ("all", side)
            if side not in (*SIDES, "all") or not number.isdecimal():
                raise InputError(f"--pad: must be sides and pixels, as in left=16,top=8 or all=32, got {text!r}")
            found |= dict.fromkeys(SIDES if side == "all" else (side,), int(number))
        if not any(found.values()):
            raise InputError(f"--pad: must add at least one pixel, got {text!r}")
        return cls(**found)

    def around(self, values: Pixels) -> Pixels:
        """Returns an array (H, W, *) with copies of its border on the padded sides."""
        return np.pad(values, self._widths(values), mode="edge")

    def with_false(self, known: Pixels) -> Pixels:
        """Returns a mask (H, W, *) in which nothing of the padding is known."""
        return np.pad(known, self._widths(known))

    def _widths(self, values: Pixels) -> list[tuple[int, int]]:
        return [(self.top, self.bottom), (self.left, self.right), *[(0, 0)] * (values.ndim - 2)]
