"""The table, the JSON and the picture of distances say the same, and say which are told from real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffusion import figures
from diffusion.distances import Comparison, Interval
from diffusion.evaluation.comparing import Comparing, Row
from diffusion.evaluation.quality_table import Pictures, QualityEvaluation, notes, picture, rows, terms


def row(name: str, value: float, floor: float, half: float, better: str) -> Row:
    """A distance whose intervals have one half width, that of the excess twice that."""
    intervals = (Interval(x, x - h, x + h) for x, h in ((value, half), (floor, half), (value - floor, 2 * half)))
    return Row(name, Comparison(*intervals, 20, 0.95), value, better)


FAR, NEAR = row("far", 0.5, 0.25, 0.0625, "smaller"), row("near", 0.875, 0.75, 0.125, "larger")


def evaluation(**changes: object) -> QualityEvaluation:
    distances = {"first": FAR, "second": NEAR}
    found = QualityEvaluation(
        "quality", "20 samples against real examples", "distance", 20, terms(distances), distances=distances, samples=20
    )
    return replace(found, real=40, **changes)  # type: ignore[arg-type]


def test_the_table_has_a_line_for_each_distance_and_class() -> None:
    text = evaluation(classes={"cat": FAR}, notes=("a note",)).table()
    head, names, first, second, blank, by, _, cat, note = text.split("\n")
    assert head == "quality: 20 samples against real examples, n = 20" and not blank and note == "a note"
    assert names.split() == ["value", "±", "95", "%", "floor", "excess", "95", "%", "of", "the", "excess", "all"]
    assert first.split() == ["far", "0.5", "0.0625", "0.25", "0.25", "[0.125,", "0.375]", "0.5"]
    assert second.endswith("larger is better") and by == "by class: far" and cat.startswith("cat (n = 20)")
    assert len({len(line.removesuffix("  larger is better")) for line in (names, first, second)}) == 1


def test_an_excess_whose_interval_holds_zero_is_not_told_from_real_ones() -> None:
    assert FAR.told_apart and not NEAR.told_apart


def test_json_has_every_number_and_no_pictures() -> None:
    shown = Pictures(torch.zeros(4, 1, 8, 8), torch.ones(4, 1, 8, 8))
    found = json.loads(json.dumps(evaluation(pictures=shown, network={"sha256": "ab"}).to_dict()))
    assert "pictures" not in found and found["size"] == 20 and found["confidence"] == 0.95
    assert found["network"] == {"sha256": "ab"} and found["mean"] == {"first": 0.5, "second": 0.875}
    assert found["distances"]["first"]["comparison"]["excess"] == {"value": 0.25, "low": 0.125, "high": 0.375}
    assert found["standard_error"]["first"] == pytest.approx(0.0625 / 1.96, rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (2,)])
def test_the_picture_shows_both_kinds_and_knows_its_numbers(tmp_path: Path, shape: tuple[int, ...]) -> None:
    shown = Pictures(torch.rand(9, *shape), torch.rand(9, *shape))
    found = evaluation(pictures=shown)
    path = picture(replace(found, classes={"cat": FAR, "dog": NEAR}), tmp_path / "quality.png", "held-out")
    assert figures.read_info(path)["distances"]["second"]["whole"] == 0.875
    wide = figures.Image.open(path).width
    found.draw(tmp_path / "less.png", "held-out")
    assert figures.Image.open(tmp_path / "less.png").width < wide


def test_notes_say_what_could_be_misread() -> None:
    images = notes(Comparing((1, 8, 8)), evaluation())
    assert images[0].startswith("floor: ") and "n = 20 is small" in images[1] and "texture" in images[2]
    assert len(notes(Comparing((2,)), evaluation())) == 2


def test_names_may_stand_for_rows() -> None:
    assert rows([FAR], ["other"])[1].startswith("other  ")
