"""What is known of every image where the likelihood of what is hidden is measured: a mask by its name, or of a file.

box      a box of half the sides in the middle is hidden
half     the right half is hidden
random   92 % of the pixels, drawn at random, are hidden: the same of every image
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data import ImageError
from diffusion.data.images.masks import read_mask
from diffusion.errors import InputError, nearest
from diffusion.files import expanded
from diffusion.model.conversion import pixels

# The share of the pixels that `random` shows.
SHOWN = 0.08
# The number of digits of a hash that tell apart masks of one name.
DIGITS = 6


def box(sides: Sequence[int], seed: int) -> Tensor:
    """All but a box of half the sides in the middle, bool (H, W) or (D,)."""
    known = torch.ones(*sides, dtype=torch.bool)
    known[tuple(slice(side // 4, side - side // 4) for side in sides)] = False
    return known


def half(sides: Sequence[int], seed: int) -> Tensor:
    """All but the right half, bool (H, W) or (D,)."""
    known = torch.ones(*sides, dtype=torch.bool)
    known[..., sides[-1] // 2 :] = False
    return known


def random(sides: Sequence[int], seed: int) -> Tensor:
    """A share `SHOWN` of the pixels, drawn at random, bool (H, W) or (D,)."""
    return torch.rand(*sides, generator=torch.Generator().manual_seed(seed)) < SHOWN


@dataclass(frozen=True)
class Known:
    """What is known of every image, by the `text` that names it: a key of `MASKS`, or the path of a mask."""

    text: str
    seed: int = 0

    @property
    def path(self) -> Path:
        """The place of the mask, if it is that of a file."""
        return expanded(self.text)

    def pixels(self, shape: tuple[int, ...]) -> Tensor:
        """The pixels that are known of an example of a shape, (C, H, W) or (D,): bool (1, 1, H, W) or (1, D).

        Raises InputError for a text that is neither, for a file that is no mask or of another size, and for a name that
        shows all or nothing of such a small example.
        """
        if self.text not in MASKS:
            if not self.path.is_file():
                rule, hint = f"one of {', '.join(MASKS)}, or the file of a mask", nearest(self.text, MASKS)
                raise InputError(f"known: must be {rule}, got {self.text!r}{hint}")
            return pixels(self._read(), 1, shape, f"known: {self.path}")
        sides = shape[1:] if len(shape) > 1 else shape
        known = MASKS[self.text](sides, self.seed)
        if not known.any() or known.all():
            said = "everything" if known.all() else "nothing"
            raise InputError(f"known: {self.text} shows {said} of {' x '.join(map(str, sides))} values; give a mask")
        return known.reshape(1, *([1] * (len(shape) > 1)), *sides)

    def _read(self) -> Tensor:
        """The mask of the file, (1 or C, H, W). What it shows is said with the results, so notices are not."""
        try:
            return torch.from_numpy(read_mask(self.path, name=f"known: {self.path}").known).permute(2, 0, 1)
        except ImageError as error:
            raise InputError(f"known: {error}") from error

    @property
    def name(self) -> str:
        """A name that no other pixels have: the text, or that of a file with a hash of what is in it."""
        if self.text in MASKS:
            return self.text
        return f"{self.path.stem}-{hashlib.blake2b(self.path.read_bytes(), digest_size=16).hexdigest()[:DIGITS]}"


MASKS: dict[str, Callable[[Sequence[int], int], Tensor]] = {"box": box, "half": half, "random": random}
