"""Words name operators, and a file of the folder is all that a new one takes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from diffusion.errors import InputError
from diffusion.operators import JPEG, OPERATORS, Downsample, GaussianBlur, KernelBlur, parse, registry
from tests.operators.conftest import normal


def test_operators_are_named_in_words() -> None:
    assert parse("blur") == GaussianBlur() and parse("blur:sigma=3,border=circular") == GaussianBlur(3.0, "circular")
    assert parse("downsample:factor=2") == Downsample(2) and parse("jpeg:quality=30") == JPEG(30)
    x = normal(1, 3, 16, 16)
    both = parse("blur:sigma=1 + downsample:factor=4")
    assert torch.equal(both(x), Downsample(4)(GaussianBlur(1.0)(x)))
    assert parse("gray+jpeg:quality=30")(x).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blurr", f"operator: must be one of {', '.join(OPERATORS)}, got 'blurr'; did you mean blur?"),
        ("", f"operator: must be one of {', '.join(OPERATORS)}, got ''"),
        ("blur:length=3", "operator blur: takes sigma=2.0, border=reflect; got 'length=3'"),
        ("denoise:sigma=1", "operator denoise: takes no options; got 'sigma=1'"),
        ("downsample:factor=0", "downsample.factor: must be at least 1, got 0"),
        ("blur:sigma=1,sigma=2", "operator blur: must be given sigma once, got 1.0 and '2'"),
        ("kernel", "operator kernel: must say how strong the damage was, as in kernel:file=...;"),
        ("kernel:psf.png", "operator kernel: must be given as KernelBlur(values=...) here, got 'kernel:psf.png'"),
        ("deblur", "operator: must name what damaged the image, as in blur:sigma=..., got 'deblur'"),
        ("upscale:4", "operator: must name what damaged the image, as in downsample:factor=..., got 'upscale:4'"),
        (
            "blind",
            "operator: must say how the image was damaged, as in blur:sigma=2, got 'blind'; nothing",
        ),
        ("downsample:filter=nearest", "downsample.filter: must be area or bicubic, got 'nearest'"),
        ("blur:sigma=nan", "blur.sigma: must be a number, got 'nan'"),
        ("blur:sigma=-1", "blur.sigma: must be a positive number, got -1"),
        ("blur:border=zero", "blur.border: must be reflect or circular, got 'zero'"),
        ("box:size=4", "box.size: must be an odd number of pixels, got 4"),
        ("jpeg:quality=0", "jpeg.quality: must be between 1 and 100, got 0"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(text)


@pytest.mark.parametrize("text", ["blur:3", "Blur:sigma=3", "blur: sigma = 3", "BLUR: 3.0 "])
def test_spaces_capitals_and_a_missing_name_of_the_first_option_are_no_mistake(text: str) -> None:
    assert parse(text) == GaussianBlur(3.0) and parse(f"{text} + Downsample: 2") is not None


def test_a_kernel_is_read_from_its_file_and_scaled_to_sum_to_one() -> None:
    values = torch.tensor([[0.0, 2.0, 0.0], [1.0, 4.0, 1.0], [0.0, 0.0, 0.0]])
    read: list[str] = []

    def from_file(file: str) -> torch.Tensor:
        read.append(file)
        return values

    blur = parse("kernel:psf.png,border=circular", read_kernel=from_file)
    x = normal(1, 1, 6, 5)
    assert read == ["psf.png"] and torch.equal(blur(x), KernelBlur(values, "circular")(x))
    assert float(blur(torch.ones_like(x)).mean()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("text", ["blur", "box", "motion:angle=3", "downsample:filter=bicubic", "jpeg", "gray+jpeg"])
def test_damage_that_has_happened_must_be_stated_in_full(text: str) -> None:
    assert parse(text) is not None
    with pytest.raises(InputError, match=r"must say how strong the damage was, as in .*=\.\.\.; it is not estimated"):
        parse(text, happened=True)


@pytest.mark.parametrize("text", ["blur:2", "gray", "denoise", "downsample:size=64x48", "motion:length=3+jpeg:30"])
def test_damage_that_is_stated_in_full_is_taken(text: str) -> None:
    parse(text, happened=True)


def test_every_file_gives_its_names_as_a_literal_that_can_be_read_without_torch() -> None:
    """The command line reads them so."""
    read = [
        ast.literal_eval(key)
        for path in Path(registry.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.target) == "OPERATORS"
        and isinstance(node.value, ast.Dict)
        for key in node.value.keys
    ]
    assert sorted(read) == list(OPERATORS)
