"""Random crops and flips of images: functions of the example's seed alone, drawn on the CPU and made on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffusion.data.hashing import hashed


def crops_and_flips(seeds: Sequence[int], margin: int) -> Tensor:
    """Returns for each seed the top and the left side of a crop, in 0, ..., 2 margin, and 1 for a flip or 0: (3, B).

    They are int64, on the CPU, and one tensor, so that one copy takes them to a device. All values are equally likely.
    They are remainders of 64-bit hashes, so that their deviation from uniform, below n / 2⁶⁴ for n values, is
    negligible.
    """
    numbers, draws = np.array(seeds, np.uint64), np.empty((3, len(seeds)), np.int64)
    for row, n in zip(draws, (2 * margin + 1, 2 * margin + 1, 2), strict=True):
        numbers = hashed(numbers)
        row[:] = numbers % np.uint64(n)
    return torch.from_numpy(draws)


def augment(values: Tensor, draws: Tensor, *, flip: bool, margin: int) -> Tensor:
    """Cuts crops (B, C, H - 2 margin, W - 2 margin) out of images (B, C, H, W), as `draws` of `crops_and_flips` say.

    With `flip` it mirrors half of them. The work is done on the device of the images and the draws, in a few operations
    for any number of images, and waits for nothing.

    Raises ValueError when the numbers of draws and images differ, or nothing is left between the margins.
    """
    if draws.shape != (3, len(values)):
        raise ValueError(f"augment: {draws.shape[1]} draws were given for a batch of {len(values)} images")
    height, width = (side - 2 * margin for side in values.shape[-2:])
    if margin < 0 or min(height, width) < 1:
        raise ValueError(f"data.margin: must be at least 0 and leave {height}x{width} pixels, got {margin}")
    top, left, mirrored = draws
    if margin:
        windows = values.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2m + 1, 2m + 1, H - 2m, W - 2m), not copied
        cut = windows[torch.arange(len(values), device=values.device), :, top, left]
    else:
        cut = values.clone()
    if not flip:
        return cut
    columns = torch.arange(width, device=values.device)
    columns = torch.where(mirrored[:, None] == 1, columns.flip(0), columns)
    return cut.gather(3, columns[:, None, None, :].expand_as(cut))
