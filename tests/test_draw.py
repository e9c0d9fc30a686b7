"""How samples are drawn is spelled once: keywords, fields, and their checks."""

from __future__ import annotations

from dataclasses import fields

import pytest

from diffusion.draw import TILES, Draw, DrawOptions, SampleDraw, SampleOptions
from diffusion.errors import InputError


@pytest.mark.parametrize(("draw", "options"), [(Draw, DrawOptions), (SampleDraw, SampleOptions)])
def test_the_keywords_are_the_fields_but_the_number_of_samples(draw: type[Draw], options: type[DrawOptions]) -> None:
    names = [field.name for field in fields(draw)]
    assert names[0] == "n" and list(options.__annotations__) == names[1:]
    types = {field.name: field.type for field in fields(draw)}
    annotations = {name: kind.__forward_arg__ for name, kind in options.__annotations__.items()}
    assert annotations == {name: types[name] for name in names[1:]}
    assert not options.__required_keys__, "every keyword may be left out"


def test_samples_have_the_size_of_the_model_unless_told_otherwise() -> None:
    assert SampleDraw(2).size is None and SampleDraw(2).overlap is None and SampleDraw(2).tiles == TILES[0]


def test_a_keyword_that_is_left_out_has_the_default_of_the_field() -> None:
    options: DrawOptions = {"steps": 3, "label": [0, 1]}
    assert Draw(2, **options) == Draw(n=2, steps=3, label=[0, 1]) and Draw().n == 16
    assert Draw(2, **options).seed == 0 and Draw().sampler is Draw().guidance is Draw().batch is None


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (Draw(0), "n: must be at least 1, got 0"),
        (Draw(-3), "n: must be at least 1, got -3"),
        (Draw(batch=0), "batch: must be at least 1, got 0"),
    ],
)
def test_counts_below_one_are_refused(draw: Draw, message: str) -> None:
    with pytest.raises(InputError) as caught:
        draw.checked()
    assert str(caught.value) == message


def test_a_draw_that_is_checked_is_returned_as_it_is() -> None:
    for draw in (Draw(1), Draw(5, batch=1, seed=-2)):
        assert draw.checked() is draw


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (Draw("4"), "n: must be a whole number, got '4'"),  # type: ignore[arg-type]
        (Draw(2.5), "n: must be a whole number, got 2.5"),  # type: ignore[arg-type]
        (Draw(steps="9"), "steps: must be a whole number, got '9'"),  # type: ignore[arg-type]
        (Draw(seed=0.5), "seed: must be a whole number, got 0.5"),  # type: ignore[arg-type]
        (Draw(batch=[1]), "batch: must be a whole number, got [1]"),  # type: ignore[arg-type]
        (Draw(guidance="2"), "guidance: must be a number, got '2'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_number_is_named(draw: Draw, message: str) -> None:
    with pytest.raises(InputError) as caught:
        draw.checked()
    assert str(caught.value) == message
