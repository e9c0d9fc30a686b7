"""A photograph of the size that is asked for, and frames that took too long."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import page


def test_the_photograph_has_its_size_and_something_to_see(tmp_path: Path) -> None:
    picture = Image.open(page.photograph(tmp_path / "photograph.jpg", (60, 40)))
    assert picture.size == (60, 40)
    assert np.array(picture).std((0, 1)).min() > 20


def test_frames_count_that_took_longer_than_they_may() -> None:
    assert page.slow([16.7, 50.0, 50.1, 300.0]) == 2


def test_a_size_is_two_numbers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["page", "run", "--size", "4000"])
    with pytest.raises(SystemExit):
        page.main()
    assert "must be WIDTHxHEIGHT, such as 4000x3000, got '4000'" in capsys.readouterr().err
