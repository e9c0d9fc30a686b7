"""Image files that are not read: how they are told from other files, and what a person can do about them."""

from __future__ import annotations

from collections.abc import Mapping

from diffusion.data.images.formats import CONVERT, SUFFIXES, UNREAD, signature

# The heading of images whose names have no suffix.
NAMELESS = "without suffix"
# Suffixes of files that lie among images and are none, whose bytes need not be looked at.
TEXTS = frozenset(
    {
        *(".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".md", ".rst", ".html", ".htm", ".py", ".ipynb", ".toml"),
        *(".yaml", ".yml", ".ini", ".log", ".cls", ".xmp", ".aae", ".mat", ".pt", ".pth", ".h5", ".hdf5", ".pkl"),
        *(".npz", ".parquet", ".tar", ".gz", ".tgz", ".zip", ".7z", ".rar", ".safetensors", ".sh", ".js", ".css"),
    }
)
VIDEOS = frozenset(
    {
        *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv", ".flv"),
        *(".ogv", ".mxf", ".insv", ".y4m"),
    }
)
ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".rar", ".7z", ".gz", ".bz2", ".xz", ".zst"})
# The suffix under which the kinds that `signature` names are counted and advised on.
_KINDS = {
    "a PNG": ".png",
    "a JPEG": ".jpg",
    "a TIFF": ".tif",
    "a BigTIFF": ".tif",
    "a GIF": ".gif",
    "a WebP": ".webp",
    "an AVIF file": ".avif",
    "a HEIF file": ".heic",
    "a Photoshop file": ".psd",
    "a JPEG XL": ".jxl",
    "a JPEG 2000": ".jp2",
    "an OpenEXR file": ".exr",
    "a Radiance file": ".hdr",
    "a FITS file": ".fits",
    "a DDS texture": ".dds",
    "a raw photograph": ".raw",
    "a DICOM file": ".dcm",
}


def content_suffix(head: bytes) -> str | None:
    """Returns the suffix that suits the first HEAD bytes of a file, if they are those of an image; else None."""
    return _KINDS.get(signature(head) or "")


def unread_content(head: bytes) -> str | None:
    """Returns the suffix of a format that is not read, whose first bytes these are; None for any other."""
    suffix = content_suffix(head)
    return suffix if suffix is not None and suffix not in SUFFIXES else None


def advice(suffix: str) -> str:
    """Returns what to do about image files of a suffix that are not read."""
    found = UNREAD.get(suffix)
    if found is not None:
        return found
    return CONVERT if suffix in _KINDS.values() else "their first bytes are those of images: give them a usual suffix"


def advice_on(counts: Mapping[str, int]) -> list[tuple[str, list[str]]]:
    """Returns each advice with the suffixes that it is for, those of most files first."""
    found: dict[str, list[str]] = {}
    for suffix in sorted(counts, key=lambda each: -counts[each]):
        found.setdefault(advice(suffix), []).append(suffix)
    return list(found.items())
