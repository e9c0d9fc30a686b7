"""A kind of job: what it takes, how it is carried out, and the files that come of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion.errors import InputError

if TYPE_CHECKING:
    from diffusion.page.work.place import Place

# The exit code of a command that SIGINT ended.
INTERRUPTED = 130


@dataclass(frozen=True)
class File:
    """A file of a job by its name in the folder of the job, what it shows, and which of several it is.

    Frames of a film have the log-SNR of their noise.
    """

    name: str
    role: str
    index: int | None = None
    log_snr: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """The numbers that came of a job, by their names."""

    numbers: Mapping[str, Any] = field(default_factory=dict)


class Kind(ABC):
    """A job to carry out; its fields are the options."""

    def check(self, place: Place) -> None:
        """Raises InputError for images that are not there; it is asked before the job is queued."""
        return

    @abstractmethod
    def carry_out(self, place: Place) -> Outcome:
        """Carries the job out and writes its files. Raises InputError and KeyboardInterrupt as commands do."""

    def files(self, place: Place) -> list[File]:
        """The files that are there, also where the job was ended early."""
        return []


def ended(code: int) -> None:
    """Raises what a command has caught, by its exit code: KeyboardInterrupt, or InputError."""
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise InputError("not all of it could be done; the lines above say why")


def numbered(place: Place, paths: Iterable[Path], role: str) -> list[File]:
    """Files with the numbers at the end of their names, in the order of these."""
    found = sorted((int(path.stem.rpartition("-")[2]), path) for path in paths)
    return [File(path.relative_to(place.job).as_posix(), role, number) for number, path in found]


def named(place: Place, roles: Mapping[str, str]) -> list[File]:
    """Files of the job's command by their names, those that are there."""
    return [
        File(path.relative_to(place.job).as_posix(), role)
        for name, role in roles.items()
        if (path := place.out / name).is_file()
    ]
