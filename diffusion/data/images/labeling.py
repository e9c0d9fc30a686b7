"""Gives images their classes: by a table of labels, or by the first part of their names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from diffusion.data.images.container import Container
from diffusion.data.images.decoding import printable
from diffusion.data.images.folder import natural
from diffusion.data.images.formats import SUFFIXES
from diffusion.data.images.index import Index
from diffusion.data.images.labels import SUFFIXES_READ, Row, read_labels
from diffusion.errors import InputError

PREFIX = "prefix"
# The table that the tools of StyleGAN put beside the images, whose folders are no classes then.
STYLEGAN = "dataset.json"
# What stands before the last number of a name: cat of cat_01, of "cat (2)" and of cat3.
_PREFIX = re.compile(r"(.*?[^\W\d_].*?)[\s._-]*[(\[]?\d+[)\]]?")
# With more images than this, a table with fewer than two of them for a class on average is mistaken for one of classes.
MANY = 20


@dataclass(frozen=True)
class Classes:
    """The classes of N images: their `names` in natural order, the number of each image's, (N,), -1 without one.

    `said` are sentences about where they come from.
    """

    names: tuple[str, ...]
    numbers: npt.NDArray[np.int64]
    said: tuple[str, ...]


def by_prefix(container: Container, index: Index) -> Classes:
    """Returns the classes that names begin with: the text before their last number, and before what separates it.

    Raises InputError where most names have no such text.
    """
    stems = [PurePosixPath(path).stem for path in _paths(container, index)]
    found = [match[1] if (match := _PREFIX.fullmatch(stem)) else None for stem in stems]
    without = [place for place, label in enumerate(found) if label is None]
    if len(without) * 2 > len(stems):
        raise InputError(
            f"data.labels: {len(without):,} of {len(stems):,} names of images have no text before a number at their "
            f"end, such as {index.names[without[0]]}; name them as in cat_01.jpg"
        )
    return _classes(index, found, "the names of the files", [], "has no prefix")


def by_table(container: Container, index: Index, option: str) -> Classes:
    """Returns the classes that a table states; it lies within the container, beside it, or where its path says.

    Raises InputError where there is no such table, it cannot be read, a row may be about several images, or most images
    have no row.
    """
    inside, root = container.text(option), Path(container.root)
    if inside is not None:
        return _from_rows(container, index, option, _placed(read_labels(option, inside), option))
    places = [place for place in (root.absolute().parent / option, Path(option).expanduser()) if place.is_file()]
    if not places:
        raise InputError(_missing(container, index, option))
    table = places[0]
    rows = read_labels(printable(table), table.read_bytes())
    # A table beside the folder may name images by paths that begin at the table.
    below = os.path.relpath(root.absolute(), table.absolute().parent).replace(os.sep, "/") + "/"
    named = [(row, [row.name, _clean(row.name).removeprefix(_clean(below))]) for row in rows]
    return _from_rows(container, index, printable(table), named)


def by_stylegan_table(container: Container, index: Index) -> Classes | None:
    """Returns the classes of the tables that the tools of StyleGAN write beside the images; None where there is none.

    There is one in a folder, or one in each archive.
    """
    named: list[tuple[Row, list[str]]] = []
    tables = [path for path in index.content["tables"] if container.inside(path) == STYLEGAN]
    for path in tables:
        content = container.text(path)
        try:
            rows = read_labels(path, content or b"")
        except InputError:
            return None
        named += _placed(rows, path)
    return _from_rows(container, index, ", ".join(tables), named) if named else None


def _placed(rows: list[Row], table: str) -> list[tuple[Row, list[str]]]:
    """Returns rows with the paths that their images may have, the one in the folder of the table first."""
    folder = str(PurePosixPath(table).parent)
    return [(row, [row.name] if folder == "." else [f"{folder}/{row.name}", row.name]) for row in rows]


def _missing(container: Container, index: Index, option: str) -> str:
    if Path(option).suffix.lower() not in SUFFIXES_READ:
        return f"data.labels: must be true, false, prefix, or a table ({', '.join(SUFFIXES_READ)}), got {option!r}"
    found = index.content["tables"]
    there = f"; {container.name} holds {', '.join(found)}" if found else ""
    return f"data.labels: no table {option} in {container.name}, beside it, or here{there}"


class _Images:
    """The images of an index, found by their paths, by the last parts of these, and by those without suffix."""

    def __init__(self, container: Container, index: Index) -> None:
        self.names = index.names
        self.paths: dict[str, int | None] = {}
        self.lasts: dict[str, int | None] = {}
        self.stems: dict[str, int | None] = {}
        # Pages of one file share its row.
        self.file = np.arange(len(index))
        seen: dict[tuple[str, int], int] = {}
        for number, (path, inside) in enumerate(zip(_raw(index), _paths(container, index), strict=True)):
            first = seen.setdefault((path, int(index.rows["offset"][number])), number)
            self.file[number] = first
            if first == number:
                _add(self.paths, _clean(inside), number)
                if path != inside:
                    _add(self.paths, _clean(path), number)
                _add(self.lasts, PurePosixPath(_clean(inside)).name, number)
                _add(self.stems, PurePosixPath(_clean(inside)).stem, number)

    def find(self, names: Iterable[str]) -> int | None:
        """Returns the number of the image that is meant by one of several names, None if there is none.

        Raises LookupError where several images may be meant.
        """
        clean = [_clean(name) for name in names]
        last = PurePosixPath(clean[-1]).name
        stem = PurePosixPath(last).stem if PurePosixPath(last).suffix.lower() in SUFFIXES else last
        for known, keys in ((self.paths, clean), (self.lasts, [last]), (self.stems, [stem])):
            for key in keys:
                if key in known:
                    number = known[key]
                    if number is None:
                        raise LookupError(key)
                    return number
        return None


def _add(known: dict[str, int | None], key: str, number: int) -> None:
    known[key] = None if key in known else number


def _from_rows(container: Container, index: Index, table: str, rows: list[tuple[Row, list[str]]]) -> Classes:
    images = _Images(container, index)
    taken: dict[int, Row] = {}
    lost: list[Row] = []
    for row, names in rows:
        try:
            number = images.find(names)
        except LookupError:
            raise InputError(
                f"data.labels: {table}, {row.place}: several images are called {row.name}; write their paths"
            ) from None
        if number is None:
            if not row.title:
                lost.append(row)
        elif (before := taken.setdefault(number, row)).label != row.label:
            raise InputError(
                f"data.labels: {table}, {row.place}: {row.name} is {row.label!r}, "
                f"but {before.label!r} in {before.place}"
            )
    found = [taken[first].label if first in taken else None for first in images.file.tolist()]
    said = [f"{len(lost):,} rows name no image here, such as {lost[0].place}, {lost[0].name}"] if lost else []
    without = found.count(None)
    if without * 2 > len(found):
        example = index.names[found.index(None)]
        raise InputError(
            f"data.labels: {table} says nothing of {without:,} of {len(found):,} images, such as {example}; "
            f"its rows name images like {rows[0][0].name if rows else 'none'}"
        )
    return _classes(index, found, table, said, "has no label")


def _classes(index: Index, found: list[str | None], source: str, said: list[str], lack: str) -> Classes:
    names = tuple(natural({label for label in found if label is not None}))
    if len(found) > MANY and len(names) * 2 > len(found):
        raise InputError(
            f"data.labels: {source} gives {len(names):,} classes to {len(found):,} images, such as {names[0]}; a class "
            "needs several images"
        )
    number = {name: place for place, name in enumerate(names)}
    numbers = np.array([-1 if label is None else number[label] for label in found], np.int64)
    without = np.flatnonzero(numbers < 0)
    if len(without):
        said.append(f"{len(without):,} images are left out, as each {lack}, such as {index.names[int(without[0])]}")
    return Classes(names, numbers, (f"from {source}", *said))


def _raw(index: Index) -> Iterator[str]:
    return (os.fsdecode(index.names.encoded(number)) for number in range(len(index)))


def _paths(container: Container, index: Index) -> Iterator[str]:
    return map(container.inside, _raw(index))


def _clean(path: str) -> str:
    """Returns a path as it is compared: with slashes, from where it begins, in one form of Unicode."""
    return unicodedata.normalize("NFC", path.replace("\\", "/").removeprefix("./").lstrip("/"))
