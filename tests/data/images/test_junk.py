"""What nobody means is skipped by its name, and results of this package by what they carry."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
import tifffile
from PIL import Image, PngImagePlugin

from diffusion.data import FolderError, scan, table
from diffusion.data.images.encoding import png_text
from diffusion.data.images.folder import FolderWalk
from diffusion.data.images.junk import FORKS, HIDDEN, OWN, RECORDS, carries_settings, junk, listed_results
from tests.bad_images import BLUE, GREEN, RED, solid

NAMES = [
    *("@eaDir", "#recycle", "#snapshot", "@Recently-Snapshot", "$RECYCLE.BIN", "System Volume Information"),
    *("lost+found", "__MACOSX", ".ipynb_checkpoints", ".thumbnails", "Thumbs.db", "desktop.ini", ".DS_Store"),
    *(".AppleDouble", ".picasaoriginals", "Catalog Previews.lrdata", "RECYCLER", "~snapshot", ".Trash-1000"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_systems_are_known(name: str) -> None:
    assert junk(name) == name


def test_other_names_with_a_dot_are_counted_together_and_usual_ones_are_kept() -> None:
    assert junk("._photo.jpg") == FORKS
    assert junk(".hidden.png") == HIDDEN
    for name in ("photo.jpg", "recycled", "lost", "thumbs", "snapshot", "#1.png", "@home", "$5.jpg"):
        assert junk(name) is None


def test_a_share_is_scanned_without_its_junk_which_is_counted(tmp_path: Path) -> None:
    solid(RED).save(tmp_path / "a.png")
    for name in NAMES:
        if "." not in name or name[0] == ".":
            (tmp_path / name / "deep").mkdir(parents=True)
            solid(GREEN).save(tmp_path / name / "deep" / "a.png")
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "._a.png").write_bytes(b"fork")
    found = scan(tmp_path, labels=False, progress=False)
    assert found.entries.names == ("a.png",)
    assert not found.problems and not found.others
    skipped = found.entries.content["skipped"]
    assert skipped["@eaDir"] == skipped["Thumbs.db"] == skipped[FORKS] == 1
    assert "skipped   " in table(found)


def test_junk_that_comes_later_is_counted_too(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "cache").mkdir()
    solid(RED).save(tmp_path / "images" / "a.png")
    for count in range(2):
        found = scan(tmp_path / "images", labels=False, cache=tmp_path / "cache", progress=False)
        assert sum(found.entries.content["skipped"].values()) == count
        (tmp_path / "images" / "@eaDir").mkdir(exist_ok=True)


def results(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        solid(BLUE).save(folder / f"restored-{i}.png", pnginfo=png_text({"seed": i}))


def test_results_of_this_package_are_no_images_unless_there_are_no_others(tmp_path: Path) -> None:
    results(tmp_path / "out", 3)
    alone = scan(tmp_path, labels=False, progress=False)
    assert len(alone.entries) == 3 and OWN not in alone.entries.content["skipped"]
    assert "results   all images are results of diffusion" in table(alone)
    solid(RED).save(tmp_path / "z.png")
    found = scan(tmp_path, labels=False, progress=False)
    assert found.entries.names == ("z.png",)
    assert found.entries.content["skipped"] == {OWN: 3}
    assert "skipped   results of diffusion (3)" in table(found)


def test_results_alone_do_not_stay_images_once_others_are_there(tmp_path: Path) -> None:
    results(tmp_path / "images", 2)
    (tmp_path / "cache").mkdir()
    for name in ("", "photo.png"):
        if name:
            solid(RED).save(tmp_path / "images" / name)
        found = scan(tmp_path / "images", labels=False, cache=tmp_path / "cache", progress=False)
        assert found.entries.names == ((name,) if name else ("restored-0.png", "restored-1.png"))


def test_recorded_results_of_any_format_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    solid(RED).save(tmp_path / "a.jpg")
    for name in ("out/a.jpg", "out/sub/b.jpg", "out/other.jpg"):
        solid(GREEN).save(tmp_path / name)
    lines = [json.dumps({"result": "a.jpg"}), json.dumps({"result": "sub/b.jpg"}), "{cut off"]
    (tmp_path / "out" / RECORDS).write_text("\n".join(lines))
    assert listed_results(str(tmp_path / "out")) == {"a.jpg", "sub/b.jpg"}
    found = scan(tmp_path, labels=False, progress=False)
    assert found.entries.names == ("a.jpg", "out/other.jpg")
    assert found.entries.content["skipped"] == {OWN: 2}
    # A command that restores images tells results from them itself, and counts them.
    assert sum(1 for _ in FolderWalk(tmp_path, ordered=True, own=True)) == 4


def png(info: PngImagePlugin.PngInfo | None = None) -> BytesIO:
    file = BytesIO()
    solid(RED).save(file, "PNG", pnginfo=info)
    return BytesIO(file.getvalue())


def test_settings_are_found_in_png_and_tiff_and_nowhere_else(tmp_path: Path) -> None:
    other = PngImagePlugin.PngInfo()
    other.add_text("title", "diffusion")
    compressed = PngImagePlugin.PngInfo()
    compressed.add_text("diffusion", "{}", zip=True)
    assert carries_settings("PNG", png(png_text({"n": 1})))
    assert carries_settings("PNG", png(compressed))
    assert not carries_settings("PNG", png())
    assert not carries_settings("PNG", png(other))
    assert not carries_settings("PNG", BytesIO(b"\x89PNG\r\n\x1a\n\0\0"))
    for description, expected in (('{"diffusion": {}}', True), ('{"else": 1}', False), ("words", False)):
        file = BytesIO()
        tifffile.imwrite(file, [[0, 1]], description=description, metadata=None)
        assert carries_settings("TIFF", BytesIO(file.getvalue())) is expected
    assert not carries_settings("JPEG", png(png_text({})))


def test_a_folder_of_junk_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "#recycle").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "#recycle" / "a.png")
    with pytest.raises(FolderError, match=r"0 readable images .*skipped: 1 #recycle"):
        scan(tmp_path, labels=False, progress=False)
