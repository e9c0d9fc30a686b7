"""Lists the images that a command is given, files or folders, each with its mask and the folder of its restorations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion.data.images.folder import FolderWalk
from diffusion.errors import InputError


@dataclass(frozen=True)
class ImageFile:
    """An image file, its mask file if it has one, and the folder of its restorations within that of all images."""

    path: Path
    mask: Path | None
    folder: Path


def list_images(paths: Sequence[Path], masks: Path | None = None) -> list[ImageFile]:
    """Lists the images at `paths`, files or folders, with their masks.

    `masks` is one mask file for all images, or a folder with a mask for each image, of the same name up to the suffix.

    Raises InputError when there is no image, when an image has no mask, and when two would be restored into the same
    folder.
    """
    found = [each for path in paths for each in _within(path, alone=len(paths) == 1)]
    if not found:
        raise InputError(f"{', '.join(map(str, paths)) or 'IMAGE'}: no images there")
    mask_of = _by_name(masks) if masks is not None and masks.is_dir() else None
    taken: dict[Path, Path] = {}
    listed = []
    for path, name, folder in found:
        if folder in taken:
            raise InputError(
                f"{path}: must have a name of its own, got that of {taken[folder]}, restored into {folder}"
            )
        taken[folder] = path
        if mask_of is not None and name not in mask_of:
            raise InputError(f"--mask: must hold {name}.png, or of another suffix, for {path}; {masks} does not")
        listed.append(ImageFile(path, masks if mask_of is None else mask_of[name], folder))
    return listed


def _within(path: Path, *, alone: bool) -> list[tuple[Path, Path, Path]]:
    """The image files at a path, each with its name without the suffix and the folder of its restorations.

    The name is relative to `path` if that is a folder. `alone` says that `path` is the only one.
    """
    if not path.is_dir():
        return [(path, Path(path.stem), Path(path.stem))]
    prefix = Path() if alone else Path(path.resolve().name)
    return [(file, name, prefix / name) for name, file in _by_name(path).items()]


def _by_name(folder: Path) -> dict[Path, Path]:
    """The image files in a folder and below it, in natural order, by their relative names without suffix."""
    files: dict[Path, Path] = {}
    for member in FolderWalk(folder, ordered=True):
        name = Path(member.path).with_suffix("")
        if name in files:
            raise InputError(f"{folder / member.path}: must have a name of its own, got that of {files[name]}")
        files[name] = folder / member.path
    return files
