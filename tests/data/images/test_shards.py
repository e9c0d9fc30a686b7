from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from diffusion import data
from diffusion.data import FolderError, PixelFormat, Scan, open_folder, table
from diffusion.data.images import shards, store
from diffusion.data.images.shards import ShardWalk, find_shards
from tests.bad_images import BAD, BLUE, FOUND_BY_DECODING, GREEN, RED, WHITE, solid


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes files count as settled at once."""
    monkeypatch.setattr(store, "CLOCK_NS", 0)


def png(color: tuple[int, int, int] = RED, size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    solid(color, size).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def scan(path: Path, labels: bool = False, cache: Path | None = None) -> Scan:
    return data.scan(path, labels=labels, cache=cache, progress=False)


def names(found: Scan) -> list[str]:
    return [entry.path.as_posix() for entry in found.entries]


def reasons(found: Scan) -> dict[str, str]:
    return {problem.path.as_posix(): problem.reason for problem in found.problems}


def test_shards_of_every_kind_of_file_are_like_their_folder(zoo: Path, tmp_path: Path) -> None:
    folder = scan(zoo)
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for entry in [*folder.entries, *folder.problems]:
            tar.add(zoo / entry.path, entry.path.as_posix())
        tar.add(zoo / "notes.txt", "notes.txt")
        tar.add(zoo / ".hidden.png", ".hidden.png")
    found = scan(tmp_path / "shards")
    assert names(found) == [f"0.tar/{name}" for name in names(folder)]
    assert [entry.header for entry in found.entries] == [entry.header for entry in folder.entries]
    assert found.others == folder.others == {".txt": 1}
    expected = {f"0.tar/{name}": text for name, text in reasons(folder).items() if name != "loop"}
    assert reasons(found) == expected | {"0.tar/link_to_nothing.png": "not a regular file"}
    packed = [
        data.pack(each, size=(8, 8), pixel_format=PixelFormat(), cache=tmp_path / "cache", progress=False)
        for each in (folder, found)
    ]
    assert np.array_equal(packed[0].values, packed[1].values)
    assert np.array_equal(packed[0].contents, packed[1].contents)
    late = {problem.path.name: problem.reason for problem in packed[1].problems[len(found.problems) :]}
    assert late.keys() == FOUND_BY_DECODING and all(BAD[name] in reason for name, reason in late.items())


def test_shards_are_in_natural_order_and_members_as_they_lie(tmp_path: Path) -> None:
    for number in (10, 2):
        write_tar(tmp_path / f"{number}.tar", {"b/1.png": png(), "./a.png": png(), "/c.png": png()})
    (tmp_path / "sizes.json").write_text("{}")
    found = scan(tmp_path)
    assert names(found) == [f"{number}.tar/{name}" for number in (2, 10) for name in ("b/1.png", "a.png", "c.png")]
    assert found.others == {".json": 1}
    assert table(found).startswith(f"shards    {tmp_path}\nimages    6")
    assert names(scan(tmp_path / "10.tar")) == names(found)[3:]


def test_classes_are_those_of_cls_files(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        {
            "x/1.cls": b"10",
            "x/1.png": png(),
            "x/2.left.png": png(),
            "x/2.right.png": png(),
            "x/2.cls": b"2\n",
            "x/2.json": b"{}",
            "10.1/3.png": png(),
            "x/4.cls": b"",
            "x/4.png": png(),
        },
    )
    found = scan(tmp_path, labels=True)
    assert found.classes == ("2", "10", "10.1", "x")
    assert [entry.label for entry in found.entries] == [1, 0, 0, 2, 3]
    assert found.others == {".json": 1}
    assert reasons(found) == {"0.tar/x/4.cls": "not the name of a class: 0 bytes"}


def test_classes_are_needed_where_labels_are(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"1.png": png(), "1.cls": b"0", "2.png": png()})
    with pytest.raises(
        FolderError, match=r"data\.labels: 1 images .* like 0\.tar/2\.png: .*\.cls .*data\.labels=false"
    ):
        scan(tmp_path, labels=True)
    assert {entry.label for entry in scan(tmp_path).entries} == {-1}


def test_folders_that_hold_images_or_folders_are_no_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "backup.tar", {"1.png": png()})
    assert find_shards(tmp_path) is not None
    (tmp_path / "images").mkdir()
    assert find_shards(tmp_path) is None
    (tmp_path / "images" / "a.png").write_bytes(png())
    found = scan(tmp_path)
    assert (names(found), found.others) == (["images/a.png"], {".tar": 1})
    (tmp_path / "images" / "b.tar").touch()
    assert find_shards(tmp_path / "images") is None


def cut(place: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place]


# An image of 16 x 16 pixels takes one block of 512 bytes, and so does its header.
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], dict[str, str], int]] = {
    "cut in a member": (cut(3 * 512 + 9), {"0.tar/2.png": "the shard ends before it does"}, 1),
    "cut behind a header": (cut(3 * 512), {"0.tar/2.png": "the shard ends before it does"}, 1),
    "cut in a header": (cut(2 * 512 + 9), {"0.tar": "no mark of its end; it may be cut short"}, 1),
    "cut between members": (cut(4 * 512), {"0.tar": "no mark of its end; it may be cut short"}, 2),
    "another header": (
        lambda content: content[:1024] + b"\1" * 9 + content[1033:],
        {"0.tar": "damaged at byte 1,024; what follows is not read"},
        1,
    ),
    "another first header": (
        lambda content: b"\1" * 9 + content[9:],
        {"0.tar": "not a plain tar archive, or damaged: bad checksum"},
        0,
    ),
    "compressed": (gzip.compress, {"0.tar": "not a plain tar archive, or damaged: truncated header"}, 0),
    "empty": (cut(0), {"0.tar": "not a plain tar archive, or damaged: empty file"}, 0),
    "nothing in it": (lambda content: bytes(10_240), {"0.tar": "the archive is empty"}, 0),
}


@pytest.mark.parametrize(("damage", "problems", "left"), DAMAGES.values(), ids=[*DAMAGES])
def test_damaged_shards_are_named_and_read_as_far_as_they_are_whole(
    tmp_path: Path, damage: Callable[[bytes], bytes], problems: dict[str, str], left: int
) -> None:
    shard = write_tar(tmp_path / "0.tar", {f"{i}.png": png() for i in (1, 2, 3)})
    shard.write_bytes(damage(shard.read_bytes()))
    write_tar(tmp_path / "1.tar", {"4.png": png()})
    found = scan(tmp_path)
    assert reasons(found) == problems
    assert names(found) == [*(f"0.tar/{i + 1}.png" for i in range(left)), "1.tar/4.png"]


def test_compressed_shards_are_explained(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", {"1.png": png()})
    (tmp_path / "0.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
    shard.unlink()
    for path in (tmp_path, tmp_path / "0.tar.gz"):
        with pytest.raises(FolderError, match=r"0 readable images .*0\.tar\.gz: .*cannot be read at an offset; decomp"):
            scan(path)


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("1.png")
        member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9", "GNU.sparse.name": "1.png"}
        tar.addfile(member)
        member = tarfile.TarInfo("2.png")
        member.size = len(png())
        tar.addfile(member, io.BytesIO(png()))
    found = scan(tmp_path)
    assert names(found) == ["0.tar/2.png"]
    assert reasons(found) == {"0.tar/1.png": "not a regular file"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the archives that are read from here on."""
    archives: list[str] = []
    open_tar = tarfile.open

    def noted(path: Path, mode: str) -> tarfile.TarFile:
        archives.append(path.name)
        return open_tar(path, mode)

    monkeypatch.setattr(shards.tarfile, "open", noted)
    return archives


