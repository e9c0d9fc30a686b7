"""The configuration that is suggested for images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import config
from diffusion.backbones import UNetConfig
from diffusion.commands.suggestion import NETWORKS, multiple_of, network_of, shifted, suggest, suggested_size, toml
from diffusion.config import Config
from diffusion.data import scan
from tests.commands.test_inspect import folder
from tests.conftest import ROOT


def suggestion(path: Path) -> Config:
    return config.from_dict(suggest(scan(path, labels=False, progress=False), str(path), labels=False))


@pytest.mark.parametrize("size", [64, 128, 256])
def test_what_is_suggested_for_a_size_is_what_is_shipped_for_it(tmp_path: Path, size: int) -> None:
    suggested = suggestion(folder(tmp_path / "images", [(size, size + 10)]))
    shipped = config.load(ROOT / "configs" / f"folder{size}.toml", [f"data.path={tmp_path / 'images'}"])
    assert suggested == shipped


@pytest.mark.parametrize(("size", "name"), [(8, "digits"), (32, "cifar10")])
def test_small_images_get_a_network_that_is_shipped_for_them(tmp_path: Path, size: int, name: str) -> None:
    suggested = suggestion(folder(tmp_path / "images", [(size, size)]))
    shipped = config.load(ROOT / "configs" / f"{name}.toml").backbone
    assert isinstance(shipped, UNetConfig)
    # Fourier features are for digits, which have 17 gray levels.
    assert suggested.backbone == replace(shipped, fourier=0)
    assert suggested.training.warmup < suggested.training.steps / 10


def test_a_tenth_of_the_images_may_be_enlarged(tmp_path: Path) -> None:
    sizes = [(300, 400)] * 18 + [(40, 400)] * 2
    assert suggestion(folder(tmp_path / "a", [*sizes, (300, 300)])).data.size == 256
    assert suggestion(folder(tmp_path / "b", [*sizes, (40, 40)])).data.size == 32
    assert suggestion(folder(tmp_path / "c", [(5, 5)])).data.size == 8


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("I;16", 1), ("RGB", 3), ("P", 3)])
def test_gray_images_get_one_channel(tmp_path: Path, mode: str, channels: int) -> None:
    assert suggestion(folder(tmp_path / "images", [(64, 64)] * 2, mode)).data.channels == channels


def test_more_noise_by_the_log_of_the_ratio_of_sides() -> None:
    for size in (128, 256):
        assert shifted(size) == pytest.approx(-0.5 + math.log(size / 64), abs=0.05)


def test_toml_survives_the_way_through_the_parser(tmp_path: Path) -> None:
    tree = {"data": {"path": 'a "quoted" \\ path é', "size": 32, "flip": True}, "noise_levels": {"mean": 0.2}}
    (tmp_path / "x.toml").write_text(toml(tree))
    experiment = config.load(tmp_path / "x.toml")
    assert experiment.data.path == tree["data"]["path"] and experiment.data.flip
    assert experiment.noise_levels.mean == 0.2  # type: ignore[attr-defined]


def size_for(*sizes: tuple[int, int]) -> tuple[int, int]:
    """Returns the size (h, w) that is suggested for images of sizes (w, h)."""
    width, height = np.array(sizes, np.int32).T
    return suggested_size(width, height)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((160, 40), (40, 160)),  # nothing is cut off or enlarged
        ((40, 160), (160, 40)),
        ((4000, 3000), (192, 256)),  # the largest of this aspect in multiples of 16 with at most 256 x 256 pixels
        ((6000, 4000), (192, 288)),
        ((1920, 1080), (144, 256)),
        ((20, 10), (8, 16)),
        ((110, 100), (64, 64)),  # nearly square
        ((8, 2), (8, 8)),  # too low for any multiple
    ],
)
def test_images_of_one_aspect_get_a_size_of_it(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert size_for(*[image] * 16) == expected


def test_images_of_two_aspects_get_a_square() -> None:
    assert size_for(*[(400, 300)] * 8, *[(300, 400)] * 8) == (256, 256)
    assert size_for(*[(400, 300)] * 19, (300, 400)) == (192, 256)


def test_sizes_are_divided_by_the_network() -> None:
    for width in range(30, 1000, 37):
        size = size_for((width, 50), (width, 50))
        network = UNetConfig(**NETWORKS[network_of(size)])
        assert multiple_of(size) == network.patch * 2 ** (len(network.channels) - 1)
        assert size[0] % multiple_of(size) == size[1] % multiple_of(size) == 0
        assert size[0] <= 50 and size[1] <= width and math.prod(size) <= 256**2


def test_stacks_are_suggested_as_pages(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", [(64, 64)] * 3)
    assert "pages" not in suggest(scan(images, labels=False, progress=False), "x", labels=False)["data"]
    page = Image.new("L", (64, 64))
    for i in range(4):
        page.save(images / f"{i}.tif", save_all=True, append_images=[page])
    assert suggest(scan(images, labels=False, progress=False), "x", labels=False)["data"]["pages"] == "all"
