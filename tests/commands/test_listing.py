"""Which images a command finds, and which masks belong to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from diffusion.commands.listing import list_images
from diffusion.errors import InputError


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)
    return path


def test_folders_are_paired_with_masks_by_name(tmp_path: Path) -> None:
    for name in ("a/2.png", "a/10.jpg", "a/inner/2.png", "m/2.bmp", "m/10.png", "m/inner/2.png", "m/more.png"):
        save(tmp_path / name)
    found = list_images([tmp_path / "a"], tmp_path / "m")
    assert [str(file.folder) for file in found] == ["2", "10", "inner/2"]
    assert [file.mask.relative_to(tmp_path / "m").as_posix() for file in found if file.mask] == [
        "2.bmp", "10.png", "inner/2.png"
    ]  # fmt: skip
    both = list_images([tmp_path / "a", tmp_path / "m"], tmp_path / "m" / "2.bmp")
    assert {file.mask for file in both} == {tmp_path / "m" / "2.bmp"} and len(both) == 7
    assert str(both[-1].folder) == "m/more"
    (tmp_path / "m" / "10.png").unlink()
    with pytest.raises(InputError, match=r"--mask: must hold 10\.png, or of another suffix, for .*a/10\.jpg; .*m does"):
        list_images([tmp_path / "a"], tmp_path / "m")


def test_images_without_a_place_of_their_own_are_named(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a" / "x.png"), save(tmp_path / "b" / "x.png")
    with pytest.raises(InputError, match=r"b/x\.png: must have a name of its own, got that of .*a/x\.png"):
        list_images([first, second])
    save(tmp_path / "a" / "x.bmp")
    with pytest.raises(InputError, match=r"must have a name of its own"):
        list_images([tmp_path / "a"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no images there"):
        list_images([tmp_path / "empty"])
    with pytest.raises(InputError, match="IMAGE: no images there"):
        list_images([])
