"""Feathered seams: restorations that fade into what is known around a hole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from diffusion.data.images.marks import grown
from diffusion.model.restoration import Restoration


def ramp(hidden: npt.NDArray[np.bool_], feather: int) -> npt.NDArray[np.float32] | None:
    """Returns the share of restorations in what is shown, (H, W, 1), from hidden values (H, W, C).

    It is 1 where a channel is hidden and falls to 0 within `feather` pixels. None stands for no ramp.
    """
    if feather == 0:
        return None
    ring = np.asarray(hidden.any(2, keepdims=True))
    steps = ring.astype(np.float32)
    for _ in range(feather):
        ring = grown(ring, 1)
        steps += ring
    # A cosine has no corner at either end of the ramp.
    return np.asarray((1 - np.cos(np.pi * steps / (feather + 1))) / 2, dtype=np.float32)


def blended(found: Restoration, image: Tensor, blend: Tensor | None) -> Restoration:
    """Returns restorations of an image (C, H, W) of which `blend` (1, H, W) is shown and of the image the rest.

    Statistics are those of what is shown.
    """
    if blend is None:
        return found
    share = blend.expand(image.shape)
    if found.restored is None:
        return replace(found, part=found.part * share + image * (1 - share))
    places = found.restored.expand(image.shape)
    return replace(found, part=found.part * share[places] + image[places] * (1 - share[places]))
