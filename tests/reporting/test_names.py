"""The names of files are those under which they are written."""

from __future__ import annotations

from pathlib import Path

from diffusion import checkpoint
from diffusion.exchange import imported
from diffusion.model import origin
from diffusion.reporting import names
from diffusion.training import lock, metrics


def test_names_are_those_of_the_rooms_that_write_them() -> None:
    assert (names.RESOLVED, names.SOURCES, names.WEIGHTS) == (origin.RESOLVED, origin.SOURCES, origin.WEIGHTS)
    assert (names.CHECKPOINTS, names.PREFIX, names.MANIFEST) == (
        checkpoint.FOLDER,
        checkpoint.PREFIX,
        checkpoint.MANIFEST,
    )
    assert (names.IMPORT, names.LOCK, names.METRICS) == (imported.RECORD, lock.LOCK, metrics.METRICS)


def test_a_finished_run_has_files_of_these_names(trained: Path) -> None:
    parts = (names.RESOLVED, names.SOURCES, names.METRICS, names.MACHINE, names.EVALUATION, names.CHECKPOINTS)
    there = [*parts, *(f"{names.SAMPLES}/{each}" if each == names.REAL else each for each in names.PICTURES)]
    assert [each for each in there if not (trained / each).exists()] == []
