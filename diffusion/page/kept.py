"""Photographs that were handed to the page, and masks of them, in RUN/page/uploads: every byte as it came.

ID/original/NAME    the file; ID is the beginning of its sha256
ID/masks/MASK.png   a mask of it, likewise; white is known, black is to be filled
ID/upload.json      what is known of it
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion.errors import InputError
from diffusion.files import write_text

FOLDER, ORIGINAL, MASKS, RECORD = "page/uploads", "original", "masks", "upload.json"
# The digits of a hash by which a file is known, and what such an id is.
DIGITS = 16
ID = re.compile(f"[0-9a-f]{{{DIGITS}}}")
# The bytes of the longest name, and of its suffix.
LONGEST, SUFFIX = 120, 10


@dataclass(frozen=True)
class Upload:
    """A photograph: its `id`, `name`, upright size in pixels, `bands` in words, and `notices` of what gets lost of it.

    `has_alpha` says that some of it is transparent.
    """

    id: str
    name: str
    width: int
    height: int
    bands: str
    has_alpha: bool
    notices: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Writes the record into the folder of the photograph, in one step."""
        write_text(folder / RECORD, json.dumps(self.to_dict(), indent=1))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {**vars(self), "notices": [*self.notices]}


def folder_of(run: Path, number: str) -> Path:
    """Returns the folder of a photograph in a run folder. Raises InputError for what is no id."""
    if not ID.fullmatch(number):
        raise InputError(f"upload: must be the id of an image that this run was given, got {number!r}")
    return run / FOLDER / number


def read(run: Path, number: str) -> Upload:
    """Returns what is known of a photograph. Raises InputError where the run was given none of this id."""
    try:
        found = json.loads((folder_of(run, number) / RECORD).read_text(encoding="utf-8"))
        upload = Upload(**{**found, "notices": tuple(found["notices"])})
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f"upload: this run was given no image {number!r}; hand it over again") from None
    return upload


def original(run: Path, number: str) -> Path:
    """Returns the file of a photograph. Raises InputError where the run was given none of this id."""
    return folder_of(run, number) / ORIGINAL / cleaned(read(run, number).name)


def mask(run: Path, number: str, mask: str) -> Path:
    """Returns the file of a mask of a photograph. Raises InputError where there is none of this id."""
    path = folder_of(run, number) / MASKS / f"{mask}.png"
    if not ID.fullmatch(mask) or not path.is_file():
        raise InputError(f"mask: there is no mask {mask!r} of this image; hand it over again")
    return path


def cleaned(name: str) -> str:
    """Returns the last part of a name from elsewhere, without signs that file systems or shells do not take."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(sign for sign in last if sign.isprintable() and sign not in '<>:"|?*').strip(" .-")
    stem, dot, suffix = kept.rpartition(".")
    if not stem or len(suffix) > SUFFIX:
        stem, dot, suffix = kept, "", ""
    room = LONGEST - len(f"{dot}{suffix}".encode())
    return f"{stem.encode()[:room].decode(errors='ignore').rstrip() or 'image'}{dot}{suffix}"
