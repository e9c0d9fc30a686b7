"""Memory: what the C library does with what tensors on the CPU free, and how many examples suit a device at once."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")

# From malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

# Positions, pixels for instance, of the examples that a CPU takes at once, and the most examples on any device.
POSITIONS, MOST = 2**17, 1024
TRIED, SHARE = 4, 0.5


def tune_malloc() -> bool:
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


def is_oom(error: RuntimeError) -> bool:
    """Whether it says that a device, or this process, has no more memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def none_if_oom(call: Callable[[], Result]) -> Result | None:
    """What a call returns, None when memory runs out in it.

    Its tensors are free again by then: an error that is being handled holds on to them.
    """
    try:
        return call()
    except RuntimeError as error:
        if not is_oom(error):
            raise
    return None


def auto_batch_size(call: Callable[[int], object], positions: int, device: torch.device) -> int:
    """How many examples of that many positions at once suit a device, given a call that takes some through the network.

    On a CPU 2^17 positions, beyond which it hardly becomes faster (`benchmarks.sampling`). On a GPU as many as `SHARE`
    of its free memory holds, by the peak of a call of a few: a power of two. At least 1 and at most `MOST`.
    """
    if device.type != "cuda":
        return min(MOST, max(1, POSITIONS // positions))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call(TRIED)
    each = (torch.cuda.max_memory_allocated(device) - before) / TRIED
    # What torch holds without using it is free too.
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - before
    return int(2 ** math.floor(math.log2(min(MOST, max(1.0, SHARE * free / max(each, 1.0))))))
