from __future__ import annotations

from dataclasses import fields

from diffusion.operators.registry import OPERATORS
from diffusion.page.choices import PRIVATE, choices
from diffusion.registries import _type
from diffusion.restoration.methods import METHODS
from diffusion.samplers import SAMPLERS


def test_the_names_are_those_of_the_registries() -> None:
    assert choices()["samplers"] == [*SAMPLERS]
    assert choices()["methods"] == ["auto", *METHODS]
    assert [one["name"] for one in choices()["operators"]] == sorted({*OPERATORS} - {PRIVATE})


def test_the_options_of_operators_are_those_that_a_text_can_state() -> None:
    for one in choices()["operators"]:
        kind = OPERATORS[one["name"]]
        stated = {field.name: field.default for field in fields(kind) if _type(field) is not None}
        assert {option["name"]: option["default"] for option in one["options"]} == stated
        assert one["what"].endswith((".", ":")) or ": " in one["what"], one["what"]
        assert "(B," not in one["what"] and "`" not in one["what"]
        assert all("`" not in option["what"] for option in one["options"])


def test_what_is_said_of_an_option_is_the_sentence_about_it_and_of_the_operator_the_first_one() -> None:
    operators = {one["name"]: one for one in choices()["operators"]}
    factor = next(option for option in operators["downsample"]["options"] if option["name"] == "factor")
    assert factor["what"] == "factor is any number from 1, or a pair of them, down and across."
    assert "counterclockwise" in operators["motion"]["what"]
    assert not any(option["what"] for option in operators["motion"]["options"]), "it would say the same once more"
