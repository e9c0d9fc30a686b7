"""Registries: dict literals from names to classes, at the end of the files whose classes they name.

A folder's registry is the union of the dicts of its files, so that a new entry is one file (`collect`). The command
line must know the names before torch is imported, and reads them from the source (`names`). A text such as
`blur:sigma=2` names an entry and its options (`parse_one`). This file imports nothing heavy.
"""

from __future__ import annotations

import ast
import importlib
import math
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from diffusion.errors import InputError, nearest

Component = TypeVar("Component")
Value = bool | int | float | str

# The types whose values a text can state, by the name that an annotation gives them.
TYPES: dict[str, type[Value]] = {"bool": bool, "int": int, "float": float, "str": str}
ROOT = Path(__file__).parent


def collect(package: str, attribute: str) -> dict[str, type[Any]]:
    """The union of the dicts called `attribute` in the modules of a package, by name, as `names` reads them.

    The package's own `registry`, which calls this, is passed over. Raises ValueError as `merge` does.
    """
    folder = ROOT.joinpath(*package.split(".")[1:])
    found = sorted(info.name for info in pkgutil.iter_modules([str(folder)]) if info.name != "registry")
    return merge([importlib.import_module(f"{package}.{name}") for name in found], attribute)


def merge(modules: Iterable[ModuleType], attribute: str) -> dict[str, type[Any]]:
    """Merges the dicts called `attribute` of modules, those that have any, in the order of the names.

    Raises ValueError where two modules claim one name.
    """
    owners: dict[str, ModuleType] = {}
    for module in modules:
        for name in getattr(module, attribute, {}):
            if name in owners:
                raise ValueError(
                    f"{attribute}: {name!r} is claimed by {owners[name].__name__} and by {module.__name__}"
                )
            owners[name] = module
    return {name: getattr(owners[name], attribute)[name] for name in sorted(owners)}


def names(path: str, attribute: str) -> tuple[str, ...]:
    """The keys of the dict literals called `attribute` in a file or folder of this package.

    The keys of a file keep their order, those of a folder are sorted. The source is read and not run.
    """
    source = ROOT / path
    if source.is_dir():
        return tuple(sorted(key for file in source.glob("*.py") for key in _keys(file, attribute)))
    return tuple(_keys(source, attribute))


def _keys(path: Path, attribute: str) -> list[str]:
    """The keys of the annotated dict literal called `attribute` in a file; none without such a dict."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        if isinstance(node.target, ast.Name) and node.target.id == attribute:
            return [str(ast.literal_eval(key)) for key in node.value.keys if key is not None]
    return []


def parse_one(text: str, registry: Mapping[str, type[Component]], what: str) -> Component:
    """Returns the component that `name:field=value,field=value` describes, an instance of `registry[name]`.

    `text` is read as by `parse_fields`; errors call the component `what`. Raises InputError as that does; the class
    itself checks the range of its values.
    """
    kind, given = parse_fields(text, registry, what)
    return kind(**given)


def parse_fields(
    text: str, registry: Mapping[str, type[Component]], what: str
) -> tuple[type[Component], dict[str, Value]]:
    """Returns the class that `name:field=value,field=value` names, and the values of its fields that the text states.

    The classes of the registry are dataclasses. A text can set the fields whose default is a bool, a number or a
    string, and those that are one of these or None by default; all others are set from Python alone. A bool is written
    true or false. A first value without `field=` is that of the first of the class's `essential` fields, if it has
    such, or else of its first field. Spaces and capitals do not matter in names.

    Raises InputError for a name or an option that does not exist, and for a value of the wrong type.
    """
    name, _, options = text.partition(":")
    name = name.strip()
    if name not in registry:
        name = name.lower()
    if name not in registry:
        named = text.partition(":")[0]
        raise InputError(f"{what}: must be one of {', '.join(registry)}, got {named!r}{nearest(named, registry)}")
    kind = registry[name]
    types = {field.name: known for field in fields(kind) if (known := _type(field)) is not None}  # type: ignore[arg-type]
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Value] = {}
    for option in filter(None, map(str.strip, options.split(","))):
        key, equals, value = (part.strip() for part in option.partition("="))
        if not equals and not given and types:
            key, value = next(iter((*getattr(kind, "essential", ()), *types))), key
        key = key if key in types else key.lower()
        if key not in types or not value:
            takes = ", ".join(f"{key}={_written(defaults[key])}" for key in types) or "no options"
            raise InputError(f"{what} {name}: takes {takes}; got {option!r}{nearest(key, {*types} - {key})}")
        if key in given:
            raise InputError(f"{what} {name}: must be given {key} once, got {given[key]!r} and {value!r}")
        given[key] = _value(f"{name}.{key}", value, types[key])
    return kind, given


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
        if text.lower() not in ("true", "false"):
            raise InputError(f"{where}: must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (kind is int and not value.is_integer()):
        raise InputError(f"{where}: must be {'a whole' if kind is int else 'a'} number, got {text!r}")
    return kind(value)
