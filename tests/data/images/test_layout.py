"""Layouts of data sets: which folders are splits, wrappers or masks, and which are classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diffusion.data import FolderError, Scan, scan, table
from diffusion.data.images.layout import (
    Parts,
    descended,
    find_splits,
    find_targets,
    find_wrapper,
    split_files,
    split_words,
    within,
)
from tests.bad_images import solid
from tests.data.images.test_zips import write_zip


def of(*folders: str) -> dict[str, int]:
    return dict.fromkeys(folders, 5)


SPLITS = [
    (of("train/cat", "train/dog", "val/cat", "val/dog"), {"train": 10, "val": 10}, "train"),
    (of("train", "val"), {"train": 5, "val": 5}, "train"),
    (of("Test", "TRAIN", "Valid"), {"Test": 5, "TRAIN": 5, "Valid": 5}, "TRAIN"),
    (of("train2017", "val2017"), {"train2017": 5, "val2017": 5}, "train2017"),
    (of("Training/glioma", "Testing/glioma", "extra"), {"Training": 5, "Testing": 5}, "Training"),
    (of("trainA", "trainB", "testA", "testB"), dict.fromkeys(("trainA", "trainB", "testA", "testB"), 5), "trainA"),
    (of("DIV2K_train_HR", "DIV2K_valid_HR"), dict.fromkeys(("DIV2K_train_HR", "DIV2K_valid_HR"), 5), "DIV2K_train_HR"),
    (of("training_set/a", "test_set/a"), {"training_set": 5, "test_set": 5}, "training_set"),
    (of("data/train/cat", "data/dev/cat"), {"train": 5, "dev": 5}, "data/train"),
    (of("trainset", "testset"), {"trainset": 5, "testset": 5}, "trainset"),
]


@pytest.mark.parametrize(("folders", "counts", "first"), SPLITS)
def test_parts_of_data_sets_are_recognized(folders: dict[str, int], counts: dict[str, int], first: str) -> None:
    parts = find_splits(folders)
    assert parts is not None
    assert (parts.counts, parts.first) == (counts, first)


@pytest.mark.parametrize(
    "folders",
    [
        of("cat", "dog"),
        of("train", "bus", "car"),  # vehicles
        of("test_cat", "test_dog"),
        of("training1", "training2"),
        of("valley", "mountain"),
        of("trainer", "tester"),
        of("train", "val", "cat"),
        of(""),
        {},
    ],
)
def test_other_folders_are_no_parts(folders: dict[str, int]) -> None:
    assert find_splits(folders) is None


def test_words_of_names() -> None:
    assert split_words("train2017") == {"train"}
    assert split_words("testA") == {"test"}
    assert split_words("my-validation-images") == {"validation"}
    assert split_words("contest") == split_words("trains") == set()


def test_the_part_with_most_images_is_first_without_a_training_part() -> None:
    assert Parts("data", {"val": 3, "test": 9}).first == "data/test"
    assert str(Parts("", {"train": 1200, "val": 9})) == "train (1,200), val (9)"


def test_a_folder_around_all_is_found_and_one_class_is_not() -> None:
    assert find_wrapper(of("photos/cat", "photos/dog")) == Parts("photos", {"cat": 5, "dog": 5})
    assert find_wrapper(of("a/b/cat", "a/b/dog")) == Parts("a/b", {"cat": 5, "dog": 5})
    assert find_wrapper(of("photos")) is find_wrapper(of("cat", "dog")) is find_wrapper(of("", "photos/cat")) is None
    assert descended(of("a/b/cat", "a/b/dog"))[0] == "a/b"


def test_masks_beside_images_are_found_at_any_level() -> None:
    assert find_targets(of("images", "masks")) == [("images", "masks")]
    assert find_targets(of("JPEGImages", "SegmentationClass")) == [("JPEGImages", "SegmentationClass")]
    assert find_targets(of("images/train", "labels/train")) == [("images", "labels")]
    assert find_targets(of("a/imagesTr", "a/labelsTr", "b/img", "b/ground_truth")) == [
        ("a/imagesTr", "a/labelsTr"),
        ("b/img", "b/ground_truth"),
    ]
    assert find_targets(of("images", "cat", "labels")) == find_targets(of("cat", "masks")) == []


def test_files_of_splits() -> None:
    assert split_files(["train-000.tar", "val-000.tar"]) == ["train-000.tar", "val-000.tar"]
    assert split_files(["train-0.tar", "train-1.tar"]) == split_files(["a.tar", "train.tar", "val.tar"]) == []
    assert within(of("train", "train/cat", "trains"), "train") == 10


def write(folder: Path, *names: str, count: int = 2) -> Path:
    for name in names:
        for i in range(count):
            path = folder / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            solid((i, 0, 0)).save(path)
    return folder


def scanned(path: Path, *, labels: bool) -> Scan:
    return scan(path, labels=labels, progress=False)


@pytest.mark.parametrize("zipped", [False, True])
def test_splits_are_no_classes_and_are_said_without_labels(tmp_path: Path, *, zipped: bool) -> None:
    root = write(tmp_path / "data", "train/cat", "train/dog", "val/cat", "val/dog")
    root = write_zip(tmp_path / "data.zip", root) if zipped else root
    with pytest.raises(
        FolderError, match=rf"train, val in .* are parts of a data set .* set data\.path={re.escape(str(root))}/train"
    ):
        scanned(root, labels=True)
    text = table(scanned(root, labels=False))
    assert f"SPLITS    train (4), val (4): ALL of them are taken; set data.path={root}/train" in text
    assert scanned(root / "train", labels=True).classes == ("cat", "dog")
    assert "SPLITS" not in table(scanned(root / "train", labels=True))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_around_the_classes_is_no_class(tmp_path: Path, *, zipped: bool) -> None:
    root = write(tmp_path / "data", "photos/cat", "photos/dog")
    root = write_zip(tmp_path / "data.zip", root) if zipped else root
    with pytest.raises(
        FolderError, match=rf"photos would be the only class .*cat, dog; .*{re.escape(str(root))}/photos"
    ):
        scanned(root, labels=True)
    assert scanned(root / "photos", labels=True).classes == ("cat", "dog")
    assert len(scanned(root, labels=False).entries) == 4


def test_masks_are_no_class_and_are_said_without_labels(tmp_path: Path) -> None:
    root = write(tmp_path, "images", "masks")
    with pytest.raises(FolderError, match=r"masks lies beside images .* data\.labels=false"):
        scanned(root, labels=True)
    assert f"MASKS     masks (2) beside images (2) is taken too; set data.path={root}/images" in table(
        scanned(root, labels=False)
    )


def test_one_class_stays_allowed(tmp_path: Path) -> None:
    assert scanned(write(tmp_path, "roses"), labels=True).classes == ("roses",)


def test_archives_of_splits_are_said(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_zip(tmp_path / "all" / f"{name}-0.zip", write(tmp_path / name, "cat"))
    assert "SPLITS    train-0.zip, val-0.zip: ALL of them are taken" in table(scanned(tmp_path / "all", labels=True))
