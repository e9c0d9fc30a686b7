"""Images of every mode, depth, number of bands, profile and orientation that Pillow and tifffile write, as files.

Each kind comes with how a reader independent of this package sees it: the upright values of the file itself, against
which results are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageCms, ImageOps, features

from tests.profiles import P3

Array: TypeAlias = npt.NDArray[Any]
HEIGHT, WIDTH = 24, 32
ORIENTATION, TURNS = 0x0112, range(1, 9)


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name with suffix, the bytes of one, and the `values` that it holds, (H, W) or (H, W, C).

    `lossy` says that its values are those that its decoder gives. `range` is the one to declare for it, if any.
    """

    name: str
    data: bytes
    values: Array
    lossy: bool = False
    range: tuple[float, float] | None = None

    @property
    def bands(self) -> int:
        """The number of bands."""
        return 1 if self.values.ndim == 2 else self.values.shape[2]


def picture(bands: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Returns slopes, waves and a disk in [0.1, 0.9], other ones in each band: (HEIGHT, WIDTH, bands)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    layers = []
    for _ in range(bands):
        a, b, c, d = rng.uniform(0.2, 1, 4)
        disk = (y - a) ** 2 + (x - 1.3 * b) ** 2 < 0.06
        layers.append(0.5 + 0.2 * np.sin(6 * c * x + 5 * d * y) + 0.15 * disk - 0.1 * y)
    return np.stack(layers, 2)


def scaled(bands: int, top: float, dtype: npt.DTypeLike, seed: int = 0) -> Array:
    """Returns the picture with values from 0 to `top`; one band is (H, W)."""
    values = picture(bands, seed) * top
    whole = values.round() if np.issubdtype(dtype, np.integer) else values
    return whole.astype(dtype).squeeze()


def saved(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: ANN401, options of Pillow
    """Returns the bytes of an image file."""
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def read(data: bytes) -> Array:
    """Returns the upright values of a file, as Pillow decodes them; palettes by their colors."""
    with Image.open(BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
        return np.asarray(upright)


def modes() -> Iterator[Kind]:
    """Yields every mode of Pillow in every format that takes it."""
    eight = {
        "L": scaled(1, 255, "u1"),
        "LA": scaled(2, 255, "u1"),
        "RGB": scaled(3, 255, "u1"),
        "RGBA": scaled(4, 255, "u1"),
    }
    images = {mode: Image.fromarray(values) for mode, values in eight.items()}
    images["1"] = images["L"].point(lambda v: 255 * (v > 127)).convert("1")
    images["P"] = images["RGB"].quantize(64)
    images["CMYK"] = Image.fromarray(scaled(4, 255, "u1"), "CMYK")
    images["YCbCr"] = images["RGB"].convert("YCbCr")
    images["LAB"] = ImageCms.applyTransform(images["RGB"], _to_lab())
    images["I;16"] = Image.fromarray(scaled(1, 65535, "u2"))
    images["I"] = Image.fromarray(scaled(1, 65535, "i4"))
    images["F"] = Image.fromarray(scaled(1, 1, "f4"))
    formats: dict[str, tuple[str, dict[str, Any]]] = {
        "png": ("PNG", {}),
        "tif": ("TIFF", {}),
        "bmp": ("BMP", {}),
        "webp": ("WEBP", {"lossless": True, "exact": True}),
        "jpg": ("JPEG", {"quality": 95}),
        "ppm": ("PPM", {}),
        "gif": ("GIF", {}),
        **({"avif": ("AVIF", {"quality": 95})} if features.check("avif") else {}),
    }
    for mode, image in images.items():
        for suffix, (format, options) in formats.items():
            try:
                data = saved(image, format, **options)
                values = read(data)
            except (OSError, ValueError, KeyError):
                continue  # The format has no such mode.
            deep = values.dtype.itemsize > 1  # Else the format has brought the image to 8 bits.
            span = {"I;16": (0, 65535), "I": (0, 65535), "F": (0.0, 1.0)}.get(mode) if deep else None
            yield Kind(f"{mode.replace(';', '')}.{suffix}", data, values, suffix in ("jpg", "avif"), span)


def _to_lab() -> ImageCms.ImageCmsTransform:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(srgb, lab, "RGB", "LAB")


def bands() -> Iterator[Kind]:
    """Yields TIFF of 1 to 6 bands, of whole numbers with and without sign and of floats, and of pages."""
    for dtype, top, span in (
        ("u1", 255, None),
        ("u2", 4095, (0, 4095)),
        ("i2", 3000, (0, 3000)),
        ("u4", 100_000, (0, 100_000)),
        ("f4", 2.5, (0.0, 2.5)),
        ("f8", 2.5, (0.0, 2.5)),
    ):
        for count in (1, 2, 3, 4, 5, 6):
            values = scaled(count, top, dtype)
            file = BytesIO()
            color = "rgb" if count in (3, 4) else "minisblack"
            extra = (
                {"extrasamples": ["unspecified"] * (count - (3 if color == "rgb" else 1))}
                if count not in (1, 3)
                else {}
            )
            tifffile.imwrite(file, values, photometric=color, planarconfig="contig" if count > 1 else None, **extra)
            yield Kind(f"{dtype}x{count}.tif", file.getvalue(), values, range=span)
        array = BytesIO()
        np.save(array, scaled(3, top, dtype))
        yield Kind(f"{dtype}x3.npy", array.getvalue(), scaled(3, top, dtype), range=span)


def turned() -> Iterator[Kind]:
    """Yields photographs that EXIF turns in each of the eight ways, in each format that has EXIF."""
    image = Image.fromarray(scaled(3, 255, "u1"))
    for turn in TURNS:
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        for suffix, format in (("jpg", "JPEG"), ("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP")):
            options = {"lossless": True} if format == "WEBP" else {}
            data = saved(image, format, exif=exif.tobytes(), **options)
            yield Kind(f"turned{turn}.{suffix}", data, read(data), suffix == "jpg")


def profiled() -> Iterator[Kind]:
    """Yields images with color profiles: sRGB, a wide one, a gray one, one of CMYK colors in name only, and damage."""
    color, gray = Image.fromarray(scaled(3, 255, "u1")), Image.fromarray(scaled(1, 255, "u1"))
    alpha = Image.fromarray(scaled(4, 255, "u1"))
    for name, profile in profiles().items():
        for suffix, format in (("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF"), ("webp", "WEBP")):
            for kind, image in (("rgb", color), ("rgba", alpha), ("l", gray)):
                if (kind == "rgba" and format == "JPEG") or (kind == "l" and format == "WEBP"):
                    continue
                options = {"lossless": True, "exact": True} if format == "WEBP" else {}
                data = saved(image, format, icc_profile=profile, **options)
                yield Kind(f"{name}-{kind}.{suffix}", data, read(data), suffix == "jpg")


def profiles() -> dict[str, bytes]:
    """Returns color profiles by name: sRGB, that of a screen of P3 primaries, and one that is damaged."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {"srgb": srgb, "p3": P3, "torn": srgb[:200]}


KINDS: dict[str, Callable[[], Iterator[Kind]]] = {
    "modes": modes,
    "bands": bands,
    "orientations": turned,
    "profiles": profiled,
}


def write(kinds: Iterator[Kind], folder: Path) -> dict[Path, Kind]:
    """Writes one file of each kind into a folder, and returns the kinds by their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / kind.name: kind for kind in kinds}
    for path, kind in files.items():
        path.write_bytes(kind.data)
    return files
