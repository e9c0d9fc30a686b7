"""Parses the name of a component and its options from a text such as `blur:sigma=2,border=circular`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

from diffusion.errors import InputError

Component = TypeVar("Component")
Value = bool | int | float | str

# The types whose values a text can state, by the name that an annotation gives them.
TYPES: dict[str, type[Value]] = {"bool": bool, "int": int, "float": float, "str": str}


def parse_one(text: str, registry: Mapping[str, type[Component]], what: str) -> Component:
    """Returns the component that `name:field=value,field=value` describes, an instance of `registry[name]`.

    The classes of the registry are dataclasses. A text can set the fields whose default is a bool, a number or a
    string, and those that are one of these or None by default; all others are set from Python alone. A bool is written
    true or false. Errors call the component `what`.

    Raises InputError for a name or an option that does not exist, and for a value of the wrong type; the class itself
    checks the range of its values.
    """
    name, _, options = text.partition(":")
    if name not in registry:
        raise InputError(f"{what}: must be one of {', '.join(registry)}, got {name!r}")
    kind = registry[name]
    types = {field.name: known for field in fields(kind) if (known := _type(field)) is not None}  # type: ignore[arg-type]
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Value] = {}
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not equals or key not in types:
            takes = ", ".join(f"{key}={_written(defaults[key])}" for key in types) or "no options"
            raise InputError(f"{what} {name}: takes {takes}; got {option!r}")
        given[key] = _value(f"{name}.{key}", value, types[key])
    return kind(**given)


def _type(field: Field[Any]) -> type[Value] | None:
    """The type of a field's values if a text can state them."""
    if field.default is None:
        return TYPES.get(str(field.type).removesuffix(" | None"))
    return TYPES.get(type(field.default).__name__)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(where: str, text: str, kind: type[Value]) -> Value:
    if kind is str:
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"{where}: must be true or false, got {text!r}")
        return text == "true"
    try:
        value = float(text) if kind is float else int(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: must be {'a whole' if kind is int else 'a'} number, got {text!r}")
    return value
