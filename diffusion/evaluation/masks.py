"""Which part of the examples a likelihood is of, where it is not all of them: what is hidden given what is known, and
what anybody has seen of damaged images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.data import Dataset, DataSpec
from diffusion.data.dataset import CHUNK
from diffusion.errors import require


@dataclass(frozen=True)
class Masks:
    """What is `known` of every example, (1, 1, *), and what has been `seen` of each, (B, 1, *); without them, all."""

    known: Tensor | None = None
    seen: Tensor | None = None

    def part(self, rows: slice) -> Masks:
        """The masks of some of the examples."""
        return Masks(self.known, None if self.seen is None else self.seen[rows])


UNMASKED = Masks()


def part_to_measure(examples: Dataset, known: Tensor | None) -> Dataset:
    """Returns the examples of which something has been seen that is not known.

    Raises InputError where there is none.
    """
    if examples.seen is None:
        return examples
    found = []
    for start in range(0, len(examples), CHUNK):
        seen = examples.seen_pixels(range(start, min(start + CHUNK, len(examples))))
        assert seen is not None
        found.append((seen if known is None else seen & ~known).flatten(1).any(1))
    some = torch.cat(found)
    require(some.any(), "data", "seen where it is to be measured, in one example or more", "nothing seen there")
    return examples if some.all() else examples.subset(some.nonzero()[:, 0])


def said_of_part(spec: DataSpec, counted: float | None, known: Tensor | None) -> tuple[str, ...]:
    """Says which part of the examples is measured, where it is not all of them: one sentence.

    `counted` is the mean number of scalars that count, `known` (1, 1, *) what is known.
    """
    if counted is None:
        return ()
    part = f"{counted:.6g} of the {spec.dim:,} scalars of an example"
    if known is None:
        return (f"seen: {part} on average, of which the bits are",)
    return (f"hidden: {part}, of which the bits are, given {float(known.double().mean()):.1%} of the pixels",)
