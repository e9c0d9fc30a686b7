from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.decoding import (
    MAX_PIXELS,
    ImageError,
    PixelFormat,
    Pixels,
    decode,
    printable,
    read_header,
    resize_and_crop,
)
from tests.bad_images import BAD, BLUE, FOUND_BY_DECODING, GREEN, NOT_UTF8, RED, WHITE, write_rotated

UNREADABLE = sorted(name for name in BAD if name != "link_to_nothing.png")


def rgb(path: Path, background: tuple[int, int, int] = WHITE) -> Pixels:
    return decode(path, PixelFormat(3, background))


def close(pixel: Pixels, color: tuple[int, ...], tolerance: int = 0) -> bool:
    return bool(np.abs(pixel.astype(int) - color).max() <= tolerance)


# Where the corner that is stored top left must be shown, by EXIF orientation (Exif 2.32, section 4.6.4.A).
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "corner"), CORNERS.items())
def test_exif_orientation(tmp_path: Path, orientation: int, corner: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    write_rotated(path, orientation)
    image, header = rgb(path), read_header(path)
    assert image.shape == ((48, 32, 3) if orientation >= 5 else (32, 48, 3))
    assert (header.height, header.width) == image.shape[:2]
    red = {c for c in [(0, 0), (0, -1), (-1, 0), (-1, -1)] if close(image[c], RED, 3)}
    assert red == {corner}


@pytest.mark.parametrize("name", ["ramp16.PNG", "ramp16.pgm", "ramp16.tif"])
def test_16_bits_are_scaled_not_clipped(zoo: Path, name: str) -> None:
    image = decode(zoo / name, PixelFormat(1))
    assert np.array_equal(image[..., 0], np.broadcast_to(np.arange(256), (4, 256)))


@pytest.mark.parametrize(("background", "expected"), [(WHITE, (255, 127, 127)), ((0, 0, 0), (128, 0, 0))])
def test_alpha_is_composited_on_the_background(
    zoo: Path, background: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert close(rgb(zoo / "rgba.png", background), expected)


def test_gray_with_alpha(zoo: Path) -> None:
    assert (decode(zoo / "gray_alpha.png", PixelFormat(1)) == 127).all()


def test_fourth_channel_keeps_alpha(zoo: Path) -> None:
    assert close(decode(zoo / "rgba.png", PixelFormat(4)), (255, 0, 0, 128))
    assert close(decode(zoo / "pages.tif", PixelFormat(4)), (*GREEN, 255))


def test_hidden_color_of_a_transparent_palette_entry_stays_hidden(zoo: Path) -> None:
    image = rgb(zoo / "palette.png", BLUE)
    assert close(image[:, :4], GREEN)
    assert close(image[:, 4:], BLUE)


def test_other_modes(zoo: Path) -> None:
    assert close(rgb(zoo / "cmyk.jpg"), RED, 3)
    assert np.array_equal(decode(zoo / "bits.png", PixelFormat(1))[..., 0], 255 * np.eye(8))
    assert close(rgb(zoo / "UPPER.JPG"), RED, 3)
    assert close(rgb(zoo / NOT_UTF8), BLUE)
    assert close(rgb(zoo / "png_named.jpg"), GREEN)


def test_gray_from_color_is_luma(zoo: Path) -> None:
    assert (decode(zoo / "pages.tif", PixelFormat(1)) == round(255 * 0.587)).all()


@pytest.mark.parametrize(("name", "color", "frames"), [("animated.gif", RED, 3), ("pages.tif", GREEN, 2)])
def test_first_frame_is_taken(zoo: Path, name: str, color: tuple[int, int, int], frames: int) -> None:
    assert close(rgb(zoo / name), color)
    assert read_header(zoo / name).frames == frames


@pytest.mark.parametrize("name", UNREADABLE)
def test_unusable_files_are_named_with_the_reason(zoo: Path, name: str) -> None:
    with pytest.raises(ImageError, match=BAD[name]) as caught:
        rgb(zoo / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(UNREADABLE) - FOUND_BY_DECODING))
def test_header_reveals_most_faults(zoo: Path, name: str) -> None:
    with pytest.raises(ImageError, match=BAD[name]):
        read_header(zoo / name)


def test_size_is_checked_before_decoding(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise AssertionError("decoded")

    assert MAX_PIXELS < 9000**2
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ImageError, match="9000x9000"):
        rgb(zoo / "large.png")


def test_formats_outside_of_the_list_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", format="TGA")
    with pytest.raises(ImageError, match="not an image of a known format"):
        rgb(tmp_path / "x.png")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: No such file"):
        rgb(tmp_path / "gone.png")


def test_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a.png", "why")))
    assert (str(error), error.reason) == ("a.png: why", "why")


def test_names_can_always_be_printed() -> None:
    assert printable(NOT_UTF8) == "caf\\xe9.png"
    assert str(ImageError(os.fsdecode(b"\xff"), "why")) == "\\xff: why"


def test_channels_are_checked(zoo: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.channels: .*got 17"):
        decode(zoo / "rgba.png", PixelFormat(17))


def test_fit_leaves_a_right_size_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(resize_and_crop(image, (5, 7)), image)


def test_fit_cuts_the_center_without_resampling_when_one_side_is_right() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 15, 1), dtype=np.uint8)
    assert np.array_equal(resize_and_crop(image, (8, 8)), image[:, 3:11])
    tall = image.transpose(1, 0, 2)
    assert np.array_equal(resize_and_crop(tall, (8, 8)), tall[3:11])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("source", [(300, 400), (400, 300), (30, 40), (1, 1), (1, 500)])
def test_fit_gives_the_size_and_keeps_flat_colors(source: tuple[int, int], channels: int) -> None:
    image = np.full((*source, channels), 200, np.uint8)
    assert np.array_equal(resize_and_crop(image, (24, 32)), np.full((24, 32, channels), 200))


@pytest.mark.parametrize(("source", "radius"), [((300, 400), 120), ((400, 300), 120), ((45, 60), 18)])
def test_a_circle_stays_a_circle(source: tuple[int, int], radius: int) -> None:
    y, x = np.mgrid[: source[0], : source[1]]
    distance = np.hypot(y - (source[0] - 1) / 2, x - (source[1] - 1) / 2)
    disk = 255 * np.clip(radius + 0.5 - distance, 0, 1)
    inside = resize_and_crop(disk[..., None].astype(np.uint8), (150, 150))[..., 0] > 127
    expected = 2 * radius * 150 / min(source)
    assert abs(inside.any(1).sum() - expected) <= 1.5
    assert abs(inside.any(0).sum() - expected) <= 1.5
    assert np.abs(np.argwhere(inside).mean(0) - 74.5).max() < 0.6


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 1), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_and_crop(stripes, (37, 37)).astype(int) - 127.5).max() < 8


def test_transparent_pixels_do_not_bleed_their_hidden_color() -> None:
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, :32] = (*GREEN, 255)
    image[:, 32:] = (*RED, 0)
    small = resize_and_crop(image, (9, 9))
    assert small[..., 0].max() == 0
