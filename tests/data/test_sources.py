"""Every source gives the examples that its options ask for, and held-out examples have no part in the statistics."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import (
    SOURCES,
    DataOptions,
    Dataset,
    FolderError,
    Leaves,
    dead_leaves,
    lattice,
    mixture,
    open_source,
    swiss_roll,
)
from diffusion.data.images.scan import default_cache
from diffusion.data.synthetic.points import ROLL_NOISE
from diffusion.errors import InputError


def silent(line: str) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 noise images whose brightness grows with their number."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(60):
        pixels = rng.integers(i, 3 * i + 20, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def values(dataset: Dataset) -> np.ndarray:
    return dataset.batch(range(len(dataset)))[0].numpy()


@pytest.mark.parametrize("written", ["~/images", "$PICTURES/images", "${PICTURES}/images/"])
@pytest.mark.parametrize("source", ["folder", "texture"])
def test_paths_begin_at_home_and_hold_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, written: str
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("PICTURES", str(folder.parent))
    options = DataOptions(source=source, path=str(folder), size=4, count=16)
    expected = values(open_source(options, silent))
    assert np.array_equal(values(open_source(replace(options, path=written), silent)), expected)
    if source == "texture":
        one = values(open_source(replace(options, path=str(folder / "3.png")), silent))
        assert np.array_equal(values(open_source(replace(options, path=f"{written}/3.png"), silent)), one)


def test_digits_are_written_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    open_source(DataOptions(source="digits", path="~/written", size=8, channels=1), silent)
    assert (tmp_path / "written" / "9").is_dir() and not (tmp_path / "~").exists()


def test_the_cache_may_be_at_home_or_at_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in ("~/cache", "$HOME/cache"):
        monkeypatch.setenv("DIFFUSION_CACHE", written)
        assert default_cache() == tmp_path / "cache"


def test_mean_and_std_are_those_of_the_training_examples(folder: Path) -> None:
    options = DataOptions(path=str(folder), size=4, margin=1, held_out=0.3, seed=2)
    dataset = open_source(options, silent)
    training, held_out = dataset.split(options.held_out, options.seed)
    assert len(dataset) == 60
    assert 5 < len(held_out) < 30
    x = values(training)[..., 1:-1, 1:-1].astype(np.float64)
    assert dataset.spec.mean == pytest.approx(x.mean(), rel=1e-12)
    assert dataset.spec.std == pytest.approx(math.sqrt(((x - x.mean()) ** 2).mean()), rel=1e-10)
    encoded = dataset.spec.encode(torch.from_numpy(x)).double()
    assert float(encoded.mean()) == pytest.approx(0, abs=1e-6)
    assert float(encoded.square().mean()) == pytest.approx(1, abs=1e-6)


def test_centered_images_reach_from_minus_one_to_one_whatever_they_show(folder: Path) -> None:
    for name, pixels in (("black", 0), ("white", 255)):
        Image.new("RGB", (6, 6), (pixels,) * 3).save(folder / f"{name}.png")
    spec = open_source(DataOptions(path=str(folder), size=6, centered=True), silent).spec
    assert spec.encode(torch.tensor([0, 255, 127.5])).tolist() == [-1, 1, 0] and spec.spacing == 1 / 127.5
    deep = open_source(DataOptions(path=str(folder), size=6, centered=True, range=(0, 200)), silent).spec
    assert deep.encode(torch.tensor([0.0, deep.top])).tolist() == [-1, 1]
    with pytest.raises(InputError, match=r"^centered: must be false for mixture, which reads no files, got true$"):
        DataOptions(source="mixture", centered=True)


def test_a_folder_without_its_held_out_images_has_the_same_mean_and_std(folder: Path, tmp_path: Path) -> None:
    options = DataOptions(path=str(folder), size=6, held_out=0.3)
    dataset = open_source(options, silent)
    training, _ = dataset.split(options.held_out, options.seed)
    (tmp_path / "training").mkdir()
    for name in training.names:
        shutil.copy(folder / name, tmp_path / "training")
    alone = open_source(replace(options, path=str(tmp_path / "training"), held_out=0.0), silent)
    assert (alone.names, alone.spec) == (training.names, dataset.spec)
    assert open_source(replace(options, held_out=0.0), silent).spec != dataset.spec


@pytest.mark.parametrize("source", ["dead_leaves", "swiss_roll", "mixture", "lattice"])
def test_continuous_examples_are_neither_split_nor_rescaled(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dataset, "split", lambda *_: pytest.fail("split"))
    few, many = (open_source(DataOptions(source=source, size=4, channels=1, count=n), silent) for n in (20, 200))
    assert (len(few), len(many)) == (20, 200)
    assert few.spec == many.spec


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"source": "swiss_roll", "noise": 0.3}, swiss_roll(50, 7, 0.3)),
        ({"source": "swiss_roll"}, swiss_roll(50, 7, ROLL_NOISE)),
        ({"source": "mixture"}, mixture(50, 7)),
        ({"source": "lattice"}, lattice(50, 7)),
        ({"source": "lattice", "noise": 0.1}, lattice(50, 7, 0.1)),
        ({"source": "mixture", "labels": True}, mixture(50, 7, labels=True)),
        ({"source": "dead_leaves", "size": [5, 6], "channels": 1}, dead_leaves(50, 7, (5, 6))),
        (
            {"source": "dead_leaves", "size": 5, "channels": 1, "radii": (1.0, 4.0), "noise": 0.2},
            dead_leaves(50, 7, (5, 5), Leaves(1.0, 4.0, 0.2)),
        ),
    ],
)
def test_options_reach_the_synthetic_sources(options: dict[str, Any], expected: Dataset) -> None:
    dataset = open_source(DataOptions(**options, count=50, seed=7), silent)
    assert np.array_equal(values(dataset), values(expected))
    assert dataset.spec == expected.spec
    assert dataset.names == expected.names
    assert (dataset.labels is None) == (expected.labels is None)
    assert dataset.labels is None or np.array_equal(dataset.labels, expected.labels)


def test_options_reach_the_folder(folder: Path) -> None:
    for name in ("dark", "light"):
        (folder / name).mkdir()
    for i in range(60):
        (folder / f"{i}.png").rename(folder / ("dark" if i < 30 else "light") / f"{i}.png")
    Image.new("RGBA", (6, 6), (0, 0, 0, 0)).save(folder / "dark" / "clear.png")
    lines: list[str] = []
    options = DataOptions(path=str(folder), size=(4, 5), channels=1, labels=True, background=(7, 7, 7), margin=0)
    dataset = open_source(options, lines.append)
    assert lines[0].startswith(f"folder    {folder}\nimages    61\n")
    assert (dataset.spec.shape, dataset.spec.classes) == ((1, 4, 5), ("dark", "light"))
    assert dataset.labels is not None and dataset.labels.tolist() == [0] * 31 + [1] * 30
    assert (values(dataset)[[*dataset.names].index("dark/clear.png")] == 7).all()
    with pytest.raises(FolderError, match=r"61 images in .*, at least 62 are needed"):
        open_source(replace(options, min_images=62), silent)
    for i in range(11):
        (folder / "dark" / f"bad{i}.png").touch()
    with pytest.raises(FolderError, match=r"11 of 72 files .* a larger share than data\.max_bad, 0\.01;"):
        open_source(options, silent)
    assert len(open_source(replace(options, max_bad=0.2), silent)) == 61


def test_digits_are_written_and_read(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    dataset = open_source(
        DataOptions(source="digits", path=str(tmp_path / "digits"), size=8, channels=1, labels=True), silent
    )
    assert (len(dataset), dataset.spec.classes) == (1797, tuple("0123456789"))
    assert sum(1 for _ in (tmp_path / "digits").rglob("*.png")) == 1797


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "foldr"}, f"source: must be one of {', '.join(SOURCES)}, got 'foldr'; did you mean folder?"),
        ({"pages": "al"}, "pages: must be one of first, all, got 'al'; did you mean all?"),
        (
            {"source": "mixture", "labels": "x.csv"},
            "labels: must be true or false for mixture, got 'x.csv'",
        ),
        ({"size": (4, 0)}, "size: must be positive, got (4, 0)"),
        ({"channels": 17}, "channels: must be 1 to 16, got 17"),
        ({"source": "dead_leaves", "channels": 3}, "channels: must be 1 for dead_leaves, got 3"),
        ({"background": (0, 256, 0)}, "background: must be three values of 0 to 255, got (0, 256, 0)"),
        ({"margin": -1}, "margin: must be 0 or more, got -1"),
        ({"held_out": 0.6}, "held_out: must be in [0, 0.5], got 0.6"),
        ({"min_images": 0}, "min_images: must be at least 1, got 0"),
        ({"max_bad": 1.5}, "max_bad: must be in [0, 1], got 1.5"),
        ({"count": 1}, "count: must be at least 2, got 1"),
        ({"hole": -2}, "hole: must be 0 or more, got -2"),
        ({"radii": (3.0, 3.0)}, "radii: must be an increasing pair of positive numbers, got (3.0, 3.0)"),
        ({"noise": 1.0}, "noise: must be between 0 and 1, got 1.0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        DataOptions(**options)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("FALSE", False), ("off", False)])
def test_words_for_yes_and_no_are_no_tables(text: str, value: bool) -> None:
    assert DataOptions(labels=text).labels is value


def test_tables_and_pages_reach_the_folder(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), 20 * i) for i in range(5)]
    (tmp_path / "x").mkdir()
    for name in ("a", "b"):
        pages[0].save(tmp_path / "x" / f"{name}.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "labels.csv").write_text("file,label\na.tif,cat\nb.tif,dog\n")
    options = DataOptions(path=str(tmp_path / "x"), size=8, channels=1, labels="labels.csv", pages="all")
    dataset = open_source(options, silent)
    assert (len(dataset), dataset.spec.classes) == (10, ("cat", "dog"))
    assert dataset.labels is not None and dataset.labels.tolist() == [0] * 5 + [1] * 5


def test_a_folder_and_a_texture_need_a_path() -> None:
    with pytest.raises(FolderError, match=r"^data\.path: is not set; name your image folder, as in data\.path=FOLDER$"):
        open_source(DataOptions(), silent)
    with pytest.raises(FolderError, match=r"^data\.path: is not set; name an image file or a folder, .*=FILE$"):
        open_source(DataOptions(source="texture"), silent)
