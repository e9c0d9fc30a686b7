from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffusion.data.images.bands import Bands, arranged, mode_of, no_range, turned

ENDS = (0.0, 1000.0)
BLUE = (0, 0, 255)


def pixel(*values: float, dtype: str = "u2") -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    return np.array([[values]], dtype)


def test_gray_is_repeated_and_made_opaque() -> None:
    gray = Bands(pixel(300), "gray")
    assert arranged(gray, 1, BLUE, ENDS)[0].tolist() == [[[300]]]
    assert arranged(gray, 3, BLUE, ENDS)[0].tolist() == [[[300, 300, 300]]]
    values, alpha = arranged(gray, 4, BLUE, ENDS)
    assert (values.tolist(), alpha) == ([[[300, 300, 300, 1000]]], True)


def test_colors_become_gray_by_their_luma() -> None:
    values, alpha = arranged(Bands(pixel(100, 200, 300), "rgb"), 1, BLUE, ENDS)
    assert not alpha
    assert values.item() == pytest.approx(0.299 * 100 + 0.587 * 200 + 0.114 * 300)


def test_alpha_composites_on_the_background_within_the_range() -> None:
    half = Bands(pixel(100, 200, 300, 65535 // 2), "rgb", alpha=True)
    share = (65535 // 2) / 65535
    expected = [100 * share, 200 * share, 300 * share + 1000 * (1 - share)]
    assert arranged(half, 3, BLUE, ENDS)[0].ravel().tolist() == pytest.approx(expected)
    gray = Bands(pixel(100, 0), "gray", alpha=True)
    assert arranged(gray, 1, BLUE, ENDS)[0].item() == pytest.approx(0.114 * 1000)


def test_alpha_is_a_channel_where_it_is_asked_for() -> None:
    values, alpha = arranged(Bands(pixel(1, 2, 3, 13107), "rgb", alpha=True), 4, BLUE, ENDS)
    assert alpha and values.ravel().tolist() == pytest.approx([1, 2, 3, 200])
    values, alpha = arranged(Bands(pixel(7, 65535), "gray", alpha=True), 2, BLUE, ENDS)
    assert alpha and values.ravel().tolist() == pytest.approx([7, 1000])


def test_colors_that_alpha_multiplied_are_divided_by_it() -> None:
    bands = Bands(pixel(100, 50, 0, 32768), "rgb", alpha=True, premultiplied=True)
    values, _ = arranged(bands, 4, BLUE, ENDS)
    assert values.ravel()[:3].tolist() == pytest.approx([100 * 65535 / 32768, 50 * 65535 / 32768, 0])


def test_a_fourth_band_that_is_not_alpha_is_trained_or_left_out() -> None:
    near_infrared = Bands(pixel(1, 2, 3, 4), "rgb")
    values, alpha = arranged(near_infrared, 4, BLUE, ENDS)
    assert (values.tolist(), alpha) == ([[[1, 2, 3, 4]]], False)
    assert arranged(near_infrared, 3, BLUE, ENDS)[0].tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("count", [2, 5, 16])
def test_any_bands_are_taken_as_they_are(count: int) -> None:
    values, alpha = arranged(Bands(pixel(*range(count)), "bands"), count, BLUE, ENDS)
    assert not alpha and values.ravel().tolist() == list(range(count))


@pytest.mark.parametrize(
    ("kind", "count", "alpha", "channels", "cure"),
    [
        *(("bands", 5, False, 3, 5), ("bands", 5, False, 4, 5), ("gray", 1, False, 2, 1), ("rgb", 3, False, 5, 3)),
        *(("rgb", 4, True, 2, 3), ("rgb", 5, False, 3, 5), ("bands", 2, False, 1, 2), ("bands", 3, False, 4, 3)),
    ],
)
def test_other_numbers_of_bands_are_refused_with_what_to_set(
    kind: str, count: int, alpha: bool, channels: int, cure: int
) -> None:
    bands = Bands(pixel(*range(count)), kind, alpha=alpha)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"data\.channels={channels} cannot .*set data\.channels={cure}$"):
        arranged(bands, channels, BLUE, ENDS)


def test_inverted_values_are_mirrored_within_the_range() -> None:
    assert arranged(Bands(pixel(100), "gray", inverted=True), 1, BLUE, ENDS)[0].item() == 900


def test_the_type_tells_the_range_or_not() -> None:
    assert Bands(pixel(5, dtype="u1"), "gray").full == (0, 255)
    assert Bands(pixel(5), "gray").full == (0, 65535)
    assert Bands(pixel(5), "gray", white=4095).full == (0, 4095)
    assert Bands(pixel(1, dtype="?"), "gray").full == (0, 1)
    assert Bands(pixel(5, dtype="u4"), "gray").full == (0, 65535)
    for values in (
        pixel(-5, dtype="i2"),
        pixel(5, dtype="i2"),
        pixel(70_000, dtype="u4"),
        pixel(70_000, dtype="i4"),
        pixel(0.5, dtype="f4"),
    ):
        assert Bands(values, "gray").full is None


def test_values_without_a_range_are_named_with_their_extremes() -> None:
    bands = Bands(np.array([[[-0.25], [1.5]]], np.float32), "gray")
    assert str(no_range(bands)).endswith("set data.range=[-0.25, 1.5]")
    assert "do not fit into 16 bits; set data.range=[-3, 9]" in str(no_range(Bands(pixel(-3, 9, dtype="i2"), "bands")))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no numbers or infinite"):
        Bands(pixel(1.0, value, dtype="f4"), "bands")


def test_modes_are_those_of_pillow_where_it_has_one() -> None:
    kinds = {(1, "u1"): "L", (1, "u2"): "I;16", (1, "i4"): "I", (1, "f8"): "F", (3, "u1"): "RGB", (1, "?"): "1"}
    assert all(mode_of(count, np.dtype(kind)) == mode for (count, kind), mode in kinds.items())
    assert mode_of(5, np.dtype("u2")) == "5 x uint16"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_that_of_pillow(orientation: int) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    image = Image.fromarray(values)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(turned(values[:, :, None], orientation)[:, :, 0], np.asarray(ImageOps.exif_transpose(image)))
