"""A run in a few numbers, and its curves, as values that JSON holds: the page and the reports show the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion.reporting.run_folder import RunFolder

# The key of the bound on held-out examples, followed by its unit; its standard error has the same key and a suffix.
TOTAL, STANDARD_ERROR = "held_out/total_", "_se"
# The same of the bound on training examples.
TRAINING = "training/total_"
# The half width of a 95 % interval, in standard errors.
NORMAL_95 = 1.959964
# A curve of more points is thinned: of each bucket are kept the first and last point, the extremes, and a gap.
POINTS, KEPT = 1000, 5
# The last rows by which the time that is left is estimated.
RECENT = 10

Point = tuple[int, float | None]


def summary(run: RunFolder) -> dict[str, Any]:
    """Returns what lists of runs show of one.

    `bits` is the newest bound on held-out examples with half its 95 % interval, `remembers` the step since which the
    model remembers training examples, and `left_s` the seconds that are left of a training; None stands for what is not
    known.
    """
    rows, state = run.rows, run.state
    return {
        "name": run.name,
        "state": state,
        "step": run.step,
        "steps": run.steps,
        "shape": run.shape,
        "classes": run.classes,
        "bits": bits(run),
        "remembers": _last(rows, "gap/opened"),
        "loss": _last(rows, "loss"),
        "images_per_s": _last(rows, "images_per_s"),
        "left_s": _left(run) if state == "training" else None,
        "updated": run.updated,
        "grids": len(run.grids),
        "incidents": len(run.incidents),
        "has_model": run.has_model,
    }


def bits(run: RunFolder) -> dict[str, Any] | None:
    """Returns the newest bound on held-out examples: {value, half, unit, step}, None without one.

    That of the evaluation after the last step, which is of more examples, counts before that of the step's validation.
    `half` is None where the interval is not known.
    """
    logged = _logged_bound(run.rows)
    measured = _measured_bound(run.evaluation or {})
    if logged is None or measured is None:
        return logged or measured
    return measured if measured["step"] >= logged["step"] else logged


def curves(run: RunFolder) -> dict[str, Any]:
    """Returns the curves of a run by name, each with `x`, the steps, and `y`, of at most POINTS points.

    `loss` and `images_per_s` are there for every run, `bits` with `half`, half of its 95 % intervals, and its `unit`,
    and likewise `training_bits`, the bound on training examples. A value of None is a gap, where a number was not
    finite.
    """
    rows = run.rows
    found = {name: _curve(rows, name) for name in ("loss", "images_per_s")}
    return {**found, "bits": _bounds(rows, TOTAL), "training_bits": _bounds(rows, TRAINING)}


def _bounds(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Any]:
    """The curve of a bound, with half of its intervals and its unit."""
    key = _bound_key(rows, prefix)
    bound = [row for row in rows if key in row]
    half = {row["step"]: _half(row, key) for row in bound}
    drawn = _curve(bound, key)
    return {**drawn, "half": [half[step] for step in drawn["x"]], "unit": _unit(key)}


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """Returns at most `most` of some points (x, y).

    All are divided into buckets of as many points each. Of each bucket its first and last point are kept, its lowest
    and highest, and a gap if it has one.
    """
    if len(points) <= most:
        return [*points]
    buckets, kept = most // KEPT, []
    for number in range(buckets):
        start, end = (len(points) * each // buckets for each in (number, number + 1))
        some = [(y, i) for i in range(start, end) if (y := points[i][1]) is not None]
        gap = [i for i in range(start, end) if points[i][1] is None][:1]
        extremes = [pick(some)[1] for pick in (min, max)] if some else []
        kept += [points[i] for i in sorted({start, end - 1, *extremes, *gap})]
    return kept


def _curve(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Any]]:
    """The curve of a number. Where steps were taken again the later ones count."""
    points: list[Point] = []
    for row in rows:
        # A number that was not finite is left out of its row.
        if key not in row and not ("lr" in row and key == "loss"):
            continue
        while points and points[-1][0] >= row["step"]:
            points.pop()
        points.append((row["step"], _finite(row.get(key))))
    points = thinned(points)
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def _finite(value: object) -> float | None:
    """A number, None for anything that is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def _last(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return next((value for row in reversed(rows) if (value := _finite(row.get(key))) is not None), None)


def _bound_key(rows: Sequence[Mapping[str, Any]], prefix: str = TOTAL) -> str:
    """The key of the newest bound; its unit may have been another before."""
    totals = (key for row in reversed(rows) for key in row if key.startswith(prefix))
    return next((key for key in totals if not key.endswith(STANDARD_ERROR)), "")


def _unit(key: str) -> str:
    return key.rpartition("/total_")[2].replace("_per_", "/")


def _half(row: Mapping[str, Any], key: str) -> float | None:
    error = _finite(row.get(key + STANDARD_ERROR))
    return None if error is None else NORMAL_95 * error


def _logged_bound(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    key = _bound_key(rows)
    for row in reversed(rows):
        if key and (value := _finite(row.get(key))) is not None:
            return {"value": value, "half": _half(row, key), "unit": _unit(key), "step": row["step"]}
    return None


def _measured_bound(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    terms, step = evaluation.get("terms"), evaluation.get("step")
    total = terms.get("total") if isinstance(terms, Mapping) else None
    value = _finite(total.get("mean")) if isinstance(total, Mapping) else None
    if value is None or not isinstance(step, int) or not isinstance(total, Mapping):
        return None
    return {
        "value": value,
        "half": _finite(total.get("half_width")),
        "unit": str(evaluation.get("unit", "")),
        "step": step,
    }


def _left(run: RunFolder) -> float | None:
    """The seconds that are left of a training, by the time that its last rows took."""
    batch, steps, step = _finite(run.option("training", "batch")), run.steps, run.step
    timed = [(row["step"], speed) for row in run.rows if (speed := _finite(row.get("images_per_s"))) and speed > 0]
    if batch is None or steps is None or step is None or not timed:
        return None
    recent = timed[-RECENT - 1 :]
    pairs = [*itertools.pairwise(recent)] or [((0, 0.0), recent[0])]
    taken = sum(max(0, after - before) for (before, _), (after, _) in pairs)
    seconds = sum(max(0, after - before) * batch / speed for (before, _), (after, speed) in pairs)
    return max(0, steps - step) * seconds / taken if taken else None
