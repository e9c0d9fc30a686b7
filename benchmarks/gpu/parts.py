"""Parts of a benchmark, each within its share of the time, whose tables are complete whatever fails.

A part yields its tables first with a note in every row that was not reached, and again as rows are measured. What a
part that fails or runs out of time has not reached says why.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.common import Goal, Rows
from benchmarks.gpu.place import Place

NOTE, UNREACHED = "note", "not reached"
# Seconds that a part gets to end on its own after its time.
GRACE_S = 5.0

Finding = tuple[str, Rows] | Goal
"""A table by its title, or a goal with its value; each replaces an earlier one of its name."""
Measure = Callable[[Place, float], Iterator[Finding]]
"""Measures on a device until a second of the monotonic clock."""


@dataclass(frozen=True)
class Part:
    """A part of the benchmark. Its time is the share `weight` of what is left for it and the parts after it."""

    name: str
    weight: float
    measure: Measure
    goals: tuple[Goal, ...] = ()


Run = Callable[[Part, Place, float], Iterator[Finding]]


def here(part: Part, place: Place, seconds: float) -> Iterator[Finding]:
    """Runs a part in this process."""
    yield from part.measure(place, time.monotonic() + seconds)


def apart(part: Part, place: Place, seconds: float) -> Iterator[Finding]:
    """Runs a part in a process of its own, so that no error of the device reaches the next part.

    Raises TimeoutError for a part that goes on after its time, and RuntimeError for one that fails.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(part, place, seconds, theirs))
    end = time.monotonic() + seconds + GRACE_S
    process.start()
    theirs.close()
    try:
        while mine.poll(max(0.0, end - time.monotonic())):
            try:
                finding = mine.recv()
            except EOFError:
                process.join(GRACE_S)
                raise RuntimeError(f"its process ended with {process.exitcode}") from None
            if finding is None:
                return
            if isinstance(finding, str):
                raise RuntimeError(finding)
            yield finding
        raise TimeoutError(f"not done after {seconds:.0f} s")
    finally:
        process.kill()
        process.join()


def _serve(part: Part, place: Place, seconds: float, pipe: Connection) -> None:
    try:
        for finding in here(part, place, seconds):
            pipe.send(finding)
        pipe.send(None)
    except Exception as error:
        traceback.print_exc()
        pipe.send(reason(error))


def reason(error: BaseException) -> str:
    """Returns an error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def measured(parts: Sequence[Part], place: Place, minutes: float, run: Run) -> tuple[dict[str, Rows], list[Goal]]:
    """Runs the parts within the minutes; returns all tables and goals."""
    end, tables, goals = time.monotonic() + 60 * minutes, dict[str, Rows](), list[Goal]()
    for number, part in enumerate(parts):
        began = time.monotonic()
        seconds = max(0.0, end - began) * part.weight / sum(later.weight for later in parts[number:])
        mine, bounds, why = dict[str, Rows](), {goal.name: goal for goal in part.goals}, UNREACHED
        print(f"{part.name}, for at most {seconds:.0f} s", flush=True)
        try:
            for finding in run(part, place, seconds):
                if isinstance(finding, Goal):
                    bounds[finding.name] = finding
                else:
                    mine[finding[0]] = finding[1]
        except Exception as error:
            # Errors of the part's own process have their kind already.
            why = f"failed: {error if type(error) is RuntimeError else reason(error)}"
            print(f"{part.name} {why}", flush=True)
            mine = mine or {part.name.capitalize(): [{NOTE: UNREACHED}]}
        tables |= {title: [_noted(row, why) for row in rows] for title, rows in mine.items()}
        goals += bounds.values()
    return tables, goals


def _noted(row: dict[str, object], why: str) -> dict[str, object]:
    return {**row, NOTE: why} if row.get(NOTE) == UNREACHED else row
