"""What goes wrong in a run, as lines in RUN/incidents.jsonl, where they are found after the terminal is closed.

Each row has a line and the step that it belongs to. A run that goes on from an earlier step drops the rows after it, as
those of its numbers; what ended a run, or sent it back, belongs to the checkpoint that it goes on from.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from diffusion import checkpoint
from diffusion.reporting.names import INCIDENTS
from diffusion.reporting.rows import Rows
from diffusion.training.metrics import append

# The files that a line about left-out ones names.
NAMED = 20


def note(run: Path, step: int, text: str) -> None:
    """Adds a line about a step, without the place of the run. A disk that cannot be written to ends no run here."""
    with suppress(OSError):
        append(run / INCIDENTS, {"step": step, "line": _line(run, text)})


def note_end(run: Path, text: str) -> None:
    """Adds a line about what ended a run, or sent it back to its newest checkpoint."""
    newest = next(iter(checkpoint.folders(run)), None)
    note(run, 0 if newest is None else checkpoint.step_of(newest), text)


def note_once(run: Path, step: int, text: str) -> bool:
    """Adds such a line unless it is there; returns whether it is new."""
    new = all(row.get("line") != _line(run, text) for row in Rows(run / INCIDENTS)())
    if new:
        note(run, step, text)
    return new


def note_left_out(run: Path, files: Iterable[tuple[str, str]]) -> None:
    """Adds a line about the files that were left out of the data, (path, reason) each, unless it is there."""
    found = [f"{path} ({reason})" for path, reason in files]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    line = f"left out {len(found)} files: {', '.join(found[:NAMED])}{more}"
    if found:
        note_once(run, 0, line)


def _line(run: Path, text: str) -> str:
    return text.replace(f"{run}: ", "").replace(f"{run}/", "")
