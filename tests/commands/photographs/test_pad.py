"""Space around an image is added where it is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion.commands.photographs.pad import Pad
from diffusion.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left=16", Pad(left=16)),
        ("left=16, top=8", Pad(left=16, top=8)),
        ("all=3", Pad(3, 3, 3, 3)),
        ("3", Pad(3, 3, 3, 3)),
        ("all=3,bottom=0", Pad(3, 3, 3, 0)),
    ],
)
def test_sides_are_named_in_words(text: str, expected: Pad) -> None:
    assert Pad.parse(text) == expected


@pytest.mark.parametrize("text", ["", "leftt=3", "left", "left=-3", "left=1.5", "3,x", "left=3;top=2"])
def test_what_is_not_understood_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"^--pad: must be sides and pixels, as in left=16,top=8 or all=32, got "):
        Pad.parse(text)
    with pytest.raises(InputError, match="--pad: must add at least one pixel, got 'left=0'"):
        Pad.parse("left=0")


def test_the_image_keeps_its_place_and_what_is_new_is_unknown() -> None:
    values = np.arange(6).reshape(2, 3, 1)
    pad = Pad(left=1, right=2, top=3, bottom=4)
    assert np.array_equal(pad.around(values)[3:5, 1:4], values) and pad.around(values).shape == (9, 6, 1)
    known = pad.with_false(np.ones((2, 3, 1), bool))
    assert known.sum() == 6 and known[3:5, 1:4].all()
