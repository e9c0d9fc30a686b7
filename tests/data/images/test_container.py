"""What all containers share: fingerprints, counts of other files, and errors that name the image."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from diffusion.data import ImageError, LeftOut
from diffusion.data.images.container import Container, Member, Walk
from diffusion.data.images.decoding import BinaryFile


@dataclass
class ListWalk(Walk):
    """A walk that yields the given members and notes their paths."""

    paths: tuple[str, ...]

    def __iter__(self) -> Iterator[Member]:
        for path in self.paths:
            self.note(path)
            yield Member(path)


@dataclass(frozen=True)
class Listed(Container):
    """A container of paths whose bytes are the paths themselves; "locked" cannot be opened."""

    paths: tuple[str, ...] = ()

    def walk(self, *, reading: bool) -> Walk:
        return ListWalk(paths=self.paths)

    def _open(self, path: str, offset: int, size: int) -> BinaryFile:
        if path == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        if path == "silent":
            raise OSError("no number")
        return BytesIO(os.fsencode(path)[offset : offset + size])


def noted(*notes: tuple[object, ...]) -> int:
    walk = ListWalk(paths=())
    for path, *facts in notes:
        walk.note(str(path), *facts)
    return walk.fingerprint


def test_the_fingerprint_is_a_sum_of_hashes_in_any_order() -> None:
    def summand(text: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")

    expected = (summand(b"a\0001\0002") + summand(b"b") + summand(b"caf\xe9.png\0003")) % 2**128
    notes = [("a", 1, 2), ("b",), (os.fsdecode(b"caf\xe9.png"), 3)]
    assert noted(*notes) == noted(*reversed(notes)) == expected


def test_paths_and_facts_are_kept_apart_and_counted() -> None:
    fingerprints = [
        noted(),
        noted(("a", 12)),
        noted(("a", 1, 2)),
        noted(("a1", 2)),
        noted(("a",), (12,)),
        noted(("a", 12), ("a", 12)),
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_a_file_is_noted_by_its_inode_size_and_times(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    first, second = (tmp_path / name for name in "ab")
    walks = [ListWalk(paths=()) for _ in range(3)]
    walks[0].note_file("a", first.stat())
    walks[1].note_file("a", second.stat())
    assert walks[0].fingerprint != walks[1].fingerprint
    assert walks[0].newest == first.stat().st_ctime_ns
    os.utime(first, ns=(1, 1))
    walks[2].note_file("a", first.stat())
    assert walks[2].fingerprint != walks[0].fingerprint
    assert walks[2].newest == first.stat().st_ctime_ns
    walks[2].note_file("b", second.stat())
    assert walks[2].newest == max(path.stat().st_ctime_ns for path in (first, second))


def test_other_files_are_counted_by_suffix() -> None:
    walk = ListWalk(paths=())
    for path in ("a.txt", "b/c.TXT", "README", "d.tar.gz", os.fsdecode(b"e.\xff")):
        walk.ignore(path)
    assert walk.others == {".txt": 2, "without suffix": 1, ".gz": 1, ".\\xff": 1}


def test_problems_can_be_printed_whatever_the_name() -> None:
    walk = ListWalk(paths=())
    walk.leave_out(os.fsdecode(b"caf\xe9.png"), "a broken link")
    assert walk.problems == [LeftOut(Path(os.fsdecode(b"caf\xe9.png")), "a broken link")]
    assert str(walk.problems[0]) == "caf\\xe9.png: a broken link"


def test_a_glance_counts_the_images_if_any_are_yielded() -> None:
    walk = ListWalk(paths=("a", "b"))
    assert [member.path for member in walk] == ["a", "b"]
    assert Listed(Path("root"), ("a", "b")).glance() == (walk.fingerprint, 2)
    assert Listed(Path("root")).glance() == (0, None)


def test_opening_names_the_image_when_the_system_refuses() -> None:
    container = Listed(Path(os.fsdecode(b"ro\xffot")))
    assert container.name == "ro\\xffot"
    assert container.open(Path("image"), 1, 3).read() == b"mag"
    with pytest.raises(ImageError, match=r"^ro\\xffot/locked: Permission denied$") as refused:
        container.open("locked", 0, 0)
    assert refused.value.transient
    with pytest.raises(ImageError, match=r"^ro\\xffot/silent: no number$") as silent:
        container.open("silent", 0, 0)
    assert not silent.value.transient
