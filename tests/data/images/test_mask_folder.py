"""Images and the masks in a folder: pairs by name, and what is said or refused where there is none."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.masking import Paired
from diffusion.data.images.scan import Scan, scan
from diffusion.errors import InputError


def draw(path: Path, value: int = 255, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a.jpg, b/1.png and b/2.png, with masks for the first two."""
    for number, name in enumerate(("images/a.jpg", "images/b/1.png", "images/b/2.png")):
        draw(tmp_path / name, 50 + number)
    for name in ("masks/a.png", "masks/b/1_mask.tif"):
        draw(tmp_path / name)
    return tmp_path


def scanned(folder: Path, images: str = "images", masks: str = "masks", **options: object) -> Scan:
    return scan(folder / images, labels=False, masks=str(folder / masks), progress=False, **options)


def test_images_and_masks_are_paired_by_name_and_the_rest_is_said(folder: Path) -> None:
    found = scanned(folder)
    assert isinstance(found.masking, Paired)
    assert found.masking.masks == {"a.jpg": "a.png", "b/1.png": "b/1_mask.tif"}
    assert found.masks == (
        f"2 of 3 images have a mask in {folder / 'masks'}; the others, such as b/2.png, count as seen as a whole"
    )
    draw(folder / "masks/b/2.png")
    assert scanned(folder).masks == f"3 of 3 images have a mask in {folder / 'masks'}"


def test_a_folder_of_masks_among_the_images_holds_no_images_and_no_class(folder: Path) -> None:
    shutil.move(folder / "masks", folder / "images" / "masks")
    found = scan(folder / "images", labels=False, masks=str(folder / "images" / "masks"), progress=False)
    assert [*found.entries.names] == ["a.jpg", "b/1.png", "b/2.png"] and len(found.masking.masks) == 2
    (folder / "images" / "a.jpg").rename(folder / "images" / "b" / "a.jpg")
    (folder / "images" / "masks" / "a.png").rename(folder / "images" / "masks" / "b" / "a.png")
    labeled = scan(folder / "images", labels=True, masks=str(folder / "images" / "masks"), progress=False)
    assert labeled.classes == ("b",) and len(labeled.masking.masks) == 2
    cached = [
        len(scan(folder / "images", labels=False, masks=masks, cache=folder / "cache", progress=False).entries)
        for masks in ("", str(folder / "images" / "masks"), "")
        if (folder / "cache").mkdir(exist_ok=True) is None
    ]
    assert cached == [5, 3, 5], "the index of the cache is that of the images that are meant"


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_images_in_archives_have_masks_beside_these(folder: Path, suffix: str) -> None:
    (folder / "shards").mkdir()
    path = folder / "shards" / f"x.{suffix}"
    if suffix == "tar":
        with tarfile.open(path, "w") as tar:
            tar.add(folder / "images", "")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for file in (folder / "images").rglob("*.*"):
                archive.write(file, file.relative_to(folder / "images"))
    found = scanned(folder, f"shards/x.{suffix}")
    assert found.masking.masks == {f"x.{suffix}/a.jpg": "a.png", f"x.{suffix}/b/1.png": "b/1_mask.tif"}
    shutil.copy(path, path.with_stem("y"))
    with pytest.raises(InputError, match=r"a.png must be the mask of one image, got x\.\w+/a\.jpg and y\.\w+/a\.jpg"):
        scanned(folder, "shards")


def test_an_image_is_known_with_its_mask(folder: Path) -> None:
    """Hashes, by which the cache finds images, change with the masks of them and with no other."""
    plain = scan(folder / "images", labels=False, progress=False).entries
    first = scanned(folder).entries
    draw(folder / "masks/a.png", 0)
    second = scanned(folder).entries
    digests = [entries.rows["digest"].tolist() for entries in (plain, first, second)]
    assert [a != b for a, b in zip(*digests[:2], strict=True)] == [True, True, False]
    assert [a != b for a, b in zip(*digests[1:], strict=True)] == [True, False, False]
    assert len({entries.content["identity"] for entries in (plain, first, second)}) == 3
    assert (
        plain.rows["digest"].tolist()
        == scan(folder / "images", labels=False, progress=False).entries.rows["digest"].tolist()
    )


def test_copies_are_those_of_image_and_mask(folder: Path) -> None:
    shutil.copy(folder / "images/a.jpg", folder / "images/c.jpg")
    assert scan(folder / "images", labels=False, progress=False).entries.content["copies"] == 1
    assert scanned(folder).entries.content["copies"] == 0
    shutil.copy(folder / "masks/a.png", folder / "masks/c.png")
    assert scanned(folder).entries.content["copies"] == 1


def misnamed(folder: Path) -> None:
    (folder / "masks/a.png").rename(folder / "masks/A1.png")


def of_another_size(folder: Path) -> None:
    draw(folder / "masks/a.png", size=(16, 12))


def unreadable(folder: Path) -> None:
    (folder / "masks/a.png").write_bytes(b"")


def not_read(folder: Path) -> None:
    (folder / "masks/b/2.psd").write_bytes(b"8BPS")


def twice(folder: Path) -> None:
    draw(folder / "masks/a.tif")


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "masks")
    (folder / "masks").mkdir()


def shared(folder: Path) -> None:
    draw(folder / "images/a.png")


def missing(folder: Path) -> None:
    shutil.rmtree(folder / "masks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            misnamed,
            "data.masks: 2 images have no mask, such as a.jpg, and 1 masks in {0}/masks have no image, such as A1.png; "
            "name a mask as its image, a.png, or remove the masks of no image",
        ),
        (
            of_another_size,
            "data.masks: {0}/masks/a.png is 16 x 12 pixels, but a.jpg is 8 x 6; a mask has the size of its image: "
            "scale it by 0.5, without smoothing",
        ),
        (unreadable, "data.masks: {0}/masks/a.png: the file is empty"),
        (not_read, "data.masks: {0}/masks/b/2.psd: .psd is not read"),
        (twice, "{0}/masks/a.tif: must have a name of its own, got that of {0}/masks/a.png"),
        (empty, "data.masks: {0}/masks holds no masks"),
        (shared, "data.masks: {0}/masks/a.png must be the mask of one image, got a.jpg and a.png"),
        (missing, "data.masks: must be alpha, a color such as #ff00ff, or a folder of masks, got '{0}/masks'"),
    ],
)
def test_masks_that_leave_a_doubt_are_refused(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    with pytest.raises(InputError, match=re.escape(message.format(folder))):
        scanned(folder)


def test_masks_have_a_folder_of_their_own(folder: Path) -> None:
    with pytest.raises(InputError, match=r"data\.masks: must be another folder than data\.path"):
        scanned(folder, "images", "images")


def test_one_image_has_its_mask_in_a_folder(folder: Path) -> None:
    for name in ("masks/b/1_mask.tif",):
        (folder / name).unlink()
    found = scanned(folder, "images/a.jpg")
    assert found.masking.masks == {"a.jpg": "a.png"}


def test_rows_of_a_dataset_have_no_names(folder: Path, tmp_path: Path) -> None:
    rows = {"image": [np.zeros((6, 8, 3), np.uint8)] * 2}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "hf"))
    with pytest.raises(InputError, match=r"data\.masks: must be alpha or a color for .*, whose images have no names"):
        scanned(folder, "hf")
