"""The form that files are decoded to: bands, the values that become 0 and 1, and the number of gray levels between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion.data.spec import MAX_CHANNELS, MAX_LEVELS, DataSpec

Pixels: TypeAlias = npt.NDArray[Any]
Color: TypeAlias = tuple[int, int, int]
Range: TypeAlias = tuple[float, float]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class PixelFormat:
    """The form that files are decoded to: C `channels` of `levels` gray levels between the ends of a `value_range`.

    C is 1 for gray, 2 for two bands or gray and alpha, 3 for RGB, 4 for RGB and alpha or any four bands, up to 16 for
    as many bands. Transparent pixels are composited on the `background`, an RGB color of 8 bits, where alpha is no
    channel of its own.

    The lower end of `value_range`, in the values of the files, becomes 0 in units, and its upper end 1. Without a range
    these are 0 and the largest value of the file's own depth. `levels` is None for continuous data, which may reach
    beyond [0, 1]; the values of others are rounded to the nearest level and clipped.

    Decoded pixels are uint8 for up to 256 levels, uint16 for up to 65,536, and float32 in units for continuous data.

    Raises ValueError for other numbers of channels or levels, and for a range that is not an increasing pair.
    """

    channels: int = 3
    background: Color = WHITE
    value_range: Range | None = None
    levels: int | None = 256

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ValueError(f"data.channels: must be 1 to {MAX_CHANNELS}, got {self.channels}")
        if self.levels is not None and not 2 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"levels: must be None or lie in 2..{MAX_LEVELS}, got {self.levels}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"data.range: must be an increasing pair, got {list(self.value_range)}")

    @classmethod
    def of(cls, spec: DataSpec, background: Color = WHITE) -> PixelFormat:
        """Returns the format of the images that a model was trained on."""
        return cls(spec.shape[0], background, spec.value_range, spec.levels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of decoded pixels."""
        if self.levels is None:
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.levels <= 256 else np.uint16)

    @property
    def top(self) -> int:
        """The decoded value that is 1 in units."""
        return 1 if self.levels is None else self.levels - 1

    def stored(self, values: npt.NDArray[Any], value_range: Range) -> Pixels:
        """Maps the values of a file (*), of any type, to decoded pixels (*) such that `value_range` becomes [0, 1]."""
        low, high = value_range
        scaled = values.astype(np.float64)
        scaled -= low
        if self.levels is None:
            return (scaled / (high - low)).astype(np.float32)
        if high - low != self.top:
            scaled *= self.top
            scaled /= high - low
        return np.rint(scaled).clip(0, self.top).astype(self.dtype)


RGB = PixelFormat()


def levels_between(value_range: Range) -> int | None:
    """Returns the number of whole numbers in a range, or None where there are too many or its ends are none."""
    low, high = value_range
    whole = float(low).is_integer() and float(high).is_integer()
    return int(high - low) + 1 if whole and high - low < MAX_LEVELS else None


def to_tensor(pixels: Pixels, pixel_format: PixelFormat = RGB) -> Tensor:
    """Converts decoded pixels (H, W, C) of a format to units, a float tensor (C, H, W)."""
    values = pixels.astype(np.int32) if pixels.dtype == np.uint16 else pixels
    tensor = torch.tensor(values).permute(2, 0, 1)
    return tensor if pixel_format.levels is None else tensor / pixel_format.top
