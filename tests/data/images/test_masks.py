"""A mask of any kind says what it means, or is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffusion.data.images.masks import Mask, fitted, read_mask
from diffusion.errors import InputError

SHAPE = (12, 16)
HIDDEN = np.zeros(SHAPE, dtype=bool)
HIDDEN[3:7, 4:9] = True
RGBA = (*SHAPE, 4)


def save(values: np.ndarray, path: Path) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def layer(color: tuple[int, int, int]) -> np.ndarray:
    """Strokes of a color on a transparent layer, with a soft edge above them."""
    values = np.zeros(RGBA, dtype=np.uint8)
    values[HIDDEN] = (*color, 255)
    values[2, 4:9] = (*color, 90)
    return values


white = np.where(HIDDEN, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gray.png", white),
        ("rgb.bmp", np.dstack([white] * 3)),
        ("opaque.png", np.dstack([white] * 3 + [np.full(SHAPE, 255, np.uint8)])),
        ("bits.png", ~HIDDEN),
        ("deep.png", white.astype(np.uint16) * 257),
        ("wide.tif", np.where(HIDDEN, 0, 1).astype(np.float32)),
        ("bool.npy", ~HIDDEN),
        ("one.npy", np.where(HIDDEN, 0, 1).astype(np.int64)),
        ("float.npy", np.where(HIDDEN, 0.0, 1.0)),
        ("nearly.png", np.where(HIDDEN, 12, 243).astype(np.uint8)),
    ],
)
def test_white_is_known_in_every_kind_of_file_and_inverted_it_is_not(
    tmp_path: Path, name: str, values: np.ndarray
) -> None:
    path = save(values, tmp_path / name)
    assert np.array_equal(read_mask(path).known[..., 0], ~HIDDEN) and read_mask(path).notices == ()
    inverted = read_mask(path, inverted=True)
    assert np.array_equal(inverted.known[..., 0], HIDDEN)


def test_palettes_count_by_their_colors_and_not_by_their_numbers(tmp_path: Path) -> None:
    image = Image.fromarray(HIDDEN.astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0] + [9] * 6)
    image.save(tmp_path / "p.png")
    assert np.array_equal(read_mask(tmp_path / "p.png").known[..., 0], ~HIDDEN)


def test_what_is_not_nearly_white_is_filled(tmp_path: Path) -> None:
    """The rim of a soft brush, and of JPEG, belongs to what was painted over."""
    values = white.copy()
    values[2, 4:9], values[1, 4:9] = 200, 240
    known = read_mask(save(values, tmp_path / "soft.png")).known[..., 0]
    assert not known[2, 4:9].any() and known[1, 4:9].all()
    Image.fromarray(np.kron(white, np.ones((4, 4), np.uint8))).save(tmp_path / "m.jpg", quality=60)
    known = read_mask(tmp_path / "m.jpg").known[..., 0]
    assert not known[np.kron(HIDDEN, np.ones((4, 4), bool))].any() and known.mean() > 0.7


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (255, 0, 0)])
def test_strokes_on_a_transparent_layer_are_what_is_to_be_filled(tmp_path: Path, color: tuple[int, int, int]) -> None:
    drawn = HIDDEN.copy()
    drawn[2, 4:9] = True
    path = save(layer(color), tmp_path / "layer.png")
    assert np.array_equal(read_mask(path).known[..., 0], ~drawn)
    assert read_mask(path).notices == ("layer.png: its strokes on a transparent layer are what is to be filled",)
    assert np.array_equal(read_mask(path, inverted=True).known[..., 0], drawn)


def test_a_mask_by_channel_has_a_part_for_each(tmp_path: Path) -> None:
    values = np.dstack([white, np.full(SHAPE, 255, np.uint8), white.T.reshape(SHAPE)])
    known = read_mask(save(values, tmp_path / "c.png"), by_channel=True).known
    assert np.array_equal(known, values == 255)
    with pytest.raises(InputError, match=r"has \d+ colored pixels, as #.* which do not say what is known"):
        read_mask(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros(SHAPE, np.uint8),
            "shows all of the image as to be filled: its values are all 0, with 255 as white; draw",
        ),
        (HIDDEN.astype(np.uint8), "its values are 0 to 1, with 255 as white; multiply them by 255"),
        (100 * HIDDEN.astype(np.uint8), "its values are 0 to 100, with 255 as white; multiply them by 2.55"),
        (128 * HIDDEN.astype(np.uint8), "shows all of the image as to be filled: .* multiply them by 1.992"),
        (
            np.where(HIDDEN, 235, 250).astype(np.uint8),
            "shows all of the image as known: its values are 235 to 250, with",
        ),
        (
            np.indices(SHAPE)[0].astype(np.uint8) % 4,
            "values are 0 to 3, with 255 as white; if 0, 1, 2, 3 are the numbers of objects, draw what is known white",
        ),
        (
            np.indices(SHAPE)[0].astype(np.uint8),
            r"if 0, 1, 2, 3, \.\.\. are the numbers of objects, draw what is known white and the objects to be filled",
        ),
        (np.indices(SHAPE).sum(0).astype(np.uint8) * 9, r"is a picture of grays, \d\d% of it neither black nor white"),
        (np.dstack([white] * 3 + [np.where(HIDDEN, 255, 90).astype(np.uint8)]), "more transparent in some parts than"),
        ((HIDDEN * 4095).astype(np.uint16), "its values are 0 to 4095, with 65535 as white; multiply them by 16"),
        (np.zeros(RGBA, np.uint8), "is transparent everywhere; draw on it what is to be filled"),
        (np.dstack([white, 0 * white, 0 * white]), r"colored pixels, as #ff0000 at \(0, 0\), which do not say what is"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused_with_the_reason(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_mask(save(values, tmp_path / "m.png"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (HIDDEN.astype(np.uint8), "shows all of the image as known: its values are 0 to 1, .*; multiply them by 255"),
        (
            np.where(HIDDEN, 128, 255).astype(np.uint8),
            "shows all of the image as to be filled: its values are 128 to 255",
        ),
    ],
)
def test_an_inverted_mask_that_cannot_be_meant_is_refused_as_well(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_mask(save(values, tmp_path / "m.png"), inverted=True)


def test_how_much_of_a_mask_is_gray_is_said(tmp_path: Path) -> None:
    path = save(np.where(HIDDEN, 128, 255).astype(np.uint8), tmp_path / "g.png")
    assert read_mask(path).notices == ("g.png: 10% of it is gray, which is filled too",)
    assert np.array_equal(read_mask(path).known[..., 0], ~HIDDEN)


def test_masks_that_store_white_as_the_lowest_value_are_read_as_they_show(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    for values in (255 - white, 65535 - 257 * white.astype(np.uint16)):
        tifffile.imwrite(tmp_path / "m.tif", values, photometric="miniswhite")
        assert np.array_equal(read_mask(tmp_path / "m.tif").known[..., 0], ~HIDDEN)


def test_of_several_images_in_a_mask_the_first_is_taken_which_is_said(tmp_path: Path) -> None:
    first = Image.fromarray(white)
    first.save(tmp_path / "m.tif", save_all=True, append_images=[Image.new("L", first.size)])
    found = read_mask(tmp_path / "m.tif")
    assert np.array_equal(found.known[..., 0], ~HIDDEN)
    assert found.notices == ("m.tif: holds 2 images, of which the first is the mask",)


def test_colors_are_refused_with_what_they_may_be_meant_as(tmp_path: Path) -> None:
    """Strokes on the image, a mask by channel, or a photograph."""
    rng = np.random.default_rng(0)
    strokes = np.dstack([white // 2 + 60] * 3)
    strokes[HIDDEN] = (255, 0, 0)
    pure = np.dstack([white, np.full_like(white, 255), white])
    for name, values, hints in (
        ("s.png", strokes, ["--unknown-color '#ff0000'"]),
        ("c.png", pure, ["--unknown-color '#00ff00'", "--mask-channels"]),
        ("p.png", rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8), []),
    ):
        with pytest.raises(InputError, match="colored pixels, as #") as caught:
            read_mask(save(values, tmp_path / name))
        possible = ("--unknown-color '#ff0000'", "--unknown-color '#00ff00'", "--mask-channels")
        assert [hint for hint in possible if hint in str(caught.value)] == hints
    bands = np.dstack([white] * 5)
    bands[0, 0, 4] = 0
    with pytest.raises(InputError, match=r"has 5 bands that differ in 1 pixels; .* add --mask-channels"):
        read_mask(save(bands, tmp_path / "b.npy"))


def test_fractions_beyond_one_and_wide_values_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds fractions from 0 to 255; they must lie in \[0, 1\], .* so divide them by 255"
    ):
        read_mask(save(white.astype(np.float32), tmp_path / "m.npy"))
    with pytest.raises(InputError, match="holds values from -1 to 1; save it as 8 bits"):
        read_mask(save(np.where(HIDDEN, -1, 1), tmp_path / "n.npy"))


def test_a_polarity_that_is_likely_the_other_one_is_noticed_before_the_work(tmp_path: Path) -> None:
    swapped = save(255 - white, tmp_path / "swapped.png")
    [notice] = read_mask(swapped).notices
    assert notice.startswith("swapped.png: black is to be filled, 90% of it;") and notice.endswith("use --invert-mask")
    assert read_mask(swapped, inverted=True).notices == ()
    large = np.zeros(SHAPE, np.uint8)
    large[1:-1, 2:-2] = 255
    large[4:8] = 0
    [notice] = read_mask(save(large, tmp_path / "large.png")).notices
    assert "black is to be filled, 62% of it, all around what is known" in notice
    large[4:8] = 255  # White fills more than half, as one large hole in the other convention.
    large[:2], large[:, :3] = 0, 0
    [notice] = read_mask(save(large, tmp_path / "large.png")).notices
    assert "44% of it, all around what is known; if the other part is meant, use --invert-mask" in notice
    assert read_mask(save(255 - large, tmp_path / "hole.png")).notices == ()


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_mask_of_the_stored_size_is_turned_as_its_photograph_is(tmp_path: Path, turn: int) -> None:
    """Pillow turns both in the same way."""
    photo, mask = Image.fromarray(np.dstack([white] * 3)), Image.fromarray(white)
    exif = Image.Exif()
    exif[0x0112] = turn
    photo.save(tmp_path / "p.jpg", exif=exif)
    mask.save(tmp_path / "plain.png")
    mask.save(tmp_path / "tagged.png", exif=exif)
    with Image.open(tmp_path / "p.jpg") as image:
        size = ImageOps.exif_transpose(image).size[::-1]
    with Image.open(tmp_path / "tagged.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image)) > 0
    names = ["tagged.png", *(["plain.png"] if turn >= 5 else [])]
    for name in names:
        found = fitted(read_mask(tmp_path / name), tmp_path / name, tmp_path / "p.jpg", size)
        assert np.array_equal(found.known[..., 0], expected)
        said = f"plain.png: turned as p.jpg is by its EXIF tag ({turn}), for it has the size before that"
        assert found.notices == ((said,) if name == "plain.png" else ())


@pytest.mark.parametrize("turn", [2, 3, 4])
def test_a_mask_whose_size_does_not_tell_a_turn_is_taken_as_drawn_after_it_which_is_said(
    tmp_path: Path, turn: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.dstack([white] * 3)).save(tmp_path / "p.jpg", exif=exif)
    mask = save(white, tmp_path / "m.png")
    found = fitted(read_mask(mask), mask, tmp_path / "p.jpg", SHAPE)
    assert np.array_equal(found.known[..., 0], ~HIDDEN)
    assert found.notices == (f"m.png: taken as drawn on p.jpg after its turn by EXIF (tag {turn})",)


def test_of_a_square_photograph_that_is_turned_it_is_said_how_the_mask_is_taken(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 8)).save(tmp_path / "p.jpg", exif=exif)
    mask = save(np.eye(8, dtype=np.uint8) * 255, tmp_path / "m.png")
    found = fitted(read_mask(mask), mask, tmp_path / "p.jpg", (8, 8))
    assert found.notices[-1] == "m.png: taken as drawn on p.jpg after its turn by EXIF (tag 6)"


@pytest.mark.parametrize(("size", "hint"), [((24, 32), ": scale it by 2, without smoothing"), ((24, 30), "")])
def test_a_mask_of_another_size_is_refused(tmp_path: Path, size: tuple[int, int], hint: str) -> None:
    Image.new("RGB", size[::-1]).save(tmp_path / "p.png")
    mask = Mask(~HIDDEN[..., None])
    with pytest.raises(InputError, match=f"m.png is 16 x 12 pixels, but .*p.png is {size[1]} x 24; .*image{hint}$"):
        fitted(mask, tmp_path / "m.png", tmp_path / "p.png", size)
