"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".tmp-"


def write_text(path: Path, text: str) -> None:
    """Replaces a text file in one step: readers see the old contents or the new, never a part."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
