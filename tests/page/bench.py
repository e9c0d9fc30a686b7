"""A run with a queue of jobs, and images that it was given."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion.page import kept
from diffusion.page.job import Job
from diffusion.page.queue import Queue
from diffusion.page.work.place import Place

# Far more than anything takes here, where other tests share the cores.
LIMIT_S = 100.0


def until(holds: Callable[[], object]) -> None:
    """Waits until something holds."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def give(run: Path, file: Path) -> str:
    """Makes a file an upload of a run, as the page does, and returns its id."""
    content = file.read_bytes()
    number = hashlib.sha256(content).hexdigest()[:16]
    folder = run / kept.FOLDER / number
    (folder / kept.ORIGINAL).mkdir(parents=True, exist_ok=True)
    (folder / kept.ORIGINAL / file.name).write_bytes(content)
    with Image.open(file) as image:
        kept.Upload(number, file.name, *image.size, image.mode, False, ()).write(folder)
    return number


def give_mask(run: Path, upload: str, mask: Image.Image) -> str:
    """Makes an image a mask of an upload, and returns its id."""
    number = hashlib.sha256(mask.tobytes()).hexdigest()[:16]
    path = run / kept.FOLDER / upload / kept.MASKS / f"{number}.png"
    path.parent.mkdir(exist_ok=True)
    mask.save(path)
    return number


@dataclass
class Bench:
    run: Path
    told: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = Queue({"run": self.run}, self.told.append)

    def add(self, kind: str, **options: object) -> Job:
        return self.queue.add("run", self.run, kind, options)

    def now(self, job: Job) -> Job:
        found = self.queue.job(job.id)
        assert found is not None
        return found

    def ended(self, job: Job) -> Job:
        until(lambda: self.now(job).ended)
        return self.now(job)

    def do(self, kind: str, **options: object) -> Job:
        """Carries out a job that is expected to be done."""
        job = self.ended(self.add(kind, **options))
        assert job.state == "done", job
        return job

    def fails(self, kind: str, **options: object) -> str:
        """Carries out a job that is expected to fail, and returns why."""
        job = self.ended(self.add(kind, **options))
        assert job.state == "failed" and job.error, job
        return job.error

    def path(self, job: Job, name: str) -> Path:
        found = self.queue.file(job.id, name)
        assert found is not None
        return found

    def place(self) -> Place:
        return Place(self.run, self.run / "page" / "jobs" / ("0" * 16))
