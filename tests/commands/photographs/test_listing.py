"""Which images a command finds, and which masks belong to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from diffusion.commands.photographs.listing import list_images
from diffusion.errors import InputError


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Masks have other contents than images: a mask that equals its image is refused.
    Image.new("RGB", (8, 6), "white" if "m" in path.parts else "red").save(path)
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
    assert {file.mask for file in both} == {tmp_path / "m" / "2.bmp"} and len(both) == 6
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
    assert [str(file.folder) for file in list_images([first, second])] == ["a/x.png", "b/x.png"]
    with pytest.raises(InputError, match=r"a/x\.png: must have a name of its own, got that of .*a/x\.png"):
        list_images([first, first])
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


@pytest.mark.parametrize("mask", ["x_mask.png", "x-mask.bmp", "x.mask.png", "MASK_x.png", "x_Mask.tif"])
def test_a_mask_beside_its_image_is_found_by_its_name_and_is_no_image(tmp_path: Path, mask: str) -> None:
    for name in ("x.jpg", mask, "mask.png", "y_mask.png", "inner/x.png"):
        save(tmp_path / "a" / name)
    found = list_images([tmp_path / "a"], paired=True)
    masks = {file.path.name: file.mask and file.mask.name for file in found if file.path.parent == tmp_path / "a"}
    # The mask of an image that is not there, and a file of that name alone, may be photographs.
    assert masks == {"x.jpg": mask, "mask.png": None, "y_mask.png": None}
    assert [file.beside for file in found if file.path.name == "x.jpg"] == [True]
    alone = list_images([tmp_path / "a" / "x.jpg"], paired=True)
    assert alone[0].mask == tmp_path / "a" / mask and alone[0].beside
    assert list_images([tmp_path / "a" / "x.jpg"])[0].mask is None
    assert mask not in {file.path.name for file in list_images([tmp_path / "a"])}


def test_a_folder_of_images_and_masks_pairs_them_and_no_image_masks_itself(tmp_path: Path) -> None:
    for name in ("x.jpg", "x_mask.png", "y.png"):
        save(tmp_path / "m" / name)
    first, second = list_images([tmp_path / "m"], tmp_path / "m" / ".." / "m")
    assert first.path.name == "x.jpg" and first.mask is not None and first.mask.name == "x_mask.png"
    assert second.mask is None and "must hold a mask y_mask.png for " in second.problem


@pytest.mark.parametrize("masks", ["a/masks", "a/masks/x.png"])
def test_masks_that_lie_within_the_folder_of_images_are_no_images_which_is_said(tmp_path: Path, masks: str) -> None:
    for name in ("a/x.jpg", "a/masks/x.png", "a/masks/z.png"):
        save(tmp_path / name)
    Image.new("L", (8, 6), 255).save(tmp_path / "a" / "masks" / "x.png")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    notices: list[str] = []
    found = list_images([tmp_path / "a"], tmp_path / "link" / masks.removeprefix("a/"), notices=notices)
    assert found[-1].mask is not None and found[-1].mask.samefile(tmp_path / "a" / "masks" / "x.png")
    if masks == "a/masks":
        assert [str(file.folder) for file in found] == ["x"] and not found[0].problem
        assert notices == [
            f"2 files are masks and left out, such as {tmp_path / 'a' / 'masks' / 'x.png'}",
            f"{tmp_path / 'link' / 'masks' / 'z.png'} is a mask of no image",
        ]
    else:
        assert [str(file.folder) for file in found] == ["masks/z", "x"]
        assert notices == [f"{tmp_path / 'a' / 'masks' / 'x.png'} is a mask and left out"]


def test_masks_among_the_files_that_a_shell_names_are_no_images(tmp_path: Path) -> None:
    """As in photos/*.png."""
    files = [save(tmp_path / name) for name in ("x.png", "x_mask.png", "y.png", "z_mask.png")]
    found = list_images(files, paired=True)
    assert [file.path.name for file in found] == ["x.png", "y.png", "z_mask.png"] and found[0].mask == files[1]
    notices: list[str] = []
    assert len(list_images(files, notices=notices)) == 3 and notices == [f"{files[1]} is a mask and left out"]
    assert [file.path for file in list_images(files[1:2])] == files[1:2]


def test_a_folder_of_masks_among_the_images_is_that_of_their_masks(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "a/y.png", "a/masks/x.png", "a/masks/z.png"):
        save(tmp_path / name)
    found = {str(file.folder): file.mask for file in list_images([tmp_path / "a"], paired=True)}
    assert found == {"x": tmp_path / "a" / "masks" / "x.png", "y": None, "masks/z": None}
    assert list_images([tmp_path / "no" / "x.jpg"], paired=True)[0].mask is None
    [alone] = list_images([tmp_path / "a" / "x.jpg"], paired=True)
    assert alone.mask == tmp_path / "a" / "masks" / "x.png" and alone.beside
    assert [str(file.folder) for file in list_images([tmp_path / "a" / "masks"], paired=True)] == ["x", "z"]


def test_two_masks_beside_an_image_are_named(tmp_path: Path) -> None:
    for name in ("x.png", "x_mask.png", "x-mask.png", "y.png"):
        save(tmp_path / "a" / name)
    found = list_images([tmp_path / "a"], paired=True)
    assert [file.path.name for file in found] == ["x.png", "y.png"]
    assert "x.png: has 2 masks beside it, x-mask.png, x_mask.png; name one with --mask" in found[0].problem


def test_masks_of_no_image_are_said_with_images_that_have_none(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/y.png", "m/x.png", "m/z.png", "m/w_mask.png"):
        save(tmp_path / name)
    notices: list[str] = []
    first, second = list_images([tmp_path / "a"], tmp_path / "m", notices=notices)
    assert not first.problem and "must hold y.png" in second.problem
    assert notices == [f"2 files are masks of no image, such as {tmp_path / 'm' / 'w_mask.png'}"]
    notices.clear()
    list_images([tmp_path / "a" / "x.png"], tmp_path / "m", notices=notices)  # Of one file that is no matter.
    assert notices == []


def test_an_image_given_as_its_own_mask_is_refused_under_any_name(tmp_path: Path) -> None:
    photo = save(tmp_path / "x.png")
    (tmp_path / "link.png").symlink_to(photo)
    (tmp_path / "copy.png").write_bytes(photo.read_bytes())
    for mask in ("x.png", "link.png", "copy.png"):
        [file] = list_images([photo], tmp_path / mask)
        assert f"--mask: {tmp_path / mask} is the image itself; name a mask" in file.problem


def test_images_that_are_not_read_are_told_with_what_to_do(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "in").mkdir()
    for name in ("y.psd", "in/z.psd", "notes.txt"):
        (tmp_path / "a" / name).write_text("8BPS")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    unread: list[str] = []
    assert len(list_images([tmp_path / "a"], unread=unread)) == 1
    assert unread == [
        f"{tmp_path / 'a' / 'gone.png'}: a broken link",
        f"{tmp_path / 'a' / 'in' / 'z.psd'}: 2 .psd images are not read: convert them to PNG or TIFF",
    ]
    (tmp_path / "a" / "x.png").unlink()
    with pytest.raises(InputError, match=r"2 \.psd images are not read: convert them"):
        list_images([tmp_path / "a"])
