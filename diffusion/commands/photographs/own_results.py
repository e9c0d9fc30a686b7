"""Tells results of this package, which lie among images, from the images that a person means."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from diffusion.data.images import encoding, junk

# Marks a folder of restorations of one image, and lists those that lie below a folder under the images' own names.
RECORD, RECORDS = "restoration.json", junk.RECORDS
# The names that restorations have in a folder of one image.
NAMES = re.compile(r"(restored-\d+|mean|std|low|high|damaged|restoration)\.(png|tif|npy)")


@dataclass(frozen=True)
class OwnResults:
    """Decides which files below the folder `root` are results of this package, and keeps them in `found`.

    These are pictures that carry what made them, files in the folders that restorations were written to, and whatever
    lies below `out`, where the results of the present command go, if that is a folder within `root`.
    """

    root: Path
    out: Path | None = None
    found: list[Path] = field(default_factory=list)
    _marked: dict[Path, Callable[[Path], bool]] = field(default_factory=dict)

    def __call__(self, path: Path) -> bool:
        """Whether a file, at a path that begins with `root`, is a result."""
        own = self._within_out(path) or any(
            self._of(folder)(path) for folder in path.parents if folder.is_relative_to(self.root)
        )
        if own or carries_settings(path):
            self.found.append(path)
            return True
        return False

    @cached_property
    def _out(self) -> Path | None:
        out = self.out and self.out.resolve()
        return out if out and self.root.resolve() in out.parents else None

    def _within_out(self, path: Path) -> bool:
        return self._out is not None and self._out in path.resolve().parents

    def _of(self, folder: Path) -> Callable[[Path], bool]:
        """Decides which files in a folder and below it are results by what is written in the folder."""
        if folder not in self._marked:
            self._marked[folder] = self._reads(folder)
        return self._marked[folder]

    def _reads(self, folder: Path) -> Callable[[Path], bool]:
        listed = {folder / name for name in records(folder)}
        whole = (folder / RECORD).is_file()

        def own(path: Path) -> bool:
            # The images themselves may lie where the restorations of one of them were written.
            named = folder != self.root or (bool(NAMES.fullmatch(path.name)) and path.parent == folder)
            return path in listed or (whole and named)

        return own


def carries_settings(path: Path) -> bool:
    """Whether a PNG or TIFF carries the settings that this package made it with."""
    if path.suffix.lower() not in encoding.PNG | encoding.TIFF:
        return False
    try:
        return bool(encoding.read_info(path))
    except Exception:  # Whatever is wrong with it, it is not one of ours.
        return False


def records(folder: Path) -> dict[str, dict[str, object]]:
    """Returns what is recorded of the restorations below a folder by their relative names; nothing without a record.

    A line that an interruption cut off is passed over.
    """
    try:
        lines = (folder / RECORDS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            entry = json.loads(line)
            found[str(entry["result"])] = entry
        except (ValueError, KeyError, TypeError):
            continue
    return found
