"""Spreads work over threads: Pillow and hashlib release the interpreter lock while they work."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from diffusion.progress import bar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A decoded photograph may take 200 MB, so that a machine of many cores would run out of memory if it used them all.
MAX_WORKERS = 16


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], total: int | None, *, title: str, progress: bool
) -> Iterator[Result]:
    """Yields the results of a function in the order of the items, with few of them in memory however many there are.

    With `progress` it is shown under the `title`, up to the `total`, if known.
    """
    workers = min(os.cpu_count() or 1, MAX_WORKERS)
    pending: deque[Future[Result]] = deque()
    with bar(total, title, "file", show=progress) as moving, ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * workers:
                yield pending.popleft().result()
                moving.update()
        while pending:
            yield pending.popleft().result()
            moving.update()
