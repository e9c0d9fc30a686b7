"""Where restorations go: to places of their own, where no other results lie, or that already hold the same ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffusion.checkpoint import file_hash
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.own_results import NAMES, RECORD, RECORDS, records
from diffusion.errors import InputError
from diffusion.files import numbered

# Options that say where things are, or how fast the work goes, and not what comes out.
ELSEWHERE = {"run", "images", "mask", "out", "again", "batch", "device"}
Record = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the results of an image go: a folder, or a file, which is recorded in the folder `root` if there is one.

    `done` says that they are there.
    """

    file: ImageFile
    path: Path
    done: bool = False
    root: Path | None = None


@dataclass(frozen=True)
class Request:
    """What results are made of besides an image and its mask: the options of a command, by their names, and the hash of
    the model's weights. `numbered` says that the number of an image among all of them counts as well.
    """

    settings: Record
    defaults: Record
    weights: str
    numbered: bool = False

    @classmethod
    def of(cls, command: Any, weights: str, *, numbered: bool = False) -> Request:  # noqa: ANN401, options of any command
        """The request that a command makes of a model."""
        name = {"command": type(command).__name__.lower()}
        return cls({**name, **settings(command)}, defaults(type(command)), weights, numbered)

    def record(self, file: ImageFile, number: int) -> Record:
        """What is stored with the results of an image."""
        mask = {} if file.mask is None else {"mask_path": str(file.mask.resolve()), "mask_sha256": content(file.mask)}
        return {
            "image_path": str(file.path.resolve()),
            "image_sha256": content(file.path),
            **mask,
            "weights_sha256": self.weights,
            "settings": self.settings,
            "number": number,
        }

    def differs(self, stored: Record, file: ImageFile, number: int) -> str:
        """How results of a record differ from those of an image; empty if they are the same."""
        if "settings" not in stored or {**self.defaults, **stored["settings"]} != {**self.defaults, **self.settings}:
            return "restorations with other settings"
        if stored.get("weights_sha256") != self.weights:
            return "restorations by another model"
        if self.numbered and stored.get("number") != number:
            return OTHER_IMAGE
        if stored.get("image_sha256") != content(file.path):
            return OTHER_IMAGE
        if stored.get("mask_sha256") != (file.mask and content(file.mask)):
            return OTHER_MASK
        return ""


OTHER_IMAGE, OTHER_MASK = "restorations of another image", "restorations with another mask"
UNKNOWN = "{} of another origin"


def settings(options: Any) -> Record:  # noqa: ANN401, options of any command
    """The options of a command that decide what comes out, as JSON holds them."""
    found: Record = {}
    for each in fields(options):
        value = getattr(options, each.name)
        if each.name in ELSEWHERE:
            continue
        if is_dataclass(value):
            found |= settings(value)
        elif isinstance(value, Path) and value.is_file():
            found[each.name] = content(value)  # It counts by what is in it.
        else:
            found[each.name] = _plain(value)
    return found


def defaults(kind: type) -> Record:
    """The settings of a command that were left out: those that results from before an option was there have."""
    found: Record = {}
    for each in fields(kind):
        if each.default is MISSING or each.name in ELSEWHERE:
            continue
        found |= settings(each.default) if is_dataclass(each.default) else {each.name: _plain(each.default)}
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401, the value of any option
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def content(path: Path) -> str:
    """The sha256 of a file, which is read once as long as it does not change."""
    status = path.stat()
    return _content(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _content(path: Path, size: int, changed: int) -> str:
    return file_hash(path)


def read_record(folder: Path) -> Record | None:
    """The record of a folder of restorations, None without one that can be read."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class Places:
    """Finds the places of the results of one request.

    With `explicit` the root was named, and other results in it are an error. `alone` says that one file was named,
    whose results are in the root itself. Results are files with relative `names`, where these are given, else folders.
    With `again` results that are there already are made again.
    """

    request: Request
    files: Sequence[ImageFile]
    root: Path
    alone: bool
    explicit: bool = False
    again: bool = False
    names: Sequence[Path] | None = None

    def __call__(self) -> tuple[list[Place], str]:
        """The places of all files, and a line to print where they are not those that one expects.

        Raises InputError for a named root that holds other results.
        """
        first = ""
        for root in numbered(self.root):  # The first of them that is free.
            taken = self._taken(root)
            if not taken:
                break
            first = first or taken
            if self.explicit:
                raise InputError(f"--out: {root} holds {taken}; name another folder")
        places = [self._place(root, number) for number in range(len(self.files))]
        return places, f"{self.root} holds {first}; these go to {root}" if first else ""

    def _taken(self, root: Path) -> str:
        """What a root holds that no results may be mixed with."""
        mixed = () if self.alone else (OTHER_IMAGE, OTHER_MASK)
        for number in range(len(self.files)):
            difference = self._difference(self._path(root, number), number, root)
            if difference and difference not in mixed:
                path = self._path(root, number)
                return difference.format(path.name if self.names else "pictures")
        return ""

    def _place(self, root: Path, number: int) -> Place:
        for path in numbered(self._path(root, number), suffix=self.names is not None):
            difference = self._difference(path, number, root)
            if not difference:
                listed = None if self.names is None else root
                return Place(self.files[number], path, difference == "" and not self.again, listed)
        raise AssertionError

    def _path(self, root: Path, number: int) -> Path:
        if self.names is not None:
            return root / self.names[number]
        return root if self.alone else root / self.files[number].folder

    def _difference(self, path: Path, number: int, root: Path) -> str | None:
        """How what lies at a path differs from the results of a file; None for nothing, empty for nothing but them."""
        if self.names is None:
            stored = read_record(path)
            there = stored is not None or (path.is_dir() and any(NAMES.fullmatch(each.name) for each in path.iterdir()))
        else:
            there = path.exists() or (root / RECORD).exists()
            stored = _recorded(root).get(path.relative_to(root).as_posix()) if path.exists() else None
        if not there:
            return None
        return UNKNOWN if stored is None else self.request.differs(stored, self.files[number], number)


def _recorded(root: Path) -> dict[str, Record]:
    try:
        status = (root / RECORDS).stat()
    except OSError:
        return {}
    return _recorded_in(root, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _recorded_in(root: Path, size: int, changed: int) -> dict[str, Record]:
    return records(root)
