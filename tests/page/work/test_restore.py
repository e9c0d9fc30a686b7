"""Restorations are those of `diffusion restore`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion import cli
from diffusion.errors import InputError
from diffusion.page.work import parse
from tests.page.bench import Bench, give
from tests.page.work.images import photograph, pixels

CHAIN = "blur:sigma=1+downsample:factor=2"


@pytest.mark.parametrize("damage", [True, False])
def test_restorations_are_those_of_the_command(bench: Bench, tmp_path: Path, damage: bool) -> None:
    file, out = photograph(tmp_path / "photo.png", (8, 8) if damage else (4, 4)), tmp_path / "out"
    upload = give(bench.run, file)
    job = bench.do("restore", upload=upload, operator=CHAIN, noise=0.1, damage=damage, n=2, steps=2, seed=4)
    options = (*("--noise", 0.1, "--n", 2, "--steps", 2, "--seed", 4, "--out", out), *["--damage"] * damage)
    assert cli.main([*map(str, ["restore", bench.run, file, "--operator", CHAIN, *options])]) == 0
    for name in {path.name for path in out.iterdir()} - {"restoration.json"}:
        assert np.array_equal(pixels(bench.path(job, f"result/{name}")), pixels(out / name)), name
    roles = {one["role"] for one in job.files}
    assert roles == {"variant", "mean", "deviation", "low", "high", "picture", "archive", *["damaged"] * damage}
    assert job.numbers["residual"] > 0 and job.numbers["noise"] == 0.1 and ("psnr_of_mean" in job.numbers) == damage


def test_an_operator_is_needed_and_what_is_none_fails_with_the_line_of_the_command(
    bench: Bench, tmp_path: Path
) -> None:
    upload = give(bench.run, photograph(tmp_path / "photo.png"))
    with pytest.raises(InputError, match=r"^operator: is needed for restore"):
        parse("restore", {"upload": upload}).check(bench.place())
    assert bench.fails("restore", upload=upload, operator="blurr:sigma=1").startswith("operator: must be one of")
