from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from diffusion.data.images.bands import Bands
from diffusion.data.images.decoding import ImageError, PixelFormat, decode, made_of_frames, read_bands, read_header
from diffusion.data.images.pixel_format import levels_between

GENERATOR = np.random.default_rng(0)


def form(channels: int, low: float, high: float) -> PixelFormat:
    return PixelFormat(channels, value_range=(low, high), levels=levels_between((low, high)))


def png(values: np.ndarray) -> io.BytesIO:  # type: ignore[type-arg]
    return io.BytesIO(imagecodecs.png_encode(values))


def test_12_bits_keep_all_levels_under_their_range(tmp_path: Path) -> None:
    values = GENERATOR.integers(0, 4096, (20, 30)).astype(np.uint16)
    for name in ("x.png", "x.tif"):
        Image.fromarray(values).save(tmp_path / name)
        pixels = decode(tmp_path / name, form(1, 0, 4095))
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels[:, :, 0], values)
        assert len(np.unique(decode(tmp_path / name, PixelFormat(1)))) <= 17


@pytest.mark.parametrize(("count", "mode"), [(2, "LA;16"), (3, "RGB;16"), (4, "RGBA;16")])
def test_16_bit_colors_of_a_png_are_whole_under_a_range(count: int, mode: str) -> None:
    values = GENERATOR.integers(0, 65536, (20, 30, count)).astype(np.uint16)
    assert read_header("x.png", png(values)).mode == mode
    assert np.array_equal(decode("x.png", form(count, 0, 65535), png(values)), values)
    without = decode("x.png", PixelFormat(3 if count == 3 else 4), png(values))
    if count > 2:
        assert np.array_equal(without, values >> 8)


def test_16_bit_colors_of_a_tiff_are_whole_under_a_range(tmp_path: Path) -> None:
    values = GENERATOR.integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb")
    assert read_header(tmp_path / "x.tif").mode == "RGB;16"
    assert np.array_equal(decode(tmp_path / "x.tif", form(3, 0, 65535)), values)
    assert np.array_equal(decode(tmp_path / "x.tif", PixelFormat(3)), values >> 8)


@pytest.mark.parametrize("white", [100, 255, 1000, 4095, 65535])
def test_netpbm_values_are_those_of_the_file(white: int) -> None:
    gray, color = (GENERATOR.integers(0, white + 1, shape) for shape in ((4, 5), (4, 5, 3)))
    kind = "u1" if white < 256 else ">u2"
    for number, values in ((5, gray), (6, color)):
        data = f"P{number} 5 4 {white}\n".encode() + values.astype(kind).tobytes()
        channels = 1 if number == 5 else 3
        pixels = decode("x.pnm", form(channels, 0, white), io.BytesIO(data))
        assert np.array_equal(pixels.squeeze(), values)
        eight = decode("x.pnm", PixelFormat(channels), io.BytesIO(data)).squeeze().astype(int)
        assert np.abs(eight - values * 255 / white).max() <= 0.51


