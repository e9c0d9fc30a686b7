"""Completes examples of which nobody has seen everything: draws what is unseen from p(x | what was seen, label).

The network of a model with a noise level for every pixel is told what was seen as pixels at the clean end
(`restoration.learned`). Many examples, each with holes of its own, are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion.data import Dataset, DataSpec
from diffusion.data.dataset import CHUNK, Indices
from diffusion.denoiser import AnyDenoiser
from diffusion.operators import Mask
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Problem, restore
from diffusion.restoration.methods import Learned


@dataclass(frozen=True)
class Completing:
    """Draws completions of examples by a denoiser that takes maps, on the grid `times`.

    A draw depends on the seed and its number, on what was seen of the example and on its label, up to the rounding of
    the network. At most `batch` examples suit the device at once.
    """

    denoiser: AnyDenoiser
    times: Tensor
    spec: DataSpec
    device: torch.device
    seed: int
    batch: int

    def __call__(self, examples: Dataset, numbers: Sequence[int]) -> Tensor:
        """Draws a completion of each of at most `batch` examples: stored values (B, *), without their margin.

        What was seen keeps its value. `numbers` are those of the draws. Raises FloatingPointError for completions that
        are not finite.
        """
        rows = np.arange(len(examples))
        stored, label = examples.batch(rows)
        values, known = examples.center(stored), known_of(examples, rows)
        holes = (~known).flatten(1).any(1).nonzero().flatten()
        if not len(holes):
            return values
        seeds = [example_seed(self.seed, Stream.SAMPLE, numbers[i]) for i in holes.tolist()]
        found = self._drawn(values[holes], known[holes], None if label is None else label[holes], seeds)
        values = values.clone()
        values[holes] = torch.where(known[holes], values[holes], found)
        return values

    def _drawn(self, values: Tensor, known: Tensor, label: Tensor | None, seeds: list[int]) -> Tensor:
        """Draws stored values (B, *) given those that are `known` (B, 1, *) of images, or (B, D)."""
        x = self.spec.encode(values).to(self.device)
        shown = known.expand_as(values).to(self.device)
        problem = Problem(Mask(shown), torch.where(shown, x, 0.0), shape=self.spec.shape, examples=len(x))
        randn = ExampleNoise(seeds)
        labels = None if label is None else label.to(self.device)
        drawn = restore(self.denoiser, problem, randn(x), self.times, method=Learned(), label=labels, randn=randn).x
        if bad := int((~drawn.isfinite()).flatten(1).any(1).sum()):
            raise FloatingPointError(f"complete: {bad} of {len(drawn)} completions are not finite; take more steps")
        units = self.spec.decode(drawn).cpu()
        return (units if self.spec.levels is None else self.spec.quantize(units)).to(values.dtype)


def known_of(examples: Dataset, rows: Indices) -> Tensor:
    """Returns what was seen of some examples without their margin, bool (B, 1, *) of images and (B, D) of points.

    Of examples without masks everything was.
    """
    seen = examples.seen_pixels(rows)
    return torch.ones(len(rows), *[1] * len(examples.spec.shape), dtype=torch.bool) if seen is None else seen


def with_holes(examples: Dataset) -> npt.NDArray[np.int64]:
    """Returns the numbers of the examples of which something is unseen: (M,)."""
    starts = range(0, len(examples) if examples.seen is not None else 0, CHUNK)
    parts = [np.arange(start, min(start + CHUNK, len(examples))) for start in starts]
    found = [rows[(~known_of(examples, rows)).flatten(1).any(1).numpy()] for rows in parts]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])
