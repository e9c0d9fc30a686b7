"""A queue whose process carries out the jobs of all tests, as it takes seconds to start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion.page import worker
from tests.page.bench import Bench


@pytest.fixture(scope="session")
def bench(restorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A queue for a copy of a run that learned to restore."""
    made = Bench(Path(shutil.copytree(restorer, tmp_path_factory.mktemp("bench") / "run")))
    yield made
    made.queue.close()


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A queue whose process only pretends (`pretended_worker.py`), for a folder without a model."""
    monkeypatch.setattr(worker, "PROGRAM", "tests.page.pretended_worker")
    (tmp_path / "run").mkdir()
    made = Bench(tmp_path / "run")
    yield made
    made.queue.close()
