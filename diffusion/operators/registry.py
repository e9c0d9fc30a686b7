"""Operators by name, as `blur:sigma=2`, `downsample:factor=4,filter=bicubic` or `blur:sigma=1+downsample:factor=2`.

A file of this folder that defines operators which a text can name ends with a dict literal `OPERATORS` from names to
classes. This module merges those dicts, so that a new operator is one new file, or a few lines in one. The command line
reads the names from the source, without torch: they have to be string literals.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from diffusion.operators.operator import Operator, compose
from diffusion.parsing import parse_one


def merge(modules: Iterable[ModuleType]) -> dict[str, type[Operator]]:
    """Merges the `OPERATORS` of modules, those that have any, in the order of the names.

    Raises ValueError where two modules claim one name.
    """
    owners: dict[str, ModuleType] = {}
    for module in modules:
        for name in getattr(module, "OPERATORS", {}):
            if name in owners:
                raise ValueError(f"operator {name!r}: claimed by {owners[name].__name__} and by {module.__name__}")
            owners[name] = module
    return {name: owners[name].OPERATORS[name] for name in sorted(owners)}


def _modules() -> list[ModuleType]:
    """All other modules of this folder."""
    package, _, own = __name__.rpartition(".")
    names = sorted(info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return [importlib.import_module(f"{package}.{name}") for name in names if name != own]


OPERATORS = merge(_modules())


def parse(text: str) -> Operator:
    """Returns the operator that a text names: `name:field=value,field=value`, or several joined by `+`, which act from
    left to right.

    Raises InputError that quotes the part that is not understood and says what would be.
    """
    first, *others = (parse_one(part.strip(), OPERATORS, "operator") for part in text.split("+"))
    for operator in others:
        first = compose(operator, first)
    return first
