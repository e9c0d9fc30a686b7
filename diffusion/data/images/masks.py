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

from diffusion.data.images.bands import Bands, turned
from diffusion.data.images.decoding import BinaryFile, read_bands, read_header
from diffusion.data.images.formats import PILLOW_FORMATS
from diffusion.errors import InputError

Known = npt.NDArray[np.bool_]
Shares = npt.NDArray[np.float32]

# The share of white from which a pixel is known: JPEG and soft brushes leave white a little darker.
WHITE = 0.9
# The difference of two channels, as a share of white, from which a pixel is colored.
COLORED = 0.2
# From this share of unknown pixels on, it is said before the work which color means what.
MOSTLY = 0.75
# So is it of a mask that fills more than this, and nearly all of the border: in other programs white is filled.
AROUND = 0.25
# The share of gray pixels from which it is said that they are filled, and from which a mask is a picture.
SOFT, PICTURE = 0.05, 0.5
# The share of colored pixels up to which a mask may be an image with strokes of one color, and the number of values up
# to which they may be meant as they are.
STROKES, FEW = 0.25, 16
# Turns by EXIF that exchange width and height.
ON_ITS_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True)
class Mask:
    """What a mask file says: the `known` pixels, (H, W, 1), or (H, W, C) by channel, and `notices` before the work."""

    known: Known
    notices: tuple[str, ...] = ()


def read_mask(
    path: Path,
    *,
    inverted: bool = False,
    by_channel: bool = False,
    file: BinaryFile | None = None,
    name: str = "",
    options: bool = True,
) -> Mask:
    """Reads a mask; `inverted` says that white is to be filled, `by_channel` that each channel has a mask of its own.

    The file may already be open as `file`. In errors the mask has a `name`, by default that of the option and its path.
    They say which `options` of a command may help, where there are any.

    Raises InputError for a file that cannot be read, for colors and transparency that do not say what is meant, and for
    a mask of different values that all say the same, with the reason as far as its values tell it.
    """
    bands, name = read_bands(path, file), name or f"--mask: {path}"
    if bands.alpha and (strokes := _drawn(bands, name)) is not None:
        return _strokes(strokes, path, inverted=inverted)
    white = _white(bands, name)
    colors = bands.colors if by_channel or _has_colors(bands.colors) else bands.colors[:, :, :1]
    shares = colors.astype(np.float32) / white
    shares = 1 - shares if bands.inverted else shares
    shares = shares if by_channel else _gray(shares, name, bands.kind, options=options)
    known = shares <= 1 - WHITE if inverted else shares >= WHITE
    low, high = bands.ends
    values = f"its values are {f'all {low:g}' if low == high else f'{low:g} to {high:g}'}, with {white:g} as white"
    gray = float(((shares > 1 - WHITE) & (shares < WHITE)).mean())
    if gray > PICTURE and len(np.unique(bands.colors)) > FEW:
        raise InputError(
            f"{name} is a picture of grays, {gray:.0%} of it neither black nor white; draw what is known white "
            "and what is to be filled black"
        )
    if not known.any() or (known.all() and low != high):
        says = "known" if known.any() else "to be filled"
        raise InputError(f"{name} shows all of the image as {says}: {values}; {_cure(bands, white)}")
    part = (f"{path.name}: {gray:.0%} of it is gray, which is filled too",) if gray > SOFT else ()
    several = read_header(path, file).frames
    first = (f"{path.name}: holds {several} images, of which the first is the mask",) if several > 1 else ()
    return Mask(known, (*first, *part, *_remarks(known, path, "white" if inverted else "black")))


def _cure(bands: Bands, white: float) -> str:
    """What to do about a mask of values that all say the same."""
    low, high = bands.ends
    levels = np.unique(bands.colors)
    if low == high or high >= WHITE * white or low < 0:
        return "draw what is known white and what is to be filled black"
    if len(levels) == 2 and low == 0:
        return f"multiply them by {white / high:.4g}"
    numbers = f"{', '.join(f'{level:g}' for level in levels[:4])}{', ...' if len(levels) > 4 else ''}"
    return f"if {numbers} are the numbers of objects, draw what is known white and the objects to be filled black"


def _has_colors(values: npt.NDArray[np.generic]) -> bool:
    """Whether the bands (H, W, B) differ."""
    return any(not np.array_equal(values[:, :, 0], values[:, :, band]) for band in range(1, values.shape[2]))


def _drawn(bands: Bands, name: str) -> Known | None:
    """What is drawn (H, W, 1) on a transparent layer, None where a mask is as opaque everywhere."""
    opacity = bands.values[:, :, -1:]
    least, most = opacity.min(), opacity.max()
    if not most:
        raise InputError(f"{name} is transparent everywhere; draw on it what is to be filled")
    if least == 0:
        return np.asarray(opacity > 0)
    if least < WHITE * most:
        raise InputError(
            f"{name} is more transparent in some parts than in others, but nowhere fully; draw what is to be "
            "filled on a transparent layer, or black on white"
        )
    return None


