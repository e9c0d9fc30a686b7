"""The handle of the process that carries out jobs (`carrying_out.py`), which starts with the first one.

A job goes in as a line of JSON, and events come out as lines of JSON. The process is a session of its own, so that
Ctrl-C in the terminal of the page does not reach it: the page cancels the job.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffusion.page.job import Job

PROGRAM = "diffusion.page.carrying_out"


class Worker:
    """A process that carries out one job after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", PROGRAM],  # -P: modules that lie in the current folder are not those meant.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([_root(), *_paths()])},
            start_new_session=True,
        )

    def begin(self, job: Job, run: Path, folder: Path) -> Iterator[dict[str, Any]]:
        """Has a job of a run carried out in a folder, and yields its events. The last has the `state` at its end.

        If the process ends before the job does, the last event says so, and the worker is of no more use.
        """
        what = {"kind": job.kind, "options": dict(job.options)}
        self._send({"job": job.id, "run": str(run), "folder": str(folder), **what})
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if event := _event(line):
                yield event
            if "state" in event:
                return
        code = self._process.wait()
        why = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"
        hint = "; most likely there was not enough memory for it" if code == -signal.SIGKILL else ""
        yield {"state": "failed", "error": f"the process that worked on it ended {why}{hint}"}

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def cancel(self, number: str) -> None:
        """Ends a job as Ctrl-C ends a command."""
        self._send({"cancel": number})

    def kill(self) -> None:
        """Ends the process at once."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def close(self, seconds: float) -> None:
        """Ends the process, with its job as Ctrl-C does, or at once when that takes longer."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def _send(self, message: dict[str, Any]) -> None:
        """Sends a line. A process that has ended is noticed where its events are read."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):
            self._process.stdin.write(f"{json.dumps(message)}\n".encode())
            self._process.stdin.flush()


def _event(line: bytes) -> dict[str, Any]:
    """The event of a line; empty for what a signal has cut off."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _root() -> str:
    """The folder that this package was imported from."""
    return str(Path(__file__).resolve().parents[2])


def _paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
