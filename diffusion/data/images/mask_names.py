"""Which file is the mask of which image, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diffusion.errors import InputError

# The names that mark a mask: x_mask, x-mask, x.mask, mask_x; and those of a folder of masks among images.
_MARKED = re.compile(r"(.+)[-_.]mask|mask[-_.](.+)", re.IGNORECASE)
FOLDERS = ("mask", "masks")


def image_of(name: Path) -> Path | None:
    """Returns the name (without suffix) of the image that a file belongs to as its mask, by its own name; None for
    other files.
    """
    found = _MARKED.fullmatch(name.name)
    own = (found[1] or found[2]) if found else name.name
    if name.parent.name.lower() in FOLDERS:
        return name.parent.with_name(own)
    return name.with_name(own) if found else None


def masks_among(files: Iterable[Path]) -> list[Path]:
    """Returns the files that are masks of other ones in the same folder, or of those in the folder above."""
    files = list(files)
    names = {file.with_suffix("") for file in files}
    return [file for file in files if image_of(file.with_suffix("")) in names]


@dataclass(frozen=True)
class Named:
    """Masks by the names of their images, both without suffix: `marked` as masks by their own names, or `plain`."""

    marked: dict[Path, Path]
    plain: dict[Path, Path]

    @classmethod
    def of(cls, files: Iterable[Path], folder: Path) -> Named:
        """Takes files, relative to the `folder` that they are in. Raises InputError for two of one name."""
        found = cls({}, {})
        for file in files:
            name = file.with_suffix("")
            if name in found.plain:
                text = f"{folder / file}: must have a name of its own, got that of {folder / found.plain[name]}"
                raise InputError(text)
            found.plain[name] = file
            if (owner := image_of(name)) is not None:
                found.marked.setdefault(owner, file)
        return found

    def __call__(self, image: Path) -> Path | None:
        """Returns the file that is marked as the mask of an image, or else one of its name."""
        return self.marked.get(image) or self.plain.get(image)
