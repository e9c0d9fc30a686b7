"""The runs whose jobs one page carries out: another page leaves these jobs alone until they have ended."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from diffusion.errors import InputError
from diffusion.page.job import FOLDER

# The file in the folder of jobs that holds the lock, and the address of the page that has it.
LOCK = ".page"


class Claims:
    """The runs that the page at an address holds, each by a lock (flock) that ends with its process."""

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._held: dict[Path, IO[str]] = {}

    def take(self, run: Path) -> None:
        """Holds a run, whose folder of jobs is made where it is not there.

        Raises InputError with the address of another page that holds it; OSError where nothing can be written.
        """
        if run in self._held:
            return
        (run / FOLDER).mkdir(parents=True, exist_ok=True)
        file = (run / FOLDER / LOCK).open("a+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read(200).strip() or "one whose address is not known"
            file.close()
            raise InputError(
                f"{run.name}: another page, {other}, is carrying out jobs of this run; go on there, or wait for them"
            ) from None
        except OSError:
            pass  # Some network file systems have no locks; jobs there go on without one.
        file.truncate(0)
        file.write(self._address)
        file.flush()
        self._held[run] = file

    def leave(self, run: Path) -> None:
        """Lets others have a run."""
        if file := self._held.pop(run, None):
            # It stays where it is: whoever has opened it by now waits for a lock on this very file.
            os.ftruncate(file.fileno(), 0)
            file.close()

    def close(self) -> None:
        """Lets others have all runs."""
        for run in [*self._held]:
            self.leave(run)
