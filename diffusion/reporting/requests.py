"""Requests to a running training: a page writes one into the run folder, and the trainer looks for it each step.

    RUN/request.json    {"do": "sample"}    makes the grid of samples of the step that it is at
                        {"do": "stop"}      saves and ends, as SIGTERM does

The file lies beside the lock of the training and goes with it: what nobody has looked at is not asked of the next one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

from diffusion.errors import InputError, require_one
from diffusion.files import TEMPORARY, write_text
from diffusion.reporting.names import REQUEST
from diffusion.reporting.run_folder import RunFolder
from diffusion.reporting.state import lock_of

Request = Literal["sample", "stop"]
REQUESTS: tuple[Request, ...] = ("sample", "stop")


def ask(run: RunFolder, what: str) -> None:
    """Asks the training of a run for something; a request to stop that is still there stays.

    Raises InputError for what cannot be asked for, and for a run that is not being trained.
    """
    require_one(what, "do", REQUESTS)
    if run.state != "training":
        raise InputError(f"{run.name}: is not being trained (it is {run.state}), so nobody would {what}")
    path = request_of(run.path)
    if what == "stop" or _read(path) != "stop":
        write_text(path, json.dumps({"do": what}))


def take(path: Path) -> Request | None:
    """Returns the request in a file and removes it; None where there is none that is known."""
    if not path.exists():
        return None
    # Whatever is asked for meanwhile comes to lie beside it. One that cannot be removed would be met at every step.
    taken = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        path.replace(taken)
        found = _read(taken)
        taken.unlink()
    except OSError:
        return None
    return found


def request_of(run: Path) -> Path:
    """Returns the file of requests to the training of a run, which for a round lies in the run that it belongs to."""
    return lock_of(run).parent / REQUEST


def _read(path: Path) -> Request | None:
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        what = json.loads(path.read_text(encoding="utf-8")).get("do")
        return next((each for each in REQUESTS if each == what), None)
    return None
