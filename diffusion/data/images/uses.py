"""The uses of the entries of the cache: which folders of images each was opened for, and when.

The names of entries have the form FAMILY-STATE. A family has the states that one folder went through, or the folders
that were decoded by one setting. An entry that was made for an earlier state of a folder is removed when the folder
opens another one, unless other folders use it too. Arrays that a process has mapped from it stay readable.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from diffusion.data.images.store import UNFINISHED
from diffusion.files import write_text

USES = "uses.json"
# Seconds within which an entry that is used again is not noted again.
FRESH = 3600


def of(entry: Path) -> dict[str, float]:
    """Returns the folders that an entry was opened for, each with the last time in seconds since 1970."""
    try:
        found = json.loads((entry / USES).read_text())
        return {str(root): float(when) for root, when in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note(entry: Path, root: Path) -> None:
    """Notes that an entry is used by the folder at `root`, and removes it from the uses of the rest of its family.

    A cache that belongs to another user is left as it is.
    """
    name, now = str(root.resolve()), time.time()
    with contextlib.suppress(OSError):
        known = of(entry)
        if not 0 <= now - known.get(name, 0.0) < FRESH:
            _write(entry, known | {name: now})
        for other in entry.parent.glob(f"{entry.name.rpartition('-')[0]}-*"):
            if other.name != entry.name and name in (users := of(other)):
                del users[name]
                if users:
                    _write(other, users)
                else:
                    remove(other)


def remove(entry: Path) -> None:
    """Removes an entry in one step, so that no process finds a part of it.

    Raises OSError when it cannot be removed.
    """
    # It ends as an unfinished entry, which is swept after a day if this process is killed before it is gone.
    holder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=entry.parent))
    try:
        os.rename(entry, holder / entry.name)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _write(entry: Path, uses: dict[str, float]) -> None:
    write_text(entry / USES, json.dumps(uses))
