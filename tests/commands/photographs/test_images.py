"""Damaged images from files: their masks by alpha, by file and by color, their pairs by name, their channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion.commands.photographs.images import (
    Damaged,
    Marking,
    fit_known,
    read_clean,
    read_damaged,
    read_observation,
)
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.pad import Pad
from diffusion.data import DataSpec, resize_and_crop
from diffusion.data.images.marks import Marked
from diffusion.errors import InputError
from diffusion.operators import parse

WHITE = (255, 255, 255)
SPECS = {channels: DataSpec((channels, 6, 8), 256, mean=127.0, std=60.0) for channels in (1, 3, 4)}


def pixels(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 200, (6, 8, channels), dtype=np.uint8).squeeze()


def save(values: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def on(rgba: np.ndarray, background: tuple[int, int, int]) -> Image.Image:
    """What transparent pixels show of a background."""
    behind = Image.new("RGBA", rgba.shape[1::-1], (*background, 255))
    return Image.alpha_composite(behind, Image.fromarray(rgba)).convert("RGB")


def known() -> np.ndarray:
    values = np.ones((6, 8), dtype=bool)
    values[1:4, 2:5] = False
    return values


def read(path: Path, channels: int = 3, **options: object) -> tuple[Tensor, Tensor, str]:
    """The image, its known pixels, and the notices in one text; a color is taken without its rim unless told."""
    mask, marked = options.pop("mask", None), options.pop("marked", None)
    background, grow = options.pop("background", WHITE), options.pop("grow", None if marked is None else 0)
    marking = Marking(marked=marked, grow=grow)  # type: ignore[arg-type]
    file = ImageFile(path, mask, Path("x"))  # type: ignore[arg-type]
    found = read_damaged(file, SPECS[channels], background, marking, **options)  # type: ignore[arg-type]
    return found.image, found.known, "; ".join(found.notices)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("given", [1, 3, 4])
def test_any_image_becomes_one_of_the_model(tmp_path: Path, channels: int, given: int) -> None:
    mask = save(known().astype(np.uint8) * 255, tmp_path / "mask.png")
    values = pixels(given)
    image, shown, notice = read(save(values, tmp_path / "image.png"), channels, mask=mask)
    assert image.shape == (channels, 6, 8) and torch.equal(shown[0], torch.tensor(known())) and not notice
    color = values[..., :3] if given > 1 else np.dstack([values] * 3)
    if given == 4 and channels < 4:
        color = np.asarray(on(values, WHITE))
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
    assert bool(read(path, marked=Marked("#ff00ff", 0.0), whole=True)[1].all())
    assert torch.equal(read(path, marked=Marked("magenta"))[1][0], torch.tensor(known()))
    with pytest.raises(InputError, match="--unknown-color: must be a color such as #ff00ff, got '#ff'"):
        read(path, marked=Marked("#ff"))
    with pytest.raises(InputError, match="--threshold: must be in"):
        Marked("#ff00ff", 1.5)
    with pytest.raises(InputError, match="--unknown-color: must not be given with --mask"):
        read(path, mask=path, marked=Marked("#ff00ff"))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_mask_or_a_color_leaves_is_seen_on_the_background_of_the_data(tmp_path: Path, channels: int) -> None:
    """As training sees it: what a transparent pixel hides is not what it shows."""
    alpha = np.random.default_rng(1).integers(0, 256, (6, 8), dtype=np.uint8)
    alpha[0] = 0
    rgba = np.dstack([pixels(3), alpha])
    rgba[~known()] = (255, 0, 255, 255)
    rgba[0, :4] = (255, 0, 255, 0)  # It does not show.
    path = save(rgba, tmp_path / "layer.png")
    mask = save(known().astype(np.uint8) * 255, tmp_path / "mask.png")
    for background in (WHITE, (0, 60, 250)):
        clean = read_clean(path, SPECS[channels], background)[0]
        for options in ({"mask": mask}, {"marked": Marked("#ff00ff")}):
            image, shown, _ = read(path, channels, background=background, **options)
            assert torch.equal(image, clean) and torch.equal(shown[0], torch.tensor(known()))


def test_an_image_in_which_nothing_is_unknown_is_named(tmp_path: Path) -> None:
    path = save(pixels(3), tmp_path / "full.png")
    white = save(np.full((6, 8), 255, dtype=np.uint8), tmp_path / "white.png")
    with pytest.raises(
        InputError, match=r"--mask: .*white\.png shows all of .*full\.png as known; black is what is to be"
    ):
        read(path, mask=white)
    with pytest.raises(
        InputError, match=r"full\.png: nothing in it has --unknown-color #f0f; raise --threshold or che"
    ):
        read(path, marked=Marked("#f0f"))
    for options in ({"mask": white}, {"marked": Marked("#f0f")}):
        assert bool(read(path, whole=True, **options)[1].all())
    with pytest.raises(InputError, match=r"full\.png: nothing is transparent"):
        read(path, whole=True)
    wide, cut = np.tile(pixels(3), (1, 3, 1)), np.full((6, 24), 255, dtype=np.uint8)
    cut[:, :4] = 0
    cut_off = {"mask": save(cut, tmp_path / "cut.png"), "resize": True}
    with pytest.raises(InputError, match=r"wide\.png: no unknown pixels are left after --resize"):
        read(save(wide, tmp_path / "wide.png"), **cut_off)


@pytest.mark.parametrize(
    ("given", "size", "most"),
    # Of each result (h, w): the part that may be unknown. A hole of 5x5 reaches 3 pixels to all sides.
    [
        ((64, 64), (16, 16), 12 * 12),
        ((16, 16), (64, 64), 48 * 48),
        ((70, 51), (16, 16), 13 * 13),
        ((33, 40), (31, 33), 20 * 20),
        ((200, 300), (8, 16), 7 * 14),
    ],
)
def test_a_resized_pixel_is_known_only_if_nothing_hidden_is_in_it(
    given: tuple[int, int], size: tuple[int, int], most: int
) -> None:
    """Whatever is hidden, all that is known stays the same."""
    rng = np.random.default_rng(0)
    hidden = np.zeros((*given, 1), dtype=bool)
    top, left, tall, wide = given[0] // 3, given[1] // 3, given[0] * 20 // 64, given[1] * 20 // 64
    hidden[top : top + tall, left : left + wide] = True
    image = rng.integers(0, 256, (*given, 3), dtype=np.uint8)
    shown, seen = fit_known(~hidden, size)[:, :, 0], resize_and_crop(image, size)
    assert shown.shape == size and int((~shown).sum()) <= most
    blocks = (rng.integers(0, 2, image.shape) for _ in range(30))
    for values in (np.zeros(image.shape), np.ones(image.shape), *blocks):
        other = resize_and_crop(np.where(hidden, 255 * values, image).astype(np.uint8), size)
        assert np.array_equal(other[shown], seen[shown])


def test_an_image_that_is_only_cut_hides_no_more_than_before() -> None:
    values = np.random.default_rng(0).integers(0, 2, (16, 20, 1)).astype(bool)
    assert np.array_equal(fit_known(values, (16, 16)), values[:, 2:18])


def test_another_size_is_kept_or_brought_to_that_of_the_model(tmp_path: Path) -> None:
    path = save(np.repeat(np.repeat(pixels(3), 2, 0), 3, 1), tmp_path / "large.png")
    mask = save(np.repeat(np.repeat(known().astype(np.uint8) * 255, 2, 0), 3, 1), tmp_path / "mask.png")
    image, shown, notice = read(path, mask=mask)
    assert image.shape == (3, 12, 24) and shown.shape == (1, 12, 24) and not notice
    assert torch.equal(read_clean(path, SPECS[3], (255, 255, 255))[0], image)
    with pytest.raises(InputError, match=r"large\.png: all of it is to be filled after --resize"):
        read(path, mask=mask, resize=True)
    corner = np.full((12, 24), 255, dtype=np.uint8)
    corner[:3, 2:7] = 0
    mask = save(corner, tmp_path / "mask.png")
    image, shown, notice = read(path, mask=mask, resize=True)
    assert 0 < shown.float().mean() < 1
    assert image.shape == (3, 6, 8) and shown.shape == (1, 6, 8)
    assert notice == "large.png: resized and cropped from 24 x 12 to the model's 8 x 6"
    assert read_clean(path, SPECS[3], (255, 255, 255), resize=True)[1] == notice
    with pytest.raises(InputError, match=r"mask\.png is 24 x 12 pixels, but .*small\.png is 8 x 6"):
        read(save(pixels(3), tmp_path / "small.png"), mask=mask)


@pytest.mark.parametrize(
    ("text", "channels", "factor"),
    [("blur:sigma=1", 3, 1), ("gray", 1, 1), ("downsample:factor=4", 3, 4), ("jpeg+downsample:factor=3+gray", 1, 3)],
)
def test_an_observation_tells_the_size_of_its_image(tmp_path: Path, text: str, channels: int, factor: int) -> None:
    path = save(pixels(3), tmp_path / "seen.png")
    y, _, shape = read_observation(path, parse(text), SPECS[3], (0, 0, 0))
    luma = np.asarray(Image.open(path).convert("L"))[..., None]
    expected = pixels(3) if channels == 3 else luma
    assert np.array_equal((y * 255).round().numpy(), np.moveaxis(expected, 2, 0))
    assert shape == (3, 6 * factor, 8 * factor)


def test_what_an_operator_refuses_is_said_by_it(tmp_path: Path) -> None:
    path = save(pixels(3), tmp_path / "seen.png")
    with pytest.raises(InputError, match="gray: must be given 3 channels, got 4"):
        read_observation(path, parse("gray"), SPECS[4], (0, 0, 0))
    with pytest.raises(InputError, match="blur: must be given an image larger than the kernel's reach of 8x8"):
        read_observation(path, parse("blur:sigma=2"), SPECS[3], (0, 0, 0))


def masked(tmp_path: Path, **options: object) -> Damaged:
    """What is read of an image with a mask, 6x8."""
    mask = save(known().astype(np.uint8) * 255, tmp_path / "mask.png")
    photo = save(pixels(3), tmp_path / "photo.png")
    marking = Marking(**options)  # type: ignore[arg-type]
    return read_damaged(ImageFile(photo, mask, Path("x")), SPECS[3], WHITE, marking)


def test_what_is_unknown_grows_by_as_many_pixels_as_asked_for(tmp_path: Path) -> None:
    assert torch.equal(masked(tmp_path).known[0], torch.tensor(known()))
    grown = ~np.pad(~known(), 1)
    grown = np.stack([np.roll(grown, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]).all(0)[1:-1, 1:-1]
    assert np.array_equal(masked(tmp_path, grow=1).known[0].numpy(), grown)
    assert bool(masked(tmp_path, inverted=True).known[0].eq(torch.tensor(~known())).all())


def test_a_feathered_hole_is_restored_in_full_and_shown_in_part(tmp_path: Path) -> None:
    found = masked(tmp_path, feather=1)
    assert found.blend is not None and bool((found.blend[0][torch.tensor(~known())] == 1).all())
    ring = ~found.known[0] & torch.tensor(known())
    assert torch.allclose(found.blend[0][ring], torch.tensor(0.5)) and float(found.blend[0][found.known[0]].max()) == 0


def test_a_seam_is_feathered_at_the_size_that_is_restored(tmp_path: Path) -> None:
    """With --resize the ramp belongs to the smaller image."""
    photo = save(np.repeat(np.repeat(pixels(3), 4, 0), 4, 1), tmp_path / "large.png")
    hole = np.full((24, 32), 255, dtype=np.uint8)
    hole[:, 28:] = 0
    mask = save(hole, tmp_path / "hole.png")
    found = read_damaged(ImageFile(photo, mask, Path("x")), SPECS[3], WHITE, Marking(feather=1), resize=True)
    plain = read_damaged(ImageFile(photo, mask, Path("x")), SPECS[3], WHITE, resize=True)
    first = int(plain.known[0, 0].sum())
    assert found.blend is not None and found.blend.shape == (1, 6, 8)
    assert found.blend[0, 0].tolist() == pytest.approx([0.0] * (first - 1) + [0.5] + [1.0] * (8 - first))
    assert int(found.known[0, 0].sum()) == first - 1
    with pytest.raises(InputError, match=r"--feather: nothing of .*photo\.png is further than 9 pixels from what is"):
        masked(tmp_path, feather=9)


def test_a_color_is_grown_beyond_its_rim_and_with_0_has_none(tmp_path: Path) -> None:
    values = np.full((6, 8, 3), (40, 90, 60), dtype=np.uint8)
    values[:, 0], values[:, 1] = (255, 0, 255), (148, 45, 158)  # The color, and a half of it.
    path = save(values, tmp_path / "drawn.png")
    hidden = {}
    for grow in (None, 0, 1, 2):
        marking = Marking(marked=Marked("#ff00ff"), grow=grow)
        hidden[grow] = 8 - int(
            read_damaged(ImageFile(path, None, Path("x")), SPECS[3], WHITE, marking).known[0, 0].sum()
        )
    assert hidden == {None: 3, 0: 1, 1: 4, 2: 5}


@pytest.mark.parametrize("kind", ["color", "alpha"])
def test_where_most_is_to_be_filled_it_is_said_before_the_work(tmp_path: Path, kind: str) -> None:
    values = np.full((6, 8, 4), (255, 0, 255, 255), dtype=np.uint8)
    values[:, 7] = (9, 99, 9, 255)
    values[:, :7, 3] = 255 if kind == "color" else 0
    path = save(values if kind == "alpha" else values[..., :3].copy(), tmp_path / "most.png")
    marking = Marking(marked=Marked("#ff00ff") if kind == "color" else None, grow=0)
    found = read_damaged(ImageFile(path, None, Path("x")), SPECS[3], WHITE, marking)
    assert found.notices == ("most.png: 88% of it is to be filled",)


def test_padding_is_unknown_beside_the_hole_and_needs_none(tmp_path: Path) -> None:
    found = masked(tmp_path, pad=Pad(left=2, bottom=1))
    assert found.image.shape == (3, 7, 10)
    assert torch.equal(found.known[0, :6, 2:], torch.tensor(known())) and not found.known[0, :, :2].any()
    assert torch.equal((found.image[:, :6, 2:] * 255).round(), torch.tensor(pixels(3)).movedim(2, 0).float())
    photo = tmp_path / "photo.png"
    alone = read_damaged(ImageFile(photo, None, Path("x")), SPECS[3], WHITE, Marking(pad=Pad(top=3)))
    assert bool(alone.known[0, 3:].all()) and not alone.known[0, :3].any()


def test_each_channel_may_have_a_mask_of_its_own(tmp_path: Path) -> None:
    parts = np.stack([known(), np.ones((6, 8), bool), np.roll(known(), 3, 1)], 2)
    mask = save(parts.astype(np.uint8) * 255, tmp_path / "parts.png")
    photo = save(pixels(3), tmp_path / "photo.png")
    found = read_damaged(ImageFile(photo, mask, Path("x")), SPECS[3], WHITE, Marking(by_channel=True))
    assert np.array_equal(found.known.permute(1, 2, 0).numpy(), parts)
    with pytest.raises(InputError, match=r"--mask-channels: needs a mask of 1 channels, .*parts\.png has 3 channels"):
        read_damaged(ImageFile(photo, mask, Path("x")), SPECS[1], WHITE, Marking(by_channel=True))
    gray = save(known().astype(np.uint8) * 255, tmp_path / "gray.png")
    with pytest.raises(InputError, match=r"--mask-channels: needs a mask of 3 channels, .*gray\.png has 1 channel$"):
        read_damaged(ImageFile(photo, gray, Path("x")), SPECS[3], WHITE, Marking(by_channel=True))


def test_options_of_a_mask_need_one_and_a_mask_that_hides_everything_is_refused(tmp_path: Path) -> None:
    photo = ImageFile(save(pixels(3), tmp_path / "photo.png"), None, Path("x"))
    for name, marking in (("--invert-mask", Marking(inverted=True)), ("--mask-channels", Marking(by_channel=True))):
        with pytest.raises(InputError, match=f"{name}: needs a mask, and .*photo.png has none"):
            read_damaged(photo, SPECS[3], WHITE, marking)
    with pytest.raises(InputError, match=r"photo\.png: all of it is to be filled"):
        masked(tmp_path, grow=8)
    with pytest.raises(InputError, match="--grow: must be 0 or more pixels, got -1"):
        Marking(grow=-1)


def test_deep_values_are_read_in_the_range_of_the_model(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (6, 8)).astype(np.uint16)
    photo = save(values, tmp_path / "deep.png")
    mask = save(known().astype(np.uint8) * 255, tmp_path / "mask.png")
    spec = DataSpec((1, 6, 8), 4096, mean=2000.0, std=900.0, value_range=(0, 4095))
    found = read_damaged(ImageFile(photo, mask, Path("x")), spec, WHITE)
    assert np.array_equal((found.image[0] * 4095).round().numpy(), values)
    assert np.array_equal((read_clean(photo, spec, WHITE)[0][0] * 4095).round().numpy(), values)


def test_each_band_of_an_array_may_have_a_mask_of_its_own(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((6, 8, 5)).astype(np.float32)
    parts = np.ones((6, 8, 5), dtype=bool)
    parts[1:3, 2:4, 2], parts[:, :2, 4] = False, False
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "a_mask.npy", parts)
    spec = DataSpec((5, 6, 8), None, mean=0.5, std=0.3, value_range=(0, 1))
    file = ImageFile(tmp_path / "a.npy", tmp_path / "a_mask.npy", Path("x"))
    found = read_damaged(file, spec, WHITE, Marking(by_channel=True))
    assert np.array_equal(found.known.permute(1, 2, 0).numpy(), parts)
    assert np.array_equal(found.image.permute(1, 2, 0).numpy(), values)
    with pytest.raises(InputError, match=r"has 5 bands that differ in \d+ pixels; .* add --mask-channels"):
        read_damaged(file, spec, WHITE)


def test_the_picture_format_of_telephones_is_a_jpeg(tmp_path: Path) -> None:
    """MPO: a photograph with another one of the same scene behind it."""
    image = Image.new("RGB", (64, 48), (40, 90, 60))
    image.paste((255, 0, 255), (20, 16, 40, 30))
    image.save(tmp_path / "p.jpg", format="MPO", save_all=True, append_images=[image], quality=60)
    with Image.open(tmp_path / "p.jpg") as file:
        assert file.format == "MPO"
    file = ImageFile(tmp_path / "p.jpg", None, Path("x"))
    known = read_damaged(file, SPECS[3], WHITE, Marking(marked=Marked("#ff00ff"))).known[0]
    off = (
        (torch.tensor(np.asarray(Image.open(tmp_path / "p.jpg")).astype(int)) - torch.tensor((40, 90, 60)))
        .abs()
        .amax(2)
    )
    assert int(off[known].max()) < 40 and float(known.float().mean()) > 0.7
