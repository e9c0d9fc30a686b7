"""A photograph comes back with its own values and with all that its file holds beside them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from benchmarks import border
from diffusion import cli
from diffusion.commands.photographs.photograph import read_photograph
from tests.photographs import exif, hole, photo
from tests.profiles import P3

QUICK = ("--n", "1", "--steps", "1", "--method", "replacement")


def inpaint(run: Path, image: Path, out: Path, *options: str) -> Path:
    """Restores a photograph under its own name and format, and returns the file."""
    with Image.open(image) as opened:
        width, height = opened.size
    mask = out.parent / "mask.png"
    hole(height, width).save(mask)
    arguments = [
        "inpaint",
        str(run),
        str(image),
        "--mask",
        str(mask),
        *QUICK,
        "--as-input",
        "--out",
        str(out),
        *options,
    ]
    assert cli.main(arguments) == 0
    return out / image.name


def known(height: int, width: int) -> np.ndarray:
    return np.asarray(hole(height, width)) > 0


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_values_profile_exif_and_resolution_come_back(trained: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"dpi": (300, 300)}
    photo().save(path, exif=exif(Artist="A. Person"), icc_profile=P3, **options)
    with Image.open(inpaint(trained, path, tmp_path / "out")) as made:
        values, original = np.asarray(made), np.asarray(photo())
        seen = known(*original.shape[:2])
        assert np.array_equal(values[seen], original[seen]) and not np.array_equal(values[~seen], original[~seen])
        assert made.info["icc_profile"] == P3
        assert made.getexif()[ExifTags.Base.Artist] == "A. Person"
        if suffix != "webp":
            assert made.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_what_is_filled_is_in_the_colors_of_the_file(trained: Path, tmp_path: Path) -> None:
    """The same photograph in sRGB and with a wide profile shows the same colors, where it is filled as well."""
    wide = ImageCms.ImageCmsProfile(io.BytesIO(P3))
    srgb = ImageCms.createProfile("sRGB")
    plain = photo()
    converted = ImageCms.profileToProfile(plain, srgb, wide)
    plain.save(tmp_path / "plain.png")
    converted.save(tmp_path / "wide.png", icc_profile=P3)
    found = []
    for name in ("plain", "wide"):
        with Image.open(inpaint(trained, tmp_path / f"{name}.png", tmp_path / name)) as made:
            found.append(np.asarray(made if name == "plain" else ImageCms.profileToProfile(made, wide, srgb)))
    hidden = ~known(*found[0].shape[:2])
    # The known pixels differ by the rounding of two conversions, which the filling follows; one more rounds it.
    difference = np.abs(found[0].astype(int) - found[1])[hidden]
    assert np.median(difference) <= 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_gray_stays_gray_and_alpha_stays_the_file_s_own(trained: Path, tmp_path: Path, mode: str) -> None:
    image = photo().convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "x.png")
    with Image.open(inpaint(trained, tmp_path / "x.png", tmp_path / "out")) as made:
        assert made.mode == mode
        seen = known(*np.asarray(made).shape[:2])
        assert np.array_equal(np.asarray(made)[seen], np.asarray(image)[seen])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_known_values_of_16_bits_are_the_file_s_own(trained: Path, tmp_path: Path, suffix: str) -> None:
    values = (np.asarray(photo().convert("L")).astype(np.uint16) * 257 + np.arange(64, dtype=np.uint16)).clip(0, 65535)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    with Image.open(inpaint(trained, tmp_path / f"x.{suffix}", tmp_path / "out")) as made:
        found = np.asarray(made)
    assert found.dtype == np.uint16 and np.array_equal(found[known(*values.shape)], values[known(*values.shape)])


def test_an_orientation_is_applied_and_reset(trained: Path, tmp_path: Path) -> None:
    turned = photo()
    turned.save(tmp_path / "x.png", exif=exif(orientation=6))
    upright = turned.transpose(Image.Transpose.ROTATE_270)
    hole(*upright.size[::-1]).save(tmp_path / "mask.png")
    arguments = ["inpaint", str(trained), str(tmp_path / "x.png"), "--mask", str(tmp_path / "mask.png"), *QUICK]
    assert cli.main([*arguments, "--as-input", "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "x.png") as made:
        assert made.size == upright.size and made.getexif().get(ExifTags.Base.Orientation, 1) == 1
        seen = known(*np.asarray(upright).shape[:2])
        assert np.array_equal(np.asarray(made)[seen], np.asarray(upright)[seen])


@pytest.mark.parametrize("kind", [kind for kind in border.modes() if kind.range is None], ids=lambda kind: kind.name)
def test_the_values_of_every_mode_are_read_as_an_independent_reader_sees_them(
    tmp_path: Path, kind: border.Kind
) -> None:
    """Or it is said what they become."""
    path = tmp_path / kind.name
    path.write_bytes(kind.data)
    found = read_photograph(path)
    values = kind.values.reshape(*kind.values.shape[:2], -1)
    if found.notices:
        assert kind.name.split(".")[0] in ("1", "P", "CMYK", "YCbCr", "LAB") or "gif" in kind.name
    elif found.bands.values.shape == values.shape:
        assert np.array_equal(found.bands.values, values)
    else:
        assert found.bands.alpha and values.shape[2] in (1, 3), "a transparent color of a palette"
