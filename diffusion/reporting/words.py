"""Numbers as reports write them: with their units, and with as many digits as their intervals warrant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

MISSING = "—"
BANDS = {1: "gray", 3: "RGB", 4: "RGBA"}


def interval(measured: Mapping[str, Any] | None) -> tuple[str, str]:
    """Returns a measured number {value, half, unit} as "3.142 ± 0.021" and its unit."""
    if measured is None:
        return MISSING, ""
    value, half, unit = measured["value"], measured["half"], str(measured["unit"])
    if not half:
        return f"{value:.4g}", unit
    decimals = min(6, max(0, 1 - math.floor(math.log10(half))))
    return f"{value:,.{decimals}f} ± {half:,.{decimals}f}", unit


def duration(seconds: float | None) -> str:
    """Returns a time as "4 h 12 min"."""
    if seconds is None:
        return MISSING
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def moment(seconds: float) -> str:
    """Returns a time in seconds since 1970 as "30 Nov 2026, 06:44 UTC"."""
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when.day} {when:%b %Y, %H:%M} UTC"


def examples(shape: Sequence[int], classes: int) -> str:
    """Says what the examples of a shape are: "images of 32 × 32 pixels, RGB, in 10 classes"."""
    if len(shape) == 3:
        channels, height, width = shape
        found = f"images of {width} × {height} pixels, {BANDS.get(channels, f'{channels} bands')}"
    elif len(shape) == 1:
        found = f"points in {shape[0]} dimensions"
    else:
        return "examples of a size that is not known yet"
    return f"{found}, in {classes} classes" if classes else found


def value(of: object) -> str:
    """Returns a value of a configuration as a configuration file has it, and several by their names in a row."""
    if isinstance(of, bool):
        return "true" if of else "false"
    if isinstance(of, list | tuple):
        return f"[{', '.join(map(value, of))}]"
    if isinstance(of, dict):
        return ", ".join(f"{name} {value(each)}" for name, each in of.items())
    if isinstance(of, float):
        return f"{of:g}"
    if of is None:
        return "not set"
    return str(of) or '""'
