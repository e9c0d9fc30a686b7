"""A color that is drawn into an image is found with its rim, and little more."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from diffusion.data.images.marks import Marked, grown
from diffusion.errors import InputError

MAGENTA = np.array([255, 0, 255])


def scene(seed: int) -> Image.Image:
    """A blurred picture of random colors, some of them pink."""
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 220, (9, 12, 3), dtype=np.uint8)
    small[2:4, 3:5] = (240, 130, 190)
    return Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))


def drawn(image: Image.Image) -> Image.Image:
    marked = image.copy()
    ImageDraw.Draw(marked).text((6, 10), "TEXT", fill=(255, 0, 255), font=ImageFont.load_default(size=26))
    return marked


def compressed(image: Image.Image, quality: int, kind: str = "JPEG") -> np.ndarray:
    image.save(file := io.BytesIO(), kind, quality=quality)
    return np.asarray(Image.open(file))


def strokes(image: Image.Image) -> Image.Image:
    """Text and lines so thin that few of their pixels have the full color."""
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    draw.text((6, 4), "Text 2026-11-29", fill=(255, 0, 255), font=ImageFont.load_default(size=9))
    large = Image.new("L", (96 * 4, 72 * 4))
    ImageDraw.Draw(large).line((20, 260, 360, 90), fill=255, width=5)
    marked.paste((255, 0, 255), mask=large.resize((96, 72), Image.Resampling.BOX))
    return marked


def near(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(pixels.astype(int) - MAGENTA).max(2) < 0.35 * 255)


@pytest.mark.parametrize("seed", range(4))
def test_of_smooth_text_nothing_is_left_in_a_lossless_file(seed: int) -> None:
    original, marked = (np.asarray(image) for image in (scene(seed), drawn(scene(seed))))
    painted = (original != marked).any(2)
    hidden = Marked("#ff00ff").hidden(marked, jpeg=False)[..., 0]
    assert not (painted & ~hidden).any()
    assert hidden.sum() < 3 * painted.sum()
    # The color alone leaves the rim.
    assert (painted & ~Marked("#ff00ff").hidden(marked, jpeg=False, rim=False)[..., 0]).sum() > 50


@pytest.mark.parametrize("quality", [85, 60])
@pytest.mark.parametrize("seed", range(3))
def test_of_smooth_text_nothing_that_can_be_seen_is_left_in_a_jpeg(seed: int, quality: int) -> None:
    original, marked = compressed(scene(seed), quality), compressed(drawn(scene(seed)), quality)
    hidden = Marked("#ff00ff").hidden(marked, jpeg=True)[..., 0]
    assert not (near(marked) & ~near(original) & ~hidden).any()
    changed = np.abs(marked.astype(int) - original).max(2) > 60
    assert (changed & ~hidden).mean() < 0.01 and hidden.mean() < 0.45


@pytest.mark.parametrize("seed", range(4))
def test_thin_strokes_that_nowhere_have_the_full_color_are_found(seed: int) -> None:
    dark = scene(seed).point(lambda value: 0.6 * value)  # Of no color near to that of the strokes.
    original, marked = np.asarray(dark), np.asarray(strokes(dark))
    hidden = Marked("#ff00ff").hidden(marked, jpeg=False)[..., 0]
    assert not (near(marked) & ~hidden).any()
    left = np.abs(marked.astype(int) - original).max(2)[~hidden]
    assert (left > 60).sum() < 0.02 * (original != marked).any(2).sum() and hidden.mean() < 0.4
    # By the color alone most of it is left.
    assert (near(marked) & ~Marked("#ff00ff").hidden(marked, jpeg=False, rim=False)[..., 0]).sum() > 100


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_what_was_compressed_with_loss_is_told_by_its_pixels_in_a_file_of_any_kind(kind: str) -> None:
    """As where a screenshot of a JPEG is a PNG."""
    for seed in range(3):
        original, marked = compressed(scene(seed), 85, kind), compressed(drawn(scene(seed)), 85, kind)
        hidden = Marked("#ff00ff").hidden(marked, jpeg=False)[..., 0]
        assert not (near(marked) & ~near(original) & ~hidden).any() and hidden.mean() < 0.45


def test_the_color_that_a_jpeg_spreads_between_strokes_is_hidden() -> None:
    """On black, where it is darker than the color and nothing shows it as such."""
    black = Image.new("RGB", (96, 72), (12, 14, 10))
    original, marked = compressed(black, 85), compressed(drawn(black), 85)
    hidden = Marked("#ff00ff").hidden(marked, jpeg=True)[..., 0]
    assert not ((np.abs(marked.astype(int) - original).max(2) > 40) & ~hidden).any()
    assert hidden.mean() < 0.35


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_petals_of_nearly_the_color_are_not_swallowed(kind: str) -> None:
    """A large petal within the threshold of JPEG, beside text in the color."""
    petal = Image.new("RGB", (160, 96), (60, 110, 50))
    ImageDraw.Draw(petal).ellipse((70, 4, 156, 92), fill=(235, 70, 205))
    marked = petal.filter(ImageFilter.GaussianBlur(1))
    ImageDraw.Draw(marked).text((4, 30), "TEXT", fill=(255, 0, 255), font=ImageFont.load_default(size=20))
    pixels = compressed(marked, 85) if kind == "JPEG" else np.asarray(marked)
    hidden = Marked("#ff00ff").hidden(pixels, jpeg=kind == "JPEG")[..., 0]
    assert near(pixels)[:, 90:].sum() > 4000 and hidden[:, 90:].mean() < 0.02
    assert not (near(pixels)[:, :64] & ~hidden[:, :64]).any()


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large image is looked at part by part, and a color that runs through the parts is one."""
    image = np.tile(np.asarray(strokes(scene(0))), (2, 2, 1))
    whole = Marked("#ff00ff").hidden(image, jpeg=False)
    monkeypatch.setattr("diffusion.data.images.marks.TILE", 48)
    assert np.array_equal(Marked("#ff00ff").hidden(image, jpeg=False), whole)


