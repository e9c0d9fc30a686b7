from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion.data.images import folder
from diffusion.data.images.folder import Folder, FolderWalk, natural
from tests.bad_images import NOT_UTF8, RED, solid


def by_pieces(name: str) -> tuple[list[tuple[int, str]], str]:
    """The definition of natural order: numbers compare by value, other text by letters, the name itself breaks ties."""
    pieces = re.split(r"([0-9]+)", name)
    return [(int(piece or 0), "") if i % 2 else (0, piece) for i, piece in enumerate(pieces)], name


@pytest.mark.parametrize("run", [7, 1000])
def test_natural_order_in_memory_and_on_disk(monkeypatch: pytest.MonkeyPatch, run: int) -> None:
    monkeypatch.setattr(folder, "RUN", run)
    rng = random.Random(0)
    names = {"".join(rng.choices("0012 9a\nb.é", k=rng.randrange(1, 9))) for _ in range(300)}
    names |= {NOT_UTF8, "\n", "9" * 200, "0" * 200 + "1"}
    assert list(natural(names)) == sorted(names, key=by_pieces)


def test_the_fingerprint_does_not_depend_on_the_order(zoo: Path) -> None:
    walks = [FolderWalk(zoo, ordered=ordered) for ordered in (False, True)]
    paths = [[member.path for member in walk] for walk in walks]
    assert sorted(paths[0]) == sorted(paths[1])
    assert walks[0].fingerprint == walks[1].fingerprint
    assert Folder(zoo).glance() == (walks[0].fingerprint, len(paths[0]))
    assert walks[0].newest == max((zoo / path).stat().st_ctime_ns for path in paths[0])


def test_links_to_one_folder_are_resolved_alike_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "root" / "b").mkdir(parents=True)
    solid(RED).save(tmp_path / "root" / "b" / "1.png")
    for link in ("c", "a", "b/again"):
        (tmp_path / "root" / link).symlink_to(tmp_path / "root" / "b")
    for ordered in (False, True):
        assert [member.path for member in FolderWalk(tmp_path / "root", ordered=ordered)] == ["a/1.png"]


def rewrite_unseen(folder: Path) -> None:
    """Write other bytes of the same number, and set the time of modification back."""
    status = (folder / "a.png").stat()
    (folder / "a.png").write_bytes(bytes(status.st_size))
    os.utime(folder / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "add": lambda folder: (folder / "d" / "new.png").touch(),
    "add other": lambda folder: (folder / "notes.txt").touch(),
    "add folder": lambda folder: (folder / "e").mkdir(),
    "break": lambda folder: (folder / "link.png").symlink_to("nothing"),
    "remove": lambda folder: (folder / "a.png").unlink(),
    "rename": lambda folder: (folder / "a.png").rename(folder / "b.png"),
    "move": lambda folder: (folder / "a.png").rename(folder / "d" / "a.png"),
    "swap": lambda folder: [
        (folder / source).rename(folder / target)
        for source, target in [("a.png", "x"), ("d/1.png", "a.png"), ("x", "d/1.png")]
    ],
    "touch": lambda folder: os.utime(folder / "a.png", ns=(1, 1)),
    "rewrite": rewrite_unseen,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=[*CHANGES])
def test_every_change_gives_another_fingerprint(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (tmp_path / "d").mkdir()
    for name in ("a.png", "d/1.png"):
        solid(RED).save(tmp_path / name)
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    wait_for_the_clock(tmp_path / "a.png")
    change(tmp_path)
    assert fingerprint(tmp_path) != before


def fingerprint(folder: Path) -> int:
    return Folder(folder).glance()[0]


def wait_for_the_clock(path: Path) -> None:
    """Wait until a file that is written now shows another time than the one at the path."""
    probe = path.with_name(".probe")
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > path.stat().st_ctime_ns:
            return


def test_arrays_beside_pictures_of_the_same_name_are_no_images(tmp_path: Path) -> None:
    solid(RED).save(tmp_path / "a.JPG")
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.zeros((77, 768), np.float32))
    walk = FolderWalk(tmp_path, ordered=True)
    assert [member.path for member in walk] == ["a.JPG", "b.npy"]
    assert walk.others == {".npy": 1}
