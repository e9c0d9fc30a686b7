"""A text names a component and sets its options, and what is wrong with it is named."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from diffusion.errors import InputError
from diffusion.parsing import parse_one


@dataclass(frozen=True)
class Oven:
    degrees: float = 180.0
    minutes: int = 40
    fan: bool = False
    rack: str = "middle"
    most: int | None = None
    doors: tuple[int, ...] = (1,)
    color: object = None

    def __post_init__(self) -> None:
        if self.minutes < 1:
            raise InputError(f"oven.minutes: must be at least 1, got {self.minutes}")


@dataclass(frozen=True)
class Fridge:
    pass


REGISTRY: dict[str, type[Oven | Fridge]] = {"oven": Oven, "fridge": Fridge}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oven", Oven()),
        ("fridge", Fridge()),
        ("oven:degrees=200", Oven(200.0)),
        ("oven:degrees=2e2,minutes=7,fan=true,rack=top,most=3", Oven(200.0, 7, True, "top", 3)),
        ("oven:fan=false", Oven()),
        ("oven:", Oven()),
    ],
)
def test_a_text_is_a_component(text: str, expected: object) -> None:
    found = parse_one(text, REGISTRY, "machine")
    assert found == expected
    assert [type(value) for value in vars(found).values()] == [type(value) for value in vars(expected).values()]


TAKES = "machine oven: takes degrees=180.0, minutes=40, fan=false, rack=middle, most=None"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ovn", "machine: must be one of oven, fridge, got 'ovn'"),
        ("", "machine: must be one of oven, fridge, got ''"),
        ("fridge:fan=true", "machine fridge: takes no options; got 'fan=true'"),
        ("oven:heat=3", f"{TAKES}; got 'heat=3'"),
        ("oven:fan", f"{TAKES}; got 'fan'"),
        ("oven:doors=1", f"{TAKES}; got 'doors=1'"),
        ("oven:color=1", f"{TAKES}; got 'color=1'"),
        ("oven:degrees=hot", "oven.degrees: must be a number, got 'hot'"),
        ("oven:degrees=inf", "oven.degrees: must be a number, got 'inf'"),
        ("oven:minutes=1.5", "oven.minutes: must be a whole number, got '1.5'"),
        ("oven:most=few", "oven.most: must be a whole number, got 'few'"),
        ("oven:fan=1", "oven.fan: must be true or false, got '1'"),
        ("oven:fan=True", "oven.fan: must be true or false, got 'True'"),
        ("oven:minutes=0", "oven.minutes: must be at least 1, got 0"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_one(text, REGISTRY, "machine")
