"""Images of Pillow and files of what a model returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.figures import read_info
from diffusion.model import Model, load
from diffusion.model.pictures import to_images
from tests.conftest import image_of


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_images_have_the_values_of_files(channels: int, mode: str) -> None:
    levels = torch.arange(2 * channels * 6).reshape(2, channels, 2, 3) * 5
    found = to_images(levels / 255, DataSpec((channels, 2, 3), 256))
    assert [image.mode for image in found] == [mode] * 2
    for image, expected in zip(found, levels, strict=True):
        assert np.array_equal(np.asarray(image).reshape(2, 3, channels), expected.permute(1, 2, 0).numpy())
    assert np.array_equal(to_images(levels[1] / 255, DataSpec((channels, 2, 3), 256))[0], found[1])


def test_deep_gray_keeps_its_depth_and_deep_color_is_named() -> None:
    deep = torch.tensor([[[0.0, 1000 / 65535, 1.0]]])
    assert np.asarray(to_images(deep, DataSpec((1, 1, 3), 65536))[0]).tolist() == [[0, 1000, 65535]]
    with pytest.raises(InputError, match="x: Pillow holds no images of 3 channels of uint16"):
        to_images(deep.expand(3, 1, 3), DataSpec((3, 1, 3), 65536))
    with pytest.raises(InputError, match="x: must be images; this model knows points"):
        to_images(torch.zeros(4, 2), DataSpec((2,), None))


def test_a_restoration_becomes_images_and_files(trained: Path, tmp_path: Path) -> None:
    model: Model = load(trained)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))
    known = Image.new("L", photo.size, 255)
    known.paste(0, (3, 3, 9, 8))
    found = model.inpaint(photo, known, n=2, steps=2, method="replacement")
    images, shown = found.images(), np.asarray(known)
    assert [image.size for image in images] == [(20, 12)] * 2
    for image in images:
        assert np.array_equal(np.asarray(image)[shown == 255], np.asarray(photo)[shown == 255])
    paths = found.save(tmp_path / "out")
    assert [path.name for path in paths] == ["restored-0.png", "restored-1.png", "mean.png"]
    assert all(np.array_equal(Image.open(path), image) for path, image in zip(paths, images, strict=False))
    assert torch.equal(image_of(paths[2]), (found.mean * 255).round().byte())
    assert read_info(paths[0])["diagnostics"]["method"] == "replacement" and read_info(paths[1])["index"] == 1


def test_a_model_shows_gray_levels_and_units_alike_and_refuses_what_is_neither(trained: Path) -> None:
    model = load(trained)
    levels = torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
    for x in (levels, levels / 255, (levels / 255)[None]):
        assert np.array_equal(model.images(x)[0], levels.permute(1, 2, 0))
    for wrong, message in (
        (levels.float(), r"x: must lie in \[0, 1\], or be uint8, got 191; divide values of 0 to 255 by 255"),
        (levels / 0, "x: must be finite"),
    ):
        with pytest.raises(InputError, match=message):
            model.images(wrong)


def test_results_are_not_written_over(trained: Path, tmp_path: Path) -> None:
    found = load(trained).inpaint(torch.rand(3, 8, 8), torch.ones(8, 8).tril(), n=1, steps=1, method="replacement")
    found.save(tmp_path)
    before = (tmp_path / "mean.png").read_bytes()
    with pytest.raises(InputError, match=r"^folder: .* holds results already, such as mean.png; name another one"):
        found.save(str(tmp_path))
    assert (tmp_path / "mean.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 2
