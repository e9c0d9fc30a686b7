"""Convolution of every channel of an image with a kernel that sums to 1, by the fast Fourier transform.

`border` chooses the values beyond the border: "reflect" mirrors the image about its outermost pixels, as is usual for
photographs; "circular" repeats the image. A circular blur is diagonal in Fourier space. A reflecting blur whose kernel
is an outer product is one matrix along the rows and one along the columns. The pseudo-inverses of both are exact.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.operator import Linear, Operator, Size
from diffusion.transfers import to_device

Border = Literal["reflect", "circular"]

# A kernel is an outer product if its second singular value is at most this share of its first, which is rounding.
RANK_TOLERANCE = 1e-12
# Points per pixel of length from which the kernel of a motion is drawn.
POINTS_PER_PIXEL = 32


class Blur(Linear):
    """A convolution of images, (B, C, H, W) -> (B, C, H, W). A subclass has a `border` and writes `kernel`."""

    border: Border

    def __post_init__(self) -> None:
        require(self.border in ("reflect", "circular"), "blur.border", "reflect or circular", repr(self.border))

    @abstractmethod
    def kernel(self) -> Tensor:
        """Returns the kernel, (h, w) float64 with h and w odd; its center is the weight of the pixel itself."""

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the convolution of x with the kernel.

        Raises InputError for a reflecting border unless the image is larger than half the kernel.
        """
        if self.border == "circular":
            return filtered(x, self._transfer(x))
        height, width = (side // 2 for side in self._kernel.shape)
        fits = height < x.shape[-2] and width < x.shape[-1]
        require(fits, "blur", f"given an image larger than the kernel's reach of {height}x{width}", tuple(x.shape[-2:]))
        wide = F.pad(x, (width, width, height, height), mode="reflect")
        whole = filtered(wide, self._transfer(wide))
        return whole[..., height : height + x.shape[-2], width : width + x.shape[-1]]

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns Aᵀ y, which for a circular border is the correlation of y with the kernel."""
        if self.border == "circular":
            return filtered(y, self._transfer(like).conj())
        return super().adjoint(y, like)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Divides y by the singular values of the blur; those below the square root of the rounding error, relative to
        the largest one, count as zero.

        For a circular border the singular values are the magnitudes of the kernel's Fourier transform, for a reflecting
        border the products of those of the rows and of the columns. If the kernel of a reflecting border is no outer
        product, conjugate gradients are used.
        """
        if self.border == "reflect":
            lines = self._lines
            return super().pinv(y, like) if lines is None else unblurred(y, *lines)
        gain = self._transfer(like)
        magnitude = gain.abs()
        inverse = gain.conj() / magnitude.square().clamp_min(1e-300)
        return filtered(y, torch.where(above_rounding(magnitude, like.dtype), inverse, 0))

    @cached_property
    def _kernel(self) -> Tensor:
        """The kernel, made once."""
        return self.kernel()

    @cached_property
    def _lines(self) -> tuple[Tensor, Tensor] | None:
        """The lines whose outer product the kernel is, if there are any."""
        return outer_factors(self._kernel)

    def _transfer(self, like: Tensor) -> Tensor:
        """The Fourier transform of the kernel on the torus of `like`."""
        sides, dtype = tuple(like.shape[-2:]), like.dtype
        return self.kept((sides, dtype), lambda: transfer(self._kernel, sides, dtype), like.device)


def transfer(kernel: Tensor, sides: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Returns the Fourier transform of a kernel (h, w), centered on pixel 0 of a torus of the sides (H, W):
    (H, W // 2 + 1), for images of a dtype.
    """
    rows, columns = ((torch.arange(k) - k // 2) % n for k, n in zip(kernel.shape, sides, strict=True))
    torus = torch.zeros(*sides, dtype=torch.float64)
    torus.index_put_((rows[:, None], columns), kernel.double(), accumulate=True)
    gain: Tensor = torch.fft.rfft2(torus)
    return gain.to(torch.complex128 if dtype == torch.float64 else torch.complex64)


def above_rounding(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns whether each singular value exceeds the largest one times the root of the rounding error of `dtype`."""
    return values > math.sqrt(torch.finfo(dtype).eps) * values.max()


def outer_factors(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns the lines (h,), (w,) whose outer product is the kernel (h, w), or None if there are none."""
    u, values, v = torch.linalg.svd(kernel)
    if len(values) > 1 and values[1] > RANK_TOLERANCE * values[0]:
        return None
    return values[0] * u[:, 0], v[0]


def unblurred(y: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Returns A⁺ y, (B, C, H, W), for the reflecting blur A whose kernel is the outer product of two lines: `down` acts
    along the columns, `across` along the rows.
    """
    height, width = y.shape[-2:]
    lines = tuple(down.tolist()), tuple(across.tolist())
    u, v, w, z, scale = inverse_factors(*lines, (height, width), y.dtype, y.device)
    return (v.mT @ (u.mT @ y.double() @ w * scale) @ z).to(y)


@lru_cache(maxsize=16)
def inverse_factors(
    down: tuple[float, ...], across: tuple[float, ...], size: Size, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Returns U, Vᵀ and W, Zᵀ of the singular value decompositions of the matrices (`mirrored`) of two lines for images
    of a size, and the inverse products of their singular values, which are 0 below the rounding of `dtype`.

    They are cached because methods invert the same blur in every step.
    """
    (u, s, v), (w, t, z) = (
        torch.linalg.svd(mirrored(torch.tensor(line, dtype=torch.float64), side))
        for line, side in zip((down, across), size, strict=True)
    )
    gain = torch.outer(s, t)
    scale = torch.where(above_rounding(gain, dtype), 1 / gain.clamp_min(1e-300), 0)
    return tuple(to_device(part, device) for part in (u, v, w, z, scale))


def mirrored(line: Tensor, side: int) -> Tensor:
    """Returns the matrix, (side, side), of the convolution of `side` pixels with a line of odd length, where the pixels
    are mirrored about the outermost ones.
    """
    reach = len(line) // 2
    inputs = F.pad(torch.eye(side, dtype=line.dtype)[None], (reach, reach), mode="reflect")[0]
    return inputs.unfold(1, len(line), 1).matmul(line.flip(0)).mT


def filtered(x: Tensor, gain: Tensor) -> Tensor:
    """Multiplies x (*, H, W) by a gain (H, W // 2 + 1) in Fourier space."""
    height, width = x.shape[-2:]
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=(height, width))
    return result


@dataclass(frozen=True)
class GaussianBlur(Blur):
    """A blur with a Gaussian of standard deviation `sigma` in pixels, cut off at four standard deviations."""

    essential: ClassVar[tuple[str, ...]] = ("sigma",)

    sigma: float = 2.0
    border: Border = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sigma > 0, "blur.sigma", "a positive number", self.sigma)

    def kernel(self) -> Tensor:
        """Returns exp(-(i² + j²)/2σ²), normalized."""
        radius = math.ceil(4 * self.sigma)
        line = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float64).square() / (2 * self.sigma**2))
        return torch.outer(line, line) / line.sum() ** 2


@dataclass(frozen=True)
class BoxBlur(Blur):
    """A blur that takes the mean over a square of `size` x `size` pixels, an odd number."""

    essential: ClassVar[tuple[str, ...]] = ("size",)

    size: int = 5
    border: Border = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1 and self.size % 2, "box.size", "an odd number of pixels", self.size)

    def kernel(self) -> Tensor:
        """Returns 1/size² everywhere."""
        return torch.full((self.size, self.size), self.size**-2, dtype=torch.float64)


@dataclass(frozen=True)
class MotionBlur(Blur):
    """The blur of a motion at constant speed over `length` pixels, `angle` degrees counterclockwise from the right."""

    essential: ClassVar[tuple[str, ...]] = ("length",)

    length: float = 9.0
    angle: float = 0.0
    border: Border = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length > 0, "motion.length", "a positive number", self.length)

    def kernel(self) -> Tensor:
        """Returns a line segment about the center, each of whose points is shared by the four pixels around it."""
        radius = math.ceil(self.length / 2)
        count = POINTS_PER_PIXEL * math.ceil(self.length)
        along = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * self.length
        turn = math.radians(self.angle)
        rows, columns = radius - along * math.sin(turn), radius + along * math.cos(turn)
        pixels = torch.arange(2 * radius + 1, dtype=torch.float64)
        down, right = ((1 - (pixels[:, None] - points).abs()).clamp_min(0) for points in (rows, columns))
        return down @ right.mT / count


