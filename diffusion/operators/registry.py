"""Operators by name, as `blur:sigma=2`, `downsample:factor=4,filter=bicubic` or `blur:sigma=1+downsample:factor=2`."""

from __future__ import annotations

import math
from dataclasses import fields

from diffusion.errors import InputError
from diffusion.operators.blur import BoxBlur, GaussianBlur, MotionBlur
from diffusion.operators.downsample import Downsample
from diffusion.operators.jpeg import JPEG
from diffusion.operators.linear import Grayscale, Identity
from diffusion.operators.operator import Operator, compose

OPERATORS: dict[str, type[Operator]] = {
    "denoise": Identity,
    "gray": Grayscale,
    "blur": GaussianBlur,
    "box": BoxBlur,
    "motion": MotionBlur,
    "downsample": Downsample,
    "jpeg": JPEG,
}


def parse(text: str) -> Operator:
    """The operator that a text names: `name:field=value,field=value`; several joined by `+` act from left to right.

    Raises InputError naming the part that is not understood, and what would be.
    """
    first, *others = (_one(part.strip()) for part in text.split("+"))
    for operator in others:
        first = compose(operator, first)
    return first


def _one(text: str) -> Operator:
    name, _, options = text.partition(":")
    if name not in OPERATORS:
        raise InputError(f"operator: must be one of {', '.join(OPERATORS)}, got {name!r}")
    kind = OPERATORS[name]
    # Whatever has a default of a type that a word can state; the rest is for Python.
    defaults = {field.name: field.default for field in fields(kind) if isinstance(field.default, int | float | str)}  # type: ignore[arg-type]
    given: dict[str, int | float | str] = {}
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not equals or key not in defaults:
            known = ", ".join(f"{name}={value}" for name, value in defaults.items()) or "no options"
            raise InputError(f"operator {name}: takes {known}; got {option!r}")
        given[key] = _value(f"{name}.{key}", value, defaults[key])
    return kind(**given)


def _value(where: str, text: str, default: int | float | str) -> int | float | str:
    if isinstance(default, str):
        return text
    try:
        value = type(default)(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: must be {'a whole' if isinstance(default, int) else 'a'} number, got {text!r}")
    return value
