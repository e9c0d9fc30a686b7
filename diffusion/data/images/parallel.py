"""Spreads work over threads: Pillow and hashlib release the interpreter lock while they work."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

# A decoded photograph may take 200 MB, so that a machine of many cores would run out of memory if it used them all.
MAX_WORKERS = 16


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], total: int | None, *, title: str, progress: bool
) -> Iterator[Result]:
    """Yields the results of a function in the order of the items, with few of them in memory however many there are.

    With `progress`, and on a terminal only, a bar named `title` is shown, which runs to the `total`, if known.
    """
    workers = min(os.cpu_count() or 1, MAX_WORKERS)
    pending: deque[Future[Result]] = deque()
    bar = tqdm(total=total, desc=title, unit="file", disable=None if progress else True)
    with bar, ThreadPoolExecutor(workers) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * workers:
                yield pending.popleft().result()
                bar.update()
        while pending:
            yield pending.popleft().result()
            bar.update()
