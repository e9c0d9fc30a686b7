from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffusion.data.images.decoding import PixelFormat, decode, read_header
from tests.profiles import P3, SRGB, cmyk_profile, gray_profile, matrix_profile

GENERATOR = np.random.default_rng(0)


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(GENERATOR.integers(0, 256, shape, dtype=np.uint8))


def reference(image: Image.Image, profile: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Convert by Pillow's own function."""
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return np.asarray(converted).astype(int)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_colors_are_converted_to_srgb(tmp_path: Path, suffix: str) -> None:
    noise(24, 32, 3).resize((64, 48)).save(tmp_path / f"x.{suffix}", icc_profile=P3)
    with Image.open(tmp_path / f"x.{suffix}") as stored:
        expected, as_stored = reference(stored, P3), np.asarray(stored).astype(int)
    pixels = decode(tmp_path / f"x.{suffix}", PixelFormat(3)).astype(int)
    assert np.abs(pixels - expected).max() <= 1
    assert np.abs(pixels - as_stored).max() > 20
    assert read_header(tmp_path / f"x.{suffix}").notices == ("colors are converted to sRGB from test profile",)


def test_a_saturated_color_of_a_wide_profile(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (250, 40, 40)).save(tmp_path / "x.png", icc_profile=P3)
    expected = reference(Image.new("RGB", (4, 4), (250, 40, 40)), P3)
    assert np.abs(decode(tmp_path / "x.png", PixelFormat(3)) - expected).max() <= 1


def test_alpha_stays_and_colors_below_it_are_converted(tmp_path: Path) -> None:
    image = noise(16, 16, 4)
    image.save(tmp_path / "x.png", icc_profile=P3)
    pixels = decode(tmp_path / "x.png", PixelFormat(4))
    assert np.array_equal(pixels[:, :, 3], np.asarray(image)[:, :, 3])
    assert np.abs(pixels[:, :, :3] - reference(image.convert("RGB"), P3)).max() <= 1


def test_gray_with_a_profile_is_converted(tmp_path: Path) -> None:
    linear = gray_profile(1.0)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    expected = reference(ramp, linear)[:, :, 1]
    assert np.abs(expected - np.asarray(ramp)).max() > 40
    ramp.save(tmp_path / "x.png", icc_profile=linear)
    assert np.abs(decode(tmp_path / "x.png", PixelFormat(1))[:, :, 0] - expected).max() <= 1
    whole = ramp.convert("LA")
    whole.putalpha(255)
    whole.save(tmp_path / "y.png", icc_profile=linear)
    assert np.abs(decode(tmp_path / "y.png", PixelFormat(3))[:, :, 1] - expected).max() <= 1


def test_a_palette_and_gray_with_a_profile_of_colors(tmp_path: Path) -> None:
    colors = noise(16, 16, 3)
    palette = colors.quantize(16)
    palette.save(tmp_path / "x.png", icc_profile=P3)
    expected = reference(palette.convert("RGB"), P3)
    assert np.abs(decode(tmp_path / "x.png", PixelFormat(3)) - expected).max() <= 1
    dark = matrix_profile(P3_PRIMARIES, gamma=1.2)
    gray = noise(16, 16)
    gray.save(tmp_path / "y.png", icc_profile=dark)
    expected = reference(gray.convert("RGB"), dark)
    assert np.abs(decode(tmp_path / "y.png", PixelFormat(3)) - expected).max() <= 1


def test_cmyk_is_converted_by_its_profile(tmp_path: Path) -> None:
    profile = cmyk_profile()
    image = noise(16, 16, 4)
    image = Image.frombytes("CMYK", image.size, image.tobytes())
    image.save(tmp_path / "x.tif", icc_profile=profile)
    expected = reference(image, profile)
    assert np.abs(expected - np.asarray(image.convert("RGB"))).max() > 10
    assert np.abs(decode(tmp_path / "x.tif", PixelFormat(3)) - expected).max() <= 1


def test_cielab_is_converted(tmp_path: Path) -> None:
    Image.new("LAB", (4, 4), (255, 128, 128)).save(tmp_path / "white.tif")
    assert np.abs(decode(tmp_path / "white.tif", PixelFormat(3)).astype(int) - 255).max() <= 1
    Image.new("LAB", (4, 4), (137, 128, 128)).save(tmp_path / "gray.tif")
    pixels = decode(tmp_path / "gray.tif", PixelFormat(3)).astype(int)
    assert np.abs(pixels - 128).max() <= 2


@pytest.mark.parametrize("profile", [SRGB, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()])
def test_profiles_of_srgb_change_no_bit_and_are_not_mentioned(tmp_path: Path, profile: bytes) -> None:
    image = noise(16, 16, 3)
    image.save(tmp_path / "x.png", icc_profile=profile)
    assert np.array_equal(decode(tmp_path / "x.png", PixelFormat(3)), np.asarray(image))
    assert read_header(tmp_path / "x.png").notices == ()


@pytest.mark.parametrize("profile", [b"no profile", P3[:200], b"\0" * 500, P3[:128] + b"\xff" * 300])
def test_damaged_profiles_are_passed_over_and_said(tmp_path: Path, profile: bytes) -> None:
    image = noise(16, 16, 3)
    image.save(tmp_path / "x.png", icc_profile=profile)
    assert np.array_equal(decode(tmp_path / "x.png", PixelFormat(3)), np.asarray(image))
    assert read_header(tmp_path / "x.png").notices == ("a damaged color profile is passed over",)


def test_a_profile_of_another_kind_is_passed_over_and_said(tmp_path: Path) -> None:
    image = noise(16, 16, 3)
    image.save(tmp_path / "x.png", icc_profile=gray_profile(1.0))
    assert np.array_equal(decode(tmp_path / "x.png", PixelFormat(3)), np.asarray(image))
    notice = "a color profile for GRAY in an image of mode RGB is passed over"
    assert read_header(tmp_path / "x.png").notices == (notice,)


def png_with(chunk: bytes, data: bytes) -> io.BytesIO:
    """A PNG with one more chunk after its header."""
    import struct
    import zlib

    noise(8, 8, 3).save(buffer := io.BytesIO(), format="PNG")
    whole = struct.pack(">I", len(data)) + chunk + data + struct.pack(">I", zlib.crc32(chunk + data))
    start = buffer.getvalue()
    return io.BytesIO(start[:33] + whole + start[33:])


def test_the_gamma_of_a_png_is_not_applied_and_said_where_it_is_not_that_of_srgb() -> None:
    linear, usual = png_with(b"gAMA", (100_000).to_bytes(4, "big")), png_with(b"gAMA", (45_455).to_bytes(4, "big"))
    assert read_header("x.png", linear).notices == (
        "a gamma of 1 or primaries that are not those of sRGB are not applied",
    )
    assert read_header("x.png", usual).notices == ()
    assert read_header("x.png", png_with(b"sRGB", b"\0")).notices == ()
    with Image.open(linear) as image:
        assert np.array_equal(decode("x.png", PixelFormat(3), linear), np.asarray(image))


P3_PRIMARIES = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
