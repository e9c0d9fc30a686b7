"""The range that becomes [0, 1] is the one that was asked for, and what it does to the values of images is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffusion.data import DataOptions, FolderError, open_folder, open_source
from diffusion.data.images import ranges
from diffusion.data.images.decoding import PixelFormat
from diffusion.data.images.depth import Depth, Values
from tests.data.images.test_depth import GENERATOR, deep, write


def opened(folder: Path, tmp_path: Path, **options: Any) -> tuple[Any, list[str]]:  # noqa: ANN401
    lines: list[str] = []
    form = PixelFormat(options.pop("channels", 1))
    dataset = open_folder(
        folder, size=(8, 8), pixel_format=form, cache=tmp_path / "cache", log=lines.append, progress=False, **options
    )
    return dataset, [
        line for text in lines for line in text.splitlines() if line.startswith(("range", "depth", "bands"))
    ]


def test_16_bit_files_with_12_bits_in_them_are_said_with_what_to_set(tmp_path: Path) -> None:
    write(tmp_path / "a", deep(0, 1812))
    _, lines = opened(tmp_path / "a", tmp_path)
    assert lines == [
        "depth     9 images of more than 8 bits: values 0 to 1,812 of 65,535: 8 of 256 levels remain; "
        "set data.range=[0, 4095]"
    ]


def test_16_bits_that_are_used_are_said_too(tmp_path: Path) -> None:
    write(tmp_path / "a", deep(0, 65535))
    _, lines = opened(tmp_path / "a", tmp_path)
    assert lines[0].endswith("256 of 256 levels remain; set data.range=[0, 65535] to keep all of them")


def test_8_bits_in_files_of_16_lose_nothing_and_nothing_is_said(tmp_path: Path) -> None:
    whole = deep(0, 255) * np.uint16(257)
    write(tmp_path / "a", whole)
    write(tmp_path / "a", deep(0, 255, 3).astype(np.uint8))
    dataset, lines = opened(tmp_path / "a", tmp_path)
    assert lines == []
    assert np.array_equal(dataset.batch(range(3, 12))[0].numpy()[:, 0], whole // 257)  # uint8-*.png come first
    whole[4, 7, 7] = 256
    write(tmp_path / "b", whole)
    assert opened(tmp_path / "b", tmp_path)[1][0].endswith("; set data.range=[0, 65535] to keep all of them")
    write(tmp_path / "c", deep(0, 40) * np.uint16(257))
    assert "41 of 256 levels remain; set data.range=[0, 16383]" in opened(tmp_path / "c", tmp_path)[1][0]


def test_a_range_is_not_proposed_for_images_of_8_bits_beside_deep_ones(tmp_path: Path) -> None:
    write(tmp_path / "a", deep(0, 4000))
    write(tmp_path / "a", deep(0, 255, 3).astype(np.uint8))
    assert opened(tmp_path / "a", tmp_path)[1] == [
        "depth     9 images of more than 8 bits: values 0 to 4,000 of 65,535: 17 of 256 levels remain; move them to a "
        "folder of their own and set data.range=[0, 4095], as others are of 8 bits, whose white is 255"
    ]


def test_8_bit_files_with_a_tiny_range_are_said_and_usual_ones_are_not(tmp_path: Path) -> None:
    write(tmp_path / "a", deep(3, 17).astype(np.uint8))
    _, lines = opened(tmp_path / "a", tmp_path)
    assert lines == [
        "depth     9 images of at most 8 bits, looked at: values 3 to 17 of 255, 15 of 256 levels; "
        "set data.range=[3, 17] to use the whole range"
    ]
    write(tmp_path / "b", deep(0, 200).astype(np.uint8))
    assert opened(tmp_path / "b", tmp_path)[1] == []


def test_a_declared_range_keeps_every_level(tmp_path: Path) -> None:
    values = deep(0, 4095)
    write(tmp_path / "a", values)
    dataset, lines = opened(tmp_path / "a", tmp_path, value_range=(0, 4095))
    assert lines == ["range     0 to 4,095: 4,096 gray levels, the unit of likelihoods"]
    assert (dataset.spec.levels, dataset.spec.value_range) == (4096, (0, 4095))
    batch, _ = dataset.batch(range(9))
    assert np.array_equal(batch.numpy()[:, 0], values)


def test_what_is_outside_of_a_range_is_clipped_and_counted(tmp_path: Path) -> None:
    values = np.full((8, 8, 8), 500, np.uint16)
    values[:, 0, :4] = 2000  # 4 of 64 values
    write(tmp_path / "a", values)
    dataset, lines = opened(tmp_path / "a", tmp_path, value_range=(0, 1023))
    assert lines[1] == (
        "range     6.25% of the values, which reach from 500 to 2,000, are outside of it and are clipped"
    )
    assert int(dataset.batch([0])[0].max()) == 1023


def test_one_range_is_measured_for_all_images(tmp_path: Path) -> None:
    values = deep(100, 900)
    write(tmp_path / "a", values)
    dataset, lines = opened(tmp_path / "a", tmp_path, value_range="measured")
    assert lines == ["range     100 to 900, measured: 801 gray levels, the unit of likelihoods"]
    assert np.array_equal(dataset.batch(range(9))[0].numpy()[:, 0], values.astype(int) - 100)


def test_mixed_depths_under_a_range_are_said_loudly(tmp_path: Path) -> None:
    write(tmp_path / "a", deep(0, 4095))
    write(tmp_path / "a", deep(0, 255, 3).astype(np.uint8))
    _, lines = opened(tmp_path / "a", tmp_path, value_range=(0, 4095))
    assert lines[-1].startswith("range     MIXED depths share it: 3 of at most 8 bits, 9 of more bits")


def test_floating_point_images_without_a_range_are_refused_with_the_measured_one(tmp_path: Path) -> None:
    values = GENERATOR.uniform(-1, 2, (20, 8, 8)).astype(np.float32)
    values[3, 0, :2] = -1.5, 2.5
    write(tmp_path / "a", values)
    with pytest.raises(
        FolderError, match=r"20 images hold floating-point .*-1\.5 to 2\.5.*set data\.range=\[-1\.5, 2\.5\]"
    ):
        opened(tmp_path / "a", tmp_path)
    dataset, lines = opened(tmp_path / "a", tmp_path, value_range=(-1, 2))
    assert lines[0] == "range     -1 to 2: continuous values, the unit of likelihoods"
    assert "lie beyond 0 and 1" in lines[1]
    assert dataset.spec.levels is None
    assert np.allclose(dataset.batch(range(20))[0].numpy()[:, 0], (values + 1) / 3, rtol=0, atol=1e-6)


def test_signed_images_without_a_range_are_refused_with_the_measured_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i in range(12):
        np.save(tmp_path / "a" / f"{i}.npy", np.full((8, 8), i - 3, np.int16))
    with pytest.raises(FolderError, match=r"12 images hold signed .*set data\.range=\[-3, 8\]"):
        opened(tmp_path / "a", tmp_path)
    dataset, _ = opened(tmp_path / "a", tmp_path, value_range="measured")
    assert dataset.spec.levels == 12


def test_a_few_floating_point_files_among_others_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a", deep(0, 255, 30).astype(np.uint8))
    write(tmp_path / "a", GENERATOR.uniform(0, 1, (2, 8, 8)).astype(np.float32))
    dataset, lines = opened(tmp_path / "a", tmp_path)
    assert len(dataset) == 30
    assert lines[0].startswith("depth     2 images of values without a known range")


def test_a_band_that_is_left_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    values = GENERATOR.integers(0, 256, (9, 8, 8, 4)).astype(np.uint8)
    for i, image in enumerate(values):
        tifffile.imwrite(tmp_path / "a" / f"{i}.tif", image, photometric="rgb", extrasamples=["unspecified"])
    _, lines = opened(tmp_path / "a", tmp_path, channels=3)
    assert lines == [
        "bands     9 images hold a band beside their colors that is not alpha; data.channels=3 leaves it out, "
        "data.channels=4 trains it"
    ]
    dataset, lines = opened(tmp_path / "a", tmp_path, channels=4)
    assert lines == []
    assert np.array_equal(dataset.batch(range(9))[0].numpy(), values.transpose(0, 3, 1, 2))


def test_values_that_are_all_the_same_have_no_range(tmp_path: Path) -> None:
    write(tmp_path / "a", np.full((9, 8, 8), 7, np.uint16))
    with pytest.raises(FolderError, match=r"data\.range: every value of the images is 7"):
        opened(tmp_path / "a", tmp_path, value_range="measured")


def test_a_source_is_opened_in_the_range_of_its_model_though_it_has_grown(tmp_path: Path) -> None:
    write(tmp_path / "a", deep(0, 900))
    options = DataOptions(path=str(tmp_path / "a"), size=8, channels=1, range="measured")
    spec = open_source(options, lambda line: None).spec
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / "a" / "new.png")
    lines: list[str] = []
    grown = open_source(options, lines.append, spec).spec
    assert (grown.value_range, grown.levels) == (spec.value_range, spec.levels) == ((0, 900), 901)
    assert "range     0 to 900, as the model was trained: 901 gray levels, the unit of likelihoods" in lines
    assert open_source(options, lambda line: None).spec.value_range == (0, 5000)


@pytest.mark.parametrize(
    ("modes", "measured", "keys"),
    [
        ({"L": 3}, None, {"channels": 1}),
        ({"L": 3, "RGBA": 1}, None, {"channels": 3}),
        ({"5 x uint16": 2}, Depth(deep=Values(2, 0, 1812, 65535)), {"channels": 5, "range": [0, 4095]}),
        ({"F": 2}, Depth(floating=Values(2, -1.5, 2.5, 0, 2)), {"channels": 1, "range": [-1.5, 2.5]}),
        ({"RGB": 2}, Depth(shallow=Values(2, 0, 250, 255)), {"channels": 3}),
        ({"L": 2}, Depth(shallow=Values(2, 3, 17, 255)), {"channels": 1, "range": [3, 17]}),
        ({"I;16": 2}, Depth(deep=Values(2, 0, 60_000, 65535)), {"channels": 1, "range": [0, 65535]}),
        ({"I;16": 2}, Depth(deep=Values(2, 0, 65535, 65535, exact=2)), {"channels": 1}),
    ],
)
def test_channels_and_range_are_suggested(modes: dict[str, int], measured: Depth | None, keys: dict[str, Any]) -> None:
    assert ranges.suggestion(modes, measured) == keys
