"""The scan of a container: every image with its header and label, and every unusable file with the reason."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from diffusion.data.images.container import Container, LeftOut, Unread
from diffusion.data.images.decoding import SUFFIXES, printable
from diffusion.data.images.folder import File, Folder
from diffusion.data.images.huggingface import find_dataset
from diffusion.data.images.index import Index, open_index
from diffusion.data.images.labeling import PREFIX, Classes, by_prefix, by_stylegan_table, by_table
from diffusion.data.images.layout import find_splits, find_targets, find_wrapper
from diffusion.data.images.mask_folder import masked, set_apart
from diffusion.data.images.masking import Masking
from diffusion.data.images.pages import ALL, FIRST, paged
from diffusion.data.images.shards import find_shards
from diffusion.data.images.unread import advice_on
from diffusion.errors import InputError
from diffusion.files import expanded


class FolderError(InputError):
    """Images cannot be trained on; the message states the findings and what to do."""


@contextmanager
def blamed_on(field: str) -> Iterator[None]:
    """Lets errors about a folder name the `field` or option by which it was given, where that is not data.path."""
    try:
        yield
    except FolderError as error:
        raise FolderError(re.sub(r"^data\.path(?=:)", field, str(error))) from None


@dataclass(frozen=True)
class Scan:
    """The findings in a container: its images, their classes, the problems, and the counts of other files by suffix.

    `classes` is empty for a scan without labels, and `labeling` then too: sentences about where labels come from.
    `masking` tells which pixels nobody has seen, and `masks` is a sentence about that; None where all were seen.
    """

    container: Container
    entries: Index
    classes: tuple[str, ...]
    problems: tuple[LeftOut, ...]
    others: dict[str, int]
    labeling: tuple[str, ...] = ()
    masking: Masking | None = None
    masks: str = ""

    @property
    def unread(self) -> dict[str, Unread]:
        """The image files of formats that are not read, by suffix."""
        return {suffix: Unread(*found) for suffix, found in self.entries.content["unread"].items()}

    @property
    def unusable(self) -> int:
        """The number of image files that cannot be used."""
        return len(self.problems) + sum(found.count for found in self.unread.values())

    @cached_property
    def folders(self) -> Counter[str]:
        """The number of images by folder, as people mean it: within the folder or archive at the path."""
        counts: Counter[str] = Counter()
        for folder, count in self.entries.content["folders"].items():
            counts[self.container.inside(f"{folder}/_").rpartition("/")[0].lstrip("/")] += count
        return counts


def open_container(path: str | os.PathLike[str]) -> Container:
    """Opens the container that a path names: a Hugging Face dataset, archives, an image, or else a folder of images.

    Raises FolderError when the path names none of them, InputError when a dataset cannot be loaded.
    """
    written = os.fspath(path) if "://" in os.fspath(path) else os.fspath(expanded(path))
    if dataset := find_dataset(written):
        return dataset
    place = Path(written)
    if place.suffix.lower() in SUFFIXES and place.is_file():
        return File(place)
    return find_shards(place) or Folder(_existing(place))


def scan(
    images: str | os.PathLike[str] | Container,
    *,
    labels: bool | str,
    pages: str = FIRST,
    masks: str = "",
    cache: Path | None = None,
    progress: bool = True,
) -> Scan:
    """Reads the headers of all images of a container, or of the container at a path, in its order.

    The images of a folder and of its subfolders come in natural order of names, 2 before 10. Links are followed, and a
    folder is read once however many links lead to it. What nobody means is skipped, such as names that start with a
    dot. With `labels`, an image of a folder belongs to the class named by the first subfolder on its path; with the
    name of a table as `labels`, to the one that it states, and with "prefix" to the one that its name begins with. With
    "all" `pages`, each page of a file is an image. `masks` is a value of data.masks, by which parts of images are
    unseen. A file that is damaged behind its header is found only by decoding it, as `pack` does. With a folder as
    `cache`, a container in which nothing changed since the last scan is not read again.

    Raises FolderError when there is no such container, it holds no readable image, or its images lack the class that
    `labels` asks for, or folders are no classes, and when the cache cannot be written; InputError for a table of labels
    or for masks that cannot be used.
    """
    container = set_apart(images if isinstance(images, Container) else open_container(images), masks)
    try:
        entries = open_index(container, cache, progress=progress)
    except OSError as error:
        raise unwritable(cache or Path(tempfile.gettempdir()), error) from error
    others = entries.content["others"]
    if not entries:
        raise FolderError(_nothing_found(container, entries))
    found = Scan(container, paged(entries) if pages == ALL else entries, (), entries.problems, others)
    if masks:
        masking, hashed, said = masked(container, found.entries, masks, cache, progress=progress)
        found = replace(found, entries=hashed, masking=masking, masks=said)
    if labels is False:
        return found
    return _labeled(found) if labels is True else _with(found, _classes(found, labels))


def _classes(found: Scan, option: str) -> Classes:
    if option == PREFIX:
        return by_prefix(found.container, found.entries)
    return by_table(found.container, found.entries, option)


def _with(found: Scan, classes: Classes) -> Scan:
    """Returns the scan with these classes; images without one have the label -1."""
    rows = np.array(found.entries.rows)
    rows["group"] = classes.numbers
    return replace(
        found,
        entries=replace(found.entries, rows=rows, labeled=True),
        classes=tuple(map(printable, classes.names)),
        labeling=classes.said,
    )


def _labeled(found: Scan) -> Scan:
    """Returns the scan with a label for every entry; its classes are those that have images."""
    if classes := by_stylegan_table(found.container, found.entries):
        return _with(found, classes)
    loose = np.flatnonzero(found.entries.rows["group"] < 0)
    if len(loose):
        tables = found.entries.content["tables"]
        table = f'name their table, as in data.labels="{tables[0]}", ' if tables else ""
        raise FolderError(
            f"data.labels: {len(loose)} images in {found.container.name} have no class, like "
            f"{found.entries.names[loose[0]]}: {found.container.labeling}, {table}or set data.labels=false"
        )
    _refuse_layouts(found)
    used = found.entries.content["groups"]
    empty = set(found.entries.content["classes"]) - set(used)
    unused = [name for name in found.entries.content["classes"] if name in empty]
    return replace(
        found,
        entries=replace(found.entries, labeled=True),
        classes=tuple(map(printable, used)),
        problems=(*found.problems, *(LeftOut(Path(name), "not a class: no image in it") for name in unused)),
    )


def _refuse_layouts(found: Scan) -> None:
    """Raises FolderError where the folders of the first level are no classes, but parts of a data set or around it."""
    groups, folders, name = found.entries.content["groups"], found.folders, found.container.name
    if not set(groups) <= {folder.partition("/")[0] for folder in folders}:  # Files of an archive have said them.
        return
    if parts := find_splits(folders):
        raise FolderError(
            f"data.labels: {', '.join(parts.counts)} in {name} are parts of a data set rather than classes; set "
            f"data.path={os.path.join(name, parts.first)}, or rename them"
        )
    if targets := find_targets(folders):
        image, target = targets[0]
        raise FolderError(
            f"data.labels: {target} lies beside {image} in {name} and seems to hold masks or labels, not a class; set "
            f"data.path={os.path.join(name, image)} and data.labels=false, or rename it"
        )
    if len(groups) == 1 and (inner := find_wrapper(folders)):
        raise FolderError(
            f"data.labels: {inner.parent} would be the only class in {name}, and holds {_few(inner.counts)}; set "
            f"data.path={os.path.join(name, inner.parent)}"
        )


def _few(names: Iterable[str]) -> str:
    listed = [*names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")


def default_cache() -> Path:
    """Returns the default folder of the cache: $DIFFUSION_CACHE, $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion."""
    default = os.environ.get("DIFFUSION_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diffusion"
    return expanded(default).resolve()


def cache_folder(cache: Path | None, root: Path) -> Path:
    """Creates the folder of the cache, `cache` or else `default_cache()`, and returns it.

    Raises FolderError when it lies within the folder of images at `root` or cannot be written.
    """
    folder = expanded(cache).resolve() if cache else default_cache()
    if folder.is_relative_to(root.resolve()):
        raise FolderError(
            f"cache: {printable(folder)} lies within the folder of images {printable(root)}, which is never "
            "written to; set DIFFUSION_CACHE to a folder outside of it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(folder: Path, error: OSError) -> FolderError:
    """Returns the error for a cache that cannot be written; its message says what to do."""
    where = printable(folder)
    return FolderError(f"cache: cannot write to {where} ({error}); set DIFFUSION_CACHE to another folder")


def _existing(folder: Path) -> Path:
    """Returns a folder that exists; else raises FolderError with the names that are similar to the missing one."""
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FolderError(f"data.path: {printable(folder)} is a file; name the folder that holds the images")
    parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
    missing = folder.absolute().relative_to(parent).parts[0]
    similar = difflib.get_close_matches(missing, os.listdir(parent))
    advice = f"; did you mean {' or '.join(printable(parent / name) for name in similar)}?" if similar else ""
    # Of a name alone the folder in which the program runs says nothing.
    where = "" if parent == Path.cwd() and not folder.is_absolute() else f"; {printable(parent)} does"
    raise FolderError(f"data.path: {printable(folder)} does not exist{where}{advice}")


def _nothing_found(container: Container, entries: Index) -> str:
    """Says what was found instead of images, since the path is usually off by a folder."""
    content = entries.content
    counts = [f"{count} {suffix}" for suffix, count in content["others"].items()]
    text = f"data.path: 0 readable images in {container.name} ({', '.join(counts) or 'no other files'})"
    unread = {suffix: count for suffix, (count, _) in content["unread"].items()}
    for todo, suffixes in advice_on(unread):
        text += f"; {', '.join(f'{unread[suffix]:,} {suffix}' for suffix in suffixes)} are not read: {todo}"
    if entries.problems:
        text += f"; {len(entries.problems)} could not be read, such as {entries.problems[0]}"
    if content["skipped"]:
        text += f"; skipped: {', '.join(f'{count:,} {name}' for name, count in content['skipped'].items())}"
    return text
