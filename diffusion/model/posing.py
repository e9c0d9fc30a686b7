"""Poses the problems of restoration from what people hold: observations, operators as text, images and masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion.data import PixelFormat
from diffusion.data.images.kernel import read_kernel
from diffusion.errors import InputError
from diffusion.model.accept import Border
from diffusion.model.conversion import Given, Noise, Picture, as_tensor, decoded, is_picture, mask, size_of
from diffusion.model.conversion import noise as noise_of
from diffusion.model.solving import shape_of
from diffusion.operators import Mask, Operator, parse
from diffusion.operators.operator import Size
from diffusion.restoration import Problem


def restoring(
    border: Border, y: Given, operator: str | Operator, noise: Noise, size: Sequence[int] | None = None
) -> Problem:
    """Returns the problem of finding the example of which an operator made y, checked.

    The operator may be a text (`operators.parse`). The example has the `size` (H, W). Without it, it has that of the
    data if the operator makes y of it, else the size that the operator says. Arrays y of images are (C, H, W) or
    (H, W, C), whichever the operator makes.

    Raises InputError for a y that is no observation, and as `Problem.checked` does.
    """
    if is_picture(y):
        found = _operator(operator, size_of(y, "y"))
        observed, shape = _decoded(border, y, found, size)
    else:
        observed, found, shape = _arranged(border, as_tensor(y, "y"), operator, size)
        if border.spec.is_image:
            observed = border.units(observed, "y")
    return Problem.checked(observed, found, noise_of(noise, shape), shape, bounds=border.bounds)


def inpainting(border: Border, image: Given, known: object, noise: Noise) -> Problem:
    """Returns the problem of filling an image, of any size, where it is not known, checked.

    Raises InputError for an image or a mask that is none, and as `Problem.checked` does.
    """
    x = border.units(border.arranged(image, "image"), "image")
    operator = Mask(mask(known, tuple(x.shape)))
    return Problem.checked(x, operator, noise_of(noise, tuple(x.shape)), tuple(x.shape), bounds=border.bounds)


def _operator(operator: object, observed: Size | None) -> Operator:
    """The operator, or that which a text names, for an observation of the size (H, W) if it has one."""
    if isinstance(operator, str):
        found = parse(operator, read_kernel=read_kernel, happened=True)
        return found if observed is None else found.resolved(observed)
    if isinstance(operator, Operator):
        return operator
    raise InputError(
        'operator: must be a text such as "blur:sigma=2", or an operator of diffusion.operators, got '
        f"{type(operator).__name__}"
    )


def _decoded(
    border: Border, y: Picture, operator: Operator, size: Sequence[int] | None
) -> tuple[Tensor, tuple[int, ...]]:
    """The observation in a picture, in units, and the shape of the example."""
    observed, spec = size_of(y, "y"), border.spec
    for shape in _shapes(border, operator, observed, size):
        made = _made(operator, shape)
        if made and made[1:] == observed:
            pixels = PixelFormat(made[0], border.background, spec.value_range, spec.levels)
            return decoded(y, pixels, "y"), shape
    shape = shape_of(size, spec)
    rule = f"of the shape {_made(operator, shape)} that the operator makes of {shape}"
    raise InputError(f"y: must be {rule}, got an image of {observed[0]} x {observed[1]} pixels (height x width)")


def _arranged(
    border: Border, y: Tensor, operator: object, size: Sequence[int] | None
) -> tuple[Tensor, Operator, tuple[int, ...]]:
    """The observation with its channels first, the operator, and the shape of the example.

    Where nothing fits, y is returned as it is, for the error that says so.
    """
    ways = [y]
    if border.spec.is_image:
        ways += [y.permute(2, 0, 1)] if y.ndim == 3 else [y[None]] if y.ndim == 2 else []
    for way in ways:
        observed = (way.shape[-2], way.shape[-1]) if way.ndim == 3 else None
        found = _operator(operator, observed)
        for shape in _shapes(border, found, observed, size):
            if _made(found, shape) == tuple(way.shape):
                return way, found, shape
    first = _operator(operator, (y.shape[-2], y.shape[-1]) if y.ndim == 3 else None)
    return y, first, shape_of(size, border.spec)


def _shapes(
    border: Border, operator: Operator, observed: Size | None, size: Sequence[int] | None
) -> Iterator[tuple[int, ...]]:
    """The shapes that the example may have, the likeliest first."""
    yield shape_of(size, border.spec)
    if size is None and observed is not None and border.spec.is_image:
        try:
            yield border.spec.shape[0], *operator.size_before(observed)
        except InputError:
            return


def _made(operator: Operator, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of what an operator makes of an example, None if it takes none of its shape."""
    try:
        return tuple(operator(torch.zeros(1, *shape)).shape[1:])
    except (InputError, RuntimeError):
        return None
