from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data import FolderError, write_digits
from diffusion.data.synthetic import digits


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    return write_digits(tmp_path_factory.mktemp("data") / "new" / "digits")


def test_digits_are_those_of_scikit_learn(written: Path) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    assert sum(1 for _ in written.rglob("*.png")) == 1797
    for i in (0, 1, 1796):
        with Image.open(written / str(source.target[i]) / f"{i:04}.png") as image:
            assert image.mode == "L"
            assert np.abs(np.asarray(image) - source.images[i] * 255 / 16).max() <= 0.5


def test_second_call_returns_at_once(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_load", lambda: pytest.fail("read again"))
    assert write_digits(written) == written


def test_nothing_but_the_folder_is_left(written: Path) -> None:
    assert [path.name for path in written.parent.iterdir()] == ["digits"]
    assert sorted(path.name for path in written.iterdir()) == [str(i) for i in range(10)]


def test_another_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FolderError, match="does not hold the digits"):
        write_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(FolderError, match=r"pip install scikit-learn"):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []
