"""Signals (Ctrl-C, termination, and those of clusters and terminals), and calls that do not return."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Signals of people, and of what ends a process for good. A second one of these ends it at once.
ENDING = ("SIGINT", "SIGTERM", "SIGBREAK")
# Signals of a terminal that closes, of schedulers before a time limit (SLURM, LSF, Grid Engine) and of a limit of CPU
# time. They may come several times, or just before one that ends.
WARNING = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
# A scheduler sends it to every process of a job, and torchrun, which is one of them, passes it on. So its processes
# receive it twice, at any moment. Half a minute later torchrun ends those that are left for good.
PASSED_ON, LAUNCHED = "SIGTERM", "LOCAL_RANK"


def _known(names: tuple[str, ...]) -> tuple[signal.Signals, ...]:
    """The signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


class Stopped(BaseException):
    """Raised by a signal that comes where nothing is lost by ending at once. `number` is that of the signal.

    Like KeyboardInterrupt it is no Exception, so that no handler of errors catches it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupt:
    """A context in which the first signal of ENDING or WARNING raises Stopped, or within `deferred` only sets `signal`.

    SIGHUP is left alone where it is ignored, as under nohup. After the first signal a second one of ENDING acts as it
    would have outside of the context, while those of WARNING are ignored within it, so that they cannot end a process
    that saves; so is SIGTERM in the processes of a launcher. In threads other than the main one, such as the workers of
    notebooks, signals are left alone.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._raises = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        for number in (*_known(ENDING), *_known(WARNING)):
            if number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) == signal.SIG_IGN:
                continue
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
        ignored = _known((*WARNING, PASSED_ON) if LAUNCHED in os.environ else WARNING)
        for other, handler in self._before.items():
            signal.signal(other, signal.SIG_IGN if other in ignored else handler)  # type: ignore[arg-type]
        if self._raises:
            raise Stopped(number)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A context that raises TimeoutError after a number of seconds, in the main thread, where there are alarms.

    In other threads, and on systems without alarms, there is no limit. Compiled code that does not return for signals
    goes on waiting.
    """
    try:
        before = signal.signal(signal.SIGALRM, _expire)
    except (ValueError, AttributeError):
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
