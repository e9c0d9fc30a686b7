"""A text names a component and sets its options, and what is wrong with it is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType

import pytest

from diffusion import registries
from diffusion.backbones import BACKBONES
from diffusion.errors import InputError
from diffusion.evaluation import EVALUATORS
from diffusion.operators import OPERATORS, GaussianBlur, Identity
from diffusion.registries import parse_one
from diffusion.restoration import METHODS
from diffusion.samplers import SAMPLERS


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
        ("oven:200", Oven(200.0)),
        ("oven:200,minutes=7", Oven(200.0, 7)),
        ("Oven: Degrees=200, fan = True", Oven(200.0, fan=True)),
        ("oven:minutes=7.0,most=3.0", Oven(minutes=7, most=3)),
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
        ("ovn", "machine: must be one of oven, fridge, got 'ovn'; did you mean oven?"),
        ("", "machine: must be one of oven, fridge, got ''"),
        ("fridge:fan=true", "machine fridge: takes no options; got 'fan=true'"),
        ("oven:heat=3", f"{TAKES}; got 'heat=3'"),
        ("oven:fan", "oven.degrees: must be a number, got 'fan'"),
        ("oven:minutes=", f"{TAKES}; got 'minutes='"),
        ("oven:minutes=3,7", f"{TAKES}; got '7'"),
        ("oven:200,degrees=100", "machine oven: must be given degrees once, got 200.0 and '100'"),
        ("fridge:3", "machine fridge: takes no options; got '3'"),
        ("oven:doors=1", f"{TAKES}; got 'doors=1'"),
        ("oven:color=1", f"{TAKES}; got 'color=1'"),
        ("oven:degrees=hot", "oven.degrees: must be a number, got 'hot'"),
        ("oven:degrees=inf", "oven.degrees: must be a number, got 'inf'"),
        ("oven:minutes=1.5", "oven.minutes: must be a whole number, got '1.5'"),
        ("oven:most=few", "oven.most: must be a whole number, got 'few'"),
        ("oven:fan=1", "oven.fan: must be true or false, got '1'"),
        ("oven:minutes=0", "oven.minutes: must be at least 1, got 0"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_one(text, REGISTRY, "machine")


def module(name: str, **members: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def test_the_names_of_all_files_are_merged_in_order() -> None:
    first, second = module("first", OPERATORS={"soft": GaussianBlur}), module("second", OPERATORS={"none": Identity})
    merged = registries.merge([first, module("third"), second], "OPERATORS")
    assert list(merged.items()) == [("none", Identity), ("soft", GaussianBlur)]


def test_a_name_that_two_files_claim_is_an_error() -> None:
    files = [module(name, OPERATORS={"soft": GaussianBlur}) for name in ("first", "second")]
    with pytest.raises(ValueError, match=r"^OPERATORS: 'soft' is claimed by first and by second$"):
        registries.merge(files, "OPERATORS")


@pytest.mark.parametrize(
    ("place", "attribute", "registry"),
    [
        ("operators", "OPERATORS", OPERATORS),
        ("evaluation", "EVALUATORS", EVALUATORS),
        ("samplers.py", "SAMPLERS", SAMPLERS),
        ("restoration/methods.py", "METHODS", METHODS),
        ("backbones/__init__.py", "BACKBONES", BACKBONES),
    ],
)
def test_names_read_from_the_source_are_those_of_the_registry(
    place: str, attribute: str, registry: dict[str, type]
) -> None:
    assert registries.names(place, attribute) == tuple(registry) and len(registry) >= 3


def test_a_file_without_the_dict_has_no_names() -> None:
    assert registries.names("errors.py", "OPERATORS") == ()
