"""The bound of an image is that of `diffusion evaluate --data IMAGE`, and its rank is among the held-out ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion import cli
from diffusion.errors import InputError
from diffusion.model import clocks
from diffusion.page.work import parse
from tests.page.bench import Bench, give
from tests.page.work.images import photograph


def test_the_bound_is_that_of_the_command(bench: Bench, tmp_path: Path) -> None:
    file = photograph(tmp_path / "photo.png", (8, 8))
    before = {path.name for path in bench.run.iterdir()}
    job = bench.do("likelihood", upload=give(bench.run, file), draws=32)
    assert {path.name for path in bench.run.iterdir()} - before <= {"page"}, "nothing is written beside the job"
    command = ("--data", file, "--method", "bound:repeats=16,draws=32")
    assert cli.main([*map(str, ["evaluate", bench.run, *command])]) == 0
    (path,) = {*bench.run.glob("evaluation*photo*.json")}
    found = json.loads(path.read_text())
    for made in bench.run.glob("evaluation*photo*"):
        made.unlink()
    bits, total = job.numbers["bits"], found["terms"]["total"]
    assert bits == {"value": total["mean"], "half": total["half_width"], "unit": "bits/dim"} and bits["half"] > 0
    levels = job.numbers["levels"]
    assert [list(pair) for pair in zip(levels["x"], levels["y"], strict=True)] == [
        row[:2] for row in found["by_log_snr"]
    ]
    marks = clocks.marks(bench.run)
    assert {mark["name"]: mark["at"] for mark in job.numbers["marks"]} == marks and "speciation" in marks
    held_out = json.loads((bench.run / "evaluation.json").read_text())["values"]
    rank = job.numbers["rank"]
    assert rank["of"] == len(held_out) == 11 and rank["above"] == sum(value > bits["value"] for value in held_out)
    assert rank["least"] == min(held_out) and rank["largest"] == max(held_out)
    assert any("total" in line for line in job.lines)


def test_without_an_evaluation_there_is_no_rank(bench: Bench, tmp_path: Path) -> None:
    evaluation = bench.run / "evaluation.json"
    aside = evaluation.rename(bench.run / "aside.json")
    try:
        job = bench.do("likelihood", upload=give(bench.run, photograph(tmp_path / "a.png", (8, 8))), draws=16)
    finally:
        aside.rename(evaluation)
    assert "rank" not in job.numbers and job.numbers["bits"]["unit"] == "bits/dim"


def test_draws_are_bounded() -> None:
    for draws, said in ((17, "a multiple of 16"), (8192, "less than or equal to 4096"), (0, "greater than or equal")):
        with pytest.raises(InputError, match=f"^draws: must be {said}"):
            parse("likelihood", {"draws": draws})
