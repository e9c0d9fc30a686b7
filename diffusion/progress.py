"""Progress of long work: a bar on a terminal and in a notebook, and a line now and then in files and pipes.

A bar redraws itself with carriage returns, which make one endless line of a log. A program that shows progress in its
own way listens instead (`told`): it is told what bars would show, and may look at what is being made (`preview`).
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, TypeVar

from tqdm import auto, std

Item = TypeVar("Item")

# Seconds up to the first line, and between lines.
FIRST_S, EVERY_S = 10.0, 60.0
# The units of durations: from how many seconds on one is used, its seconds, and its name.
YEAR, DAY = 31_556_952, 86_400
UNITS = ((2 * YEAR, YEAR, "years"), (2 * DAY, DAY, "days"), (3600, 3600, "h"), (60, 60, "min"), (0, 1, "s"))
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
    beside the progress and at the end, however short the work is. Whoever listens (`told`) is told instead.
    """
    if not show:
        return std.tqdm(disable=True)  # type: ignore[no-any-return]
    if (listener := _LISTENER.get()) is not None:
        return Told(total, title, unit, done=done, listener=listener)
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


def duration(seconds: float) -> str:
    """A duration as people say it, with one or two digits: "1 s" (or less), "40 s", "2.5 min", "12 h", "3.5 days"."""
    length, name = next((length, name) for start, length, name in UNITS if round(seconds) >= start)
    value = max(1.0, seconds / length)
    return f"{value:.0f} {name}" if value >= 9.95 or name == "s" else f"{value:.1f} {name}"


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


@dataclass
class Listener:
    """Whoever is told of progress: `moved` takes what a bar would show, its title, done and total parts, and unit.

    `looked` takes a function that makes a picture of what is being made, and calls it if it wants to look. `bars` are
    those that have begun, the inner ones last.
    """

    moved: Callable[[str, float, int | None, str], object]
    looked: Callable[[Callable[[], Any]], object]
    bars: list[Told] = field(default_factory=list)


_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told(
    moved: Callable[[str, float, int | None, str], object],
    looked: Callable[[Callable[[], Any]], object] = lambda make: None,
) -> Iterator[None]:
    """A context in which a `Listener` is told of progress, and nothing of it is written."""
    before = _LISTENER.set(Listener(moved, looked))
    try:
        yield
    finally:
        _LISTENER.reset(before)


def preview(make: Callable[[], Any], done: float = 0.0) -> None:
    """Offers a picture of what is being made to whoever listens: `make` returns examples in the units of their data.

    `done` parts more than the bar says are done by then, as of work whose bar moves at its end.
    """
    listener = _LISTENER.get()
    if listener is None:
        return
    if done and listener.bars:
        listener.bars[-1].tell(done)
    listener.looked(make)


class Told(Lines):
    """Progress that a listener is told."""

    def __init__(self, total: int | None, title: str, unit: str, *, done: int, listener: Listener) -> None:
        super().__init__(total, title, unit, done=done)
        self._listener = listener

    def __enter__(self) -> Self:
        self._listener.bars.append(self)
        self.tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.bars.remove(self)

    def update(self, n: float = 1) -> None:
        """Says that n more parts are done."""
        self.n += int(n)
        self.tell()

    def tell(self, more: float = 0.0) -> None:
        """Tells how much is done, and `more` of what has not moved the bar yet."""
        self._listener.moved(self.title, self.n + more, self.total, self.unit)
