"""Which name is that of a mask, and of which image."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.commands.photographs.pairing import image_of, masks_among, same


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


def test_files_are_the_same_by_place_or_contents(tmp_path: Path) -> None:
    for name, data in (("a", b"12"), ("b", b"12"), ("c", b"13"), ("d", b"1")):
        (tmp_path / name).write_bytes(data)
    pairs = {(x, y): same(tmp_path / x, tmp_path / y) for x in "abcde" for y in "abcde"}
    assert {pair for pair, equal in pairs.items() if equal} == {
        *((x, x) for x in "abcd"), ("a", "b"), ("b", "a")
    }  # fmt: skip
