"""Every kind of file that people have in their folders: good ones must be read correctly, bad ones must be named."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")

# The reason that a problem must state, by file name.
BAD = {
    "bomb.png": "at most 64 million",
    "empty.jpg": "empty",
    "float.tif": "floating-point",
    "large.png": "9000x9000 pixels; at most 64 million",
    "link_to_nothing.png": "broken link",
    "page.jpg": "not an image",
    "truncated.jpg": "truncated",
    "truncated.png": "truncated",
    "wide.tif": "16 bits",
}
FOUND_BY_DECODING = {"float.tif", "truncated.jpg", "truncated.png", "wide.tif"}
GOOD = (
    "UPPER.JPG",
    "animated.gif",
    "bits.png",
    NOT_UTF8,
    "cmyk.jpg",
    "gray_alpha.png",
    "pages.tif",
    "palette.png",
    "png_named.jpg",
    "ramp16.PNG",
    "ramp16.pgm",
    "ramp16.tif",
    "rgba.png",
    "rotated.jpg",
)


def build(folder: Path) -> Path:
    """Write every good and bad file to a folder, and files that must be ignored."""
    folder.mkdir(parents=True, exist_ok=True)
    write_good(folder)
    write_bad(folder)
    (folder / "._rgba.png").write_bytes(b"\0\5\x16\7 resource fork")
    (folder / ".hidden.png").write_bytes((folder / "rgba.png").read_bytes())
    (folder / "notes.txt").write_text("not an image")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    return folder


def write_good(folder: Path) -> None:
    solid(RED).save(folder / "UPPER.JPG", quality=95)
    solid(RED).save(folder / "animated.gif", save_all=True, append_images=[solid(GREEN), solid(BLUE)])
    Image.fromarray(np.eye(8, dtype=bool)).save(folder / "bits.png")
    solid(BLUE).save(folder / NOT_UTF8)
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(folder / "cmyk.jpg", quality=95)
    Image.new("LA", (8, 8), (0, 128)).save(folder / "gray_alpha.png")
    solid(GREEN).save(folder / "pages.tif", save_all=True, append_images=[solid(BLUE)])
    write_palette(folder / "palette.png")
    solid(GREEN).save(folder / "png_named.jpg", format="PNG")
    write_ramps(folder)
    Image.new("RGBA", (8, 8), (255, 0, 0, 128)).save(folder / "rgba.png")
    write_rotated(folder / "rotated.jpg", orientation=6)


def write_bad(folder: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for suffix in ("jpg", "png"):
        photo.save(folder / f"truncated.{suffix}")
        data = (folder / f"truncated.{suffix}").read_bytes()
        (folder / f"truncated.{suffix}").write_bytes(data[: len(data) // 2])
    write_blank_png(folder / "bomb.png", 20_000)
    write_blank_png(folder / "large.png", 9_000)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (folder / "link_to_nothing.png").symlink_to(folder / "gone.png")
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(folder / "float.tif")
    Image.fromarray(np.full((8, 8), 1 << 20, np.int32)).save(folder / "wide.tif")


def write_palette(path: Path) -> None:
    """Write an image whose left half is opaque green and whose right half is transparent, with a hidden red."""
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*GREEN, *RED])
    image.paste(1, (4, 0, 8, 8))
    image.save(path, transparency=1)


def write_ramps(folder: Path) -> None:
    """Write 16-bit gray ramps from 0 to 65535, left to right."""
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))
    Image.fromarray(ramp).save(folder / "ramp16.PNG")
    (folder / "ramp16.pgm").write_bytes(b"P5 256 4 65535\n" + ramp.astype(">u2").tobytes())
    Image.frombytes("I;16B", (256, 4), ramp.astype(">u2").tobytes()).save(folder / "ramp16.tif")


def write_rotated(path: Path, orientation: int) -> None:
    """Write a blue image with a red top left corner, stored 48 wide and 32 high, with an EXIF orientation."""
    image = Image.new("RGB", (48, 32), BLUE)
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def write_blank_png(path: Path, side: int) -> None:
    """Write a tiny file of side x side 1-bit pixels, without all pixels in memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor, row = zlib.compressobj(1), bytes(1 + -(-side // 8))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = b"".join(compressor.compress(row * 100) for _ in range(side // 100)) + compressor.flush()
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def solid(color: tuple[int, int, int], size: tuple[int, int] = (16, 16)) -> Image.Image:
    """Return an image of one color; the size is (width, height)."""
    return Image.new("RGB", size, color)


def solids(folder: Path) -> Path:
    """Make a folder of a red, a green and a blue image, and return it."""
    folder.mkdir()
    for i, color in enumerate((RED, GREEN, BLUE)):
        solid(color).save(folder / f"{i}.png")
    return folder
