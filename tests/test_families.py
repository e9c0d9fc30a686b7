"""Families of operators: what a text with ranges names, what belongs to it, and how observations come back."""

from __future__ import annotations

import re

import pytest
import torch

from diffusion.errors import InputError
from diffusion.families import Family, brought_back, flattened, observation, period, steps
from diffusion.operators import (
    JPEG,
    Downsample,
    GaussianBlur,
    Grayscale,
    MotionBlur,
    Operator,
    compose,
    parse,
)

TEXT = "blur:1..3+downsample:factor=2+jpeg:quality=20..90"


def test_a_text_names_parts_and_ranges() -> None:
    family = Family.parse(TEXT)
    assert family.parts == (GaussianBlur(1.0), Downsample(2.0), JPEG(20))
    found = [(span.part, span.field, span.low, span.high, span.whole) for span in family.spans]
    assert found == [(0, "sigma", 1.0, 3.0, False), (2, "quality", 20.0, 90.0, True)]
    assert family.at((0.25, 0.5)) == (GaussianBlur(1.5), Downsample(2.0), JPEG(55))
    assert family.ends == (family.parts, (GaussianBlur(3.0), Downsample(2.0), JPEG(90)))
    # The same option is the same object, which keeps what it works with.
    assert family.at((0.25, 0.5))[0] is family.at((0.25, 1.0))[0]
    several = Family.parse("motion:length=3..9,angle=-30..30.5").spans
    assert [(span.field, span.low, span.high) for span in several] == [("length", 3, 9), ("angle", -30, 30.5)]


@pytest.mark.parametrize(("sigma", "quality"), [(1.0, 20), (1.7, 41), (3.0, 90)])
def test_what_belongs_to_a_family_has_its_places(sigma: float, quality: int) -> None:
    family = Family.parse(TEXT)
    parts = GaussianBlur(sigma), Downsample((2.0, 2.0 + 1e-9)), JPEG(quality)
    assert family.places(observation(parts)) == pytest.approx(((sigma - 1) / 2, (quality - 20) / 70))
    assert family.places(observation(family.at((0.125, 0.0)))) == (0.125, 0.0)
    assert [*flattened(compose(parts[2], compose(parts[1], parts[0])))] == [*parts]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            "gray",
            "operator: must be blur:1..3+downsample:factor=2+jpeg:quality=20..90, which this network learned, got",
        ),
        ("downsample:factor=2+blur:sigma=2+jpeg:quality=50", "operator: must be blur:1..3+"),
        ("blur:sigma=3.1+downsample:factor=2+jpeg:quality=50", "operator: sigma: must be in [1, 3], which"),
        ("blur:sigma=2,border=circular+downsample:factor=2+jpeg:quality=50", "operator: border: must be reflect"),
        ("blur:sigma=2+downsample:factor=3+jpeg:quality=50", "operator: factor: must be 2.0, which"),
        ("blur:sigma=2+downsample:factor=2+jpeg:quality=19", "operator: quality: must be in [20, 90]"),
    ],
)
def test_what_does_not_belong_is_refused_with_the_difference(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=re.escape(rule)):
        Family.parse(TEXT).places(parse(text))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("blur:sigma=3..1", "operator: must be a range of numbers that increases, as in 1..3, got 3..1"),
        ("blur:sigma=2..2", "must be a range of numbers that increases"),
        ("blur:sigma=2,border=reflect..circular", "must be a range of numbers that increases"),
        ("blurr:sigma=1..2", "did you mean blur?"),
        ("blur", "operator blur: must say how strong"),
        ("jpeg:quality=20.5..90", "jpeg.quality: must be a whole number"),
        ("kernel:file=kernel.png", "operator kernel: must be given as"),
    ],
)
def test_texts_that_are_not_understood_are_quoted(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=re.escape(rule)):
        Family.parse(text)


@pytest.mark.parametrize(
    ("text", "shape", "rule"),
    [
        (
            "downsample:factor=4",
            (3, 30, 32),
            "must be one that divides the size of the image, 30x32, into whole pixels",
        ),
        ("gray", (1, 8, 8), "gray: must be given 3 channels, got 1"),
        ("jpeg:quality=50", (4, 8, 8), "jpeg: must be given 1 or 3 channels, got 4"),
        ("gray+gray", (3, 8, 8), "gray: must be given 3 channels, got 1"),
        ("blur:sigma=1..3", (3, 8, 8), "blur: must be given an image larger than the kernel's reach"),
        ("downsample:size=64x64", (3, 8, 8), "downsample.size: must be resolved"),
    ],
)
def test_operators_that_do_not_suit_the_images_are_refused(text: str, shape: tuple[int, ...], rule: str) -> None:
    with pytest.raises(InputError, match=re.escape(rule)):
        Family.parse(text).check(shape)


@pytest.mark.parametrize("text", ["downsample:factor=2..4", "gray", "denoise", TEXT, "gray+downsample:factor=2"])
def test_others_suit_them(text: str) -> None:
    Family.parse(text).check((3, 32, 32))


@pytest.mark.parametrize("text", ["gray", "downsample:factor=4", "downsample:factor=4,filter=bicubic"])
def test_what_changed_the_size_is_undone_by_its_pseudo_inverse(text: str) -> None:
    operator, x = parse(text), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    assert isinstance(operator, (Downsample, Grayscale))
    y = operator(x)
    back = brought_back((operator,), y, (3, 16, 16))
    assert torch.equal(back, operator.pinv(y, x))
    # Nothing is lost: y follows from it.
    assert (operator(back) - y).abs().max() < 1e-12


@pytest.mark.parametrize("operator", [GaussianBlur(1.0), MotionBlur(5.0), JPEG(30), parse("denoise")])
def test_what_kept_the_size_is_shown_as_it_is(operator: Operator) -> None:
    y = torch.rand(2, 3, 16, 16)
    assert brought_back((operator,), y, (3, 16, 16)) is y
    assert steps((operator,), (3, 16, 16)) == [((3, 16, 16), (3, 16, 16))]


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        ("blur:sigma=1", 1),
        ("downsample:factor=4", 4),
        ("jpeg:quality=50", 8),
        ("blur:sigma=1+downsample:factor=2+jpeg:quality=50", 16),
        ("jpeg:quality=50+downsample:factor=3", 24),
        ("downsample:factor=2.5", 1),
        ("gray", 1),
    ],
)
def test_operators_make_the_same_of_a_moved_image(text: str, pixels: int) -> None:
    parts = [*flattened(parse(text))]
    assert period(parts, (3, 48, 96)) == pixels
    if pixels == 1:
        return
    operator, x = observation(parts), torch.rand(1, 3, 48, 144, dtype=torch.float64)
    there = operator(x[..., 48:])[..., 8:-8]
    # Away from the borders, which reflect; the image moves by a multiple of the period.
    assert 48 % pixels == 0 and torch.allclose(operator(x)[..., -there.shape[-1] - 8 : -8], there)


def test_parts_are_undone_from_the_last_to_the_first() -> None:
    blur, gray, small = GaussianBlur(1.0), Grayscale(), Downsample(2.0)
    y = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    found = brought_back((blur, gray, small, JPEG(50)), y, (3, 16, 16))
    like = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(found, gray.pinv(small.pinv(y, like[:, :1]), like))
