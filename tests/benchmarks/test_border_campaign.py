"""Border images go through inspect, train and restore, and a value that is lost is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import border, border_campaign
from diffusion.commands.photographs.canvas import Canvas

NAMES = ("u1x5.tif", "u2x2.tif", "f4x3.npy")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_CACHE", str(tmp_path / "cache"))


def test_values_of_many_bands_and_depths_come_back(tmp_path: Path) -> None:
    kinds = [kind for kind in border.bands() if kind.name in NAMES]
    outcome = border_campaign._group(tmp_path / "w", "bands", kinds)
    assert outcome.tried == len(kinds) == 3 and outcome.lost == ()


def test_a_value_that_is_lost_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = Canvas.values

    def off(self: Canvas, x):  # noqa: ANN001, ANN202
        found = values(self, x).copy()
        found[0, 0] += 1
        return found

    monkeypatch.setattr(Canvas, "values", off)
    kinds = [kind for kind in border.profiled() if kind.name == "p3-rgba.png"]
    outcome = border_campaign._group(tmp_path / "w", "profiles", kinds)
    assert outcome.lost == ("p3-rgba.png: known values differ by 1 in p3-rgba.png",)
