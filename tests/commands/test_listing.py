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
    first, lacking, last = list_images([tmp_path / "a"], tmp_path / "m")
    assert (
        lacking.problem
        == f"--mask: must hold 10.png, or of another suffix, for {lacking.path}; {tmp_path / 'm'} does not"
    )
    assert lacking.mask is None and not first.problem and not last.problem


def test_results_among_the_images_are_left_out_but_not_a_file_that_is_named(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/out/x.png", "m/x.png", "m/out/x.png"):
        save(tmp_path / name)
    asked = []

    def is_result(folder: Path, file: Path) -> bool:
        asked.append((folder, file))
        return file.parent.name == "out"

    found = list_images([tmp_path / "a"], tmp_path / "m", is_result=is_result)
    assert [str(file.folder) for file in found] == ["x"] and found[0].mask == tmp_path / "m" / "x.png"
    assert asked == [(tmp_path / "a", tmp_path / "a" / name) for name in ("out/x.png", "x.png")]
    assert len(list_images([tmp_path / "a" / "out" / "x.png"], is_result=is_result)) == 1
    with pytest.raises(InputError, match="out: no images there"):
        list_images([tmp_path / "a" / "out"], is_result=is_result)


def test_images_without_a_place_of_their_own_are_named(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a" / "x.png"), save(tmp_path / "b" / "x.png")
    with pytest.raises(InputError, match=r"b/x\.png: must have a name of its own, got that of .*a/x\.png"):
        list_images([first, second])
    save(tmp_path / "a" / "x.bmp")
    save(tmp_path / "a" / "y.png")
    assert {str(file.folder) for file in list_images([tmp_path / "a"])} == {"x.png", "x.bmp", "y"}
    with pytest.raises(InputError, match=r"must have a name of its own"):
        list_images([tmp_path / "b"], tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no images there"):
        list_images([tmp_path / "empty"])
    with pytest.raises(InputError, match="IMAGE: no images there"):
        list_images([])
