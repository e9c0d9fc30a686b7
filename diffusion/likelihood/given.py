"""What is given of the examples of a likelihood: what is known of them, and what anybody has seen of them at all.

Both become levels of pixels relative to the trajectory's (`levels.relative`), as those of training examples do: 0 where
a pixel is known, `levels.UNSEEN` where nobody has seen it, and 1 where it counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.errors import InputError, require
from diffusion.levels import UNSEEN


def levels_of(x: Tensor, known: Tensor | None, seen: Tensor | None) -> Tensor | None:
    """Returns the levels of the pixels of x (B, C, *), (B or 1, 1, *), relative to the trajectory's; None without both.

    `known` and `seen` are bool, (B or 1, 1, *), or (B or 1, D) for points. What was not seen is not known either.

    Raises InputError for another type or shape, and where nothing of an example is left to count.
    """
    for name, mask in (("known", known), ("seen", seen)):
        if mask is not None:
            check_pixels(mask, x, name)
    if known is not None:
        relative = torch.where(known, 0.0, 1.0)
        relative = relative if seen is None else torch.where(seen, relative, UNSEEN)
    elif seen is not None:
        relative = torch.where(seen, 1.0, UNSEEN)
    else:
        return None
    empty = ~(relative == 1).flatten(1).any(1)
    if empty.any():
        whose = f"example {int(empty.nonzero()[0])}" if len(empty) > 1 else "the examples"
        name = "seen" if known is None else "known"
        raise InputError(f"{name}: must leave something of each example to measure, got nothing of {whose}")
    return relative


def check_pixels(mask: Tensor, x: Tensor, name: str) -> None:
    """Raises InputError unless a mask, called `name`, is bool and of the pixels of x (B, C, *): (B or 1, 1, *)."""
    require(mask.dtype == torch.bool, name, "of bool", str(mask.dtype).removeprefix("torch."))
    pixels = tuple(x.shape[1:]) if x.ndim == 2 else (1, *x.shape[2:])
    rule = f"of the shape ({len(x)} or 1, {', '.join(map(str, pixels))}), with a value for every pixel"
    require(tuple(mask.shape) in ((1, *pixels), (len(x), *pixels)), name, rule, tuple(mask.shape))
