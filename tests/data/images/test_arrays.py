from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile

from diffusion.data.images.decoding import ImageError, PixelFormat, decode, read_bands, read_header
from tests.dicom import write_dicom

GENERATOR = np.random.default_rng(0)


def form(channels: int, low: float, high: float, levels: int | None) -> PixelFormat:
    return PixelFormat(channels, value_range=(low, high), levels=levels)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", ">u2", ">f4", "?"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 5), (5, 20, 30), (20, 30, 16)])
def test_arrays_are_read_whatever_their_type_and_order(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    values = GENERATOR.integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    expected = values[:, :, None] if len(shape) == 2 else values.transpose(1, 2, 0) if shape[0] == 5 else values
    assert np.array_equal(read_bands(tmp_path / "x.npy").values, expected)
    header = read_header(tmp_path / "x.npy")
    assert (header.height, header.width, header.format) == (20, 30, "NPY")
    back = decode(tmp_path / "x.npy", form(expected.shape[2], 0, 1, 2))
    assert np.array_equal(back, expected.astype(np.uint8))


def test_the_last_axis_holds_the_bands_where_both_could() -> None:
    np.save(buffer := io.BytesIO(), np.zeros((8, 9, 3), np.uint8))
    header = read_header("x.npy", buffer)
    assert (header.height, header.width, header.mode) == (8, 9, "RGB")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(5), r"shape \(5,\), no image"),
        (np.zeros((2, 3, 4, 5)), r"shape \(2, 3, 4, 5\), no image"),
        (np.zeros((20, 30, 17)), r"\(20, 30, 17\), no image"),
        (np.zeros((0, 3)), "no image"),
        (np.array([[object()]]), "Python objects, which are never read"),
        (np.zeros((4, 4), complex), "complex128, which are no pixels"),
        (np.full((4, 4), np.nan), "no numbers or infinite"),
        (np.zeros((4, 4)), "all 0, have no known range"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path: Path, array: np.ndarray, reason: str) -> None:  # type: ignore[type-arg]
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=rf"x\.npy: .*{reason}"):
        decode(tmp_path / "x.npy", PixelFormat(1))


def test_a_truncated_array_is_no_image(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((40, 40), np.uint8))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-100])
    with pytest.raises(ImageError):
        decode(tmp_path / "x.npy", PixelFormat(1))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 16])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiffs_of_any_type_and_bands_are_read_to_the_last_bit(
    tmp_path: Path, dtype: str, count: int, planes: str, compression: str | None
) -> None:
    values = GENERATOR.integers(0, 100, (20, 30, count)).astype(dtype)
    if values.dtype.kind != "u":
        values -= 50
    given = values[:, :, 0] if count == 1 else values if planes == "contig" else values.transpose(2, 0, 1)
    layout = {} if count == 1 else {"planarconfig": planes}
    tifffile.imwrite(tmp_path / "x.tif", given, photometric="minisblack", compression=compression, **layout)
    assert np.array_equal(read_bands(tmp_path / "x.tif").values, values)
    low, high = int(values.min()), int(values.max())
    pixels = decode(tmp_path / "x.tif", form(count, low, high, high - low + 1))
    assert np.array_equal(pixels.astype(float) + low, values.astype(float))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_deep_tiffs_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    values = GENERATOR.integers(0, 60_000, (20, 30, 5)).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "x.tif",
        values,
        photometric="minisblack",
        planarconfig="contig",
        extratags=[(274, 3, 1, orientation, True)],
    )
    turns = {1: values, 3: values[::-1, ::-1], 6: np.rot90(values, -1)}
    assert np.array_equal(read_bands(tmp_path / "x.tif").values, turns[orientation])
    header = read_header(tmp_path / "x.tif")
    assert (header.height, header.width) == turns[orientation].shape[:2]


def test_pages_are_frames(tmp_path: Path) -> None:
    pages = GENERATOR.normal(size=(3, 20, 30, 2)).astype(np.float32)
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", planarconfig="contig", contiguous=False)
    assert read_header(tmp_path / "x.tif").frames == 3
    for number, page in enumerate(pages):
        assert np.array_equal(decode(tmp_path / "x.tif", form(2, 0, 1, None), frame=number), page)
    with pytest.raises(ImageError, match="holds 3 pages"):
        decode(tmp_path / "x.tif", form(2, 0, 1, None), frame=3)


