"""The values of a file by band, of any type and number, and their arrangement as the channels that are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from diffusion.data.images.pixel_format import Color, Range

# Rec. 601, as Pillow weighs the colors of 8-bit images.
LUMA = np.array([0.299, 0.587, 0.114])
DEEP = 65535


@dataclass(frozen=True)
class Bands:
    """The values (H, W, B) of an image in the numbers of its file.

    The first bands are `gray` (1), `rgb` (3) or bands of no known color. If `alpha`, the last band is the opacity, of
    the range `opacity`, with which the colors are multiplied already if `premultiplied`. `inverted` images show their
    lowest value as white. `white` is the largest value that the file may hold, where that of the type is larger.

    Raises ValueError for values that are not finite.
    """

    values: npt.NDArray[Any]
    kind: Literal["gray", "rgb", "bands"]
    alpha: bool = False
    premultiplied: bool = False
    inverted: bool = False
    white: int | None = None

    def __post_init__(self) -> None:
        if self.values.dtype.kind == "f" and not np.isfinite(self.values).all():
            raise ValueError("holds values that are no numbers or infinite; replace them")

    @property
    def colors(self) -> npt.NDArray[Any]:
        """The bands without alpha."""
        return self.values[:, :, :-1] if self.alpha else self.values

    @property
    def full(self) -> Range | None:
        """The values of black and white by the type of the values alone; None where it does not tell them.

        Unsigned numbers of more bits count as 16 bits if they fit into them.
        """
        kind = self.values.dtype.kind
        if self.white is not None or kind == "b":
            return 0, self.white or 1
        if kind == "u" and self.values.dtype.itemsize <= 2:
            return 0, int(np.iinfo(self.values.dtype).max)
        if kind == "u" and self.values.max() <= DEEP:
            return 0, DEEP
        return None

    @property
    def ends(self) -> Range:
        """The lowest and the highest value of its colors."""
        return self.colors.min().item(), self.colors.max().item()


def mode_of(count: int, dtype: np.dtype[Any]) -> str:
    """Returns the mode of a file that Pillow has none for, in Pillow's words where they exist."""
    if count == 1 and dtype.kind in "biuf":
        names = {"b1": "1", "u1": "L", "u2": "I;16"}
        return names.get(f"{dtype.kind}{dtype.itemsize}", "F" if dtype.kind == "f" else "I")
    return "RGB" if count == 3 and dtype == np.uint8 else f"{count} x {dtype.name}"


def no_range(bands: Bands) -> ValueError:
    """Returns the error that a file needs a range."""
    low, high = bands.ends
    found = f"all {low:.9g}" if low == high else f"from {low:.9g} to {high:.9g}"
    if bands.values.dtype.kind == "f":
        what = f"floating-point values, {found}, have no known range"
    else:
        what = f"values, {found}, do not fit into 16 bits"
    return ValueError(f"{what}; set data.range={'[LOW, HIGH]' if low == high else shown(low, high)}")


def shown(low: float, high: float) -> str:
    """Returns a range as it is written in a configuration."""
    return f"[{low:.9g}, {high:.9g}]"


def arranged(bands: Bands, channels: int, background: Color, ends: Range) -> tuple[npt.NDArray[Any], bool]:
    """Returns the values (H, W, C) of the channels that are asked for, and whether the last of them is alpha.

    `ends` are the values that become 0 and 1 in units. Alpha is scaled to them. It becomes a channel where the file
    then has as many bands as are asked for, or where gray becomes four channels; else the image is composited on the
    background. Colors become gray by their luma.

    Raises ValueError for another number of bands.
    """
    colors = bands.colors.shape[2]
    check_count(bands.kind, colors, bands.alpha, channels)
    low, high = ends
    values = bands.colors
    if bands.inverted:
        values = low + high - values.astype(np.float64)
    alpha = opacity(bands)
    if alpha is not None and bands.premultiplied:
        values = np.divide(values, alpha, out=np.zeros(values.shape), where=alpha > 0)
    # Four channels are RGB and alpha, two are gray and alpha, unless a file has that many bands of its own.
    keeps = (channels == 4 and bands.kind != "bands" and colors < 4) or channels == colors + 1
    if alpha is not None and not keeps:
        color = np.array(background) if bands.kind == "rgb" else np.array([background]) @ LUMA
        behind = low + color / 255 * (high - low)
        values = values * alpha + behind * (1 - alpha)
    wanted = channels - keeps
    if wanted != values.shape[2]:
        values = values[:, :, :3] @ LUMA[:, None] if wanted == 1 else _colored(values, wanted)
    if not keeps:
        return values, False
    last = np.ones((*values.shape[:2], 1)) if alpha is None else alpha
    return np.concatenate([values, low + last * (high - low)], axis=2), True


def opacity(bands: Bands) -> npt.NDArray[np.float64] | None:
    """Returns the opacity (H, W, 1) of an image in [0, 1]; None for a file without alpha."""
    if not bands.alpha:
        return None
    full = replace(bands, values=bands.values[:, :, -1:], alpha=False, white=None).full or (0, 1)
    return bands.values[:, :, -1:].astype(np.float64) / full[1]


def check_count(kind: str, colors: int, alpha: bool, channels: int) -> None:
    """Raises ValueError where a file of `colors` bands beside alpha cannot become as many channels as are asked for."""
    possible = {colors, colors + alpha}
    if kind == "gray":
        possible |= {1, 3, 4}
    if kind == "rgb":
        possible |= {1, 3, 4} if colors <= 4 else set()
    if channels not in possible:
        count = f"{colors} band{'s' if colors > 1 else ''}{' and alpha' if alpha else ''}"
        raise ValueError(f"holds {count}, data.channels={channels} cannot be made of them; set data.channels={colors}")


def _colored(values: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    return np.repeat(values, count, axis=2) if values.shape[2] == 1 else values[:, :, :count]


def turned(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turns an image (H, W, C) upright, by its orientation in EXIF (Exif 2.32, section 4.6.4.A)."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return values[rows, columns]
