"""The color in which the unknown part of an image is drawn into it, with the rim where it is mixed with the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from diffusion.data.images.decoding import Pixels
from diffusion.errors import InputError, require

Known = npt.NDArray[np.bool_]

THRESHOLD, JPEG_THRESHOLD = 0.1, 0.35
# A rim is what lies next to the color and differs less from it than this, in [0, 1]: an anti-aliased edge is a mixture
# of the color and of what is beside it.
RIM = 0.55
# The pixels from the color that a rim reaches, and the pixels around it whose mixture cannot be told from what is
# beside it. JPEG halves the colors and spreads them within blocks of 8 and 16 pixels.
REACH, MARGIN = 2, 1
JPEG_REACH, JPEG_MARGIN = 6, 3


@dataclass(frozen=True)
class Marked:
    """The color in which unknown pixels are drawn: each of their channels differs from it by at most `threshold`, in
    [0, 1]; by default 0.1, and 0.35 in a JPEG, which blurs colors.

    Raises InputError for a threshold out of its range, and for a color that is none.
    """

    color: str
    threshold: float | None = None

    def __post_init__(self) -> None:
        require(self.threshold is None or 0 <= self.threshold <= 1, "--threshold", "in [0, 1]", self.threshold)
        try:
            ImageColor.getrgb(self.color)
        except ValueError as error:
            raise InputError(f"--unknown-color: must be a color such as #ff00ff, got {self.color!r}") from error

    def hidden(self, pixels: Pixels, *, jpeg: bool, rim: bool = True) -> Known:
        """Whether each of the pixels (H, W, 3) is drawn in the color: (H, W, 1).

        With `rim` its rim counts too, all that is near and mixed with it. In a `jpeg` colors are blurred, and the rim
        is wider.
        """
        difference = self._difference(pixels)
        threshold = (JPEG_THRESHOLD if jpeg else THRESHOLD) if self.threshold is None else self.threshold
        hidden = difference <= threshold
        if not rim:
            return hidden
        reach, margin = (JPEG_REACH, JPEG_MARGIN) if jpeg else (REACH, MARGIN)
        mixed = difference <= max(RIM, threshold)
        for _ in range(reach):
            hidden = grown(hidden, 1) & mixed | hidden
        return grown(hidden, margin)

    def _difference(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        color = np.array(ImageColor.getrgb(self.color)[:3])
        return np.asarray(np.abs(pixels.astype(np.int16) - color).max(2, keepdims=True) / 255)


def grown(hidden: Known, reach: int) -> Known:
    """Returns hidden pixels (H, W, C) and all within `reach` rows and columns of one. The cost does not depend on
    `reach`.
    """
    if reach == 0:
        return hidden
    return _down(_down(hidden, reach).transpose(1, 0, 2), reach).transpose(1, 0, 2)


def _down(hidden: Known, reach: int) -> Known:
    ends = np.cumsum(np.pad(hidden, ((reach + 1, reach), (0, 0), (0, 0))), 0, dtype=np.int32)
    return np.asarray(ends[2 * reach + 1 :] > ends[: len(hidden)])
