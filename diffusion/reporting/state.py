"""Whether a run is being trained, and how it ended.

training          its lock is held
finished          its last pictures are those of its newest checkpoint
stopped           it ended by a signal or by an error, with checkpoints to go on from
ended abruptly    its lock was left behind by a process that is gone: killed, or the machine went down
empty             there is nothing to go on from
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from pathlib import Path
from typing import Literal

from diffusion.reporting.names import LOCK, ROUND

State = Literal["training", "finished", "stopped", "ended abruptly", "empty"]
# How long a training on another machine, whose lock cannot be seen from here, may write nothing, in seconds.
SILENCE_S = 600.0


def is_training(run: Path, updated: float) -> bool | None:
    """Whether a process trains in a run folder; None where one did and ended without releasing its lock.

    `updated` is when the run last wrote something, in seconds since 1970. By that alone it goes for the lock of another
    machine on a disk that does not pass locks on.
    """
    path = lock_of(run)
    held = is_held(path)
    if held or not path.exists():
        return held is True
    try:
        holder = re.fullmatch(r"process (\d+) on (.+)", path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False
    if holder is not None and holder[2] != socket.gethostname():
        return True if time.time() - updated < SILENCE_S else None
    if held is None and holder is not None and _is_alive(int(holder[1])):
        return True
    return None


def lock_of(run: Path) -> Path:
    """Returns the lock of a run; a round on completed images goes by that of the run that it belongs to."""
    owner = run.parent if run.name.startswith(ROUND) and not (run / LOCK).exists() else run
    return owner / LOCK


def is_held(path: Path) -> bool | None:
    """Whether a process holds a lock file; None on a disk without locks.

    To find out, the lock is shared for a moment, which `training.lock` bears by asking twice.
    """
    try:
        file = path.open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
