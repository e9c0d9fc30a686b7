"""The processor cores of this process, and calls that are spread over threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def cores() -> int:
    """Returns the number of processor cores that this process may use.

    The processes that a launcher started on this machine share its cores.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def spread(call: Callable[[range], object], n: int, threads: int) -> None:
    """Calls `call` with the numbers 0, ..., n - 1 in consecutive parts, one in each of at most `threads` threads.

    Returns when all are done. With one thread it is the caller's. Raises what a call raises, as it is.
    """
    threads = min(threads, n)
    if threads <= 1:
        call(range(n))
        return
    parts = [range(n * i // threads, n * (i + 1) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(call, parts):
            pass
