"""What the C library does with memory that tensors on the CPU free."""

from __future__ import annotations

import ctypes
import sys

# From malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
    """Keeps freed memory in the process, in one arena for all threads, instead of returning it to the system; whether
    the C library can.

    A training step frees and takes large tensors thousands of times, and each time the system has to clear every page
    of them again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: 1}
    done = [mallopt(option, value) for option, value in settings.items()]
    return all(done)