def test_truncated_16_bit_colors_are_named() -> None:
    data = b"P6 5 4 4095\n" + bytes(100)
    with pytest.raises(ImageError, match="truncated"):
        decode("x.ppm", form(3, 0, 4095), io.BytesIO(data))
    whole = png(GENERATOR.integers(0, 65536, (20, 30, 3)).astype(np.uint16)).getvalue()
    with pytest.raises(ImageError):
        decode("x.png", form(3, 0, 65535), io.BytesIO(whole[: len(whole) // 2]))


def test_a_part_of_8_bits_becomes_the_whole_range(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "x.png")
    pixels = decode(tmp_path / "x.png", form(1, 16, 235))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels.ravel(), np.clip(np.arange(256) - 16, 0, 219))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_bands_of_8_bits_are_those_that_are_decoded(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GENERATOR.integers(0, 256, (16, 16, 4), dtype=np.uint8))
    image = image.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "P", "1") else image.convert(mode)
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    image.save(tmp_path / f"x.{suffix}")
    bands = read_bands(tmp_path / f"x.{suffix}")
    channels = {"1": 1, "L": 1, "LA": 4, "RGBA": 4}.get(mode, 3)
    same = decode(tmp_path / f"x.{suffix}", PixelFormat(channels))
    values = bands.values if mode != "LA" else bands.values[:, :, [0, 0, 0, 1]]
    assert np.array_equal(values, same if bands.alpha == (channels == 4) else same[:, :, :3])
    if channels in (1, 3):
        assert np.array_equal(decode(tmp_path / f"x.{suffix}", form(channels, 0, 255)), same)


def test_gray_and_alpha_are_two_channels(tmp_path: Path) -> None:
    values = GENERATOR.integers(0, 256, (16, 16, 2), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.array_equal(decode(tmp_path / "x.png", PixelFormat(2)), values)
    Image.fromarray(values[:, :, 0]).save(tmp_path / "y.png")
    with pytest.raises(ImageError, match=r"holds 1 band, data\.channels=2 cannot .*set data\.channels=1"):
        decode(tmp_path / "y.png", PixelFormat(2))


def near_infrared(path: Path, count: int = 4, dtype: str = "u1") -> np.ndarray:  # type: ignore[type-arg]
    values = GENERATOR.integers(0, 256, (16, 16, count)).astype(dtype)
    extra = ["unspecified"] * (count - 3)
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="contig", extrasamples=extra)
    return values


def test_a_band_that_is_not_alpha_is_never_a_constant(tmp_path: Path) -> None:
    values = near_infrared(tmp_path / "x.tif")
    assert read_header(tmp_path / "x.tif").mode == "RGB+1"
    assert np.array_equal(decode(tmp_path / "x.tif", PixelFormat(4)), values)
    assert np.array_equal(decode(tmp_path / "x.tif", PixelFormat(3)), values[:, :, :3])
    deep = near_infrared(tmp_path / "y.tif", dtype="u2")
    assert np.array_equal(decode(tmp_path / "y.tif", form(4, 0, 65535)), deep)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_five_bands_are_refused_for_other_numbers_of_channels(tmp_path: Path, channels: int, dtype: str) -> None:
    values = near_infrared(tmp_path / "x.tif", 5, dtype)
    assert np.array_equal(read_bands(tmp_path / "x.tif").values, values)
    with pytest.raises(ImageError, match=rf"holds 5 bands, data\.channels={channels} .*set data\.channels=5"):
        decode(tmp_path / "x.tif", PixelFormat(channels))


def test_float_tiffs_need_a_range_which_is_named(tmp_path: Path) -> None:
    values = GENERATOR.uniform(-1, 3, (16, 16)).astype(np.float32)
    values[0, :2] = -1.5, 3.25
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match=r"floating-point values, from -1\.5 to 3\.25, .*data\.range=\[-1\.5, 3\.25\]"):
        decode(tmp_path / "x.tif", PixelFormat(1))
    pixels = decode(tmp_path / "x.tif", PixelFormat(1, value_range=(-1, 3), levels=None))
    assert pixels.dtype == np.float32
    assert np.allclose(pixels[:, :, 0], (values + 1) / 4, rtol=0, atol=1e-6)
    assert pixels.min() < 0 and pixels.max() > 1


def test_photographs_of_phones_are_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 48), (200, 80, 40))
    heif = pillow_heif.from_pillow(image)
    heif.save(tmp_path / "x.heic", quality=95)
    assert read_header(tmp_path / "x.heic").format == "HEIF"
    assert np.abs(decode(tmp_path / "x.heic", PixelFormat(3)).astype(int) - (200, 80, 40)).max() <= 4


def test_a_frame_is_chosen_by_its_number(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    for name in ("x.gif", "x.tif", "x.webp"):
        options = {"lossless": True} if name == "x.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        colors = [tuple(decode(tmp_path / name, PixelFormat(3), frame=i)[0, 0].tolist()) for i in range(3)]
        assert colors == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
        with pytest.raises(ImageError):
            decode(tmp_path / name, PixelFormat(3), frame=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG that is damaged, or of a kind that is not read"),
        (b"\0\0\0\x0cJXL " + bytes(50), "a JPEG XL, which is not read; convert it to one of PNG"),
        (b"8BPS\0\1" + bytes(200), "a Photoshop file, which is not read"),
        (
            bytes.fromhex("ffd8ffc3000b0c00100010010111" + "00" * 40),
            r"a JPEG of a kind that is not read \(12 bits, loss",
        ),
        (bytes.fromhex("ffd8ffc1000b0c00100010010111" + "00" * 40), r"a JPEG of a kind that is not read \(12 bits\)"),
        (b"<html>" + bytes(50), "not an image of a known format"),
        (b"", "the file is empty"),
    ],
)
def test_files_are_refused_for_the_true_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode("x.png", PixelFormat(3), io.BytesIO(data))


def test_pages_of_different_depths_keep_their_own_values_in_any_order(tmp_path: Path) -> None:
    pages = [
        GENERATOR.integers(0, 256, (6, 7, 3)).astype(np.uint8),
        GENERATOR.integers(0, 65536, (6, 7)).astype(np.uint16),
        GENERATOR.integers(0, 65536, (6, 7, 3)).astype(np.uint16),
        GENERATOR.integers(0, 256, (6, 7)).astype(np.uint8),
    ]
    for order in (pages, pages[::-1]):
        with tifffile.TiffWriter(tmp_path / "x.tif") as file:
            for page in order:
                file.write(page, photometric="rgb" if page.ndim == 3 else "minisblack")
        with (tmp_path / "x.tif").open("rb") as opened:
            found = [*made_of_frames("x.tif", opened, range(4), lambda source, frame: source.bands(frame))]
        for number, (bands, page) in enumerate(zip(found, order, strict=True)):
            assert isinstance(bands, Bands) and np.array_equal(bands.values.squeeze(), page)
            assert np.array_equal(read_bands(tmp_path / "x.tif", frame=number).values.squeeze(), page)
