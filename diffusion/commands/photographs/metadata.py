"""What an image file holds beside its pixels: color profile, EXIF, XMP, resolution, texts."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, fields, replace
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

# Tags of a TIFF that say how its pixels are stored, or that are carried over in other ways.
LAYOUT = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 288, 289, 296, 317, 320, 322, 323),
    *(324, 325, 330, 338, 339, 340, 341, 347, 512, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675),
}
WIDTH, HEIGHT = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight
# The most bytes of one piece of metadata in a JPEG.
SEGMENT = 65_000
# Text chunks of a PNG that hold something else.
NO_TEXTS = ("XML:com.adobe.xmp", "Raw profile type", "diffusion", "exif", "xmp")
# What each format holds, of the fields of `Metadata`.
HOLDS: dict[str, set[str]] = {
    "PNG": {"profile", "exif", "xmp", "dpi", "texts", "comment", "colors"},
    "JPEG": {"profile", "exif", "xmp", "dpi", "comment"},
    "TIFF": {"profile", "exif", "xmp", "dpi"},
    "WEBP": {"profile", "exif", "xmp"},
    "AVIF": {"profile", "exif", "xmp"},
    "BMP": {"dpi"},
    "PPM": set(),
}
NAMES = {
    "profile": "color profile",
    "exif": "EXIF data",
    "xmp": "XMP data",
    "dpi": "resolution",
    "texts": "texts",
    "comment": "comment",
    "colors": "gamma and primaries",
}


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image that lies upright: orientations are taken away, and so is the thumbnail of EXIF data,
    which shows the image as it was. `colors` are the chunks of a PNG about gamma and primaries.
    """

    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    comment: bytes | None = None
    colors: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, image: Image.Image) -> Metadata:
        """Reads the metadata of an open image, whose pixels are decoded for it."""
        # A TIFF is closed once it is decoded, and a PNG may have texts and EXIF data behind its pixels.
        early = _exif(image) if image.format == "TIFF" else None
        image.load()
        info = image.info
        exif, orientation = early or _exif(image)
        dpi = _resolution(info.get("dpi"))
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
        comment = info.get("comment")
        texts = getattr(image, "text", {}) if image.format == "PNG" else {}
        return cls(
            info.get("icc_profile") or None,
            exif,
            _upright(xmp.encode() if isinstance(xmp, str) else xmp) if xmp else None,
            dpi[::-1] if dpi and orientation >= 5 else dpi,
            tuple((str(k), str(v)) for k, v in texts.items() if not str(k).startswith(NO_TEXTS)),
            comment.encode() if isinstance(comment, str) else comment or None,
            _colors(info) if image.format == "PNG" else (),
        )

    def sized(self, width: int, height: int) -> Metadata:
        """These metadata for an image of another size: EXIF data may state it."""
        if self.exif is None:
            return self
        exif = Image.Exif()
        exif.load(self.exif)
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        stated: dict[int, Any] = {tag: side for tag, side in ((WIDTH, width), (HEIGHT, height)) if tag in inner}
        inner.update(stated)
        return replace(self, exif=exif.tobytes()) if stated else self

    def in_srgb(self) -> Metadata:
        """These metadata for an image that was converted to sRGB."""
        return replace(self, profile=None, colors=())

    def lost_in(self, kind: str) -> str:
        """Names what a format, as Pillow calls it, cannot hold of these; empty if it holds all."""
        held = self._held(kind)
        lost = [NAMES[each.name] for each in fields(self) if getattr(self, each.name) and each.name not in held]
        return ", ".join(lost)

    def _held(self, kind: str) -> set[str]:
        """The fields that a format holds: in a JPEG, those that fit into a segment."""
        large = {name for name in ("exif", "xmp", "comment") if len(getattr(self, name) or b"") > SEGMENT}
        return HOLDS[kind] - large if kind == "JPEG" else HOLDS[kind]

    def options(self, kind: str, settings: str = "") -> dict[str, Any]:
        """The arguments of Pillow's `save` that write these in a format. `settings` become a text of a PNG."""
        held = self._held(kind)
        given = {"icc_profile": self.profile, "exif": self.exif, "dpi": self.dpi, "comment": self.comment}
        own = {"profile": "icc_profile"}
        wanted = {own.get(name, name) for name in held} & given.keys()
        options: dict[str, Any] = {name: given[name] for name in wanted if given[name] is not None}
        if kind == "PNG":
            options.pop("comment", None)
            options["pnginfo"] = self._chunks(settings)
        elif self.xmp and "xmp" in held and kind != "TIFF":
            options["xmp"] = self.xmp
        elif self.xmp and kind == "TIFF":
            exif = Image.Exif()
            exif.load(self.exif or b"")
            exif[700] = self.xmp
            options["exif"] = exif
        return options

    def _chunks(self, settings: str) -> PngInfo:
        chunks = PngInfo()
        for name, data in self.colors:
            chunks.add(name, data)
        for key, value in self.texts:
            if value.isascii():
                chunks.add_text(key, value)
            else:
                chunks.add_itxt(key, value)
        if self.comment:
            chunks.add_itxt("Comment", self.comment.decode("utf-8", "replace"))
        if self.xmp:
            chunks.add_itxt("XML:com.adobe.xmp", self.xmp.decode("utf-8", "replace"))
        if settings:
            chunks.add_text("diffusion", settings)
        return chunks


