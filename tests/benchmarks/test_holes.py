"""Copies with holes: what they lack, that files keep what was seen, and what fills the holes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import holes
from diffusion.data import Dataset, DataSpec, PixelFormat, open_folder


def images(count: int = 12, channels: int = 3, classes: tuple[str, ...] = ()) -> Dataset:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (count, channels, 9, 12), dtype=np.uint8)
    labels = np.arange(count) % len(classes) if classes else None
    return Dataset(values, DataSpec((channels, 9, 12), 256, classes), labels, [f"{i}.jpg" for i in range(count)])


@pytest.mark.parametrize("law", holes.LAWS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_every_image_lacks_the_share_and_all_places_do_as_often(law: str, share: float) -> None:
    dataset = images(400)
    seen = holes.masks(dataset, law, share, holes.TRAINING)
    assert seen.shape == (400, 1, 9, 12) and (seen == 0).sum((1, 2, 3)).tolist() == [round(share * 108)] * 400
    # The standard error of the share of a place; boxes hide places that are not independent.
    error = (share * (1 - share) / 400) ** 0.5
    assert np.abs((seen == 0).mean(0) - share).max() < (4 if law == "pixels" else 6) * error + 0.02
    again, held_out = (holes.masks(dataset, law, share, stream) for stream in (holes.TRAINING, holes.HELD_OUT))
    assert np.array_equal(seen, again) and not np.array_equal(seen, held_out)


def test_boxes_leave_fewer_edges_than_pixels() -> None:
    """The pixels of a box lie together: of pixels that are missing beside one that is, there are many more."""
    pairs = []
    for law in ("boxes", "pixels"):
        missing = holes.masks(images(100), law, 0.3, 0)[:, 0] == 0
        pairs.append(float((missing[:, :, 1:] & missing[:, :, :-1]).sum() / missing.sum()))
    assert pairs[0] > 0.65 and pairs[1] == pytest.approx(0.3 * 11 / 12, abs=0.05)


@pytest.mark.parametrize("channels", holes.CHANNELS)
def test_files_keep_what_was_seen_and_the_classes(tmp_path: Path, channels: int) -> None:
    dataset = images(channels=channels, classes=("a", "b"))
    seen = holes.masks(dataset, "boxes", 0.4, 0)
    folder = holes.write(dataset, seen, tmp_path)
    opened = open_folder(
        folder, size=(9, 12), pixel_format=PixelFormat(channels), masks="alpha", labels=True, cache=tmp_path / "cache"
    )
    numbers = [holes.number_of(name) for name in opened.names]
    assert sorted(numbers) == list(range(12)) and opened.spec.classes == ("a", "b")
    assert opened.labels is not None and opened.labels.tolist() == [number % 2 for number in numbers]
    found = np.asarray(opened.seen) != 0  # type: ignore[arg-type]
    assert np.array_equal(found, seen[numbers] != 0)
    both = [np.where(found, values, 0) for values in (np.asarray(opened.values), np.asarray(dataset.values)[numbers])]
    assert np.array_equal(*both)


def test_files_are_written_once_and_those_of_other_images_beside_them(tmp_path: Path) -> None:
    dataset = images()
    seen = holes.masks(dataset, "pixels", 0.4, 0)
    folder = holes.write(dataset, seen, tmp_path)
    (folder / "0000003.png").unlink()
    assert holes.write(dataset, seen, tmp_path) == folder and not (folder / "0000003.png").exists()
    folder.with_suffix(".done").unlink()
    assert holes.write(dataset, seen, tmp_path) == folder and (folder / "0000003.png").exists(), "it was not finished"
    assert holes.write(dataset, 1 - seen, tmp_path) != folder


def test_holes_are_filled_by_the_mean_and_by_the_nearest_pixel_of_what_was_seen() -> None:
    values = np.array([[[[10, 99, 20], [30, 99, 99], [99, 99, 80]]]], dtype=np.uint8)
    seen = (values != 99).astype(np.uint8)
    dataset = Dataset(values, DataSpec((1, 3, 3), 256), None, ["a"])
    holed = holes.with_holes(replace(dataset, contents=np.zeros(1, np.uint64)), seen)
    assert holed.contents is None and np.array_equal(holed.seen, seen)  # type: ignore[arg-type]
    filled = [holes.mean_filled(holed), holes.nearest_filled(holed)]
    assert all(each.seen is None and np.array_equal(each.values[seen != 0], values[seen != 0]) for each in filled)  # type: ignore[index]
    assert np.asarray(filled[0].values)[seen == 0].tolist() == [35] * 5, "the mean of 10, 20, 30 and 80"
    near = np.asarray(filled[1].values)[0, 0]
    assert near[0, 1] in (10, 20) and near[1, 2] in (20, 80) and near[2, 0] == 30 and near[2, 1] == 80
    # The spec is that of the filled values.
    assert filled[0].spec.mean == pytest.approx(35) and filled[1].spec.mean == pytest.approx(near.mean())
