"""The values of images are measured once, by the bytes of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from diffusion.data.images import depth
from diffusion.data.images.bands import Bands
from diffusion.data.images.decoding import ImageError
from diffusion.data.images.scan import scan

GENERATOR = np.random.default_rng(0)


def write(folder: Path, values: npt.NDArray[Any]) -> None:
    """Write one image for each of the values (N, H, W)."""
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(values):
        Image.fromarray(image).save(folder / f"{image.dtype}-{i}.{'tif' if image.dtype.kind == 'f' else 'png'}")


def deep(low: int, high: int, count: int = 9) -> npt.NDArray[np.uint16]:
    values = GENERATOR.integers(low, high + 1, (count, 8, 8)).astype(np.uint16)
    values[0, 0, :2] = low, high
    return values


def test_a_measurement_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", deep(0, 900))
    found = scan(tmp_path / "a", labels=False, progress=False)
    (tmp_path / "cache").mkdir()
    first = depth.measure(found, tmp_path / "cache", "measured", progress=False)
    monkeypatch.setattr(depth, "made_of_frames", None)
    assert depth.measure(found, tmp_path / "cache", "measured", progress=False) == first


def test_a_folder_that_grows_is_measured_as_far_as_it_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    read, names = depth.made_of_frames, []

    def noted(path: Path, *arguments: object) -> object:
        names.append(Path(path).name)
        return read(path, *arguments)  # type: ignore[arg-type]

    def measured(cache: str) -> depth.Depth:
        (tmp_path / cache).mkdir(exist_ok=True)
        found = scan(tmp_path / "a", labels=False, progress=False)
        return depth.measure(found, tmp_path / cache, (50, 850), progress=False)

    write(tmp_path / "a", deep(100, 900))
    first = measured("cache")
    monkeypatch.setattr(depth, "made_of_frames", noted)
    np.save(tmp_path / "a" / "z.npy", np.full((8, 8), 3000, np.uint16))
    grown = measured("cache")
    assert names == ["z.npy"] and first.deep.high == 900 and grown.deep.high == 3000
    assert grown == measured("other") and len([*(tmp_path / "cache").iterdir()]) == 1


def test_images_that_cannot_be_read_are_tried_once_and_passing_failures_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", deep(0, 900))
    found = scan(tmp_path / "a", labels=False, progress=False)
    calls: list[int] = []

    def refuse(*arguments: object) -> object:
        calls.append(1)
        raise error

    (tmp_path / "cache").mkdir()
    error, cause = ImageError("x", "Too many open files"), OSError(24, "Too many open files")
    error.__cause__ = cause
    with monkeypatch.context() as patch:
        patch.setattr(depth, "made_of_frames", refuse)
        assert depth.measure(found, tmp_path / "cache", "measured", progress=False) == depth.Depth()
    assert depth.measure(found, tmp_path / "cache", "measured", progress=False).deep.images == 9
    error, count = ImageError("x", "damaged"), len(calls)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(depth, "made_of_frames", refuse)
    for _ in range(2):
        assert depth.measure(found, tmp_path / "other", "measured", progress=False) == depth.Depth()
    assert len(calls) == 2 * count


@pytest.mark.parametrize(
    ("mode", "is_deep"),
    [
        *(("L", False), ("RGBA", False), ("RGB+1", False), ("5 x uint8", False)),
        *(("I;16", True), ("RGB;16", True), ("RGB+1;16", True), ("5 x uint16", True), ("F", True)),
        ("2 x float32", True),
    ],
)
def test_modes_tell_the_depth(mode: str, is_deep: bool) -> None:
    assert depth.is_deep(mode) == is_deep


@pytest.mark.parametrize(
    ("values", "white", "exact"),
    [
        (np.array([[0, 257], [65535, 514]], np.uint16), None, True),
        (np.array([[0, 257], [65535, 515]], np.uint16), None, False),
        (np.array([[0, 255], [1, 2]], np.uint16), None, False),
        (np.array([[0, 4095], [273, 819]], np.uint16), 4095, True),
        (np.array([[0, 4095], [273, 16]], np.uint16), 4095, False),
        (np.array([[0, 7]], np.uint8), None, True),
        (np.array([[0, 4_000_000_000]], np.uint32), None, False),
        (np.array([[0.0, 1.0]]), None, False),
    ],
)
def test_values_that_8_bits_hold_are_told_from_those_that_are_rounded(
    values: npt.NDArray[Any], white: int | None, exact: bool
) -> None:
    measured = depth.values_of(Bands(values[:, :, None], "gray", white=white), None)[1]
    assert measured.exact == exact
