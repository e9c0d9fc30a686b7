"""A process that a launcher, such as torchrun, started as one of several, and how it ends."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys


def processes() -> int:
    """Returns the number of processes that a launcher started with this one, 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def several() -> bool:
    """Whether a launcher started this process as one of several."""
    return processes() > 1


def leave(code: int) -> int:
    """Returns the exit code of a program; one of several processes ends with it here.

    It ends without the end of the interpreter: torch keeps threads of gloo after their group, and one that drops a
    tensor while the interpreter ends aborts a process whose work is done. A process of multiprocessing, which has such
    an end of its own and hands over what it returns, returns.
    """
    if several() and multiprocessing.parent_process() is None:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    return code
