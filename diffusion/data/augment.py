"""Random flips and crops of images; each is a function of the example's seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffusion.data.hashing import hashed


def augment(values: Tensor, seeds: Sequence[int], *, flip: bool, margin: int) -> Tensor:
    """Cuts random crops (B, C, H - 2 margin, W - 2 margin) out of images (B, C, H, W).

    With `flip` it mirrors half of them. All (2 margin + 1)² positions of a crop are equally likely. The position and
    the flip of an image depend on its seed, not on the batch. The work is done on the device of the images, in a few
    operations for any number of them.

    Raises ValueError when the numbers of seeds and images differ, or nothing is left between the margins.
    """
    if len(seeds) != len(values):
        raise ValueError(f"augment: {len(seeds)} seeds were given for a batch of {len(values)} images")
    height, width = (side - 2 * margin for side in values.shape[-2:])
    if margin < 0 or min(height, width) < 1:
        raise ValueError(f"data.margin: must be at least 0 and leave {height}x{width} pixels, got {margin}")
    top, left, mirrored = _draws(seeds, (2 * margin + 1, 2 * margin + 1, 2), values.device)
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


def _draws(seeds: Sequence[int], ranges: Sequence[int], device: torch.device) -> list[Tensor]:
    """Draws numbers (B,) uniform on 0, ..., n - 1 for each n in `ranges`.

    They are remainders of 64-bit hashes, so that their deviation from uniform, below n / 2⁶⁴, is negligible.
    """
    numbers, draws = np.array(seeds, np.uint64), []
    for n in ranges:
        numbers = hashed(numbers)
        draws.append(torch.from_numpy((numbers % np.uint64(n)).astype(np.int64)).to(device))
    return draws
