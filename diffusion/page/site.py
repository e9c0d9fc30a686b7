"""What the page shows: the runs below one folder, by names that cannot lead out of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from starlette.requests import Request

from diffusion.page.answers import Refusal
from diffusion.page.events import Events
from diffusion.reporting.names import CHECKPOINTS, EVALUATION, INCIDENTS, LAST, LOCK, METRICS, RESOLVED, SAMPLES
from diffusion.reporting.run_folder import RunFolder, list_runs, stamp
from diffusion.reporting.summary import summary

# What changes in a run folder when there is something new to say of it.
TELLING = (RESOLVED, METRICS, INCIDENTS, EVALUATION, LOCK, LAST, SAMPLES, CHECKPOINTS)
Signature = tuple[tuple[int, int] | None, ...]


class Site:
    """The runs in a folder, or the run that the folder is, and the `events` that browsers hear of.

    The name of a run is its path below the folder; the one run of a folder that is itself a run has the folder's name.
    No path is made of a name: it is looked up among the runs that were found.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.events = Events()
        self._lock = threading.RLock()
        self._runs: dict[str, RunFolder] = {}
        self._summaries: dict[str, tuple[Signature, dict[str, Any]]] = {}

    def folders(self) -> dict[str, Path]:
        """Returns the folders of all runs by name."""
        return {self._name(path): path for path in list_runs(self.root) if self.holds(path)}

    def summaries(self) -> dict[str, dict[str, Any]]:
        """Returns the summaries of all runs by name; only those of runs that changed are made anew."""
        with self._lock:
            self._find()
            return {name: self._summary(name, run) for name, run in self._runs.items()}

    def run(self, name: str) -> RunFolder:
        """Returns a run by its name. Raises Refusal with 404 where no run below the folder has it."""
        with self._lock:
            if name not in self._runs:
                self._find()
            run = self._runs.get(name)
        if run is None or not self.holds(run.path / RESOLVED):
            raise Refusal(404, f"there is no run {name!r} here")
        return run

    def _find(self) -> None:
        """Looks for runs, of which known ones go on reading where they stopped."""
        found = {path: self._name(path) for path in list_runs(self.root) if self.holds(path)}
        self._runs = {name: self._runs.get(name) or RunFolder(path) for path, name in found.items()}

    def _name(self, path: Path) -> str:
        return path.name if path == self.root else path.relative_to(self.root).as_posix()

    def _summary(self, name: str, run: RunFolder) -> dict[str, Any]:
        # As texts: there are thousands of them a second where there are hundreds of runs.
        signature = tuple(stamp(f"{run.path}/{part}") for part in TELLING)
        known = self._summaries.get(name)
        # Nothing changes in the folder of a process that was killed.
        if known is None or known[0] != signature or known[1]["state"] == "training":
            self._summaries[name] = signature, {**summary(run), "name": name}
        return self._summaries[name][1]

    def workplace(self, run: RunFolder, inside: str) -> Path:
        """Returns a folder within a run folder, which is made where it is not there.

        Raises Refusal: 404 where a link on the way leads out of the runs, 507 where nothing can be written.
        """
        path = run.path
        try:
            for part in inside.split("/"):
                path /= part
                path.mkdir(exist_ok=True)
                if not self.holds(path):
                    raise Refusal(404, f"{path.name}: leads out of the runs that this page shows")
        except OSError as error:
            raise Refusal(507, f"{run.name}: cannot be written to ({error.strerror})") from error
        return path

    def holds(self, path: Path) -> bool:
        """Whether a path, as far as links lead, ends at something below the folder."""
        try:
            return f"{os.path.realpath(path, strict=True)}/".startswith(f"{self.root}/".replace("//", "/"))
        except (OSError, ValueError):
            return False


def site_of(request: Request) -> Site:
    """Returns the site of the application that a request came to."""
    site: Site = request.app.state.site
    return site


def run_of(request: Request) -> RunFolder:
    """Returns the run that the address of a request names. Raises Refusal with 404 if there is none."""
    return site_of(request).run(request.path_params["name"])
