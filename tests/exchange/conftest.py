"""A hub on this machine, which starts empty in every test, with a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.fake_hub import FakeHub, start


@pytest.fixture(scope="session")
def _started() -> FakeHub:
    return start()


@pytest.fixture
def hub(_started: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub without repositories. Its files are cached in tmp_path/hub, and runs in tmp_path/cache."""
    # What HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE say is read when the library is imported.
    for name, value in (
        ("ENDPOINT", _started.url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", _started.url + "/{repo_id}/resolve/{revision}/{filename}"),
        ("HF_HUB_CACHE", str(tmp_path / "hub")),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_XET", True),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    monkeypatch.setenv("DIFFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    _started.root = tmp_path / "published"
    yield _started
    _started.reset()
