"""Damaged images from files: their masks by alpha, by file and by color, their pairs by name, their channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion.damaged import Marked, Source, read_clean, read_damaged, read_observation, sources
from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.operators import parse

SPECS = {channels: DataSpec((channels, 6, 8), 256, mean=127.0, std=60.0) for channels in (1, 3, 4)}


def pixels(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 200, (6, 8, channels), dtype=np.uint8).squeeze()


def save(values: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def known() -> np.ndarray:
    values = np.ones((6, 8), dtype=bool)
    values[1:4, 2:5] = False
    return values


def read(path: Path, channels: int = 3, **options: object) -> tuple[Tensor, Tensor, str]:
    mask = options.pop("mask", None)
    return read_damaged(Source(path, mask, Path("x")), SPECS[channels], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("given", [1, 3, 4])
def test_any_image_becomes_one_of_the_model(tmp_path: Path, channels: int, given: int) -> None:
    mask = save(known().astype(np.uint8) * 255, tmp_path / "mask.png")
    values = pixels(given)
    image, shown, notice = read(save(values, tmp_path / "image.png"), channels, mask=mask)
    assert image.shape == (channels, 6, 8) and torch.equal(shown[0], torch.tensor(known())) and not notice
    color = values[..., :3] if given > 1 else np.dstack([values] * 3)
    luma = np.asarray(Image.fromarray(color).convert("L"))[..., None]
    expected = luma if channels == 1 else np.dstack([color, values[..., 3] if given == 4 else np.full((6, 8), 255)])
    assert np.array_equal((image * 255).round().numpy(), np.moveaxis(expected[..., :channels], 2, 0))


def test_alpha_is_a_mask_and_leaves_the_colors_of_what_is_half_transparent(tmp_path: Path) -> None:
    alpha = np.where(known(), 200, 90).astype(np.uint8)
    image, shown, _ = read(save(np.dstack([pixels(3), alpha]), tmp_path / "clear.png"))
    assert torch.equal(shown[0], torch.tensor(known()))
    assert np.array_equal((image * 255).round().numpy(), np.moveaxis(pixels(3), 2, 0))
    with pytest.raises(InputError, match=r"opaque\.png: nothing is transparent in it; say with --mask"):
        read(save(pixels(3), tmp_path / "opaque.png"))


def test_a_color_marks_what_is_unknown(tmp_path: Path) -> None:
    values = np.where(known()[..., None], pixels(3), np.array([255, 8, 250])).astype(np.uint8)
    path = save(values, tmp_path / "drawn.png")
    for channels in (1, 3):
        shown = read(path, channels, marked=Marked("#ff00ff", 0.05))[1]
        assert torch.equal(shown[0], torch.tensor(known()))
    assert bool(read(path, marked=Marked("#ff00ff", 0.0))[1].all())
    assert torch.equal(read(path, marked=Marked("magenta"))[1][0], torch.tensor(known()))
    with pytest.raises(InputError, match="--unknown-color: must be a color as #ff00ff, got '#ff'"):
        read(path, marked=Marked("#ff"))
    with pytest.raises(InputError, match="--threshold: must be in"):
        Marked("#ff00ff", 1.5)
    with pytest.raises(InputError, match="--unknown-color: must not be given with --mask"):
        read(path, mask=path, marked=Marked("#ff00ff"))


def test_another_size_is_kept_or_brought_to_that_of_the_model(tmp_path: Path) -> None:
    path = save(np.repeat(np.repeat(pixels(3), 2, 0), 3, 1), tmp_path / "large.png")
    mask = save(np.repeat(np.repeat(known().astype(np.uint8) * 255, 2, 0), 3, 1), tmp_path / "mask.png")
    image, shown, notice = read(path, mask=mask)
    assert image.shape == (3, 12, 24) and shown.shape == (1, 12, 24) and not notice
    assert torch.equal(read_clean(path, SPECS[3], (255, 255, 255))[0], image)
    image, shown, notice = read(path, mask=mask, resize=True)
    assert image.shape == (3, 6, 8) and shown.shape == (1, 6, 8)
    assert notice == "large.png: resized and cropped from 24 x 12 to the model's 8 x 6"
    assert read_clean(path, SPECS[3], (255, 255, 255), resize=True)[1] == notice
    with pytest.raises(InputError, match=r"mask\.png is 24 x 12 pixels, but small\.png is 8 x 6"):
        read(save(pixels(3), tmp_path / "small.png"), mask=mask)


@pytest.mark.parametrize(
    ("text", "channels", "factor"),
    [("blur:sigma=1", 3, 1), ("gray", 1, 1), ("downsample:factor=4", 3, 4), ("jpeg+downsample:factor=3+gray", 1, 3)],
)
def test_an_observation_tells_the_size_of_its_image(tmp_path: Path, text: str, channels: int, factor: int) -> None:
    path = save(pixels(3), tmp_path / "seen.png")
    y, size = read_observation(path, parse(text), SPECS[3], (0, 0, 0))
    luma = np.asarray(Image.open(path).convert("L"))[..., None]
    expected = pixels(3) if channels == 3 else luma
    assert np.array_equal((y * 255).round().numpy(), np.moveaxis(expected, 2, 0))
    assert size == (6 * factor, 8 * factor)


def test_what_an_operator_refuses_is_said_by_it(tmp_path: Path) -> None:
    path = save(pixels(3), tmp_path / "seen.png")
    with pytest.raises(InputError, match="gray: must be given 3 channels, got 4"):
        read_observation(path, parse("gray"), SPECS[4], (0, 0, 0))
    with pytest.raises(InputError, match="blur: must be given an image larger than the kernel's reach of 8x8"):
        read_observation(path, parse("blur:sigma=2"), SPECS[3], (0, 0, 0))


def test_folders_are_paired_with_masks_by_name(tmp_path: Path) -> None:
    for name in ("a/2.png", "a/10.jpg", "a/inner/2.png", "m/2.bmp", "m/10.png", "m/inner/2.png", "m/more.png"):
        save(pixels(3), tmp_path / name)
    found = sources([tmp_path / "a"], tmp_path / "m")
    assert [str(source.place) for source in found] == ["2", "10", "inner/2"]
    assert [source.mask.relative_to(tmp_path / "m").as_posix() for source in found if source.mask] == [
        "2.bmp", "10.png", "inner/2.png"
    ]  # fmt: skip
    both = sources([tmp_path / "a", tmp_path / "m"], tmp_path / "m" / "2.bmp")
    assert {source.mask for source in both} == {tmp_path / "m" / "2.bmp"} and len(both) == 7
    assert str(both[-1].place) == "m/more"
    (tmp_path / "m" / "10.png").unlink()
    with pytest.raises(InputError, match=r"--mask: must hold 10\.png, or of another suffix, for .*a/10\.jpg; .*m does"):
        sources([tmp_path / "a"], tmp_path / "m")


def test_images_without_a_place_of_their_own_are_named(tmp_path: Path) -> None:
    first, second = save(pixels(3), tmp_path / "a" / "x.png"), save(pixels(3), tmp_path / "b" / "x.png")
    with pytest.raises(InputError, match=r"b/x\.png: must have a name of its own, got that of .*a/x\.png"):
        sources([first, second])
    save(pixels(3), tmp_path / "a" / "x.bmp")
    with pytest.raises(InputError, match=r"must have a name of its own"):
        sources([tmp_path / "a"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no images there"):
        sources([tmp_path / "empty"])
    with pytest.raises(InputError, match="IMAGE: no images there"):
        sources([])
