from __future__ import annotations

import numpy as np
import pytest

from benchmarks import decoding
from benchmarks.decoding import Options

OPTIONS = Options(images=2, side=60, size=16, rounds=1)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG, sRGB", "PNG", "PNG, sRGB"])
def test_both_sides_decode_the_same_pixels(kind: str) -> None:
    form, encoded = decoding.files(OPTIONS)[kind]
    for data in encoded:
        mine, theirs = decoding.ours(data, 16, form), decoding.plain(data, 16, "RGB")
        assert np.abs(mine.astype(int) - theirs).max() <= 2


def test_every_kind_has_a_row_and_the_usual_ones_a_goal() -> None:
    goals, tables = decoding.measure(OPTIONS)
    kinds = [row["files"] for row in tables["Images per second"]]
    assert len(kinds) == 8 and {"JPEG", "PNG, other colors", "TIFF, 12 bits"} <= set(kinds)
    assert [goal.name for goal in goals] == ["speed of JPEG against Pillow", "speed of PNG against Pillow"]
