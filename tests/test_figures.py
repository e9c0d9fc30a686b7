"""Pictures keep the pixels and the order of their images, and tell their origin in their metadata."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion import figures


def images(count: int, channels: int = 3, side: int = 8) -> Tensor:
    """Returns images whose values are 8-bit gray levels."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator) / 255


def pixels(image: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(image))
    return array.permute(2, 0, 1) if array.ndim == 3 else array[None]


def tile(picture: Tensor, row: int, column: int, side: int, scale: int) -> Tensor:
    """Returns one tile of a picture, reduced to its own size; each enlarged pixel must have one value."""
    pad = max(2, scale // 2)
    top, left = (pad + place * (side * scale + pad) for place in (row, column))
    cell = picture[:, top : top + side * scale, left : left + side * scale]
    blocks = cell.unflatten(-1, (side, scale)).unflatten(-3, (side, scale))
    assert torch.equal(blocks.amax((-3, -1)), blocks.amin((-3, -1)))
    return blocks[:, :, 0, :, 0]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_to_image_keeps_every_gray_level(channels: int) -> None:
    levels = torch.arange(256).reshape(1, 16, 16).expand(channels, -1, -1)
    image = figures.to_image(levels / 255)
    assert image.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    assert torch.equal(pixels(image).long(), levels)


@pytest.mark.parametrize(("channels", "bands"), [(2, [0]), (5, [0, 1, 2]), (16, [0, 1, 2])])
def test_pictures_of_other_bands_show_the_first_and_say_so(channels: int, bands: list[int]) -> None:
    x = images(2, channels)
    name = "band 1" if len(bands) == 1 else "bands 1 to 3"
    assert figures.shown_bands(channels).startswith(f"{name} of {channels}")
    assert torch.equal(pixels(figures.to_image(x[0])), (255 * x[0, bands]).round().to(torch.uint8))
    assert torch.equal(figures.tile(x), figures.tile(x[:, bands]))
    whole = figures.restoration(x[0], x, x.std(0), original=x[1])
    part = figures.restoration(x[0, bands], x[:, bands], x.std(0).mean(0, keepdim=True), original=x[1, bands])
    assert torch.equal(pixels(whole), pixels(part))


def test_pictures_of_gray_colors_and_alpha_show_all() -> None:
    assert [figures.shown_bands(channels) for channels in (1, 3, 4)] == ["", "", ""]


def test_to_image_clamps_what_lies_outside() -> None:
    assert pixels(figures.to_image(torch.tensor([[[-1.0, 0.5, 2.0]]]))).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize(("count", "columns"), [(2, None), (2, 5), (5, 1), (6, 3), (7, 3), (10, None)])
@pytest.mark.parametrize("channels", [1, 4])
def test_tiles_lie_on_paper_from_left_to_right(channels: int, count: int, columns: int | None) -> None:
    x = images(count, channels, 64)[..., :50, :]
    found = figures.tile(x, columns=columns)
    across = min(columns or math.ceil(count**0.5), count)
    expected = torch.full((max(3, channels), 2 + math.ceil(count / across) * 52, 2 + across * 66), 228 / 255)
    for i, image in enumerate(x):
        top, left = 2 + i // across * 52, 2 + i % across * 66
        expected[:, top : top + 50, left : left + 64] = image
    assert torch.equal(found, expected)
    assert torch.equal(figures.tile(x[:1], columns=columns), x[0].expand(max(3, channels), -1, -1)), "without an edge"


@pytest.mark.parametrize(("side", "scale"), [(8, 8), (28, 2), (64, 1), (5, 12)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_show_every_image_in_order_with_its_own_pixels(channels: int, side: int, scale: int) -> None:
    x = images(7, channels, side)
    picture = pixels(figures.draw(x))
    pad = max(2, scale // 2)
    assert picture.shape == (3, 3 * (side * scale + pad) + pad, 3 * (side * scale + pad) + pad)
    for i in range(7):
        assert torch.equal(tile(picture, i // 3, i % 3, side, scale), (x[i].expand(3, -1, -1) * 255).round().byte())


def test_the_corners_of_a_picture_are_those_of_its_tiles() -> None:
    x = torch.zeros(4, 3, 8, 8)
    x[0, :, 0, 0], x[3, :, -1, -1] = torch.tensor([1.0, 0.5, 0.2]), torch.tensor([0.2, 1.0, 0.6])
    picture = pixels(figures.draw(x))
    assert picture[:, 4, 4].tolist() == [255, 128, 51] and picture[:, 11, 11].tolist() == [255, 128, 51]
    assert picture[:, -5, -5].tolist() == [51, 255, 153] and picture[:, -13, -13].tolist() == [0, 0, 0]
    assert len(set(picture[:, 0, 0].tolist())) == 1  # The paper is gray.


def test_metadata_survive(tmp_path: Path) -> None:
    info = {"seed": 3, "run": "naïve “run”\n", "sampler": None, "levels": [[0.1, -2.5]], "nested": {"a": 1e-9}}
    path = figures.save_png(images(1)[0], tmp_path / "made" / "on the way" / "one.png", info)
    assert figures.read_info(path) == info
    assert torch.equal(pixels(Image.open(path)), (images(1)[0] * 255).round().byte())
    assert [p.name for p in path.parent.iterdir()] == ["one.png"]


def test_a_film_has_one_column_per_frame_and_one_row_per_example() -> None:
    frames = list(images(3 * 5).reshape(3, 5, 3, 8, 8))  # 3 frames of 5 examples.
    picture = pixels(figures.film(frames))
    assert picture.shape == (3, 5 * 68 + 4, 3 * 68 + 4)
    for column, frame in enumerate(frames):
        for row, image in enumerate(frame):
            assert torch.equal(tile(picture, row, column, 8, 8), (image * 255).round().byte())


def test_a_film_of_points_has_a_panel_per_frame() -> None:
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    one, three = figures.film([points]), figures.film([points, points / 2, points / 4])
    assert three.height == one.height and three.width == pytest.approx(3 * one.width, abs=3)


def test_points_appear_where_they_are() -> None:
    corner = np.array(figures.draw(torch.full((5, 2), 2.0)).convert("L"))
    center = np.array(figures.draw(torch.full((5, 2), -2.0)).convert("L"))
    marks = [np.argwhere(picture[10:-10, 10:-10] < 80) for picture in (corner, center)]
    height, width = corner.shape
    inner = [m[(m[:, 0] > 20) & (m[:, 0] < height - 40) & (m[:, 1] > 20) & (m[:, 1] < width - 40)] for m in marks]
    top, bottom = inner[0].mean(0), inner[1].mean(0)
    assert top[0] < height / 2 < bottom[0] and bottom[1] < width / 2 < top[1]


def test_an_animation_holds_the_frames_and_rests_on_the_last(tmp_path: Path) -> None:
    frames = [torch.full((1, 3, 8, 8), value) for value in (0.0, 0.4, 0.8, 1.0)]
    path = figures.save_animation(frames, tmp_path / "film.gif", seconds=2.0)
    with Image.open(path) as animation:
        assert animation.n_frames == 4 and animation.info["loop"] == 0
        seen = []
        for number in range(4):
            animation.seek(number)
            seen.append((animation.convert("RGB").getpixel((32, 32))[0], animation.info["duration"]))
    assert [duration for _, duration in seen] == [500, 500, 500, 1500]
    assert [value for value, _ in seen] == pytest.approx([0, 102, 204, 255], abs=2)


def panels(picture: Image.Image, side: int) -> list[Tensor]:
    """Returns the panels of a row, from left to right."""
    array, gap = pixels(picture), figures.GAP
    assert (array.shape[2] - gap) % (side + gap) == 0
    top = array.shape[1] - side - gap
    starts = range(gap, array.shape[2], side + gap)
    return [array[:, top : top + side, left : left + side] for left in starts]


def test_a_restoration_shows_damage_mask_samples_mean_std_and_original() -> None:
    original, samples = images(1)[0], images(4)
    known = torch.ones(1, 8, 8, dtype=torch.bool)
    known[:, 2:6, 2:6] = False
    damaged = torch.where(known, original, 0.5)
    std = samples.std(0)
    shown = panels(figures.restoration(damaged, samples, std, known=known, original=original), 96)
    deviation = std.mean(0, keepdim=True)
    expected = [damaged, known.float(), *samples, samples.mean(0), deviation / deviation.max(), original]
    assert len(shown) == len(expected) == 9
    for panel, x in zip(shown, expected, strict=True):
        small = panel[:, ::12, ::12]
        assert torch.equal(small.repeat_interleave(12, 1).repeat_interleave(12, 2), panel)
        assert float((small / 255 - x).abs().max()) <= 0.5 / 255 + 1e-6
    assert len(panels(figures.restoration(damaged, samples, std, known=known), 96)) == 8


def test_one_sample_has_no_mean_and_no_std() -> None:
    x, known = images(1), torch.ones(1, 8, 8, dtype=torch.bool)
    assert len(panels(figures.restoration(x[0], x, torch.zeros(3, 8, 8), known=known), 96)) == 3


def test_stacked_pictures_lie_below_each_other() -> None:
    first, second = Image.new("RGB", (5, 2), "red"), Image.new("RGB", (3, 4), "blue")
    stacked = figures.stack([first, second])
    assert stacked.size == (5, 6)
    assert stacked.getpixel((4, 1)) == (255, 0, 0) and stacked.getpixel((2, 2)) == (0, 0, 255)
    assert stacked.getpixel((4, 5)) == figures.PAPER


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (4, 32)])
def test_what_nobody_has_seen_is_a_gray_checkerboard(channels: int, side: int) -> None:
    x = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(2, 1, side, side, dtype=torch.bool)
    seen[1, :, : side // 2] = False
    found = figures.checkered(x, seen)
    square = max(1, side // figures.CHECKERS)
    assert torch.equal(found[0], x[0]) and torch.equal(found[1, :, side // 2 :], x[1, :, side // 2 :])
    hole = found[1, :3, : side // 2]
    assert (hole[:, :square, :square] == figures.CHECKER[0]).all()
    assert (hole[:, :square, square : 2 * square] == figures.CHECKER[1]).all()
    assert channels < 4 or (found[1, 3, : side // 2] == 1).all()
