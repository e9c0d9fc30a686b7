"""Variations are those of `diffusion sample --vary`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion import cli
from diffusion.errors import InputError
from diffusion.page.work import parse
from tests.page.bench import Bench, give
from tests.page.work.images import photograph, pixels


def test_variations_are_those_of_the_command(bench: Bench, tmp_path: Path) -> None:
    file, out = photograph(tmp_path / "photo.png"), tmp_path / "out"
    job = bench.do("vary", upload=give(bench.run, file), level=0.4, n=2, seed=2, steps=4)
    options = ("--vary", file, "--level", 0.4, "--n", 2, "--seed", 2, "--steps", 4, "--out", out)
    assert cli.main([*map(str, ["sample", bench.run, *options])]) == 0
    variants = [one for one in job.files if one["role"] == "variant"]
    assert [one["index"] for one in variants] == [0, 1]
    for one in variants:
        assert np.array_equal(pixels(bench.path(job, one["name"])), pixels(out / Path(one["name"]).name))
    again = bench.do("vary", job=job.id, file=variants[1]["name"], level=0.0, n=1)
    assert np.array_equal(pixels(bench.path(again, "result/00000.png")), pixels(out / "00001.png"))


def test_the_level_is_within_its_bounds() -> None:
    for level in (-0.1, 1.1, "0.5"):
        with pytest.raises(InputError, match=r"^level: must be "):
            parse("vary", {"level": level})
