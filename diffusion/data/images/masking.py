"""Which pixels of images nobody has seen: what is not opaque, what is painted in a color, or what masks say.

Only pixels that are fully opaque count as seen: others are a mixture with what lies behind, or have a color that some
program made up at the rim of a hole. A mask says it with black, as for restorations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from diffusion.data.images.bands import Bands
from diffusion.data.images.decoding import decoded, looked_at
from diffusion.data.images.holes import Seen, resize_seen
from diffusion.data.images.marks import Marked
from diffusion.data.images.masks import fitted, read_mask
from diffusion.data.images.pictures import Picture
from diffusion.data.images.pixel_format import PixelFormat, Pixels
from diffusion.data.images.source import Source

# The version of what is found. It is to be raised when the code changes such that the same files give other pixels.
VERSION = 1
ALPHA = "alpha"
NOTHING_SEEN = "nobody has seen any of its pixels"


class Masking(ABC):
    """Tells which pixels of an image were seen."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What stands for all that decides it beside the files."""

    @abstractmethod
    def seen(self, source: Source, frame: int, path: str, size: tuple[int, int]) -> Seen | None:
        """Returns which pixels of a frame were seen, (H, W, 1), of an image of that size and at a path in its
        container; None for all of them.
        """

    def only_seen(self, source: Source, frame: int, path: str) -> Bands:
        """Returns the values of a frame at the K pixels that were seen, in one column (K, 1, B)."""
        bands = source.bands(frame)
        seen = self.seen(source, frame, path, (bands.values.shape[0], bands.values.shape[1]))
        return bands if seen is None else replace(bands, values=bands.values[seen[:, :, 0]][:, None])

    def at_size(
        self, source: Source, frame: int, path: str, pixel_format: PixelFormat, size: tuple[int, int]
    ) -> tuple[Pixels, Seen]:
        """Returns the values of a frame at a size (h, w), 0 where nobody has seen them, and which were seen: (h, w, C)
        and (h, w, 1).

        Raises ValueError for an image of which nothing was seen, and for alpha as mask and as channel at once.
        """
        pixels, alpha = decoded(source, pixel_format, frame)
        if alpha and self.key == ALPHA:
            count = pixel_format.channels
            raise ValueError(f"its alpha is the mask and one of the {count} channels; set data.channels={count - 1}")
        seen = self.seen(source, frame, path, (pixels.shape[0], pixels.shape[1]))
        if seen is None:
            seen = np.ones((*pixels.shape[:2], 1), bool)
        values, seen = resize_seen(pixels, seen, size, pixel_format, alpha=alpha)
        if not seen.any():
            raise ValueError(NOTHING_SEEN)
        return values, seen


@dataclass(frozen=True)
class Opaque(Masking):
    """What is fully opaque was seen, and images without alpha were."""

    @property
    def key(self) -> str:
        """The value of data.masks."""
        return ALPHA

    def seen(self, source: Source, frame: int, path: str, size: tuple[int, int]) -> Seen | None:
        """Returns which pixels are fully opaque."""
        return source.opaque(frame)


@dataclass(frozen=True)
class Painted(Masking):
    """What is painted in a color was not seen, with the rim where the color is mixed with the image."""

    color: str

    @property
    def key(self) -> str:
        """The color in lower case."""
        return self.color.lower()

    def seen(self, source: Source, frame: int, path: str, size: tuple[int, int]) -> Seen | None:
        """Returns which pixels do not have the color."""
        jpeg = isinstance(source, Picture) and source.image.format in ("JPEG", "MPO")
        return ~Marked(self.color).hidden(looked_at(source, frame), jpeg=jpeg)


@dataclass(frozen=True)
class Paired(Masking):
    """White in its mask was seen of an image: `masks` are files in a folder by the paths of images in their container.

    Images without a mask were seen as a whole. All pages of a file have its mask.
    """

    folder: Path
    masks: Mapping[str, str] = field(repr=False)

    @property
    def key(self) -> str:
        """One word for all folders, as the contents of masks count with those of their images."""
        return "folder"

    def seen(self, source: Source, frame: int, path: str, size: tuple[int, int]) -> Seen | None:
        """Returns which pixels are white in the mask. Raises InputError for a mask that cannot be meant."""
        if path not in self.masks:
            return None
        file = self.folder / self.masks[path]
        # Without the folder, as what is wrong with an image is kept by contents, which may lie in another one.
        mask = read_mask(file, name=f"data.masks: {self.masks[path]}", options=False)
        return fitted(mask, file, Path(path), size, turn=source.orientation, name="data.masks").known
