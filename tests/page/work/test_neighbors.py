"""The training images nearest to an image are those that `diffusion evaluate --memorization` finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import cli
from tests.page.bench import Bench, give


def test_the_nearest_training_images_are_those_of_the_command(bench: Bench, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert cli.main(["sample", str(bench.run), "--n", "2", "--out", str(made)]) == 0
    upload = give(bench.run, made / "00001.png")
    plain = bench.do("nearest", upload=upload)
    assert "threshold" not in plain.numbers
    try:
        assert cli.main(["evaluate", str(bench.run), "--memorization", "--samples", "2", "--flagged", "0.2"]) == 0
        found = json.loads(next(bench.run.glob("evaluation-memorization*.json")).read_text())
        job = bench.do("nearest", upload=upload)
    finally:
        for path in bench.run.glob("evaluation-memorization*"):
            path.unlink()
    near = found["found"]["pixels"]["near"][1]
    assert [each["name"] for each in job.numbers["near"]] == near["names"]
    assert [each["distance"] for each in job.numbers["near"]] == pytest.approx(near["distances"], rel=1e-6)
    assert job.numbers["ratio"] == pytest.approx(near["ratio"]) and job.numbers["ratio"] == plain.numbers["ratio"]
    assert job.numbers["threshold"] == found["found"]["pixels"]["threshold"]
    assert job.numbers["unseen"] == found["shares"]["flagged, unseen"]["value"]
    data = Path(found["data"]["path"])
    assert [(file["name"], file["role"], file["index"]) for file in job.files if file["role"] == "nearest"] == [
        ("nearest-0.png", "nearest", 0), ("nearest-1.png", "nearest", 1)]  # fmt: skip
    for i, name in enumerate(near["names"]):
        with Image.open(bench.path(job, f"nearest-{i}.png")) as shown, Image.open(data / name) as original:
            assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(original.convert("RGB")))
