"""A folder with every kind of file, and a cache apart from the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_images import build


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("images") / "zoo")


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_CACHE", str(tmp_path / "private_cache"))
