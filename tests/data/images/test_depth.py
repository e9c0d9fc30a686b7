from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from diffusion.data import DataOptions, FolderError, open_folder, open_source
from diffusion.data.images import depth
from diffusion.data.images.decoding import ImageError, PixelFormat
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


def test_a_measurement_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", deep(0, 900))
    found = scan(tmp_path / "a", labels=False, progress=False)
    (tmp_path / "cache").mkdir()
    first = depth.measure(found, tmp_path / "cache", "measured", progress=False)
    monkeypatch.setattr(depth, "read_frames", None)
    assert depth.measure(found, tmp_path / "cache", "measured", progress=False) == first


def test_a_folder_that_grows_is_measured_as_far_as_it_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    read, names = depth.read_frames, []

    def noted(path: Path, *arguments: object) -> object:
        names.append(Path(path).name)
        return read(path, *arguments)  # type: ignore[arg-type]

    def measured(cache: str) -> depth.Depth:
        (tmp_path / cache).mkdir(exist_ok=True)
        found = scan(tmp_path / "a", labels=False, progress=False)
        return depth.measure(found, tmp_path / cache, (50, 850), progress=False)

    write(tmp_path / "a", deep(100, 900))
    first = measured("cache")
    monkeypatch.setattr(depth, "read_frames", noted)
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
        patch.setattr(depth, "read_frames", refuse)
        assert depth.measure(found, tmp_path / "cache", "measured", progress=False) == depth.Depth()
    assert depth.measure(found, tmp_path / "cache", "measured", progress=False).deep.images == 9
    error, count = ImageError("x", "damaged"), len(calls)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(depth, "read_frames", refuse)
    for _ in range(2):
        assert depth.measure(found, tmp_path / "other", "measured", progress=False) == depth.Depth()
    assert len(calls) == 2 * count


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
        ({"5 x uint16": 2}, depth.Depth(deep=depth.Values(2, 0, 1812, 65535)), {"channels": 5, "range": [0, 4095]}),
        ({"F": 2}, depth.Depth(floating=depth.Values(2, -1.5, 2.5, 0, 2)), {"channels": 1, "range": [-1.5, 2.5]}),
        ({"RGB": 2}, depth.Depth(shallow=depth.Values(2, 0, 250, 255)), {"channels": 3}),
        ({"L": 2}, depth.Depth(shallow=depth.Values(2, 3, 17, 255)), {"channels": 1, "range": [3, 17]}),
        ({"I;16": 2}, depth.Depth(deep=depth.Values(2, 0, 60_000, 65535)), {"channels": 1, "range": [0, 65535]}),
    ],
)
def test_channels_and_range_are_suggested(
    modes: dict[str, int], measured: depth.Depth | None, keys: dict[str, Any]
) -> None:
    assert depth.suggestion(modes, measured) == keys


@pytest.mark.parametrize(
    ("mode", "is_deep", "is_floating"),
    [
        *(("L", False, False), ("RGBA", False, False), ("RGB+1", False, False), ("5 x uint8", False, False)),
        *(("I;16", True, False), ("RGB;16", True, False), ("RGB+1;16", True, False), ("5 x uint16", True, False)),
        *(("F", True, True), ("2 x float32", True, True)),
    ],
)
def test_modes_tell_the_depth(mode: str, is_deep: bool, is_floating: bool) -> None:
    assert (depth.is_deep(mode), depth.is_floating(mode)) == (is_deep, is_floating)
