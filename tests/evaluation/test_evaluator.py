"""An evaluation as a table, as JSON and as a figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from diffusion import figures, plots
from diffusion.evaluation import Estimate, Evaluation, Evaluator, Setting

TERMS = {
    "first": Estimate(1.25, 0.5, {"examples": 0.3, "noise": 0.4}),
    "second": Estimate(-2.0, None, {"examples": 0.0, "noise": 0.125}),
}
FOUND = Evaluation("toy", "distance", "mm", 1200, TERMS, (1.0, 2.0, 4.0), ("a note", "another"))


def test_the_table_has_a_line_for_each_term_and_the_notes_below() -> None:
    assert FOUND.table().splitlines() == [
        "toy: distance, mm, 1,200 held-out examples",
        "                        mean      \u00b1 95 %        examples           noise",
        "first                 1.2500      0.5000          0.3000          0.4000",
        "second               -2.0000           ?          0.0000          0.1250",
        "a note",
        "another",
    ]
    assert FOUND.table("flowers").splitlines()[0] == "toy: distance, mm, 1,200 flowers examples"


def test_standard_errors_add_up_in_squares() -> None:
    assert FOUND.mean == {"first": 1.25, "second": -2.0}
    assert FOUND.standard_error == {"first": pytest.approx(0.5), "second": pytest.approx(0.125)}


def test_json_has_every_field_and_the_means() -> None:
    written = json.loads(json.dumps(FOUND.to_dict(), allow_nan=False))
    assert written == {
        "method": "toy",
        "kind": "distance",
        "unit": "mm",
        "examples": 1200,
        "terms": {
            "first": {"mean": 1.25, "half_width": 0.5, "errors": {"examples": 0.3, "noise": 0.4}},
            "second": {"mean": -2.0, "half_width": None, "errors": {"examples": 0.0, "noise": 0.125}},
        },
        "values": [1.0, 2.0, 4.0],
        "notes": ["a note", "another"],
        "value_errors": [],
        "names": [],
        "mean": {"first": 1.25, "second": -2.0},
        "standard_error": {"first": pytest.approx(0.5), "second": pytest.approx(0.125)},
    }


def test_the_figure_is_a_histogram_of_the_values_and_there_is_none_without(tmp_path: Path) -> None:
    FOUND.draw(tmp_path / "values.png", "held-out")
    expected = plots.histogram(
        (1.0, 2.0, 4.0), tmp_path / "expected.png", label="mm", title="distance, held-out examples"
    )
    assert figures.read_info(tmp_path / "values.png") == figures.read_info(expected)
    assert (tmp_path / "values.png").read_bytes() == expected.read_bytes()
    Evaluation("toy", "distance", "mm", 3, TERMS).draw(tmp_path / "none.png", "held-out")
    assert not (tmp_path / "none.png").exists()


def test_by_default_all_examples_are_measured_without_guidance_in_this_process() -> None:
    assert Setting() == Setting(None, None, torch.float32, False, False)
    with pytest.raises(TypeError, match="abstract"):
        Evaluator()  # type: ignore[abstract]
