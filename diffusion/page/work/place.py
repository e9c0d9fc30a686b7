"""Where a job is carried out: the run, the folder of the job, and the files that it names by their ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion.errors import InputError
from diffusion.page import kept
from diffusion.page.job import Job, folder_of

# The folder of a job in which the files of its command lie.
RESULT = "result"


@dataclass(frozen=True)
class Place:
    """The folders of a run and of a job of it."""

    run: Path
    job: Path

    @property
    def out(self) -> Path:
        """The folder into which the command of the job writes."""
        return self.job / RESULT

    def upload(self, number: str) -> Path:
        """Returns the file of an upload. Raises InputError where there is none of that id."""
        return self._inside(kept.original(self.run, number), "upload")

    def mask(self, upload: str, number: str) -> Path:
        """Returns the file of a mask of an upload. Raises InputError where there is none of that id."""
        return self._inside(kept.mask(self.run, upload, number), "mask")

    def result(self, number: str, name: str, field: str) -> Path:
        """Returns a file that another job of this run has listed. Raises InputError where there is none."""
        job = Job.read(folder_of(self.run, number))
        if job is None or name not in {file["name"] for file in job.files}:
            raise InputError(f"{field}: job {number} of this run has no file {name!r}")
        return self._inside(folder_of(self.run, number) / name, field)

    def _inside(self, path: Path, field: str) -> Path:
        """A path that does not lead out of the run. Raises InputError where it is not there, or a link does."""
        if not path.is_file() or not path.resolve().is_relative_to(self.run.resolve()):
            raise InputError(f"{field}: {path.name} is not there any more; hand it over again")
        return path
