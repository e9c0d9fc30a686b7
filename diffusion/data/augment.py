"""Random flips and crops, each a function of its example's seed alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffusion.randomness import example_seed


def augment(values: Tensor, seeds: Sequence[int], *, flip: bool, margin: int) -> Tensor:
    """Cut (B, C, H - 2m, W - 2m) out of the images (B, C, H, W) at random places, and mirror half of them.

    Every place within the margin m is equally likely. What happens to an image depends on its seed, not on
    the batch.

    Raises ValueError when there are not as many seeds as images, or nothing is left between the margins.
    """
    if len(seeds) != len(values):
        raise ValueError(f"augment: {len(seeds)} seeds were given for a batch of {len(values)} images")
    height, width = (side - 2 * margin for side in values.shape[-2:])
    if margin < 0 or min(height, width) < 1:
        raise ValueError(f"data.margin: must be at least 0 and leave {height}x{width} pixels, got {margin}")
    cut = values.new_empty(*values.shape[:2], height, width)
    for i, seed in enumerate(seeds):
        top, left = (example_seed(seed, axis) % (2 * margin + 1) for axis in (0, 1))
        image = values[i, :, top : top + height, left : left + width]
        cut[i] = image.flip(-1) if flip and example_seed(seed, 2) % 2 else image
    return cut
