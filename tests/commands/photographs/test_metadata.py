"""What stands beside the pixels of a file, read and written in every format that holds it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from diffusion.commands.photographs.metadata import Metadata, has_damaged_exif
from tests.photographs import HEIGHT, WIDTH, exif, photo
from tests.profiles import P3

XMP = b'<x:xmpmeta tiff:Orientation="6"><dc>title</dc></x:xmpmeta>'
KINDS = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "WEBP": "webp", "AVIF": "avif", "BMP": "bmp", "PPM": "ppm"}
FULL = Metadata(
    P3,
    exif().tobytes(),
    b"<x:xmpmeta/>",
    (300.0, 150.0),
    (("Title", "a"), ("Autor", "\u00fc")),
    b"hello",
    ((b"gAMA", (45455).to_bytes(4, "big")),),
)


def written(metadata: Metadata, kind: str, settings: str = "") -> Image.Image:
    buffer = BytesIO()
    photo().save(buffer, format=kind, **metadata.options(kind, settings))
    return Image.open(buffer)


def tags(data: bytes | None) -> dict[int, object]:
    found = Image.Exif()
    found.load(data or b"")
    groups = {group: dict(found.get_ifd(group)) for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)}
    layout = set(range(254, 340)) - {270, 271, 305, 315}
    return {**{tag: value for tag, value in found.items() if tag not in layout}, **groups}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again_or_named_as_lost(kind: str) -> None:
    found, lost = Metadata.of(written(FULL, kind)), FULL.lost_in(kind)
    assert ("profile" in lost) == (found.profile != FULL.profile)
    assert ("EXIF" in lost) == (found.exif is None)
    if found.exif:
        assert tags(found.exif) == tags(FULL.exif)
    assert ("XMP" in lost) == (found.xmp != FULL.xmp)
    assert ("resolution" in lost) == (found.dpi is None)
    if found.dpi:
        assert found.dpi == pytest.approx((300, 150), abs=0.1)
    assert ("texts" in lost) == (not set(FULL.texts) <= set(found.texts))
    assert ("gamma" in lost) == (found.colors != FULL.colors)
    assert ("comment" in lost) == (found.comment != b"hello" and ("Comment", "hello") not in found.texts)
    assert not Metadata().lost_in(kind)


def test_what_each_format_loses() -> None:
    assert not FULL.lost_in("PNG")
    assert FULL.lost_in("JPEG") == "texts, gamma and primaries"
    assert FULL.lost_in("PPM").startswith("color profile, EXIF data, XMP data, resolution")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientations_are_taken_away_and_turn_the_resolution(kind: str, orientation: int) -> None:
    buffer = BytesIO()
    options = {"exif": exif(orientation=orientation), "dpi": (300, 150)}
    photo().save(buffer, format=kind, **options)
    found = Metadata.of(image := Image.open(buffer))
    assert ExifTags.Base.Orientation not in tags(found.exif) and tags(found.exif)[ExifTags.Base.Make] == "Maker"
    assert tags(found.exif)[ExifTags.IFD.GPSInfo] == {1: "N"} or kind == "TIFF"
    if kind != "TIFF":  # Pillow turns these when it loads them.
        assert image.getexif()[ExifTags.Base.Orientation] == orientation, "the open image is left as it was"
    if kind != "WEBP":
        expected = (150, 300) if orientation == 6 else (300, 150)
        assert found.dpi == pytest.approx(expected, abs=0.1)


def test_an_orientation_in_xmp_is_taken_away() -> None:
    buffer = BytesIO()
    photo().save(buffer, format="JPEG", xmp=XMP)
    assert Metadata.of(Image.open(buffer)).xmp == b"<x:xmpmeta><dc>title</dc></x:xmpmeta>"


def test_the_thumbnail_of_exif_data_does_not_come_along() -> None:
    """It shows what was painted over."""
    small, data = BytesIO(), BytesIO()
    photo().resize((16, 12)).save(small, format="JPEG")
    whole = exif()
    whole._ifds[ExifTags.IFD.IFD1] = {513: 0, 514: len(small.getvalue())}
    photo().save(data, format="JPEG", exif=whole.tobytes() + small.getvalue())
    found = Metadata.of(Image.open(data))
    assert small.getvalue() not in (found.exif or b"") and tags(found.exif)[ExifTags.Base.Make] == "Maker"


def test_a_size_in_exif_data_becomes_that_of_the_results() -> None:
    inner = tags(FULL.sized(10, 20).exif)[ExifTags.IFD.Exif]
    assert isinstance(inner, dict)
    assert inner[ExifTags.Base.ExifImageWidth] == 10 and inner[ExifTags.Base.ExifImageHeight] == 20
    assert inner[ExifTags.Base.ExposureTime] == pytest.approx(0.01)
    assert FULL.sized(WIDTH, HEIGHT).exif is not None and Metadata().sized(3, 4) == Metadata()


def test_settings_are_a_text_of_a_png_in_place_of_older_ones() -> None:
    text = PngInfo()
    text.add_text("diffusion", "old")
    text.add_text("Title", "mine")
    buffer = BytesIO()
    photo().save(buffer, format="PNG", pnginfo=text)
    found = Metadata.of(Image.open(buffer))
    assert found.texts == (("Title", "mine"),)
    assert written(found, "PNG", '{"seed": 1}').info["diffusion"] == '{"seed": 1}'


def test_damaged_exif_data_count_as_none(tmp_path: Path) -> None:
    photo().save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    photo().save(tmp_path / "turned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
    assert Metadata.of(damaged := Image.open(tmp_path / "x.jpg")).exif is None and has_damaged_exif(damaged)
    # Nothing is left of EXIF data that state an orientation alone.
    assert Metadata.of(turned := Image.open(tmp_path / "turned.jpg")).exif is None and not has_damaged_exif(turned)


def test_a_tiff_of_large_files_has_exif_data_that_other_formats_take() -> None:
    buffer = BytesIO()
    photo().save(buffer, format="TIFF", big_tiff=True, exif=exif(Artist="Me"))
    found = Metadata.of(Image.open(buffer)).sized(3, 4)
    assert tags(found.exif)[ExifTags.Base.Artist] == "Me"
    assert written(found, "PNG").getexif()[ExifTags.Base.Artist] == "Me"


def test_what_a_file_does_not_state_is_not_made_up() -> None:
    plain = exif()
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        plain._ifds.pop(group)
    buffer = BytesIO()
    photo().save(buffer, format="TIFF", exif=plain)
    found = Metadata.of(Image.open(buffer))
    read = Image.Exif()
    read.load(found.exif or b"")
    assert dict(read) == {ExifTags.Base.Make: "Maker"} and found.dpi is None


def test_what_is_too_long_for_a_jpeg_is_lost_in_it() -> None:
    long = Metadata(xmp=b"x" * 70_000, comment=b"c")
    assert long.lost_in("JPEG") == "XMP data" and not long.lost_in("PNG")
    assert Metadata.of(written(long, "JPEG")).comment == b"c"


def test_gamma_and_primaries_of_a_png_come_along() -> None:
    chunks = PngInfo()
    primaries = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    chunks.add(b"gAMA", (100_000).to_bytes(4, "big"))
    chunks.add(b"cHRM", b"".join(round(1e5 * value).to_bytes(4, "big") for value in primaries))
    buffer = BytesIO()
    photo().save(buffer, format="PNG", pnginfo=chunks)
    image = written(Metadata.of(Image.open(buffer)), "PNG")
    assert image.info["gamma"] == 1 and image.info["chromaticity"] == pytest.approx(primaries)
    assert Metadata.of(image).in_srgb().colors == ()
