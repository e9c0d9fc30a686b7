"""Ctrl-C and termination, noticed between steps."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupt:
    """A context in which the first SIGINT or SIGTERM only sets `signal`; a second one acts as it would have outside.

    Works in the main thread; elsewhere, as in notebooks' workers, signals are left alone.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.__exit__()
