from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from diffusion import data
from diffusion.data import FolderError, PixelFormat, Scan, open_folder, table
from diffusion.data.images import reading, store
from diffusion.data.images.decoding import BinaryFile
from diffusion.errors import InputError
from tests.bad_images import BLUE, GREEN, RED, solid

CLASSES = ["dog", "none", "cat"]


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes files count as settled at once."""
    monkeypatch.setattr(store, "CLOCK_NS", 0)


def encoded(color: tuple[int, int, int], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    solid(color).save(file, kind)
    return file.getvalue()


def made(**columns: tuple[list[Any], Any]) -> datasets.Dataset:
    features = datasets.Features({name: feature for name, (_, feature) in columns.items()})
    return datasets.Dataset.from_dict({name: values for name, (values, _) in columns.items()}, features=features)


def pictures(*contents: bytes | None) -> tuple[list[Any], datasets.Image]:
    return [None if c is None else {"bytes": c, "path": None} for c in contents], datasets.Image()


def labels(*numbers: int | None) -> tuple[list[int | None], datasets.ClassLabel]:
    return [*numbers], datasets.ClassLabel(names=CLASSES)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Three images, the second with another label than the others."""
    dataset = made(image=pictures(encoded(RED), encoded(GREEN, "JPEG"), encoded(BLUE)), label=labels(2, 0, 2))
    dataset.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def scan(path: str | Path, labeled: bool = False, cache: Path | None = None) -> Scan:
    return data.scan(path, labels=labeled, cache=cache, progress=False)


def formats(found: Scan) -> list[str]:
    return [entry.header.format for entry in found.entries]


def test_a_saved_dataset_becomes_a_dataset(saved: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    dataset = open_folder(saved, size=(8, 8), labels=True, cache=tmp_path / "c", log=lines.append, min_images=3)
    assert dataset.names == ("row 0", "row 1", "row 2")
    assert dataset.spec.classes == ("dog", "cat")
    assert dataset.labels is not None and dataset.labels.tolist() == [1, 0, 1]
    for row, color in ((0, RED), (2, BLUE)):
        assert (dataset.values[row] == np.array(color)[:, None, None]).all()
    assert lines[0].startswith(f"dataset   {saved}:train\nimages    3\n")
    assert "none: not a class: no image in it" in lines[0]
    assert "PNG (2), JPEG (1)" in lines[0]


def test_unusable_rows_are_named(tmp_path: Path) -> None:
    half = encoded(RED)[:50]  # behind the header
    made(pixels=pictures(encoded(RED), b"", None, half, b"text")).save_to_disk(tmp_path / "saved")
    found = scan(tmp_path / "saved")
    assert [str(entry.path) for entry in found.entries] == ["row 0", "row 3"]
    assert {str(p.path): p.reason.partition(" (")[0] for p in found.problems} == {
        "row 1": "the file is empty",
        "row 2": "the row holds no image",
        "row 4": "not an image of a known format",
    }
    packed = data.pack(found, size=(8, 8), pixel_format=PixelFormat(3, RED), cache=tmp_path / "cache", progress=False)
    assert packed.names == ("row 0",)
    assert "truncated" in packed.problems[-1].reason


def test_a_split_is_chosen(tmp_path: Path) -> None:
    splits = {"test": made(image=pictures(encoded(RED, "JPEG"))), "train": made(image=pictures(encoded(RED)))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert formats(scan(tmp_path / "saved")) == formats(scan(f"hf://{tmp_path}/saved:train")) == ["PNG"]
    assert formats(scan(f"hf://{tmp_path}/saved:test")) == ["JPEG"]
    with pytest.raises(InputError, match=r"hf://.*/saved:valid has no split 'valid'; it has test, train"):
        scan(f"hf://{tmp_path}/saved:valid")


def test_files_of_a_repository_are_loaded_into_the_cache_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    for name in ("owner/rows", "owner/files/cat", "owner/files/dog", "cache"):
        (tmp_path / name).mkdir(parents=True)
    made(image=pictures(encoded(RED))).to_parquet(tmp_path / "owner" / "rows" / "train.parquet")
    found = scan("hf://owner/rows", cache=tmp_path / "cache")
    assert formats(found) == ["PNG"]
    assert found.container.name == "hf://owner/rows:train"
    assert found.container.root.is_relative_to(tmp_path / "hub")
    # Rows of Arrow files that hold paths instead of bytes.
    solid(RED).save(tmp_path / "owner" / "files" / "cat" / "1.png")
    solid(RED).save(tmp_path / "owner" / "files" / "dog" / "1.jpg")
    found = scan("hf://owner/files", labeled=True, cache=tmp_path / "cache")
    assert formats(found) == ["PNG", "JPEG"]
    assert (found.classes, [entry.label for entry in found.entries]) == (("cat", "dog"), [0, 1])


def test_an_unchanged_dataset_is_not_read_again(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    first = scan(saved, labeled=True, cache=tmp_path / "cache")
    reads = []
    read_header = reading.read_header

    def noted(path: str, file: BinaryFile) -> data.Header:
        reads.append(path)
        return read_header(path, file)

    monkeypatch.setattr(reading, "read_header", noted)
    second = scan(saved, labeled=True, cache=tmp_path / "cache")
    assert reads == []
    assert [*second.entries] == [*first.entries] and table(second) == table(first)
    (arrow,) = saved.glob("*.arrow")
    os.utime(arrow, ns=(1, 1))
    assert [*scan(saved, labeled=True, cache=tmp_path / "cache").entries] == [*first.entries]
    assert sorted(reads) == ["row 0", "row 1", "row 2"]


def test_classes_are_needed_where_labels_are(tmp_path: Path) -> None:
    made(image=pictures(encoded(RED))).save_to_disk(tmp_path / "none")
    made(image=pictures(encoded(RED), encoded(RED)), label=labels(1, None)).save_to_disk(tmp_path / "some")
    for name, row in (("none", 0), ("some", 1)):
        with pytest.raises(FolderError, match=rf"data\.labels: 1 images .* like row {row}: .*ClassLabel"):
            scan(tmp_path / name, labeled=True)
        assert {entry.label for entry in scan(tmp_path / name).entries} == {-1}


def test_of_several_columns_the_one_with_the_usual_name_is_taken(tmp_path: Path) -> None:
    one, other = pictures(encoded(RED)), pictures(encoded(RED, "JPEG"))
    made(mask=other, image=one).save_to_disk(tmp_path / "usual")
    assert formats(scan(tmp_path / "usual")) == ["PNG"]
    made(left=one, right=other).save_to_disk(tmp_path / "unusual")
    made(text=(["a"], datasets.Value("string"))).save_to_disk(tmp_path / "text")
    for name, columns in (("unusual", "left, right"), ("text", "text")):
        with pytest.raises(
            InputError, match=rf"{name}:train needs a column of type Image.*; its columns are {columns}"
        ):
            scan(tmp_path / name)


def test_what_cannot_be_loaded_is_explained(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"data\.path: hf:///.*/nothing cannot be loaded: "):
        scan(f"hf://{tmp_path}/nothing")
    for nameless in ("hf://", "hf://:train"):
        with pytest.raises(InputError, match=rf"data\.path: {nameless} names no dataset; write hf://OWNER/NAME or "):
            scan(nameless)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the package datasets, .*pip install 'reverse-diffusion\[datasets\]'"):
        scan(saved)
