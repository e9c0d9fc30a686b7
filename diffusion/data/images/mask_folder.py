"""Pairs the images of a container with the masks in a folder, by their names, before any of them is decoded.

An image without a mask counts as seen as a whole, which is said: of a damaged folder some images are undamaged. Where
images have no mask and masks have no image, names are likely wrong, and what lies in holes would be learned: that is an
error.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion.data.images.container import Container, LeftOut
from diffusion.data.images.folder import File, Folder
from diffusion.data.images.index import Index, open_index
from diffusion.data.images.junk import OWN
from diffusion.data.images.mask_names import Named
from diffusion.data.images.masking import ALPHA, Masking, Opaque, Painted, Paired
from diffusion.data.images.masks import of_another_size
from diffusion.data.images.shards import Shards
from diffusion.errors import InputError
from diffusion.files import expanded


def is_folder(option: str) -> bool:
    """Returns whether a value of data.masks names a folder."""
    return bool(option) and option != ALPHA and not option.startswith("#")


def set_apart(container: Container, option: str) -> Container:
    """Returns a container of images without the folder of masks that `option`, a value of data.masks, names within it.

    Raises InputError where that folder is the container itself, or does not exist.
    """
    if not is_folder(option):
        return container
    masks, root = _folder(option).resolve(), container.root.resolve()
    if isinstance(container, Folder) and masks == root:
        raise InputError(
            f"data.masks: must be another folder than data.path, got {option}; move the masks into their own"
        )
    if isinstance(container, Folder) and masks.is_relative_to(root):
        return replace(container, apart=str(masks.relative_to(root)))
    return container


def masked(
    container: Container, index: Index, option: str, cache: Path | None, *, progress: bool
) -> tuple[Masking, Index, str]:
    """Returns what tells which pixels of images were seen, by a value of data.masks, and a sentence about it.

    The index that is returned has the masks in the hashes of the images, so that whoever knows an image by its hash
    knows it with its mask.

    Raises InputError for masks that cannot be used.
    """
    if option == ALPHA:
        return Opaque(), index, "pixels that are not fully opaque count as unseen"
    if not is_folder(option):
        return Painted(option), index, f"pixels that are painted in {option} count as unseen"
    if not isinstance(container, Folder | File | Shards):
        raise InputError(
            f"data.masks: must be alpha or a color for {container.name}, whose images have no names, got {option}"
        )
    folder = _folder(option)
    masks = _usable(open_index(Folder(folder), cache, progress=progress), folder)
    files = {_path(masks, row): row for row in range(len(masks))}
    rows = _paired(container, index, Named.of(map(Path, files), folder), files, folder)
    _check_sizes(index, masks, rows, folder)
    chosen = np.flatnonzero(rows >= 0)
    paths = {_path(index, int(number)): _path(masks, int(rows[number])) for number in chosen}
    said = f"{len(chosen):,} of {len(index):,} images have a mask in {folder}"
    if len(chosen) < len(index):
        said += f"; the others, such as {index.names[int((rows < 0).argmax())]}, count as seen as a whole"
    return Paired(folder, paths), _with_digests(index, masks, rows), said


def _folder(option: str) -> Path:
    folder = expanded(option)
    if not folder.is_dir():
        raise InputError(f"data.masks: must be alpha, a color such as #ff00ff, or a folder of masks, got {option!r}")
    return folder


def _path(index: Index, number: int) -> str:
    return os.fsdecode(index.names.encoded(number))


def _usable(masks: Index, folder: Path) -> Index:
    """Raises InputError for masks that are not read: their images would count as seen as a whole."""
    unread = [LeftOut(Path(path), f"{suffix} is not read") for suffix, (_, path) in masks.content["unread"].items()]
    for problem in (*masks.problems, *unread):
        raise InputError(f"data.masks: {folder / problem.path}: {problem.reason}")
    if masks.content["skipped"].get(OWN):
        raise InputError(f"data.masks: {folder} holds results of this package, which are no masks; move them elsewhere")
    if not len(masks):
        raise InputError(f"data.masks: {folder} holds no masks")
    return masks


def _paired(
    container: Container, index: Index, named: Named, files: dict[str, int], folder: Path
) -> npt.NDArray[np.int64]:
    """Returns the row of the mask of each image, -1 for none."""
    rows, owners = np.full(len(index), -1), dict[int, str]()
    for number in range(len(index)):
        path = _path(index, number)
        file = named(Path(container.inside(path)).with_suffix(""))
        if file is None:
            continue
        row = rows[number] = files[str(file)]
        if (owner := owners.setdefault(row, path)) != path:
            raise InputError(f"data.masks: {folder / file} must be the mask of one image, got {owner} and {path}")
    spare = next((path for path, row in files.items() if row not in owners), None)
    if spare is not None and (rows < 0).any():
        alone, without = len(files) - len(owners), int((rows < 0).sum())
        example = Path(container.inside(_path(index, int((rows < 0).argmax()))))
        raise InputError(
            f"data.masks: {without:,} images have no mask, such as {example}, and {alone:,} masks in {folder} have no "
            f"image, such as {spare}; name a mask as its image, {example.with_suffix('.png')}, or remove the masks of "
            "no image"
        )
    return rows


def _check_sizes(index: Index, masks: Index, rows: npt.NDArray[np.int64], folder: Path) -> None:
    """Raises InputError for the first mask of another size than its image; EXIF may have turned one of them."""
    chosen = np.flatnonzero(rows >= 0)
    image, mask = index.rows[chosen], masks.rows[rows[chosen]]
    same = (image["width"] == mask["width"]) & (image["height"] == mask["height"])
    turned = (image["width"] == mask["height"]) & (image["height"] == mask["width"])
    for number in np.flatnonzero(~(same | turned)):
        own, size = ((int(each["height"][number]), int(each["width"][number])) for each in (mask, image))
        file, path = folder / _path(masks, int(rows[chosen[number]])), Path(_path(index, int(chosen[number])))
        raise InputError(f"data.masks: {of_another_size(file, own, path, size)}")


def _with_digests(index: Index, masks: Index, rows: npt.NDArray[np.int64]) -> Index:
    """Returns the index with the masks in the hashes of images and of all."""
    changed = np.array(index.rows)
    for number in np.flatnonzero(rows >= 0):
        # NumPy drops zeros at the end of bytes.
        facts = changed["digest"][number].ljust(16, b"\0") + masks.rows["digest"][rows[number]].ljust(16, b"\0")
        changed["digest"][number] = hashlib.blake2b(facts, digest_size=16).digest()
    identity = hashlib.blake2b(index.content["identity"].encode() + changed["digest"].tobytes(), digest_size=16)
    copies = len(changed) - len(np.unique(changed["digest"]))
    return replace(index, rows=changed, content=index.content | {"identity": identity.hexdigest(), "copies": copies})
