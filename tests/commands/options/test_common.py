"""The options that several commands share are those of the parts that they set, with the same defaults."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest
import tyro

from diffusion.commands.options import DrawArguments, Inpaint, Restore, Sample, common
from diffusion.draw import Draw
from diffusion.restoration import METHODS
from diffusion.samplers import SAMPLERS


def test_the_command_line_offers_exactly_what_there_is() -> None:
    assert get_args(common.SamplerName) == tuple(SAMPLERS) and get_args(common.MethodName) == ("auto", *METHODS)


def test_a_draw_of_the_command_line_has_the_fields_of_a_draw() -> None:
    assert [field.name for field in fields(DrawArguments)] == [field.name for field in fields(Draw)]
    assert DrawArguments() == DrawArguments(**vars(Draw()))


@pytest.mark.parametrize(
    ("kind", "arguments", "n"),
    [
        (Sample, ["run"], 16),
        (Inpaint, ["run", "photo.png"], 4),
        (Restore, ["run", "photo.png", "--operator", "gray"], 4),
    ],
)
def test_how_images_are_drawn_is_said_in_the_same_words_by_all_commands(
    kind: type[Sample | Inpaint | Restore], arguments: list[str], n: int
) -> None:
    def draw(*more: str) -> Draw:
        parsed = tyro.cli(kind, args=[*arguments, *more])
        return parsed.draw if isinstance(parsed, Sample) else parsed.options.draw

    assert draw() == DrawArguments(n=n)
    words = {"n": "3", "steps": "5", "sampler": "ddim", "seed": "2", "label": "disk", "guidance": "1.5", "batch": "6"}
    assert draw(*(word for name, value in words.items() for word in (f"--{name}", value))) == DrawArguments(
        3, 5, "ddim", 2, "disk", 1.5, 6
    )
