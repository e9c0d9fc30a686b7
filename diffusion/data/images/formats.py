"""The formats of image files that are read, those that are known but not read, and the libraries that read them."""

from __future__ import annotations

import importlib
import importlib.metadata
from functools import lru_cache
from types import ModuleType
from typing import BinaryIO

import PIL
from PIL import Image, features

# What to type where a format needs a library that is not installed.
INSTALL = "pip install 'reverse-diffusion[formats]'"
CONVERT = "convert them to PNG or TIFF"

# The list is closed because Pillow can also open formats that start other programs.
_PILLOW = {
    "PNG": {".png"},
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "WEBP": {".webp"},
    "BMP": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "AVIF": {".avif"},
    "HEIF": {".heic", ".heif", ".hif", ".heics", ".heifs"},
}
_DICOM = {".dcm", ".dicom"}


@lru_cache
def library(name: str) -> ModuleType | None:
    """Imports an optional library that reads files, at its first use; returns None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def needed(name: str, purpose: str) -> ModuleType:
    """Imports an optional library.

    Raises ValueError that says how to install it, and the purpose that it is needed for.
    """
    found = library(name)
    if found is None:
        raise ValueError(f"{purpose} needs {name}, which is not installed: {INSTALL}")
    return found


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


_VERSIONS = {name: _version(name) for name in ("tifffile", "imagecodecs", "pydicom", "pillow-heif")}

# The libraries that read files, with their versions: another version may give other pixels.
READERS = (f"pillow {PIL.__version__}", *(f"{name} {version}" for name, version in _VERSIONS.items() if version))


def _registered() -> bool:
    """Whether Pillow opens HEIF files, after the plug-in was registered if it is installed."""
    if _VERSIONS["pillow-heif"] is None or (plugin := library("pillow_heif")) is None:
        return False
    plugin.register_heif_opener()
    return "HEIF" in Image.OPEN


_READ = {"AVIF": features.check("avif"), "HEIF": _registered()}

# The formats that Pillow is asked to open, and the names of all formats that are read.
PILLOW_FORMATS = tuple(name for name in _PILLOW if _READ.get(name, True))
FORMATS = (*PILLOW_FORMATS, "NPY", *(["DICOM"] if _VERSIONS["pydicom"] else []))
SUFFIXES = (
    frozenset().union(*(_PILLOW[name] for name in PILLOW_FORMATS))
    | {".npy"}
    | (_DICOM if "DICOM" in FORMATS else set())
)

# Arrays beside pictures of the same name hold something else of these, such as features, and are no images themselves.
ARRAYS = frozenset({".npy"})
PICTURES = SUFFIXES - ARRAYS

# What to do about image files that are not read, by their suffix in lower case.
UNREAD: dict[str, str] = {
    **{suffix: INSTALL for suffix in _PILLOW["HEIF"] | _PILLOW["AVIF"] | _DICOM if suffix not in SUFFIXES},
    **dict.fromkeys(
        (".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".jxr", ".wdp", ".tga", ".icb", ".pcx", ".sgi", ".ico", ".icns"),
        CONVERT,
    ),
    **dict.fromkeys((".psd", ".psb", ".xcf", ".kra", ".svg", ".svgz", ".eps", ".pdf", ".ai", ".dds"), CONVERT),
    **dict.fromkeys((".exr", ".hdr", ".pfm", ".fits", ".fit", ".fts", ".nii", ".mha", ".mhd", ".nrrd"), CONVERT),
    **dict.fromkeys((".czi", ".nd2", ".lif", ".oib", ".oif", ".vsi", ".svs", ".ndpi", ".mrxs", ".npz"), CONVERT),
    **dict.fromkeys(
        (
            *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef"),
            *(".raw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".rwl", ".srw", ".gpr"),
        ),
        "develop them to TIFF or JPEG with a raw converter",
    ),
}

# The first bytes of formats, for the reason why a file of such a format is not read.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "a PNG",
    b"\xff\xd8\xff": "a JPEG",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"II+\0": "a BigTIFF",
    b"MM\0+": "a BigTIFF",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"\x93NUMPY": "a NumPy array",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"v/1\x01": "an OpenEXR file",
    b"#?RADIANCE": "a Radiance file",
    b"%PDF": "a PDF",
    b"SIMPLE  =": "a FITS file",
    b"DDS ": "a DDS texture",
    b"IIRO": "a raw photograph",
    b"FUJIFILMCCD-RAW": "a raw photograph",
    b"\x89HDF": "an HDF5 file",
}
# The kinds of compression that the marker of a JPEG frame names (ITU-T T.81, table B.1), but those that are read.
_FRAMES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "lossless", 0xC9: "arithmetic coding"}
_BRANDS = {b"heic": "HEIF", b"heix": "HEIF", b"hevc": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}
# The number of first bytes in which `signature` looks.
HEAD = 132


def signature(head: bytes) -> str | None:
    """Returns the kind of a file with an article, "a TIFF", from its first HEAD bytes; None for an unknown one."""
    for start, name in _SIGNATURES.items():
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP"
    if head[4:8] == b"ftyp":
        brand = _BRANDS.get(head[8:12])
        return f"an {brand} file" if brand == "AVIF" else "a HEIF file" if brand else "a file of the ISO media family"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3].isspace():
        return "a Netpbm file"
    return None


def jpeg_kind(file: BinaryIO) -> str:
    """Returns what is uncommon in a JPEG, such as "12 bits, lossless"; empty for a usual or a damaged one."""
    file.seek(2)
    while len(start := file.read(4)) == 4 and start[0] == 0xFF:
        if 0xC0 <= start[1] <= 0xCF and start[1] not in (0xC4, 0xC8, 0xCC):
            bits = file.read(1)[0]
            return ", ".join(filter(None, ("" if bits == 8 else f"{bits} bits", _FRAMES.get(start[1], ""))))
        file.seek(int.from_bytes(start[2:], "big") - 2, 1)
    return ""
