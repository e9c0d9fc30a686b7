from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion import data
from diffusion.data import FolderError, Scan
from tests.bad_images import BAD, FOUND_BY_DECODING, GOOD, RED, solid


def scan(folder: Path, labels: bool = False) -> Scan:
    return data.scan(folder, labels=labels, progress=False)


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        solid(RED).save(path)


def names(found: Scan) -> list[str]:
    return [entry.path.as_posix() for entry in found.entries]


def test_everything_is_either_used_or_named_or_counted(zoo: Path) -> None:
    found = scan(zoo)
    assert sorted(names(found)) == sorted([*GOOD, *FOUND_BY_DECODING])
    reasons = {problem.path.name: problem.reason for problem in found.problems}
    assert reasons.keys() == BAD.keys() - FOUND_BY_DECODING | {"loop"}
    for name in reasons.keys() - {"loop"}:
        assert BAD[name] in reasons[name]
    assert found.others == {".txt": 1}


def test_names_are_in_natural_order(tmp_path: Path) -> None:
    order = ["1.png", "2/b.png", "2.png", "010.png", "10.png", "a1.PNG", "a10.png", "b2/1.png", "b10/1.png"]
    write(*(tmp_path / name for name in reversed(order)))
    assert names(scan(tmp_path)) == order


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.png", tmp_path / "root" / "b.png")
    for link in ("one", "two"):
        (tmp_path / "root" / link).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "self").symlink_to("self")
    found = scan(tmp_path / "root")
    assert names(found) == ["b.png", "one/a.png"]
    assert [p.path.as_posix() for p in found.problems] == ["one/back", "two"]


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "a.png", tmp_path / "folder.png" / "b.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = scan(tmp_path)
    assert names(found) == ["a.png", "folder.png/b.png"]
    assert [str(problem) for problem in found.problems] == ["pipe.png: not a regular file"]


def test_unreadable_subfolder_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", tmp_path / "locked" / "b.png")
    scandir = os.scandir

    def refuse(path: str | int) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = scan(tmp_path)
    assert names(found) == ["a.png"]
    assert str(found.problems[0]) == "locked: the folder cannot be read: Permission denied"


def test_labels_are_the_first_level_subfolders(tmp_path: Path) -> None:
    write(*(tmp_path / name for name in ["10/a.png", "2/b.png", "2/deep/c.png", "x/d.png"]))
    (tmp_path / "empty").mkdir()
    found = scan(tmp_path, labels=True)
    assert found.classes == ("2", "10", "x")
    assert [(e.path.as_posix(), e.label) for e in found.entries] == [
        ("2/b.png", 0),
        ("2/deep/c.png", 0),
        ("10/a.png", 1),
        ("x/d.png", 2),
    ]
    assert [str(problem) for problem in found.problems] == ["empty: not a class: no image in it"]
    assert {entry.label for entry in scan(tmp_path).entries} == {-1}


def test_labels_need_subfolders(tmp_path: Path) -> None:
    write(tmp_path / "a.png", tmp_path / "cat" / "b.png")
    with pytest.raises(FolderError, match=r"data\.labels: 1 .* a\.png: .*set data\.labels=false"):
        scan(tmp_path, labels=True)


def test_missing_folder_names_its_neighbors(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(FolderError, match=r"flower/train does not exist; .*did you mean .*flowers\?"):
        scan(tmp_path / "flower" / "train")


def test_of_a_missing_folder_here_only_those_like_it_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    for name, hint in (("flower", f"; did you mean {tmp_path / 'flowers'}?"), ("xyzzy/train", "")):
        with pytest.raises(FolderError) as caught:
            scan(name, labels=False)
        assert str(caught.value) == f"data.path: {name} does not exist{hint}"
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FolderError) as caught:
        scan("~/xyzzy", labels=False)
    assert str(caught.value) == f"data.path: {tmp_path / 'xyzzy'} does not exist; {tmp_path} does"


def test_a_file_is_a_folder_of_one_image(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    assert [str(entry.path) for entry in scan(tmp_path / "a.png", labels=False).entries] == ["a.png"]


def test_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.txt", "b.TXT", "c.mp4", "README"):
        (tmp_path / name).touch()
    with pytest.raises(FolderError, match=r"0 readable images .*\(2 \.txt, 1 without suffix, 1 \.mp4\)"):
        scan(tmp_path)
    (tmp_path / "x.png").touch()
    with pytest.raises(FolderError, match=r"1 could not be read, such as x\.png: the file is empty"):
        scan(tmp_path)
