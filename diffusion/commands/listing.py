"""Lists the images that a command is given, files or folders, each with its mask and the folder of its restorations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion.commands.pairing import mask_beside, mask_in, masks_among, same
from diffusion.data.images.folder import FolderWalk
from diffusion.data.images.unread import advice
from diffusion.errors import InputError


@dataclass(frozen=True)
class ImageFile:
    """An image file, its mask file if it has one, and the folder of its restorations within that of all images.

    `problem` says why it cannot be restored, where that is known without reading it. `beside` says that the mask was
    found beside the image by its name.
    """

    path: Path
    mask: Path | None
    folder: Path
    problem: str = ""
    beside: bool = False


def list_images(
    paths: Sequence[Path],
    masks: Path | None = None,
    *,
    paired: bool = False,
    is_result: Callable[[Path, Path], bool] = lambda *_: False,
    unread: list[str] | None = None,
) -> list[ImageFile]:
    """Lists the images at `paths`, files or folders, with their masks.

    `masks` is one mask file for all images, or a folder with a mask for each image, of the same name up to the suffix
    or marked as its mask, as x_mask.png for x.jpg. An image without a mask there, or that is its own mask, has that as
    its problem. Without `masks`, and if they are to be `paired`, a mask so marked beside an image is its mask. In a
    folder such masks are no images. Files in a folder for which `is_result(folder, file)` holds are left out. Lines
    about images that cannot be read, with what to do, are added to `unread`.

    Raises InputError when there is no image, and when two would be restored into the same folder.
    """
    lines: list[str] = [] if unread is None else unread
    found = [each for path in paths for each in _within(path, is_result, lines, alone=len(paths) == 1)]
    if not found and lines:
        raise InputError("; ".join(lines))
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
        mask = masks if mask_of is None else mask_in(mask_of, name, path)
        beside = mask_beside(path) if masks is None and paired else None
        problem = ""
        if mask_of is not None and mask is None:
            problem = f"--mask: must hold {name}.png, or of another suffix, for {path}; {masks} does not"
        elif mask is not None and same(mask, path):
            problem = f"--mask: {mask} is the image itself; name a mask, in which black is what is to be filled"
        listed.append(ImageFile(path, mask or beside, folder, problem, beside is not None))
    return listed


def _within(
    path: Path, is_result: Callable[[Path, Path], bool], unread: list[str], *, alone: bool
) -> list[tuple[Path, Path, Path]]:
    """The image files at a path, each with its name without the suffix and the folder of its restorations.

    The name is relative to `path` if that is a folder. The folder has it, too, or the whole name of the file where two
    differ in their suffixes alone. `alone` says that `path` is the only one.
    """
    if not path.is_dir():
        return [(path, Path(path.stem), Path(path.stem))]
    prefix = Path() if alone else Path(path.resolve().name)
    found = [file for file in _files(path, unread) if not is_result(path, path / file)]
    masks = set(masks_among(found).values())
    files = [file for file in found if file not in masks]
    count = Counter(file.with_suffix("") for file in files)
    named = [(file, file.with_suffix("")) for file in files]
    return [(path / file, name, prefix / (name if count[name] == 1 else file)) for file, name in named]


def _by_name(folder: Path) -> dict[Path, Path]:
    """The image files in a folder and below it, in natural order, by their relative names without suffix."""
    files: dict[Path, Path] = {}
    for file in _files(folder):
        name = file.with_suffix("")
        if name in files:
            raise InputError(f"{folder / file}: must have a name of its own, got that of {files[name]}")
        files[name] = folder / file
    return files


def _files(folder: Path, unread: list[str] | None = None) -> list[Path]:
    """The image files in a folder and below it, in natural order, relative to it.

    Lines about what cannot be read there are added to `unread`.
    """
    walk = FolderWalk(folder, ordered=True)
    files = [Path(member.path) for member in walk]
    if unread is not None:
        unread += [f"{folder / problem.path}: {problem.reason}" for problem in walk.problems]
        for suffix, found in walk.unread.items():
            images = f"{found.count:,} {suffix} image{'s are' if found.count > 1 else ' is'} not read"
            unread.append(f"{folder / found.example}: {images}: {advice(suffix)}")
    return files
