"""What a run knows of its model: the data that it learned from, the model that it began from, and what was measured.

Numbers are taken as files in the run folder have them, where they were measured at the step of the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from diffusion import checkpoint
from diffusion.config import Config
from diffusion.errors import InputError
from diffusion.exchange.imported import RECORD
from diffusion.exchange.private_paths import last_part
from diffusion.model import origin

EVALUATIONS, RESTORATIONS = "evaluation*.json", "restored*/**/restoration.json"
TOTAL, FOLDER = "total", "folder"
# The repository of an address, hf://OWNER/NAME, whatever follows.
REPOSITORY = re.compile(r"hf:/{1,2}(?:datasets/)?([\w.-]+/[\w.-]+)")
# Runs that were begun from another are followed so far.
DEEPEST = 16


@dataclass(frozen=True)
class Measured:
    """A number with the half width of its 95 % interval, None where it is not known; `split` names the examples."""

    method: str
    kind: str
    unit: str
    value: float
    half_width: float | None
    examples: int
    split: str


@dataclass(frozen=True)
class Restored:
    """Restorations of images whose originals are known, by one operator and method: means over so many images.

    `coverage` is the share of values within their 90 % intervals, and `psnr` that of the mean, in dB; either may be
    None.
    """

    operator: str
    method: str
    images: int
    coverage: float | None
    psnr: float | None


@dataclass(frozen=True)
class Facts:
    """What is known of the model of a run: the name of its data, empty for an imported model, their repository on the
    hub and their number, if there are such, and the repository of the model that it began from, `base`, or "".
    """

    data: str
    repository: str
    examples: int | None
    base: str
    measured: tuple[Measured, ...]
    restored: tuple[Restored, ...]


def facts_of(run: Path, experiment: Config, step: int) -> Facts:
    """Collects the facts of a run, or of RUN/step-N, a checkpoint whose results lie there."""
    root = checkpoint.run_of(run)
    data = origin.recorded(root).get("data", {})
    path = experiment.data.path or str(data.get("path", ""))
    found = REPOSITORY.match(path)
    examples = data.get("examples")
    return Facts(
        last_part(path) if path else "" if experiment.data.source == FOLDER else experiment.data.source,
        found[1] if found else "",
        examples if isinstance(examples, int) else None,
        base_of(root),
        tuple(_measured(run, step)),
        tuple(_restored(run, step)),
    )


def base_of(run: Path, depth: int = 0) -> str:
    """Returns the repository of the model that a run was imported or begun from, also by way of other runs on this
    machine; empty where there is none.
    """
    source = str(_read(run / RECORD).get("source", ""))
    if found := REPOSITORY.match(source):
        return found[1]
    try:
        begun = str(json.loads((run / origin.RESOLVED).read_text(encoding="utf-8"))["training"].get("init", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    if found := REPOSITORY.match(begun):
        return found[1]
    try:
        other = checkpoint.run_of(checkpoint.named(Path(begun)))
    except InputError:
        return ""
    return base_of(other, depth + 1) if begun and depth < DEEPEST and other.is_dir() else ""


def _measured(run: Path, step: int) -> Iterator[Measured]:
    """The totals of the evaluations of a step, those of the bound first."""
    found = []
    for path in sorted(run.glob(EVALUATIONS)):
        stored = _read(path)
        total = _mapping(_mapping(stored.get("terms")).get(TOTAL))
        if stored.get("step") != step or not _is_number(total.get("mean")):
            continue
        half, data = total.get("half_width"), _mapping(stored.get("data"))
        method, kind, unit = (str(stored.get(key, "")) for key in ("method", "kind", "unit"))
        width = float(half) if half is not None and _is_number(half) else None
        split, count = last_part(str(data.get("name", ""))), int(stored.get("examples", 0))
        found.append(Measured(method, kind, unit, float(total["mean"]), width, count, split))
    yield from sorted(found, key=lambda each: each.method != "bound")


def _restored(run: Path, step: int) -> Iterator[Restored]:
    """Means over the restorations of a step whose originals are known."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for path in sorted(run.glob(RESTORATIONS)):
        stored = _read(path)
        if stored.get("step") == step and {"coverage_90", "psnr_of_mean"} & stored.keys():
            operator = str(stored.get("operator", "inpaint"))
            groups.setdefault((operator, str(stored.get("method", ""))), []).append(stored)
    for (operator, method), images in groups.items():
        coverage, psnr = (_mean(images, key) for key in ("coverage_90", "psnr_of_mean"))
        yield Restored(operator, method, len(images), coverage, psnr)


def _mean(rows: list[Mapping[str, Any]], key: str) -> float | None:
    values = [float(row[key]) for row in rows if _is_number(row.get(key))]
    return fmean(values) if values else None


def _read(path: Path) -> dict[str, Any]:
    """The values of a JSON file, none where it cannot be read."""
    try:
        return dict(_mapping(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
