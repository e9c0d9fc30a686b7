"""The figure of a ledger keeps what it draws, with and without paths."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageChops

from diffusion import figures
from diffusion.evaluation import ledger_figure

ROWS = tuple((float(i), 1.0 - 0.1 * i, 0.05) for i in range(-4, 5))
CURVES = dict.fromkeys(("information", "heat", "production", "entropy", "produced"), ROWS)
WORK = {"dissipated": tuple(0.1 * i for i in range(40)), "forward": (0.5, 1.5), "reverse": (-0.5, -0.7)}


def test_the_figure_keeps_its_numbers(tmp_path: Path) -> None:
    path = ledger_figure.draw(tmp_path / "ledger.png", CURVES, WORK, "bits/dim", "held-out", {"collapse": 1.5})
    info = figures.read_info(path)
    assert info["marks"] == {"collapse": 1.5}
    assert info["unit"] == "bits/dim" and info["curves"]["heat"] == [list(row) for row in ROWS]
    assert info["work"] == {name: list(values) for name, values in WORK.items()}


def test_the_panel_of_work_is_there_where_paths_are(tmp_path: Path) -> None:
    with_work, without = (
        Image.open(ledger_figure.draw(tmp_path / f"{len(work)}.png", CURVES, work, "bits/dim", "held-out"))
        for work in (WORK, {})
    )
    assert with_work.width > 1.4 * without.width and with_work.height == without.height


def test_all_paths_of_one_work_can_be_drawn(tmp_path: Path) -> None:
    path = ledger_figure.draw(tmp_path / "one.png", CURVES, {"dissipated": (0.0, 0.0)}, "bits/dim", "held-out")
    other = ledger_figure.draw(tmp_path / "two.png", CURVES, {"dissipated": (0.0, 1.0)}, "bits/dim", "held-out")
    assert ImageChops.difference(Image.open(path), Image.open(other)).getbbox() is not None
