"""Convolution of every channel of an image with a kernel that sums to 1, by the fast Fourier transform.

What lies beyond the border is a choice: "reflect" mirrors the image about its outermost pixels, as photographs are
usually treated; "circular" repeats it. A blur that repeats the image is diagonal in Fourier space, a mirrored one whose
kernel is an outer product is a matrix along the rows and one along the columns: their pseudo-inverses are exact.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.operator import Linear

Border = Literal["reflect", "circular"]

# The second singular value of a kernel that is an outer product, as a share of the first: rounding.
RANK = 1e-12
# Points along a pixel from which the kernel of a motion is drawn.
FINE = 32


class Blur(Linear):
    """(B, C, H, W) -> (B, C, H, W). A new blur has a `border` and gives its kernel."""

    border: Border

    def __post_init__(self) -> None:
        require(self.border in ("reflect", "circular"), "blur.border", "reflect or circular", repr(self.border))

    @abstractmethod
    def kernel(self) -> Tensor:
        """(h, w) float64, h and w odd, the center acting on the pixel itself."""

    def __call__(self, x: Tensor) -> Tensor:
        """kernel * x. Raises InputError where the kernel reaches beyond what a mirror holds."""
        if self.border == "circular":
            return filtered(x, transfer(self.kernel(), x))
        height, width = (side // 2 for side in self.kernel().shape)
        fits = height < x.shape[-2] and width < x.shape[-1]
        require(fits, "blur", f"given an image larger than the kernel's reach of {height}x{width}", tuple(x.shape[-2:]))
        wide = F.pad(x, (width, width, height, height), mode="reflect")
        whole = filtered(wide, transfer(self.kernel(), wide))
        return whole[..., height : height + x.shape[-2], width : width + x.shape[-1]]

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Correlation with the kernel, where the image repeats."""
        if self.border == "circular":
            return filtered(y, transfer(self.kernel(), like).conj())
        return super().adjoint(y, like)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Division by all singular values above the root of rounding: where the image repeats, those of Fourier space,
        where it is mirrored, those of rows times those of columns. The iteration for other kernels that are mirrored.
        """
        if self.border == "reflect":
            lines = factors(self.kernel())
            return super().pinv(y, like) if lines is None else unblurred(y, *lines)
        gain = transfer(self.kernel(), like)
        size = gain.abs()
        return filtered(y, torch.where(above_rounding(size, like), gain.conj() / size.square().clamp_min(1e-300), 0))


def transfer(kernel: Tensor, like: Tensor) -> Tensor:
    """The Fourier transform of a kernel (h, w) about its center on the torus of `like` (*, H, W): (H, W // 2 + 1)."""
    sides = like.shape[-2:]
    rows, columns = (
        (torch.arange(k, device=like.device) - k // 2) % n for k, n in zip(kernel.shape, sides, strict=True)
    )
    torus = torch.zeros(*sides, dtype=torch.float64, device=like.device)
    torus.index_put_((rows[:, None], columns), kernel.to(torus), accumulate=True)
    gain: Tensor = torch.fft.rfft2(torus)
    return gain.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)


def above_rounding(values: Tensor, like: Tensor) -> Tensor:
    """Which singular values count, in the precision of `like`."""
    return values > math.sqrt(torch.finfo(like.dtype).eps) * values.max()


def factors(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """The lines (h,), (w,) of which a kernel (h, w) is the outer product; None if it is none."""
    u, values, v = torch.linalg.svd(kernel)
    if len(values) > 1 and values[1] > RANK * values[0]:
        return None
    return values[0] * u[:, 0], v[0]


def unblurred(y: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """The pseudo-inverse of the mirrored blur with the outer product of two lines, of y (B, C, H, W)."""
    (u, s, v), (w, t, z) = (
        decomposed(tuple(line.tolist()), side) for line, side in zip((down, across), y.shape[-2:], strict=True)
    )
    gain = torch.outer(s, t)
    scale = torch.where(above_rounding(gain, y), 1 / gain.clamp_min(1e-300), 0)
    u, v, w, z, scale = (part.to(y.device) for part in (u, v, w, z, scale))
    return (v.mT @ (u.mT @ y.double() @ w * scale) @ z).to(y)


@lru_cache(maxsize=16)
def decomposed(line: tuple[float, ...], side: int) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and Vᵀ of `mirrored`: methods invert the same blur in every step."""
    u, s, v = torch.linalg.svd(mirrored(torch.tensor(line, dtype=torch.float64), side))
    return u, s, v


def mirrored(line: Tensor, side: int) -> Tensor:
    """The matrix of the convolution of so many pixels with a line of odd length, mirrored about the outermost ones:
    (side, side).
    """
    reach = len(line) // 2
    inputs = F.pad(torch.eye(side, dtype=line.dtype)[None], (reach, reach), mode="reflect")[0]
    return inputs.unfold(1, len(line), 1).matmul(line.flip(0)).mT


def filtered(x: Tensor, gain: Tensor) -> Tensor:
    """x (*, H, W) multiplied by the gain (H, W // 2 + 1) in Fourier space."""
    height, width = x.shape[-2:]
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=(height, width))
    return result


@dataclass(frozen=True)
class GaussianBlur(Blur):
    """A Gaussian of standard deviation `sigma` in pixels, cut off at four of them."""

    sigma: float = 2.0
    border: Border = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sigma > 0, "blur.sigma", "a positive number", self.sigma)

    def kernel(self) -> Tensor:
        """exp(-i²/2σ²) along either side."""
        radius = math.ceil(4 * self.sigma)
        line = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float64).square() / (2 * self.sigma**2))
        return torch.outer(line, line) / line.sum() ** 2


@dataclass(frozen=True)
class BoxBlur(Blur):
    """The mean of a square of `size` pixels a side, an odd number."""

    size: int = 5
    border: Border = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1 and self.size % 2, "box.size", "an odd number of pixels", self.size)

    def kernel(self) -> Tensor:
        """1/size²."""
        return torch.full((self.size, self.size), self.size**-2, dtype=torch.float64)


@dataclass(frozen=True)
class MotionBlur(Blur):
    """Motion at constant speed over `length` pixels, `angle` degrees against the clock from the right."""

    length: float = 9.0
    angle: float = 0.0
    border: Border = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length > 0, "motion.length", "a positive number", self.length)

    def kernel(self) -> Tensor:
        """A line segment about the center, each of its points shared by the four pixels around it."""
        radius = math.ceil(self.length / 2)
        count = FINE * math.ceil(self.length)
        along = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * self.length
        turn = math.radians(self.angle)
        rows, columns = radius - along * math.sin(turn), radius + along * math.cos(turn)
        pixels = torch.arange(2 * radius + 1, dtype=torch.float64)
        down, right = ((1 - (pixels[:, None] - places).abs()).clamp_min(0) for places in (rows, columns))
        return down @ right.mT / count


@dataclass(frozen=True)
class KernelBlur(Blur):
    """Any kernel (h, w) of odd sides, scaled to sum to 1."""

    values: Tensor
    border: Border = "reflect"

    def __post_init__(self) -> None:
        super().__post_init__()
        odd = self.values.ndim == 2 and all(side % 2 for side in self.values.shape)
        require(odd, "blur.values", "a kernel (h, w) of odd sides", tuple(self.values.shape))
        require(float(self.values.sum()) != 0, "blur.values", "a kernel that does not sum to 0", 0)

    def kernel(self) -> Tensor:
        """Itself."""
        values = self.values.double()
        return values / values.sum()
