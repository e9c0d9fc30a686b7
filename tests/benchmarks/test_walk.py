"""A restoration walks straight from its problem to its samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.walk import FILES, RETURNS, Walk, walk


@pytest.fixture
def image(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(values).save(path := tmp_path / "small.png")
    return path


def test_a_restoration_enters_few_files_and_hardly_returns(trained: Path, image: Path) -> None:
    found = walk(trained, image)
    assert found.entered <= FILES and found.returns <= RETURNS
    # It is the whole way, through the model and the method.
    order = [found.stays.index(name) for name in ("model.model", "model.solving", "restoration.problem", "samplers")]
    assert order == sorted(order)


def test_stays_in_a_row_are_one_and_the_next_in_an_old_file_is_a_return() -> None:
    found = Walk(stays=["a", "b", "a", "c", "b"], passed=set())
    assert found.entered == 3 and found.returns == 2
