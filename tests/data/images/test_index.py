from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from diffusion import data
from diffusion.data import FolderError, Scan, table
from diffusion.data.images import reading, store
from diffusion.data.images.decoding import BinaryFile
from diffusion.data.images.folder import FolderWalk
from diffusion.data.images.index import ROWS, TEXT, counted
from tests.bad_images import BLUE, GREEN, RED, solid


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes files count as settled at once."""
    monkeypatch.setattr(store, "CLOCK_NS", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, color in (("a.png", RED), ("b/1.png", GREEN), ("b/2.png", GREEN)):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        solid(color).save(tmp_path / "images" / name)
    return tmp_path / "images"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers are read from here on."""
    names: list[str] = []
    read_header = reading.read_header

    def noted(path: str, file: BinaryFile) -> data.Header:
        names.append(Path(path).name)
        return read_header(path, file)

    monkeypatch.setattr(reading, "read_header", noted)
    return names


def scan(folder: Path, cache: Path, labels: bool = False) -> Scan:
    cache.mkdir(exist_ok=True)
    return data.scan(folder, labels=labels, cache=cache, progress=False)


def test_an_unchanged_folder_is_not_read_again(zoo: Path, tmp_path: Path, reads: list[str]) -> None:
    first = scan(zoo, tmp_path / "cache")
    assert reads
    reads.clear()
    second = scan(zoo, tmp_path / "cache")
    assert reads == []
    assert [*second.entries] == [*first.entries]
    assert (second.problems, second.others, table(second)) == (first.problems, first.others, table(first))


def test_labels_come_from_the_same_index(tmp_path: Path, reads: list[str]) -> None:
    for name in ("10/a.png", "2/b.png", "2/c.png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        solid(RED).save(tmp_path / "root" / name)
    (tmp_path / "root" / "none").mkdir()
    assert {entry.label for entry in scan(tmp_path / "root", tmp_path / "cache").entries} == {-1}
    reads.clear()
    found = scan(tmp_path / "root", tmp_path / "cache", labels=True)
    assert reads == []
    assert (found.classes, [entry.label for entry in found.entries]) == (("2", "10"), [0, 0, 1])
    assert [str(problem) for problem in found.problems] == ["none: not a class: no image in it"]


def test_a_touched_file_is_read_again_and_the_same(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    first = scan(folder, tmp_path / "cache")
    os.utime(folder / "a.png", ns=(1, 1))
    reads.clear()
    second = scan(folder, tmp_path / "cache")
    assert reads == ["a.png"]
    assert second.entries.content == first.entries.content


def test_a_folder_that_grows_is_read_as_far_as_it_is_new(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    scan(folder, tmp_path / "cache")
    reads.clear()
    for name in ("0.png", "b/3.png"):
        solid(BLUE, (9, 7)).save(folder / name)
        grown = scan(folder, tmp_path / "cache")
    assert reads == ["0.png", "3.png"]
    assert len([*(tmp_path / "cache").iterdir()]) == 1, "the index of the earlier state is gone"
    again = scan(folder, tmp_path / "other")
    assert [*grown.entries] == [*again.entries] and grown.entries.content == again.entries.content
    assert np.array_equal(grown.entries.rows, again.entries.rows)


def test_a_file_that_is_replaced_at_its_time_and_size_is_read(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    """Another inode, or the time of the change alone, says that a file is another one."""
    status, first = (folder / "a.png").stat(), scan(folder, tmp_path / "cache")
    content = bytearray((folder / "a.png").read_bytes())
    solid(GREEN).save(tmp_path / "new.png")
    (folder / "a.png").write_bytes((tmp_path / "new.png").read_bytes().ljust(len(content), b"\0")[: len(content)])
    os.utime(folder / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (folder / "a.png").stat().st_size == status.st_size
    reads.clear()
    second = scan(folder, tmp_path / "cache")
    assert reads == ["a.png"]
    assert second.entries.content["identity"] != first.entries.content["identity"]


def test_a_changed_file_is_seen(folder: Path, tmp_path: Path) -> None:
    first = scan(folder, tmp_path / "cache")
    solid(BLUE, (40, 30)).save(folder / "a.png")
    second = scan(folder, tmp_path / "cache")
    assert second.entries[0].header.width == 40
    assert second.entries.content["identity"] != first.entries.content["identity"]


def test_a_copy_has_the_same_identity(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    contents = [scan(path, tmp_path / "cache").entries.content for path in (folder, tmp_path / "copy")]
    assert contents[0] == contents[1]
    assert contents[0]["copies"] == 1


def test_a_file_changed_this_moment_is_not_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(store, "CLOCK_NS", 10**12)
    for _ in range(2):
        reads.clear()
        assert len(scan(folder, tmp_path / "cache").entries) == 3
        assert len(reads) == 3
    assert [*(tmp_path / "cache").iterdir()] == []


def test_a_passing_failure_is_not_remembered(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: BinaryFile) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(store, "digest", refuse)
        with pytest.raises(FolderError, match=r"a\.png: Too many open files"):
            scan(folder, tmp_path / "cache")
    assert len(scan(folder, tmp_path / "cache").entries) == 3


def test_a_folder_without_images_is_refused_every_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.png").touch()
    for _ in range(2):
        with pytest.raises(FolderError, match="the file is empty"):
            scan(tmp_path / "empty", tmp_path / "cache")


@pytest.mark.parametrize("name", [ROWS, TEXT, store.MANIFEST, store.STAMPS])
@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "delete", "rewrite"])
def test_a_damaged_index_is_rebuilt(folder: Path, tmp_path: Path, name: str, damage: str) -> None:
    good = [*scan(folder, tmp_path / "cache").entries]
    (entry,) = (tmp_path / "cache").iterdir()
    content = (entry / name).read_bytes()
    half = len(content) // 2
    damaged = {
        "cut": content[:half],
        "empty": b"",
        "flip": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
        "rewrite": b"[]",
    }
    (entry / name).unlink()
    if damage != "delete":
        (entry / name).write_bytes(damaged[damage])
    if name != store.STAMPS:
        assert store.read(entry) is None
    assert [*scan(folder, tmp_path / "cache").entries] == good
    assert store.read(entry) is not None


def test_rows_and_names_are_on_disk(folder: Path, tmp_path: Path) -> None:
    entries = scan(folder, tmp_path / "cache").entries
    assert isinstance(entries.rows, np.memmap)
    assert isinstance(entries.names.text, np.memmap)
    assert entries.names == ("a.png", "b/1.png", "b/2.png")
    assert [entry.path for entry in entries] == [Path(m.path) for m in FolderWalk(folder, ordered=True)]


def test_images_are_counted_by_mode_and_format(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, mode in (("a.png", "L"), ("b.jpg", "RGB"), ("c.png", "RGB")):
        solid(RED).convert(mode).save(tmp_path / "images" / name)
    entries = scan(tmp_path / "images", tmp_path / "cache").entries
    assert (entries.modes, entries.formats) == ({"L": 1, "RGB": 2}, {"PNG": 2, "JPEG": 1})


def test_names_that_nothing_has_count_as_zero_and_none_is_not_counted() -> None:
    assert counted(np.array([2, -1, 0, 2]), ["a", "b", "c"]) == {"a": 1, "b": 0, "c": 2}
    assert [*counted(np.array([2, 0]), ["a", "b", "c"])] == ["a", "b", "c"]