def _exif(image: Image.Image) -> tuple[bytes | None, int]:
    """The EXIF data of an upright image, and the orientation that they had. Damaged data count as none."""
    try:
        exif = _tags(image)
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if group in exif:  # Otherwise it would be there, and empty.
                exif.get_ifd(group)
        turned = [tag for tag in exif if tag == ExifTags.Base.Orientation]
        for tag in [*turned, *(tag for tag in exif if _of_layout(image, tag))]:
            del exif[tag]
        exif.bigtiff = False  # Only a TIFF may have the tags of large files.
        written = exif.tobytes() if len(exif) else None
        Image.Exif().load(written or b"")  # What cannot be read again is damaged.
        if turned:  # The pixels of the open image are not turned yet.
            exif[turned[0]] = orientation
    except Exception:  # Readers of EXIF data raise errors of almost every type.
        return None, 1
    return written, orientation


def _tags(image: Image.Image) -> Image.Exif:
    with warnings.catch_warnings():  # What is damaged is said in words of this package.
        warnings.simplefilter("ignore")
        return image.getexif()


def has_damaged_exif(image: Image.Image) -> bool:
    """Whether an open image has EXIF data in which nothing can be read."""
    try:
        return bool(image.info.get("exif")) and not len(_tags(image))
    except Exception:  # As above.
        return True


def _of_layout(image: Image.Image, tag: int) -> bool:
    return image.format in ("TIFF", "MPO") and tag in LAYOUT


def _resolution(dpi: Any) -> tuple[float, float] | None:  # noqa: ANN401, whatever a file states
    try:
        across, down = (float(each) for each in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # Pillow states one dot per inch of a TIFF that states nothing.
    return (across, down) if min(across, down) > 0 and max(across, down) > 1 else None


def _upright(xmp: bytes) -> bytes:
    for pattern in (rb'\s*tiff:Orientation="[0-9]"', rb"<tiff:Orientation>[0-9]</tiff:Orientation>"):
        xmp = re.sub(pattern, b"", xmp)
    return xmp


def _colors(info: dict[Any, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """The chunks of a PNG that say what its colors are, without a profile."""
    chunks = []
    if "gamma" in info:
        chunks.append((b"gAMA", _whole(info["gamma"])))
    if "chromaticity" in info:
        chunks.append((b"cHRM", b"".join(map(_whole, info["chromaticity"]))))
    if "srgb" in info and not info.get("icc_profile"):
        chunks.append((b"sRGB", bytes([info["srgb"]])))
    return tuple(chunks)


def _whole(value: float) -> bytes:
    return round(value * 100_000).to_bytes(4, "big")
