from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from diffusion.data.images.decoding import ImageError, PixelFormat, decode, read_header
from diffusion.data.images.tiff import Layout, read_layout


def written(values: np.ndarray, **options: object) -> io.BytesIO:  # type: ignore[type-arg]
    tifffile.imwrite(buffer := io.BytesIO(), values, **options)
    return buffer


def bands(count: int, dtype: str = "u1") -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(0).integers(0, 200, (5, 7, count)).astype(dtype)


RGB4 = {"photometric": "rgb", "planarconfig": "contig"}
BLACK = {"photometric": "minisblack", "planarconfig": "contig"}


@pytest.mark.parametrize(
    ("values", "options", "reader", "mode"),
    [
        (bands(3), {"photometric": "rgb"}, "plain", "RGB"),
        (bands(4), {**RGB4, "extrasamples": ["unassalpha"]}, "plain", ""),
        (bands(4), {**RGB4, "extrasamples": ["unspecified"]}, "bands", "RGB+1"),
        (bands(4, "u2"), {**RGB4, "extrasamples": ["unspecified"]}, "bands", "RGB+1;16"),
        (bands(3, "u2"), {"photometric": "rgb"}, "color", ""),
        (bands(5, "u2"), {**BLACK, "extrasamples": ["unspecified"] * 4}, "bands", "5 x uint16"),
        (bands(2, "u2"), {**BLACK, "extrasamples": ["unassalpha"]}, "bands", "LA;16"),
        (bands(1, "u2")[..., 0], {"photometric": "minisblack"}, "gray", "I;16"),
        (bands(1, "u2")[..., 0], {"photometric": "miniswhite"}, "bands", "I;16"),
        (bands(1, "i2")[..., 0], {"photometric": "minisblack"}, "gray", "I"),
        (bands(1, "f4")[..., 0], {"photometric": "minisblack"}, "gray", "F"),
        (bands(1, "f8")[..., 0], {"photometric": "minisblack"}, "bands", "F"),
        (bands(1, "f2")[..., 0], {"photometric": "minisblack"}, "bands", "F"),
        (bands(1, "u4")[..., 0], {"photometric": "minisblack"}, "bands", "I"),
        (bands(1, "i1")[..., 0], {"photometric": "minisblack"}, "bands", "I"),
        (bands(3, "f4"), {"photometric": "rgb"}, "bands", "3 x float32"),
    ],
)
def test_what_pillow_reads_in_part_is_told_by_the_tags(
    values: np.ndarray,  # type: ignore[type-arg]
    options: dict[str, object],
    reader: str,
    mode: str,
) -> None:
    found = read_layout(written(values, **options))
    assert found.reader == reader
    assert (found.width, found.height) == (7, 5)
    assert not mode or found.mode == mode


def test_bands_without_a_tag_are_not_taken_for_alpha() -> None:
    tags = {256: 4, 257: 4, 258: (8, 8, 8, 8), 262: 2, 277: 4}
    assert Layout.of(tags).unspecified == 1


def test_every_byte_order_and_the_big_form_are_read() -> None:
    for options in ({"byteorder": ">"}, {"byteorder": "<"}, {"bigtiff": True}):
        found = read_layout(written(bands(5, "u2"), **BLACK, **options))
        assert str(found) == "a TIFF of a kind that is not read (5 channels, 16 bits)"


def test_a_kind_that_is_not_read_is_named_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "five.tif"
    path.write_bytes(written(bands(5, "u2"), **BLACK).getvalue())
    monkeypatch.setattr("diffusion.data.images.formats.library", lambda name: None)
    for read in (read_header, lambda path: decode(path, PixelFormat(5))):
        with pytest.raises(ImageError, match=r"a TIFF of a kind .*\(5 channels, 16 bits\) needs tifffile.*pip install"):
            read(path)


def test_a_page_of_bits_that_nobody_reads_is_named(tmp_path: Path) -> None:
    data = bytearray(written(bands(2, "u2"), **BLACK).getvalue())
    where = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    data[where : where + 2] = struct.pack("<H", 34892 + 7000)  # A compression that does not exist.
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(ImageError, match=r"a TIFF of a kind that is not read \(2 channels, 16 bits\)"):
        decode(tmp_path / "x.tif", PixelFormat(2))
