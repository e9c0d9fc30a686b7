"""Signals (Ctrl-C and termination), and calls that do not return."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """Raised by a signal that comes where nothing is lost by ending at once. `number` is that of the signal.

    Like KeyboardInterrupt it is no Exception, so that no handler of errors catches it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupt:
    """A context in which the first SIGINT or SIGTERM raises Stopped, or within `deferred` only sets `signal`.

    A second signal acts as it would have outside of the context. In threads other than the main one, such as the
    workers of notebooks, signals are left alone.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._raises = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A context in which a signal is only noted."""
        self._raises = False
        try:
            yield
        finally:
            self._raises = True

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """A context, within `deferred`, in which a signal raises Stopped again, and so does one noted before."""
        self._raises = True
        try:
            if self.signal:
                raise Stopped(self.signal)
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.__exit__()
        if self._raises:
            raise Stopped(number)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A context that raises TimeoutError after a number of seconds, in the main thread, where there are alarms.

    In other threads there is no limit. Compiled code that does not return for signals goes on waiting.
    """
    try:
        before = signal.signal(signal.SIGALRM, _expire)
    except ValueError:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _expire(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("it does not answer")
