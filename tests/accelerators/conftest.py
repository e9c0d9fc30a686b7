"""A model on the CPU, beside which the same one on a pretended device is held."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.model import Model, load


@pytest.fixture(scope="session")
def on_cpu(trained: Path) -> Model:
    return load(trained, device="cpu")
