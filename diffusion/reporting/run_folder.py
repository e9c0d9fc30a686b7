"""A run folder, read tolerantly: whatever is missing, damaged or half written is as if it were not there.

Everything is read when it is asked for, so that what is returned is as new as the folder.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError, safe_open

from diffusion.reporting.names import (
    CHECKPOINTS,
    EVALUATION,
    IMPORT,
    INCIDENTS,
    LAST,
    MACHINE,
    MANIFEST,
    METRICS,
    PICTURES,
    PREFIX,
    REAL,
    RESOLVED,
    ROUND,
    SAMPLES,
    SOURCES,
    WEIGHTS,
)
from diffusion.reporting.rows import Rows
from diffusion.reporting.state import State, is_training

# How far below a folder its runs are looked for.
DEPTH = 3
# A folder of more files is one of images.
MOST_ENTRIES = 10_000


def list_runs(folder: Path) -> list[Path]:
    """Returns the run folders in a folder, at most DEPTH below it, or the folder itself where it is one, by path.

    A run is a folder with a resolved configuration. What lies in a run is no other one, but for its rounds on completed
    images.
    """
    return [folder] if _is_run(folder) else sorted(_runs(folder, DEPTH))


def _is_run(folder: Path) -> bool:
    return os.path.isfile(f"{folder}/{RESOLVED}")


def _runs(folder: Path, depth: int, prefix: str = "") -> Iterator[Path]:
    """The runs in a folder, of those whose names begin with `prefix`."""
    try:
        with os.scandir(folder) as entries:
            some = itertools.islice(entries, MOST_ENTRIES)
            inner = [Path(e.path) for e in some if e.name.startswith(prefix) and e.name[0] != "." and e.is_dir()]
    except OSError:
        return
    for path in inner:
        run = _is_run(path)
        if run:
            yield path
        if depth > 1:
            yield from _runs(path, depth - 1, ROUND if run else prefix)


class RunFolder:
    """What a run folder says.

    `path` is the folder and `name` its name. `rows` and `incidents` remember what they have read; nothing else is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows, self._incidents = Rows(path / METRICS), Rows(path / INCIDENTS)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name or self.path.resolve().name

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """The rows of logged numbers, each with its `step`, in the order of the file."""
        return self._rows()

    @property
    def incidents(self) -> list[str]:
        """What went wrong, a line each: skipped steps, going back, files that were left out."""
        return [row["line"] for row in self._incidents() if isinstance(row.get("line"), str)]

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """The resolved configuration, by section and key; empty where it cannot be read."""
        return {name: dict(values) for name, values in _read(self.path / RESOLVED).items() if _is_mapping(values)}

    def option(self, section: str, key: str) -> Any:  # noqa: ANN401, options have many types
        """Returns a value of the configuration, None where there is none."""
        return self.config.get(section, {}).get(key)

    @property
    def steps(self) -> int | None:
        """The number of steps that the run is to have."""
        return _whole(self.option("training", "steps"))

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints, in increasing order."""
        return _steps(self.path / CHECKPOINTS, "/" + MANIFEST)

    @property
    def has_model(self) -> bool:
        """Whether there are weights to sample from."""
        return bool(self.checkpoints)

    @property
    def step(self) -> int | None:
        """The last step of which there is a number or a checkpoint."""
        found = [*self.checkpoints[-1:], *(row["step"] for row in self.rows[-1:])]
        return max(found, default=None)

    @property
    def spec(self) -> dict[str, Any]:
        """The shape, levels, classes and units of the data, as the newest checkpoint has them; empty without one."""
        for step in self.checkpoints[-1:]:
            path = self.path / CHECKPOINTS / f"{PREFIX}{step:08d}" / WEIGHTS
            return _spec(path, stamp(path))
        return {}

    @property
    def shape(self) -> list[int]:
        """The shape of an example, (C, H, W) of images; before the first checkpoint that of the configuration."""
        known = self.spec.get("shape")
        if isinstance(known, list):
            return known
        size, channels = self.option("data", "size"), _whole(self.option("data", "channels"))
        sides = size if isinstance(size, list) else [size, size]
        return [channels, *sides] if channels and all(map(_whole, sides)) else []

    @property
    def classes(self) -> list[str]:
        """The names of the classes; none before the first checkpoint."""
        return [str(name) for name in self.spec.get("classes") or ()]

    @property
    def grids(self) -> list[int]:
        """The steps of which there is a grid of samples, in increasing order."""
        return _steps(self.path / SAMPLES, ".png")

    def grid(self, step: int) -> Path | None:
        """Returns the file of the grid of a step, None where there is none."""
        return self.path / SAMPLES / f"{PREFIX}{step:08d}.png" if step in self.grids else None

    @property
    def pictures(self) -> list[str]:
        """The names of the other pictures that are there: real examples, film, restorations, samples, loss."""
        return [name for name in PICTURES if self._place(name).is_file()]

    def picture(self, name: str) -> Path | None:
        """Returns the file of a picture by its name, None for a name that is not among `pictures`."""
        return self._place(name) if name in self.pictures else None

    def _place(self, name: str) -> Path:
        return self.path / SAMPLES / name if name == REAL else self.path / name

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The last evaluation of held-out examples, None without one."""
        return _read(self.path / EVALUATION) or None

    @property
    def sources(self) -> dict[str, Any] | None:
        """What the run learns from, None without a record."""
        return _read(self.path / SOURCES) or None

    @property
    def machine(self) -> dict[str, Any]:
        """What the run was last trained on: device, precision, processes, cores, versions; empty if not recorded."""
        return _read(self.path / MACHINE)

    @property
    def updated(self) -> float | None:
        """When the run last wrote something, in seconds since 1970."""
        parts = (RESOLVED, METRICS, INCIDENTS, EVALUATION, LAST, SAMPLES, CHECKPOINTS)
        times = [seen[0] / 1e9 for part in parts if (seen := stamp(self.path / part)) is not None]
        return max(times, default=None)

    @property
    def state(self) -> State:
        """Whether the run is being trained, and how it ended otherwise (`reporting.state`)."""
        training = is_training(self.path, self.updated or 0.0)
        if training is None:
            return "ended abruptly"
        if training:
            return "training"
        if not self.has_model:
            return "empty"
        return "finished" if self._is_finished() else "stopped"

    def _is_finished(self) -> bool:
        """Whether the last pictures are those of the newest checkpoint, and no steps are left."""
        if (self.path / IMPORT).is_file():
            return True
        newest, steps = self.checkpoints[-1], self.steps
        ends_early = bool(self.option("training", "patience"))
        path = self.path / LAST
        return (steps is None or newest >= steps or ends_early) and _step_of(path, stamp(path)) == newest


