"""Zip files are read in place, like the folder that they would be unpacked to; those that cannot be are named."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from diffusion import data
from diffusion.data import FolderError, PixelFormat, Scan, open_folder
from diffusion.data.images.zips import plain_path, read_zipped, zip_parts, zipped_text
from tests.bad_images import BLUE, GREEN, NOT_UTF8, RED, solid
from tests.data.images.test_shards import names, png, reasons, write_tar


def write_zip(path: Path, source: Path | Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Writes a folder, or files by name, to a zip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        if isinstance(source, Path):
            for file in sorted(source.rglob("*")):
                archive.write(file, file.relative_to(source))
        else:
            for name, content in source.items():
                archive.writestr(name, content)
    return path


def scan(path: Path, labels: bool | str = False, cache: Path | None = None) -> Scan:
    return data.scan(path, labels=labels, cache=cache, progress=False)


METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA}


@pytest.mark.parametrize("method", METHODS.values(), ids=[*METHODS])
def test_a_zip_is_the_folder_it_was_packed_from(zoo: Path, tmp_path: Path, method: int) -> None:
    folder = scan(zoo)
    skipped = {"loop", "link_to_nothing.png", NOT_UTF8}
    files = {str(each.path): (zoo / each.path).read_bytes() for each in folder.entries if str(each.path) not in skipped}
    files |= {
        str(each.path): (zoo / each.path).read_bytes() for each in folder.problems if str(each.path) not in skipped
    }
    # In no order: the walk sorts them as those of a folder.
    shuffled = {name: files[name] for name in np.random.default_rng(0).permutation([*files])}
    path = write_zip(tmp_path / "all.zip", shuffled | {".hidden.png": b"", "notes.txt": b""}, method)
    found = scan(path)
    expected = [name for name in names(folder) if name not in skipped]
    assert names(found) == [f"all.zip/{name}" for name in expected]
    headers = {str(each.path): each.header for each in folder.entries}
    assert [each.header for each in found.entries] == [headers[name] for name in expected]
    assert reasons(found) == {f"all.zip/{name}": why for name, why in reasons(folder).items() if name not in skipped}
    assert found.others == {".txt": 1}


def photos(folder: Path) -> Path:
    for name, blue in (("cat", 0), ("dog", 200)):
        for i in (1, 2, 10):
            (folder / name).mkdir(parents=True, exist_ok=True)
            solid((20 * i, i, blue)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("method", METHODS.values(), ids=[*METHODS])
def test_a_zip_is_the_same_data_set_as_its_folder(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "x.zip", photos(tmp_path / "x"), method)
    options = {"size": (8, 8), "labels": True, "min_images": 1, "log": lambda line: None, "progress": False}
    folder, zipped = (
        open_folder(place, cache=tmp_path / f"cache {i}", **options)  # type: ignore[arg-type]
        for i, place in enumerate((tmp_path / "x", path))
    )
    assert zipped.spec == folder.spec and zipped.spec.classes == ("cat", "dog")
    assert np.array_equal(zipped.values, folder.values) and np.array_equal(zipped.labels, folder.labels)
    assert [name.partition("/")[2] for name in zipped.names] == [*folder.names]
    for part, expected in zip(zipped.split(0.3, 1), folder.split(0.3, 1), strict=True):
        assert [name.partition("/")[2] for name in part.names] == [*expected.names]


def test_zip_and_tar_files_of_a_folder_are_read_together(tmp_path: Path) -> None:
    write_zip(tmp_path / "2.zip", {"a/1.png": png(), "1.cls": b"", "b.png": png(), "b.cls": b"tulip"})
    write_tar(tmp_path / "10.tar", {"a/1.png": png()})
    (tmp_path / "@eaDir").mkdir()
    found = scan(tmp_path, labels=True)
    assert names(found) == ["2.zip/a/1.png", "2.zip/b.png", "10.tar/a/1.png"]
    assert (found.classes, [each.label for each in found.entries]) == (("a", "tulip"), [0, 1, 0])


def test_a_folder_in_archives_is_named_by_the_path(tmp_path: Path) -> None:
    for name in ("0.zip", "1.zip"):
        write_zip(tmp_path / "all" / name, {"x/cat/1.png": png(), "x/dog/1.png": png(GREEN), "y/1.png": png(BLUE)})
    assert scan(tmp_path / "all" / "0.zip" / "x", labels=True).classes == ("cat", "dog")
    found = scan(tmp_path / "all" / "x", labels=True)
    assert names(found) == [f"{n}.zip/x/{c}/1.png" for n in (0, 1) for c in ("cat", "dog")]
    assert [each.label for each in found.entries] == [0, 1, 0, 1]
    with pytest.raises(FolderError, match=r"0 readable images in .*0\.zip/z"):
        scan(tmp_path / "all" / "0.zip" / "z")
    with pytest.raises(FolderError, match="does not exist"):
        scan(tmp_path / "nowhere" / "x")


def test_labels_of_stylegan_are_taken_from_the_zip_and_from_its_folder(tmp_path: Path) -> None:
    labels = [["00000/img0.png", 1], ["00000/img1.png", 0], ["00001/img2.png", 10]]
    for i, (name, _) in enumerate(labels):
        path = tmp_path / "x" / str(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        solid((i, 0, 0)).save(path)
    (tmp_path / "x" / "dataset.json").write_text(json.dumps({"labels": labels}))
    for place in (tmp_path / "x", write_zip(tmp_path / "x.zip", tmp_path / "x")):
        found = scan(place, labels=True)
        assert found.classes == ("0", "1", "10")
        assert [each.label for each in found.entries] == [1, 0, 2]
    (tmp_path / "x" / "dataset.json").write_text(json.dumps({"labels": None}))
    assert scan(tmp_path / "x", labels=True).classes == ("00000", "00001")


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    local, central = content.index(b"PK\3\4"), content.index(b"PK\1\2")
    content[local + 6] |= 1
    content[central + 8] |= 1
    path.write_bytes(content)


def test_encrypted_files_are_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"1.png": png(), "2.png": png(GREEN)})
    encrypted(path)
    found = scan(path)
    assert names(found) == ["x.zip/2.png"]
    assert reasons(found) == {"x.zip/1.png": "encrypted; unpack the archive with its password"}


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    write_zip(tmp_path / "0.zip", {"1.png": png()})
    whole = (tmp_path / "0.zip").read_bytes()
    (tmp_path / "1.zip").write_bytes(whole[: len(whole) - 30])
    (tmp_path / "2.zip").write_bytes(b"no archive")
    write_zip(tmp_path / "3.zip", {})
    write_zip(tmp_path / "4.zip", {"a.zip": whole, "b.tar.gz": b"", "1.png": png()})
    found = scan(tmp_path)
    assert names(found) == ["0.zip/1.png", "4.zip/1.png"]
    assert reasons(found) == {
        "1.zip": "no list of its files at its end; it may be cut short, or the first part of several",
        "2.zip": "not a zip archive, or damaged: File is not a zip file",
        "3.zip": "the archive is empty",
        "4.zip/a.zip": "an archive within an archive is not read; unpack it",
        "4.zip/b.tar.gz": "an archive within an archive is not read; unpack it",
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_bytes_are_found_by_their_checksum(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "x.zip", {"1.png": png(), "2.png": png(GREEN)}, method)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\3\4") + 30 + len("1.png") + 12] ^= 255
    path.write_bytes(content)
    found = scan(path)
    assert names(found) == ["x.zip/2.png"]
    assert reasons(found)["x.zip/1.png"].startswith("damaged in the archive: ")


def raw_zip(path: Path, name: bytes, content: bytes, flags: int = 0, system: int = 0) -> Path:
    """Writes an archive of one stored file whose name is any bytes."""
    crc = zlib.crc32(content)
    fields = struct.pack("<HHHHHIIIHH", 20, flags, 0, 0, 0x21, crc, len(content), len(content), len(name), 0)
    local = b"PK\3\4" + fields + name + content
    central = b"PK\1\2" + struct.pack("<BB", 20, system) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + end)
    return path


@pytest.mark.parametrize(
    ("raw", "flags", "name"),
    [
        ("Größe/1.png".encode("cp437"), 0, "Größe/1.png"),
        ("Größe/1.png".encode(), 0, "Größe/1.png"),  # written in UTF-8 without saying so
        ("花/1.png".encode(), 0x800, "花/1.png"),
        (b"cat\\1.png", 0, "cat/1.png"),
    ],
)
def test_names_are_read_as_they_were_meant(tmp_path: Path, raw: bytes, flags: int, name: str) -> None:
    path = raw_zip(tmp_path / "x.zip", raw, png(), flags)
    assert names(scan(path)) == [f"x.zip/{name}"]


def test_of_two_files_of_a_name_the_last_is_meant(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.png", png(RED, (8, 8)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("1.png", png(RED, (9, 9)))
    assert [each.header.width for each in scan(tmp_path / "x.zip").entries] == [9]


def test_a_changed_archive_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for size in (8, 9):
        write_zip(tmp_path / "x.zip", {"1.png": png(RED, (size, size))})
        found = scan(tmp_path / "x.zip", cache=tmp_path / "cache")
        assert found.entries[0].header.width == size
        packed = data.pack(found, size=(4, 4), pixel_format=PixelFormat(), cache=tmp_path / "cache", progress=False)
        assert (packed.values[0, 0] == 255).all()


def test_parts_texts_and_bytes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"b.txt": b"later", "a/1.txt": b"first"}, zipfile.ZIP_DEFLATED)
    parts = [*zip_parts(path, lambda name, reason: None)]
    assert [(part.name, part.read(3)) for part in parts] == [("a/1.txt", b"fir"), ("b.txt", b"lat")]
    assert read_zipped(path, parts[0].offset).read() == b"first"
    assert zipped_text(path, "b.txt") == b"later" and zipped_text(path, "c.txt") is None
    assert isinstance(read_zipped(path, parts[1].offset), BytesIO)


def test_paths_in_archives_begin_at_their_root() -> None:
    names = ["a/b.png", "./a/b.png", "/a//b.png", "a/./b.png", "a/b.png/"]
    assert {plain_path(name) for name in names} == {"a/b.png"}


def test_folders_in_archives_of_windows_are_no_files(tmp_path: Path) -> None:
    files = {"cat\\": b"", "dog/": b"", "cat\\1.png": png(), "dog/1.png": png()}
    found = scan(write_zip(tmp_path / "x.zip", files), labels=True)
    assert names(found) == ["x.zip/cat/1.png", "x.zip/dog/1.png"]
    assert (found.classes, found.others) == (("cat", "dog"), {})
