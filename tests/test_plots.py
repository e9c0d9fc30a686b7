"""Plots keep their numbers in their metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageChops

from diffusion import figures, plots

MARKS = {"speciation": -4.6, "classes": -4.3, "collapse": 2.2, "most images recognized": 2.9, "far": 30.0, "low": -20.0}


def test_the_plot_of_the_loss_keeps_its_numbers(tmp_path: Path) -> None:
    rows = [(-10.0, 1.0), (0.5, 0.3), (9.0, 0.8)]
    path = plots.loss_by_log_snr(rows, tmp_path / "loss.png", step=7)
    assert figures.read_info(path) == {"step": 7, "log_snr": [list(row) for row in rows]}


def test_curves_by_log_snr_keep_their_numbers(tmp_path: Path) -> None:
    rows = [(float(log_snr), 1.0 + log_snr, 0.1) for log_snr in range(4)]
    path = plots.by_log_snr({"held-out": rows, "training": rows[:3]}, tmp_path / "curves.png", "bits/dim")
    info = figures.read_info(path)
    assert info["curves"]["training"] == [list(row) for row in rows[:3]] and info["unit"] == "bits/dim"
    one = plots.by_log_snr({"held-out": rows}, tmp_path / "one.png", "bits/dim")
    assert ImageChops.difference(Image.open(path), Image.open(one)).getbbox() is not None


def test_marks_are_kept_and_drawn(tmp_path: Path) -> None:
    rows = [(-10.0, 1.0), (0.5, 0.3), (9.0, 0.8)]
    plain = plots.loss_by_log_snr(rows, tmp_path / "plain.png", step=7)
    assert "marks" not in figures.read_info(plain)
    marked = plots.loss_by_log_snr(rows, tmp_path / "marked.png", step=7, marks=MARKS)
    assert figures.read_info(marked)["marks"] == MARKS
    assert ImageChops.difference(Image.open(plain), Image.open(marked)).getbbox() is not None
    bands = {"held-out": [(x, y, 0.1) for x, y in rows]}
    assert figures.read_info(plots.by_log_snr(bands, tmp_path / "band.png", "nats", MARKS))["marks"] == MARKS


@pytest.mark.parametrize("span", [(-10.0, 10.0), (-5.0, 3.0), (2.0, 40.0)])
def test_labels_of_marks_stay_inside_and_apart_from_curves_and_each_other(span: tuple[float, float]) -> None:
    figure, (axes,) = figures.blank(1, width=5.0)
    axes.plot(span, (0.0, 1.0))
    (low, high), top = axes.get_xlim(), axes.get_ylim()[1]
    plots.mark(axes, MARKS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    whole, labels = axes.get_window_extent(), [text.get_window_extent(renderer) for text in axes.texts]
    assert len(axes.lines) == 1 + sum(low <= value <= high for value in MARKS.values())
    curve = axes.transData.transform((0.0, top))[1]
    for i, label in enumerate(labels):
        assert whole.x0 <= label.x0 and label.x1 <= whole.x1 and curve < label.y0 and label.y1 <= whole.y1
        assert not any(label.overlaps(other) for other in labels[:i])


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    path = plots.by_log_snr({"$10^$": [(0.0, 1.0, 0.1), (1.0, 1.0, 0.1)]}, tmp_path / "curves.png", "bits/dim")
    assert list(figures.read_info(path)["curves"]) == ["$10^$"]
    plots.histogram([1.0, 2.0], tmp_path / "weights.png", label="nats", title="work, $x^$ examples")


def test_a_histogram_has_the_mean_of_its_values(tmp_path: Path) -> None:
    path = plots.histogram([1.0, 2.0, 6.0], tmp_path / "weights.png", label="nats", title="work")
    assert figures.read_info(path) == {"label": "nats", "mean": 3.0, "count": 3}


def test_curves_by_depth_keep_their_numbers(tmp_path: Path) -> None:
    curves = {"signal": [1.0, 0.5, 0.4], "gradient": [2.0, 1.5, 1.0], "distance": [1.0, 3.0, 9.0]}
    path = plots.by_depth(curves, [0.1, 0.2, 0.9], (0.05, 20.0), tmp_path / "depth.png")
    info = figures.read_info(path)
    assert info == {"curves": {**curves, "correlation": [0.1, 0.2, 0.9]}, "limits": [0.05, 20.0]}
    curves["distance"] = [1.0, 1.0, 1.0]
    other = plots.by_depth(curves, [0.1, 0.2, 0.9], (0.05, 20.0), tmp_path / "other.png")
    assert ImageChops.difference(Image.open(path), Image.open(other)).getbbox() is not None
