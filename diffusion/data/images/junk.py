"""Tells files and folders that systems, shares and this package leave among images from the images that a person means.

Names decide for what file servers, desktops and photo programs leave. Results of this package are known by the settings
that made them, which a PNG and a TIFF carry, and by the record of restorations under their images' own names.
"""

from __future__ import annotations

import json
import os
from io import BufferedReader, BytesIO

from diffusion.data.images.encoding import KEY
from diffusion.data.images.tiff import DESCRIPTION, read_tags

# Names of files and folders in lower case: recycle bins, snapshots, thumbnails, resource forks and records of systems.
_NAMES = frozenset(
    {
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "~snapshot"),
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "_gsdata_", "found.000"),
        *("ehthumbs_vista.db", "desktop.ini", "folder.htt", "lost+found", "__macosx", "network trash folder"),
        *("temporary items", "thevolumesettingsfolder", "icon\r", "picasa.ini", "zbthumbnail.info", "__pycache__"),
    }
)
# Bins of old Windows, of whose names others may be classes.
_CAPITALS = frozenset({"RECYCLER", "RECYCLED"})
# The ends of names, in lower case, of folders that photo programs keep previews in.
_ENDS = (".lrdata", ".lrcat-data", ".cocatalogdb")
# Names with a dot that are counted by themselves; others are counted together.
_DOTTED = frozenset(
    {
        *(".ds_store", ".ipynb_checkpoints", ".thumbnails", ".appledouble", ".picasaoriginals", ".trash", ".trashes"),
        *(".@__thumb", ".spotlight-v100", ".fseventsd", ".snapshot", ".snapshots", ".stversions", ".dropbox.cache"),
        *(".git", ".cache", ".picasa.ini", ".localized", ".temporaryitems", ".documentrevisions-v100"),
    }
)
FORKS, HIDDEN = "._*", "hidden (.*)"
OWN = "results of diffusion"
# Lists the restorations below a folder that have their images' own names.
RECORDS = "restorations.jsonl"


def junk(name: str) -> str | None:
    """Returns the heading under which a file or folder of this name is skipped; None for a name to be looked at."""
    if name[0] == ".":
        if name.startswith("._"):
            return FORKS
        return name if name.lower() in _DOTTED or name.lower().startswith(".trash-") else HIDDEN
    lower = name.lower()
    return name.strip() if lower in _NAMES or name in _CAPITALS or lower.endswith(_ENDS) else None


def listed_results(folder: str) -> set[str]:
    """Returns the paths, relative to a folder, of the restorations that are recorded there under their images' names.

    A line that an interruption cut off is passed over, and so is a record that cannot be read.
    """
    found = set()
    try:
        with open(os.path.join(folder, RECORDS), encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    found.add(os.path.normpath(json.loads(line)["result"]))
                except (ValueError, KeyError, TypeError):
                    continue
    except OSError:
        pass
    return found


def carries_settings(kind: str, file: BufferedReader | BytesIO) -> bool:
    """Whether an open file of a format, at its beginning, carries the settings that this package made it with.

    Of a PNG, only the chunks before its pixels are looked at, where this package writes them.
    """
    try:
        if kind == "PNG":
            return _in_chunks(file)
        return kind == "TIFF" and KEY in json.loads(read_tags(file)[DESCRIPTION])
    except Exception:  # Whatever is wrong with it, it is not one of ours.
        return False


def _in_chunks(file: BufferedReader | BytesIO) -> bool:
    mark = KEY.encode() + b"\0"
    file.seek(33)  # Behind the signature and the chunk that comes first, whose size is fixed.
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        size, text = int.from_bytes(head[:4], "big"), head[4:] in (b"tEXt", b"zTXt", b"iTXt")
        if text and file.read(len(mark)) == mark:
            return True
        file.seek(size + 4 - (len(mark) if text else 0), os.SEEK_CUR)
    return False
