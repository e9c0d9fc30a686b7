from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import DataSpec
from diffusion.data.images import encoding
from diffusion.data.images.decoding import PixelFormat, decode, to_tensor
from diffusion.data.images.encoding import file_values, read_info, save_image, suffix
from diffusion.errors import InputError

INFO = {"run": "flowers", "seed": 3}


def spec_of(channels: int, low: float, high: float, levels: int | None) -> DataSpec:
    return DataSpec((channels, 5, 7), levels, value_range=(low, high))


SPECS = {
    "12 bits gray": (spec_of(1, 0, 4095, 4096), ".png", "uint16"),
    "12 bits color": (spec_of(3, 0, 4095, 4096), ".tif", "uint16"),
    "16 bits": (spec_of(1, 0, 65535, 65536), ".png", "uint16"),
    "a part of 8 bits": (spec_of(3, 16, 235, 220), ".png", "uint8"),
    "signed": (spec_of(1, -1024, 3071, 4096), ".tif", "int16"),
    "two bands": (spec_of(2, 0, 255, 256), ".png", "uint8"),
    "four bands": (spec_of(4, 0, 65535, 65536), ".tif", "uint16"),
    "sixteen bands": (spec_of(16, 0, 255, 256), ".tif", "uint8"),
    "beyond 16 bits": (spec_of(1, 70_000, 80_000, 10_001), ".tif", "uint32"),
    "continuous": (spec_of(2, -2.5, 1.5, None), ".tif", "float32"),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", ["own", ".npy", ".tif"])
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path: Path, name: str, kind: str) -> None:
    spec, own, dtype = SPECS[name]
    assert suffix(spec) == own
    generator = torch.Generator().manual_seed(0)
    units = torch.rand(spec.shape, generator=generator)
    units[0, 0, :2] = torch.tensor([0.0, 1.0])
    if spec.levels is not None:
        units = torch.round(units * spec.top) / spec.top
    path = save_image(units, tmp_path / f"x{own if kind == 'own' else kind}", spec, INFO)
    assert file_values(units, spec).dtype == dtype
    back = to_tensor(decode(path, PixelFormat.of(spec)), PixelFormat.of(spec))
    if spec.levels is None:
        assert torch.allclose(back, units, rtol=0, atol=1e-6)
    else:
        assert torch.equal(spec.quantize(back), spec.quantize(units))
    assert read_info(path) == INFO


def test_levels_are_the_values_of_the_range() -> None:
    spec = spec_of(1, 100, 103, 4)
    units = torch.tensor([-1.0, 0.0, 1 / 3, 0.6, 0.9, 2.0]).reshape(1, 1, 6)
    assert file_values(units, spec)[0, :, 0].tolist() == [100, 100, 101, 102, 103, 103]


def test_8_bits_without_a_range_are_as_ever(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = save_image(torch.tensor(levels)[None] / 255, tmp_path / "x.png", DataSpec((1, 16, 16), 256), INFO)
    with Image.open(path) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), levels)


def test_continuous_values_beyond_the_range_are_kept() -> None:
    values = file_values(torch.tensor([[[-0.5, 1.5]]]), spec_of(1, 10, 20, None))
    assert values[0, :, 0].tolist() == [5, 25]


def test_a_file_that_cannot_hold_the_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    five, signed = spec_of(5, 0, 255, 256), spec_of(1, -5, 5, 11)
    with pytest.raises(InputError, match=r"x\.png: a PNG cannot hold 5 channels of uint8; name it x\.tif"):
        save_image(torch.zeros(5, 2, 2), tmp_path / "x.png", five, {})
    with pytest.raises(InputError, match=r"1 channels of int16"):
        save_image(torch.zeros(1, 2, 2), tmp_path / "x.png", signed, {})
    with pytest.raises(InputError, match=r"must end with \.png, \.tif or \.npy, got \.gif"):
        save_image(torch.zeros(5, 2, 2), tmp_path / "x.gif", five, {})
    monkeypatch.setattr(encoding, "library", lambda name: None)
    assert suffix(five) == ".npy"
    with pytest.raises(InputError, match=r"needs tifffile.*reverse-diffusion\[formats\].*\.npy"):
        save_image(torch.zeros(5, 2, 2), tmp_path / "x.tif", five, {})
    assert list(tmp_path.iterdir()) == []


def test_a_range_beyond_32_bits_is_written(tmp_path: Path) -> None:
    spec = DataSpec((1, 1, 2), 101, value_range=(10_000_000_000, 10_000_000_100))
    path = save_image(torch.tensor([[[0.0, 1.0]]]), tmp_path / "x.npy", spec, INFO)
    assert np.load(path).tolist() == [[10_000_000_000, 10_000_000_100]]
