from __future__ import annotations

import importlib.metadata
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images import formats


def test_a_suffix_is_read_or_has_advice_but_not_both() -> None:
    assert not formats.SUFFIXES & set(formats.UNREAD)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in [*formats.SUFFIXES, *formats.UNREAD])
    photographs = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".tga", ".dng", ".cr2", ".nef", ".psd", ".dcm"}
    assert photographs <= formats.SUFFIXES | set(formats.UNREAD)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "DDS", "JPEG2000"])
def test_files_are_known_by_their_first_bytes(kind: str) -> None:
    Image.new("RGB", (4, 4)).save(buffer := io.BytesIO(), format=kind)
    name = formats.signature(buffer.getvalue()[: formats.HEAD])
    names = {"PPM": "a Netpbm file", "WEBP": "a WebP", "DDS": "a DDS texture", "JPEG2000": "a JPEG 2000"}
    assert name == names.get(kind, f"a {kind}")


def test_arrays_and_phone_photographs_are_known_and_noise_is_not() -> None:
    np.save(buffer := io.BytesIO(), np.zeros(3))
    assert formats.signature(buffer.getvalue()) == "a NumPy array"
    assert formats.signature(b"\0\0\0\x18ftypheic" + bytes(100)) == "a HEIF file"
    assert formats.signature(b"\0\0\0\x18ftypmp42" + bytes(100)) == "a file of the ISO media family"
    assert formats.signature(bytes(128) + b"DICM") == "a DICOM file"
    assert formats.signature(b"") is None and formats.signature(b"hello, world") is None


def test_a_missing_library_is_named_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"this needs no_such_library.*pip install 'reverse-diffusion\[formats\]'"):
        formats.needed("no_such_library", "this")


def test_readers_are_named_with_their_versions(tmp_path: Path) -> None:
    assert formats.READERS[0].startswith("pillow ")
    assert all(" " in reader for reader in formats.READERS)


def test_without_the_libraries_their_files_have_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    spec = importlib.util.spec_from_file_location("bare_formats", formats.__file__)
    assert spec is not None and spec.loader is not None
    bare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bare)
    assert not {".heic", ".heif", ".dcm"} & bare.SUFFIXES
    assert {bare.UNREAD[suffix] for suffix in (".heic", ".heif", ".dcm")} == {formats.INSTALL}
    assert formats.READERS[:1] == bare.READERS
    assert not {"HEIF", "DICOM"} & {*bare.FORMATS}
    assert {".png", ".tif", ".npy"} <= bare.SUFFIXES
