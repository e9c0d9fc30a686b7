"""What lies in the cache: of which folders, how large, when last used, and whether it will be read again."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from diffusion import data
from diffusion.data import PixelFormat
from diffusion.data.images import index, inventory, store, uses
from tests.bad_images import solids


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes files count as settled at once."""
    monkeypatch.setattr(store, "CLOCK_NS", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return solids(tmp_path / "images")


def fill(folder: Path, cache: Path, pixel_format: PixelFormat | None = None) -> None:
    cache.mkdir(exist_ok=True)
    found = data.scan(folder, labels=False, cache=cache, progress=False)
    data.pack(found, size=(8, 6), pixel_format=pixel_format or PixelFormat(), cache=cache, progress=False)


def by_kind(cache: Path) -> dict[str, inventory.Stored]:
    return {entry.path.name.partition("-")[0]: entry for entry in inventory.entries(cache)}


def test_entries_state_their_folder_images_bytes_and_last_use(folder: Path, tmp_path: Path) -> None:
    cache, began = tmp_path / "cache", time.time()
    fill(folder, cache)
    found = by_kind(cache)
    assert found.keys() == {"pixels", "index"}
    for entry in found.values():
        assert entry.roots == (str(folder),) and began <= entry.used <= time.time() and entry.obsolete == ""
        assert entry.bytes == sum(path.stat().st_size for path in entry.path.iterdir()) > 0
    assert (found["pixels"].images, found["pixels"].what) == (3, "pixels 6x8, 3 channels")
    assert (found["index"].images, found["index"].what) == (None, "names, headers and hashes")


@pytest.mark.parametrize("pixel_format", [PixelFormat(1), PixelFormat(3, (1, 2, 3), (0.0, 1000.0), 1001)])
def test_entries_of_every_format_are_of_this_version(folder: Path, tmp_path: Path, pixel_format: PixelFormat) -> None:
    fill(folder, tmp_path / "cache", pixel_format)
    assert {entry.obsolete for entry in inventory.entries(tmp_path / "cache")} == {""}


def test_pixels_with_masks_are_of_this_version_and_said(folder: Path, tmp_path: Path) -> None:
    fill(folder, tmp_path / "cache")
    found = data.scan(folder, labels=False, masks="alpha", cache=tmp_path / "cache", progress=False)
    data.pack(found, size=(8, 6), pixel_format=PixelFormat(), cache=tmp_path / "cache", progress=False)
    stored = {entry.what: entry for entry in inventory.entries(tmp_path / "cache")}
    masked, plain = stored["pixels 6x8, 3 channels and masks"], stored["pixels 6x8, 3 channels"]
    assert {entry.obsolete for entry in stored.values()} == {""} and masked.images == plain.images == 3
    assert masked.bytes - plain.bytes >= 3 * 6 * 8


def test_the_largest_come_first(folder: Path, tmp_path: Path) -> None:
    fill(folder, tmp_path / "cache")
    found = inventory.entries(tmp_path / "cache")
    assert [entry.bytes for entry in found] == sorted((entry.bytes for entry in found), reverse=True)


def test_what_is_of_a_folder_that_is_gone_will_not_be_read_again(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fill(folder, cache)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    fill(copy, cache)
    shutil.rmtree(folder)
    found = inventory.entries(cache)
    assert {(entry.roots, entry.obsolete) for entry in found} == {
        ((str(folder), str(copy)), ""),
        ((str(folder),), "its folder is gone"),
        ((str(copy),), ""),
    }


def test_entries_of_earlier_versions_will_not_be_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, earlier = tmp_path / "cache", "written by an earlier version, or damaged"
    fill(folder, cache)
    (cache / ("0" * 32)).mkdir()
    (cache / "pixels-1-2").mkdir()
    old = {"content": {"size": [8, 6], "pixel_format": {"depth": 8}}}
    (cache / "pixels-1-2" / store.MANIFEST).write_text(json.dumps(old))
    found = {entry.path.name: entry.obsolete for entry in inventory.entries(cache)}
    assert found["0" * 32] == found["pixels-1-2"] == earlier and [*found.values()].count("") == 2
    monkeypatch.setattr("diffusion.data.images.cache.LAYOUT", 0)
    monkeypatch.setattr(index, "LAYOUT", 0)
    assert [entry.obsolete for entry in inventory.entries(cache) if entry.roots] == [earlier] * 2


def test_what_a_process_writes_is_no_rest_of_one_that_was_killed(tmp_path: Path) -> None:
    (old := tmp_path / f"{store.UNFINISHED}old").mkdir()
    long_ago = time.time() - store.DAY - 60
    os.utime(old, (long_ago, long_ago))
    (other := tmp_path / "other").mkdir()
    with store.unfinished(other) as folder:
        (folder / "values.npy").write_bytes(b"12345")
        (entry,) = inventory.entries(other)
        assert (entry.bytes, entry.unfinished, entry.obsolete) == (5, True, "")
    (entry,) = inventory.entries(tmp_path)
    assert (entry.unfinished, entry.obsolete) == (True, "left by a process that was killed")


def test_anything_else_is_no_entry(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fill(folder, cache)
    (cache / "notes.txt").write_text("mine")
    (cache / "pixels").mkdir()
    assert len(inventory.entries(cache)) == 2 and inventory.others(cache) == 2
    assert inventory.entries(tmp_path / "none") == [] and inventory.others(tmp_path / "none") == 0


def test_an_entry_without_uses_was_last_used_when_it_was_written(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fill(folder, cache)
    entry = by_kind(cache)["pixels"].path
    (entry / uses.USES).unlink()
    for path in (*entry.iterdir(), entry):
        os.utime(path, (5e8, 5e8))
    found = by_kind(cache)["pixels"]
    assert (found.used, found.roots, found.of, found.obsolete) == (5e8, (), "unknown", "")
