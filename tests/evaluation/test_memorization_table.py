"""The table, the CSV rows and the figure of a search for copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import figures
from diffusion.evaluation import results
from diffusion.evaluation.memorization_table import Found, MemorizationEvaluation, Near, Pictures
from diffusion.evaluation.proportions import Share

SHARES = {
    "flagged": Share(0.5, 0.1, 0.9),
    "flagged, unseen": Share(0.01, 0.002, 0.03),
    "copies, inception": Share(1, 0.4, 1),
}
NEAR = (
    Near(("a.png", "b.png"), (0.2, 0.25), 0.8),
    Near((f"{'deep/' * 8}c.png", "a.png"), (0.01, 0.25), 0.04),
)
FOUND = Found(NEAR, (0.7, 0.01), (False, True), 0.3, 99)


def evaluation(**more: object) -> MemorizationEvaluation:
    """Two samples, the second of which is a copy."""
    given = {"shares": SHARES, "found": {"pixels": FOUND}, "training": 1234, "names": ("00000", "00001"), **more}
    terms = {name: share.estimate for name, share in SHARES.items()}
    return MemorizationEvaluation("memorization", "copies", "ratio", 2, terms, (0.8, 0.04), ("a note",), **given)  # type: ignore[arg-type]


def test_the_table_has_each_share_with_its_interval() -> None:
    assert evaluation().table("held-out").splitlines() == [
        "memorization: copies, 2 samples against 1,234 training examples",
        "                        share           95 % interval",
        "flagged                0.5000        0.1000 to 0.9000",
        "flagged, unseen        0.0100        0.0020 to 0.0300",
        "copies, inception      1.0000        0.4000 to 1.0000",
        "a note",
    ]


def test_samples_are_listed_those_of_the_smallest_ratio_first() -> None:
    found = evaluation(found={"pixels": FOUND, "inception": FOUND})
    head, *rows = results.table(found).splitlines()
    columns = ["ratio", "p-value", "flagged", "nearest", "distance", "second nearest", "distance"]
    assert head.split(",") == ["sample", *columns, *(f"inception: {column}" for column in columns)]
    cells = [["0.04", "0.01", "yes", NEAR[1].names[0], "0.01", "a.png", "0.25"]]
    cells += [["0.8", "0.7", "no", "a.png", "0.2", "b.png", "0.25"]]
    assert [row.split(",") for row in rows] == [[f"0000{1 - i}", *cells[i], *cells[i]] for i in range(2)]
    assert found.order == [1, 0] and found.foremost == "most like copies"


def test_json_has_all_but_the_pictures() -> None:
    written = json.loads(json.dumps(evaluation(pictures=Pictures((1,), torch.zeros(1, 3, 1, 4, 4))).to_dict()))
    assert "pictures" not in written and written["shares"]["flagged"] == {"value": 0.5, "low": 0.1, "high": 0.9}
    assert written["found"]["pixels"]["near"][1]["ratio"] == 0.04 and written["found"]["pixels"]["held_out"] == 99
    assert written["terms"]["flagged"]["half_width"] == pytest.approx(0.4)


def test_the_figure_shows_each_sample_beside_the_nearest_two(tmp_path: Path) -> None:
    images = torch.stack([torch.full((3, 1, 64, 64), v) for v in (0.2, 0.6)])
    images[:, 1] += 0.08
    images[:, 2] += 0.12
    found = evaluation(pictures=Pictures((1, 0), images))
    found.draw(tmp_path / "figure.png", "held-out")
    info = figures.read_info(tmp_path / "figure.png")
    title = "1 of 2 samples are flagged, 50.00%; of unseen images 1.00% are, with a ratio below 0.300"
    assert info["title"] == title and info["threshold"] == 0.3 and info["shares"]["flagged"]["low"] == 0.1
    assert [(each["sample"], each["ratio"]) for each in info["shown"]] == [("00001", 0.04), ("00000", 0.8)]
    with Image.open(tmp_path / "figure.png") as opened:
        pixels = np.asarray(opened.convert("L")).astype(int)
    for value in (51, 71, 82, 153, 173, 184):
        assert (pixels == value).sum() >= 64 * 64, value
    first, second = (np.nonzero(pixels == value)[1].min() for value in (51, 153))
    assert first < second, "two columns of samples"


def test_without_images_the_figure_is_a_histogram(tmp_path: Path) -> None:
    evaluation().draw(tmp_path / "figure.png", "held-out")
    assert figures.read_info(tmp_path / "figure.png")["label"] == "ratio"
