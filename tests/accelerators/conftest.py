"""A model on the CPU, beside which the same one on a pretended device is held."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.model import Model, load


@pytest.fixture(scope="session")
def on_cpu(trained: Path) -> Model:
    return load(trained, device="cpu")


@pytest.fixture(scope="session")
def restorer_on_cpu(restorer: Path) -> Model:
    return load(restorer, device="cpu")


@pytest.fixture
def pair(method: str, trained: Path, restorer: Path, on_cpu: Model, restorer_on_cpu: Model) -> tuple[Path, Model]:
    """The run that a method of restoration needs, and its model on the CPU."""
    return (restorer, restorer_on_cpu) if method == "learned" else (trained, on_cpu)
