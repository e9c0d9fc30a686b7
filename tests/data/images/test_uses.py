"""Entries of the cache know the folders that use them, and go when no folder is in their state any more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from diffusion.data.images import store, uses


def entry(cache: Path, name: str) -> Path:
    (cache / name).mkdir(parents=True)
    np.save(cache / name / "values.npy", np.arange(3))
    return cache / name


def test_a_use_is_a_folder_and_a_time(tmp_path: Path) -> None:
    one, began = entry(tmp_path, "a-1"), time.time()
    assert uses.of(one) == {}
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    uses.note(one, tmp_path / "link")
    ((root, when),) = uses.of(one).items()
    assert root == str(tmp_path / "photos") and began <= when <= time.time()
    uses.note(one, tmp_path / "other")
    assert uses.of(one).keys() == {str(tmp_path / "photos"), str(tmp_path / "other")}


def test_a_use_is_noted_again_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = entry(tmp_path, "a-1")
    first = 1e9
    for now, noted in ((first, first), (first + uses.FRESH - 1, first), (first + uses.FRESH,) * 2, (first,) * 2):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        uses.note(one, Path("/photos"))
        assert uses.of(one) == {"/photos": noted}


def test_a_folder_uses_one_entry_of_a_family(tmp_path: Path) -> None:
    old, other, new = entry(tmp_path, "a-1"), entry(tmp_path, "b-1"), entry(tmp_path, "a-2")
    for each in (old, other):
        uses.note(each, Path("/photos"))
    uses.note(old, Path("/copy"))
    uses.note(new, Path("/photos"))
    assert uses.of(old).keys() == {"/copy"} and uses.of(other).keys() == uses.of(new).keys() == {"/photos"}
    mapped = store.array(old / "values.npy")
    uses.note(new, Path("/copy"))
    assert not old.exists() and sorted(tmp_path.iterdir()) == [new, other]
    assert mapped.tolist() == [0, 1, 2], "what is mapped stays readable"


def test_an_entry_of_unknown_use_is_left_alone(tmp_path: Path) -> None:
    old, new = entry(tmp_path, "a-1"), entry(tmp_path, "a-2")
    (old / uses.USES).write_text("[1")
    uses.note(new, Path("/photos"))
    assert old.exists()


def test_a_cache_of_another_user_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    one = entry(tmp_path, "a-1")
    monkeypatch.setattr(uses, "write_text", refuse)
    uses.note(one, Path("/photos"))
    assert uses.of(one) == {}


def test_a_removal_that_is_interrupted_leaves_no_part_of_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = entry(tmp_path, "a-1")
    monkeypatch.setattr(uses.shutil, "rmtree", lambda *arguments, **options: None)
    uses.remove(one)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(store.UNFINISHED)
    monkeypatch.undo()
    long_ago = time.time() - store.DAY - 60
    for path in (left, *left.rglob("*")):
        os.utime(path, (long_ago, long_ago))
    os.utime(left, (long_ago, long_ago))
    with store.unfinished(tmp_path) as folder:
        assert [*tmp_path.iterdir()] == [folder]
