"""Words name operators, and a file of the folder is all that a new one takes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from diffusion.operators import JPEG, OPERATORS, Downsample, GaussianBlur, parse, registry
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
        ("blurr", f"operator: must be one of {', '.join(OPERATORS)}, got 'blurr'"),
        ("", f"operator: must be one of {', '.join(OPERATORS)}, got ''"),
        ("blur:size=3", "operator blur: takes sigma=2.0, border=reflect; got 'size=3'"),
        ("denoise:sigma=1", "operator denoise: takes no options; got 'sigma=1'"),
        ("downsample:factor=1.5", "downsample.factor: must be a whole number, got '1.5'"),
        ("downsample:factor=0", "downsample.factor: must be at least 1, got 0"),
        ("downsample:filter=nearest", "downsample.filter: must be area or bicubic, got 'nearest'"),
        ("blur:sigma=nan", "blur.sigma: must be a number, got 'nan'"),
        ("blur:sigma=-1", "blur.sigma: must be a positive number, got -1"),
        ("blur:border=zero", "blur.border: must be reflect or circular, got 'zero'"),
        ("box:size=4", "box.size: must be an odd number of pixels, got 4"),
        ("jpeg:quality=0", "jpeg.quality: must be between 1 and 100, got 0"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}".replace("[", r"\[")):
        parse(text)


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