def test_a_truncated_tiff_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(buffer := io.BytesIO(), np.ones((50, 60, 5), np.uint16), planarconfig="contig", photometric=1)
    tags_first = buffer.getvalue()
    (tmp_path / "x.tif").write_bytes(tags_first[:-2000])
    with pytest.raises(ImageError, match="truncated"):
        decode(tmp_path / "x.tif", PixelFormat(5))


def test_a_white_that_is_lowest_is_shown_as_white(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 65535]], np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite")
    assert decode(tmp_path / "x.tif", form(1, 0, 65535, 65536)).ravel().tolist() == [65535, 64535, 0]


def test_dicom_values_are_those_of_the_modality(tmp_path: Path) -> None:
    stored = GENERATOR.integers(0, 4096, (20, 30)).astype(np.uint16)
    path = write_dicom(tmp_path / "ct.dcm", stored, slope=1, intercept=-1024)
    assert read_header(path).mode == "I"
    assert np.array_equal(read_bands(path).values[:, :, 0], stored.astype(int) - 1024)
    pixels = decode(path, form(1, -1024, 3071, 4096))
    assert np.array_equal(pixels[:, :, 0], stored)
    with pytest.raises(ImageError, match=r"do not fit into 16 bits; set data\.range=\[-1\d+, \d+\]"):
        decode(path, PixelFormat(1))


def test_dicom_of_12_bits_has_its_own_white(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", np.array([[0, 2048, 4095]], np.uint16))
    assert decode(path, PixelFormat(1)).ravel().tolist() == [0, 128, 255]


def test_dicom_with_a_fractional_slope_is_continuous(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "pet.dcm", np.array([[0, 10, 20]], np.uint16), slope=0.25, intercept=1)
    assert read_header(path).mode == "F"
    assert decode(path, form(1, 1, 6, None)).ravel().tolist() == pytest.approx([0, 0.5, 1])


def test_monochrome1_is_inverted_and_frames_are_numbered(tmp_path: Path) -> None:
    frames = np.stack([np.full((4, 5), 100, np.uint16), np.full((4, 5), 4095, np.uint16)])
    path = write_dicom(tmp_path / "x.dcm", frames, photometric="MONOCHROME1")
    assert read_header(path).frames == 2
    assert (decode(path, form(1, 0, 4095, 4096)) == 3995).all()
    assert (decode(path, form(1, 0, 4095, 4096), frame=1) == 0).all()
    with pytest.raises(ImageError, match="holds 2 frames"):
        decode(path, form(1, 0, 4095, 4096), frame=2)


def test_colors_of_dicom_are_rgb(tmp_path: Path) -> None:
    values = GENERATOR.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    path = write_dicom(tmp_path / "x.dcm", values, photometric="RGB")
    assert read_header(path).mode == "RGB"
    assert np.array_equal(decode(path, PixelFormat(3)), values)


def test_dicom_without_an_image_or_with_too_large_a_one_is_named(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", np.zeros((4, 4), np.uint16), rows=60_000, columns=60_000)
    with pytest.raises(ImageError, match="60000x60000 pixels; at most 64 million"):
        read_header(path)


def test_what_is_no_number_is_left_out_by_its_header(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([["a", "b"]]))
    with pytest.raises(ImageError, match="array of <U1, which are no pixels; save whole or floating-point numbers"):
        read_header(tmp_path / "x.npy")


def test_numbers_of_a_deep_palette_become_its_colors(tmp_path: Path) -> None:
    palette = GENERATOR.integers(0, 65536, (3, 65536)).astype(np.uint16)
    numbers = GENERATOR.integers(0, 4096, (6, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", numbers, photometric="palette", colormap=palette)
    assert read_header(tmp_path / "x.tif").mode == "RGB;16"
    bands = read_bands(tmp_path / "x.tif")
    assert bands.kind == "rgb" and np.array_equal(bands.values, palette[:, numbers].transpose(1, 2, 0))
    assert np.array_equal(decode(tmp_path / "x.tif", PixelFormat(3)), np.rint(bands.values / 257))
    assert decode(tmp_path / "x.tif", PixelFormat(1)).shape == (6, 8, 1)


def test_a_number_beyond_the_palette_is_named(tmp_path: Path) -> None:
    numbers = np.full((4, 4), 5000, np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", numbers, photometric="palette", colormap=np.zeros((3, 65536), np.uint16))
    content = bytearray((tmp_path / "x.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        tag = file.pages[0].tags["ColorMap"]
    # The count of the tag stands 4 bytes behind its beginning.
    content[tag.offset + 4 : tag.offset + 8] = (3 * 4096).to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(ImageError, match="5000 is not among the 4,096 colors of the palette"):
        read_bands(tmp_path / "x.tif")
