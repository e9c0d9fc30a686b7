"""The files that have come of a job, and all of them in one, which is made when it is first asked for."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusion.errors import InputError
from diffusion.files import replacing
from diffusion.page import work
from diffusion.page.job import Job
from diffusion.page.work.place import Place

NAME = "all.zip"
# Two browsers that ask at once wait for one file.
_making = threading.Lock()


def files(job: Job, place: Place) -> tuple[dict[str, Any], ...]:
    """The files that have come of a job, also where it was ended early; several can be had as one."""
    try:
        found = work.parse(job.kind, job.options).files(place)
    except InputError:  # It was asked for by another version.
        return ()
    together = [work.File(NAME, "archive")] if len(found) > 1 else []
    return tuple(file.to_dict() for file in [*found, *together])


def archive(folder: Path, names: Iterable[str]) -> Path:
    """Returns the archive of files in the folder of a job, by their last names, as they are: images get no smaller."""
    path = folder / NAME
    with _making:
        if not path.exists():
            with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as made:
                for name in names:
                    made.write(folder / name, Path(name).name)
    return path
