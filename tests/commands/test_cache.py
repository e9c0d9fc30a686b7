"""`diffusion cache`: what it lists, what it removes, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from diffusion import cli, data
from diffusion.commands.cache import amount
from diffusion.data import PixelFormat
from diffusion.data.images import inventory, store, uses
from tests.bad_images import BLUE, GREEN, RED, solid, solids
from tests.conftest import fails


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "CLOCK_NS", 0)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return solids(tmp_path / "images")


def opened(folder: Path, size: int = 8) -> data.Packed:
    (folder.parent / "cache").mkdir(exist_ok=True)
    found = data.scan(folder, labels=False, cache=folder.parent / "cache", progress=False)
    return data.pack(found, size=(size, size), pixel_format=PixelFormat(), progress=False)


def run(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> str:
    capsys.readouterr()
    assert cli.main(["cache", *options]) == code
    return capsys.readouterr().out


def test_the_list_has_folder_images_bytes_and_last_use(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(folder)
    found = inventory.entries(cache)
    (pixels,), (index,) = ([entry for entry in found if entry.path.name.startswith(kind)] for kind in ("p", "i"))
    today = time.strftime("%Y-%m-%d", time.localtime(pixels.used))
    lines = run(capsys).splitlines()
    total = amount(pixels.bytes + index.bytes)
    assert lines[0].startswith(f"{cache}: 2 entries, {total}; ") and lines[0].endswith("of the disk are free")
    assert f"{today:<12}{amount(pixels.bytes):>9}{3:>11}  {'pixels 8x8, 3 channels':<28}{folder}" in lines
    assert f"{today:<12}{amount(index.bytes):>9}{'':>11}  {'names, headers and hashes':<28}{folder}" in lines
    assert not any("will not be read again" in line for line in lines)
    assert inventory.entries(cache) == found, "a list changes nothing"


def test_an_empty_cache_is_said(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--prune", "--all"]):
        assert run(capsys, *options) == f"{cache}: the cache is empty\n"
    assert not cache.exists()


def test_pruning_removes_what_will_not_be_read_again_and_says_what(
    folder: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(folder)
    gone = tmp_path / "gone"
    gone.mkdir()
    solid((1, 2, 3)).save(gone / "x.png")
    opened(gone)
    shutil.rmtree(gone)
    (cache / ("a" * 32)).mkdir()
    assert "diffusion cache --prune removes 3 entries, " in run(capsys)
    before = sum(entry.bytes for entry in inventory.entries(cache))
    lines = run(capsys, "--prune").splitlines()
    left = inventory.entries(cache)
    assert {entry.roots for entry in left} == {(str(folder),)} and len(left) == 2
    assert sum(line.endswith(f"{gone}; its folder is gone") for line in lines) == 2
    now = sum(entry.bytes for entry in left)
    assert lines[-1] == f"{cache}: 5 entries, {amount(before)} before, 2 entries, {amount(now)} now"
    assert len(lines) == 4
    assert opened(folder).names == ("0.png", "1.png", "2.png")


def test_pruning_by_age_removes_what_was_not_used_for_so_many_days(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(folder)
    opened(folder, 4)
    for entry in inventory.entries(cache):
        days = 10 if "4x4" in entry.what else 3
        uses._write(entry.path, {str(folder): time.time() - days * 86_400})
    assert run(capsys, "--prune", "--older-than", "11").splitlines()[-1].count("3 entries") == 2
    run(capsys, "--prune", "--older-than", "7")
    left = sorted(entry.what for entry in inventory.entries(cache))
    assert left == ["names, headers and hashes", "pixels 8x8, 3 channels"]
    run(capsys, "--prune", "--older-than", "0.5")
    assert inventory.entries(cache) == []


def test_a_use_makes_an_entry_young_again(folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened(folder)
    for entry in inventory.entries(cache):
        uses._write(entry.path, {str(folder): time.time() - 10 * 86_400})
    opened(folder)
    run(capsys, "--prune", "--older-than", "7")
    assert len(inventory.entries(cache)) == 2


def test_a_run_that_trains_keeps_what_it_has_mapped_when_all_is_removed(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = opened(folder)
    run(capsys, "--prune", "--all")
    assert inventory.entries(cache) == []
    for image, color in zip(packed.values, (RED, GREEN, BLUE), strict=True):
        assert (image == np.array(color)[:, None, None]).all()
    assert np.array_equal(opened(folder).values, packed.values)


def test_what_other_processes_write_and_what_is_not_of_the_cache_are_left_alone(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(folder)
    (cache / "mine.txt").write_text("mine")
    (old := cache / f"{store.UNFINISHED}old").mkdir()
    os.utime(old, (1e9, 1e9))
    (now := cache / f"{store.UNFINISHED}now").mkdir()
    assert "1 other files or folders lie there, which are never touched" in run(capsys)
    text = run(capsys, "--prune", "--all")
    assert "1 entry, 0 B that other processes are writing were left alone" in text
    assert "left by a process that was killed" in text
    assert sorted(cache.iterdir()) == sorted([now, cache / "mine.txt"])


def test_an_entry_that_cannot_be_removed_is_named_and_the_others_go(
    folder: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(folder)
    remove = uses.remove

    def refuse(path: Path) -> None:
        if path.name.startswith("pixels"):
            raise PermissionError(13, "Permission denied")
        remove(path)

    monkeypatch.setattr(uses, "remove", refuse)
    text = run(capsys, "--prune", "--all", code=1)
    (left,) = inventory.entries(cache)
    assert left.path.name.startswith("pixels") and f"not removed: {left.path}: Permission denied" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--all"], "--all: has no effect without --prune"),
        (["--older-than", "3"], "--older-than: has no effect without --prune"),
        (["--prune", "--all", "--older-than", "3"], "--older-than: has no effect with --all"),
        (["--prune", "--older-than", "-1"], "--older-than: must be 0 or more, got -1"),
    ],
)
def test_options_without_effect_are_refused(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert fails(capsys, "cache", *options).startswith(f"error: {message}")


def test_inspect_says_how_much_lies_in_the_cache(folder: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened(folder)
    capsys.readouterr()
    assert cli.main(["inspect", str(folder), "--no-decode", "--no-measure"]) == 0
    total = amount(sum(entry.bytes for entry in inventory.entries(cache)))
    assert f"cache     2 entries, {total} in {cache}, as diffusion cache lists" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_340_000, "2.3 MB"), (5 * 10**9, "5.0 GB"), (10**13, "10.0 TB")],
)
def test_amounts_are_in_the_largest_unit_that_fits(count: int, text: str) -> None:
    assert amount(count) == text
