"""Which file is the mask of which image: by its name, beside the image or in a folder of masks."""

from __future__ import annotations

import filecmp
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from diffusion.data.images.decoding import SUFFIXES
from diffusion.data.images.folder import FolderWalk
from diffusion.data.images.mask_names import FOLDERS, Named, image_of


@dataclass
class Pairing:
    """Finds the masks of images: `masks` is one for all, or a folder of them. Without it they lie beside the images.

    Folders are listed once.

    Raises InputError for two masks of one name in the folder.
    """

    masks: Path | None = None
    _named: Named = field(default_factory=lambda: Named({}, {}))
    _beside: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)
    _used: set[Path] = field(default_factory=set)
    _images: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.masks is not None and self.masks.is_dir():
            files = (Path(member.path) for member in FolderWalk(self.masks, ordered=True))
            self._named = Named.of(files, self.masks)

    def is_mask(self, file: Path, folders: Iterable[Path]) -> bool:
        """Whether a file in the `folders` of images is one of the masks that are named, by its place.

        A folder that is that of the masks, or lies within it, holds images.
        """
        if self.masks is None:
            return False
        place, masks = file.resolve(), self.masks.resolve()
        among = any(masks in (folder.resolve(), *folder.resolve().parents) for folder in folders)
        return place == masks or (masks in place.parents and not among)

    def is_among(self, file: Path) -> bool:
        """Whether images and their masks lie in one folder, that of the image file."""
        return self.masks is not None and self.masks.is_dir() and file.parent.resolve() == self.masks.resolve()

    def of(self, image: Path, name: Path) -> tuple[Path | None, str]:
        """Returns the mask of an image that has a `name` among all, and why it cannot be restored, if so."""
        if self.masks is None:
            return None, ""
        self._images.add(image.resolve())
        mask = self._of_name(name, image) if self.masks.is_dir() else self.masks
        if mask is None and self.is_among(image):
            return None, f"--mask: {self.masks} must hold a mask {name}_mask.png for {image}, and does not"
        if mask is None:
            return None, f"--mask: must hold {name}.png, or of another suffix, for {image}; {self.masks} does not"
        self._used.add(mask)
        if same(mask, image):
            return mask, f"--mask: {mask} is the image itself; name a mask, in which black is what is to be filled"
        return mask, ""

    def beside(self, image: Path) -> tuple[Path | None, str]:
        """Returns the mask beside an image that has its name, or says that there are several."""
        found = self._beside.get(image.parent)
        if found is None:
            found = self._beside[image.parent] = _by_image(image.parent)
        masks = found.get(image.stem, [])
        if len(masks) > 1:
            names = ", ".join(mask.name for mask in masks)
            return None, f"{image}: has {len(masks)} masks beside it, {names}; name one with --mask, or keep one"
        return (masks[0], "") if masks else (None, "")

    def without_image(self) -> list[Path]:
        """The masks in the folder that belong to none of the images that were asked for."""
        if self.masks is None:
            return []
        masks = (self.masks / file for file in self._named.plain.values())
        return [mask for mask in masks if mask not in self._used and mask.resolve() not in self._images]

    def _of_name(self, name: Path, image: Path) -> Path | None:
        """A file that is marked as the mask of the image, or else one of the same name that is not the image."""
        assert self.masks is not None
        file = self._named(name)
        if file is not None and self.is_among(image) and (self.masks / file).resolve() == image.resolve():
            return None
        return None if file is None else self.masks / file


def _by_image(folder: Path) -> dict[str, list[Path]]:
    """The masks in a folder, and in one of masks within it, by the names of their images."""
    found: dict[str, list[Path]] = {}
    if not folder.is_dir():
        return found
    inner = (each for each in sorted(folder.iterdir()) if each.name.lower() in FOLDERS and each.is_dir())
    for file in itertools.chain(sorted(folder.iterdir()), *(sorted(each.iterdir()) for each in inner)):
        owner = image_of(file.with_suffix(""))
        if owner is not None and owner.parent == folder and file.suffix.lower() in SUFFIXES:
            found.setdefault(owner.name, []).append(file)
    return found


def same(first: Path, second: Path) -> bool:
    """Whether two files are the same, or have the same contents. Files that cannot be read are not."""
    try:
        return first.samefile(second) or filecmp.cmp(first, second, shallow=False)
    except OSError:
        return False
