"""The input and output of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.common import Goal, Rows
from diffusion.errors import InputError

Outcome: TypeAlias = tuple[dict[str, Rows], list[Goal]]


@dataclass(frozen=True)
class Setting:
    """The folder for networks and figures, the minutes of training, and the path of --data, if it was given."""

    folder: Path
    minutes: float = 10.0
    data: Path | None = None

    @property
    def seconds(self) -> float:
        """The seconds of training."""
        return 60 * self.minutes

    def source(self, content: str) -> Path:
        """Returns the path of --data. Raises InputError, which names the expected `content`, unless it exists."""
        if self.data is None or not self.data.exists():
            raise InputError(f"--data: must name {content}, got {self.data or 'nothing'}")
        return self.data


Experiment: TypeAlias = Callable[[Setting], Outcome]