@dataclass(frozen=True)
class KernelBlur(Blur):
    """A blur with any kernel `values` (h, w) of odd sides, scaled to sum to 1; by default the kernel of one pixel.

    `file` is the image of a kernel, whose values `loaded` takes.
    """

    essential: ClassVar[tuple[str, ...]] = ("file",)

    values: Tensor | None = None
    border: Border = "reflect"
    file: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values is None:
            return
        odd = self.values.ndim == 2 and all(side % 2 for side in self.values.shape)
        require(odd, "blur.values", "a kernel (h, w) of odd sides", tuple(self.values.shape))
        require(float(self.values.sum()) != 0, "blur.values", "a kernel that does not sum to 0", 0)

    def loaded(self, read: Callable[[str], Tensor]) -> KernelBlur:
        """Returns the blur with the kernel that `read` finds in the file, if one is named."""
        return replace(self, values=read(self.file), file="") if self.file else self

    def kernel(self) -> Tensor:
        """Returns the values divided by their sum.

        Raises InputError while the file is not read.
        """
        require(not self.file, "kernel.file", "read before (`loaded`)", self.file)
        values = torch.ones(1, 1).double() if self.values is None else self.values.double()
        return values / values.sum()


OPERATORS: dict[str, type[Operator]] = {
    "blur": GaussianBlur,
    "box": BoxBlur,
    "kernel": KernelBlur,
    "motion": MotionBlur,
}
