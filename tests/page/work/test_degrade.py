"""What a chain does is what `diffusion restore --damage` does, link by link."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion.errors import InputError
from diffusion.page.work import parse
from tests.page.bench import Bench, give
from tests.page.work.images import photograph, pixels

CHAIN = "blur:sigma=1+downsample:factor=2"


def test_the_last_link_is_the_damaged_image_of_the_command(bench: Bench, tmp_path: Path) -> None:
    upload = give(bench.run, photograph(tmp_path / "photo.png", (8, 8)))
    shared = {"upload": upload, "operator": CHAIN, "noise": 0.1, "seed": 4}
    restored = bench.do("restore", damage=True, n=1, steps=1, **shared)
    job = bench.do("degrade", **shared)
    assert [(file["role"], file.get("index")) for file in job.files] == [
        ("damaged", 1),
        ("damaged", 0),
        ("archive", None),
    ]
    whole, first = (pixels(bench.path(job, f"damaged-{number}.png")) for number in (1, 0))
    assert np.array_equal(whole, pixels(bench.path(restored, "result/damaged.png")))
    blurred = bench.do("degrade", **{**shared, "operator": "blur:sigma=1", "noise": 0.0})
    assert np.array_equal(first, pixels(bench.path(blurred, "damaged-0.png"))), "noise comes last"
    assert first.shape == (8, 8, 3) and whole.shape == (4, 4, 3)


def test_an_operator_is_needed(bench: Bench, tmp_path: Path) -> None:
    upload = give(bench.run, photograph(tmp_path / "photo.png"))
    with pytest.raises(InputError, match=r"^operator: is needed for degrade"):
        parse("degrade", {"upload": upload}).check(bench.place())