def test_similar_colors_elsewhere_stay_known() -> None:
    pixels = np.full((40, 40, 3), (250, 120, 200), dtype=np.uint8)  # Pink, within the reach of the rim.
    pixels[:, :20] = (90, 120, 90)
    pixels[10:14, 8:12] = MAGENTA
    hidden = Marked("#ff00ff").hidden(pixels, jpeg=False)[..., 0]
    assert hidden[9:15, 7:13].all() and hidden.sum() == 36
    # Of pink that touches the color only what is next to it is hidden.
    pixels[10:14, 24:28] = MAGENTA
    touching = Marked("#ff00ff").hidden(pixels, jpeg=False)[..., 0]
    assert touching[:, 20:].sum() <= (4 + 2 * 3) ** 2


def test_a_threshold_is_taken_as_it_is_given() -> None:
    pixels = np.array([[[255, 0, 255], [255, 40, 255], [255, 120, 255]]], dtype=np.uint8)
    for threshold, expected in ((0.0, [1, 0, 0]), (0.16, [1, 1, 0]), (0.5, [1, 1, 1])):
        hidden = Marked("magenta", threshold).hidden(pixels, jpeg=False, rim=False)
        assert hidden[0, :, 0].tolist() == [bool(v) for v in expected]
    with pytest.raises(InputError, match="--unknown-color: must be a color such as #ff00ff, got 'pinkish'"):
        Marked("pinkish")
    with pytest.raises(InputError, match=r"--threshold: must be in \[0, 1\], got 1\.5"):
        Marked("#f0f", 1.5)


@pytest.mark.parametrize("reach", [0, 1, 3, 50])
def test_grown_is_the_largest_of_a_square(reach: int) -> None:
    hidden = np.random.default_rng(0).random((17, 23, 2)) < 0.03
    size = 2 * reach + 1
    for channel in range(2):
        image = Image.fromarray(255 * hidden[..., channel].astype(np.uint8))
        wide = Image.fromarray(np.pad(np.asarray(image), reach))
        expected = np.asarray(wide.filter(ImageFilter.MaxFilter(size))) > 0 if reach < 20 else None
        found = grown(hidden, reach)[..., channel]
        inner = slice(reach, -reach or None)
        assert np.array_equal(found, expected[inner, inner]) if expected is not None else found.all()
