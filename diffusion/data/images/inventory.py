"""The entries of the cache: what each is, of which folders, how large, when it was last used, and whether it ever will
be again.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.data.images import cache, depth, index, store, uses
from diffusion.data.images.decoding import printable
from diffusion.data.images.pixel_format import PixelFormat

# The names of entries of this and of earlier versions. Anything else in the folder of a cache is not the cache's.
NAMES = re.compile(rf"({cache.PIXELS}|{index.INDEX}|{depth.VALUES})-[0-9a-f-]+|[0-9a-f]{{32}}")


@dataclass(frozen=True)
class Stored:
    """An entry of the cache: its folder, what it holds in words, and the number of its images if it has some.

    `roots` are the folders that it was opened for. `bytes` is its size on disk and `used` the time of its last use, in
    seconds since 1970. `obsolete` says why it will not be read again; it is empty where it may be. `unfinished` is one
    that a process writes at present, or wrote when it was killed.
    """

    path: Path
    what: str
    images: int | None
    roots: tuple[str, ...]
    bytes: int
    used: float
    obsolete: str = ""
    unfinished: bool = False

    @property
    def of(self) -> str:
        """The folders that it is of, in words."""
        return ", ".join(map(printable, self.roots)) or "unknown"


def entries(folder: Path) -> list[Stored]:
    """Returns the entries of the cache in a folder, the largest first; anything else there is passed over."""
    paths = [path for path in _inside(folder) if path.is_dir()]
    found = [_stored(path) for path in paths if NAMES.fullmatch(path.name)]
    found += [unfinished(path) for path in paths if path.name.startswith(store.UNFINISHED)]
    return sorted(found, key=lambda entry: (-entry.bytes, entry.path.name))


def others(folder: Path) -> int:
    """Returns the number of files and folders among the entries that are none."""
    return sum(
        not NAMES.fullmatch(path.name) and not path.name.startswith(store.UNFINISHED) for path in _inside(folder)
    )


def _inside(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.iterdir())) if folder.is_dir() else iter(())


def _stored(path: Path) -> Stored:
    content, used = _content(path), uses.of(path)
    last = max(used.values(), default=_changed(path))
    gone = bool(used) and not any(os.path.exists(root) for root in used)
    if not _current(path, content, list(used)):
        obsolete = "written by an earlier version, or damaged"
    else:
        obsolete = "its folder is gone" if gone else ""
    return Stored(path, *_said(path, content), tuple(used), size(path), last, obsolete)


def unfinished(path: Path) -> Stored:
    """Returns the entry of a folder that a process writes at present, or wrote when it was killed."""
    last = _changed(path)
    left = "" if time.time() - last < store.DAY else "left by a process that was killed"
    return Stored(path, "unfinished", None, (), size(path), last, left, unfinished=True)


def _content(path: Path) -> dict[str, Any]:
    """Returns the content of a manifest, which is not verified; empty where it cannot be read."""
    try:
        content = json.loads((path / store.MANIFEST).read_text())["content"]
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _current(path: Path, content: dict[str, Any], roots: list[str]) -> bool:
    """Whether this version reads an entry."""
    family = path.name.rpartition("-")[0]
    try:
        if path.name.startswith(cache.PIXELS):
            return family == cache.family(tuple(content["size"]), _format(content), content.get("masks", ""))
        if path.name.startswith(index.INDEX):
            return not roots or any(family == index.family(Path(root)) for root in roots)
    except (LookupError, TypeError, ValueError):
        return False
    return path.name.count("-") == 2 and bool(content)


def _format(content: dict[str, Any]) -> PixelFormat:
    fields = dict(content["pixel_format"])
    ends = fields["value_range"]
    fields["value_range"] = None if ends is None else tuple(ends)
    return PixelFormat(**{**fields, "background": tuple(fields["background"])})


def _said(path: Path, content: dict[str, Any]) -> tuple[str, int | None]:
    """Returns what an entry holds in words, and the number of its images."""
    if path.name.startswith(cache.PIXELS) and "size" in content:
        height, width = content["size"]
        channels = content.get("pixel_format", {}).get("channels", "?")
        masks = " and masks" * bool(content.get("masks"))
        return f"pixels {width}x{height}, {channels} channel{'' if channels == 1 else 's'}{masks}", content.get(
            "images"
        )
    if path.name.startswith(index.INDEX):
        return "names, headers and hashes", None
    if path.name.startswith(depth.VALUES):
        return "lowest and highest values", content.get("images")
    return "of an earlier version", None


def size(path: Path) -> int:
    """Returns the number of bytes of all files in a folder and below it."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # Another process removes it.
                continue
    return total


def _changed(path: Path) -> float:
    """The time of the last change in a folder; that of now where it vanishes."""
    times = []
    for folder, _, names in os.walk(path):
        for place in (folder, *(os.path.join(folder, name) for name in names)):
            try:
                times.append(os.lstat(place).st_mtime)
            except OSError:
                continue
    return max(times, default=time.time())