def test_unchanged_shards_are_not_read_again(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = tmp_path / "shards"
    for number in range(2):
        write_tar(place / f"{number}.tar", {"a/1.png": png(), "b/2.png": png()[:50], "b/3.png": png(GREEN)})
    (tmp_path / "cache").mkdir()
    archives = request.getfixturevalue("opened")
    first = scan(place, labels=True, cache=tmp_path / "cache")
    assert archives == ["0.tar", "1.tar"]
    second = scan(place, labels=True, cache=tmp_path / "cache")
    assert archives == ["0.tar", "1.tar"]
    assert [*second.entries] == [*first.entries]
    assert table(second) == table(first)
    os.utime(place / "1.tar", ns=(1, 1))
    third = scan(place, cache=tmp_path / "cache")
    assert archives == ["0.tar", "1.tar"] * 2
    assert third.entries.content == first.entries.content


def test_a_passing_failure_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        write_tar(tmp_path / "shards" / f"{number}.tar", {"1.png": png()})
    (tmp_path / "cache").mkdir()
    open_tar = tarfile.open

    def refuse(path: Path, mode: str) -> tarfile.TarFile:
        if path.name == "0.tar":
            raise PermissionError(13, "Permission denied")
        return open_tar(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(shards.tarfile, "open", refuse)
        found = scan(tmp_path / "shards", cache=tmp_path / "cache")
    assert (names(found), reasons(found)) == (["1.tar/1.png"], {"0.tar": "Permission denied"})
    assert len(scan(tmp_path / "shards", cache=tmp_path / "cache").entries) == 2


CHANGES: dict[str, Callable[[Path], object]] = {
    "add": lambda folder: write_tar(folder / "2.tar", {"1.png": png()}),
    "add other": lambda folder: (folder / "notes.txt").touch(),
    "remove": lambda folder: (folder / "1.tar").unlink(),
    "rename": lambda folder: (folder / "1.tar").rename(folder / "3.tar"),
    "rewrite": lambda folder: write_tar(folder / "1.tar", {"2.png": png()}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=[*CHANGES])
def test_every_change_gives_another_fingerprint(tmp_path: Path, change: Callable[[Path], object]) -> None:
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", {"1.png": png()})

    def fingerprints() -> set[int]:
        found = find_shards(tmp_path)
        assert found is not None
        walk = found.walk(reading=True)
        assert all(walk)
        return {found.glance()[0], walk.fingerprint}

    before = fingerprints()
    assert len(before) == 1
    change(tmp_path)
    assert len(fingerprints() | before) == 2


def test_a_walk_needs_no_more_memory_for_more_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LIMIT", 10)
    peaks = []
    # The first pass does not count: the names in it may be those for which Python enlarges its table of interned texts.
    for count in (3000, 100, 3000):
        # All of them are files of one example.
        write_tar(tmp_path / "0.tar", {f"frame.{i:04}.png": b"" for i in range(count)})
        tracemalloc.start()
        assert sum(1 for _ in ShardWalk(tmp_path, ("0.tar",), reading=True)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 200_000  # bytes; a list of the further members would take over 1,000,000


def test_shards_become_a_dataset_like_their_folder(tmp_path: Path) -> None:
    colors = {
        f"{name}/{i}.png": (20 * i, *rest) for name, rest in (("cat", BLUE[1:]), ("dog", WHITE[1:])) for i in range(8)
    }
    files = {name: png(color) for name, color in colors.items()}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    halves = [*files][:10], [*files][10:]
    for number, half in enumerate(halves):
        write_tar(tmp_path / "shards" / f"{number}.tar", {name: files[name] for name in half} | {"cat/z.png": png()})
    lines: list[str] = []
    folder = open_folder(tmp_path / "folder", size=(8, 8), labels=True, cache=tmp_path / "c", log=lines.append)
    dataset = open_folder(tmp_path / "shards", size=(8, 8), labels=True, cache=tmp_path / "c", log=lines.append)
    assert lines[-1].startswith("copies    1 files repeat another")
    assert dataset.spec == folder.spec
    mine = [i for i, name in enumerate(dataset.names) if not name.endswith("z.png")]
    assert np.array_equal(dataset.subset(mine).values, folder.values)
    assert dataset.labels is not None and np.array_equal(dataset.labels[mine], folder.labels)
    for part, expected in zip(dataset.split(0.2, seed=5), folder.split(0.2, seed=5), strict=True):
        plain = [name.partition("/")[2] for name in part.names if not name.endswith("z.png")]
        assert plain == [*expected.names]
        assert sum(name.endswith("z.png") for name in part.names) in (0, 2)


def test_arrays_beside_a_picture_of_their_example_are_no_images(tmp_path: Path) -> None:
    np.save(features := io.BytesIO(), np.zeros((77, 768), np.float32))
    np.save(image := io.BytesIO(), np.zeros((8, 8), np.uint8))
    files = {"0.png": png(), "0.npy": features.getvalue(), "1.npy": image.getvalue(), "2.npy": features.getvalue()}
    found = scan(write_tar(tmp_path / "a.tar", files))
    assert names(found) == ["a.tar/0.png", "a.tar/1.npy", "a.tar/2.npy"]
    assert found.others == {".npy": 1}
