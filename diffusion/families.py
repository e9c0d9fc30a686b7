"""Families of operators: a text such as `blur:sigma=1..3+jpeg:quality=20..90`, some of whose options are ranges.

A family is what a network learns to restore (`conditioning`). An operator belongs to it that has the same parts in the
same order, the same options where the text states one value, and options within the ranges where it states two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from diffusion.errors import InputError, require
from diffusion.operators import JPEG, Chain, Composition, Linear, Operator, compose, parse
from diffusion.operators.jpeg import BLOCK

Shape = tuple[int, ...]
# Values of an option that examples are drawn with, evenly spaced from one end of its range to the other. They are
# finitely many, so that what operators work with is made once.
VALUES = 33
# The relative difference up to which two values of an option are the same.
SAME = 1e-6
_RANGE = re.compile(r"([^=:,]+?)\.\.([^,]+)")


@dataclass(frozen=True)
class Span:
    """The range of the option `field` of the part number `part`; `whole` says that it takes whole numbers."""

    part: int
    field: str
    low: float
    high: float
    whole: bool

    def value(self, place: float) -> float | int:
        """The value at a place in [0, 1] of the range, rounded where it is whole."""
        value = self.low + place * (self.high - self.low)
        return round(value) if self.whole else value

    def place(self, value: float) -> float:
        """The place of a value in the range: 0 at its low end, 1 at its high end."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Family:
    """Operators that consist of `parts`, which act one after the other; `spans` are the ranges of their options.

    Options with a range have their low end in `parts`.
    """

    text: str
    parts: tuple[Operator, ...]
    spans: tuple[Span, ...]

    @classmethod
    def parse(cls, text: str) -> Family:
        """The family that a text names: that of `operators.parse`, where a number may be a range, as in 1..3.

        Raises InputError that quotes what is not understood, and for a range that is not one of increasing numbers.
        """
        parts: list[Operator] = []
        spans: list[Span] = []
        for number, part in enumerate(text.split("+")):
            parts.append(_end(part))
            spans += (_span(part, number, found) for found in _RANGE.finditer(part))
        return cls(text, tuple(parts), tuple(spans))

    def at(self, places: Sequence[float]) -> tuple[Operator, ...]:
        """The parts of the operator whose options lie at places in [0, 1] of their ranges, one for each span."""
        parts = list(self.parts)
        for span, place in zip(self.spans, places, strict=True):
            parts[span.part] = _with(parts[span.part], span.field, span.value(place))
        return tuple(parts)

    @property
    def ends(self) -> tuple[tuple[Operator, ...], ...]:
        """The parts of the operators at both ends of all ranges."""
        return self.at([0.0] * len(self.spans)), self.at([1.0] * len(self.spans))

    def places(self, operator: Operator) -> tuple[float, ...]:
        """The places in [0, 1] of the options of an operator within the ranges.

        Raises InputError, which says what differs, for an operator that does not belong to the family.
        """
        parts = [*flattened(operator)]
        kinds = [type(part) for part in parts], [type(part) for part in self.parts]
        require(kinds[0] == kinds[1], "operator", f"{self.text}, which this network learned", _named(parts))
        free = {(span.part, span.field): span for span in self.spans}
        found: dict[Span, float] = {}
        for number, (part, own) in enumerate(zip(parts, self.parts, strict=True)):
            for name in (field.name for field in fields(own)):  # type: ignore[arg-type]
                value, span = _plain(getattr(part, name)), free.get((number, name))
                if span is None:
                    same = _same(value, _plain(getattr(own, name)))
                    require(same, f"operator: {name}", f"{getattr(own, name)}, which this network learned", value)
                else:
                    found[span] = span.place(value) if isinstance(value, (int, float)) else math.nan
                    inside = -SAME <= found[span] <= 1 + SAME
                    rule = f"in [{span.low:g}, {span.high:g}], which this network learned"
                    require(inside, f"operator: {name}", rule, value)
        return tuple(min(1.0, max(0.0, found[span])) for span in self.spans)

    def check(self, shape: Shape) -> None:
        """Raises InputError for operators that take no examples of a shape (C, *), or from whose observations the shape
        does not follow.
        """
        free = {span.part for span in self.spans}
        for parts in self.ends:
            for number, (part, (before, after)) in enumerate(zip(parts, steps(parts, shape), strict=True)):
                linear = before == after or isinstance(part, Linear)
                require(linear, "operator", "linear where it changes the size of the image", part)
                if number in free or len(before) < 3 or before[-2:] == part.size_before((after[-2], after[-1])):
                    continue
                size = "x".join(map(str, before[1:]))
                rule = f"one that divides the size of the image, {size}, into whole pixels"
                raise InputError(f"operator: must be {rule}, got {part}")


