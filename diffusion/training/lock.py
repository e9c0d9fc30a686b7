"""The lock of a run folder: one process at a time trains in it."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from diffusion.errors import InputError
from diffusion.reporting.names import LOCK as LOCK
from diffusion.reporting.names import REQUEST

# Pages share the lock for a moment to see whether somebody holds it, so that it is asked for several times.
ATTEMPTS, PAUSE_S = 4, 0.05


@contextmanager
def held(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Makes a run folder and holds its lock for this process.

    The system releases the lock (flock) when the process ends, however it ends. The lock file of a killed process is
    named and taken over. Requests (`reporting.requests`) are to the holder alone, and are removed with the lock.

    Raises InputError naming the process and host that hold the folder.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / LOCK
    with _locked(path) as file:
        file.seek(0)
        if left := file.read():
            say(f"{run}: {left} ended there without releasing its lock; going on from what it saved")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        (run / REQUEST).unlink(missing_ok=True)
        try:
            yield
        finally:
            (run / REQUEST).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    attempt = 0
    while True:
        attempt += 1
        file = path.open("a+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            if attempt < ATTEMPTS:
                time.sleep(PAUSE_S)
                continue
            raise InputError(
                f"{path.parent}: {holder} is training in this folder; wait for it, or choose another with --out"
            ) from None
        except OSError:
            return file  # Some network file systems have no locks; a run there goes on without one.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # Its last holder removed the file after it was opened here; no other process would see this lock.
