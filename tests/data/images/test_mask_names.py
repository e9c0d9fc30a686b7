"""Which name is that of a mask, and of which image."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.data.images.mask_names import Named, image_of, masks_among
from diffusion.errors import InputError


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("x_mask", "x"),
        ("x-MASK", "x"),
        ("a/x.mask", "a/x"),
        ("mask_x", "x"),
        ("a/Mask-x_1", "a/x_1"),
        ("mask", None),
        ("unmasked", None),
        ("mask of x", None),
        ("x_mask_2", None),
        ("a/masks/x", "a/x"),
        ("Mask/x_mask", "x"),
        ("masks/inner/x", None),
    ],
)
def test_a_name_says_which_image_it_masks(name: str, image: str | None) -> None:
    assert image_of(Path(name)) == (None if image is None else Path(image))


def test_a_mask_counts_where_its_image_is() -> None:
    files = [Path(name) for name in ("x.jpg", "x_mask.png", "y_mask.png", "a/y.png", "a/y-mask.tif")]
    assert masks_among(files) == [Path("x_mask.png"), Path("a/y-mask.tif")]


def test_a_marked_mask_goes_before_one_of_the_same_name() -> None:
    files = [Path(name) for name in ("x.png", "x_mask.tif", "a/y.png", "mask_z.png")]
    named = Named.of(files, Path("m"))
    found = {name: named(Path(name)) for name in ("x", "a/y", "z", "x_mask", "y")}
    assert found == {
        **{"x": Path("x_mask.tif"), "a/y": Path("a/y.png"), "z": Path("mask_z.png")},
        **{"x_mask": Path("x_mask.tif"), "y": None},
    }
    with pytest.raises(InputError, match=r"m/x.tif: must have a name of its own, got that of m/x.png"):
        Named.of([Path("x.png"), Path("x.tif")], Path("m"))
