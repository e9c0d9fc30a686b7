"""Values come back from every format as they were written, and photographs are compressed as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from diffusion.commands.photographs.metadata import Metadata
from diffusion.commands.photographs.photograph import read_photograph
from diffusion.commands.photographs.writing import PNG, Encoding, write_image
from diffusion.errors import InputError
from tests.photographs import exif, photo
from tests.profiles import P3


def values(dtype: str, bands: int) -> np.ndarray:
    random = np.random.default_rng(bands).random((6, 8, bands))
    if dtype.startswith("f"):
        return (random * 3 - 1).astype(dtype)
    return (random * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize(
    ("kind", "dtype", "bands", "alpha"),
    [
        *[("PNG", dtype, bands, bands in (2, 4)) for dtype in ("u1", "u2") for bands in (1, 2, 3, 4)],
        *[("TIFF", dtype, bands, bands in (2, 4)) for dtype in ("u1", "u2", "f4") for bands in (1, 2, 3, 4)],
        *[("TIFF", "i2", bands, False) for bands in (1, 5)],
        ("TIFF", "u2", 6, True),
        ("TIFF", "u1", 7, False),
        ("TIFF", "u1", 2, False),
        *[("PPM", "u2", bands, False) for bands in (1, 3)],
        ("PPM", "f4", 1, False),
        *[(kind, "u1", bands, False) for kind in ("BMP", "PPM") for bands in (1, 3)],
    ],
)
def test_values_come_back_to_the_last_bit(tmp_path: Path, kind: str, dtype: str, bands: int, alpha: bool) -> None:
    written = values(dtype, bands)
    path = tmp_path / f"x.{kind.lower().replace('tiff', 'tif')}"
    metadata = Metadata(dpi=(300.0, 150.0), exif=exif(Artist="Me").tobytes())
    write_image(written, path, Encoding(kind), metadata, alpha=alpha, info={"seed": 1})
    read = read_photograph(path).bands
    assert read.alpha == alpha and read.values.dtype == dtype
    assert np.array_equal(read.values, written)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_colors_of_16_bits_have_their_metadata(tmp_path: Path, kind: str) -> None:
    given = Metadata(P3, exif(Artist="Me").tobytes(), b"<x/>", (300.0, 150.0))
    path = tmp_path / ("x.png" if kind == "PNG" else "x.tif")
    write_image(values("u2", 3), path, Encoding(kind), given, info={"seed": 1})
    with Image.open(path) as image:
        found = Metadata.of(image)
        assert kind != "PNG" or image.info["diffusion"] == '{"seed": 1}'
    assert found.profile == given.profile and found.xmp == given.xmp
    assert found.dpi == pytest.approx(given.dpi, abs=0.1)
    made = Image.Exif()
    made.load(found.exif or b"")
    assert made[315] == "Me" and made[271] == "Maker"


@pytest.mark.parametrize("quality", [60, 92])
@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_a_jpeg_is_compressed_as_it_was(tmp_path: Path, quality: int, sampling: int) -> None:
    path = tmp_path / "x.jpg"
    photo().save(path, quality=quality, subsampling=sampling, progressive=sampling == 1)
    with Image.open(path) as image:
        encoding = Encoding.of(image, path)
        pixels, tables = np.asarray(image), image.quantization
    assert encoding is not None
    write_image(pixels, tmp_path / "again.jpg", encoding, Metadata())
    with Image.open(tmp_path / "again.jpg") as again:
        assert again.quantization == tables and JpegImagePlugin.get_sampling(again) == sampling
        assert bool(again.info.get("progressive")) == (sampling == 1)
        assert np.abs(np.asarray(again).astype(int) - pixels).mean() < 1.5
    gray = tmp_path / "gray.jpg"
    write_image(pixels[:, :, :1], gray, encoding, Metadata())
    with Image.open(gray) as image:
        assert image.mode == "L" and image.quantization[0] == tables[0]


def test_what_was_lossless_stays_so(tmp_path: Path) -> None:
    rgba = np.dstack([np.asarray(photo()), np.asarray(photo())[:, :, 0] // 128 * 255])
    for name, options in {"a.webp": {"lossless": True}, "b.tif": {"compression": "tiff_lzw"}, "c.png": {}}.items():
        path = tmp_path / name
        Image.fromarray(rgba).save(path, **options)
        with Image.open(path) as image:
            encoding = Encoding.of(image, path)
        assert encoding is not None
        write_image(rgba, tmp_path / f"again-{name}", encoding, Metadata(), alpha=True)
        with Image.open(tmp_path / f"again-{name}") as again:
            assert np.array_equal(np.asarray(again), rgba)
            assert again.info.get("compression") == options.get("compression")
    photo().save(tmp_path / "d.webp", quality=80)
    with Image.open(tmp_path / "d.webp") as image:
        assert Encoding.of(image, tmp_path / "d.webp") == Encoding("WEBP", {"quality": 95})


def test_formats_that_do_not_take_an_image_say_so(tmp_path: Path) -> None:
    eight, deep = np.dtype(np.uint8), np.dtype(np.uint16)
    assert Encoding("JPEG").refuses(eight, 4, alpha=True) == "JPEG has no transparency"
    assert Encoding("WEBP").refuses(deep, 3, alpha=False) == "WEBP has 8 bits, not uint16"
    assert PNG.refuses(eight, 5, alpha=False) == "PNG does not hold 5 bands of uint8"
    assert PNG.refuses(np.dtype(np.float32), 1, alpha=False) == "PNG does not hold 1 bands of float32"
    assert not PNG.refuses(deep, 4, alpha=True) and not Encoding("WEBP").refuses(eight, 4, alpha=True)
    with pytest.raises(InputError, match=r"x\.jpg: JPEG has no transparency"):
        write_image(values("u1", 4), tmp_path / "x.jpg", Encoding("JPEG"), Metadata(), alpha=True)
    assert not list(tmp_path.iterdir())


def test_the_suffix_of_a_path_asks_for_a_format(tmp_path: Path) -> None:
    asked = {name: Encoding.by_suffix(Path(name)) for name in ("a.PNG", "a.jpeg", "a.tiff", "a.gif", "a.v2", "a")}
    kinds = {name: encoding and encoding.kind for name, encoding in asked.items()}
    assert kinds == {"a.PNG": "PNG", "a.jpeg": "JPEG", "a.tiff": "TIFF", "a.gif": None, "a.v2": None, "a": None}
    photo().quantize(8).save(tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as image:
        assert Encoding.of(image, tmp_path / "x.gif") is None
