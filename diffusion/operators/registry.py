"""Operators by name, as `blur:sigma=2`, `downsample:factor=4,filter=bicubic` or `blur:sigma=1+downsample:factor=2`.

A file of this folder that defines operators which a text can name ends with a dict literal `OPERATORS` from names to
classes, so that a new operator is one new file, or a few lines in one.
"""

from __future__ import annotations

from diffusion.operators.operator import Operator, compose
from diffusion.registries import collect, parse_one

OPERATORS: dict[str, type[Operator]] = collect("diffusion.operators", "OPERATORS")


def parse(text: str) -> Operator:
    """Returns the operator that a text names: `name:field=value,field=value`, or several joined by `+`, which act from
    left to right.

    Raises InputError that quotes the part that is not understood and says what would be.
    """
    first, *others = (parse_one(part.strip(), OPERATORS, "operator") for part in text.split("+"))
    for operator in others:
        first = compose(operator, first)
    return first
