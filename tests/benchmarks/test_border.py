"""The border images hold what they are said to hold."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms

from benchmarks import border


def test_every_group_has_images_of_many_kinds_each_of_its_own_name() -> None:
    for name, make in border.KINDS.items():
        kinds = list(make())
        assert len({kind.name for kind in kinds}) == len(kinds) >= 30, name
    assert {kind.bands for kind in border.bands()} == {1, 2, 3, 4, 5, 6}
    assert {kind.values.dtype.str[1:] for kind in border.bands()} == {"u1", "u2", "i2", "u4", "f4", "f8"}


def test_turned_images_are_all_the_same_upright_up_to_their_turn() -> None:
    by_turn = {kind.name: kind.values for kind in border.turned() if kind.name.endswith("png")}
    upright = by_turn["turned1.png"]
    assert np.array_equal(by_turn["turned3.png"], np.rot90(upright, 2))
    assert np.array_equal(by_turn["turned6.png"], np.rot90(upright, 3))
    assert np.array_equal(by_turn["turned8.png"], np.rot90(upright, 1))


def test_the_wide_profile_has_the_primaries_that_it_states() -> None:
    """Its red is that of Display P3 under D50, which sRGB cannot show."""
    profile = ImageCms.ImageCmsProfile(border_file(border.profiles()["p3"]))
    assert profile.profile.red_colorant[0] == pytest.approx((0.5151, 0.2412, -0.0011), abs=1e-4)
    srgb = ImageCms.createProfile("sRGB")
    one = Image.new("RGB", (1, 1), (128, 128, 128))
    gray = ImageCms.profileToProfile(one, profile, srgb)
    assert gray is not None and np.ptp(np.asarray(gray).astype(int)) <= 1


def border_file(data: bytes):  # noqa: ANN201
    import io

    return io.BytesIO(data)
