"""Convolution of every channel of an image with a kernel that sums to 1, by the fast Fourier transform.

What lies beyond the border is a choice: "reflect" mirrors the image about its outermost pixels, as photographs are
usually treated; "circular" repeats it, which makes the blur diagonal in Fourier space and its pseudo-inverse exact.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.base import Linear

Border = Literal["reflect", "circular"]

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
        """Where the image repeats, division in Fourier space by all that is above rounding; else the iteration."""
        if self.border == "reflect":
            return super().pinv(y, like)
        gain = transfer(self.kernel(), like)
        size = gain.abs()
        kept = size > math.sqrt(torch.finfo(like.dtype).eps) * size.max()
        return filtered(y, torch.where(kept, gain.conj() / size.square().clamp_min(1e-300), 0))


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