def _read(path: Path) -> dict[str, Any]:
    """The values of a JSON file, none where it cannot be read or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return dict(found) if _is_mapping(found) else {}


def _steps(folder: Path, ending: str) -> list[int]:
    """The steps in names such as step-00001000, followed by `ending`."""
    found = (path.relative_to(folder).parts[0] for path in folder.glob(f"{PREFIX}*{ending}"))
    numbers = (name.removeprefix(PREFIX).removesuffix(ending) for name in found)
    return sorted(int(number) for number in numbers if number.isascii() and number.isdecimal())


def stamp(path: Path | str) -> tuple[int, int] | None:
    """Returns what tells a file from one that was there before: when it changed, in ns, and its bytes; None without."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=256)
def _spec(path: Path, stamp: tuple[int, int] | None) -> dict[str, Any]:
    """The description of the data in a file of weights; `stamp` tells apart files that were there one after another."""
    with suppress(OSError, ValueError, RecursionError, SafetensorError), safe_open(path, "numpy") as file:
        found = json.loads((file.metadata() or {}).get("description", ""))
        if _is_mapping(found) and _is_mapping(found.get("spec")):
            return dict(found["spec"])
    return {}


@lru_cache(maxsize=256)
def _step_of(path: Path, stamp: tuple[int, int] | None) -> int | None:
    """The step that the metadata of a picture name."""
    with suppress(OSError, ValueError, SyntaxError, RecursionError), Image.open(path) as image:
        return _whole(json.loads(image.info.get("diffusion", "{}")).get("step"))
    return None


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
