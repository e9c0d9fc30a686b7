"""A job of the page: what is asked of a run, how far it is, and what came of it; kept in RUN/page/jobs/ID/job.json."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from diffusion.files import TEMPORARY, write_text

State = Literal["waiting", "running", "done", "cancelled", "failed"]
ENDED = ("done", "cancelled", "failed")
FOLDER, RECORD, PREVIEW = "page/jobs", "job.json", "preview.png"
ID = re.compile("[0-9a-f]{16}")
# The lines that a job keeps, the last ones.
LINES = 200


@dataclass(frozen=True)
class Job:
    """A job of a kind for a run, by its name. `options` are as they were asked for.

    `done` parts of `total` are done, None where their number is not known. `files` are those in its folder, each with
    its name and role; `preview` counts the pictures of what is being made. `made` is in seconds since 1970.
    """

    id: str
    run: str
    kind: str
    options: Mapping[str, Any]
    made: float = field(default_factory=time.time)
    state: State = "waiting"
    title: str = ""
    done: float = 0.0
    total: int | None = None
    unit: str = ""
    lines: tuple[str, ...] = ()
    error: str | None = None
    files: tuple[Mapping[str, Any], ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    preview: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ENDED

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return {**vars(self), "lines": [*self.lines], "files": [dict(file) for file in self.files]}

    def write(self, folder: Path) -> None:
        """Writes the record into the folder of the job, in one step."""
        write_text(folder / RECORD, json.dumps(self.to_dict(), indent=1, allow_nan=False))

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """Reads the record in a folder; None where there is none that can be used, as in runs that come from elsewhere.

        Its files are those that lie in the folder.
        """
        try:
            job = _adapter().validate_json((folder / RECORD).read_bytes(), strict=True)
        except (OSError, ValueError):
            return None
        if job.id != folder.name or not ID.fullmatch(job.id):
            return None
        return replace(job, files=tuple(file for file in job.files if inside(folder, file.get("name")) is not None))


@cache
def _adapter() -> TypeAdapter[Job]:
    return TypeAdapter(Job)


def inside(folder: Path, name: object) -> Path | None:
    """Returns the path of a file in a folder; None where a name or a link leads out of it."""
    path = folder / str(name)
    return path if path.resolve().is_relative_to(folder.resolve()) and path != folder else None


def folder_of(run: Path, number: str) -> Path:
    """Returns the folder of a job of a run."""
    return run / FOLDER / number


def jobs_in(run: Path) -> Iterator[Job]:
    """Yields the jobs that are kept in a run folder, in no order."""
    for path in run.glob(f"{FOLDER}/*/{RECORD}"):
        if (job := Job.read(path.parent)) is not None:
            yield job


def swept(folder: Path) -> None:
    """Removes what a process that was killed has left half written."""
    for path in sorted(folder.rglob(f"{TEMPORARY}*"), reverse=True):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
