from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import data
from diffusion.data import FolderError, ImageError, Packed, PixelFormat
from diffusion.data.images import cache, sharing, store
from diffusion.data.images.decoding import decode, decode_frames_at, printable, resize_and_crop
from tests.bad_images import BLUE, FOUND_BY_DECODING, GREEN, NOT_UTF8, RED, WHITE, solid

FILES = (sharing.VALUES, sharing.CONTENTS, sharing.DIGESTS, store.MANIFEST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three one-color images, the second of them in a subfolder."""
    (tmp_path / "images" / "b").mkdir(parents=True)
    solid(RED).save(tmp_path / "images" / "a.png")
    solid(GREEN).save(tmp_path / "images" / "b" / "1.png")
    solid(BLUE).save(tmp_path / "images" / "c.png")
    return tmp_path / "images"


def pack(
    folder: Path,
    where: Path | None = None,
    *,
    size: tuple[int, int] = (8, 8),
    channels: int = 3,
    background: tuple[int, int, int] = WHITE,
    labels: bool = False,
) -> Packed:
    found = data.scan(folder, labels=labels, progress=False)
    return data.pack(found, size=size, pixel_format=PixelFormat(channels, background), cache=where, progress=False)


def entries(where: Path) -> list[Path]:
    return sorted(where.iterdir())


def listing(folder: Path) -> list[tuple[str, int, int, int]]:
    paths = [folder, *sorted(folder.rglob("*"))]
    return [(str(p), (s := p.lstat()).st_size, s.st_mtime_ns, s.st_mode) for p in paths]


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache, "decode_frames_at", refuse)


def test_values_are_the_decoded_images(folder: Path, tmp_path: Path) -> None:
    packed = pack(folder, tmp_path / "cache")
    assert packed.names == ("a.png", "b/1.png", "c.png")
    assert packed.values.shape == (3, 3, 8, 8)
    assert (packed.labels, packed.problems, packed.copies) == (None, (), 0)
    for image, color in zip(packed.values, (RED, GREEN, BLUE), strict=True):
        assert (image == np.array(color)[:, None, None]).all()


def test_values_are_on_disk_and_read_only(folder: Path, tmp_path: Path) -> None:
    values = pack(folder, tmp_path / "cache").values
    assert isinstance(values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 0


def test_second_time_reads_the_cache(folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    first = pack(folder, tmp_path / "cache")
    request.getfixturevalue("no_decoding")
    second = pack(folder, tmp_path / "cache")
    assert np.array_equal(first.values, second.values)
    assert first.names == second.names


def test_a_copy_of_the_folder_shares_the_entry(folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pack(folder, tmp_path / "cache")
    shutil.copytree(folder, tmp_path / "copy")
    request.getfixturevalue("no_decoding")
    assert len(pack(tmp_path / "copy", tmp_path / "cache").values) == 3


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from here on."""
    names: list[str] = []
    decode_frames_at = cache.decode_frames_at

    def noted(path: str, *arguments: object) -> object:
        names.append(Path(path).name)
        return decode_frames_at(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "decode_frames_at", noted)
    return names


def test_a_folder_that_grows_by_one_image_decodes_one(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    where = tmp_path / "cache"
    pack(folder, where)
    decoded.clear()
    solid(WHITE).save(folder / "b" / "0.png")
    grown = pack(folder, where)
    assert decoded == ["0.png"]
    assert grown.names == ("a.png", "b/0.png", "b/1.png", "c.png")
    assert len(entries(where)) == 1, "the entry of the earlier state is gone"
    alone = pack(folder, tmp_path / "other")
    assert np.array_equal(grown.values, alone.values) and np.array_equal(grown.contents, alone.contents)


def test_files_that_are_renamed_moved_removed_and_copied_are_not_decoded_again(
    folder: Path, tmp_path: Path, no_decoding: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cache, "decode_frames_at", decode_frames_at)
        pack(folder, tmp_path / "cache")
    (folder / "a.png").rename(folder / "b" / "2.png")
    (folder / "c.png").unlink()
    shutil.copy(folder / "b" / "2.png", folder / "0.png")
    packed = pack(folder, tmp_path / "cache")
    assert packed.names == ("0.png", "b/1.png", "b/2.png")
    for image, color in zip(packed.values, (RED, GREEN, RED), strict=True):
        assert (image == np.array(color)[:, None, None]).all()


def test_a_folder_that_holds_images_of_another_one_shares_them(
    folder: Path, tmp_path: Path, decoded: list[str]
) -> None:
    pack(folder, tmp_path / "cache")
    (tmp_path / "part").mkdir()
    shutil.copy(folder / "c.png", tmp_path / "part" / "x.png")
    solid(WHITE).save(tmp_path / "part" / "y.png")
    decoded.clear()
    part = pack(tmp_path / "part", tmp_path / "cache")
    assert decoded == ["y.png"] and (part.values[0] == np.array(BLUE)[:, None, None]).all()
    assert len(entries(tmp_path / "cache")) == 2, "the other folder is still as it was"
    pack(folder, tmp_path / "cache", size=(4, 4))
    assert sorted(decoded) == ["1.png", "a.png", "c.png", "y.png"], "another size shares nothing"


def test_an_entry_that_another_folder_uses_stays(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    where = tmp_path / "cache"
    shutil.copytree(folder, tmp_path / "copy")
    for each in (folder, tmp_path / "copy"):
        pack(each, where)
    solid(WHITE).save(folder / "z.png")
    pack(folder, where)
    assert len(entries(where)) == 2
    decoded.clear()
    pack(tmp_path / "copy", where)
    assert decoded == []
    shutil.copy(folder / "z.png", tmp_path / "copy")
    pack(tmp_path / "copy", where)
    assert decoded == [] and len(entries(where)) == 1, "both are in the same state again"


def test_images_that_cannot_be_decoded_are_remembered_by_their_bytes(
    zoo: Path, tmp_path: Path, decoded: list[str]
) -> None:
    (tmp_path / "root").mkdir()
    for name in ("truncated.png", "truncated.jpg"):
        shutil.copy(zoo / name, tmp_path / "root")
    solid(RED).save(tmp_path / "root" / "m.png")
    first = pack(tmp_path / "root", tmp_path / "cache")
    solid(GREEN).save(tmp_path / "root" / "a.png")
    decoded.clear()
    second = pack(tmp_path / "root", tmp_path / "cache")
    assert decoded == ["a.png"] and second.problems == first.problems and second.names == ("a.png", "m.png")
    assert (second.values[0] == np.array(GREEN)[:, None, None]).all()
    assert (second.values[1] == np.array(RED)[:, None, None]).all()


def test_pages_of_a_stack_are_shared_page_by_page(tmp_path: Path, decoded: list[str]) -> None:
    def save(name: str, *colors: tuple[int, int, int]) -> None:
        first, *rest = (solid(color) for color in colors)
        first.save(tmp_path / "stacks" / name, save_all=True, append_images=rest)

    def packed() -> Packed:
        found = data.scan(tmp_path / "stacks", labels=False, pages="all", progress=False)
        return data.pack(found, size=(8, 8), pixel_format=PixelFormat(), cache=tmp_path / "cache", progress=False)

    (tmp_path / "stacks").mkdir()
    save("b.tif", RED, GREEN, BLUE)
    packed()
    save("a.tif", GREEN, WHITE)
    decoded.clear()
    second = packed()
    assert decoded == ["a.tif"]
    for image, color in zip(second.values, (GREEN, WHITE, RED, GREEN, BLUE), strict=True):
        assert (image == np.array(color)[:, None, None]).all()


def test_a_damaged_entry_gives_nothing_away(folder: Path, tmp_path: Path, decoded: list[str]) -> None:
    pack(folder, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    content = bytearray((entry / sharing.VALUES).read_bytes())
    content[-1] ^= 1
    (entry / sharing.VALUES).write_bytes(content)
    solid(WHITE).save(folder / "d.png")
    decoded.clear()
    packed = pack(folder, tmp_path / "cache")
    assert sorted(decoded) == ["1.png", "a.png", "c.png", "d.png"]
    assert (packed.values[2] == np.array(BLUE)[:, None, None]).all()


def test_values_of_a_run_stay_readable_when_their_entry_is_replaced(folder: Path, tmp_path: Path) -> None:
    before = pack(folder, tmp_path / "cache")
    solid(WHITE).save(folder / "0.png")
    pack(folder, tmp_path / "cache")
    for image, color in zip(before.values, (RED, GREEN, BLUE), strict=True):
        assert (image == np.array(color)[:, None, None]).all()


def test_changed_bytes_are_seen_even_at_the_same_size_and_time(folder: Path, tmp_path: Path) -> None:
    header, status = b"P6 2 2 255\n", (folder / "a.png").stat()
    for color in (RED, GREEN):
        (folder / "a.png").write_bytes(header + bytes(color) * 4)
        os.utime(folder / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (pack(folder, tmp_path / "cache").values[0] == np.array(color)[:, None, None]).all()


def test_every_setting_has_its_entry(folder: Path, tmp_path: Path) -> None:
    where = tmp_path / "cache"
    assert pack(folder, where).values.shape == (3, 3, 8, 8)
    assert pack(folder, where, size=(8, 4)).values.shape == (3, 3, 8, 4)
    assert pack(folder, where, channels=1).values.shape == (3, 1, 8, 8)
    assert pack(folder, where, background=RED).values.shape == (3, 3, 8, 8)
    assert len(entries(tmp_path / "cache")) == 4


def test_bad_files_are_left_out_and_named_every_time(zoo: Path, tmp_path: Path) -> None:
    scanned = data.scan(zoo, labels=False, progress=False)
    for _ in range(2):
        packed = pack(zoo, tmp_path / "cache")
        assert {p.path.name for p in packed.problems[len(scanned.problems) :]} == FOUND_BY_DECODING
        assert len(packed.names) == len(packed.values) == len(scanned.entries) - len(FOUND_BY_DECODING)
        assert printable(NOT_UTF8) in packed.names
    for name, image in zip(packed.names, packed.values, strict=True):
        if name != printable(NOT_UTF8):
            expected = resize_and_crop(decode(zoo / name, PixelFormat()), (8, 8))
            assert np.array_equal(image, expected.transpose(2, 0, 1))


def test_labels_follow_the_images_that_are_left(tmp_path: Path, zoo: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / "root" / name).mkdir(parents=True)
        shutil.copy(zoo / "truncated.png", tmp_path / "root" / name / "0.png")
        solid(RED).save(tmp_path / "root" / name / "1.png")
    packed = pack(tmp_path / "root", tmp_path / "cache", labels=True)
    assert packed.names == ("x/1.png", "y/1.png")
    assert packed.labels is not None
    assert packed.labels.tolist() == [0, 1]
    assert packed.copies == 2


def test_every_byte_of_an_entry_is_verified(zoo: Path, tmp_path: Path) -> None:
    pack(zoo, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    assert store.read(entry) is not None
    for name in FILES:
        content = (entry / name).read_bytes()
        for place in range(0, len(content), 1 + len(content) // 40):
            (entry / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert store.read(entry) is None
        (entry / name).write_bytes(content)
    assert store.read(entry) is not None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "delete", "rewrite"])
def test_a_damaged_entry_is_rebuilt(folder: Path, tmp_path: Path, name: str, damage: str) -> None:
    good = np.array(pack(folder, tmp_path / "cache").values)
    (entry,) = entries(tmp_path / "cache")
    content = bytearray((entry / name).read_bytes())
    if damage == "delete":
        (entry / name).unlink()
    else:
        flipped = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
        half = content[: len(content) // 2]
        damaged = {"cut": half, "empty": b"", "flip": flipped, "rewrite": b"[]"}
        (entry / name).write_bytes(damaged[damage])
    assert np.array_equal(pack(folder, tmp_path / "cache").values, good)
    assert entries(tmp_path / "cache") == [entry]


def test_a_crash_while_writing_leaves_nothing_that_is_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(folder, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    assert len(pack(folder, tmp_path / "cache").values) == 3


def test_losing_the_race_to_another_process_is_harmless(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def other_was_faster(source: Path, target: Path) -> None:
        if not target.exists():
            shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", other_was_faster)
    assert len(pack(folder, tmp_path / "cache").values) == 3
    assert len(entries(tmp_path / "cache")) == 1


def test_leftovers_of_a_killed_process_are_swept_after_a_day(folder: Path, tmp_path: Path) -> None:
    old, growing, young = (tmp_path / "cache" / f"{store.UNFINISHED}{age}" for age in ("old", "growing", "young"))
    yesterday = time.time() - store.DAY - 60
    for path in (old, growing, young):
        path.mkdir(parents=True)
        (path / "values.npy").touch()
    for path in (old, old / "values.npy", growing):
        os.utime(path, (yesterday, yesterday))
    pack(folder, tmp_path / "cache")
    assert (old.exists(), growing.exists(), young.exists()) == (False, True, True)


def test_full_disk_is_explained_and_cleaned_up(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    found, where = data.scan(folder, labels=False, progress=False), tmp_path / "cache"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FolderError, match=r"^cache: .*No space left.*; set DIFFUSION_CACHE"):
        data.pack(found, size=(8, 8), pixel_format=PixelFormat(), cache=where, progress=False)
    assert entries(where) == []
    with pytest.raises(FolderError, match=r"^cache: .*No space left.*; set DIFFUSION_CACHE"):
        data.scan(folder, labels=False, cache=where, progress=False)
    assert entries(where) == []


def test_too_little_space_is_found_before_decoding(folder: Path, tmp_path: Path, no_decoding: None) -> None:
    with pytest.raises(FolderError, match=r"^cache: .* GB are needed"):
        pack(folder, tmp_path / "cache", size=(10**8, 10**8))


def test_cache_within_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    before = listing(folder)
    (tmp_path / "link").symlink_to(folder / "b")
    for where in (folder, folder / "cache", tmp_path / "link" / "cache"):
        with pytest.raises(FolderError, match=r"^cache: .* lies within the folder of images"):
            pack(folder, where)
    assert listing(folder) == before


def test_the_folder_is_never_written(zoo: Path, tmp_path: Path) -> None:
    before = listing(zoo)
    pack(zoo, tmp_path / "cache")
    assert listing(zoo) == before


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DIFFUSION_CACHE": "here", "XDG_CACHE_HOME": "xdg"}, "here"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/diffusion"),
        ({}, "home/.cache/diffusion"),
    ],
)
def test_default_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("DIFFUSION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    pack(folder)
    assert len(entries(tmp_path / expected)) == 1


def test_a_file_that_vanishes_after_the_scan_is_named(folder: Path, tmp_path: Path) -> None:
    found = data.scan(folder, labels=False, progress=False)
    (folder / "a.png").unlink()
    with pytest.raises(ImageError, match=r"a\.png: No such file or directory"):
        data.pack(found, size=(8, 8), pixel_format=PixelFormat(), cache=tmp_path / "cache", progress=False)
    assert entries(tmp_path / "cache") == []


def test_a_passing_failure_is_not_stored(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("diffusion.data.images.pictures.ImageOps.exif_transpose", too_many_files)
        with pytest.raises(ImageError, match=r"a\.png: Too many open files"):
            pack(folder, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    assert len(pack(folder, tmp_path / "cache").values) == 3


def too_many_files(image: Image.Image) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def test_nothing_to_decode_is_an_error(tmp_path: Path, zoo: Path) -> None:
    (tmp_path / "root").mkdir()
    shutil.copy(zoo / "truncated.jpg", tmp_path / "root" / "x.jpg")
    with pytest.raises(FolderError, match=r"no image in .*root can be decoded; x\.jpg: .*truncated"):
        pack(tmp_path / "root", tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
