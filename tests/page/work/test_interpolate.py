"""Images between two are those of `diffusion sample --interpolate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion import cli
from diffusion.errors import InputError
from diffusion.page.work import parse
from tests.page.bench import Bench, give
from tests.page.work.images import photograph, pixels


def test_images_between_are_those_of_the_command(bench: Bench, tmp_path: Path) -> None:
    a, b = (photograph(tmp_path / f"{name}.png", (8, 8), seed) for seed, name in enumerate("ab"))
    out = tmp_path / "out"
    ends = {"a": {"upload": give(bench.run, a)}, "b": {"upload": give(bench.run, b)}}
    job = bench.do("interpolate", **ends, n=3)
    assert cli.main([*map(str, ["sample", bench.run, "--interpolate", a, b, "--n", 3, "--out", out])]) == 0
    assert [one["role"] for one in job.files] == ["variant"] * 3 + ["picture", "archive"]
    for number in range(3):
        name = f"{number:05d}.png"
        assert np.array_equal(pixels(bench.path(job, f"result/{name}")), pixels(out / name))


def test_both_ends_are_needed(bench: Bench) -> None:
    for options, said in (
        ({}, "a: is needed for interpolate"),
        ({"a": {}, "b": 3}, "b: must be an object, got 3"),
        ({"a": {"path": "/etc/passwd"}, "b": {}}, "a.path: is no part of it"),
        ({"a": {}, "b": {}, "n": 1}, "n: must be greater than or equal to 2"),
    ):
        with pytest.raises(InputError, match=f"^{said}"):
            parse("interpolate", options)
    with pytest.raises(InputError, match=r"^a: must be the id of an upload"):
        parse("interpolate", {"a": {}, "b": {}}).check(bench.place())
