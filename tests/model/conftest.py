"""The models of which the tests ask: a trained one, and one of Gaussian images whose denoiser is exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion import config
from diffusion.data import DataSpec
from diffusion.model import Model, load
from diffusion.schedules import EDM
from tests.oracles import short_correlations


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load(trained, device="cpu")


@pytest.fixture(scope="module")
def mapped_model(restorer: Path) -> Model:
    return load(restorer, device="cpu")


@pytest.fixture(scope="module")
def exact_images() -> Model:
    """A model of Gaussian images of 8x8, far from black and white."""
    experiment = config.from_dict({"data": {"path": "images", "channels": 1}, "sampling": {"precision": "fp32"}})
    spec = DataSpec((1, 8, 8), 256, mean=120.0, std=25.0)
    return Model(short_correlations(EDM(), 8, 8, 1.5), spec, experiment)  # type: ignore[arg-type]
