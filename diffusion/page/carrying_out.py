"""The program that carries out jobs: `python -m diffusion.page.carrying_out`, which the page starts (`worker.py`).

Lines of JSON come in on standard input: {"job": ID, "run", "folder", "kind", "options"}, and {"cancel": ID}. Events go
out on standard output, each with some fields of the job. Whatever commands print becomes lines of the job. A job that
is cancelled meets SIGINT, as it would meet Ctrl-C; so does one whose page is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any

from diffusion.errors import InputError
from diffusion.page import work
from diffusion.page.job import PREVIEW
from diffusion.page.work.place import Place
from diffusion.progress import told

# The seconds between events of progress and between previews, and how many times as long as the making of a preview
# the next one is waited for.
MOVED_S, PREVIEW_S, SPARING = 0.1, 0.5, 20
# The longest side of an image in a preview, and the images in it.
SIDE, SHOWN = 512, 16


class Input:
    """The messages of the page. `current` is the job that is being carried out, and `cancelled` those to be ended."""

    def __init__(self, lines: IO[bytes]) -> None:
        self.jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.current: str | None = None
        self.cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._lines = lines
        self._main = threading.main_thread().ident
        signal.signal(signal.SIGINT, self._interrupt)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._lines:
            message = json.loads(line)
            if "job" in message:
                self.jobs.put(message)
            else:
                self._cancel(message["cancel"])
        self.jobs.put(None)
        if self.current is not None:
            self._cancel(self.current)

    def _cancel(self, number: str) -> None:
        with self._lock:
            self.cancelled.add(number)
            if number == self.current:
                assert self._main is not None
                signal.pthread_kill(self._main, signal.SIGINT)

    def _interrupt(self, number: int, frame: object) -> None:
        """Ends the job that is to be ended. A signal that comes when it has ended means nothing."""
        if self.current in self.cancelled:
            raise KeyboardInterrupt

    def begin(self, number: str) -> None:
        """Says which job is carried out from now on. Raises KeyboardInterrupt for one that was cancelled before."""
        with self._lock:
            self.current = number
        self._interrupt(signal.SIGINT, None)


class Lines:
    """A stream whose lines are events."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._rest = ""

    def write(self, text: str) -> int:
        """Takes a text, and tells the lines that it ends."""
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            if shown := line.rpartition("\r")[2].rstrip():
                self._tell(shown)
        return len(text)

    def flush(self) -> None:
        """Does nothing: a line is told when it ends."""

    def isatty(self) -> bool:
        """Whether bars can be drawn here."""
        return False


class Reporter:
    """Sends the events of a job."""

    def __init__(self, folder: Path, send: Callable[[dict[str, Any]], object]) -> None:
        self._send = send
        self._folder = folder
        self._moved = self._looks = 0.0
        self._previews = 0

    def moved(self, title: str, done: float, total: int | None, unit: str) -> None:
        """Sends how far the job is, not too often."""
        now = time.monotonic()
        if now >= self._moved or done == total:
            self._moved = now + MOVED_S
            self._send({"title": title, "done": done, "total": total, "unit": unit})

    def looked(self, make: Callable[[], Any]) -> None:
        """Writes a picture of what is being made, if the last one is old enough."""
        began = time.monotonic()
        if began < self._looks:
            return
        from torch.nn import functional as F

        from diffusion import figures

        x = make().float()
        if x.ndim == 4:
            factor = -(-max(x.shape[-2:]) // SIDE)
            x = F.avg_pool2d(x[:SHOWN], factor, ceil_mode=True) if factor > 1 else x[:SHOWN]
            figures.save_png(figures.draw(x.cpu()), self._folder / PREVIEW, {})
            self._previews += 1
            self._send({"preview": self._previews})
        now = time.monotonic()
        self._looks = now + max(PREVIEW_S, SPARING * (now - began))


def carry_out(message: dict[str, Any], given: Input, send: Callable[[dict[str, Any]], object]) -> None:
    """Carries out a job, and sends its events, the last with the state in which it ended."""
    place, state, error, found = Place(Path(message["run"]), Path(message["folder"])), "done", None, work.Outcome()
    reporter, lines = Reporter(place.job, send), Lines(lambda line: send({"line": line}))
    try:
        try:
            given.begin(message["job"])
            kind = work.parse(message["kind"], message["options"])
            with told(reporter.moved, reporter.looked), redirect_stdout(lines), redirect_stderr(lines):
                found = kind.carry_out(place)
        finally:
            given.current = None  # From here on a signal means nothing; one that came before is caught below.
    except KeyboardInterrupt:
        state = "cancelled"
    except (InputError, OSError, FloatingPointError) as reason:
        state, error = "failed", str(reason)
    except Exception as reason:
        traceback.print_exc()
        state, error = "failed", _said_of(reason)
    given.current = None
    send({"state": state, "error": error, "numbers": found.numbers})


def _said_of(error: Exception) -> str:
    """What is said of an error that nobody foresaw."""
    from diffusion.memory import is_oom

    if is_oom(error):
        return "there is not enough memory for it; ask for fewer at once, or of a smaller image"
    return f"it failed by an error of the program: {type(error).__name__}: {error}"


def main() -> int:
    """Carries out jobs until the page closes its end."""
    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        os.dup2(2, 1)  # What compiled code prints goes where errors go.
        given, lock = Input(os.fdopen(os.dup(0), "rb")), threading.Lock()

        def send(event: dict[str, Any]) -> None:
            # The end of a line first: a signal may have cut off the one before. A page that is gone hears nothing.
            with lock, suppress(BrokenPipeError):
                out.write(f"\n{json.dumps(event)}\n".encode())

        from diffusion.model import loading

        with loading.keeping():
            while (message := given.jobs.get()) is not None:
                carry_out(message, given, send)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # Taking down an interpreter with torch takes seconds, for which the page would wait.