def observation(parts: Sequence[Operator]) -> Operator:
    """Returns the operator that consists of parts, which act one after the other."""
    first, *others = parts
    for part in others:
        first = compose(part, first)
    return first


def brought_back(parts: Sequence[Operator], y: Tensor, shape: Shape) -> Tensor:
    """Returns the observation y (B, *) of parts in the shape of the examples, (B, C, *): the pseudo-inverses of the
    parts that changed the shape, the last one first.

    Parts that keep the shape are not undone. Nothing is lost where the others have full row rank, as `downsample` and
    `gray` do: what is returned determines y. The pseudo-inverse of a blur would multiply the noise of y by up to the
    inverse of its smallest singular value, which no network can look past.
    """
    for part, (before, after) in zip(reversed(parts), reversed(steps(parts, shape)), strict=True):
        if before != after:
            assert isinstance(part, Linear)
            y = part.pinv(y, y.new_zeros(()).expand(len(y), *before))
    return y


def steps(parts: Sequence[Operator], shape: Shape) -> list[tuple[Shape, Shape]]:
    """Returns the shapes (C, *) before and after each part, for examples of a shape.

    Raises InputError for a part that does not take what the one before it makes.
    """
    found = []
    for part in parts:
        after = _made(part, shape)
        found.append((shape, after))
        shape = after
    return found


@lru_cache(maxsize=1024)
def _made(part: Operator, shape: Shape) -> Shape:
    return tuple(part(torch.zeros(1, *shape)).shape[1:])


def period(parts: Sequence[Operator], shape: Shape) -> int:
    """Returns by how many pixels an image of a shape (C, H, W) may be moved such that parts make the same of it, moved,
    as far as the pixels of smaller images and the blocks of JPEG decide; 1 where no number of pixels does.
    """
    found, shapes = 1, steps(parts, shape)
    for part, (before, after) in zip(parts, shapes, strict=True):
        ratios = {whole / small for whole, small in zip(shape[1:], after[1:], strict=True)}
        if before == after and isinstance(part, JPEG):
            ratios = {BLOCK * ratio for ratio in ratios}
        for ratio in ratios:
            if not ratio.is_integer():
                return 1
            found = math.lcm(found, int(ratio))
    return found


def flattened(operator: Operator) -> Iterator[Operator]:
    """Yields the parts of an operator in the order in which they act."""
    if isinstance(operator, (Composition, Chain)):
        yield from flattened(operator.first)
        yield from flattened(operator.last)
    else:
        yield operator


def _end(part: str, *, high: re.Match[str] | None = None) -> Operator:
    """The operator of a part at the low ends of its ranges; that of the match `high` is at its high end."""
    text = _RANGE.sub(lambda found: found[2 if high and found.start() == high.start() else 1], part)
    return parse(text, happened=True)


def _span(part: str, number: int, found: re.Match[str]) -> Span:
    low, high = _end(part), _end(part, high=found)
    values = {field.name: (getattr(low, field.name), getattr(high, field.name)) for field in fields(low)}  # type: ignore[arg-type]
    changed = {name: ends for name, ends in values.items() if ends[0] != ends[1]}
    rule, text = "a range of numbers that increases, as in 1..3", found[0].strip()
    require(len(changed) == 1, "operator", rule, text)
    (name, (least, most)) = changed.popitem()
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (least, most))
    require(numbers and least < most, "operator", rule, text)
    return Span(number, name, float(least), float(most), isinstance(least, int))


@lru_cache(maxsize=1024)
def _with(part: Operator, field: str, value: float) -> Operator:
    """A part with another option; the same object for the same option, as operators keep what they work with."""
    return replace(part, **{field: value})  # type: ignore[type-var]


def _plain(value: Any) -> Any:  # noqa: ANN401, options of operators are of any type
    """An option, where the same number for both sides is that number."""
    return value[0] if isinstance(value, tuple) and len(value) == 2 and _same(*value) else value


def _same(a: Any, b: Any) -> bool:  # noqa: ANN401
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=SAME)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b
    return bool(a == b)


def _named(parts: Sequence[Operator]) -> str:
    return " + ".join(map(str, parts))
