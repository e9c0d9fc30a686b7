"""A run on images with holes, which no test changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.training import train
from diffusion.training.report import Reporter, Validation
from tests.conftest import tiny


@pytest.fixture(scope="session")
def damaged(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the shapes, all but two with transparent holes."""
    folder = tmp_path_factory.mktemp("damaged") / "images"
    for number, path in enumerate(sorted(shapes.rglob("*.png"))):
        pixels = np.dstack([np.array(Image.open(path)), np.full((8, 8), 255, np.uint8)])
        if number > 1:
            pixels[number % 4 : number % 4 + 3, number % 5 : number % 5 + 4] = 0
        there = folder / path.relative_to(shapes)
        there.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(there)
    return folder


@pytest.fixture(scope="session")
def learned(damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("learned") / "run"
    experiment = tiny(damaged, data={"masks": "alpha"}, observed={"share": 0.7}, training={"steps": 2})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("finish", "samples"):
            patch.setattr(Reporter, name, lambda self, model: None)
        patch.setattr(Reporter, "validation", lambda self, model, losses: Validation())
        assert train(experiment, run) == 0
    return run
