"""One queue of jobs: they are carried out one after the other, by a process that starts with the first one.

What a job is, and what came of it, lies in its run, so that a page that starts again finds it: waiting jobs go on
waiting, and one that was running has failed. A thread waits for the process; all else asks and returns. Jobs of a run
are left alone while another page carries out some of it (`claims.py`).
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion.errors import InputError
from diffusion.page import archive, kept, work
from diffusion.page.answers import without_folders
from diffusion.page.claims import Claims
from diffusion.page.job import LINES, PREVIEW, Job, folder_of, inside, jobs_in, swept
from diffusion.page.work.place import Place
from diffusion.page.worker import Worker

# The jobs that may wait, and the seconds that a job which is cancelled has to end.
WAITING, PATIENCE_S = 100, 10.0
# The seconds between two things that are told of a running job.
TELL_S = 0.2
# Where uploads lie, which are called by their own names.
UPLOADED = re.compile(rf"[^\s'\"]*{kept.FOLDER}/{kept.ID.pattern}/({kept.ORIGINAL}|{kept.MASKS})/")
# Jobs of this kind show what options do while these are changed: a new one takes the place of a waiting one of its run.
PASSING = "degrade"
# The last ones that ended are kept, as a browser may ask for them still.
PASSED = 4


class Queue:
    """The jobs of runs, by their names, of the page at an address.

    `tell` is called with each job that changes, from any thread.
    """

    def __init__(
        self,
        runs: Mapping[str, Path],
        tell: Callable[[dict[str, Any]], object] = lambda job: None,
        address: str = "",
    ) -> None:
        self._tell = tell
        self._claims = Claims(address)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._jobs: dict[str, Job] = {}
        self._places: dict[str, Place] = {}
        self._waiting: list[str] = []
        self._running: str | None = None
        self._cancelled: set[str] = set()
        self._worker: Worker | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._carry_out, daemon=True)
        self._find(runs)

    def _find(self, runs: Mapping[str, Path]) -> None:
        """Finds the jobs of earlier pages."""
        found = [(job, name, path) for name, path in runs.items() for job in jobs_in(path)]
        for job, name, run in sorted(found, key=lambda one: one[0].made):
            if not job.ended and not self._claimed(run):
                continue
            place = Place(run, folder_of(run, job.id))
            job = replace(job, run=name)
            if job.state == "running":
                swept(place.job)
                job = replace(job, state="failed", error="the page ended", files=archive.files(job, place))
                with suppress(OSError):
                    job.write(place.job)
            self._jobs[job.id], self._places[job.id] = job, place
            if job.state == "waiting":
                self._waiting.append(job.id)
        for run in runs.values():
            self._release(run)
        if self._waiting:
            self._thread.start()

    def _claimed(self, run: Path) -> bool:
        """Whether this page may carry out jobs of a run, and no other page does."""
        with suppress(InputError, OSError):
            self._claims.take(run)
            return True
        return False

    def _release(self, run: Path) -> None:
        """Lets other pages carry out jobs of a run when none of this page is left."""
        left = [*self._waiting, *([self._running] if self._running else [])]
        if all(self._places[number].run != run for number in left):
            self._claims.leave(run)

    def add(self, name: str, run: Path, kind: str, options: Mapping[str, Any]) -> Job:
        """Queues a job for a run.

        Raises InputError for options that cannot be used, where too many jobs wait, and while another page carries out
        jobs of this run.
        """
        asked = work.parse(kind, options)
        job = Job(secrets.token_hex(8), name, kind, dict(options), title=kind)
        place = Place(run, folder_of(run, job.id))
        asked.check(place)
        with self._changed:
            if kind == PASSING:
                self._forget(name)
            if len(self._waiting) >= WAITING:
                raise InputError(f"{WAITING} jobs wait already; cancel some, or wait")
            try:
                self._claims.take(run)
                place.job.mkdir(parents=True)
                job.write(place.job)
            except OSError as error:
                self._release(run)
                raise InputError(f"nothing can be written into this run ({error.strerror})") from error
            self._jobs[job.id], self._places[job.id] = job, place
            self._waiting.insert(0 if kind == PASSING else len(self._waiting), job.id)
            if not self._thread.is_alive():
                self._thread.start()
            self._changed.notify_all()
        self._tell(job.to_dict())
        return job

    def _forget(self, name: str) -> None:
        """Cancels the passing jobs of a run that wait, and removes the older ones of those that have ended."""
        passing = [job.id for job in self.jobs() if job.run == name and job.kind == PASSING]
        for number in passing:
            if number in self._waiting:
                self.cancel(number)
        for number in [number for number in passing if self._jobs[number].ended][PASSED:]:
            del self._jobs[number]
            shutil.rmtree(self._places.pop(number).job, ignore_errors=True)

    def jobs(self) -> list[Job]:
        """Returns all jobs, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: -job.made)

    def job(self, number: str) -> Job | None:
        """Returns a job by its id, None where there is none."""
        with self._lock:
            return self._jobs.get(number)

    def file(self, number: str, name: str) -> Path | None:
        """Returns the path of a file that a job has listed, None where there is none; the archive is made."""
        with self._lock:
            job, place = self._jobs.get(number), self._places.get(number)
        names = [] if job is None else [str(file["name"]) for file in job.files]
        if place is None or name not in names:
            return None
        if name == archive.NAME:
            archive.archive(place.job, [one for one in names if one != name])
        return inside(place.job, name)

    def preview(self, number: str) -> Path | None:
        """Returns the path of the last picture of what a job makes, None where there is none."""
        with self._lock:
            job, place = self._jobs.get(number), self._places.get(number)
        return None if job is None or place is None or not job.preview else inside(place.job, PREVIEW)

    def cancel(self, number: str) -> Job | None:
        """Takes a waiting job out of the queue, or ends a running one as Ctrl-C does; a second time, at once.

        Returns it as it is then, None where there is none. One that has ended stays what it is.
        """
        with self._changed:
            job = self._jobs.get(number)
            if job is None or job.ended:
                return job
            if number in self._waiting:
                self._waiting.remove(number)
                return self._ended(number, {"state": "cancelled"})
            worker, again = self._worker, number in self._cancelled
            self._cancelled.add(number)
        if worker is not None and not again:
            worker.cancel(number)
            timer = threading.Timer(PATIENCE_S, self._kill, (number, worker))
            timer.daemon = True
            timer.start()
        elif worker is not None:
            self._kill(number, worker)
        return self.job(number)

    def _kill(self, number: str, worker: Worker) -> None:
        """Ends a process that still works on a job."""
        with self._lock:
            if self._running == number and self._worker is worker:
                worker.kill()

    def close(self) -> None:
        """Ends the running job as Ctrl-C does, and the process. Jobs that wait go on waiting for the next page."""
        with self._changed:
            self._closed = True
            if self._running is not None:
                self._cancelled.add(self._running)
            worker = self._worker
            self._changed.notify_all()
        if worker is not None:
            worker.close(PATIENCE_S)
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)
        self._claims.close()

    def _carry_out(self) -> None:
        """Carries out jobs until the queue is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                number = self._running = self._waiting.pop(0)
                if self._worker is None or not self._worker.alive:
                    self._worker = Worker()
                worker, place, job = self._worker, self._places[number], self._jobs[number]
            self._set(number, state="running")
            told = 0.0
            for event in worker.begin(job, place.run, place.job):
                if "state" in event:
                    with self._lock:
                        self._running = None
                        self._ended(number, event)
                elif time.monotonic() - told >= TELL_S:
                    told = time.monotonic()
                    self._tell(self._happened(number, event).to_dict())
                else:
                    self._happened(number, event)

    def _happened(self, number: str, event: dict[str, Any]) -> Job:
        """Notes what a running job says."""
        with self._lock:
            job = self._jobs[number]
            if line := event.pop("line", ""):
                event["lines"] = (*job.lines, self._said(number, line))[-LINES:]
            self._jobs[number] = replace(job, **event)
            return self._jobs[number]

    def _ended(self, number: str, event: dict[str, Any]) -> Job:
        """Notes that a job has ended."""
        state, error = event["state"], event.get("error")
        # A command that SIGINT ends may say so in its own way, and a process that had to be killed says nothing.
        if number in self._cancelled and state == "failed":
            state, error = "cancelled", None
        self._cancelled.discard(number)
        job, place = self._jobs[number], self._places[number]
        swept(place.job)
        error = error and self._said(number, error)
        numbers = event.get("numbers", {})
        return self._set(number, state=state, error=error, numbers=numbers, files=archive.files(job, place))

    def _set(self, number: str, **fields: Any) -> Job:  # noqa: ANN401, the fields of a job
        """Sets fields of a job, writes its record, and tells."""
        with self._lock:
            job = self._jobs[number] = replace(self._jobs[number], **fields)
            with suppress(OSError):  # A full disk is told of where it ends a job.
                job.write(self._places[number].job)
            if job.ended:
                self._release(self._places[number].run)
        self._tell(job.to_dict())
        return job

    def _said(self, number: str, text: str) -> str:
        """A text without the folders of this machine: what lies in the run or the job is called by its name."""
        place, text = self._places[number], UPLOADED.sub("", text)
        for folder in (place.job, place.run):
            text = text.replace(f"{folder}/", "").replace(str(folder), folder.name)
        return without_folders(text)
