"""Classes by tables and by names: which image a row means, what has no row, and what is refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from diffusion import data
from diffusion.data import FolderError, Scan, open_folder, table
from diffusion.errors import InputError
from tests.bad_images import solid
from tests.data.images.test_zips import write_zip


def images(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        solid((i, 100, 0)).save(folder / name)
    return folder


def scan(path: Path, labels: bool | str) -> Scan:
    return data.scan(path, labels=labels, progress=False)


def classes(path: Path, labels: bool | str) -> dict[str, str]:
    found = scan(path, labels)
    return {name: found.classes[each.label] for name, each in zip(found.entries.names, found.entries, strict=True)}


TABLE = "file,label\nb.png,dog\na.png,cat\nc.png,10\nd.png,2\n"
WANTED = {"a.png": "cat", "b.png": "dog", "c.png": "10", "d.png": "2"}


@pytest.mark.parametrize("place", ["images/labels.csv", "labels.csv", "images/sub/labels.csv"])
def test_a_table_within_the_folder_or_beside_it(tmp_path: Path, place: str) -> None:
    root = images(tmp_path / "images", *WANTED)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(TABLE)
    option = place.removeprefix("images/")
    assert classes(root, option) == WANTED
    found = scan(root, option)
    assert found.classes == ("2", "10", "cat", "dog")
    assert f"from {option}" in found.labeling[0] or str(tmp_path / "labels.csv") in found.labeling[0]


def test_a_table_where_its_path_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = images(tmp_path / "x" / "images", *WANTED)
    (tmp_path / "elsewhere.csv").write_text(TABLE)
    assert classes(root, str(tmp_path / "elsewhere.csv")) == WANTED
    monkeypatch.chdir(tmp_path)
    assert classes(root, "elsewhere.csv") == WANTED


FORMS = {
    "paths": "cat/1.png,A\ndog/1.png,B",
    "paths from the table": "images/cat/1.png,A\nimages/dog/1.png,B",
    "backslashes": "cat\\1.png,A\n.\\dog\\1.png,B",
    "from the root": "/cat/1.png,A\n./dog/1.png,B",
}


@pytest.mark.parametrize("rows", FORMS.values(), ids=[*FORMS])
def test_rows_mean_images_by_their_paths(tmp_path: Path, rows: str) -> None:
    root = images(tmp_path / "images", "cat/1.png", "dog/1.png")
    (tmp_path / "labels.csv").write_text(f"file,label\n{rows}\n")
    assert classes(root, "labels.csv") == {"cat/1.png": "A", "dog/1.png": "B"}


def test_rows_mean_images_by_name_alone_and_without_suffix(tmp_path: Path) -> None:
    root = images(tmp_path / "images", "x/a.png", "y/b.png", "y/1.5.png")
    (root / "labels.csv").write_text("id,breed\na.png,A\nb,B\n1.5,A\n")
    assert classes(root, "labels.csv") == {"x/a.png": "A", "y/b.png": "B", "y/1.5.png": "A"}
    assert len(scan(root, "labels.csv").labeling) == 1  # The titles are no row without an image.


def test_names_are_compared_in_one_form_of_unicode(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Größe.png")
    root = images(tmp_path, decomposed, "b.png")
    (root / "labels.csv").write_text("file,label\nGröße.png,A\nb.png,B\n")
    assert classes(root, "labels.csv")[decomposed] == "A"


def test_a_name_of_several_images_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path, "x/1.png", "y/1.png")
    (root / "labels.csv").write_text("file,label\n1.png,A\n")
    with pytest.raises(InputError, match=r"labels\.csv, row 2: several images are called 1\.png; write their paths"):
        scan(root, "labels.csv")


def test_two_labels_of_an_image_are_refused_and_a_repeated_one_is_not(tmp_path: Path) -> None:
    root = images(tmp_path, "1.png", "2.png")
    (root / "labels.csv").write_text("file,label\n1.png,A\n1.png,A\n2.png,B\n")
    assert classes(root, "labels.csv") == {"1.png": "A", "2.png": "B"}
    (root / "labels.csv").write_text("file,label\n1.png,A\n2.png,B\n./1.png,B\n")
    with pytest.raises(InputError, match=r"labels\.csv, row 4: \./1\.png is 'B', but 'A' in row 2"):
        scan(root, "labels.csv")


def test_images_without_a_row_and_rows_without_an_image_are_said_and_left_out(tmp_path: Path) -> None:
    root = images(tmp_path / "x", *(f"{i}.png" for i in range(12)))
    rows = [f"{i}.png,{'A' if i % 2 else 'B'}" for i in range(9)] + ["9.png,", "gone.png,A", "lost.png,B"]
    (root / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    found = scan(root, "labels.csv")
    assert found.labeling == (
        "from labels.csv",
        "2 rows name no image here, such as row 12, gone.png",
        "3 images are left out, as each has no label, such as 9.png",
    )
    assert "classes   2: B (5), A (4)\n          from labels.csv\n          2 rows" in table(found)
    dataset = open_folder(
        root, size=(8, 8), labels="labels.csv", cache=tmp_path / "c", log=lambda line: None, progress=False
    )
    assert [*dataset.names] == [f"{i}.png" for i in range(9)]
    assert dataset.spec.classes == ("A", "B")
    assert dataset.labels is not None and dataset.labels.tolist() == [1, 0] * 4 + [1]
    assert [int(image[0, 0, 0]) for image in dataset.batch(range(9))[0]] == [*range(9)]
    with pytest.raises(FolderError, match=r"9 images .*at least 10"):
        open_folder(
            root, size=(8, 8), labels="labels.csv", min_images=10, cache=tmp_path / "c", log=lambda line: None,
            progress=False,
        )  # fmt: skip


def test_a_table_that_says_little_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path, *(f"{i}.png" for i in range(5)))
    (root / "labels.csv").write_text("file,label\n0.png,A\n1.png,B\nz.png,B\n")
    with pytest.raises(InputError, match=r"labels\.csv says nothing of 3 of 5 images, such as 2\.png; .* like 0\.png"):
        scan(root, "labels.csv")


def test_a_column_of_other_things_than_classes_is_refused(tmp_path: Path) -> None:
    root = images(tmp_path, *(f"{i}.png" for i in range(24)))
    (root / "labels.csv").write_text("file,label\n" + "\n".join(f"{i}.png,{i / 7}" for i in range(24)))
    with pytest.raises(InputError, match=r"labels\.csv gives 24 classes to 24 images"):
        scan(root, "labels.csv")


def test_a_missing_table_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    root = images(tmp_path, "1.png")
    (root / "metadata.jsonl").write_text("")
    with pytest.raises(InputError, match=r"no table label\.csv in .*, beside it, or here; .* holds metadata\.jsonl"):
        scan(root, "label.csv")
    with pytest.raises(InputError, match=r"data\.labels: must be true, false, prefix, or a table .*got 'prefixes'"):
        scan(root, "prefixes")
    with pytest.raises(FolderError, match=r'name their table, as in data\.labels="metadata\.jsonl"'):
        scan(root, True)


def test_a_table_within_an_archive(tmp_path: Path) -> None:
    root = images(tmp_path / "x", "sub/a.png", "sub/b.png")
    (root / "sub" / "metadata.csv").write_text("file_name,label\na.png,A\nb.png,B\n")
    path = write_zip(tmp_path / "x.zip", root)
    assert classes(path, "sub/metadata.csv") == {"x.zip/sub/a.png": "A", "x.zip/sub/b.png": "B"}
    assert classes(path / "sub", "metadata.csv") == {"x.zip/sub/a.png": "A", "x.zip/sub/b.png": "B"}


PREFIXES = {
    "cat_01": "cat",
    "cat.02": "cat",
    "cat 3": "cat",
    "cat-(4)": "cat",
    "cat5": "cat",
    "great-white_shark_1": "great-white_shark",
    "b2_01": "b2",
    "Ara_2020_3": "Ara_2020",
}


def test_prefixes_are_the_text_before_the_last_number(tmp_path: Path) -> None:
    root = images(tmp_path, *(f"x/{stem}.png" for stem in PREFIXES))
    assert classes(root, "prefix") == {f"x/{stem}.png": label for stem, label in PREFIXES.items()}


def test_names_without_a_prefix_are_left_out_or_refused(tmp_path: Path) -> None:
    root = images(tmp_path, "cat_1.png", "cat_2.png", "dog_1.png", "7.png", "cat.png")
    found = scan(root, "prefix")
    assert found.labeling[1] == "2 images are left out, as each has no prefix, such as 7.png"
    assert np.count_nonzero(found.entries.rows["group"] < 0) == 2
    images(tmp_path, "8.png", "9.png")
    with pytest.raises(InputError, match=r"4 of 7 names of images have no text before a number .*such as 7\.png"):
        scan(root, "prefix")
