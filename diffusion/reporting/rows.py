"""The rows of a file of JSON lines that grows, read as far as it has been written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

# The bytes before the place where reading stopped, by which a file that was replaced meanwhile is known.
TAIL = 64


class Rows:
    """Reads a file of rows, each time only what is new.

    A row is a JSON object with a whole number `step`. Lines that are none are passed over, and so is a last line
    without its end, until it is whole. A file that was cut or replaced, as a resumed run does, is read anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._rows: tuple[dict[str, Any], ...] = ()
        self._offset, self._tail = 0, b""

    def __call__(self) -> tuple[dict[str, Any], ...]:
        """Returns all rows that are there by now, in the order of the file; none where it cannot be read."""
        with self._lock:
            try:
                new = self._new()
            except OSError:
                self._forget()
                return ()
            whole = new[: new.rfind(b"\n") + 1]
            if whole:
                self._rows += tuple(row for line in whole.splitlines() if (row := _row(line)) is not None)
                self._offset += len(whole)
                self._tail = (self._tail + whole)[-TAIL:]
            return self._rows

    def _new(self) -> bytes:
        """The bytes since the last look."""
        with self.path.open("rb") as file:
            file.seek(self._offset - len(self._tail))
            if file.read(len(self._tail)) != self._tail:
                self._forget()
                file.seek(0)
            return file.read()


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and not isinstance(step, bool) else None