def _strokes(drawn: Known, path: Path, *, inverted: bool) -> Mask:
    """The mask of what is drawn (H, W, 1) on a transparent layer, which is to be filled, or if `inverted` known."""
    known = drawn if inverted else ~drawn
    says = f"{path.name}: its strokes on a transparent layer are what is {'known' if inverted else 'to be filled'}"
    return Mask(known, (says, *_remarks(known, path, "what is drawn")))


def _remarks(known: Known, path: Path, filled: str) -> tuple[str, ...]:
    """What is to be said of a mask that may be meant the other way round; `filled` is what it shows as to be filled."""
    unknown = 1 - float(known.mean())
    border = np.concatenate([known[0], known[-1], known[:, 0], known[:, -1]])
    if unknown > MOSTLY:
        found = f"{unknown:.0%} of it"
    elif unknown > AROUND and border.mean() < 1 - WHITE:
        found = f"{unknown:.0%} of it, all around what is known"
    else:
        return ()
    return (f"{path.name}: {filled} is to be filled, {found}; if the other part is meant, use --invert-mask",)


def _white(bands: Bands, name: str) -> float:
    """Returns the value of white, by the type of the values of a mask; fractions are shares of white."""
    if bands.values.dtype.kind == "f":
        low, high = bands.ends
        if low < 0 or high > 1:
            divide = f", so divide them by {high:g}" if low >= 0 else ""
            raise InputError(
                f"{name} holds fractions from {low:g} to {high:g}; they must lie in [0, 1], with 1 for known{divide}"
            )
        return 1.0
    low, high = bands.ends
    # Arrays of a wide type hold 0 and 255, or 0 and 1, as often as their full range.
    if bands.values.dtype.itemsize > 1 and low >= 0 and high <= 255:
        return 1.0 if high <= 1 else 255.0
    full = bands.full
    if full is None:
        raise InputError(f"{name} holds values from {low:g} to {high:g}; save it as 8 bits")
    return float(full[1])


def _gray(shares: Shares, name: str, kind: str, *, options: bool) -> Shares:
    """Returns the one channel of a mask without colors, (H, W, 1)."""
    spread = shares.max(2) - shares.min(2)
    count = int((spread > COLORED).sum())
    if not count:
        return np.asarray(shares.mean(2, keepdims=True))
    by_channel = "; if each channel has a mask of its own, add --mask-channels" * options
    if kind != "rgb":
        raise InputError(f"{name} has {shares.shape[2]} bands that differ in {count:,} pixels{by_channel}")
    row, column = np.unravel_index(int(spread.argmax()), spread.shape)
    color = "#" + "".join(f"{round(255 * float(v)):02x}" for v in shares[row, column])
    strokes = f"; if it is the image with strokes of one color, leave out --mask and give --unknown-color {color!r}"
    pure = bool(((shares <= 1 - WHITE) | (shares >= WHITE)).all())
    raise InputError(
        f"{name} has {count:,} colored pixels, as {color} at ({column}, {row}), which do not say what is "
        "known; draw what is known white and what is to be filled black"
        f"{strokes * (options and count <= STROKES * spread.size)}{by_channel * pure}"
    )


def fitted(
    mask: Mask, path: Path, image: Path, size: tuple[int, int], *, turn: int | None = None, name: str = "--mask"
) -> Mask:
    """Returns a mask that has the size (H, W) of its upright image, which EXIF turned by `turn`, if that is known.

    A mask of the size that the image had before EXIF turned it is turned in the same way, which is said. So is how a
    mask is taken where its size does not tell: that of a square image, or of one that lay upside down or was mirrored.

    Raises InputError for a mask of another size.
    """
    turn = _orientation(image) if turn is None else turn
    if mask.known.shape[:2] == size:
        if turn > 1 and (size[0] == size[1] or turn not in ON_ITS_SIDE) and _orientation(path) == 1:
            notice = f"{path.name}: taken as drawn on {image.name} after its turn by EXIF (tag {turn})"
            return replace(mask, notices=(*mask.notices, notice))
        return mask
    if turn in ON_ITS_SIDE and mask.known.shape[:2] == size[::-1] and _orientation(path) == 1:
        notice = f"{path.name}: turned as {image.name} is by its EXIF tag ({turn}), for it has the size before that"
        return replace(mask, known=turned(mask.known, turn), notices=(*mask.notices, notice))
    raise InputError(f"{name}: {of_another_size(path, mask.known.shape[:2], image, size)}")


def of_another_size(path: Path, own: tuple[int, ...], image: Path, size: tuple[int, ...]) -> str:
    """Returns the sentence that a mask has another size than its image, (H, W) each."""
    found = own[1] / size[1], own[0] / size[0]
    same = abs(found[0] / found[1] - 1) < 0.02
    hint = f": scale it by {1 / found[0]:.4g}, without smoothing" if same else ""
    return (
        f"{path} is {own[1]} x {own[0]} pixels, but {image} is {size[1]} x {size[0]}; a mask has the size of its "
        f"image{hint}"
    )


def _orientation(path: Path) -> int:
    """Returns the turn that the EXIF data of a file asks for, 1 to 8; 1 for none and for files without EXIF."""
    try:
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, SyntaxError):  # An array, or a file that says so when its pixels are read.
        return 1
