from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion.errors import InputError
from diffusion.page import kept
from diffusion.page.kept import Upload, cleaned

ID = "0123456789abcdef"
PHOTO = Upload(ID, "my cat.jpg", 40, 30, "RGB, 8 bits", False, ("has a palette",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat.jpg", "cat.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\cat.png", "cat.png"),
        ("-rf.png", "rf.png"),
        (".hidden", "hidden"),
        ("a<b>\0\n|?.png", "ab.png"),
        ("köln 2.tif", "köln 2.tif"),
        ("", "image"),
        ("/", "image"),
        ("..", "image"),
        ("é" * 300 + ".png", "é" * 58 + ".png"),
    ],
)
def test_names_from_elsewhere(name: str, expected: str) -> None:
    assert cleaned(name) == expected


@given(st.text())
def test_a_cleaned_name_is_one_name_and_stays(name: str) -> None:
    found = cleaned(name)
    assert found and len(found.encode("utf-8", "replace")) <= kept.LONGEST and found not in (".", "..")
    assert not re.search(r"[/\\\0\n]", found) and cleaned(found) == found


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    folder = kept.folder_of(tmp_path, ID)
    (folder / "original").mkdir(parents=True)
    PHOTO.write(folder)
    assert kept.read(tmp_path, ID) == PHOTO
    assert kept.original(tmp_path, ID) == tmp_path / "page" / "uploads" / ID / "original" / "my cat.jpg"
    (folder / "masks").mkdir()
    (folder / "masks" / f"{ID}.png").touch()
    assert kept.mask(tmp_path, ID, ID) == folder / "masks" / f"{ID}.png"


@pytest.mark.parametrize("number", ["", "..", "0" * 16, ID.upper(), f"{ID}\n", "../x", "a\0"])
def test_what_is_not_kept_is_said(tmp_path: Path, number: str) -> None:
    folder = kept.folder_of(tmp_path, ID)
    folder.mkdir(parents=True)
    PHOTO.write(folder)
    for find in (
        lambda: kept.read(tmp_path, number),
        lambda: kept.original(tmp_path, number),
        lambda: kept.mask(tmp_path, ID, number),
    ):
        with pytest.raises(InputError, match=r"hand it over again|must be the id"):
            find()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"id": 1}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    folder = kept.folder_of(tmp_path, ID)
    folder.mkdir(parents=True)
    (folder / kept.RECORD).write_text(text)
    with pytest.raises(InputError, match="hand it over again"):
        kept.read(tmp_path, ID)
