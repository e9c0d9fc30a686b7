"""Memory: whether the C library keeps what tensors on the CPU free, and the batch size that suits a device."""

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

# The positions, such as pixels, of a batch on a CPU, and the most examples in a batch on any device.
POSITIONS, MAX_BATCH = 2**17, 1024
# The batch whose memory is measured on a GPU, and the share of the free memory that a batch may take.
PROBE_BATCH, SHARE = 4, 0.5


def tune_malloc() -> bool:
    """Makes the C library keep freed memory in the process, in one arena for all threads, instead of returning it to
    the system. Returns whether it can.

    A training step allocates and frees large tensors thousands of times. When memory returns to the system, it has to
    clear every page of it again each time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: 1}
    done = [mallopt(option, value) for option, value in settings.items()]
    return all(done)


def is_oom(error: RuntimeError) -> bool:
    """Whether an error says that a device, or this process, is out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def none_if_oom(call: Callable[[], Result]) -> Result | None:
    """Returns what a call returns, or None if memory runs out in it.

    The tensors of the call are freed before this function returns; while an error is being handled, it holds them.
    """
    try:
        return call()
    except RuntimeError as error:
        if not is_oom(error):
            raise
    return None


def auto_batch_size(call: Callable[[int], object], positions: int, device: torch.device) -> int:
    """Returns the batch size that suits a device, for examples of `positions` positions each, at least 1 and at most
    `MAX_BATCH`.

    On a CPU a batch has 2^17 positions, beyond which it hardly becomes faster (`benchmarks.sampling`). On a GPU it is
    the largest power of two that fits into `SHARE` of the free memory. To measure the memory of an example,
    `call(n)` has to evaluate the network on n examples.
    """
    if device.type != "cuda":
        return min(MAX_BATCH, max(1, POSITIONS // positions))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call(PROBE_BATCH)
    each = (torch.cuda.max_memory_allocated(device) - before) / PROBE_BATCH
    # Memory that torch has reserved but does not use is free too.
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - before
    return int(2 ** math.floor(math.log2(min(MAX_BATCH, max(1.0, SHARE * free / max(each, 1.0))))))
