"""Reads mask files: which pixels of an image are known, and what is to be said of a mask before the work.

White is known and black is to be filled. A pixel that is not nearly white is filled too, so that nothing of the rim of
a soft stroke is kept. Strokes on a transparent layer are what is to be filled, whatever their color. Masks that cannot
be meant are refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from diffusion.data.images.bands import Bands
from diffusion.data.images.decoding import read_bands
from diffusion.data.images.formats import PILLOW_FORMATS
from diffusion.errors import InputError

Known = npt.NDArray[np.bool_]
Shares = npt.NDArray[np.float64]

# The share of white from which a pixel is known: JPEG and soft brushes leave white a little darker.
WHITE = 0.9
# The difference of two channels, as a share of white, from which a pixel is colored.
COLORED = 0.2
# From this share of unknown pixels on, it is said before the work which color means what.
MOSTLY = 0.75
# Turns by EXIF that exchange width and height.
ON_ITS_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True)
class Mask:
    """What a mask file says: the `known` pixels, (H, W, 1), or (H, W, C) by channel, and `notices` before the work.

    `values` describes the values of the file.
    """

    known: Known
    values: str = ""
    notices: tuple[str, ...] = ()


def read_mask(path: Path, *, inverted: bool = False, by_channel: bool = False) -> Mask:
    """Reads a mask; `inverted` says that white is to be filled, `by_channel` that each channel has a mask of its own.

    Raises InputError for a file that cannot be read, for colors that do not say what is meant, and for a mask in which
    nothing is known, with the reason as far as its values tell it.
    """
    bands = read_bands(path)
    opacity = bands.values[:, :, -1:]
    if bands.alpha and not opacity.any():
        raise InputError(f"--mask: {path} is transparent everywhere; draw on it what is to be filled")
    if bands.alpha and (opacity == 0).any():
        return _strokes(opacity > 0, path, inverted=inverted)
    white = _white(bands, path)
    shares = bands.colors.astype(np.float64) / white
    shares = shares if by_channel else _gray(shares, path)
    known = shares <= 1 - WHITE if inverted else shares >= WHITE
    low, high = bands.ends
    values = f"its values are {f'all {low:g}' if low == high else f'{low:g} to {high:g}'}, with {white:g} as white"
    if not known.any():
        kept = "black" if inverted else "white"
        cure = f"draw {kept} what is known" if low == high else f"multiply them by {white / max(high, 1e-9):.4g}"
        raise InputError(f"--mask: {path} shows nothing of the image as known: {values}; {cure}")
    return Mask(known, values, _remarks(known, path, "white" if inverted else "black"))


def _strokes(drawn: Known, path: Path, *, inverted: bool) -> Mask:
    """The mask of what is drawn (H, W, 1) on a transparent layer, which is to be filled, or if `inverted` known."""
    known = drawn if inverted else ~drawn
    says = f"{path.name}: its strokes on a transparent layer are what is {'known' if inverted else 'to be filled'}"
    return Mask(known, "it is a layer of strokes", (says, *_remarks(known, path, "what is drawn")))


def _remarks(known: Known, path: Path, filled: str) -> tuple[str, ...]:
    """What is to be said of a mask that may be meant the other way round; `filled` is what it shows as to be filled."""
    unknown = 1 - float(known.mean())
    border = np.concatenate([known[0], known[-1], known[:, 0], known[:, -1]])
    if unknown > MOSTLY:
        found = f"{unknown:.0%} of it"
    elif not border.any() and unknown > 0.5:
        found = "all but spots inside of it"
    else:
        return ()
    return (f"{path.name}: {filled} is to be filled, {found}; if the other part is meant, use --invert-mask",)


def _white(bands: Bands, path: Path) -> float:
    """Returns the value of white, by the type of the values of a mask; fractions are shares of white."""
    if bands.values.dtype.kind == "f":
        low, high = bands.ends
        if low < 0 or high > 1:
            raise InputError(
                f"--mask: {path} holds fractions from {low:g} to {high:g}; they must lie in [0, 1], with 1 for known"
            )
        return 1.0
    low, high = bands.ends
    # Arrays of a wide type hold 0 and 255, or 0 and 1, as often as their full range.
    if bands.values.dtype.itemsize > 1 and 0 <= low and high <= 255:
        return 1.0 if high <= 1 else 255.0
    full = bands.full
    if full is None:
        raise InputError(f"--mask: {path} holds values from {low:g} to {high:g}; save it as 8 bits")
    return float(full[1])


def _gray(shares: Shares, path: Path) -> Shares:
    """Returns the one channel of a mask without colors, (H, W, 1)."""
    spread = shares.max(2) - shares.min(2)
    if (spread > COLORED).any():
        row, column = np.unravel_index(int(spread.argmax()), spread.shape)
        color = "#" + "".join(f"{round(255 * float(v)):02x}" for v in shares[row, column, :3])
        raise InputError(
            f"--mask: {path} has {int((spread > COLORED).sum()):,} colored pixels, as {color} at ({column}, {row}), "
            "which do not say what is known; draw what is known white and what is to be filled black, or, if it is the "
            f"image with strokes of one color, leave out --mask and give --unknown-color {color!r}"
        )
    return np.asarray(shares.mean(2, keepdims=True))


def fitted(mask: Mask, path: Path, image: Path, size: tuple[int, int]) -> Mask:
    """Returns a mask that has the size (H, W) of its upright image.

    A mask of the size that the image had before EXIF turned it is turned in the same way, which is said. So is that the
    mask of a square image may lie on its side.

    Raises InputError for a mask of another size.
    """
    if mask.known.shape[:2] == size:
        if size[0] == size[1] and (turn := _orientation(image)) > 1 and _orientation(path) == 1:
            notice = f"{path.name}: taken as drawn on {image.name} after its turn by EXIF (tag {turn})"
            return replace(mask, notices=(*mask.notices, notice))
        return mask
    turn = _orientation(image)
    if turn in ON_ITS_SIDE and mask.known.shape[:2] == size[::-1] and _orientation(path) == 1:
        notice = f"{path.name}: turned as {image.name} is by its EXIF tag ({turn}), for it has the size before that"
        return replace(mask, known=_turned(mask.known, turn), notices=(*mask.notices, notice))
    found = mask.known.shape[1] / size[1], mask.known.shape[0] / size[0]
    same = abs(found[0] / found[1] - 1) < 0.02
    hint = f": scale it by {1 / found[0]:.4g}, without smoothing" if same else ""
    raise InputError(
        f"--mask: {path} is {mask.known.shape[1]} x {mask.known.shape[0]} pixels, but {image} is "
        f"{size[1]} x {size[0]}; a mask has the size of its image{hint}"
    )


def _orientation(path: Path) -> int:
    """Returns the turn that the EXIF data of a file asks for, 1 to 8; 1 for none and for files without EXIF."""
    try:
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, SyntaxError):  # An array, or a file that says so when its pixels are read.
        return 1


def _turned(known: Known, turn: int) -> Known:
    """Returns stored pixels (H, W, C) turned upright, as a tag that exchanges width and height asks for."""
    if turn in (6, 8):
        return np.rot90(known, 3 if turn == 6 else 1)
    transposed = known.transpose(1, 0, 2)
    return transposed if turn == 5 else transposed[::-1, ::-1]
