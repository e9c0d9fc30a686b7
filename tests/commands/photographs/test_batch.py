"""A batch restores what can be restored, names the rest, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion.commands.photographs.batch import SOME_FAILED, Batch
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.places import Place
from diffusion.errors import InputError


def places(folder: Path, names: str, *, done: str = "", bad: str = "") -> list[Place]:
    found = []
    for name in names:
        path = folder / f"{name}.png"
        Image.new("RGB", (4, 4)).save(path)
        if name in bad:
            path.write_bytes(b"no image")
        found.append(Place(ImageFile(path, None, Path(name)), folder / "out" / name, done=name in done))
    return found


def test_bad_images_are_named_together_and_the_rest_is_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restored: list[str] = []

    def restore(number: int, place: Place, left: str) -> None:
        if place.file.path.stem == "d":
            raise FloatingPointError("method: gave restorations that are not finite")
        if place.file.path.stem == "e":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        restored.append(place.file.path.stem)

    batch = Batch(places(tmp_path, "abcdef", done="b", bad="c"), alone=False)
    assert batch(restore) == SOME_FAILED and restored == ["a", "f"]
    said = capsys.readouterr()
    assert "1 of 6 images are restored already and left as they are (--again restores them)" in said.out
    assert "left out, as they cannot be restored:" in said.out and "2 restored" in said.out
    assert "error: 3 of 6 images were not restored:" in said.err
    for line in ("c.png: not an image", "d.png: method: gave", "e.png: there is not enough memory for it"):
        assert line in said.err


def test_images_that_are_not_read_are_named_before_and_after_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "photos/x.psd: 3 .psd images are not read: convert them to PNG or TIFF"
    assert Batch(places(tmp_path, "ab"), alone=False, unread=[line])(lambda *_: None) == SOME_FAILED
    said = capsys.readouterr()
    assert f"left out, as they cannot be restored:\n  {line}" in said.out and "2 restored" in said.out
    assert f"error: not all images were restored:\n  {line}" in said.err


def test_what_is_wrong_with_the_one_image_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png: not an image"):
        Batch(places(tmp_path, "a", bad="a"), alone=True)(lambda *_: None)

    def fails(number: int, place: Place, left: str) -> None:
        raise FloatingPointError("not finite")

    with pytest.raises(FloatingPointError, match=r"a\.png: not finite"):
        Batch(places(tmp_path, "a"), alone=True)(fails)


def test_an_error_of_the_program_is_not_taken_for_a_bad_image(tmp_path: Path) -> None:
    def fails(number: int, place: Place, left: str) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        Batch(places(tmp_path, "ab"), alone=False)(fails)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_an_image_too_large_for_any_memory_is_named_with_what_to_do(tmp_path: Path, error: Exception) -> None:
    def fails(number: int, place: Place, left: str) -> None:
        raise error

    with pytest.raises(InputError, match=r"a\.png: there is not enough memory for it; make it smaller"):
        Batch(places(tmp_path, "a"), alone=True)(fails)


def test_how_far_the_work_is_stands_before_each_line(tmp_path: Path) -> None:
    left: list[str] = []
    assert Batch(places(tmp_path, "abc"), alone=False)(lambda number, place, text: left.append(text)) == 0
    assert left[0] == "[1 of 3] " and left[2].startswith("[3 of 3, about 1 s left]")
