"""Problems for images of any size, and denoisers of images of one size, brought together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.denoiser import AnyDenoiser
from diffusion.families import flattened, period
from diffusion.guidance import informed, told
from diffusion.operators import Crop, Identity, Mask, Operator, compose
from diffusion.restoration.problem import Problem
from diffusion.restoration.tiling import Sides, Tiling
from diffusion.restoration.windows import Windows


class Fit(NamedTuple):
    """A denoiser and a problem that fit each other, for images as large as `problem.shape` says.

    `crop` cuts the image that was asked for out of a solution.
    """

    denoiser: AnyDenoiser
    problem: Problem
    crop: Operator


def fit(
    denoiser: AnyDenoiser,
    window: Sides,
    problem: Problem,
    *,
    batch: int = 32,
    watch: Callable[[float], None] = lambda share: None,
) -> Fit:
    """Fits a denoiser of images of the size `window` to a problem for an image of any size.

    Where the image is longer than the window, windows overlap. Where it is shorter, the solution is as long as the
    window: around the image it has a margin, about which y says nothing, and which `Fit.crop` cuts off. `batch` and
    `watch` are those of `Windows`. A network that is told the observation of a longer image is told its part in each
    window.
    """
    size, whole = sides(problem), at_least(sides(problem), window)
    if whole != window:
        channels, multiple = told(denoiser), 1
        if channels is not None:
            # The network has learned the operator at one phase of its pixels and blocks.
            multiple = period([*flattened(problem.stated or problem.operator)], problem.x_shape)
            denoiser = informed(denoiser, None)
        tiling = Tiling.whole(whole, window, multiple=multiple)
        denoiser = Windows(denoiser, (tiling,), batch, watch, channels)
    if whole == size:
        return Fit(denoiser, problem, Identity())
    crop, shape = Crop(*size), (problem.x_shape[0], *whole)
    stated = problem.stated or problem.operator
    if not isinstance(problem.operator, Mask | Identity):
        within = replace(problem, operator=compose(problem.operator, crop), shape=shape, stated=stated)
        return Fit(denoiser, within, crop)
    # What shows pixels stays a mask, which replacement asks for.
    margins, noise = crop.margins(whole), problem.noise
    known = problem.operator.known if isinstance(problem.operator, Mask) else torch.ones((), dtype=torch.bool)
    known = F.pad(known.broadcast_to(problem.y.shape)[0], margins)
    noise = F.pad(noise, margins) if isinstance(noise, Tensor) else noise
    return Fit(denoiser, Problem(Mask(known), F.pad(problem.y, margins), noise, shape, stated), crop)


def count(problem: Problem, window: Sides, tiling: Tiling | None = None) -> int:
    """The number of windows that cover the image of a problem, or the pixels of a tiling."""
    if tiling is None:
        whole = at_least(sides(problem), window)
        return 1 if whole == window else Tiling.whole(whole, window).count
    return tiling.count


def sides(problem: Problem) -> Sides:
    """The size (H, W) of the image that a problem asks for; () for points."""
    return problem.x_shape[1:]


def at_least(size: Sides, window: Sides) -> Sides:
    """The larger of both sizes, side by side."""
    return tuple(max(pair) for pair in zip(size, window, strict=True))
