"""Which file is the mask of which image: by its name, beside the image or in a folder of masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from diffusion.data.images.decoding import SUFFIXES

# The names that mark a mask: x_mask, x-mask, x.mask, mask_x.
_MARKED = re.compile(r"(.+)[-_.]mask|mask[-_.](.+)", re.IGNORECASE)
# Bytes that are compared at a time.
CHUNK = 1 << 20


def image_of(name: Path) -> Path | None:
    """Returns the name (without suffix) of the image that a file belongs to as its mask, by its own name; None for
    other files.
    """
    found = _MARKED.fullmatch(name.name)
    return name.with_name(found[1] or found[2]) if found else None


def masks_among(files: Iterable[Path]) -> dict[Path, Path]:
    """Returns the files that are masks of other ones in the same folder, by the names of their images."""
    files = list(files)
    names = {file.with_suffix("") for file in files}
    owners = ((image_of(file.with_suffix("")), file) for file in files)
    return {owner: file for owner, file in owners if owner in names}


def mask_beside(image: Path) -> Path | None:
    """Returns the mask in the folder of an image that has its name."""
    for file in sorted(image.parent.glob("*[mM][aA][sS][kK]*")):
        if file.suffix.lower() in SUFFIXES and image_of(Path(file.stem)) == Path(image.stem):
            return file
    return None


def mask_in(masks: Mapping[Path, Path], name: Path, image: Path) -> Path | None:
    """Returns the mask of an image in a folder: a file that is marked as its mask, or else one of the same name."""
    marked = (file for other, file in masks.items() if image_of(other) == name)
    plain = masks.get(name)
    return next(marked, None if plain is not None and same(plain, image) else plain)


def same(first: Path, second: Path) -> bool:
    """Whether two files are the same, or have the same contents. Files that cannot be read are not."""
    try:
        if first.samefile(second):
            return True
        if first.stat().st_size != second.stat().st_size:
            return False
        with first.open("rb") as a, second.open("rb") as b:
            while part := a.read(CHUNK):
                if part != b.read(CHUNK):
                    return False
        return True
    except OSError:
        return False
