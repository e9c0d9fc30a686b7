"""Takes the examples that people hold, and names those that cannot be taken: the border of everything that enters a
model.

An example may be a tensor, a NumPy array, an image of Pillow or the path of a file:

- Tensors and arrays are C x H x W or H x W x C, whichever fits the channels of the data. Floats are in units; integers
  are gray levels, 0 to 255 for 8-bit data.
- Images of Pillow and files are decoded as those of the data are: turned upright, converted to sRGB, and composited on
  the background of the data where they are transparent.

Values outside their range are refused with the same words for restoration, likelihood, latents and variations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion.data import DataSpec, PixelFormat
from diffusion.data.images.decoding import WHITE, Color
from diffusion.errors import InputError, range_hint, require
from diffusion.likelihood.bound import check_finite
from diffusion.model.conversion import Given, Several, as_tensor, channels_first, decoded, is_picture


@dataclass(frozen=True)
class Border:
    """Converts what is given to a model of data of a `spec`; transparent pixels get the color `background`."""

    spec: DataSpec
    background: Color = WHITE

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the largest value of an example in units; None for continuous data, which have no such."""
        return None if self.spec.levels is None else (0.0, 1.0)

    def example(self, value: Given, name: str) -> Tensor:
        """One example in units, of the shape of the data: (C, H, W) or (D,).

        Raises InputError for another kind, type, shape or range.
        """
        x = self.arranged(value, name)
        if tuple(x.shape) != self.spec.shape:
            resize = "; resize it first" if self.spec.is_image else ""
            raise InputError(f"{name}: must be {self.spec.shape} as the data, got {tuple(x.shape)}{resize}")
        x = self.units(x, name)
        check_finite(x[None], name, numbered=False)
        self._check_range(x[None], name, numbered=False)
        return x

    def batch(self, value: Several, name: str = "x") -> Tensor:
        """Examples, (B, *): integers that are gray levels, or floats in units.

        One image of Pillow or one file is a batch of one. Raises InputError for another kind, type, shape or range.
        """
        shape, x = self.spec.shape, self._several(value, name)
        last = (*shape[1:], shape[0])
        if self.spec.is_image and tuple(x.shape[1:]) == last != shape:
            x = x.permute(0, 3, 1, 2)
        elif shape[0] == 1 and x.ndim == 3 and tuple(x.shape[1:]) == shape[1:]:
            x = x[:, None]
        if tuple(x.shape[1:]) != shape or len(x) == 0:
            alone = f"; one example is {name}[None]" if tuple(x.shape) in (shape, last) else ""
            raise InputError(f"{name}: must be (B, {str(shape)[1:-1]}) of the data, got {tuple(x.shape)}{alone}")
        self._check_type(x, name)
        check_finite(x, name)
        self._check_range(x, name)
        return x

    def shown(self, value: Tensor | npt.NDArray[np.generic], name: str) -> Tensor:
        """Images of any size in units, (B, C, H, W) or one (C, H, W), to be shown.

        Raises InputError for another type or range.
        """
        x = self.units(as_tensor(value, name), name)
        if x.numel():
            check_finite(x[None], name, numbered=False)
            self._check_range(x[None], name, numbered=False)
        return x

    def latents(self, value: Several, name: str, n: int | None = None) -> Tensor:
        """Numbers like standard normal noise, (B, *) float32, for each of n examples where n is given.

        Raises InputError for other shapes and numbers that are not finite.
        """
        z, shape = as_tensor(value, name), self.spec.shape
        count = "B" if n is None else n
        fits = tuple(z.shape[1:]) == shape and len(z) and n in (None, len(z))
        require(fits, name, f"({count}, {str(shape)[1:-1]})", tuple(z.shape))
        require(z.is_floating_point(), name, "floating point, like standard normal noise", z.dtype)
        check_finite(z, name)
        return z.float()

    def arranged(self, value: Given, name: str) -> Tensor:
        """One example of any size with its channels first, of the type that it was given in; pictures are in units.

        Raises InputError for another kind or other channels.
        """
        if is_picture(value):
            if not self.spec.is_image:
                raise InputError(f"{name}: must be a point, of the shape {self.spec.shape}, got an image")
            return decoded(value, PixelFormat.of(self.spec, self.background), name)
        x, (channels, *sides) = as_tensor(value, name), self.spec.shape
        rule = f"of {channels} channels, (C, H, W)" if sides else f"of the shape {self.spec.shape} of the data"
        if sides:
            x = channels_first(x, channels, name, torch_order=isinstance(value, Tensor))
        require(x.ndim == len(self.spec.shape) and x.shape[0] == channels and x.numel(), name, rule, tuple(x.shape))
        return x

    def units(self, x: Tensor, name: str) -> Tensor:
        """Values that were given, in units: integers are gray levels, or the values of files for continuous data.

        Raises InputError for types that are neither, and for gray levels out of range.
        """
        self._check_type(x, name)
        if x.is_floating_point():
            return x
        spec = self.spec
        if spec.levels is not None:
            self._check_range(x[None], name, numbered=False)
            return (x.double() / spec.top).float()
        bytes_of_image = spec.is_image and x.dtype == torch.uint8
        low, high = spec.value_range or (0.0, 255.0 if bytes_of_image else 1.0)
        return ((x.double() - low) / (high - low)).float()

    def _several(self, value: Several, name: str) -> Tensor:
        if is_picture(value):
            return self.arranged(value, name)[None]
        held = isinstance(value, (list, tuple)) and any(
            isinstance(v, (Tensor, np.ndarray)) or is_picture(v) for v in value
        )
        if not held:
            return as_tensor(value, name)
        parts = [self.arranged(each, f"{name}[{i}]") for i, each in enumerate(value)]  # type: ignore[arg-type]
        for i, part in enumerate(parts):
            if tuple(part.shape) != self.spec.shape:
                raise InputError(f"{name}[{i}]: must be {self.spec.shape} as the data, got {tuple(part.shape)}")
        # Gray levels and floats are not stacked, so that levels become floats beside them.
        alike = len({part.dtype for part in parts}) == 1
        return torch.stack(parts if alike else [self.units(part, f"{name}[{i}]") for i, part in enumerate(parts)])

    def _check_type(self, x: Tensor, name: str) -> None:
        levels = self.spec.levels
        if levels is not None and (x.dtype == torch.bool or (x.dtype == torch.uint8 and levels > 256)):
            raise InputError(f"{self._rule(name)}, got {str(x.dtype).removeprefix('torch.')}")

    def _rule(self, name: str) -> str:
        levels = self.spec.levels or 0
        return f"{name}: must lie in [0, 1], or be " + ("uint8" if levels == 256 else f"integers up to {levels - 1}")

    def _check_range(self, x: Tensor, name: str, *, numbered: bool = True) -> None:
        """Raises InputError unless examples (B, *), floats in units or gray levels, lie in the range of the data."""
        if self.bounds is None:
            return
        # In float64, because some integer types cannot be compared.
        exact, top = x.double(), 1 if x.is_floating_point() else self.spec.top
        least, most = float(exact.min()), float(exact.max())
        if 0 <= least <= most <= top:
            return
        number = int(((exact < 0) | (exact > top)).flatten(1).any(1).nonzero()[0])
        worst = exact[number].flatten()[(exact[number].flatten() - top / 2).abs().argmax()]
        found = f"{float(worst):g}{f' in example {number}' if numbered else ''}"
        raise InputError(f"{self._rule(name)}, got {found}{range_hint(least, most) if top == 1 else ''}")
