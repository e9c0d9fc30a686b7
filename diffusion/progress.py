"""Progress of long work: a bar on a terminal and in a notebook, and a line now and then in files and pipes.

A bar redraws itself with carriage returns, which make one endless line of a log.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, TypeVar

from tqdm import auto, std

Item = TypeVar("Item")

# Seconds up to the first line, and between lines.
FIRST_S, EVERY_S = 10.0, 60.0
# The errors of writing to a terminal that was closed, and to a program that has ended.
GONE = (errno.EIO, errno.EPIPE)


class Bar(Protocol):
    """The progress of some work: `n` parts of it are done."""

    n: Any

    def __enter__(self) -> Self:
        """Begins."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object:
        """Ends."""
        ...

    def update(self, n: float = 1) -> object:
        """Says that n more parts are done."""
        ...

    def set_postfix_str(self, text: str) -> object:
        """Sets the numbers that are shown beside the progress."""
        ...


def bar(total: int | None, title: str, unit: str, *, show: bool = True, done: int = 0, report: bool = False) -> Bar:
    """Returns the progress of `total` parts, None if their number is not known, of which `done` are done already.

    Without `show` nothing is written. With `report` the lines of files and pipes also come with the first numbers
    beside the progress and at the end, however short the work is.
    """
    if not show:
        return std.tqdm(disable=True)  # type: ignore[no-any-return]
    if draws(sys.stderr):
        return auto.tqdm(  # type: ignore[no-any-return]
            total=total, desc=title, unit=unit, initial=done, mininterval=0.5, dynamic_ncols=True
        )
    return Lines(total, title, unit, done=done, report=report)


def track(items: Iterable[Item], total: int, title: str, unit: str, *, show: bool = True) -> Iterator[Item]:
    """Yields items, with the progress of going through them."""
    with bar(total, title, unit, show=show) as moving:
        for item in items:
            yield item
            moving.update()


def draws(stream: TextIO | None) -> bool:
    """Whether a stream can show a bar, as terminals and notebooks can."""
    in_notebook = auto.notebook_tqdm is not std.tqdm
    return in_notebook or (stream is not None and stream.isatty())


def say(text: str) -> None:
    """Prints a line on standard output, above the bars of a terminal.

    Where nobody reads any more, because a terminal was closed or a program has ended, it and all later ones are
    dropped, as the work is worth more than what is said about it.
    """
    try:
        if draws(sys.stderr):
            auto.tqdm.write(text, file=sys.stdout)
        else:
            print(text, flush=True)
    except OSError as error:
        if error.errno not in GONE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Lines:
    """Progress as lines on standard error: after FIRST_S seconds, then every EVERY_S, and at the end of such work."""

    def __init__(self, total: int | None, title: str, unit: str, *, done: int = 0, report: bool = False) -> None:
        self.total, self.title, self.unit, self.n, self.report = total, title, unit, done, report
        self.numbers = ""
        self._began, self._at_begin = time.monotonic(), done
        self._due, self._written = self._began + FIRST_S, -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.n != self._written and (self.report or self._written >= 0):
            self._write()

    def update(self, n: float = 1) -> None:
        """Says that n more parts are done."""
        self.n += int(n)
        if time.monotonic() >= self._due:
            self._write()

    def set_postfix_str(self, text: str) -> None:
        """Sets the numbers that are shown beside the progress."""
        first, self.numbers = not self.numbers, text
        if first and self.report:
            self._write()

    def __str__(self) -> str:
        passed = time.monotonic() - self._began
        speed = (self.n - self._at_begin) / passed if passed > 0 else 0.0
        parts = [f"{self.unit} {self.n:,}", f"{std.tqdm.format_interval(passed)} passed"]
        if self.total:
            parts[0] += f" of {self.total:,} ({self.n / self.total:.0%})"
            if speed > 0:
                parts.append(f"{std.tqdm.format_interval((self.total - self.n) / speed)} left")
        if speed > 0:
            parts.append(f"{speed:,.3g}/s" if speed < 100 else f"{speed:,.0f}/s")
        return f"{self.title}: {', '.join(filter(None, [*parts, self.numbers]))}"

    def _write(self) -> None:
        self._due, self._written = time.monotonic() + EVERY_S, self.n
        try:
            print(self, file=sys.stderr, flush=True)
        except OSError as error:
            if error.errno not in GONE:
                raise
