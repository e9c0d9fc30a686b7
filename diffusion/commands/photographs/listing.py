"""Lists the images that a command is given, files or folders, each with its mask and the folder of its restorations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion.commands.photographs.pairing import Pairing
from diffusion.data.images.folder import FolderWalk
from diffusion.data.images.mask_names import masks_among
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
    notices: list[str] | None = None,
) -> list[ImageFile]:
    """Lists the images at `paths`, files or folders, with their masks.

    `masks` is one mask file for all images, or a folder with a mask for each image, of the same name up to the suffix
    or marked as its mask, as x_mask.png for x.jpg. An image without a mask there, or that is its own mask, has that as
    its problem. Without `masks`, and if they are to be `paired`, a mask so marked beside an image is its mask. Masks of
    images that are listed too are no images; nor are, in folders, `masks` and files for which `is_result(folder, file)`
    holds. Lines about images that cannot be read, with what to do, are added to `unread`, and lines about masks that
    are left out to `notices`.

    Raises InputError when there is no image, and when two would be restored into the same folder.
    """
    lines: list[str] = [] if unread is None else unread
    pairing, said = Pairing(masks), [] if notices is None else notices
    found = [each for path in paths for each in _within(path, is_result, lines, alone=len(paths) == 1)]
    left = set(masks_among(path for path, *_ in found))
    left |= {path for path, *_ in found if path not in paths and pairing.is_mask(path, paths)}
    if left and (masks is not None or not paired):
        said.append(_said([path for path, *_ in found if path in left], "a mask and left out", "masks and left out"))
    found = [each for each in found if each[0] not in left]
    if not found and lines:
        raise InputError("; ".join(lines))
    if not found:
        raise InputError(f"{', '.join(map(str, paths)) or 'IMAGE'}: no images there")
    found = _told_apart(found)
    taken: dict[Path, Path] = {}
    listed = []
    for path, name, folder in found:
        if folder in taken:
            raise InputError(
                f"{path}: must have a name of its own, got that of {taken[folder]}, restored into {folder}"
            )
        taken[folder] = path
        mask, problem = pairing.of(path, name)
        beside = False
        if masks is None and paired:
            mask, problem = pairing.beside(path)
            beside = mask is not None
        listed.append(ImageFile(path, mask, folder, problem, beside))
    alone = all(path.is_file() for path in paths)
    if not alone and (spare := pairing.without_image()):
        said.append(_said(spare, "a mask of no image", "masks of no image"))
    return listed


def _said(files: Sequence[Path], one: str, several: str) -> str:
    if len(files) == 1:
        return f"{files[0]} is {one}"
    return f"{len(files)} files are {several}, such as {files[0]}"


def _told_apart(found: list[tuple[Path, Path, Path]]) -> list[tuple[Path, Path, Path]]:
    """Images with their names and folders; those of one name get folders by their whole names and their parents'."""
    count = Counter(folder for _, _, folder in found)
    return [
        (path, name, folder if count[folder] == 1 else Path(path.resolve().parent.name, path.name))
        for path, name, folder in found
    ]


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
    files = [file for file in _files(path, unread) if not is_result(path, path / file)]
    count = Counter(file.with_suffix("") for file in files)
    named = [(file, file.with_suffix("")) for file in files]
    return [(path / file, name, prefix / (name if count[name] == 1 else file)) for file, name in named]


def _files(folder: Path, unread: list[str]) -> list[Path]:
    """The image files in a folder and below it, in natural order, relative to it.

    Lines about what cannot be read there are added to `unread`.
    """
    walk = FolderWalk(folder, ordered=True, own=True)
    files = [Path(member.path) for member in walk]
    unread += [f"{folder / problem.path}: {problem.reason}" for problem in walk.problems]
    for suffix, found in walk.unread.items():
        images = f"{found.count:,} {suffix} image{'s are' if found.count > 1 else ' is'} not read"
        unread.append(f"{folder / found.example}: {images}: {advice(suffix)}")
    return files
